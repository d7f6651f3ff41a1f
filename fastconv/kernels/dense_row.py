"""Products of a single row, a batch of one: each number of the weight is used once, so it is read once and as it lies in memory."""

from numba import prange

from fastconv.kernels.dense import part
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.vector import fma, lanes, splat, sum_lanes
from fastconv.kernels.vector_memory import flat, load, store, zero

ROWS, COLUMNS, NUMBERS = 16, 1 << 12, 1 << 13
"""Rows of the weight of a job; columns of it that are added up at a time, in the first cache; numbers of its gradient of a job."""


@device
def _four_sums(w, n, N, K, x):
    """The sums over k < K of w[row, k] * x[k], for rows n .. n + 4 or the last one in their place."""
    L, whole = lanes(x), K // lanes(x) * lanes(x)
    o0, o1, o2, o3 = n * K, min(n + 1, N - 1) * K, min(n + 2, N - 1) * K, min(n + 3, N - 1) * K
    s0, s1, s2, s3 = splat(x, 0.0), splat(x, 0.0), splat(x, 0.0), splat(x, 0.0)
    for k in range(0, whole, L):
        v = load(x, k, L)
        s0, s1 = fma(load(w, o0 + k, L), v, s0), fma(load(w, o1 + k, L), v, s1)
        s2, s3 = fma(load(w, o2 + k, L), v, s2), fma(load(w, o3 + k, L), v, s3)
    if whole < K:
        own = K - whole
        v = load(x, whole, own)
        s0, s1 = fma(load(w, o0 + whole, own), v, s0), fma(load(w, o1 + whole, own), v, s1)
        s2, s3 = fma(load(w, o2 + whole, own), v, s2), fma(load(w, o3 + whole, own), v, s3)
    return sum_lanes(s0), sum_lanes(s1), sum_lanes(s2), sum_lanes(s3)


@kernel
def times_transposed(x, W, start, y):
    """Reads x (K,), W (N, K) and start (N,), writes y (N,) = start + W @ x. Parallel over ROWS rows of W."""
    (N, K), w = W.shape, flat(W)
    for job in prange((N + ROWS - 1) // ROWS):
        for n in range(job * ROWS, min(N, (job + 1) * ROWS), 4):
            sums = _four_sums(w, n, N, K, x)
            for i in range(min(4, N - n)):
                y[n + i] = start[n + i] + sums[i]


@device(forceinline=True)
def _add_four(w, o, N, g, k, p, n, own):
    """Adds four rows of W, w[o] in the first of them, times g[k], g[k + 1], ..., to `own` numbers of p from n on."""
    total = fma(load(w, o, own), g[k], load(p, n, own))
    total = fma(load(w, o + N, own), g[k + 1], total)
    total = fma(load(w, o + 2 * N, own), g[k + 2], total)
    store(p, n, fma(load(w, o + 3 * N, own), g[k + 3], total), own)


@kernel
def times(g, W, parts):
    """Reads g (K,) and W (K, N), writes parts (splits, N), whose sum is g @ W. Parallel over splits of the rows of W, four at a time."""
    K, (splits, N) = len(g), parts.shape
    w, p, L = flat(W), flat(parts), lanes(g)
    for s in prange(splits):
        k0, k1 = part(s, splits, K)
        zero(p, s * N, N)
        for first in range(0, N, COLUMNS):
            last = min(N, first + COLUMNS)
            whole = last - (last - first) % (2 * L)
            for k in range(k0, k1 - 3, 4):
                for n in range(first, whole, 2 * L):
                    _add_four(w, k * N + n, N, g, k, p, s * N + n, L)
                    _add_four(w, k * N + n + L, N, g, k, p, s * N + n + L, L)
                for n in range(whole, last, L):
                    _add_four(w, k * N + n, N, g, k, p, s * N + n, last - n)
            for k in range(k1 - (k1 - k0) % 4, k1):
                for n in range(first, last, L):
                    store(p, s * N + n, fma(load(w, k * N + n, last - n), g[k], load(p, s * N + n, last - n)), last - n)


@kernel
def outer(g, x, C):
    """Reads g (M,) and x (N,), writes C (M, N), their products. Parallel over rows of C, about NUMBERS at a time."""
    (M, N), c, L = C.shape, flat(C), lanes(x)
    rows = max(1, NUMBERS // N)
    for job in prange((M + rows - 1) // rows):
        for m in range(job * rows, min(M, (job + 1) * rows)):
            for n in range(0, N // L * L, L):
                store(c, m * N + n, load(x, n, L) * g[m], L)
            for n in range(N // L * L, N):
                c[m * N + n] = x[n] * g[m]
