"""Gradients of batch normalisation, ReLU and a depthwise convolution of 3 x 3 behind them; panels as in norm_depthwise.

A band of the input is normalized once more, for the filters' gradient. The gradient between ReLU and convolution is never written: four
columns at a time it is computed twice, for the sums of BatchNorm's gradients and for the input's gradient. Layer by layer nine arrays of
the input's size go through memory with a stride of 1, here five. The bits are those of the layers but for the order of sums.
"""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.norm_depthwise import fill_normalized, fill_padding, four, nine, width_of
from fastconv.kernels.norm_depthwise_filters import add_filters
from fastconv.kernels.norm_gradient import gradients_of_factors
from fastconv.kernels.prefetch import prefetch_four
from fastconv.kernels.scratch import scratch, scratch_pair
from fastconv.kernels.vector import fma, lanes, select, splat
from fastconv.kernels.vector_memory import flat, load, store, zero

# --- the gradient between ReLU and convolution --------------------------------------------------------------------------


@device
def _fill(g, image, size, first, left, panel, rows, width):
    """panel = rows first .. first + rows of the gradient at g[image], of `size` = (GH, GW, C), zeros outside, column 0 at `left`."""
    H, W, C = size
    L, plane, seen = lanes(g), rows * width * lanes(g), min(W, width - left)
    fill_padding(panel, (C + L - 1) // L, H, first, left, seen, rows, width)
    for h in range(max(0, first), min(H, first + rows)):
        for w in range(0, seen, 4):
            i, p, columns = image + (h * W + w) * C, ((h - first) * width + left + w) * L, min(4, seen - w)
            for v in range(C // L):
                prefetch_four(g, i + v * L + 4 * C, C)
                _copy_four(g, i + v * L, C, L, panel, p + v * plane, columns)
            if C % L > 0:
                _copy_four(g, i + C // L * L, C, C % L, panel, p + C // L * plane, columns)


@device(forceinline=True)
def _copy_four(g, i, pixel, own, panel, p, columns):
    """Up to four columns of a panel, of a vector of channels of which there are `own`."""
    L = lanes(panel)
    if columns == 4:
        for k in range(4):
            store(panel, p + k * L, load(g, i + k * pixel, own), L)
    else:
        for k in range(columns):
            store(panel, p + k * L, load(g, i + k * pixel, own), L)


@device(forceinline=True)
def _four_of_row(panel, p, w0, w1, w2, d0, d1, d2, d3):
    """Four gradients where columns move by 2, the first of an odd column of the padded image: panel[p] sees it with the middle filter."""
    L = lanes(panel)
    here, after, last = load(panel, p, L), load(panel, p + L, L), load(panel, p + 2 * L, L)
    d0, d1 = fma(here, w1, d0), fma(after, w0, fma(here, w2, d1))
    return d0, d1, fma(after, w1, d2), fma(last, w0, fma(after, w2, d3))


@device(forceinline=True)
def _four_by_two(panel, p, row, odd, w, start):
    """As norm_depthwise.four, of gradients where filters move by 2, an odd row of the padded image sees one row, an even one two."""
    if odd:
        return _four_of_row(panel, p, w[3], w[4], w[5], start, start, start, start)
    d0, d1, d2, d3 = _four_of_row(panel, p, w[6], w[7], w[8], start, start, start, start)
    return _four_of_row(panel, p + row, w[0], w[1], w[2], d0, d1, d2, d3)


@device(forceinline=True)
def _gradients(panel, p, row, step, odd, w):
    """Four gradients side by side, which panel[p], and what is beside and below it, see."""
    nothing = splat(panel, 0.0)
    if step == 1:
        return four(panel, p, row, 1, w, nothing)
    return _four_by_two(panel, p, row, odd, w, nothing)


@device(forceinline=True)
def _filters(w, c, C, own, step):
    """The nine filters of a vector of channels, backwards where they move by 1."""
    f = nine(w, c, C, own)
    return (f[8], f[7], f[6], f[5], f[4], f[3], f[2], f[1], f[0]) if step == 1 else f


# --- the sums of BatchNorm's gradients -----------------------------------------------------------------------------------


@device(forceinline=True)
def _behind_relu(d, distance, scale, bias):
    """d where the output that belongs to `distance` from the mean is above 0, or NaN."""
    return select(fma(distance, scale, bias) <= 0.0, 0.0, d)


@device(forceinline=True)
def _add(d, x, i, own, mean, scale, bias, total, product):
    distance = load(x, i, own) - mean
    d = _behind_relu(d, distance, scale, bias)
    return total + d, fma(d, distance, product)


@device(forceinline=True)
def _sum_row(panel, p, row, step, odd, w, x, i, W, factors, c, C, own, sums, to, ahead):
    """Adds to sums[to + c:] and the next row of sums what a row of x gives, of the vector of channels c."""
    L, wide = lanes(panel), factors.shape[1]
    filters = _filters(w, c, C, own, step)
    mean, scale, bias = load(factors, c, own), load(factors, wide + c, own), load(factors, 2 * wide + c, own)
    total, product = load(sums, to + c, own), load(sums, to + C + c, own)
    whole, each = W - W % 4, L // step
    for iw in range(0, whole, 4):
        at = i + iw * C + c
        prefetch_four(x, at + ahead, C)
        d0, d1, d2, d3 = _gradients(panel, p + iw * each, row, step, odd, filters)
        total, product = _add(d0, x, at, own, mean, scale, bias, total, product)
        total, product = _add(d1, x, at + C, own, mean, scale, bias, total, product)
        total, product = _add(d2, x, at + 2 * C, own, mean, scale, bias, total, product)
        total, product = _add(d3, x, at + 3 * C, own, mean, scale, bias, total, product)
    if whole < W:
        d0, d1, d2, _ = _gradients(panel, p + whole * each, row, step, odd, filters)
        at = i + whole * C + c
        total, product = _add(d0, x, at, own, mean, scale, bias, total, product)
        if W - whole > 1:
            total, product = _add(d1, x, at + C, own, mean, scale, bias, total, product)
        if W - whole > 2:
            total, product = _add(d2, x, at + 2 * C, own, mean, scale, bias, total, product)
    store(sums, to + c, total, own)
    store(sums, to + C + c, product, own)


@device
def _sum_rows(panel, p, row, plane, step, odd, w, x, i, W, factors, C, sums, to, ahead):
    """`_sum_row` of all channels."""
    L = lanes(panel)
    whole = C - C % L
    for c in range(0, whole, L):
        _sum_row(panel, p + c // L * plane, row, step, odd, w, x, i, W, factors, c, C, L, sums, to, ahead)
    if whole < C:
        _sum_row(panel, p + whole // L * plane, row, step, odd, w, x, i, W, factors, whole, C, C - whole, sums, to, ahead)


# --- the input's gradient -------------------------------------------------------------------------------------------------


@device(forceinline=True)
def _store_gradient(d, x, i, own, mean, scale, bias, slope, shift, D):
    distance = load(x, i, own) - mean
    moved = select(slope == 0.0, shift, fma(distance, slope, shift))  # of constants a number that is not finite says nothing
    store(D, i, fma(_behind_relu(d, distance, scale, bias), scale, moved), own)


@device(forceinline=True)
def _gradient_row(panel, p, row, step, odd, w, x, i, W, factors, c, C, own, D):
    """Row of the input's gradient D[i:], of the vector of channels c."""
    L, wide = lanes(panel), factors.shape[1]
    filters = _filters(w, c, C, own, step)
    mean, scale, bias = load(factors, c, own), load(factors, wide + c, own), load(factors, 2 * wide + c, own)
    slope, shift = load(factors, 3 * wide + c, own), load(factors, 4 * wide + c, own)
    whole, each = W - W % 4, L // step
    for iw in range(0, whole, 4):
        at = i + iw * C + c
        prefetch_four(x, at + W * C, C)
        d0, d1, d2, d3 = _gradients(panel, p + iw * each, row, step, odd, filters)
        _store_gradient(d0, x, at, own, mean, scale, bias, slope, shift, D)
        _store_gradient(d1, x, at + C, own, mean, scale, bias, slope, shift, D)
        _store_gradient(d2, x, at + 2 * C, own, mean, scale, bias, slope, shift, D)
        _store_gradient(d3, x, at + 3 * C, own, mean, scale, bias, slope, shift, D)
    if whole < W:
        d0, d1, d2, _ = _gradients(panel, p + whole * each, row, step, odd, filters)
        at = i + whole * C + c
        _store_gradient(d0, x, at, own, mean, scale, bias, slope, shift, D)
        if W - whole > 1:
            _store_gradient(d1, x, at + C, own, mean, scale, bias, slope, shift, D)
        if W - whole > 2:
            _store_gradient(d2, x, at + 2 * C, own, mean, scale, bias, slope, shift, D)


@device
def _gradient_rows(panel, p, row, plane, step, odd, w, x, i, W, factors, C, D):
    """`_gradient_row` of all channels."""
    L = lanes(panel)
    whole = C - C % L
    for c in range(0, whole, L):
        _gradient_row(panel, p + c // L * plane, row, step, odd, w, x, i, W, factors, c, C, L, D)
    if whole < C:
        _gradient_row(panel, p + whole // L * plane, row, step, odd, w, x, i, W, factors, whole, C, C - whole, D)


# --- bands ----------------------------------------------------------------------------------------------------------------


@device
def _rows_seen(start, stop, step, PT):
    """(first, count) of the rows of the output's gradient that rows start .. stop of the input see."""
    if step == 1:
        return start + PT - 2, stop - start + 2
    first = (start + PT - 1) // 2
    return first, (stop - 1 + PT) // 2 - first + 1


@device
def _width_seen(W, PL, step):
    """(columns of a panel of the output's gradient, its column 0 in it) that W columns of the input see, in fours."""
    return (width_of(W, 1), 2 - PL) if step == 1 else ((W + 3) // 4 * 2 + 1, 0)


@apart
def _sum_split(s, G, X, factors, weight, step, padding, bands, parts, sums, filters):
    """Split `s` of `backward`: filters[s], and sums[s] (2, C), those of BatchNorm's gradients, over the split's bands."""
    N, H, W, C = X.shape
    _, OH, OW, _ = G.shape
    PT, PL = padding
    L, splits = lanes(X), filters.shape[0]
    width, (g_width, left) = width_of(OW, step), _width_seen(W, PL, step)
    vectors, x_rows, g_rows = (C + L - 1) // L, ((OH + bands - 1) // bands - 1) * step + 3, (H + bands - 1) // bands + 2  # at most
    x_panel, g_panel = scratch_pair(vectors * x_rows * width * L, vectors * g_rows * g_width * L, X.dtype)
    zero(flat(filters), s * 9 * C, 9 * C)
    sums[s] = 0.0
    for job in range(s * N * bands // splits, (s + 1) * N * bands // splits):
        n, band = job // bands, job % bands
        start, stop = H * band // bands, H * (band + 1) // bands
        (seen, g_rows), g_row = _rows_seen(start, stop, step, PT), g_width * L
        _fill(flat(G), n * OH * OW * C, (OH, OW, C), seen, left, g_panel, g_rows, g_width)
        first, last = OH * band // bands, OH * (band + 1) // bands
        x_rows, x_row, o = (last - first - 1) * step + 3, width * L, (n * OH + first) * OW * C
        fill_normalized(flat(X), n * H * W * C, (H, W, C), first * step - PT, PL, factors, x_panel, x_rows, width)
        if step == 1:
            add_filters(x_panel, x_row, x_rows * x_row, 1, flat(G), o, last - first, OW, C, flat(filters), s * 9 * C)
        else:
            add_filters(x_panel, x_row, x_rows * x_row, 2, flat(G), o, last - first, OW, C, flat(filters), s * 9 * C)
        zero(flat(parts), s * 2 * C, 2 * C)
        ahead = (stop - start) * W * C  # from a row to that of the next band
        for h in range(start, stop):
            i, plane, to = (n * H + h) * W * C, g_rows * g_row, s * 2 * C
            if step == 1:
                p = (h - start) * g_row
                _sum_rows(g_panel, p, g_row, plane, 1, False, flat(weight), flat(X), i, W, factors, C, flat(parts), to, ahead)
            else:
                p, odd = ((h + PT - 1) // 2 - seen) * g_row, (h + PT) % 2 == 1
                _sum_rows(g_panel, p, g_row, plane, 2, odd, flat(weight), flat(X), i, W, factors, C, flat(parts), to, ahead)
        for i in range(2):
            for c in range(C):
                sums[s, i, c] += parts[s, i, c]


@apart
def _gradient_band(job, G, X, factors, weight, D, step, padding, bands):
    """Band `job` of the input's gradient, counted through all images."""
    _, H, W, C = X.shape
    _, OH, OW, _ = G.shape
    PT, PL = padding
    L = lanes(X)
    n, band = job // bands, job % bands
    start, stop = H * band // bands, H * (band + 1) // bands
    (first, rows), (width, left) = _rows_seen(start, stop, step, PT), _width_seen(W, PL, step)
    row = width * L
    panel = scratch((C + L - 1) // L * rows * row, X.dtype)
    _fill(flat(G), n * OH * OW * C, (OH, OW, C), first, left, panel, rows, width)
    for h in range(start, stop):
        i, plane = (n * H + h) * W * C, rows * row
        if step == 1:
            _gradient_rows(panel, (h - start) * row, row, plane, 1, False, flat(weight), flat(X), i, W, factors, C, flat(D))
        else:
            p, odd = ((h + PT - 1) // 2 - first) * row, (h + PT) % 2 == 1
            _gradient_rows(panel, p, row, plane, 2, odd, flat(weight), flat(X), i, W, factors, C, flat(D))


@kernel
def backward(G, X, saved, normalizing, training, weight, step, padding, bands, jobs, filters, grad_weight, grad_bias, D, parts,
             sums, totals, factors):
    """Reads the output's gradient G (N, OH, OW, C), X (N, H, W, C), what norm.forward has `saved`, and its factors `normalizing`.

    Writes filters (splits, 3, 3, C), the filters' gradient, to be summed over splits, grad_weight and grad_bias (C,), BatchNorm's, and
    D (N, H, W, C), the input's; D may be empty, with jobs = 0, else `jobs` are the bands of all images. weight (3, 3, C), `step` and
    `padding` as in norm_depthwise.convolve. parts and sums (splits, 2, C), sums in float64, totals (2, C), float64, and factors
    (5, fold * C) are scratch. Parallel over splits, then over bands."""
    N, H, W, C = X.shape
    factors[:3] = normalizing
    for s in prange(filters.shape[0]):
        _sum_split(np.int64(s), G, X, factors, weight, step, padding, bands, parts, sums, filters)
    totals[:] = 0.0
    for s in range(sums.shape[0]):
        for i in range(2):
            for c in range(C):
                totals[i, c] += sums[s, i, c]
    factors[3:] = 0.0
    gradients_of_factors(totals, saved, N * H * W, training, factors, grad_weight, grad_bias)
    for job in prange(jobs):
        _gradient_band(np.int64(job), G, X, factors, weight, D, step, padding, bands)
