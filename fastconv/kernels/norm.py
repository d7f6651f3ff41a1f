"""Batch normalisation over x, M rows of C channels; the channels are the vector. Parallel over blocks of rows.

All read wide rows, `fold` rows of x as one with fold * C channels, about four vectors: few channels fill vectors too, the latency of
additions is hidden, and memory is read and written in order (one vector at a time down the rows takes 2 to 5 times as long at 64
channels). Sums go block by block: within a block in the array's dtype, over the blocks in float64 and in order; the up to fold - 1 rows
that remain are added one by one.
"""

import math

import numpy as np
from numba import prange

from fastconv.kernels.jit import device, kernel
from fastconv.kernels.vector import fma, lanes, select, splat
from fastconv.kernels.vector_memory import load, store, store_four

ELEMENTS, ROWS = 8192, 32  # of a block, at least: its sums are few beside it

SHARE = 8
"""The mean of the first eighth of a block's wide rows is near enough to that of all: where it is far, the variance is large, as they are
part of the block."""


@device
def _rows(job, M, C):
    """(start, stop) of the rows that a job takes, of M rows of C channels."""
    step = max(ROWS, ELEMENTS // C)
    return job * step, min((job + 1) * step, M)


# --- statistics ----------------------------------------------------------------------------------------------------------


@device(forceinline=True)
def _mean_of_four(x, first, last, W, c, share, n0, n1, n2, n3):
    """Down the wide rows that start at first .. last, `share` of the sums of four vectors of columns, from c on."""
    L = lanes(x)
    s0, s1, s2, s3 = splat(x, 0.0), splat(x, 0.0), splat(x, 0.0), splat(x, 0.0)
    for i in range(first + c, last + c, W):
        s0, s1 = s0 + load(x, i, n0), s1 + load(x, i + L, n1)
        s2, s3 = s2 + load(x, i + 2 * L, n2), s3 + load(x, i + 3 * L, n3)
    return s0 * share, s1 * share, s2 * share, s3 * share


@device(forceinline=True)
def _statistics_of_four(x, first, last, W, c, parts, to, n0, n1, n2, n3):
    """Mean and squared distances of the same, read once: distances are those from the mean of the rows at the start."""
    L, start = lanes(x), first + ((last - first) // W + SHARE - 1) // SHARE * W
    m0, m1, m2, m3 = _mean_of_four(x, first, start, W, c, W / (start - first), n0, n1, n2, n3)
    s0, s1, s2, s3 = splat(x, 0.0), splat(x, 0.0), splat(x, 0.0), splat(x, 0.0)
    q0, q1, q2, q3 = splat(x, 0.0), splat(x, 0.0), splat(x, 0.0), splat(x, 0.0)
    for i in range(first + c, last + c, W):
        d0, d1 = load(x, i, n0) - m0, load(x, i + L, n1) - m1
        d2, d3 = load(x, i + 2 * L, n2) - m2, load(x, i + 3 * L, n3) - m3
        s0, s1, s2, s3 = s0 + d0, s1 + d1, s2 + d2, s3 + d3
        q0, q1, q2, q3 = fma(d0, d0, q0), fma(d1, d1, q1), fma(d2, d2, q2), fma(d3, d3, q3)
    share = W / (last - first)
    store_four(parts, to + c, fma(s0, share, m0), fma(s1, share, m1), fma(s2, share, m2), fma(s3, share, m3), W - c)
    store_four(parts, to + W + c, q0 - s0 * s0 * share, q1 - s1 * s1 * share, q2 - s2 * s2 * share, q3 - s3 * s3 * share, W - c)


@device
def _block_statistics(job, x, fold, parts):
    """Mean and sum of squared distances from it, of one block."""
    W, L = parts.shape[2], lanes(x)
    start, stop = _rows(job, x.shape[0] // fold, W)
    for c in range(0, W, 4 * L):
        first, last, to = start * W, stop * W, 2 * job * W
        if W - c >= 4 * L:  # without masks, which would not stay in registers
            _statistics_of_four(x, first, last, W, c, parts, to, L, L, L, L)
        else:
            _statistics_of_four(x, first, last, W, c, parts, to, W - c, W - c - L, W - c - 2 * L, W - c - 3 * L)


@device
def _combine_statistics(x, fold, parts, totals):
    """totals (2, C): mean and sum of squared distances of all rows from those of the blocks (Chan, Golub and LeVeque 1979)."""
    (M, C), (jobs, _, W) = x.shape, parts.shape
    remaining = range(M // fold * fold, M)
    totals[:] = 0.0
    for job in range(jobs):
        start, stop = _rows(job, M // fold, W)
        for p in range(fold):
            for c in range(C):
                totals[0, c] += parts[job, 0, p * C + c] * ((stop - start) / M)
    for m in remaining:
        for c in range(C):
            totals[0, c] += x[m, c] / M
    for job in range(jobs):
        start, stop = _rows(job, M // fold, W)
        for p in range(fold):
            for c in range(C):
                distance = parts[job, 0, p * C + c] - totals[0, c]
                totals[1, c] += parts[job, 1, p * C + c] + (stop - start) * distance * distance
    for m in remaining:
        for c in range(C):
            totals[1, c] += (x[m, c] - totals[0, c]) ** 2


# --- forward -------------------------------------------------------------------------------------------------------------


@device(forceinline=True)
def _normal(x, i, factors, c, count):
    """`count` normalized numbers x[i + c:], which belong to column c of the wide row."""
    W = factors.shape[1]
    return fma(load(x, i + c, count) - load(factors, c, count), load(factors, W + c, count), load(factors, 2 * W + c, count))


@device(forceinline=True)
def _store_normal(x, i, factors, c, count, low, y):
    v = _normal(x, i, factors, c, count)
    store(y, i + c, select(v <= low, low, v), count)


@device(forceinline=True)
def _store_sum(x, other, i, factors, c, count, low, y):
    v = _normal(x, i, factors, c, count) + load(other, i + c, count)
    store(y, i + c, select(v <= low, low, v), count)


@device
def _normalize_block(job, x, other, factors, low, y):
    W, L = factors.shape[1], lanes(x)
    start, stop = _rows(job, (x.size + W - 1) // W, W)
    for i in range(start * W, stop * W, W):
        end = min(W, x.size - i)
        whole = end - end % L
        if other.size > 0:
            for c in range(0, whole, L):
                _store_sum(x, other, i, factors, c, L, low, y)
            if whole < end:
                _store_sum(x, other, i, factors, whole, end - whole, low, y)
        else:
            for c in range(0, whole, L):
                _store_normal(x, i, factors, c, L, low, y)
            if whole < end:
                _store_normal(x, i, factors, whole, end - whole, low, y)


@kernel
def forward(x, other, training, running_mean, running_var, momentum, eps, weight, bias, low, saved, y, fold, jobs, parts, totals, factors):
    """Reads x, writes its mean and 1 / sqrt(variance + eps) to saved (2, C), and y = (x - saved[0]) * saved[1] * weight + bias + other, at
    least `low`: 0 is ReLU, -inf nothing.

    In training mean and variance are those of x, and running_mean and running_var (C,) are moved unless they are empty; otherwise these
    are the mean and the variance. weight, bias (C,) and other may be empty, and y with jobs = 0. parts (blocks, 2, fold * C), totals
    (2, C), float64, and factors (3, fold * C) are scratch."""
    M, C = x.shape
    if training:
        for job in prange(parts.shape[0]):
            _block_statistics(job, x, fold, parts)
        _combine_statistics(x, fold, parts, totals)
        for c in range(C):
            saved[0, c] = totals[0, c]
            saved[1, c] = 1.0 / math.sqrt(totals[1, c] / M + eps)
            if running_mean.size > 0:
                running_mean[c] += momentum * (totals[0, c] - running_mean[c])
            if running_var.size > 0:
                running_var[c] += momentum * (totals[1, c] / (M - 1) - running_var[c])
    else:
        for c in range(C):
            saved[0, c] = running_mean[c]
            saved[1, c] = 1.0 / math.sqrt(running_var[c] + eps)
    for c in range(factors.shape[1]):
        inverse = saved[1, c % C]
        factors[0, c] = saved[0, c % C]
        factors[1, c] = inverse * weight[c % C] if weight.size > 0 else inverse
        factors[2, c] = bias[c % C] if bias.size > 0 else 0.0
    for job in prange(jobs):
        _normalize_block(job, x, other, factors, low, y)


# --- backward ------------------------------------------------------------------------------------------------------------

# g may be the gradient behind ReLU: it counts where the output, computed once more by the same operations, is above 0 or NaN. `low` is 0
# then, else NaN, below which is nothing: a branch in the innermost loops makes them three times slower, for it keeps Numba from leaving
# out the counting of references.


@device(forceinline=True)
def _behind_relu(g, i, distance, factors, c, count, low):
    """Numbers g[i:], 0 where the output that belongs to `distance` is not above `low`. factors (5, W): scale, mean, ., ., bias."""
    output = fma(distance, load(factors, c, count), load(factors, 4 * factors.shape[1] + c, count))
    return select(output <= low, 0.0, load(g, i, count))


@device(forceinline=True)
def _terms(g, x, i, factors, c, count, low, total, product):
    """The sums of g and of g * (x - mean), with one vector more."""
    distance = load(x, i, count) - load(factors, factors.shape[1] + c, count)
    gradient = _behind_relu(g, i, distance, factors, c, count, low)
    return total + gradient, fma(gradient, distance, product)


@device(forceinline=True)
def _sum_four(g, x, first, last, factors, c, low, parts, to, n0, n1, n2, n3):
    """Down the wide rows that start at first .. last, the sums of four vectors of columns, from c on."""
    W, L = factors.shape[1], lanes(x)
    s0, s1, s2, s3 = splat(x, 0.0), splat(x, 0.0), splat(x, 0.0), splat(x, 0.0)
    p0, p1, p2, p3 = splat(x, 0.0), splat(x, 0.0), splat(x, 0.0), splat(x, 0.0)
    for i in range(first + c, last + c, W):
        s0, p0 = _terms(g, x, i, factors, c, n0, low, s0, p0)
        s1, p1 = _terms(g, x, i + L, factors, c + L, n1, low, s1, p1)
        s2, p2 = _terms(g, x, i + 2 * L, factors, c + 2 * L, n2, low, s2, p2)
        s3, p3 = _terms(g, x, i + 3 * L, factors, c + 3 * L, n3, low, s3, p3)
    store_four(parts, to + c, s0, s1, s2, s3, W - c)
    store_four(parts, to + W + c, p0, p1, p2, p3, W - c)


@device
def _block_gradient_sums(job, g, x, fold, factors, low, parts):
    W, L = parts.shape[2], lanes(x)
    start, stop = _rows(job, x.shape[0] // fold, W)
    for c in range(0, W, 4 * L):
        if W - c >= 4 * L:  # without masks, which would not stay in registers
            _sum_four(g, x, start * W, stop * W, factors, c, low, parts, 2 * job * W, L, L, L, L)
        else:
            _sum_four(g, x, start * W, stop * W, factors, c, low, parts, 2 * job * W, W - c, W - c - L, W - c - 2 * L, W - c - 3 * L)


@device
def _sum_gradients(g, x, low, fold, factors, parts, totals):
    """totals (2, C): the sums of g and of g * (x - mean), from those of the blocks."""
    M, C = x.shape
    for job in range(parts.shape[0]):
        for p in range(fold):
            for c in range(C):
                totals[0, c] += parts[job, 0, p * C + c]
                totals[1, c] += parts[job, 1, p * C + c]
    rest, nothing = np.empty((2, C), x.dtype), splat(x, 0.0)
    for m in range(M // fold * fold, M):
        for c in range(0, C, lanes(x)):
            gradient, product = _terms(g, x, m * C + c, factors, c, C - c, low, nothing, nothing)
            store(rest, c, gradient, C - c)
            store(rest, C + c, product, C - c)
        for c in range(C):
            totals[0, c] += rest[0, c]
            totals[1, c] += rest[1, c]


@device(forceinline=True)
def _gradient(g, x, i, factors, c, count, low, d):
    """`count` numbers of d[i + c:], which belong to column c of the wide row, with statistics that are x's."""
    W = factors.shape[1]
    distance = load(x, i + c, count) - load(factors, W + c, count)
    moved = fma(distance, load(factors, 2 * W + c, count), load(factors, 3 * W + c, count))
    store(d, i + c, fma(_behind_relu(g, i + c, distance, factors, c, count, low), load(factors, c, count), moved), count)


@device(forceinline=True)
def _gradient_of_constants(g, x, i, factors, c, count, low, d):
    """As `_gradient`, with statistics that are constants."""
    distance = load(x, i + c, count) - load(factors, factors.shape[1] + c, count)
    store(d, i + c, _behind_relu(g, i + c, distance, factors, c, count, low) * load(factors, c, count), count)


@device
def _block_gradient(job, g, x, factors, low, training, d):
    W, L = factors.shape[1], lanes(x)
    start, stop = _rows(job, (x.size + W - 1) // W, W)
    for i in range(start * W, stop * W, W):
        end = min(W, x.size - i)
        whole = end - end % L
        if training:
            for c in range(0, whole, L):
                _gradient(g, x, i, factors, c, L, low, d)
            if whole < end:
                _gradient(g, x, i, factors, whole, end - whole, low, d)
        else:
            for c in range(0, whole, L):
                _gradient_of_constants(g, x, i, factors, c, L, low, d)
            if whole < end:
                _gradient_of_constants(g, x, i, factors, whole, end - whole, low, d)


@kernel
def backward(g, x, saved, weight, bias, low, training, sums, totals, d, fold, jobs, parts, factors):
    """Reads g, writes d = a * g, a = weight * saved[1], when the statistics are constants; in training + b * (x - saved[0]) + shift, as
    they are those of x, of which the sums tell how they move.

    With `sums`, which training needs, totals (2, C), float64, zeros at first, become the sums of g, which is the bias's gradient, and of
    g * (x - saved[0]) * saved[1], which is the weight's. d may be empty, with jobs = 0. parts (blocks, 2, fold * C) and factors
    (5, fold * C) are scratch."""
    M, C = x.shape
    for c in range(factors.shape[1]):
        inverse = saved[1, c % C]
        factors[0, c] = inverse * weight[c % C] if weight.size > 0 else inverse
        factors[1, c] = saved[0, c % C]
        factors[4, c] = bias[c % C] if bias.size > 0 else 0.0
    if sums:
        for job in prange(parts.shape[0]):
            _block_gradient_sums(job, g, x, fold, factors, low, parts)
        _sum_gradients(g, x, low, fold, factors, parts, totals)
        for c in range(C):
            totals[1, c] *= saved[1, c]
    for c in range(factors.shape[1]):
        a = factors[0, c]
        factors[2, c] = -a * saved[1, c % C] * (totals[1, c % C] / M)
        factors[3, c] = -a * (totals[0, c % C] / M)
    for job in prange(jobs):
        _block_gradient(job, g, x, factors, low, training, d)
