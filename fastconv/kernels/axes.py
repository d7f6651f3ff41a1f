"""From one order of memory to the other: (N, C, H, W) and channels-last."""

import numpy as np
from numba import prange

from fastconv.kernels.jit import device, kernel
from fastconv.kernels.transpose import transpose
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import flat

RUN = 512
"""Numbers of the longer axis that a job takes at a time: what they are written to, a few such rows, stays in the first cache."""


@device
def _every(x, p, p_step, y, q, q_step, count):
    """Copy `count` numbers from every p_step-th place to every q_step-th."""
    p, q = np.uint64(p), np.uint64(q)  # which cannot be negative: Numba would look for that at every number
    for _ in range(count):
        y[q] = x[p]
        p += np.uint64(p_step)
        q += np.uint64(q_step)


@kernel
def swap(X, Y):
    """Reads X (N, A, B), writes Y (N, B, A). Parallel over N and blocks of A and of B.

    Blocks are transposed in registers. Half of one or less, and all of a short axis, goes number by number along the longer side.
    """
    N, A, B = X.shape
    x, y, size = flat(X), flat(Y), lanes(X)
    half = size * size // 2
    height = size if B > size // 2 else RUN
    blocks, runs = (A + height - 1) // height, (B + RUN - 1) // RUN
    for job in prange(N * blocks * runs):
        n, a, first = job // (blocks * runs), job // runs % blocks * height, job % runs * RUN
        rows, last = min(height, A - a), min(B, first + RUN)
        rest = last - (last - first) % size  # from here on number by number
        if height > size or rows * size <= half:
            rest = first
        elif rows * (last - rest) > half:
            rest = last
        for b in range(first, rest, size):
            transpose(x, (n * A + a) * B + b, B, rows, min(size, last - b), y, (n * B + b) * A + a, A, rows)
        if rows < last - rest:
            for i in range(rows):
                _every(x, (n * A + a + i) * B + rest, 1, y, (n * B + rest) * A + a + i, A, last - rest)
        else:
            for b in range(rest, last):
                _every(x, (n * A + a) * B + b, B, y, (n * B + b) * A + a, 1, rows)
