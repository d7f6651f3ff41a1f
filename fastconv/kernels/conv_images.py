"""Direct convolution of small images: a tile is the same pixel of several images times two vectors of output channels.

Rows of few pixels would make poor tiles. Here a tile is as tall as there are images, and a filter that hangs over the border of the
image is cut instead of multiplied with zeros, which for 7 x 7 pixels and 3 x 3 taps saves a sixth. `window` and `taps` as in conv_direct,
whose packed weight this is too; the dilation's DW is 1.
"""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.jit import kernel
from fastconv.kernels.panel import clip, fill_panel
from fastconv.kernels.pool import relu_max_row_2x2
from fastconv.kernels.scratch import scratch
from fastconv.kernels.tiles import OUTPUT_FIRST, tiles_ahead
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import flat


@apart
def convolve_block(X, weight, y, origin, image_size, row_size, step, bias, window, taps, n0, n1, v0, v1, own):
    """Vectors v0 .. v1 of each group's output channels, of images n0 .. n1, `own` blocks of input channels at a time.

    Row oh of image n starts at y[origin + n * image_size + oh * row_size], its pixels lie `step` apart.
    """
    _, H, W, C = X.shape
    OH, OW, SH, SW, PT, PL = window
    KH, KW, DH, _ = taps
    groups, vectors, CB, _, _, BC, _ = weight.shape
    x, w, b, L = flat(X), flat(weight), flat(bias), lanes(X)
    CG, OCG = C // groups, bias.size // groups
    block_size, filter_size = H * W * BC, KH * KW * BC * L
    stride = own * block_size + L  # of images in the panel: without the vector, all may fall on the same few lines of the cache
    panel = scratch((n1 - n0) * stride, x.dtype)
    for group in range(groups):
        for b0 in range(0, CB, own):
            b1 = min(CB, b0 + own)
            for n in range(n0, n1):
                for block in range(b0, b1):
                    fill_panel(panel, (n - n0) * stride + (block - b0) * block_size, x, 0, n, 0, H, H, W, C, group * CG + block * BC,
                               min(BC, CG - block * BC), BC, 0, W)
            for v in range(v0, v1, 2):
                wide, cols = min(2, v1 - v), min(2 * L, OCG - v * L)
                channel, first = group * OCG + v * L, ((group * vectors + v) * CB + b0) * filter_size
                for oh in range(OH):
                    low, high = clip(oh * SH - PT, DH, KH, H)
                    for ow in range(OW):
                        left, right = clip(ow * SW - PL, 1, KW, W)
                        a = ((oh * SH - PT + low * DH) * W + ow * SW - PL + left) * BC
                        f, c = first + (low * KW + left) * BC * L, origin + n0 * image_size + oh * row_size + ow * step + channel
                        over = (b1 - b0, block_size, filter_size, high - low, DH * W * BC, KW * BC * L, (right - left) * BC, 1, L)
                        tiles_ahead(n1 - n0, panel, a, stride, w, f, CB * filter_size, y, c, image_size, L, wide, cols, b, channel, b0,
                                    over, OUTPUT_FIRST)


@kernel
def convolve(X, weight, Y, bias, window, taps, place, images, share, own):
    """Reads X (N, H, W, C), weight (groups, vectors, CB, KH, KW, BC, lanes), bias (OC,); writes pixels of Y (N, YH, YW, OC).

    Y[n, oh*YSH + Y0, ow*YSW + Y1] = bias + sum of X[n, oh*SH + kh*DH - PT, ow*SW + kw - PL] * weight over the taps inside the image;
    `place` = (YSH, YSW, Y0, Y1). Parallel over blocks of `images` images and `share` vectors of output channels.

    A job copies `own` of the CB blocks of its images' channels at a time.
    """
    N, vectors = X.shape[0], weight.shape[1]
    YH, YW, OC = Y.shape[1:]
    YSH, YSW, Y0, Y1 = place
    y, origin, shares = flat(Y), (Y0 * YW + Y1) * OC, (vectors + share - 1) // share
    for job in prange((N + images - 1) // images * shares):
        n0, v0 = job // shares * images, job % shares * share
        n1, v1 = min(N, n0 + images), min(vectors, v0 + share)
        convolve_block(X, weight, y, origin, YH * YW * OC, YSH * YW * OC, YSW * OC, bias, window, taps, n0, n1, v0, v1, own)


@apart
def _relu_max_job(job, X, weight, Y, argmax, bias, window, taps, images):
    """Job `job` of `convolve_relu_max`."""
    N, (OH, OW), OC = X.shape[0], window[:2], Y.shape[3]
    y, a, row_size = flat(Y), flat(argmax), OW * OC
    n0, n1 = job * images, min(N, (job + 1) * images)
    before = scratch((n1 - n0) * OH * row_size, X.dtype)
    convolve_block(X, weight, before, -n0 * OH * row_size, OH * row_size, row_size, OC, bias, window, taps, n0, n1, 0, weight.shape[1],
                   weight.shape[2])
    for n in range(n0, n1):
        for oh in range(0, OH, 2):
            relu_max_row_2x2(before, ((n - n0) * OH + oh) * row_size, OW, OC, y, a, (n * OH + oh) // 2 * (OW // 2) * OC)


@kernel
def convolve_relu_max(X, weight, Y, argmax, bias, window, taps, images):
    """Reads as `convolve`, writes as conv_direct.convolve_relu_max; OH and OW are even. Parallel over blocks of `images` images."""
    for job in prange((X.shape[0] + images - 1) // images):
        _relu_max_job(np.int64(job), X, weight, Y, argmax, bias, window, taps, images)
