"""Batch normalisation over x, M rows of C channels; the channels are the vector. Parallel over blocks of rows.

All read wide rows, `fold` rows of x as one with fold * C channels, about four vectors: few channels fill vectors too. Sums go block by
block: within a block in the array's dtype, over the blocks in float64 and in order; the few rows that remain are added one by one. A block
of sums is four runs of wide rows, read side by side, a row of each at a time: every run in order and in pages of its own, which is what
the hardware foresees. One vector of channels down the rows, or neighbouring rows side by side, take twice as long.
"""

import math

import numpy as np
from numba import prange

from fastconv.kernels.jit import device, kernel
from fastconv.kernels.vector import fma, lanes, select, splat
from fastconv.kernels.vector_memory import load, store, zero

RUNS = 4
"""Runs of wide rows in a block of sums."""

ELEMENTS = 8192
"""Numbers of a block whose rows are computed."""


@device
def _runs(job, step, M, fold, W):
    """(where the first run of a block of sums begins, numbers of each of its runs), of M rows, `step` wide rows a run."""
    start = job * step
    return RUNS * start * W, (min(start + step, M // (RUNS * fold)) - start) * W


@device
def _rows(job, M, C):
    """(start, stop) of the wide rows that a job computes, of M of C channels."""
    step = max(1, ELEMENTS // C)
    return job * step, min((job + 1) * step, M)


# --- statistics ----------------------------------------------------------------------------------------------------------


@device(forceinline=True)
def _mean_of_four(x, i, run, parts, to, W, count):
    """The mean of the first rows of four runs, near enough to that of all: where it is far, the variance is large, they are part of it."""
    near = ((load(x, i, count) + load(x, i + run, count)) + (load(x, i + 2 * run, count) + load(x, i + 3 * run, count))) * 0.25
    store(parts, to, splat(x, 0.0), count)
    store(parts, to + W, splat(x, 0.0), count)
    store(parts, to + 2 * W, near, count)


@device(forceinline=True)
def _add_four(x, i, run, parts, to, W, count):
    """Adds the distances of four rows from the mean of the first, and their squares."""
    near, squares = load(parts, to + 2 * W, count), load(parts, to + W, count)
    d0, d1 = load(x, i, count) - near, load(x, i + run, count) - near
    d2, d3 = load(x, i + 2 * run, count) - near, load(x, i + 3 * run, count) - near
    store(parts, to, load(parts, to, count) + ((d0 + d1) + (d2 + d3)), count)
    store(parts, to + W, fma(d3, d3, fma(d2, d2, fma(d1, d1, fma(d0, d0, squares)))), count)


@device(forceinline=True)
def _mean_of_block(parts, to, W, share, like, count):
    """From the distances and their squares the mean of the block and the squares of the distances from that."""
    distances = load(parts, to, count)
    store(parts, to, fma(distances, splat(like, share), load(parts, to + 2 * W, count)), count)
    store(parts, to + W, load(parts, to + W, count) - distances * distances * share, count)


@device
def _block_statistics(job, step, x, fold, parts):
    """Mean and sum of squared distances from it, of one block."""
    W, L, to = parts.shape[2], lanes(x), job * 3 * parts.shape[2]
    start, run = _runs(job, step, x.shape[0], fold, W)
    whole, share = W - W % L, W / (RUNS * run)
    for c in range(0, whole, L):
        _mean_of_four(x, start + c, run, parts, to + c, W, L)
    if whole < W:
        _mean_of_four(x, start + whole, run, parts, to + whole, W, W - whole)
    for i in range(start, start + run, W):
        for c in range(0, whole, L):
            _add_four(x, i + c, run, parts, to + c, W, L)
        if whole < W:
            _add_four(x, i + whole, run, parts, to + whole, W, W - whole)
    for c in range(0, W, L):
        _mean_of_block(parts, to + c, W, share, x, W - c)


@device
def _combine_statistics(step, x, fold, parts, totals):
    """totals (2, C): mean and sum of squared distances of all rows from those of the blocks (Chan, Golub and LeVeque 1979)."""
    (M, C), (jobs, _, W) = x.shape, parts.shape
    remaining = range(M // (RUNS * fold) * RUNS * fold, M)
    totals[:] = 0.0
    for job in range(jobs):
        rows = RUNS * _runs(job, step, M, fold, W)[1] // W
        for p in range(fold):
            for c in range(C):
                totals[0, c] += parts[job, 0, p * C + c] * (rows / M)
    for m in remaining:
        for c in range(C):
            totals[0, c] += x[m, c] / M
    for job in range(jobs):
        rows = RUNS * _runs(job, step, M, fold, W)[1] // W
        for p in range(fold):
            for c in range(C):
                distance = parts[job, 0, p * C + c] - totals[0, c]
                totals[1, c] += parts[job, 1, p * C + c] + rows * distance * distance
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
def forward(x, other, training, running_mean, running_var, batches, momentum, eps, weight, bias, low, saved, y, fold, step, jobs, parts,
            totals, factors):
    """Reads x, writes its mean and 1 / sqrt(variance + eps) to saved (2, C), and y = (x - saved[0]) * saved[1] * weight + bias + other, at
    least `low`: 0 is ReLU, -inf nothing.

    In training mean and variance are those of x, and running_mean and running_var (C,) are moved and batches (1,) counted unless they are
    empty; otherwise these are the mean and the variance. weight, bias (C,) and other may be empty, and y with jobs = 0. parts
    (blocks, 3, fold * C), of RUNS runs of `step` wide rows each, totals (2, C), float64, and factors (3, fold * C) are scratch."""
    M, C = x.shape
    if training:
        for job in prange(parts.shape[0]):
            _block_statistics(job, step, x, fold, parts)
        _combine_statistics(step, x, fold, parts, totals)
        for c in range(C):
            saved[0, c] = totals[0, c]
            saved[1, c] = 1.0 / math.sqrt(totals[1, c] / M + eps)
            if running_mean.size > 0:
                running_mean[c] += momentum * (totals[0, c] - running_mean[c])
            if running_var.size > 0:
                running_var[c] += momentum * (totals[1, c] / (M - 1) - running_var[c])
        for i in range(batches.size):
            batches[i] += 1
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
def _sum_four(g, x, i, run, factors, c, count, low, parts, to):
    """Adds the terms of four rows."""
    W = factors.shape[1]
    total, product = load(parts, to + c, count), load(parts, to + W + c, count)
    total, product = _terms(g, x, i, factors, c, count, low, total, product)
    total, product = _terms(g, x, i + run, factors, c, count, low, total, product)
    total, product = _terms(g, x, i + 2 * run, factors, c, count, low, total, product)
    total, product = _terms(g, x, i + 3 * run, factors, c, count, low, total, product)
    store(parts, to + c, total, count)
    store(parts, to + W + c, product, count)


@device
def _block_gradient_sums(job, step, g, x, fold, factors, low, parts):
    W, L, to = parts.shape[2], lanes(x), job * 2 * parts.shape[2]
    start, run = _runs(job, step, x.shape[0], fold, W)
    whole = W - W % L
    zero(parts, to, 2 * W)
    for i in range(start, start + run, W):
        for c in range(0, whole, L):
            _sum_four(g, x, i + c, run, factors, c, L, low, parts, to)
        if whole < W:
            _sum_four(g, x, i + whole, run, factors, whole, W - whole, low, parts, to)


@device
def _sum_gradients(g, x, low, fold, factors, parts, totals):
    """totals (2, C): the sums of g and of g * (x - mean), from those of the blocks."""
    M, C = x.shape
    totals[:] = 0.0
    for job in range(parts.shape[0]):
        for p in range(fold):
            for c in range(C):
                totals[0, c] += parts[job, 0, p * C + c]
                totals[1, c] += parts[job, 1, p * C + c]
    rest, nothing = np.empty((2, C), x.dtype), splat(x, 0.0)
    for m in range(M // (RUNS * fold) * RUNS * fold, M):
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
def backward(g, x, saved, weight, bias, low, training, sums, grad_weight, grad_bias, d, fold, step, jobs, parts, totals, factors):
    """Reads g, writes d = a * g, a = weight * saved[1], when the statistics are constants; in training + b * (x - saved[0]) + shift, as
    they are those of x, of which the sums tell how they move.

    With `sums`, which training needs, grad_bias (C,) becomes the sum of g, and grad_weight (C,) that of g * (x - saved[0]) * saved[1].
    d may be empty, with jobs = 0. parts (blocks, 2, fold * C), of RUNS runs of `step` wide rows each, totals (2, C), float64, and factors
    (5, fold * C) are scratch."""
    M, C = x.shape
    for c in range(factors.shape[1]):
        inverse = saved[1, c % C]
        factors[0, c] = inverse * weight[c % C] if weight.size > 0 else inverse
        factors[1, c] = saved[0, c % C]
        factors[4, c] = bias[c % C] if bias.size > 0 else 0.0
    if sums:
        for job in prange(parts.shape[0]):
            _block_gradient_sums(job, step, g, x, fold, factors, low, parts)
        _sum_gradients(g, x, low, fold, factors, parts, totals)
        for c in range(C):
            totals[1, c] *= saved[1, c]
            grad_bias[c], grad_weight[c] = totals[0, c], totals[1, c]
    if training:
        for c in range(factors.shape[1]):
            a = factors[0, c]
            factors[2, c] = -a * saved[1, c % C] * (totals[1, c % C] / M)
            factors[3, c] = -a * (totals[0, c % C] / M)
    for job in prange(jobs):
        _block_gradient(job, g, x, factors, low, training, d)
