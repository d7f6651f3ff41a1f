"""Products over rows, which are the gradients of a dense layer's weight, and all gradients of a small layer at once."""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.dense import LOW, SMALL_COLUMNS, blocks_of, column_blocks_of, is_crowded, part, place, product_block
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.prefetch import elements_between, prefetch_lines, prefetch_to_write
from fastconv.kernels.processor import LATE_MEMORY
from fastconv.kernels.scratch import LINE_BYTES, LINE_NUMBERS, scratch_pair
from fastconv.kernels.simd import MAX_ROWS, REQUEST, itemsize
from fastconv.kernels.tiles import OUTPUT_FIRST, tiles, tiles_ahead
from fastconv.kernels.transpose import transpose
from fastconv.kernels.vector import lanes, splat
from fastconv.kernels.vector_memory import copy, flat, load, pointer, store, zero

IN_PLACE, AHEAD = MAX_ROWS > 8, 16
"""Whether `product_over_rows` reads A where it is, as high tiles take most of each line; and how many rows before it asks for one."""

TALL, WIDE, CHUNK = (256, 512, 128 if LATE_MEMORY else 512) if IN_PLACE else (128, 512, 256)
"""Rows and columns of a block of `product_over_rows`, and rows of A and B that it takes at once, unless PANEL_ROWS."""

PANEL = -(-MAX_ROWS // LINE_NUMBERS) * LINE_NUMBERS
"""Numbers, whole lines, of a step of the sum in a panel, the copy of A that one high tile reads."""

PANEL_ROWS = 256 if LATE_MEMORY else CHUNK
"""Rows that are taken at once of LARGE blocks, and of pixels with others between."""

LARGE = 1 << 16
"""Numbers of a block above which, with LATE_MEMORY and unless B is packed, both factors are copied, and neither is asked for: requests for
lines that come late would hold the places that lines from L2 need."""

STRIP = 2
"""Vectors of B that are copied at a time, just before all tiles down a block read them."""

FAR = 1 << (12 if IN_PLACE else 8)
"""Rows of B of fewer bytes, and of whole vectors, are not copied in `product_over_rows`, but for LARGE blocks: they lie near enough to each
other."""

UNFORESEEN = 1 << 7
"""Rows of more bytes, as many as a vector has lanes read side by side, no processor foresees: they are asked for in order."""

PACK_ROWS, PACK_VECTORS, PACK_AHEAD = 128, 16, 32
"""A job of `pack` at most, and rows between what it writes and what it asks for: as a rule all processors have read what was there."""

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
                prefetch_lines(a, corner + row * M, corner + row * M + rows)
            source, target = corner + i * M + j * size, j * size * line + i
            transpose(a, source, M, min(size, depth - i), min(size, rows - j * size), left, target, line, size)


@apart
def _copy_panels(a, k, m, rows, height, depth, parts, left):
    """`height` columns of `depth` rows of A, from column m of row k on, as `parts` panels (depth, PANEL)."""
    size = lanes(a)
    for i in range(depth):
        source = place(k + i, rows) + m
        for p in range(parts):
            m0, m1 = part(p, parts, height)
            for n in range(0, m1 - m0, size):
                own = size if source + m0 + n + size <= a.size else m1 - m0 - n
                store(left, (p * depth + i) * PANEL + n, load(a, source + m0 + n, own), size)


@apart
def _copy_strip(b, start, row, depth, cols, right):
    """`cols` columns of `depth` rows of B, from b[start] on, as rows of STRIP vectors."""
    size = lanes(b)
    for i in range(depth):
        if cols == STRIP * size:
            for n in range(0, STRIP * size, size):
                store(right, i * STRIP * size + n, load(b, start + i * row + n, size), size)
        else:
            copy(b, start + i * row, right, i * STRIP * size, cols)


@apart
def _over_rows(job, a, b, c, M, N, K, rows, row, column, row_blocks, column_blocks, splits, more):
    """Job `job` of `product_over_rows`."""
    (run, between, far), size = rows, lanes(a)
    s, block = job // (row_blocks * column_blocks), job % (row_blocks * column_blocks)
    m, m1 = part(block // column_blocks, row_blocks, M)
    v, v1 = part(block % column_blocks, column_blocks, (N + size - 1) // size)
    height, cols, corner, start = m1 - m, min(N, v1 * size) - v * size, (s * M + m) * N + v * size, np.zeros(STRIP * size, a.dtype)
    if reads_in_place(M, N, K) and splits == 1:  # in several, a last chunk of a few rows
        inner = run if far > 0 else K
        over = (1, 0, 0, K // max(1, inner), far, inner * row, inner, between, row)
        zeros = np.zeros(cols + size, a.dtype)
        tiles(height, a, m, 1, b, v * column, column, c, corner, N, size, v1 - v, cols, zeros, 0, more, over)
        return
    first, last = part(s, splits, K)
    if first == last:
        if not more:
            for i in range(height):
                zero(c, corner + i * N, cols)
        return
    large = LATE_MEMORY and far == 0 and row != size and height * cols > LARGE
    panels = IN_PLACE and (far > 0 or large or (LATE_MEMORY and is_crowded(a, M)))
    here, most = IN_PLACE and not panels, PANEL_ROWS if large or far > 0 else CHUNK
    chunks = (last - first + most - 1) // most
    depth = (last - first + chunks - 1) // chunks
    near = row == size or (row % size == 0 and row * itemsize(b) < FAR and not large)  # B is packed, or in short rows
    parts, line = (height + MAX_ROWS - 1) // MAX_ROWS, LINE_NUMBERS + depth  # rows of 4 KB would share few lines of the cache
    copied = 0 if here else parts * depth * PANEL if IN_PLACE else (height + size) * line
    left, right = scratch_pair(copied, 0 if near else depth * STRIP * size, a.dtype)
    x, y = pointer(a, 0) if here else pointer(left, 0), pointer(b, 0) if near else pointer(right, 0)
    x_m, x_k = (1, between if here else PANEL) if IN_PLACE else (line, 1)
    y_n, y_k = (column, row) if near else (size, STRIP * size)
    strips, spans = (v1 - v + STRIP - 1) // STRIP, 1 if far == 0 else (far - 1) // (run * between) + 1
    lines = ((height * itemsize(a) // LINE_BYTES + 1) * spans + strips - 1) // strips  # of each next row of A, asked for in one strip
    if LATE_MEMORY and far > 0:
        lines = 0  # the lines between, which nobody reads, would take as many places
    asking = 0 if large else min(parts, STRIP * REQUEST + lines)
    calls = parts if panels else min(parts, asking + 1)
    for chunk in range(chunks):
        k0, k1 = part(chunk, chunks, last - first)
        k, depth, adds = first + k0, k1 - k0, more + k0
        if not IN_PLACE:
            _copy_columns(a, place(k, rows) + m, M, height, depth, left, line)
        elif panels:
            _copy_panels(a, k, m, rows, height, depth, parts, left)
        over = (1, 0, 0, 1, 0, 0, depth, x_k, y_k)
        for strip in range(strips):
            source, n = k * row + (v + strip * STRIP) * column, strip * STRIP * size
            wide, after = min(STRIP * size, cols - n), source + STRIP * column if strip + 1 < strips else (k + depth) * row + v * column
            if not near:
                _copy_strip(b, source, row, depth, wide, right)
            for p in range(calls):  # tiles that ask for B and A that come next, a line of each row; all others at once, unless in panels
                m0, m1 = part(p, parts, height)
                i = p * depth * PANEL if panels else (k * between + m if here else 0) + m0 * x_m
                ahead = (AHEAD * between + MAX_ROWS - 1, between, 0, 1) if here else OUTPUT_FIRST
                if p < min(asking, STRIP * REQUEST):
                    ahead = (elements_between(x, i, b, after + p // REQUEST * column + p % REQUEST * (depth // REQUEST) * row), row, 0, 1)
                elif p < asking and k + depth < K:
                    q = strip * lines + p - STRIP * REQUEST
                    wanted = place(k + depth, rows) + m + q // spans * LINE_NUMBERS + q % spans * depth * between
                    ahead = (elements_between(x, i, a, wanted), between, 0, 1)
                tiles_ahead(
                    height - m0 if p + 1 == calls else m1 - m0, x, i, x_m, y, source if near else 0, y_n, c, corner + m0 * N + n, N, size,
                    (wide + size - 1) // size, wide, start, 0, adds, over, ahead,
                )  # fmt: skip


@kernel
def pack(W, packed):
    """Reads W (K, N), writes packed (ceil(N / lanes), K, lanes), B of `product_over_rows`, zeros in the last vector's tail.

    Parallel over blocks of rows and vectors, which are read as short runs of memory.
    """
    K, N = W.shape
    w, p, size, vectors = flat(W), flat(packed), lanes(W), packed.shape[0]
    row_blocks, column_blocks = (K + PACK_ROWS - 1) // PACK_ROWS, (vectors + PACK_VECTORS - 1) // PACK_VECTORS
    for job in prange(row_blocks * column_blocks):
        (k0, k1), (v0, v1) = part(job % row_blocks, row_blocks, K), part(job // row_blocks, column_blocks, vectors)
        for k in range(k0, k1):
            for v in range(v0, v1):
                prefetch_to_write(p, (v * K + k + PACK_AHEAD) * size)
                store(p, (v * K + k) * size, load(w, k * N + v * size, N - v * size), size)


@kernel
def product_over_rows(a, b, c, M, N, K, rows, row, column, row_blocks, column_blocks, splits, more):
    """Reads A (K, M) and B (K, N), writes C (splits, M, N), whose sum over splits, the parts of K, is A.T @ B; adds it if `more` is 1.

    All are flat, `rows` as in `product`, where A is read IN_PLACE only, or K, M and 0 for a matrix; `row` and `column` lead to the next row
    and vector of B. Parallel over splits and blocks of C. A job takes up to CHUNK rows at a time, or PANEL_ROWS. It copies its columns of
    A, transposed, so that low tiles read whole lines; high tiles read A where it is, or panels of pixels with others between and, with
    LATE_MEMORY, of crowded rows and LARGE blocks. Its columns of B are copied a STRIP at a time where rows are FAR from each other, and
    would share few lines of the cache. Meanwhile tiles ask for the next strip and for A's next rows, but in LARGE blocks.
    """
    for job in prange(splits * row_blocks * column_blocks):
        _over_rows(np.int64(job), a, b, c, M, N, K, rows, row, column, row_blocks, column_blocks, splits, more)


@apart
def _gradients(job, jobs, G, X, W, grad_x, grad_w, grad_b, gate, given, start):
    """Job `job` of `jobs` of `gradients`: its part of the blocks of each gradient. Where grad_x is one block, the last job computes it."""
    (M, O), I = G.shape, W.shape[1]
    g, x, w = flat(G), flat(X), flat(W)
    row_blocks, column_blocks = blocks_of(g, M, I, O, 1)
    first, last = part(job, jobs, row_blocks * column_blocks if grad_x.size else 0)
    for block in range(first, last):
        product_block(block, g, w, grad_x, gate, M, I, O, (M, O, 0), (M, I, 0), given, start, 1, row_blocks, column_blocks)
    if grad_x.size and row_blocks * column_blocks == 1:  # the last job has computed it
        jobs -= 1
        if job == jobs:
            return
    row_blocks = (O + LOW - 1) // LOW
    column_blocks = column_blocks_of(row_blocks, I, SMALL_COLUMNS)
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
    G.T @ X, and grad_b (O,), the sum of the rows of G, all flat; those that are not empty. Parallel over blocks of all of them: each job
    takes a part of each, but where grad_x is one block the last job computes that, and the others the rest.
    """
    jobs = max(2, column_blocks_of(1, X.shape[1], SMALL_COLUMNS))
    for job in prange(jobs):
        _gradients(np.int64(job), jobs, G, X, W, grad_x, grad_w, grad_b, gate, given, start)
