"""Batch normalisation, ReLU and a depthwise convolution of 3 x 3: what lies between them stays in the second cache.

A job reads a band of rows of an image in order and normalizes it into a panel (vectors of channels, rows, columns, lanes), in which the
padding is real: a vector's nine filters stay in registers along a row. Layer by layer five arrays of the input's size go through memory
forward, here three, of which the statistics need one. The bits are those of the layers one after the other.

Columns of a row go four by four; the panel is as wide as the last four need.
"""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.prefetch import prefetch_four
from fastconv.kernels.scratch import scratch
from fastconv.kernels.vector import fma, lanes, select
from fastconv.kernels.vector_memory import flat, load, store, zero


@device
def width_of(outputs, step):
    """Columns of a panel that a row of so many outputs sees, `step` columns apart, in fours."""
    return ((outputs + 3) // 4 * 4 - 1) * step + 3


@device
def fill_padding(panel, vectors, H, first, left, seen, rows, width):
    """Zeros where a panel of rows first .. first + rows shows none of an image of H rows, of which it has `seen` columns from `left` on."""
    L = lanes(panel)
    for v in range(vectors):
        for r in range(rows):
            row = (v * rows + r) * width * L
            if 0 <= first + r < H:
                zero(panel, row, left * L)
                zero(panel, row + (left + seen) * L, (width - left - seen) * L)
            else:
                zero(panel, row, width * L)


@device
def fill_normalized(x, image, size, first, left, factors, panel, rows, width):
    """panel = ReLU of rows first .. first + rows of the image at x[image], of `size` = (H, W, C), normalized, column 0 at `left`."""
    H, W, C = size
    L, plane, seen = lanes(x), rows * width * lanes(x), min(W, width - left)
    fill_padding(panel, (C + L - 1) // L, H, first, left, seen, rows, width)
    for h in range(max(0, first), min(H, first + rows)):
        for w in range(0, seen, 4):
            i, p, columns = image + (h * W + w) * C, ((h - first) * width + left + w) * L, min(4, seen - w)
            for v in range(C // L):
                prefetch_four(x, i + v * L + 8 * C, C)
                _normalize_four(x, i + v * L, C, factors, v * L, L, panel, p + v * plane, columns)
            if C % L > 0:
                _normalize_four(x, i + C // L * L, C, factors, C // L * L, C % L, panel, p + C // L * plane, columns)


@device(forceinline=True)
def _normalize_four(x, i, pixel, factors, c, own, panel, p, columns):
    """Up to four columns of a panel, of a vector of channels c of which there are `own`."""
    L, W = lanes(panel), factors.shape[1]
    mean, scale, bias = load(factors, c, own), load(factors, W + c, own), load(factors, 2 * W + c, own)
    if columns == 4:
        for k in range(4):
            _store_positive(panel, p + k * L, fma(load(x, i + k * pixel, own) - mean, scale, bias))
    else:
        for k in range(columns):
            _store_positive(panel, p + k * L, fma(load(x, i + k * pixel, own) - mean, scale, bias))


@device(forceinline=True)
def _store_positive(panel, p, v):
    store(panel, p, select(v <= 0.0, 0.0, v), lanes(panel))


@device(forceinline=True)
def nine(w, c, C, own):
    """The filters of a vector of channels, from w[c] on, of (3, 3, C)."""
    return (load(w, c, own), load(w, c + C, own), load(w, c + 2 * C, own),
            load(w, c + 3 * C, own), load(w, c + 4 * C, own), load(w, c + 5 * C, own),
            load(w, c + 6 * C, own), load(w, c + 7 * C, own), load(w, c + 8 * C, own))  # fmt: skip


@device(forceinline=True)
def _add_row(panel, p, step, w0, w1, w2, s0, s1, s2, s3):
    """Four sums, `step` columns of the panel apart, and what three filters see from panel[p] on."""
    L = lanes(panel)
    s0 = fma(load(panel, p + 2 * L, L), w2, fma(load(panel, p + L, L), w1, fma(load(panel, p, L), w0, s0)))
    p += step * L
    s1 = fma(load(panel, p + 2 * L, L), w2, fma(load(panel, p + L, L), w1, fma(load(panel, p, L), w0, s1)))
    p += step * L
    s2 = fma(load(panel, p + 2 * L, L), w2, fma(load(panel, p + L, L), w1, fma(load(panel, p, L), w0, s2)))
    p += step * L
    s3 = fma(load(panel, p + 2 * L, L), w2, fma(load(panel, p + L, L), w1, fma(load(panel, p, L), w0, s3)))
    return s0, s1, s2, s3


@device(forceinline=True)
def four(panel, p, row, step, w, start):
    """`start` plus what nine filters see from panel[p] on, of four outputs side by side; rows of the panel are `row` numbers apart."""
    s0, s1, s2, s3 = _add_row(panel, p, step, w[0], w[1], w[2], start, start, start, start)
    s0, s1, s2, s3 = _add_row(panel, p + row, step, w[3], w[4], w[5], s0, s1, s2, s3)
    return _add_row(panel, p + 2 * row, step, w[6], w[7], w[8], s0, s1, s2, s3)


@device(forceinline=True)
def _convolve_row(panel, p, row, step, w, bias, c, C, own, y, o, OW):
    """A row of outputs of the vector of channels c, to y[o + c:], a pixel each C numbers."""
    L, filters, start = lanes(panel), nine(w, c, C, own), load(bias, c, own)
    whole = OW - OW % 4
    for ow in range(0, whole, 4):
        at = o + ow * C + c
        prefetch_four(y, at + OW * C, C)
        s0, s1, s2, s3 = four(panel, p + ow * step * L, row, step, filters, start)
        store(y, at, s0, own)
        store(y, at + C, s1, own)
        store(y, at + 2 * C, s2, own)
        store(y, at + 3 * C, s3, own)
    if whole < OW:
        s0, s1, s2, _ = four(panel, p + whole * step * L, row, step, filters, start)
        at = o + whole * C + c
        store(y, at, s0, own)
        if OW - whole > 1:
            store(y, at + C, s1, own)
        if OW - whole > 2:
            store(y, at + 2 * C, s2, own)


@device
def _convolve_rows(panel, p, row, plane, step, w, bias, y, o, OW, C):
    """A row of outputs of all channels. With a constant `step` LLVM loads what two windows see once."""
    L = lanes(panel)
    whole = C - C % L
    for c in range(0, whole, L):
        _convolve_row(panel, p + c // L * plane, row, step, w, bias, c, C, L, y, o, OW)
    if whole < C:
        _convolve_row(panel, p + whole // L * plane, row, step, w, bias, whole, C, C - whole, y, o, OW)


@apart
def _convolve_band(job, X, factors, weight, Y, bias, step, padding, bands):
    """Band `job` of `convolve`, counted through all images."""
    _, H, W, C = X.shape
    _, OH, OW, _ = Y.shape
    PT, PL = padding
    n, band, L = job // bands, job % bands, lanes(X)
    start, stop = OH * band // bands, OH * (band + 1) // bands
    rows, width = (stop - start - 1) * step + 3, width_of(OW, step)
    row = width * L
    panel = scratch((C + L - 1) // L * rows * row, X.dtype)
    fill_normalized(flat(X), n * H * W * C, (H, W, C), start * step - PT, PL, factors, panel, rows, width)
    for oh in range(start, stop):
        p, o = (oh - start) * step * row, (n * OH + oh) * OW * C
        if step == 1:
            _convolve_rows(panel, p, row, rows * row, 1, flat(weight), flat(bias), flat(Y), o, OW, C)
        else:
            _convolve_rows(panel, p, row, rows * row, 2, flat(weight), flat(bias), flat(Y), o, OW, C)


@kernel
def convolve(X, factors, weight, Y, bias, step, padding, bands):
    """Reads X (N, H, W, C), `factors` that norm.forward has written, weight (3, 3, C) and bias (C,), writes Y (N, OH, OW, C).

    The filters move by `step`, 1 or 2, `padding` = (PT, PL). Parallel over bands of output rows of all images."""
    for job in prange(X.shape[0] * bands):
        _convolve_band(np.int64(job), X, factors, weight, Y, bias, step, padding, bands)
