"""Convolution in groups of a few channels, 2, 4 or 8 into as many: whole groups side by side are the vector.

Arrays (N, H, W, C), C a multiple of the lanes; filters three wide that move by one, packed (C / lanes, KH, G, 3, lanes): lane l of vector v
belongs to output channel v * lanes + l. `window` = (OH, OW, PT, PL), `taps` = (KH, DH).
"""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.grouped_sums import COLUMNS, add_row_of_gradients, add_row_of_taps
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.panel import clip
from fastconv.kernels.prefetch import prefetch
from fastconv.kernels.scratch import scratch
from fastconv.kernels.vector import lanes, splat
from fastconv.kernels.vector_memory import flat, load, store, zero

ROWS = 8
"""Rows of the output that a job computes."""


@device
def _row(G, x, i, step, rows, C, W, w, j, bias, y, o, OW, PL):
    """A row of outputs from y[o] on, of one vector of channels: a pixel adds to the three outputs that see it, before the next is read."""
    L, nothing = lanes(x), splat(x, 0.0)
    start = (bias, bias, bias, nothing, nothing, nothing)
    e0, e1, e2, o0, o1, o2 = start
    for iw in range(-PL, OW + COLUMNS - 1 - PL):
        if 0 <= iw < W:
            prefetch(x, i + rows * step + iw * C)  # the row that the next row of outputs sees first
            for kh in range(rows):
                pixel = load(x, i + kh * step + iw * C, L)
                e0, e1, e2, o0, o1, o2 = add_row_of_taps(G, pixel, w, j + kh * G * COLUMNS * L, (e0, e1, e2, o0, o1, o2))
        done = iw + PL - (COLUMNS - 1)
        if done >= 0:
            prefetch(y, o + (done + 4) * C)
            store(y, o + done * C, e2 + o2, L)
        e2, o2, e1, o1, e0, o0 = e1, o1, e0, o0, bias, nothing


@apart
def _job(job, X, weight, Y, bias, window, taps):
    """Job `job` of `convolve`."""
    _, H, W, C = X.shape
    OH, OW, PT, PL = window
    KH, DH = taps
    vectors, _, G, _, _ = weight.shape
    x, w, y, b, L = flat(X), flat(weight), flat(Y), flat(bias), lanes(X)
    row_blocks = (OH + ROWS - 1) // ROWS
    n, oh0 = job // row_blocks, job % row_blocks * ROWS
    for oh in range(oh0, min(OH, oh0 + ROWS)):
        low, high = clip(oh - PT, DH, KH, H)
        for v in range(vectors):
            c = v * L
            i, o = ((n * H + oh - PT + low * DH) * W) * C + c, (n * OH + oh) * OW * C + c
            j, start = (v * KH + low) * G * COLUMNS * L, load(b, c, L)
            if G == 2:
                _row(2, x, i, DH * W * C, high - low, C, W, w, j, start, y, o, OW, PL)
            elif G == 4:
                _row(4, x, i, DH * W * C, high - low, C, W, w, j, start, y, o, OW, PL)
            else:
                _row(8, x, i, DH * W * C, high - low, C, W, w, j, start, y, o, OW, PL)


@kernel
def convolve(X, weight, Y, bias, window, taps):
    """Reads X (N, H, W, C), weight (C / lanes, KH, G, 3, lanes), bias (C,); writes Y (N, OH, OW, C). Parallel over blocks of ROWS rows."""
    for job in prange(X.shape[0] * ((window[0] + ROWS - 1) // ROWS)):
        _job(np.int64(job), X, weight, Y, bias, window, taps)


@apart
def _split(s, X, G, parts, window, taps):
    """Split `s` of `backward_weight`."""
    N, H, W, C = X.shape
    OH, OW, PT, PL = window
    KH, DH = taps
    splits, vectors, _, channels, _, _ = parts.shape
    x, g, d, L = flat(X), flat(G), flat(parts), lanes(X)
    size = parts.size // splits
    zero(d, s * size, size)
    first, last = max(0, PL - COLUMNS + 1), min(OW, W + PL)  # columns of the gradient that send something to the image
    row = scratch((W + COLUMNS - 1) * L, X.dtype)  # number k of it is column k + PL - 2 of the gradient
    zero(row, 0, row.size)
    for task in range(s * N * OH // splits, (s + 1) * N * OH // splits):
        n, oh = task // OH, task % OH
        low, high = clip(oh - PT, DH, KH, H)
        for v in range(vectors):
            for ow in range(first, last):
                store(row, (ow - PL + COLUMNS - 1) * L, load(g, (task * OW + ow) * C + v * L, L), L)
            for kh in range(low, high):
                i = (n * H + oh - PT + kh * DH) * W * C + v * L
                j = s * size + (v * KH + kh) * channels * COLUMNS * L
                if channels == 2:
                    add_row_of_gradients(2, x, i, C, row, (COLUMNS - 1) * L, W, d, j)
                elif channels == 4:
                    add_row_of_gradients(4, x, i, C, row, (COLUMNS - 1) * L, W, d, j)
                else:
                    add_row_of_gradients(8, x, i, C, row, (COLUMNS - 1) * L, W, d, j)


@kernel
def backward_weight(X, G, parts, window, taps):
    """Reads X (N, H, W, C) and grad_output G (N, OH, OW, C); writes parts (splits, C / lanes, KH, G, 3, lanes).

    The sum of parts over splits is the packed gradient of the weight. Parallel over splits of the output's rows.
    """
    for s in prange(parts.shape[0]):
        _split(np.int64(s), X, G, parts, window, taps)
