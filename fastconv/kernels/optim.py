"""Steps of the optimizers: one pass over parameters p, their gradients g and their state, p and state in place.

All parameters of a step are changed in one call. The arrays of one lie at the addresses of its row of `places`, which begins with those of
g and p; their dtype is that of the array `like`. A job is a row, the first of some elements and the one after the last. `numbers` has a row
of what depends on the parameter, too. So no array is unboxed, and small parameters share a parallel region with large ones.

The formulas are PyTorch's, but a number of the state that would be subnormal is 0: where gradients stay 0, averages fade, and 0.9 times the
smallest subnormal number is rounded to that again, for ever. (Not so RMSprop's squares beside a mean.) Parallel over blocks of elements.

What is written is asked for AHEAD of that, with the announcement that it will be: other processors have read the parameters, and stores
would wait for each line to be gone from their caches. State that no other has read comes no later for it.
"""

from numba import prange

from fastconv.kernels.jit import kernel
from fastconv.kernels.prefetch import prefetch_to_write
from fastconv.kernels.vector import fma, lanes, splat, sqrt, without_subnormal
from fastconv.kernels.vector_memory import load, pointer_to, store

AHEAD = 512
"""Elements between what is written and what is asked for."""


@kernel
def sgd(like, places, numbers, jobs, lr, decay):
    """p -= lr * (g + decay * p)."""
    for job in prange(len(jobs)):
        row, start, stop = jobs[job, 0], jobs[job, 1], jobs[job, 2]
        g, p = pointer_to(like, places[row, 0]), pointer_to(like, places[row, 1])
        for i in range(start, stop, lanes(like)):
            prefetch_to_write(p, i + AHEAD)
            old = load(p, i, stop - i)
            step = fma(old, decay, load(g, i, stop - i))
            store(p, i, fma(step, -lr, old), stop - i)


@kernel
def sgd_momentum(like, places, numbers, jobs, lr, decay, momentum, nesterov):
    """v = g + decay * p;  buffer = momentum * buffer + share * v;  p -= lr * buffer, or with nesterov lr * (v + momentum * buffer)."""
    for job in prange(len(jobs)):
        row, start, stop = jobs[job, 0], jobs[job, 1], jobs[job, 2]
        g, p, buffer = pointer_to(like, places[row, 0]), pointer_to(like, places[row, 1]), pointer_to(like, places[row, 2])
        share = numbers[row, 0]
        for i in range(start, stop, lanes(like)):
            prefetch_to_write(p, i + AHEAD)
            prefetch_to_write(buffer, i + AHEAD)
            old = load(p, i, stop - i)
            v = fma(old, decay, load(g, i, stop - i))
            step = without_subnormal(fma(load(buffer, i, stop - i), momentum, v * share))
            store(buffer, i, step, stop - i)
            if nesterov:
                step = fma(step, momentum, v)
            store(p, i, fma(step, -lr, old), stop - i)


@kernel
def adam(like, places, numbers, jobs, beta1, beta2, eps, decay, keep):
    """v = g + decay * p;  mean and square move by 1 - beta towards v and v*v;  p = keep * p - lr * mean / (scale * sqrt(square) + eps).

    lr and scale hold the corrections of the bias: lr / (1 - beta1**t) and 1 / sqrt(1 - beta2**t).
    """
    for job in prange(len(jobs)):
        row, start, stop = jobs[job, 0], jobs[job, 1], jobs[job, 2]
        g, p = pointer_to(like, places[row, 0]), pointer_to(like, places[row, 1])
        mean, square = pointer_to(like, places[row, 2]), pointer_to(like, places[row, 3])
        lr, scale = numbers[row, 0], numbers[row, 1]
        for i in range(start, stop, lanes(like)):
            prefetch_to_write(p, i + AHEAD)
            prefetch_to_write(mean, i + AHEAD)
            prefetch_to_write(square, i + AHEAD)
            old = load(p, i, stop - i)
            v = fma(old, decay, load(g, i, stop - i))
            m = load(mean, i, stop - i)
            m = without_subnormal(fma(v - m, 1.0 - beta1, m))
            s = without_subnormal(fma(v * v, 1.0 - beta2, load(square, i, stop - i) * beta2))
            store(mean, i, m, stop - i)
            store(square, i, s, stop - i)
            store(p, i, old * keep - m * lr / fma(sqrt(s), scale, eps), stop - i)


@kernel
def rmsprop(like, places, numbers, jobs, lr, alpha, eps, decay, momentum, centered):
    """v = g + decay * p;  square, if centered also mean, moves by 1 - alpha towards v*v, or v;  step = v / (sqrt(square - mean**2) + eps).

    p -= lr * step; with momentum, lr * buffer, buffer = momentum * buffer + step. mean and buffer are not touched unless they are used.
    """
    for job in prange(len(jobs)):
        row, start, stop = jobs[job, 0], jobs[job, 1], jobs[job, 2]
        g, p, square = pointer_to(like, places[row, 0]), pointer_to(like, places[row, 1]), pointer_to(like, places[row, 2])
        mean, buffer = pointer_to(like, places[row, 3]), pointer_to(like, places[row, 4])
        for i in range(start, stop, lanes(like)):
            prefetch_to_write(p, i + AHEAD)
            prefetch_to_write(square, i + AHEAD)
            old = load(p, i, stop - i)
            v = fma(old, decay, load(g, i, stop - i))
            s = fma(v * v, 1.0 - alpha, load(square, i, stop - i) * alpha)
            m = splat(like, 0.0)
            if centered:
                prefetch_to_write(mean, i + AHEAD)
                m = load(mean, i, stop - i)
                m = without_subnormal(fma(v - m, 1.0 - alpha, m))
                store(mean, i, m, stop - i)
            else:  # with a mean, whose square may not be larger, it may be subnormal
                s = without_subnormal(s)
            store(square, i, s, stop - i)
            step = v / (sqrt(s - m * m) + eps)
            if momentum > 0.0:
                prefetch_to_write(buffer, i + AHEAD)
                step = without_subnormal(fma(load(buffer, i, stop - i), momentum, step))
                store(buffer, i, step, stop - i)
            store(p, i, fma(step, -lr, old), stop - i)
