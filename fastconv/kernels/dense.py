"""Matrix products on the register tile, and the sums over rows that biases need."""

import numpy as np
from numba import prange

from fastconv.kernels.jit import kernel
from fastconv.kernels.simd import MAX_ROWS, VECTOR_BYTES
from fastconv.kernels.tiles import TILES, tiles
from fastconv.kernels.transpose import transpose
from fastconv.kernels.vector import load, splat, store

ROWS, COLUMNS, DEPTH = 8 * MAX_ROWS, 256, 512
"""A job's block of the result, and how much of the sum it takes at once: ROWS x DEPTH of A and DEPTH x 32 of B stay in L2."""

SMALL, SMALL_ROWS, SMALL_COLUMNS = 1 << 16, 2 * MAX_ROWS, 64
"""A result of up to so many numbers is cut into smaller blocks, enough for all threads."""

SUM_ROWS = 1024
"""Rows that one job of `partial_row_sums` adds up."""


@kernel(uses=(TILES,))
def product(a, am, ak, b, bn, bk, c, M, N, K, splits, start):
    """Reads A (M, K) with strides am, ak and B (K, N); writes C (splits, M, N), whose sum over splits is start + A @ B. All flat.

    B's element (k, n) lies at B[n // lanes * bn + k * bk + n % lanes]. Split s sums the s-th part of K; only split 0 starts from
    `start` (N elements), so one split gives the product itself. Parallel over splits and blocks of C.
    """
    lanes = VECTOR_BYTES // a.itemsize
    block_rows, block_columns = (SMALL_ROWS, SMALL_COLUMNS) if M * N <= SMALL else (ROWS, COLUMNS)
    row_blocks, column_blocks = (M + block_rows - 1) // block_rows, (N + block_columns - 1) // block_columns
    length = (K + splits - 1) // splits
    for job in prange(splits * row_blocks * column_blocks):
        s, block = job // (row_blocks * column_blocks), job % (row_blocks * column_blocks)
        m0, n0 = block // column_blocks * block_rows, block % column_blocks * block_columns
        rows, cols = min(block_rows, M - m0), min(block_columns, N - n0)
        corner = (s * M + m0) * N + n0
        first, last = min(K, s * length), min(K, (s + 1) * length)
        if s > 0 or first == last:
            for m in range(rows):
                for n in range(cols):
                    c[corner + m * N + n] = start[n0 + n] if s == 0 else 0
        for k in range(first, last, DEPTH):
            over = (1, 0, 0, 1, 0, 0, min(DEPTH, last - k), ak, bk)
            tiles(rows, a, m0 * am + k * ak, am, b, n0 // lanes * bn + k * bk, bn, c, corner, N, lanes, (cols + lanes - 1) // lanes, cols,
                  start, n0, s > 0 or k > first, over)


@kernel
def pack_transposed(W, packed):
    """Reads W (N, K), writes packed (ceil(N / lanes), K, lanes), B of `product` for A @ W.T, zeros in the last vector's tail."""
    N, K = W.shape
    w, p = W.ravel(), packed.ravel()
    lanes = VECTOR_BYTES // W.itemsize
    for block in prange((N + lanes - 1) // lanes):
        n = block * lanes
        for k in range(0, K, lanes):
            transpose(w, n * K + k, K, min(lanes, N - n), min(lanes, K - k), p, (block * K + k) * lanes, lanes, lanes)


@kernel
def sum_splits(parts, total):
    """Reads parts (splits, size), writes total (size,), their sum in order. Parallel over blocks of elements."""
    splits, size = parts.shape
    p, t, lanes = parts.ravel(), total.ravel(), VECTOR_BYTES // parts.itemsize
    for block in prange((size + 1023) // 1024):
        for i in range(block * 1024, min(size, block * 1024 + 1024), lanes):
            column = load(p, i, size - i)
            for s in range(1, splits):
                column = column + load(p, s * size + i, size - i)
            store(t, i, column, size - i)


@kernel
def partial_row_sums(X, partial):
    """Reads X (M, N), writes partial (ceil(M / SUM_ROWS), N), the sums of SUM_ROWS rows each. Parallel over them."""
    M, N = X.shape
    x, p, lanes = X.ravel(), partial.ravel(), VECTOR_BYTES // X.itemsize
    fold = 16 if N < 64 else 1  # so many rows side by side: a few numbers do not fill a vector
    for job in prange(partial.shape[0]):
        first, last = job * SUM_ROWS, min(M, (job + 1) * SUM_ROWS)
        whole = last - (last - first) % fold
        sums = np.empty(fold * N, X.dtype)
        for i in range(0, fold * N, lanes):
            column = splat(x, 0.0)
            for m in range(first, whole, fold):
                column = column + load(x, m * N + i, fold * N - i)
            store(sums, i, column, fold * N - i)
        for n in range(N):
            total = sums[n]
            for row in range(1, fold):
                total += sums[row * N + n]
            for m in range(whole, last):
                total += x[m * N + n]
            p[job * N + n] = total
