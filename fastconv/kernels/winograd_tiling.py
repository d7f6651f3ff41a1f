"""Where Winograd's tiles lie, in images and in the memory of their transforms; see conv_winograd.

`tiling` = (S, R, PT, PL, DH, DW, TY, TX): a tile's outputs are S x S, and its inputs start R further than the last tile's; padding above
and left; dilation; how many tiles stand in a column and in a row of the output. S and R are 4 with filters of 3 x 3, 3 with 4 x 4 and 2
with 5 x 5; with stride 2 they are 4 and 8, or 8 and 4 for the input's gradient. With dilation neighbours in a tile are DH rows and DW
columns apart, so tiles lie in DH * DW lattices, one moved by (py, px) for each; they are counted by image, lattice, row and column, and the
outputs of (n, py, px, ty, tx) start at (py + S*DH*ty, px + S*DW*tx).
"""


from fastconv.kernels.jit import device
from fastconv.kernels.winograd_strided import ROWS, rows_before, rows_of

ELEMENTS = 36
LINE = 16
"""Numbers between arrays of which 36 are written side by side: without them all may fall on the same few lines of the cache."""


@device
def element(e, strided):
    """(rows before, rows) of a tile in element e."""
    return (rows_before(e), rows_of(e)) if strided else (e, 1)


@device
def is_strided(tiling):
    """Whether the stride is 2."""
    return tiling[0] != tiling[1]


@device
def count_rows(strided):
    """Rows of all elements of a tile."""
    return ROWS if strided else ELEMENTS


@device
def count_tiles(N, tiling):
    """Tiles of N images."""
    _, _, _, _, DH, DW, TY, TX = tiling
    return N * DH * DW * TY * TX


@device
def place(t, tiling):
    """(n, py, px, ty, tx) of tile t."""
    _, _, _, _, DH, DW, TY, TX = tiling
    rest = t // (TX * TY)
    return rest // (DW * DH), rest // DW % DH, rest % DW, t // TX % TY, t % TX


@device
def after(n, py, px, ty, tx, tiling):
    """The place of the next tile; to divide for each would take longer."""
    _, _, _, _, DH, DW, TY, TX = tiling
    if tx + 1 < TX:
        return n, py, px, ty, tx + 1
    if ty + 1 < TY:
        return n, py, px, ty + 1, 0
    if px + 1 < DW:
        return n, py, px + 1, 0, 0
    if py + 1 < DH:
        return n, py + 1, 0, 0, 0
    return n + 1, 0, 0, 0, 0


@device
def memory_of_tiles(images, channels, t0, count, tiling):
    """(first, last) of the flat `images` that `count` tiles from t0 on are the first to read, about: memory lies as tiles are counted.

    Nothing where tiles take some of the channels only.
    """
    total, row = count_tiles(images.shape[0], tiling), tiling[7]
    first, last = min(total, t0 + row), min(total, t0 + row + count)  # those of a row see the same rows of the image
    return (images.size * first // total, images.size * last // total) if channels == images.shape[3] else (0, 0)


@device
def padded(C, L):
    """Numbers from tile to tile of C transformed channels: whole vectors, and a line more where tiles would fall on the same few lines."""
    return (C + L - 1) // L * L + (LINE if C % 256 == 0 else 0)
