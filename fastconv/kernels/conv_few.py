"""Gradients of convolutions of few input channels, which would fill a vector badly: whole rows of the filter are the vector.

`window` and `taps` as in conv_direct; the dilation's DW is 1. The KW * C numbers under a row of the filter are one run of memory.
"""

import numpy as np
from numba import prange

from fastconv.kernels.conv_direct import clip, fill_panel
from fastconv.kernels.jit import kernel
from fastconv.kernels.simd import VECTOR_BYTES
from fastconv.kernels.tiles import TILES, tiles
from fastconv.kernels.vector import load, store

IMAGES = 8
"""Rows of a tile of `backward_input`."""


@kernel(uses=(TILES,))
def backward_input(G, weight, D, window, taps):
    """Reads the output's gradient G (N, OH, OW, OC) and the weight (OC, KH, KW * C); writes D (N, H, W, C).

    The rows of a tile are the same pixel of IMAGES images, its columns what a row of the filter sends to the row of the image under
    it; tiles are added to the image one after the other. Parallel over blocks of IMAGES images.
    """
    N, OH, OW, OC = G.shape
    _, H, W, C = D.shape
    _, _, SH, SW, PT, PL = window
    KH, KW, DH, _ = taps
    lanes = VECTOR_BYTES // G.itemsize
    g, w, d = G.ravel(), weight.ravel(), D.ravel()
    image_size, over = H * W * C, (1, 0, 0, 1, 0, 0, OC, 1, KH * KW * C)
    for job in prange((N + IMAGES - 1) // IMAGES):
        n0, n1 = job * IMAGES, min(N, (job + 1) * IMAGES)
        for i in range(n0 * image_size, n1 * image_size):
            d[i] = 0
        for oh in range(OH):
            low, high = clip(oh * SH - PT, DH, KH, H)
            for ow in range(OW):
                first, last = clip(ow * SW - PL, 1, KW, W)
                source, cols = ((n0 * OH + oh) * OW + ow) * OC, (last - first) * C
                for kh in range(low, high):
                    target = n0 * image_size + ((oh * SH - PT + kh * DH) * W + ow * SW - PL + first) * C
                    tiles(n1 - n0, g, source, OH * OW * OC, w, (kh * KW + first) * C, lanes, d, target, image_size, lanes,
                          (cols + lanes - 1) // lanes, cols, w, 0, 1, over)


@kernel(uses=(TILES,))
def backward_weight(X, G, parts, window, taps, rows):
    """Reads X (N, H, W, C) and the output's gradient G (N, OH, OW, OC); writes parts (splits, OC, columns), to be summed over splits.

    columns is KH * KW * C rounded up to whole vectors; what the last of them hold is of no use. The tile multiplies G with the windows
    of `rows` output rows, laid out side by side. Parallel over splits of the images' blocks of rows.
    """
    N, H, W, C = X.shape
    OC = G.shape[3]
    OH, OW, SH, SW, PT, PL = window
    KH, KW, DH, DW = taps
    splits, _, columns = parts.shape
    x, g, d = X.ravel(), G.ravel(), parts.ravel()
    lanes = VECTOR_BYTES // X.itemsize
    width, height, run = (OW - 1) * SW + KW, min(H, (rows - 1) * SH + (KH - 1) * DH + 1), KW * C
    row_blocks = (OH + rows - 1) // rows
    for s in prange(splits):
        panel = np.zeros((height + 1) * width * C + lanes, X.dtype)  # the last row stays 0: it stands for all rows outside the image
        windows = np.zeros(rows * OW * columns + lanes, X.dtype)
        for i in range(s * OC * columns, (s + 1) * OC * columns):
            d[i] = 0
        for block in range(s * N * row_blocks // splits, (s + 1) * N * row_blocks // splits):
            n, oh0 = block // row_blocks, block % row_blocks * rows
            oh1 = min(OH, oh0 + rows)
            ih0 = min(H, max(0, oh0 * SH - PT))
            ih1 = max(ih0, min(H, (oh1 - 1) * SH + (KH - 1) * DH - PT + 1))
            fill_panel(panel, 0, x, n, ih0, ih1 - ih0, H, W, C, 0, C, C, PL, width)
            for oh in range(oh0, oh1):
                top = oh * SH - PT
                for ow in range(OW):
                    target = ((oh - oh0) * OW + ow) * columns
                    for kh in range(KH):
                        row = top + kh * DH - ih0 if 0 <= top + kh * DH < H else height
                        for j in range(0, run, lanes):  # whole vectors: what is too much is written over by what comes next
                            store(windows, target + kh * run + j, load(panel, (row * width + ow * SW) * C + j, lanes), lanes)
            pixels = (oh1 - oh0) * OW
            over = (1, 0, 0, 1, 0, 0, pixels, OC, columns)
            tiles(OC, g, (n * OH + oh0) * OW * OC, 1, windows, 0, lanes, d, s * OC * columns, columns, lanes, columns // lanes, columns,
                  windows, 0, 1, over)
