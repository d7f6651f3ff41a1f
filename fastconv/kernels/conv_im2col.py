"""The two copies of the im2col algorithm: every window of the input as one row of a matrix, and back.

A patch is (KH, KW, C) of one group, so that whole runs of channels are copied. `window` = (SH, SW, DH, DW, PT, PL).
"""

from numba import prange

from fastconv.kernels.jit import kernel
from fastconv.kernels.panel import clip
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import copy, flat, load, store, zero


@kernel
def im2col(x4, patches, n0, c0, window, taps):
    """Reads channels c0 .. c0 + C of x (N, H, W, IC), images from n0 on; writes patches (images, OH, OW, KH*KW*C).

    `taps` = (KH, KW). Parallel over images and output rows.
    """
    _, H, W, IC = x4.shape
    images, OH, OW, K = patches.shape
    KH, KW = taps
    C = K // (KH * KW)
    SH, SW, DH, DW, PT, PL = window
    x, p = flat(x4), flat(patches)
    for job in prange(images * OH):
        n, oh = n0 + job // OH, job % OH
        for ow in range(OW):
            out, left = (job * OW + ow) * K, ow * SW - PL
            first, last = clip(left, DW, KW, W)
            for kh in range(KH):
                ih = oh * SH + kh * DH - PT
                if ih < 0 or ih >= H:
                    zero(p, out, KW * C)
                else:
                    pixel = ((n * H + ih) * W + left + first * DW) * IC + c0
                    zero(p, out, first * C)
                    if C == IC and DW == 1:  # a row of the filter is one run
                        copy(x, pixel, p, out + first * C, (last - first) * C)
                    else:
                        for kw in range(first, last):
                            copy(x, pixel, p, out + kw * C, C)
                            pixel += DW * IC
                    zero(p, out + last * C, (KW - last) * C)
                out += KW * C


@kernel
def col2im(patches, d4, n0, c0, window, taps):
    """Reads the gradient of patches (images, OH, OW, KH*KW*C); writes channels c0 .. c0 + C of d (N, H, W, IC), images from n0 on.

    Each input element sums what the patches that hold it carry. Parallel over images and input rows.
    """
    _, H, W, IC = d4.shape
    images, OH, OW, K = patches.shape
    KH, KW = taps
    C = K // (KH * KW)
    SH, SW, DH, DW, PT, PL = window
    p, d = flat(patches), flat(d4)
    for job in prange(images * H):
        i, ih = job // H, job % H
        for iw in range(W):
            pixel = (((n0 + i) * H + ih) * W + iw) * IC + c0
            zero(d, pixel, C)
            for kh in range(KH):
                top = ih + PT - kh * DH
                if top % SH == 0 and 0 <= top < OH * SH:
                    for kw in range(KW):
                        left = iw + PL - kw * DW
                        if left % SW == 0 and 0 <= left < OW * SW:
                            source = ((i * OH + top // SH) * OW + left // SW) * K + (kh * KW + kw) * C
                            for c in range(0, C, lanes(d)):
                                store(d, pixel + c, load(d, pixel + c, C - c) + load(p, source + c, C - c), C - c)
