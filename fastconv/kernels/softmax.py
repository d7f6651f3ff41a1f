"""Softmax and its logarithm over rows of C elements of flat arrays; g, y, d as in `activation`. Parallel over blocks of rows."""

import math

from numba import prange

from fastconv.kernels.elementary import exp, log
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.vector import BLOCK, fma, lanes, max_lanes, select, splat, sum_lanes, without_negligible
from fastconv.kernels.vector_memory import load, load_or, store


@device
def row_maximum(x, start, C):
    """The largest of x[start : start + C], NaN when one is NaN."""
    largest = splat(x, -math.inf)
    for c in range(0, C, lanes(x)):
        v = load_or(x, start + c, C - c, -math.inf)
        largest = select(v <= largest, largest, select(largest != largest, largest, v))
    return max_lanes(largest)


@device
def row_exp_sum(x, start, C, shift):
    """The sum of exp(x - shift) over x[start : start + C]."""
    total = splat(x, 0.0)
    for c in range(0, C, lanes(x)):
        total = total + exp(load_or(x, start + c, C - c, -math.inf) - shift)
    return sum_lanes(total)


@device
def row_exp(x, start, C, shift, y):
    """As `row_exp_sum`, whose terms become y[start : start + C]."""
    total = splat(x, 0.0)
    for c in range(0, C, lanes(x)):
        e = exp(load_or(x, start + c, C - c, -math.inf) - shift)
        store(y, start + c, e, C - c)
        total = total + e
    return sum_lanes(total)


@device
def rows_per_job(C):
    """Rows of C elements that one job takes."""
    return max(1, BLOCK // C)


@kernel
def softmax_forward(x, y, C):
    """y = exp(x - max) / sum of exp(x - max)."""
    rows, step = x.size // C, rows_per_job(C)
    for job in prange((rows + step - 1) // step):
        for start in range(job * step * C, min((job + 1) * step, rows) * C, C):
            scale = 1 / row_exp(x, start, C, row_maximum(x, start, C), y)
            for c in range(0, C, lanes(x)):
                store(y, start + c, load(y, start + c, C - c) * scale, C - c)


@kernel
def softmax_backward(g, y, d, C):
    """d = y * (g - sum of g * y over the row), from the output y."""
    rows, step = y.size // C, rows_per_job(C)
    for job in prange((rows + step - 1) // step):
        for start in range(job * step * C, min((job + 1) * step, rows) * C, C):
            total = splat(y, 0.0)
            for c in range(0, C, lanes(y)):
                total = fma(load(g, start + c, C - c), load(y, start + c, C - c), total)
            mean = sum_lanes(total)
            for c in range(0, C, lanes(y)):
                v = load(y, start + c, C - c) * (load(g, start + c, C - c) - mean)
                store(d, start + c, without_negligible(v), C - c)


@kernel
def log_softmax_forward(x, y, C):
    """y = x - max - log(sum of exp(x - max))."""
    rows, step = x.size // C, rows_per_job(C)
    for job in prange((rows + step - 1) // step):
        for start in range(job * step * C, min((job + 1) * step, rows) * C, C):
            shift = row_maximum(x, start, C)
            log_sum = log(splat(x, row_exp_sum(x, start, C, shift)))
            for c in range(0, C, lanes(x)):
                store(y, start + c, load(x, start + c, C - c) - shift - log_sum, C - c)


@kernel
def log_softmax_backward(g, y, d, C):
    """d = g - exp(y) * sum of g over the row, from the output y."""
    rows, step = y.size // C, rows_per_job(C)
    for job in prange((rows + step - 1) // step):
        for start in range(job * step * C, min((job + 1) * step, rows) * C, C):
            total = splat(y, 0.0)
            for c in range(0, C, lanes(y)):
                total = total + load(g, start + c, C - c)
            sum_g = sum_lanes(total)
            for c in range(0, C, lanes(y)):
                v = load(g, start + c, C - c) - exp(load(y, start + c, C - c)) * sum_g
                store(d, start + c, without_negligible(v), C - c)
