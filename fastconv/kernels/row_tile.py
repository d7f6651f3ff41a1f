"""A register tile of neighbouring pixels, for which each number of the input is read once for all taps of a row of the filter.

`simd.tile` reads a number for each tap that multiplies it, and one or two vectors of filters: for ten pixels and five taps 50 numbers and
5 or 10 vectors. Here the filters of a row of taps stay in registers, and the 14 numbers that meet them are read one after the other. An
Intel Xeon with AVX-512, which reads two vectors and begins two multiply-adds a cycle, so comes from 145 to 180 GFLOP/s with one vector of
output channels and from 165 to 185 with two; between registers it does 204 (tiles in assembly, timed by hand).

The code for each number of taps and stride is compiled when a convolution first needs it: kernels get its address.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastconv.kernels.apart import Apart
from fastconv.kernels.by_need import ByNeed, call_address
from fastconv.kernels.jit import device
from fastconv.kernels.processor import LATE_MEMORY, VECTOR_BYTES, VECTOR_REGISTERS
from fastconv.kernels.simd import GROUP, I64, Vector, itemsize, moved, opaque, rolled_loop, switch

MOST_TAPS = 9 if LATE_MEMORY else 0
"""Taps of a row, at most. Where arithmetic is slower than reading, as on a Zen 4 or with AVX2, nothing is lost by reading again."""

MOST_STRIDE = 2
"""Pixels by which the filter moves, at most."""

GROUP_OF_PIXELS = {1: GROUP, 2: 5}
"""Pixels that share a pointer, for each stride: with stride 2 a tile meets twice as many, and pointers would not fit into registers."""

MOST_ROWS = tuple((VECTOR_REGISTERS - 2) // 2 - taps for taps in range(MOST_TAPS + 1))
"""Rows of the tallest tile of so many taps: sums and filters, two vectors wide, and two numbers of the input just fit into registers."""

LEAST_ROWS = tuple((most + 1) // 2 for most in MOST_ROWS)
"""Rows of the lowest tile, which even parts of more than MOST_ROWS have."""


class _RowTile:
    """Emits the body of `row_tile` for one number of rows."""

    def __init__(self, builder, v, vectors, taps, stride, pointers, strides, cols, over):
        self.builder, self.v, self.vectors, self.taps, self.stride = builder, v, vectors, taps, stride
        self.pa, self.pb, self.pc, self.pi = pointers
        self.am, self.bn, self.bt, self.cm, self.cn = strides
        self.count, self.over = cols, over

    def at(self, pointer, *terms):
        return moved(self.builder, pointer, *terms)

    def pixels(self, rows):
        """How many pixels of the input so many rows meet."""
        return (rows - 1) * self.stride + self.taps

    def emit(self, rows):
        builder, v = self.builder, self.v
        cells = [(m, n) for m in range(rows) for n in range(self.vectors)]
        sums = {cell: cgutils.alloca_once(builder, v.type) for cell in cells}  # LLVM promotes these to registers
        results = [self.at(self.pc, (self.cm, m), (self.cn, n)) for m, n in cells]
        starts = [v.load(builder.gep(self.pi, [ir.Constant(I64, n * v.lanes)]), self.count) for n in range(self.vectors)]
        for m, n in cells:
            builder.store(starts[n], sums[m, n])
        S, a_s, b_s, T, a_t, b_t, K = self.over
        with rolled_loop(builder, S) as s, rolled_loop(builder, T) as t:
            a, b = self.at(self.pa, (a_s, s), (a_t, t)), self.at(self.pb, (b_s, s), (b_t, t))
            pixels = [self.at(a, (self.am, p)) for p in range(0, self.pixels(rows), GROUP_OF_PIXELS[self.stride])]
            filters = [self.at(b, (self.bn, n), (self.bt, tap)) for n in range(self.vectors) for tap in range(0, self.taps, GROUP)]
            pixels, filters = ([cgutils.alloca_once_value(builder, pointer) for pointer in some] for some in (pixels, filters))
            with rolled_loop(builder, K):
                self.emit_step(rows, pixels, filters, sums)
        v.store([builder.load(sums[cell]) for cell in cells], results, self.count)

    def emit_step(self, rows, pixels, filters, sums):
        """The sums' terms of one channel: every pixel's number, times all taps that meet it there. The pointers move on by one."""
        builder, v = self.builder, self.v
        x_groups, w_groups = ([opaque(builder, builder.load(pointer)) for pointer in some] for some in (pixels, filters))
        of_vector = len(filters) // self.vectors
        w = {
            (tap, n): v.load(self.at(w_groups[n * of_vector + tap // GROUP], (self.bt, tap % GROUP)), self.count)
            for tap in range(self.taps)
            for n in range(self.vectors)
        }
        group = GROUP_OF_PIXELS[self.stride]
        for p in range(self.pixels(rows)):
            met = [((p - tap) // self.stride, tap) for tap in range(p % self.stride, self.taps, self.stride)]
            met = [(m, tap) for m, tap in met if 0 <= m < rows]
            x = v.broadcast(self.at(x_groups[p // group], (self.am, p % group))) if met else None
            for m, tap in met:
                for n in range(self.vectors):
                    builder.store(v.fma(x, w[tap, n], builder.load(sums[m, n])), sums[m, n])
        for groups, pointers, step in ((x_groups, pixels, 1), (w_groups, filters, v.lanes)):
            for group, pointer in zip(groups, pointers, strict=True):
                builder.store(builder.gep(group, [ir.Constant(I64, step)]), pointer)


@intrinsic(prefer_literal=True)
def row_tile(typingctx, rows, NV, TAPS, STRIDE, A, a, am, B, b, bn, bt, C, c, cm, cn, cols, init, i, over):
    """C[m, v] = start[m, v] + sum over (s, t, k) and taps of A[m * STRIDE + tap; s, t, k] * B[v; s, t, k, tap], for `rows` m and NV vectors
    v.

    `over` = (S, as, bs, T, at, bt, K): element (p; s, t, k) of A is a scalar at A[a + p*am + s*as + t*at + k], vector (v; s, t, k, tap) of
    B starts at B[b + v*bn + s*bs + t*bt + k*lanes + tap*bt], vector (m, v) of C at C[c + m*cm + v*cn]. `start` is the vector v from init[i]
    on for every row. NV, TAPS and STRIDE are integer literals, arrays are pointers; of a single vector the lanes from `cols` on are neither
    read nor written. LEAST_ROWS[TAPS] <= rows <= MOST_ROWS[TAPS].
    """
    if not all(isinstance(literal, types.IntegerLiteral) for literal in (NV, TAPS, STRIDE)):
        return None
    vectors, taps, stride, n = NV.literal_value, TAPS.literal_value, STRIDE.literal_value, types.intp
    signature = types.void(n, NV, TAPS, STRIDE, A, n, n, B, n, n, n, C, n, n, n, n, init, n, types.UniTuple(n, 7))

    def codegen(context, builder, signature, args):
        rows, _, _, _, pa, a, am, pb, b, bn, bt, pc, c, cm, cn, cols, pi, i, over = args
        pointers = [builder.gep(pointer, [index]) for pointer, index in ((pa, a), (pb, b), (pc, c), (pi, i))]
        v, over = Vector(builder, A.dtype), cgutils.unpack_tuple(builder, over, 7)
        body = _RowTile(builder, v, vectors, taps, stride, pointers, (am, bn, bt, cm, cn), cols if vectors == 1 else None, over)
        switch(builder, rows, MOST_ROWS[taps], body.emit, LEAST_ROWS[taps])
        return context.get_dummy_value()

    return signature, codegen


PARAMETERS = "ipipiipiiiip" + "i" * 7
"""Of the code for a number of taps and a stride, as `Apart` has them."""


def _make(index):
    """The code for so many taps and a stride."""
    TAPS, STRIDE = index % (MOST_TAPS + 1), index // (MOST_TAPS + 1)

    def row_tiles(M, A, am, B, bn, bt, C, cm, cn, vectors, cols, init, S, a_s, b_s, T, a_t, b_t, K):
        lanes, over, v = VECTOR_BYTES // itemsize(A), (S, a_s, b_s, T, a_t, b_t, K), 0
        parts = (M + MOST_ROWS[TAPS] - 1) // MOST_ROWS[TAPS]
        while v < vectors:
            wide, m = min(2, (cols - v * lanes) // lanes), 0
            for part in range(parts):
                rows, a, c = (M - m) // (parts - part), m * STRIDE * am, m * cm + v * cn
                if wide == 2:
                    row_tile(rows, 2, TAPS, STRIDE, A, a, am, B, v * bn, bn, bt, C, c, cm, cn, cols, init, v * lanes, over)
                else:
                    rest = cols - v * lanes
                    row_tile(rows, 1, TAPS, STRIDE, A, a, am, B, v * bn, bn, bt, C, c, cm, cn, rest, init, v * lanes, over)
                m += rows
            v += max(1, wide)

    row_tiles.__name__ = row_tiles.__qualname__ = f"row_tiles_{TAPS}_{STRIDE}"  # each has a place of its own in the cache
    return Apart(row_tiles, PARAMETERS)


CODES = ByNeed(_make, (MOST_STRIDE + 1) * (MOST_TAPS + 1))
"""The code for each number of taps and stride, at the place that `code_of` says."""

NO_CODES = np.zeros((MOST_STRIDE + 1) * (MOST_TAPS + 1), np.int64)
"""For convolutions that leave these tiles alone."""


@device
def code_of(taps, stride):
    """Where the code for so many taps and a stride is among all."""
    return stride * (MOST_TAPS + 1) + taps


@device
def suits_rows(taps, across, stride, dilation):
    """Whether these tiles do for rows of so many taps, moved by `stride`, and `across` outputs, also without an odd last one of these."""
    return stride <= min(MOST_STRIDE, taps - 1) and dilation == 1 and 2 <= taps <= MOST_TAPS and across // 2 * 2 >= LEAST_ROWS[taps]


@intrinsic
def row_tiles(typingctx, address, M, A, a, am, B, b, bn, bt, C, c, cm, cn, vectors, cols, init, i, over):
    """A block of M >= LEAST_ROWS rows and `vectors` vectors of columns, `cols` columns in all, by the code at `address`.

    Arguments are those of `row_tile`; the last vector is cut off at `cols`.
    """
    n = types.intp
    return call_address(PARAMETERS, A, (n, A, n, n, B, n, n, n, C, n, n, n, n, n, init, n, types.UniTuple(n, 7)))
