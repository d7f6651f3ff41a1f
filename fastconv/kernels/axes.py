"""From one order of memory to the other: (N, C, H, W) and channels-last."""

from numba import prange

from fastconv.kernels.jit import kernel
from fastconv.kernels.transpose import transpose
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import flat


@kernel
def swap(X, Y):
    """Reads X (N, A, B), writes Y (N, B, A). Parallel over N and blocks of A.

    Whole blocks are transposed in registers; a block's rest, and axes of a few numbers, go number by number, not through masks.
    """
    N, A, B = X.shape
    x, y, size = flat(X), flat(Y), lanes(X)
    blocks = (A + size - 1) // size
    for job in prange(N * blocks):
        n, a = job // blocks, job % blocks * size
        rows, whole = min(size, A - a), B // size * size if A - a >= size else 0
        for b in range(0, whole, size):
            transpose(x, (n * A + a) * B + b, B, size, size, y, (n * B + b) * A + a, A, size)
        for b in range(whole, B):
            for i in range(rows):
                y[(n * B + b) * A + a + i] = x[(n * A + a + i) * B + b]
