"""Losses and their gradients.

Forward kernels return the sum of all losses, in float64 and in an order that depends on the size alone, and write each loss to
`losses` unless it is empty. Backward kernels write d, the gradient of the prediction, of each loss times `scale`, or times its element
of g unless g is empty. Cross entropy is both in one. Parallel over blocks.
"""

import math

import numpy as np
from numba import prange

from fastconv.kernels.elementary import exp, log, log1p, sigmoid
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.softmax import row_exp, row_exp_sum, row_maximum, rows_per_job
from fastconv.kernels.vector import block, blocks, count_lanes, lanes, select, splat, sum_lanes, within, without_negligible
from fastconv.kernels.vector_memory import load, load_or, pointer, store

# --- classes -------------------------------------------------------------------------------------------------------------
# x holds a row of C logits for each target; weight is one number per class, and counts if `weighted`. Rows are pointers: of arrays that
# are passed on Numba would count references for every row, two locked instructions each.


@device
def _class_weight(weight, weighted, c):
    return np.float64(weight[c]) if weighted else 1.0


@device
def _check_targets(target, weight, C, ignore):
    """(sum of the weights of the targets that count, index of the first that is no class or -1)."""
    total, weighted, of_class = 0.0, weight.size > 0, pointer(weight, 0)
    for m in range(target.size):
        if target[m] != ignore:
            if target[m] < 0 or target[m] >= C:
                return total, m
            total += _class_weight(of_class, weighted, target[m])
    return total, -1


@device
def _weighted_sum(x, weight, weighted, C, shift):
    """The sum over a row of weight * (x - shift)."""
    total = splat(x, 0.0)
    for c in range(0, C, lanes(x)):
        v = load_or(x, c, C - c, shift) - shift
        total = total + (v * load(weight, c, C - c) if weighted else v)
    return sum_lanes(total)


@device
def _cross_entropy_row(x, target, weight, weighted, d, wanted, C, smoothing, all_weights, scale):
    """-log p[target], with smoothing mixed with the mean of -log p over all classes; each weighted by class.

    Where it is `wanted` its gradient goes into d: scale * (p * sum of q - q), where q = (1 - smoothing) * weight at the target + smoothing
    / C * weight at every class. p is exp(x - shift) over its sum; in rows of one vector nothing waits for what was written.
    """
    shift = row_maximum(x, 0, C)
    if wanted and C <= lanes(x):
        first = exp(load_or(x, 0, C, -math.inf) - shift)
        total = sum_lanes(first)
    else:
        first = splat(x, 0.0)
        total = row_exp(x, 0, C, shift, d) if wanted else row_exp_sum(x, 0, C, shift)
    at_target = _class_weight(weight, weighted, target)
    if wanted:
        own, spread = (1.0 - smoothing) * at_target, scale * smoothing / C
        factor = scale * (own + smoothing / C * all_weights) / total
        for c in range(0, C, lanes(x)):
            e = first if C <= lanes(x) else load(d, c, C - c)
            q = load(weight, c, C - c) * spread if weighted else splat(d, spread)
            store(d, c, without_negligible(e * factor - q), C - c)
        d[target] -= scale * own
    log_sum = math.log(np.float64(total))
    loss = (log_sum - (x[target] - shift)) * at_target
    if smoothing == 0.0:
        return loss
    others = log_sum * all_weights - _weighted_sum(x, weight, weighted, C, shift)
    return (1.0 - smoothing) * loss + smoothing / C * others


@device
def _sum_weights(weight, C):
    total = np.float64(C)
    if weight.size > 0:
        total = 0.0
        for c in range(C):
            total += weight[c]
    return total


@kernel
def cross_entropy(x, target, weight, g, losses, d, parts, C, ignore, smoothing, scale, mean):
    """Returns (sum of losses, sum of the weights of their targets, index of the first bad target or -1); parts has one number per job.

    Writes the gradient too, unless d is empty; with `mean`, scale is divided by the sum of the weights of all targets.
    """
    weights, bad = _check_targets(target, weight, C, ignore)
    if bad >= 0:
        return 0.0, weights, bad
    all_weights, step = _sum_weights(weight, C), rows_per_job(C)
    row_scale = scale / weights if mean else scale
    for job in prange(parts.size):
        total, of_class, weighted, wanted = 0.0, pointer(weight, 0), weight.size > 0, d.size > 0
        for m in range(job * step, min((job + 1) * step, target.size)):
            loss, row, gradient = 0.0, pointer(x, m * C), pointer(d, m * C)
            if target[m] != ignore:
                factor = row_scale * g[m] if g.size > 0 else row_scale
                loss = _cross_entropy_row(row, target[m], of_class, weighted, gradient, wanted, C, smoothing, all_weights, factor)
            elif wanted:
                for c in range(0, C, lanes(x)):
                    store(gradient, c, splat(x, 0.0), C - c)
            total += loss
            if losses.size > 0:
                losses[m] = loss
        parts[job] = total
    return _sum(parts), weights, bad


# --- element by element --------------------------------------------------------------------------------------------------
# t are the targets, w the weights, or empty. parts has one number per block.


@device
def _sum(parts):
    total = 0.0
    for part in parts:
        total += part
    return total


@device(forceinline=True)
def _load_or_ones(array, i, count):
    given, first = array.size > 0, pointer(array, i)  # no references are counted
    return load(first, 0, count) if given else splat(first, 1.0)


@device(forceinline=True)
def _put(losses, i, loss, count):
    """Keep the losses if they are wanted; return those that are to be summed."""
    wanted, first = losses.size > 0, pointer(losses, i)
    if wanted:
        store(first, 0, loss, count)
    return select(within(loss, count), loss, 0.0)


@kernel
def binary_cross_entropy_forward(x, t, w, losses, parts, bad):
    """w * (-t * log(x) - (1 - t) * log(1 - x)), logarithms at least -100. Returns (sum, number of x outside 0 to 1)."""
    for job in prange(blocks(x)):
        start, stop = block(x, job)
        total, bad[job] = splat(x, 0.0), 0
        for i in range(start, stop, lanes(x)):
            n = stop - i
            p, target = load(x, i, n), load(t, i, n)
            bad[job] += count_lanes((p < 0.0) | (p > 1.0))
            log_p, log_q = log(p), log1p(0.0 - p)
            log_p, log_q = select(log_p < -100.0, -100.0, log_p), select(log_q < -100.0, -100.0, log_q)
            loss = ((target - 1.0) * log_q - target * log_p) * _load_or_ones(w, i, n)
            total = total + _put(losses, i, loss, n)
        parts[job] = sum_lanes(total)
    return _sum(parts), bad.sum()


@kernel
def binary_cross_entropy_backward(x, t, w, g, d, scale):
    """w * (x - t) / max(x * (1 - x), 1e-12)."""
    for job in prange(blocks(x)):
        start, stop = block(x, job)
        for i in range(start, stop, lanes(x)):
            n = stop - i
            p = load(x, i, n)
            slope = p * (1.0 - p)
            gradient = (p - load(t, i, n)) / select(slope < 1e-12, 1e-12, slope)
            store(d, i, gradient * _load_or_ones(w, i, n) * scale * _load_or_ones(g, i, n), n)


@kernel
def logits_forward(x, t, w, positive, losses, parts):
    """w * (positive * t * log(1 + exp(-x)) + (1 - t) * log(1 + exp(x))); positive are weights too, or empty."""
    for job in prange(blocks(x)):
        start, stop = block(x, job)
        total = splat(x, 0.0)
        for i in range(start, stop, lanes(x)):
            n = stop - i
            z, target = load(x, i, n), load(t, i, n)
            above, below = select(z < 0.0, 0.0, z), select(z > 0.0, 0.0, 0.0 - z)
            small = log1p(exp(0.0 - (above + below)))  # log(1 + exp(z)) = max(z, 0) + log(1 + exp(-|z|))
            loss = _load_or_ones(positive, i, n) * target * (below + small) + (1.0 - target) * (above + small)
            total = total + _put(losses, i, loss * _load_or_ones(w, i, n), n)
        parts[job] = sum_lanes(total)
    return _sum(parts)


@kernel
def logits_backward(x, t, w, positive, g, d, scale):
    """w * ((1 - t) * s - positive * t * (1 - s)) with s = sigmoid(x)."""
    for job in prange(blocks(x)):
        start, stop = block(x, job)
        for i in range(start, stop, lanes(x)):
            n = stop - i
            z, target = load(x, i, n), load(t, i, n)
            gradient = (1.0 - target) * sigmoid(z) - _load_or_ones(positive, i, n) * target * sigmoid(0.0 - z)
            gradient = gradient * _load_or_ones(w, i, n) * scale * _load_or_ones(g, i, n)
            store(d, i, without_negligible(gradient), n)


@kernel
def squared_error_forward(x, t, losses, parts):
    """(x - t)**2."""
    for job in prange(blocks(x)):
        start, stop = block(x, job)
        total = splat(x, 0.0)
        for i in range(start, stop, lanes(x)):
            error = load(x, i, stop - i) - load(t, i, stop - i)
            total = total + _put(losses, i, error * error, stop - i)
        parts[job] = sum_lanes(total)
    return _sum(parts)


@kernel
def squared_error_backward(x, t, g, d, scale):
    """2 * (x - t)."""
    for job in prange(blocks(x)):
        start, stop = block(x, job)
        for i in range(start, stop, lanes(x)):
            n = stop - i
            store(d, i, (load(x, i, n) - load(t, i, n)) * (2.0 * scale) * _load_or_ones(g, i, n), n)
