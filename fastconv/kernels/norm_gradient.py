"""Gradients of batch normalisation, and of ReLU behind it; blocks and wide rows as in norm.

g may be the gradient behind ReLU: it counts where the output, computed once more by the same operations, is above 0 or NaN. `low` is 0
then, else NaN, below which is nothing: a branch in the innermost loops makes them three times slower, for it keeps Numba from leaving
out the counting of references.
"""

import numpy as np
from numba import prange

from fastconv.kernels.jit import device, kernel
from fastconv.kernels.norm import RUNS, rows_of, runs_of, set_factors
from fastconv.kernels.vector import fma, lanes, select, splat
from fastconv.kernels.vector_memory import load, store, zero


@device(forceinline=True)
def _behind_relu(g, i, distance, factors, c, count, low):
    """Numbers g[i:], 0 where the output that belongs to `distance` is not above `low`."""
    W = factors.shape[1]
    output = fma(distance, load(factors, W + c, count), load(factors, 2 * W + c, count))
    return select(output <= low, 0.0, load(g, i, count))


@device(forceinline=True)
def _terms(g, x, i, factors, c, count, low, total, product):
    """The sums of g and of g * (x - mean), with the vectors g[i:] and x[i:] more."""
    distance = load(x, i, count) - load(factors, c, count)
    gradient = _behind_relu(g, i, distance, factors, c, count, low)
    return total + gradient, fma(gradient, distance, product)


@device(forceinline=True)
def _sum_four(g, x, i, run, factors, c, count, low, sums, to):
    """Adds the terms of four rows, `run` numbers apart."""
    W = factors.shape[1]
    total, product = load(sums, to + c, count), load(sums, to + W + c, count)
    total, product = _terms(g, x, i, factors, c, count, low, total, product)
    total, product = _terms(g, x, i + run, factors, c, count, low, total, product)
    total, product = _terms(g, x, i + 2 * run, factors, c, count, low, total, product)
    total, product = _terms(g, x, i + 3 * run, factors, c, count, low, total, product)
    store(sums, to + c, total, count)
    store(sums, to + W + c, product, count)


@device
def _block_gradient_sums(job, step, g, x, fold, factors, low, parts):
    W, L, to = parts.shape[2], lanes(x), job * 2 * parts.shape[2]
    start, run = runs_of(job, step, x.shape[0], fold, W)
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
    distance = load(x, i + c, count) - load(factors, c, count)
    moved = fma(distance, load(factors, 3 * W + c, count), load(factors, 4 * W + c, count))
    store(d, i + c, fma(_behind_relu(g, i + c, distance, factors, c, count, low), load(factors, W + c, count), moved), count)


@device(forceinline=True)
def _gradient_of_constants(g, x, i, factors, c, count, low, d):
    """As `_gradient`, with statistics that are constants."""
    distance = load(x, i + c, count) - load(factors, c, count)
    store(d, i + c, _behind_relu(g, i + c, distance, factors, c, count, low) * load(factors, factors.shape[1] + c, count), count)


@device
def _block_gradient(job, g, x, factors, low, training, d):
    W, L = factors.shape[1], lanes(x)
    start, stop = rows_of(job, (x.size + W - 1) // W, W)
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


@device
def gradients_of_factors(totals, saved, M, training, factors, grad_weight, grad_bias):
    """From totals (2, C), the sums of g and of g * (x - mean), the gradients of weight and bias, and in training slope and shift."""
    C = saved.shape[1]
    for c in range(C):
        totals[1, c] *= saved[1, c]
        grad_bias[c], grad_weight[c] = totals[0, c], totals[1, c]
    if training:
        for c in range(factors.shape[1]):
            scale = factors[1, c]
            factors[3, c] = -scale * saved[1, c % C] * (totals[1, c % C] / M)
            factors[4, c] = -scale * (totals[0, c % C] / M)


@kernel
def backward(g, x, saved, weight, bias, low, training, sums, grad_weight, grad_bias, d, fold, step, jobs, parts, totals, factors):
    """Reads g, writes d = a * g, a = weight * saved[1], when the statistics are constants; in training + b * (x - saved[0]) + shift, as
    they are those of x, of which the sums tell how they move.

    With `sums`, which training needs, grad_bias (C,) becomes the sum of g, and grad_weight (C,) that of g * (x - saved[0]) * saved[1].
    d may be empty, with jobs = 0. parts (blocks, 2, fold * C), of RUNS runs of `step` wide rows each, totals (2, C), float64, and factors
    (5, fold * C) are scratch."""
    set_factors(saved, weight, bias, factors)
    if sums:
        for job in prange(parts.shape[0]):
            _block_gradient_sums(job, step, g, x, fold, factors, low, parts)
        _sum_gradients(g, x, low, fold, factors, parts, totals)
        gradients_of_factors(totals, saved, x.shape[0], training, factors, grad_weight, grad_bias)
    for job in prange(jobs):
        _block_gradient(job, g, x, factors, low, training, d)
