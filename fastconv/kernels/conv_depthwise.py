"""Depthwise convolution, one filter a channel: channels are the vector. Arrays (N, H, W, C), weights (KH, KW, C).

A tile is some neighbouring output pixels of one row times one vector of channels. Taps outside the image are left out of the sum,
so pixels at the left and right border, where their number varies, are tiles of their own. `window` and `taps` as in conv_direct.
"""

from numba import prange

from fastconv.kernels.jit import kernel
from fastconv.kernels.panel import clip
from fastconv.kernels.simd import VECTOR_BYTES
from fastconv.kernels.tiles import TILES_ELEMENTWISE, tiles_elementwise
from fastconv.kernels.vector import zero


@kernel(uses=(TILES_ELEMENTWISE,))
def convolve(X, weight, Y, bias, window, taps, place):
    """Reads X (N, H, W, C), weight (KH, KW, C), bias (C,); writes pixels of Y (N, YH, YW, C). Parallel over images and output rows.

    As conv_direct.convolve, for one channel at a time.
    """
    N, H, W, C = X.shape
    YH, YW = Y.shape[1:3]
    OH, OW, SH, SW, PT, PL = window
    KH, KW, DH, DW = taps
    YSH, YSW, Y0, Y1 = place
    x, w, y, b = X.ravel(), weight.ravel(), Y.ravel(), bias.ravel()
    lanes = VECTOR_BYTES // X.itemsize
    inner0 = min(OW, (PL + SW - 1) // SW if PL > 0 else 0)  # the pixels inner0 .. inner1 see all columns of the filter
    inner1 = max(inner0, clip((KW - 1) * DW - PL, SW, OW, W)[1])
    for job in prange(N * OH):
        n, oh = job // OH, job % OH
        top = oh * SH - PT
        low, high = clip(top, DH, KH, H)
        source = (n * H + top + low * DH) * W * C
        target = ((n * YH + oh * YSH + Y0) * YW + Y1) * C
        for c in range(0, C, lanes):
            ow = 0
            while ow < OW:
                inner = inner0 <= ow < inner1
                rows = inner1 - ow if inner else 1
                left, right = (0, KW) if inner else clip(ow * SW - PL, DW, KW, W)
                over = (high - low, DH * W * C, KW * C, right - left, DW * C, C)
                tiles_elementwise(rows, x, source + (ow * SW - PL + left * DW) * C + c, SW * C, w, (low * KW + left) * C + c,
                      y, target + ow * YSW * C + c, YSW * C, C - c, b, c, 0, over)
                ow += rows


@kernel(uses=(TILES_ELEMENTWISE,))
def backward_weight(X, G, parts, window, taps):
    """Reads X (N, H, W, C) and grad_output G (N, OH, OW, C); writes parts (splits, KH, KW, C), to be summed over splits of the rows.

    A tile is a row of the filter; its sum runs over the output pixels that see all of it, the others are added tap by tap.
    Parallel over splits.
    """
    N, H, W, C = X.shape
    OH, OW, SH, SW, PT, PL = window
    KH, KW, DH, DW = taps
    x, g, d = X.ravel(), G.ravel(), parts.ravel()
    lanes, splits = VECTOR_BYTES // X.itemsize, parts.shape[0]
    inner0 = clip(-PL, SW, OW, W)[0]
    inner1 = max(inner0, clip((KW - 1) * DW - PL, SW, OW, W)[1])
    for s in prange(splits):
        zero(d, s * KH * KW * C, KH * KW * C)
        for row in range(s * N * OH // splits, (s + 1) * N * OH // splits):
            n, oh = row // OH, row % OH
            low, high = clip(oh * SH - PT, DH, KH, H)
            for kh in range(low, high):
                source, target = (n * H + oh * SH - PT + kh * DH) * W * C, (s * KH + kh) * KW * C
                for c in range(0, C, lanes):
                    over = (1, 0, 0, inner1 - inner0, SW * C, C)
                    tiles_elementwise(KW, x, source + (inner0 * SW - PL) * C + c, DW * C, g, (row * OW + inner0) * C + c,
                                      d, target + c, C, C - c, g, 0, 1, over)
                    for kw in range(KW):
                        first, last = clip(kw * DW - PL, SW, OW, W)
                        for ow in range(first, last):
                            if not inner0 <= ow < inner1:
                                tiles_elementwise(1, x, source + (ow * SW - PL + kw * DW) * C + c, 0, g, (row * OW + ow) * C + c,
                                                  d, target + kw * C + c, C, C - c, g, 0, 1, (1, 0, 0, 1, 0, 0))
