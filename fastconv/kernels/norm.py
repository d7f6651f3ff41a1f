"""Batch normalisation over x, M rows of C channels; the channels are the vector. Parallel over blocks of rows.

Sums go block by block: within a block in the array's dtype, over the blocks in float64 and in order.
"""

import math

from numba import prange

from fastconv.kernels.jit import device, kernel
from fastconv.kernels.vector import fma, lanes, load, splat, store

ELEMENTS, ROWS = 8192, 32  # of a block, at least: it stays in the first two caches, and its sums are few beside it


@device
def _rows(array, job):
    """(start, stop) of the rows that a job takes."""
    step = max(ROWS, ELEMENTS // array.shape[1])
    return job * step, min((job + 1) * step, array.shape[0])


# --- statistics ----------------------------------------------------------------------------------------------------------


@device
def _sum_rows(x, start, stop, c):
    """The sum of rows of x, channels from c on; four sums hide the latency of the addition."""
    C = x.shape[1]
    s0, s1, s2, s3 = splat(x, 0.0), splat(x, 0.0), splat(x, 0.0), splat(x, 0.0)
    full = start + (stop - start) // 4 * 4
    for m in range(start, full, 4):
        s0 = s0 + load(x, m * C + c, C - c)
        s1 = s1 + load(x, (m + 1) * C + c, C - c)
        s2 = s2 + load(x, (m + 2) * C + c, C - c)
        s3 = s3 + load(x, (m + 3) * C + c, C - c)
    for m in range(full, stop):
        s0 = s0 + load(x, m * C + c, C - c)
    return (s0 + s1) + (s2 + s3)


@device
def _sum_squares(x, mean, start, stop, c):
    """The sum of squared distances of rows of x from `mean`, channels from c on."""
    C = x.shape[1]
    s0, s1 = splat(x, 0.0), splat(x, 0.0)
    full = start + (stop - start) // 2 * 2
    for m in range(start, full, 2):
        d0, d1 = load(x, m * C + c, C - c) - mean, load(x, (m + 1) * C + c, C - c) - mean
        s0, s1 = fma(d0, d0, s0), fma(d1, d1, s1)
    if full < stop:
        d0 = load(x, full * C + c, C - c) - mean
        s0 = fma(d0, d0, s0)
    return s0 + s1


@device
def _block_statistics(job, x, parts):
    """Mean and sum of squared distances from it, of one block."""
    C = x.shape[1]
    start, stop = _rows(x, job)
    for c in range(0, C, lanes(x)):
        mean = _sum_rows(x, start, stop, c) * (1.0 / (stop - start))
        store(parts, 2 * job * C + c, mean, C - c)
        store(parts, (2 * job + 1) * C + c, _sum_squares(x, mean, start, stop, c), C - c)


@device
def _combine_statistics(x, parts, totals):
    """totals (2, C): mean and sum of squared distances of all rows from those of the blocks (Chan, Golub and LeVeque 1979)."""
    M, C = x.shape
    totals[:] = 0.0
    for job in range(parts.shape[0]):
        start, stop = _rows(x, job)
        for c in range(C):
            totals[0, c] += parts[job, 0, c] * ((stop - start) / M)
    for job in range(parts.shape[0]):
        start, stop = _rows(x, job)
        for c in range(C):
            distance = parts[job, 0, c] - totals[0, c]
            totals[1, c] += parts[job, 1, c] + (stop - start) * distance * distance


@kernel
def statistics(x, parts, totals, running_mean, running_var, saved, momentum, eps):
    """Reads x, writes its mean and 1 / sqrt(variance + eps) to saved (2, C); moves running_mean and running_var unless they are empty.
    parts (blocks, 2, C) and totals (2, C), float64, are scratch."""
    for job in prange(parts.shape[0]):
        _block_statistics(job, x, parts)
    _combine_statistics(x, parts, totals)
    M, C = x.shape
    for c in range(C):
        saved[0, c] = totals[0, c]
        saved[1, c] = 1.0 / math.sqrt(totals[1, c] / M + eps)
        if running_mean.size > 0:
            running_mean[c] += momentum * (totals[0, c] - running_mean[c])
        if running_var.size > 0:
            running_var[c] += momentum * (totals[1, c] / (M - 1) - running_var[c])


@kernel
def constants(mean, variance, saved, eps):
    """Writes to saved (2, C) what `statistics` would of rows with this mean and variance; one job."""
    for job in prange(1):
        for c in range(mean.size):
            saved[0, c] = mean[c]
            saved[1, c] = 1.0 / math.sqrt(variance[c] + eps)


# --- forward -------------------------------------------------------------------------------------------------------------


@device
def _normalize_block(job, x, saved, weight, bias, y):
    C = x.shape[1]
    start, stop = _rows(x, job)
    for c in range(0, C, lanes(x)):
        mean, scale, shift = load(saved, c, C - c), load(saved, C + c, C - c), splat(x, 0.0)
        if weight.size > 0:
            scale = scale * load(weight, c, C - c)
        if bias.size > 0:
            shift = load(bias, c, C - c)
        for m in range(start, stop):
            store(y, m * C + c, fma(load(x, m * C + c, C - c) - mean, scale, shift), C - c)


@kernel
def normalize(x, saved, weight, bias, y, jobs):
    """Reads x and saved (2, C), writes y = (x - saved[0]) * saved[1] * weight + bias; weight and bias (C,) may be empty."""
    for job in prange(jobs):
        _normalize_block(job, x, saved, weight, bias, y)


# --- backward ------------------------------------------------------------------------------------------------------------


@device
def _block_gradient_sums(job, g, x, saved, parts):
    C = x.shape[1]
    start, stop = _rows(x, job)
    full = start + (stop - start) // 2 * 2
    for c in range(0, C, lanes(x)):
        mean = load(saved, c, C - c)
        s0, s1, p0, p1 = splat(x, 0.0), splat(x, 0.0), splat(x, 0.0), splat(x, 0.0)
        for m in range(start, full, 2):
            g0, g1 = load(g, m * C + c, C - c), load(g, (m + 1) * C + c, C - c)
            s0, s1 = s0 + g0, s1 + g1
            p0 = fma(g0, load(x, m * C + c, C - c) - mean, p0)
            p1 = fma(g1, load(x, (m + 1) * C + c, C - c) - mean, p1)
        if full < stop:
            g0 = load(g, full * C + c, C - c)
            s0 = s0 + g0
            p0 = fma(g0, load(x, full * C + c, C - c) - mean, p0)
        store(parts, 2 * job * C + c, s0 + s1, C - c)
        store(parts, (2 * job + 1) * C + c, p0 + p1, C - c)


@kernel
def gradient_sums(g, x, saved, parts, totals):
    """Reads g and x, writes to totals (2, C), float64, the sums of g, which is the bias's gradient, and of g * (x - saved[0]) * saved[1],
    which is the weight's. parts (blocks, 2, C) is scratch."""
    for job in prange(parts.shape[0]):
        _block_gradient_sums(job, g, x, saved, parts)
    totals[:] = 0.0
    for job in range(parts.shape[0]):
        for c in range(x.shape[1]):
            totals[0, c] += parts[job, 0, c]
            totals[1, c] += parts[job, 1, c]
    for c in range(x.shape[1]):
        totals[1, c] *= saved[1, c]


@device
def _block_gradient(job, g, x, saved, factors, d):
    C = x.shape[1]
    start, stop = _rows(x, job)
    for c in range(0, C, lanes(x)):
        mean, a = load(saved, c, C - c), load(factors, c, C - c)
        if factors.shape[0] == 1:
            for m in range(start, stop):
                store(d, m * C + c, load(g, m * C + c, C - c) * a, C - c)
        else:
            b, shift = load(factors, C + c, C - c), load(factors, 2 * C + c, C - c)
            for m in range(start, stop):
                inner = fma(load(x, m * C + c, C - c) - mean, b, shift)
                store(d, m * C + c, fma(load(g, m * C + c, C - c), a, inner), C - c)


@kernel
def backward(g, x, saved, weight, totals, factors, d, jobs):
    """Reads g, writes d = a * g + b * (x - saved[0]) + shift with a = weight * saved[1]. factors is scratch: (1, C) when the statistics are
    constants, so that b and shift are 0; (3, C) when they are those of x, of which totals, from gradient_sums, tells how they move."""
    M, C = x.shape
    for c in range(C):
        inverse = saved[1, c]
        a = inverse * weight[c] if weight.size > 0 else inverse
        factors[0, c] = a
        if factors.shape[0] == 3:
            factors[1, c] = -a * inverse * (totals[1, c] / M)
            factors[2, c] = -a * (totals[0, c] / M)
    for job in prange(jobs):
        _block_gradient(job, g, x, saved, factors, d)
