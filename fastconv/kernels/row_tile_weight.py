"""A register tile of a weight's gradient: a row of taps of some input channels, for which each number of the input is read once.

`simd.tile` reads a vector of the output's gradient and a number of the input for each tap that multiplies them. Here the gradients of the
last pixels stay in registers while the input goes by: the number that meets tap 0 of this pixel meets tap 1 of the one before, and so on.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastconv.kernels.apart import Apart
from fastconv.kernels.by_need import ByNeed, call_address
from fastconv.kernels.jit import device
from fastconv.kernels.processor import VECTOR_REGISTERS
from fastconv.kernels.row_tile import MOST_STRIDE, MOST_TAPS
from fastconv.kernels.simd import I64, Vector, moved, opaque, rolled_loop, switch
from fastconv.kernels.vector_type import prefetch_line


@device
def most_channels(taps, stride, vectors):
    """Channels of the largest tile: its sums, the gradients that an input pixel meets, and a number of this just fit into registers."""
    return (VECTOR_REGISTERS - 1 - (taps + stride - 1) // stride * vectors) // (taps * vectors)


class _RowTileWeight:
    """Emits the body of `row_tile_weight` for one number of channels.

    Gradients have an age: a pixel of age i is the one that was read i steps ago, whose taps from i * stride on meet the input of this step.
    """

    def __init__(self, builder, v, vectors, taps, stride, pointers, strides, over, ahead):
        self.builder, self.v, self.vectors, self.taps, self.stride = builder, v, vectors, taps, stride
        self.pa, self.pb, self.pc = pointers
        self.ap, self.bp, self.cm, self.ct, self.cn = strides
        self.over, self.ahead, self.ages = over, ahead, -(-taps // stride)

    def at(self, pointer, *terms):
        return moved(self.builder, pointer, *terms)

    def emit(self, channels):
        builder, v, ages = self.builder, self.v, self.ages
        cells = [(m, t, n) for m in range(channels) for t in range(self.taps) for n in range(self.vectors)]
        sums = {cell: cgutils.alloca_once(builder, v.type) for cell in cells}  # LLVM promotes these to registers
        results = [self.at(self.pc, (self.cm, m), (self.ct, t), (self.cn, n)) for m, t, n in cells]
        for cell, result in zip(cells, results, strict=True):
            builder.store(v.load(result), sums[cell])
        held = [[cgutils.alloca_once(builder, v.type) for _ in range(self.vectors)] for _ in range(ages)]
        S, a_s, b_s, R, a_r, b_r, Q = self.over
        steady, all_ages = builder.sub(Q, ir.Constant(I64, ages - 1)), range(ages)
        whole = builder.sdiv(steady, ir.Constant(I64, ages))
        rest = builder.sub(steady, builder.mul(whole, ir.Constant(I64, ages)))
        wanted = cgutils.alloca_once_value(builder, self.at(self.pa, (self.ahead[0], 1)))
        with rolled_loop(builder, S) as s, rolled_loop(builder, R) as r:
            a, b = self.at(self.pa, (a_s, s), (a_r, r)), self.at(self.pb, (b_s, s), (b_r, r))
            place = [cgutils.alloca_once_value(builder, pointer) for pointer in (a, b)]
            self.emit_pixels(channels, place, held, sums, [(step + 1, range(step + 1)) for step in range(ages - 1)])
            with rolled_loop(builder, whole):
                line = builder.load(wanted)
                prefetch_line(builder, line, into=2)
                builder.store(self.at(line, (self.ahead[1], 1)), wanted)
                self.emit_pixels(channels, place, held, sums, [(turn, all_ages) for turn in all_ages])

            def emit_end(rest):
                steps = [(turn, all_ages) for turn in range(rest)] + [(rest + step, range(step + 1, ages)) for step in range(ages - 1)]
                self.emit_pixels(channels, place, held, sums, steps)

            switch(builder, rest, ages - 1, emit_end, 0)
        v.store([builder.load(sums[cell]) for cell in cells], results)

    def emit_pixels(self, channels, place, held, sums, steps):
        """The sums' terms of some pixels, (turn, ages) of each: gradients of age i are in held[i - turn], and those of age 0 are read.

        After as many turns as there are ages, all are where they were at turn 0.
        """
        builder, v = self.builder, self.v
        a, b = [opaque(builder, builder.load(pointer)) for pointer in place]
        for k, (turn, own) in enumerate(steps):
            w = {age: held[(age - turn) % self.ages] for age in own}
            if 0 in own:
                row = self.at(b, (self.bp, k))
                for n in range(self.vectors):
                    builder.store(v.load(builder.gep(row, [ir.Constant(I64, n * v.lanes)])), w[0][n])
            for offset in range(self.stride):
                taps = [(offset + age * self.stride, age) for age in own if offset + age * self.stride < self.taps]
                pixel = self.at(a, (self.ap, k * self.stride + offset))
                for m in range(channels if taps else 0):
                    x = v.broadcast(builder.gep(pixel, [ir.Constant(I64, m)]))
                    for t, age in taps:
                        for n in range(self.vectors):
                            builder.store(v.fma(x, builder.load(w[age][n]), builder.load(sums[m, t, n])), sums[m, t, n])
        builder.store(self.at(a, (self.ap, len(steps) * self.stride)), place[0])
        builder.store(self.at(b, (self.bp, len(steps))), place[1])


@intrinsic(prefer_literal=True)
def row_tile_weight(typingctx, channels, NV, TAPS, STRIDE, A, a, ap, B, b, bp, C, c, cm, ct, cn, over, ahead):
    """C[m, t, v] += sum over (s, r, q) of A[m; s, r, q * STRIDE + t] * B[v; s, r, q], for `channels` m, TAPS t and NV vectors v.

    `over` = (S, as, bs, R, ar, br, Q): element (m; s, r, p) of A is a scalar at A[a + m + s*as + r*ar + p*ap], vector (v; s, r, q) of B
    starts at B[b + v*lanes + s*bs + r*br + q*bp], vector (m, t, v) of C at C[c + m*cm + t*ct + v*cn]. NV, TAPS and STRIDE are integer
    literals, arrays are pointers; 1 <= channels <= most_channels(TAPS, STRIDE, NV), Q >= (TAPS - 1) // STRIDE.

    `ahead` = (distance, step): a tile asks for memory that will be read later, into all caches but the first, in every whole turn of the
    gradients' ages; the n-th time, of all s and r, for the line of A[a + distance + n*step].
    """
    if not all(isinstance(literal, types.IntegerLiteral) for literal in (NV, TAPS, STRIDE)):
        return None
    vectors, taps, stride, n = NV.literal_value, TAPS.literal_value, STRIDE.literal_value, types.intp
    signature = types.void(n, NV, TAPS, STRIDE, A, n, n, B, n, n, C, n, n, n, n, types.UniTuple(n, 7), types.UniTuple(n, 2))

    def codegen(context, builder, signature, args):
        channels, _, _, _, pa, a, ap, pb, b, bp, pc, c, cm, ct, cn, over, ahead = args
        pointers = [builder.gep(pointer, [index]) for pointer, index in ((pa, a), (pb, b), (pc, c))]
        over, ahead = cgutils.unpack_tuple(builder, over, 7), cgutils.unpack_tuple(builder, ahead, 2)
        v = Vector(builder, A.dtype)
        body = _RowTileWeight(builder, v, vectors, taps, stride, pointers, (ap, bp, cm, ct, cn), over, ahead)
        switch(builder, channels, most_channels.py_func(taps, stride, vectors), body.emit)
        return context.get_dummy_value()

    return signature, codegen


PARAMETERS = "ipipipiiii" + "i" * 9
"""Of the code for a number of taps and a stride, as `Apart` has them."""


def _make(index):
    """The code for so many taps and a stride."""
    TAPS, STRIDE = index % (MOST_TAPS + 1), index // (MOST_TAPS + 1)
    AGES, MOST, MOST_OF_TWO = -(-TAPS // STRIDE), most_channels.py_func(TAPS, STRIDE, 1), most_channels.py_func(TAPS, STRIDE, 2)

    def row_tiles_weight(M, A, ap, B, bp, C, cm, ct, cn, wide, S, a_s, b_s, R, a_r, b_r, Q, distance, move):
        over, m = (S, a_s, b_s, R, a_r, b_r, Q), 0
        most = MOST_OF_TWO if wide == 2 else MOST
        requests = S * R * ((Q - AGES + 1) // AGES) * move
        parts = (M + most - 1) // most
        for part in range(parts):
            channels = (M - m) // (parts - part)
            if wide == 2:
                row_tile_weight(channels, 2, TAPS, STRIDE, A, m, ap, B, 0, bp, C, m * cm, cm, ct, cn, over, (distance - m, move))
            else:
                row_tile_weight(channels, 1, TAPS, STRIDE, A, m, ap, B, 0, bp, C, m * cm, cm, ct, cn, over, (distance - m, move))
            m += channels
            distance += requests

    row_tiles_weight.__name__ = row_tiles_weight.__qualname__ = f"row_tiles_weight_{TAPS}_{STRIDE}"  # of its own in the cache
    return Apart(row_tiles_weight, PARAMETERS)


CODES = ByNeed(_make, (MOST_STRIDE + 1) * (MOST_TAPS + 1))
"""The code for each number of taps and stride, at the place that row_tile.code_of says."""


@device
def suits_rows(taps, across, stride, dilation):
    """Whether these tiles do for rows of so many taps, `across` pixels of the output, `stride` and `dilation`."""
    ages = (taps + stride - 1) // stride
    return stride * dilation <= MOST_STRIDE and 2 <= ages and taps <= MOST_TAPS and across // dilation >= ages - 1


@intrinsic
def row_tiles_weight(typingctx, address, M, A, a, ap, B, b, bp, C, c, cm, ct, cn, wide, over, ahead):
    """`row_tile_weight` for M channels and `wide` vectors, one or two, by the code at `address`; tiles go on asking in turn."""
    n = types.intp
    return call_address(PARAMETERS, A, (n, A, n, n, B, n, n, C, n, n, n, n, n, types.UniTuple(n, 7), types.UniTuple(n, 2)))
