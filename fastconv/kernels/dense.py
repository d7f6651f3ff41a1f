"""Matrix products on the register tile, and the sums over rows that biases need."""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.prefetch import elements_between
from fastconv.kernels.scratch import scratch
from fastconv.kernels.simd import MAX_ROWS, REQUEST, itemsize
from fastconv.kernels.tiles import LONG, SHORT_ROWS, tiles_ahead
from fastconv.kernels.transpose import transpose
from fastconv.kernels.vector import lanes, select
from fastconv.kernels.vector_memory import copy, flat, load, store, zero

ROWS, COLUMNS, DEPTH = -(-512 // MAX_ROWS) * MAX_ROWS, 128, 512
"""A job's block of the result, of twice the columns where it copies rows of A, and how much of the sum it takes at once: its columns of B
stay in L2, and C is not added to too often."""

FEW_ROWS, FEW_JOBS = 128, 8
"""About so many rows a block has, not ROWS, where there would be less than FEW_JOBS: of fewer rows packing would be much of the work."""

LOW = -(-96 // MAX_ROWS) * MAX_ROWS
"""Rows of a low block, as a batch of 64 or 96 is."""

STRIP = MAX_ROWS if MAX_ROWS > 8 else LOW
"""Rows of a block that meet all its columns before the next: low tiles read B so often that it had better be two vectors of it in L1."""

CROWDED, LINE = 1 << 12 if MAX_ROWS > 8 else 0, DEPTH + 16
"""Rows of A that lie a multiple of so many bytes apart (0: no rows) share the 8 to 12 lines of one set of L1: a strip is copied to rows of
LINE."""

SMALL, SMALL_COLUMNS = 1 << 16, 32
"""A result of up to so many numbers is cut into blocks of so many columns, unless long sums are cut instead (`splits` of `product`)."""

SUM_ROWS = 1024
"""Rows that one job of `partial_row_sums` adds up."""


TOGETHER, APART, TRANSPOSED = range(3)
"""How `product` is given its right factor."""


@device
def part(i, parts, total):
    """Part `i` of `total` cut into even parts, as (first, last)."""
    return i * total // parts, (i + 1) * total // parts


@device
def vectors_of(block, blocks, vectors):
    """Those vectors of columns, as (first, last), that block `block` takes: pairs, which tiles take, where there are enough of them."""
    pairs = (vectors + 1) // 2
    if pairs < blocks:
        return part(block, blocks, vectors)
    first, last = part(block, blocks, pairs)
    return 2 * first, min(vectors, 2 * last)


@device
def pack_block(b, given, k, depth, n0, n1, N, K, near):
    """Columns n0 .. n1 of rows k .. k + depth of B (K, N) into near (vectors, depth, lanes), zeros in the last vector's tail."""
    size = lanes(b)
    if given == TRANSPOSED:
        for n in range(n0, n1, size):
            for i in range(0, depth, size):
                transpose(b, n * K + k + i, K, min(size, n1 - n), min(size, depth - i), near, (n - n0) * depth + i * size, size, size)
        return
    whole = n0 + (n1 - n0) // size * size
    for i in range(depth):  # memory is read in the order in which it lies
        for n in range(n0, whole, size):
            store(near, (n - n0) * depth + i * size, load(b, (k + i) * N + n, size), size)
        if whole < n1:
            store(near, (whole - n0) * depth + i * size, load(b, (k + i) * N + whole, n1 - whole), size)


@device
def rectify_block(c, gate, corner, rows, cols, N):
    """Sets c to 0 where `gate` is 0 or less, NaN lets pass, in `rows` rows of N numbers and `cols` columns of them, from `corner` on."""
    for m in range(rows):
        for i in range(corner + m * N, corner + m * N + cols, lanes(c)):
            own = corner + m * N + cols - i
            store(c, i, select(load(gate, i, own) <= 0.0, 0.0, load(c, i, own)), own)


@device
def is_crowded(a, line):
    """Whether rows of A that lie `line` numbers apart are copied."""
    return CROWDED > 0 and line * itemsize(a) % CROWDED == 0


@device
def place(m, rows):
    """Where row m begins; `rows` as in `product`."""
    run, between, far = rows
    return m // run * far + m % run * between


@apart
def product_block(job, a, b, c, gate, M, N, K, rows, into, given, start, splits, row_blocks, column_blocks):
    """Job `job` of `product`."""
    (run, between, _), (_, below, _), size = rows, into, lanes(a)
    split, block = job // (row_blocks * column_blocks), job % (row_blocks * column_blocks)
    row_block, column_block = (block % row_blocks, block // row_blocks) if N > M else (block // column_blocks, block % column_blocks)
    (m0, m1), (v0, v1) = part(row_block, row_blocks, M), vectors_of(column_block, column_blocks, (N + size - 1) // size)
    n0, n1, vectors, packs = v0 * size, min(N, v1 * size), v1 - v0, given != TOGETHER
    pairs, near = (vectors + 1) // 2, scratch(vectors * size * min(K, DEPTH) if packs else 0, b.dtype)
    row = size if packs else N
    crowded = is_crowded(a, between)
    left, line = scratch(STRIP * LINE, a.dtype) if crowded else a, LINE if crowded else between
    first, last = part(split, splits, K)
    begin = start if split == 0 else np.zeros(N, start.dtype)
    for k in range(first, last, DEPTH):
        depth = min(DEPTH, last - k)
        if packs:
            pack_block(b, given, k, depth, n0, n1, N, K, near)
        over, tall = (1, 0, 0, 1, 0, 0, depth, 1, row), SHORT_ROWS if depth < LONG else MAX_ROWS
        m = m0
        while m < m1:
            rest = min(m1, (m // run + 1) * run) - m
            height = rest // ((rest + STRIP - 1) // STRIP)
            after, corner, target, requests = m + height, place(m, rows) + k, split * M * N + place(m, into) + n0, max(1, depth // REQUEST)
            step = max(1, min(tall, height) * between // (pairs * requests))  # tiles of a strip together ask for the strip after it
            if STRIP > MAX_ROWS and (n1 < N or depth < K):  # other jobs, or later steps of this one, read the same rows first
                step = 0
            ahead = (place(after, rows) + k - corner, step, requests * step, 1)
            if crowded:
                for i in range(height):
                    copy(a, corner + i * between, left, i * LINE, depth)
                soon = place(after, rows) + k if after < m1 else place(m0, rows) + k + depth
                corner, ahead = 0, (elements_between(left, 0, a, soon), 1, between, 1)  # each two vectors ask for a row that is copied next
            if packs:
                tiles_ahead(height, left, corner, line, near, 0, depth * size, c, target, below, size, vectors, n1 - n0,
                            begin, n0, k - first, over, ahead)
            else:
                tiles_ahead(height, left, corner, line, b, n0 + k * N, size, c, target, below, size, vectors, n1 - n0,
                            begin, n0, k - first, over, ahead)
            m = after
    if gate.size > 0:
        rectify_block(c, gate, m0 * N + n0, m1 - m0, n1 - n0, N)


@device
def column_blocks_of(row_blocks, N, columns):
    """Blocks of up to `columns` columns: where there are more than one, two threads get as many of all blocks."""
    blocks = (N + columns - 1) // columns
    return blocks + 1 if blocks > 1 and blocks * row_blocks % 2 == 1 else blocks


@device
def blocks_of(a, M, N, line, splits):
    """(row blocks, column blocks) of `product`, so that two threads get as many; of more columns where each copies rows of A, which lie
    `line` numbers apart, unless C is SMALL and K is not cut."""
    small = M * N <= SMALL
    columns = 2 * COLUMNS if is_crowded(a, line) and (splits > 1 or not small) else SMALL_COLUMNS if small else COLUMNS
    wanted = FEW_JOBS // (splits * ((N + columns - 1) // columns))
    row_blocks = max((M + ROWS - 1) // ROWS, min(M // FEW_ROWS, wanted))
    if N <= columns and row_blocks > 1:
        row_blocks += row_blocks % 2
    return row_blocks, column_blocks_of(row_blocks, N, columns)


@kernel
def product(a, b, c, gate, M, N, K, rows, into, given, start, splits):
    """Reads A (M, K) and B (K, N), writes C = start + A @ B (M, N). All flat. Parallel over blocks of C.

    With more `splits` than one C is (splits, M, N), a matrix for each part of K, and the first has `start` in it.

    `rows` = (run, between, far): `run` rows of A lie `between` numbers apart, and the next ones `far` from these; M, K and 0 for a matrix.
    `into` says the same of C, with the same `run`; M, N and 0 for a matrix.

    With a `gate` that is not empty, and C one matrix, C is 0 where the gate is 0 or less, NaN lets pass: ReLU if it is C, ReLU's gradient
    if it is its output.

    `given` says how B is given: as it is, read where it is, TOGETHER; or APART, or its TRANSPOSED (N, K), and then each job packs what it
    needs.

    Of a result with more columns than rows a thread computes columns that lie side by side, so that it packs them from its own caches.
    """
    row_blocks, column_blocks = blocks_of(a, M, N, rows[1], splits)
    for job in prange(splits * row_blocks * column_blocks):
        product_block(np.int64(job), a, b, c, gate, M, N, K, rows, into, given, start, splits, row_blocks, column_blocks)


@kernel
def sum_splits(parts, total, gate):
    """Reads parts (splits, size), writes total (size,), their sum in order, `gate` as in `product`. Parallel over blocks of elements."""
    splits, size = parts.shape
    p, t, step = flat(parts), flat(total), lanes(parts)
    for block in prange((size + 1023) // 1024):
        for i in range(block * 1024, min(size, block * 1024 + 1024), step):
            column = load(p, i, size - i)
            for s in range(1, splits):
                column = column + load(p, s * size + i, size - i)
            store(t, i, column, size - i)
        if gate.size > 0:
            rectify_block(t, gate, block * 1024, 1, min(1024, size - block * 1024), 0)


@device(forceinline=True)
def _add_four_rows(x, i, run, sums, c, own):
    """sums[c] += x[i] and the same of three further runs of rows."""
    upper, lower = load(x, i, own) + load(x, i + run, own), load(x, i + 2 * run, own) + load(x, i + 3 * run, own)
    store(sums, c, load(sums, c, own) + (upper + lower), own)


@apart
def _row_sums(job, X, partial):
    """Job `job` of `partial_row_sums`: four runs of rows side by side, since one stream in a page of memory is what is foreseen."""
    M, N = X.shape
    x, p, size = flat(X), flat(partial), lanes(X)
    fold = max(1, 4 * size // N)  # so many rows as one fill four vectors
    W, first, last = fold * N, job * SUM_ROWS, min(M, (job + 1) * SUM_ROWS)
    rows, whole = (last - first) // (4 * fold) * fold, W - W % size
    run, sums = rows * N, scratch(W, X.dtype)
    zero(sums, 0, W)
    for i in range(first * N, first * N + run, W):
        for c in range(0, whole, size):
            _add_four_rows(x, i + c, run, sums, c, size)
        if whole < W:
            _add_four_rows(x, i + whole, run, sums, whole, W - whole)
    for n in range(N):
        total = sums[n]
        for row in range(1, fold):
            total += sums[row * N + n]
        for m in range(first + 4 * rows, last):
            total += x[m * N + n]
        p[job * N + n] = total


@kernel
def partial_row_sums(X, partial):
    """Reads X (M, N), writes partial (ceil(M / SUM_ROWS), N), the sums of SUM_ROWS rows each. Parallel over them."""
    for job in prange(partial.shape[0]):
        _row_sums(np.int64(job), X, partial)
