"""Products over rows, which are the gradients of a dense layer's weight, and all gradients of a small layer at once."""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.dense import ROWS, SMALL_COLUMNS, blocks_of, part, place, product_block
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.prefetch import prefetch_part
from fastconv.kernels.scratch import scratch
from fastconv.kernels.simd import MAX_ROWS, itemsize
from fastconv.kernels.tiles import tiles, tiles_ahead
from fastconv.kernels.transpose import transpose
from fastconv.kernels.vector import lanes, splat
from fastconv.kernels.vector_memory import copy, flat, load, store, zero

IN_PLACE, AHEAD = MAX_ROWS > 8, 16
"""Whether `product_over_rows` reads A where it is, as high tiles take most of each line; and how many rows before it asks for one."""

TALL, WIDE, CHUNK = (196, 512, 512) if IN_PLACE else (128, 512, 256)
"""Rows and columns of a block of `product_over_rows`, which copies what it needs of B, and rows of A and B that it takes at once."""

FAR = 1 << (10 if MAX_ROWS > 8 else 8)
"""Rows of B of fewer bytes, and of whole vectors, are not copied in `product_over_rows`: they lie near enough to each other."""

UNFORESEEN = 1 << 7
"""Rows of more bytes, as many as a vector has lanes read side by side, no processor foresees: they are asked for in order."""

SHORT, SHORT_RESULT = 96, 100 << 10
"""Rows, and numbers of the result, up to which a product over rows is not worth copying them: with 64, as many as a batch, 48 instead of
74 us for LeNet's largest, but 1.8 instead of 0.9 ms for 1024 x 1000."""


@device
def reads_in_place(M, N, K):
    """Whether `product_over_rows` reads K rows of both factors where they are."""
    return K <= SHORT and M * N <= SHORT_RESULT


@device
def _copy_columns(a, corner, M, rows, depth, left, line):
    """`rows` columns of `depth` rows of A, from a[corner] on, as rows of `left`; the next rows are asked for where they are UNFORESEEN."""
    size = lanes(a)
    blocks, asked = (rows + size - 1) // size, size if M * itemsize(a) > UNFORESEEN else 0
    for i in range(0, depth, size):
        for j in range(blocks):
            first, last = part(j, blocks, asked)
            for row in range(i + size + first, i + size + last):
                prefetch_part(a, corner + row * M, corner + row * M + rows, 0, 1)
            source, target = corner + i * M + j * size, j * size * line + i
            transpose(a, source, M, min(size, depth - i), min(size, rows - j * size), left, target, line, size)


@device
def _copy_rows(b, corner, row, cols, depth, right, across):
    """`depth` rows of `cols` numbers, from b[corner] on, as those of `right`: two at a time, far apart, as two streams."""
    half = depth // 2
    for i in range(half):
        copy(b, corner + i * row, right, i * across, cols)
        copy(b, corner + (half + i) * row, right, (half + i) * across, cols)
    if 2 * half < depth:
        copy(b, corner + 2 * half * row, right, 2 * half * across, cols)


@apart
def _over_rows(job, a, b, c, M, N, K, rows, row, column, row_blocks, column_blocks, splits, more):
    """Job `job` of `product_over_rows`."""
    (run, between, far), size = rows, lanes(a)
    whole = run if run < K else 1  # rows of A that are taken together or not at all
    length = (K // whole + splits - 1) // splits * whole
    s, block = job // (row_blocks * column_blocks), job % (row_blocks * column_blocks)
    m, m1 = part(block // column_blocks, row_blocks, M)
    v, v1 = part(block % column_blocks, column_blocks, (N + size - 1) // size)
    height, cols, corner = m1 - m, min(N, v1 * size) - v * size, (s * M + m) * N + v * size
    start, first, last = np.zeros(cols + size, a.dtype), min(K, s * length), min(K, (s + 1) * length)
    if reads_in_place(M, N, K) and splits == 1:  # in several, a last chunk of a few rows
        inner = run if whole > 1 else K
        over = (1, 0, 0, K // max(1, inner), far, inner * row, inner, between, row)
        tiles(height, a, m, 1, b, v * column, column, c, corner, N, size, v1 - v, cols, start, 0, more, over)
        return
    if first == last and not more:
        for i in range(height):
            zero(c, corner + i * N, cols)
    near = row == size or (row % size == 0 and row * itemsize(b) < FAR)  # the first where B is packed
    chunk, across = CHUNK // whole * whole, (cols + size - 1) // size * size + 16
    most = min(chunk, length)
    line = most + 16  # without the 16, rows of a copy may fall on the same few lines of the cache
    left, right = a if IN_PLACE else scratch((height + size) * line, a.dtype), b if near else scratch(most * across, b.dtype)
    am, a_k, ahead = (1, between, (AHEAD * between + MAX_ROWS - 1, between, 0)) if IN_PLACE else (line, 1, (0, 0, 0))
    if whole > 1:
        ahead = (max(1, AHEAD // run) * far + MAX_ROWS - 1, between, 0)  # in a row of pixels that is read, not beside this one
    for k in range(first, last, chunk):
        depth, origin = min(chunk, last - k), place(k, rows) + m
        if not IN_PLACE:
            _copy_columns(a, origin, M, height, depth, left, line)
            origin = 0
        source, vector, along = k * row + v * column, column, row
        if not near:
            _copy_rows(b, k * row + v * size, row, cols, depth, right, across)
            source, vector, along = 0, size, across
        inner = run if whole > 1 else depth
        over, adds = (1, 0, 0, depth // inner, far, inner * along, inner, a_k, along), more + k - first
        tiles_ahead(height, left, origin, am, right, source, vector, c, corner, N, size, v1 - v, cols, start, 0, adds, over, ahead)


@kernel
def product_over_rows(a, b, c, M, N, K, rows, row, column, row_blocks, column_blocks, splits, more):
    """Reads A (K, M) and B (K, N), writes C (splits, M, N), whose sum over splits, the parts of K, is A.T @ B; adds it if `more` is 1.

    All are flat, `rows` as in `product`, of up to CHUNK a run and where A is read IN_PLACE only, or K, M and 0 for a matrix; `row` and
    `column` lead to the next row and vector of B. Parallel over splits and blocks of C. A job takes CHUNK rows at a time; of A it copies
    its columns, transposed, so that low tiles read whole lines, and of B its part of each row where these are FAR from each other, and
    would share few lines of the cache.
    """
    for job in prange(splits * row_blocks * column_blocks):
        _over_rows(np.int64(job), a, b, c, M, N, K, rows, row, column, row_blocks, column_blocks, splits, more)


@apart
def _gradients(job, jobs, G, X, W, grad_x, grad_w, grad_b, gate, given, start):
    """Job `job` of `jobs` of `gradients`: its part of the blocks of each gradient."""
    (M, O), I = G.shape, W.shape[1]
    g, x, w = flat(G), flat(X), flat(W)
    row_blocks, block_columns = blocks_of(g, M, I, O, given)
    first, last = part(job, jobs, row_blocks * ((I + block_columns - 1) // block_columns) if grad_x.size else 0)
    for block in range(first, last):
        product_block(block, g, w, grad_x, gate, M, I, O, (M, O, 0), given, start, row_blocks, block_columns)
    row_blocks, column_blocks = (O + ROWS - 1) // ROWS, (I + SMALL_COLUMNS - 1) // SMALL_COLUMNS
    first, last = part(job, jobs, row_blocks * column_blocks if grad_w.size else 0)
    for block in range(first, last):
        _over_rows(block, g, x, grad_w, O, I, M, (M, O, 0), I, lanes(x), row_blocks, column_blocks, 1, 0)
    first, last = part(job, jobs, (grad_b.size + lanes(g) - 1) // lanes(g))
    for o in range(first * lanes(g), last * lanes(g), lanes(g)):
        total = splat(g, 0.0)
        for m in range(M):
            total = total + load(g, m * O + o, O - o)
        store(grad_b, o, total, O - o)


@kernel
def gradients(G, X, W, grad_x, grad_w, grad_b, gate, given, start):
    """The three gradients of a dense layer that `product_over_rows` reads in place, in one call.

    Reads G (M, O), X (M, I) and W (O, I); writes grad_x (M, I) = G @ W, with `gate`, `given` and `start` of `product`, grad_w (O, I) =
    G.T @ X, and grad_b (O,), the sum of the rows of G, all flat; those that are not empty. Parallel over blocks of all of them.
    """
    jobs = (X.shape[1] + SMALL_COLUMNS - 1) // SMALL_COLUMNS
    for job in prange(jobs):
        _gradients(np.int64(job), jobs, G, X, W, grad_x, grad_w, grad_b, gate, given, start)
