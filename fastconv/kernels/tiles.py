"""The register tile as kernels call it: blocks of any number of rows and columns, compiled apart from them."""

from numba.core import types
from numba.extending import intrinsic

from fastconv.kernels.apart import Apart
from fastconv.kernels.jit import device
from fastconv.kernels.prefetch import prefetch_rows
from fastconv.kernels.processor import FEW_STORES, HALVES, LATE_MEMORY
from fastconv.kernels.simd import (
    MAX_ROWS,
    REQUEST,
    SPREADS,
    VECTOR_BYTES,
    flat_arguments,
    itemsize,
    tile,
    tile_elementwise,
)
from fastconv.kernels.tile_picked import PICK_ROWS, PICK_VECTORS, tile_picked

OUTPUT_FIRST = 0, 0, 0, 1
"""`ahead` of tiles whose results are likely to be in no cache: they ask for the lines of these, if for any."""

ASKS_BEFORE = REQUEST == 1 and not LATE_MEMORY
"""Whether tiles with too few steps to ask for the lines of their results in these ask for all of them before; low tiles ask for those of
the tile below. Where lines come late, so many requests at once keep the tile waiting."""

LONG, SHORT_ROWS = 192, 10 if FEW_STORES else MAX_ROWS
"""Terms from which a sum is long, and rows of the tallest tile of shorter ones. With FEW_STORES the tile after one of 14 rows waits until
some of its results are written: a third of its time with 8 terms, 3 % with 64."""


@device
def heights(M, terms):
    """(rows of each tile of M rows, or one more; the first row of those that have one more) where sums have so many terms.

    16 rows are 8 + 8, not 14 + 2, which would wait for its own sums.
    """
    most = SHORT_ROWS if terms < LONG else MAX_ROWS
    count = max(1, (M + most - 1) // most)
    height = M // count
    return height, (count * (height + 1) - M) * height


def _tiles(
    M, A, am, B, bn, C, cm, cn, vectors, cols, init, accumulate, S, a_s, b_s, T, a_t, b_t, K, a_k, b_k, distance, step, turn, results
):
    lanes = VECTOR_BYTES // itemsize(A)
    over = (S, a_s, b_s, T, a_t, b_t, K, a_k, b_k)
    height, higher = heights(M, S * T * K)
    whole = cols // lanes  # vectors without a tail
    spreads = SPREADS and 2 * S * T * (K // 4) >= height + (higher < M)  # there are steps enough
    below = results * cm if spreads else 0
    v = 0
    while v + 2 <= whole:
        m = 0
        while m < M:
            rows = height if m < higher else height + 1
            if ASKS_BEFORE and results and not spreads and not accumulate:
                prefetch_rows(C, m * cm + v * cn, cm, cn, rows)
            tile(rows, 2, 0, 0, A, m, am, B, v, bn, C, cm, cn, cols, init, accumulate, over, (distance + v // 2 * turn, step, below))
            m += rows
        v += 2
    while v < vectors:
        rest, m = cols - v * lanes, 0
        while m < M:
            rows = height if m < higher else height + 1
            if rest >= lanes:
                tile(rows, 1, 0, 0, A, m, am, B, v, bn, C, cm, cn, rest, init, accumulate, over, (distance + v // 2 * turn, step, 0))
            elif HALVES and rest <= lanes // 2:
                tile(rows, 1, 1, 1, A, m, am, B, v, bn, C, cm, cn, rest, init, accumulate, over, (distance + v // 2 * turn, step, 0))
            else:
                tile(rows, 1, 0, 1, A, m, am, B, v, bn, C, cm, cn, rest, init, accumulate, over, (distance + v // 2 * turn, step, 0))
            m += rows
        v += 1


def _tiles_elementwise(M, A, am, B, C, cm, cols, init, accumulate, T, a_t, b_t, K, a_k, b_k):
    over = (1, 0, 0, T, a_t, b_t, K, a_k, b_k)
    parts, m = (M + MAX_ROWS - 1) // MAX_ROWS, 0
    for part in range(parts):
        rows = (M - m) // (parts - part)
        if cols >= VECTOR_BYTES // itemsize(A):
            tile_elementwise(rows, 0, A, m, am, B, C, cm, cols, init, accumulate, over)
        else:
            tile_elementwise(rows, 1, A, m, am, B, C, cm, cols, init, accumulate, over)
        m += rows


def _tiles_picked(M, cols, values, picks, step, count, B, bm, C, cm):
    lanes = VECTOR_BYTES // itemsize(B)
    vectors, parts = (cols + lanes - 1) // lanes, (M + PICK_ROWS - 1) // PICK_ROWS
    m = 0
    for part in range(parts):
        rows = (M - m) // (parts - part)
        if 2 * cols <= lanes:
            tile_picked(rows, 1, 1, values, picks, step, count, B, m * bm, bm, C, m * cm, cm)
        else:
            for n in range(0, vectors, PICK_VECTORS):
                b, c, wide = m * bm + n * lanes, m * cm + n * lanes, min(PICK_VECTORS, vectors - n)
                if wide == 4:
                    tile_picked(rows, 4, 0, values, picks, step, count, B, b, bm, C, c, cm)
                elif wide == 3:
                    tile_picked(rows, 3, 0, values, picks, step, count, B, b, bm, C, c, cm)
                elif wide == 2:
                    tile_picked(rows, 2, 0, values, picks, step, count, B, b, bm, C, c, cm)
                else:
                    tile_picked(rows, 1, 0, values, picks, step, count, B, b, bm, C, c, cm)
        m += rows


TILES = Apart(_tiles, "ipipipiiiipi" + "i" * 13)
TILES_ELEMENTWISE = Apart(_tiles_elementwise, "ipippiipi" + "i" * 6)
TILES_PICKED = Apart(_tiles_picked, "iipniipipi")


def call_apart(apart, parameters, array, more=()):
    """A signature and code that pass `parameters`, then `more` integers, on to `apart`, for the dtype of `array`.

    They are passed as `flat_arguments` says.
    """
    signature = types.void(*parameters)
    apart.prepare(apart.signature(array.dtype))  # before what calls it is lowered, which is lost if that has to wait (kernels.ahead)

    def codegen(context, builder, signature, args):
        arguments = flat_arguments(context, builder, signature, args)
        arguments += [context.get_constant(types.intp, integer) for integer in more]
        apart.call(context, builder, array.dtype, arguments)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def tiles(typingctx, M, A, a, am, B, b, bn, C, c, cm, cn, vectors, cols, init, i, accumulate, over):
    """A block of M rows and `vectors` vectors of columns, `cols` columns in all, in even tiles two vectors wide, then one.

    Arguments are those of `simd.tile`; the last vector is cut off at `cols`.
    """
    n = types.intp
    return call_apart(TILES, (n, A, n, n, B, n, n, C, n, n, n, n, n, init, n, n, types.UniTuple(n, 9)), A, (0, 0, 0, 0))


@intrinsic
def tiles_ahead(typingctx, M, A, a, am, B, b, bn, C, c, cm, cn, vectors, cols, init, i, accumulate, over, ahead):
    """`tiles` that ask for memory that will be read later, as `simd.tile` says; `ahead` = (distance, step, turn, results), and for each two
    vectors of columns the distance is `turn` larger. With `results` 1, not 0, they also ask for the lines of C, in the steps of their sums
    or, with ASKS_BEFORE where these are few, before."""
    n = types.intp
    return call_apart(TILES, (n, A, n, n, B, n, n, C, n, n, n, n, n, init, n, n, types.UniTuple(n, 9), types.UniTuple(n, 4)), A)


@intrinsic
def tiles_elementwise(typingctx, M, A, a, am, B, b, C, c, cm, cols, init, i, accumulate, over):
    """M rows of one vector of columns, `cols` of them at most; arguments are those of `simd.tile_elementwise`, `over` its last six."""
    n = types.intp
    return call_apart(TILES_ELEMENTWISE, (n, A, n, n, B, n, C, n, n, n, init, n, n, types.UniTuple(n, 6)), A)


@intrinsic
def tiles_picked(typingctx, M, cols, values, v, picks, p, step, count, B, b, bm, C, c, cm):
    """C[m, j] += sum over k < count of values[k*step] * B[picks[k*step]; m, j], for m < M and j < cols: terms are picked from a list.

    Rows of B and C are read, and those of C written, up to a whole number of vectors; arguments are those of `tile_picked.tile_picked`.
    """
    n = types.intp
    return call_apart(TILES_PICKED, (n, n, values, n, picks, n, n, n, B, n, n, C, n, n), B)
