"""Batch normalisation over x, M rows of C channels; the channels are the vector. Parallel over blocks of rows.

All read wide rows, `fold` rows of x as one with fold * C channels, about four vectors: few channels fill vectors too, the latency of
additions is hidden, and memory is read and written in order (one vector at a time down the rows takes 2 to 5 times as long at 64
channels). Sums go block by block: within a block in the array's dtype, over the blocks in float64 and in order; the up to fold - 1 rows
that remain are added one by one.
"""

import math

from numba import prange

from fastconv.kernels.jit import device, kernel
from fastconv.kernels.vector import fma, lanes, load, splat, store

ELEMENTS, ROWS = 8192, 32  # of a block, at least: it stays in the first two caches, and its sums are few beside it


@device
def _rows(job, M, C):
    """(start, stop) of the rows that a job takes, of M rows of C channels."""
    step = max(ROWS, ELEMENTS // C)
    return job * step, min((job + 1) * step, M)


# --- statistics ----------------------------------------------------------------------------------------------------------


@device
def _block_statistics(job, x, fold, parts):
    """Mean and sum of squared distances from it, of one block; the sum of the distances takes the rounding error of the mean away."""
    W, L = parts.shape[2], lanes(x)
    start, stop = _rows(job, x.shape[0] // fold, W)
    share = 1.0 / (stop - start)
    for c in range(0, W, 4 * L):
        n0, n1, n2, n3 = W - c, W - c - L, W - c - 2 * L, W - c - 3 * L
        s0, s1, s2, s3 = splat(x, 0.0), splat(x, 0.0), splat(x, 0.0), splat(x, 0.0)
        for i in range(start * W + c, stop * W + c, W):
            s0, s1 = s0 + load(x, i, n0), s1 + load(x, i + L, n1)
            s2, s3 = s2 + load(x, i + 2 * L, n2), s3 + load(x, i + 3 * L, n3)
        m0, m1, m2, m3 = s0 * share, s1 * share, s2 * share, s3 * share
        s0, s1, s2, s3 = splat(x, 0.0), splat(x, 0.0), splat(x, 0.0), splat(x, 0.0)
        q0, q1, q2, q3 = splat(x, 0.0), splat(x, 0.0), splat(x, 0.0), splat(x, 0.0)
        for i in range(start * W + c, stop * W + c, W):
            d0, d1 = load(x, i, n0) - m0, load(x, i + L, n1) - m1
            d2, d3 = load(x, i + 2 * L, n2) - m2, load(x, i + 3 * L, n3) - m3
            s0, s1, s2, s3 = s0 + d0, s1 + d1, s2 + d2, s3 + d3
            q0, q1, q2, q3 = fma(d0, d0, q0), fma(d1, d1, q1), fma(d2, d2, q2), fma(d3, d3, q3)
        to = 2 * job * W + c
        _store_four(parts, to, fma(s0, share, m0), fma(s1, share, m1), fma(s2, share, m2), fma(s3, share, m3), n0)
        _store_four(parts, to + W, q0 - s0 * s0 * share, q1 - s1 * s1 * share, q2 - s2 * s2 * share, q3 - s3 * s3 * share, n0)


@device(forceinline=True)
def _store_four(array, i, v0, v1, v2, v3, count):
    L = lanes(array)
    store(array, i, v0, count)
    store(array, i + L, v1, count - L)
    store(array, i + 2 * L, v2, count - 2 * L)
    store(array, i + 3 * L, v3, count - 3 * L)


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


@kernel
def statistics(x, fold, parts, totals, running_mean, running_var, saved, momentum, eps):
    """Reads x, writes its mean and 1 / sqrt(variance + eps) to saved (2, C); moves running_mean and running_var unless they are empty.
    parts (blocks, 2, fold * C) and totals (2, C), float64, are scratch."""
    for job in prange(parts.shape[0]):
        _block_statistics(job, x, fold, parts)
    _combine_statistics(x, fold, parts, totals)
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
def _normalize_block(job, x, factors, y):
    W = factors.shape[1]
    start, stop = _rows(job, (x.size + W - 1) // W, W)
    for i in range(start * W, stop * W, W):
        end = min(W, x.size - i)
        for c in range(0, end, lanes(x)):
            distance = load(x, i + c, end - c) - load(factors, c, end - c)
            store(y, i + c, fma(distance, load(factors, W + c, end - c), load(factors, 2 * W + c, end - c)), end - c)


@kernel
def normalize(x, saved, weight, bias, factors, y, jobs):
    """Reads x and saved (2, C), writes y = (x - saved[0]) * saved[1] * weight + bias; weight and bias (C,) may be empty.
    factors (3, fold * C) is scratch."""
    C = x.shape[1]
    for c in range(factors.shape[1]):
        inverse = saved[1, c % C]
        factors[0, c] = saved[0, c % C]
        factors[1, c] = inverse * weight[c % C] if weight.size > 0 else inverse
        factors[2, c] = bias[c % C] if bias.size > 0 else 0.0
    for job in prange(jobs):
        _normalize_block(job, x, factors, y)


# --- backward ------------------------------------------------------------------------------------------------------------


@device
def _block_gradient_sums(job, g, x, fold, mean, parts):
    W, L = parts.shape[2], lanes(x)
    start, stop = _rows(job, x.shape[0] // fold, W)
    for c in range(0, W, 4 * L):
        n0, n1, n2, n3 = W - c, W - c - L, W - c - 2 * L, W - c - 3 * L
        m0, m1, m2, m3 = load(mean, c, n0), load(mean, c + L, n1), load(mean, c + 2 * L, n2), load(mean, c + 3 * L, n3)
        s0, s1, s2, s3 = splat(x, 0.0), splat(x, 0.0), splat(x, 0.0), splat(x, 0.0)
        p0, p1, p2, p3 = splat(x, 0.0), splat(x, 0.0), splat(x, 0.0), splat(x, 0.0)
        for i in range(start * W + c, stop * W + c, W):
            g0, g1, g2, g3 = load(g, i, n0), load(g, i + L, n1), load(g, i + 2 * L, n2), load(g, i + 3 * L, n3)
            s0, s1, s2, s3 = s0 + g0, s1 + g1, s2 + g2, s3 + g3
            p0, p1 = fma(g0, load(x, i, n0) - m0, p0), fma(g1, load(x, i + L, n1) - m1, p1)
            p2, p3 = fma(g2, load(x, i + 2 * L, n2) - m2, p2), fma(g3, load(x, i + 3 * L, n3) - m3, p3)
        _store_four(parts, 2 * job * W + c, s0, s1, s2, s3, n0)
        _store_four(parts, (2 * job + 1) * W + c, p0, p1, p2, p3, n0)


@kernel
def gradient_sums(g, x, saved, fold, mean, parts, totals):
    """Reads g and x, writes to totals (2, C), float64, the sums of g, which is the bias's gradient, and of g * (x - saved[0]) * saved[1],
    which is the weight's. mean (fold * C) and parts (blocks, 2, fold * C) are scratch."""
    M, C = x.shape
    for c in range(mean.size):
        mean[c] = saved[0, c % C]
    for job in prange(parts.shape[0]):
        _block_gradient_sums(job, g, x, fold, mean, parts)
    totals[:] = 0.0
    for job in range(parts.shape[0]):
        for p in range(fold):
            for c in range(C):
                totals[0, c] += parts[job, 0, p * C + c]
                totals[1, c] += parts[job, 1, p * C + c]
    for m in range(M // fold * fold, M):
        for c in range(C):
            totals[0, c] += g[m, c]
            totals[1, c] += g[m, c] * (x[m, c] - saved[0, c])
    for c in range(C):
        totals[1, c] *= saved[1, c]


@device
def _block_gradient(job, g, x, factors, d):
    W = factors.shape[1]
    start, stop = _rows(job, (x.size + W - 1) // W, W)
    for i in range(start * W, stop * W, W):
        end = min(W, x.size - i)
        for c in range(0, end, lanes(x)):
            gradient = load(g, i + c, end - c) * load(factors, c, end - c)
            if factors.shape[0] == 4:
                distance = load(x, i + c, end - c) - load(factors, W + c, end - c)
                gradient = gradient + fma(distance, load(factors, 2 * W + c, end - c), load(factors, 3 * W + c, end - c))
            store(d, i + c, gradient, end - c)


@kernel
def backward(g, x, saved, weight, totals, factors, d, jobs):
    """Reads g, writes d = a * g + b * (x - saved[0]) + shift with a = weight * saved[1]. factors is scratch: (1, fold * C) when the
    statistics are constants, so that b and shift are 0; (4, fold * C) when they are those of x, of which totals, from gradient_sums,
    tells how they move."""
    M, C = x.shape
    for c in range(factors.shape[1]):
        inverse = saved[1, c % C]
        a = inverse * weight[c % C] if weight.size > 0 else inverse
        factors[0, c] = a
        if factors.shape[0] == 4:
            factors[1, c] = saved[0, c % C]
            factors[2, c] = -a * inverse * (totals[1, c % C] / M)
            factors[3, c] = -a * (totals[0, c % C] / M)
    for job in prange(jobs):
        _block_gradient(job, g, x, factors, d)
