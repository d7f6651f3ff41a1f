"""Batch normalisation over x, M rows of C channels; the channels are the vector. Parallel over blocks of rows.

All read wide rows, `fold` rows of x as one with fold * C channels, about four vectors: few channels fill vectors too. Sums go block by
block: within a block in the array's dtype, over the blocks in float64 and in order; the few rows that remain are added one by one. A block
of sums is four runs of wide rows, read side by side, a row of each at a time: every run in order and in pages of its own, which is what
the hardware foresees. One vector of channels down the rows, or neighbouring rows side by side, take twice as long.
"""

import math

from numba import prange

from fastconv.kernels.jit import device, kernel
from fastconv.kernels.vector import fma, lanes, select, splat
from fastconv.kernels.vector_memory import load, store

RUNS = 4
"""Runs of wide rows in a block of sums."""

ELEMENTS = 8192
"""Numbers of a block whose rows are computed."""


@device
def runs_of(job, step, M, fold, W):
    """(where the first run of a block of sums begins, numbers of each of its runs), of M rows, `step` wide rows a run."""
    start = job * step
    return RUNS * start * W, (min(start + step, M // (RUNS * fold)) - start) * W


@device
def rows_of(job, M, C):
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
    start, run = runs_of(job, step, x.shape[0], fold, W)
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
        rows = RUNS * runs_of(job, step, M, fold, W)[1] // W
        for p in range(fold):
            for c in range(C):
                totals[0, c] += parts[job, 0, p * C + c] * (rows / M)
    for m in remaining:
        for c in range(C):
            totals[0, c] += x[m, c] / M
    for job in range(jobs):
        rows = RUNS * runs_of(job, step, M, fold, W)[1] // W
        for p in range(fold):
            for c in range(C):
                distance = parts[job, 0, p * C + c] - totals[0, c]
                totals[1, c] += parts[job, 1, p * C + c] + rows * distance * distance
    for m in remaining:
        for c in range(C):
            totals[1, c] += (x[m, c] - totals[0, c]) ** 2


# --- forward -------------------------------------------------------------------------------------------------------------

@device
def set_factors(saved, weight, bias, factors):
    """factors (., W): mean, scale and bias of each column of a wide row; for gradients there are also slope and shift."""
    C = saved.shape[1]
    for c in range(factors.shape[1]):
        inverse = saved[1, c % C]
        factors[0, c] = saved[0, c % C]
        factors[1, c] = inverse * weight[c % C] if weight.size > 0 else inverse
        factors[2, c] = bias[c % C] if bias.size > 0 else 0.0


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
    start, stop = rows_of(job, (x.size + W - 1) // W, W)
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
    set_factors(saved, weight, bias, factors)
    for job in prange(jobs):
        _normalize_block(job, x, other, factors, low, y)
