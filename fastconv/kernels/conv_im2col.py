"""The two copies of the im2col algorithm: every window of the input as one row of a matrix, and back.

A patch is (KH, KW, C) of one group, so that whole runs of channels are copied. `window` = (SH, SW, DH, DW, PT, PL).
"""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.jit import device, kernel
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
                    if first > 0:  # seldom, and a call of the C library
                        zero(p, out, first * C)
                    if C == IC and DW == 1:  # a row of the filter is one run
                        copy(x, pixel, p, out + first * C, (last - first) * C)
                    else:
                        for kw in range(first, last):
                            copy(x, pixel, p, out + kw * C, C)
                            pixel += DW * IC
                    if last < KW:
                        zero(p, out + last * C, (KW - last) * C)
                out += KW * C


@device
def _add(p, term, d, place, count):
    """d[place:] += p[term:], `count` numbers."""
    for i in range(0, count, lanes(d)):
        store(d, place + i, load(d, place + i, count - i) + load(p, term + i, count - i), count - i)


@device
def _spread_row(p, term, d, row, W, IC, C, OW, SW, PL):
    """A row of `col2im` where filters have one tap: each pixel is written once. `term` is below 0 where no patch sees the row."""
    for iw in range(W):
        left = iw + PL
        if term >= 0 and left % SW == 0 and left < OW * SW:
            copy(p, term + left // SW * C, d, row + iw * IC, C)
        else:
            zero(d, row + iw * IC, C)


@apart
def _sum_row(job, patches, d4, n0, c0, window, taps):
    """Job `job` of `col2im`. Each element gets its terms in the order of the taps: patches are taken from the last column to the first."""
    _, H, W, IC = d4.shape
    _, OH, OW, K = patches.shape
    KH, KW = taps
    C = K // (KH * KW)
    SH, SW, DH, DW, PT, PL = window
    p, d = flat(patches), flat(d4)
    i, ih = job // H, job % H
    row = ((n0 + i) * H + ih) * W * IC + c0
    if KH * KW == 1:
        top = ih + PT
        seen = top % SH == 0 and top < OH * SH
        _spread_row(p, (i * OH + top // SH) * OW * K if seen else -1, d, row, W, IC, C, OW, SW, PL)
        return
    if C == IC:
        zero(d, row, W * C)
    else:
        for iw in range(W):
            zero(d, row + iw * IC, C)
    for kh in range(KH):
        top = ih + PT - kh * DH
        if top % SH > 0 or top < 0 or top >= OH * SH:
            continue
        source = (i * OH + top // SH) * OW * K + kh * KW * C
        for ow in range(OW - 1, -1, -1):
            left = ow * SW - PL
            first, last = clip(left, DW, KW, W)
            pixel, term = row + (left + first * DW) * IC, source + ow * K + first * C
            if C == IC and DW == 1:  # a row of the filter is one run
                _add(p, term, d, pixel, (last - first) * C)
            else:
                for _ in range(first, last):
                    _add(p, term, d, pixel, C)
                    pixel, term = pixel + DW * IC, term + C


@kernel
def col2im(patches, d4, n0, c0, window, taps):
    """Reads the gradient of patches (images, OH, OW, KH*KW*C); writes channels c0 .. c0 + C of d (N, H, W, IC), images from n0 on.

    Each input element sums what the patches that hold it carry. Parallel over images and input rows.
    """
    for job in prange(patches.shape[0] * d4.shape[1]):
        _sum_row(np.int64(job), patches, d4, n0, c0, window, taps)
