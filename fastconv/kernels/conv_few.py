"""Gradients of convolutions of few channels, which would fill a vector badly: whole rows of the filter are the vector.

`window` and `taps` as in conv_direct; the dilation's DW is 1. The KW * C numbers under a row of the filter are one run of memory.
"""

from numba import prange

from fastconv.kernels.dense import part
from fastconv.kernels.jit import kernel
from fastconv.kernels.panel import clip, fill_panel
from fastconv.kernels.scratch import scratch
from fastconv.kernels.tiles import tiles
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import flat, zero

IMAGES, BAND = 8, 28
"""Rows of a tile of `backward_input`, and rows of the image that a job adds to at most, which stay in L2."""


@kernel
def backward_input(G, weight, D, window, taps):
    """Reads the output's gradient G (N, OH, OW, OC) and the weight (OC, KH, KW * C); writes D (N, H, W, C).

    The rows of a tile are the same pixel of IMAGES images, its columns what a row of the filter sends to the row of the image under
    it; tiles are added to the image one after the other. Parallel over blocks of IMAGES images and bands of their rows.
    """
    N, OH, OW, OC = G.shape
    _, H, W, C = D.shape
    _, _, SH, SW, PT, PL = window
    KH, KW, DH, _ = taps
    L = lanes(G)
    g, w, d = flat(G), flat(weight), flat(D)
    image_size, over, bands = H * W * C, (1, 0, 0, 1, 0, 0, OC, 1, KH * KW * C), (H + BAND - 1) // BAND
    for job in prange((N + IMAGES - 1) // IMAGES * bands):
        n0, (top, bottom) = job // bands * IMAGES, part(job % bands, bands, H)
        n1 = min(N, n0 + IMAGES)
        for n in range(n0, n1):
            zero(d, n * image_size + top * W * C, (bottom - top) * W * C)
        for oh in range(OH):
            low, high = clip(oh * SH - PT - top, DH, KH, bottom - top)
            if low == high:
                continue
            for ow in range(OW):
                first, last = clip(ow * SW - PL, 1, KW, W)
                source, cols = ((n0 * OH + oh) * OW + ow) * OC, (last - first) * C
                for kh in range(low, high):
                    target = n0 * image_size + ((oh * SH - PT + kh * DH) * W + ow * SW - PL + first) * C
                    tiles(n1 - n0, g, source, OH * OW * OC, w, (kh * KW + first) * C, L, d, target, image_size, L,
                          (cols + L - 1) // L, cols, w, 0, 1, over)


@kernel
def backward_weight(X, G, parts, window, taps, rows):
    """Reads X (N, H, W, C) and the output's gradient G (N, OH, OW, OC); writes parts (splits, OC, KH, KW * C), to be summed over splits.

    The rows of a tile are the output channels, its columns a row of the filter. Parallel over splits of the images' blocks of `rows`
    output rows.
    """
    N, H, W, C = X.shape
    OC = G.shape[3]
    OH, OW, SH, SW, PT, PL = window
    KH, KW, DH, DW = taps
    x, g, d = flat(X), flat(G), flat(parts)
    splits, L, run = parts.shape[0], lanes(X), KW * C
    width, height, row_blocks = (OW - 1) * SW + KW, min(H, (rows - 1) * SH + (KH - 1) * DH + 1), (OH + rows - 1) // rows
    for s in prange(splits):
        panel = scratch(height * width * C, X.dtype)
        first = s * OC * KH * run
        zero(d, first, OC * KH * run)
        for block in range(s * N * row_blocks // splits, (s + 1) * N * row_blocks // splits):
            n, oh0 = block // row_blocks, block % row_blocks * rows
            oh1 = min(OH, oh0 + rows)
            ih0 = min(H, max(0, oh0 * SH - PT))
            ih1 = max(ih0, min(H, (oh1 - 1) * SH + (KH - 1) * DH - PT + 1))
            fill_panel(panel, 0, x, 0, n, ih0, ih1 - ih0, H, W, C, 0, C, C, PL, width)
            for kh in range(KH):
                top = oh0 * SH + kh * DH - PT
                low, high = clip(top, SH, oh1 - oh0, H)
                over = (1, 0, 0, high - low, OW * OC, SH * width * C, OW, OC, SW * C)
                tiles(OC, g, (n * OH + oh0 + low) * OW * OC, 1, panel, (top + low * SH - ih0) * width * C, L, d, first + kh * run,
                      KH * run, L, (run + L - 1) // L, run, panel, 0, 1, over)
