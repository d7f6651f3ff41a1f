"""Direct convolution of few channels: a vector is the same number of as many images as it has lanes.

Where the output's channels would fill a vector badly, or the input's make short runs, images always fill it. A tile is some output
channels times two neighbouring pixels; the weight is read as it is, (OC, KH, KW, C). Images are transposed on the way in and out.
`window` and `taps` as in conv_direct, groups are 1, the dilation's DW is 1.
"""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.panel import clip
from fastconv.kernels.pool import relu_largest
from fastconv.kernels.scratch import scratch
from fastconv.kernels.tiles import tiles
from fastconv.kernels.transpose import transpose
from fastconv.kernels.vector import lanes, splat, to_float, to_int
from fastconv.kernels.vector_memory import flat, load, store, zero


@device(inline="always")
def fill_lanes(x, n0, images, ih0, rows, H, W, C, c0, channels, panel, left, width):
    """Channels c0 .. of rows ih0 .. of images n0 .. into panel (rows, width, channels, lanes), zeros left and right of them."""
    L = lanes(x)
    first, last = min(width, max(0, left)), max(0, min(width, W + left))  # columns of the panel that show the image
    columns, run = (1, (last - first) * C) if channels == C else (last - first, channels)  # whole rows are one run
    for row in range(rows):
        p = row * width * channels * L
        zero(panel, p, first * channels * L)
        for column in range(columns):
            source, target = ((n0 * H + ih0 + row) * W + first - left + column) * C + c0, p + (first + column) * channels * L
            for k in range(0, run, L):
                transpose(x, source + k, H * W * C, images, min(L, run - k), panel, target + k * L, L, L)
        zero(panel, p + max(first, last) * channels * L, (width - max(first, last)) * channels * L)


@device(inline="always")
def convolve_row(panel, ih0, H, C, c0, channels, w, b, OC, before, start, width, oh, window, taps):
    """Adds to output row oh, (OW, OC, lanes), in before[start:], what comes from the panel's channels c0 ..; the first ones start it."""
    _, OW, SH, SW, PT, _ = window
    (KH, KW, DH, _), L = taps, lanes(panel)
    low, high = clip(oh * SH - PT, DH, KH, H)
    if c0 == 0:
        for channel in range(OC):
            bias = splat(before, b[channel])
            for ow in range(OW):
                store(before, start + (ow * OC + channel) * L, bias, L)
    if channels == C:  # the numbers under a row of the filter are one run
        over = (1, 0, 0, high - low, KW * C, DH * width * C * L, KW * C, 1, L)
    else:
        over = (high - low, KW * C, DH * width * channels * L, KW, C, channels * L, channels, 1, L)
    a = (oh * SH - PT + low * DH - ih0) * width * channels * L
    tiles(OC, w, low * KW * C + c0, KH * KW * C, panel, a, SW * channels * L, before, start, L, OC * L, OW, OW * L, b, 0, 1, over)


@device
def share(job, N, H, L, window, taps, rows):
    """(n0, images, oh0, oh1, ih0, ih1): the images and output rows of a job, and the rows of the input that these see."""
    (OH, _, SH, _, PT, _), (KH, _, DH, _) = window, taps
    row_blocks = (OH + rows - 1) // rows
    n0, oh0 = job // row_blocks * L, job % row_blocks * rows
    oh1 = min(OH, oh0 + rows)
    ih0 = min(H, max(0, oh0 * SH - PT))
    return n0, min(L, N - n0), oh0, oh1, ih0, max(ih0, min(H, (oh1 - 1) * SH + (KH - 1) * DH - PT + 1))


@apart
def _convolve_job(job, X, weight, Y, bias, window, taps, block, rows):
    """Job `job` of `convolve`."""
    (N, H, W, C), (OH, OW, _, SW, _, PL) = X.shape, window
    OC, L = Y.shape[3], lanes(X)
    x, w, b, y = flat(X), flat(weight), flat(bias), flat(Y)
    n0, images, oh0, oh1, ih0, ih1 = share(job, N, H, L, window, taps, rows)
    width, size = (OW - 1) * SW + taps[1], OW * OC
    panel, before = scratch((ih1 - ih0) * width * block * L, x.dtype), scratch(rows * size * L, x.dtype)
    for c0 in range(0, C, block):
        channels = min(block, C - c0)
        fill_lanes(x, n0, images, ih0, ih1 - ih0, H, W, C, c0, channels, panel, PL, width)
        for oh in range(oh0, oh1):
            convolve_row(panel, ih0, H, C, c0, channels, w, b, OC, before, (oh - oh0) * size * L, width, oh, window, taps)
    run = (oh1 - oh0) * size
    for k in range(0, run, L):
        count = min(L, run - k)
        transpose(before, k * L, L, count, images, y, (n0 * OH + oh0) * size + k, OH * size, count)


@kernel
def convolve(X, weight, Y, bias, window, taps, block, rows):
    """Reads X (N, H, W, C), weight (OC, KH, KW, C), bias (OC,); writes Y (N, OH, OW, OC). Parallel over a vector's images and `rows`
    output rows, of which a job reads `block` channels at a time.
    """
    L = lanes(X)
    for job in prange((X.shape[0] + L - 1) // L * ((window[0] + rows - 1) // rows)):
        _convolve_job(np.int64(job), X, weight, Y, bias, window, taps, block, rows)


@device(inline="always")
def relu_max_row(before, size, OW, numbers, pooled, taken):
    """As pool.relu_max_row_2x2, of pixels of `numbers` vectors, the second row `size` numbers after the first; taps as floats."""
    L = lanes(before)
    for pixel in range(OW // 2):
        for k in range(numbers):
            i, o = (2 * pixel * numbers + k) * L, (pixel * numbers + k) * L
            best, tap = relu_largest(before, i, numbers * L, size, L)
            store(pooled, o, best, L)
            store(taken, o, to_float(tap), L)


@apart
def _job(job, X, weight, Y, argmax, bias, window, taps, rows):
    """Job `job` of `convolve_relu_max`."""
    (N, H, W, C), (OH, OW, _, SW, _, PL) = X.shape, window
    OC, L = Y.shape[3], lanes(X)
    x, w, b, y, arg = flat(X), flat(weight), flat(bias), flat(Y), flat(argmax)
    n0, images, oh0, oh1, ih0, ih1 = share(job, N, H, L, window, taps, rows)
    width, size, image_size, run = (OW - 1) * SW + taps[1], OW * OC * L, OH // 2 * (OW // 2) * OC, OW // 2 * OC
    panel = scratch((ih1 - ih0) * width * C * L, x.dtype)
    before = scratch(2 * size, x.dtype)
    pooled, taken = scratch(size // 4 * 2, x.dtype), scratch(size // 4 * 2, x.dtype)
    part = scratch(L * L, x.dtype)
    fill_lanes(x, n0, images, ih0, ih1 - ih0, H, W, C, 0, C, panel, PL, width)
    for oh in range(oh0, oh1, 2):
        for half in range(2):
            convolve_row(panel, ih0, H, C, 0, C, w, b, OC, before, half * size, width, oh + half, window, taps)
        relu_max_row(before, size, OW, OC, pooled, taken)
        target = n0 * image_size + oh // 2 * run
        for k in range(0, run, L):
            count = min(L, run - k)
            transpose(pooled, k * L, L, count, images, y, target + k, image_size, count)
            if arg.size > 0:
                transpose(taken, k * L, L, count, images, part, 0, L, count)
                for n in range(images):
                    store(arg, target + n * image_size + k, to_int(load(part, n * L, L)), count)


@kernel
def convolve_relu_max(X, weight, Y, argmax, bias, window, taps, rows):
    """As conv_direct.convolve_relu_max. Parallel over a vector's images and `rows` rows before pooling."""
    L = lanes(X)
    for job in prange((X.shape[0] + L - 1) // L * ((window[0] + rows - 1) // rows)):
        _job(np.int64(job), X, weight, Y, argmax, bias, window, taps, rows)
