"""Dropout over flat arrays. Parallel over blocks of elements."""

from numba import prange

from fastconv.kernels.jit import kernel
from fastconv.kernels.vector import block, blocks, lanes, select, splat, splat_int
from fastconv.kernels.vector_memory import load, load_unsigned, store


@kernel
def forward(x, draws, y, mask, threshold, scale):
    """Reads x and draws, int32; writes to mask 1 where a draw is at least `threshold`, else 0, and y = x * mask * scale."""
    for job in prange(blocks(x)):
        start, stop = block(x, job)
        for i in range(start, stop, lanes(x)):
            v = load(x, i, stop - i)
            kept = load_unsigned(draws, i, stop - i, v) >= threshold
            store(mask, i, select(kept, splat_int(v, 1), 0), stop - i)
            store(y, i, v * select(kept, splat(v, scale), 0.0), stop - i)


@kernel
def backward(g, mask, d, scale):
    """Reads g and mask, writes d = g * mask * scale."""
    for job in prange(blocks(g)):
        start, stop = block(g, job)
        for i in range(start, stop, lanes(g)):
            v = load(g, i, stop - i)
            kept = load_unsigned(mask, i, stop - i, v) != 0
            store(d, i, v * select(kept, splat(v, scale), 0.0), stop - i)
