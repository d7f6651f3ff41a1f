"""Sums over a few channels of a group, with the groups side by side in a vector.

A vector of input channels holds lanes / G groups of G channels. `spread` r of it has in each lane channel r of the lane's group: one
multiplication of it with a vector of weights does for all groups what would be a product of G x G numbers for each.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastconv.kernels.processor import VECTOR_REGISTERS
from fastconv.kernels.simd import I64, Vector, element_pointer
from fastconv.kernels.vector_type import I32, VectorType, float_vector

COLUMNS = 3
"""Taps in a row of the filter."""

MOST = 8 if VECTOR_REGISTERS == 32 else 3
"""Channels of a group whose sums, one for each column of taps, fit into registers together."""


def _spread(builder, vector, G, r, lanes):
    """Lane l of the result is lane l - l % G + r."""
    picks = ir.Constant(ir.VectorType(I32, lanes), [ir.Constant(I32, lane - lane % G + r) for lane in range(lanes)])
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), picks)


@intrinsic(prefer_literal=True)
def add_row_of_taps(typingctx, G, x, w, j, sums):
    """What a pixel x adds to the sums of the three outputs whose windows see it in one row of the filter.

    `sums` = (even 0, even 1, even 2, odd 0, odd 1, odd 2): those of even channels of a group and those of odd ones, so that half as many
    additions wait for each other. Output `column` sees x with the weights w[j + (r * 3 + column) * lanes], r the channel in the group.
    G is an integer literal that divides the lanes.
    """
    if not isinstance(G, types.IntegerLiteral) or not isinstance(x, VectorType):
        return None
    count = G.literal_value

    def codegen(context, builder, signature, args):
        _, pixel, _, _, packed = args
        v = Vector(builder, x.dtype)
        base = element_pointer(context, builder, signature, args, 2)
        totals = cgutils.unpack_tuple(builder, packed, 2 * COLUMNS)
        for r in range(count):
            one = _spread(builder, pixel, count, r, x.lanes)
            for column in range(COLUMNS):
                weight = v.load(builder.gep(base, [ir.Constant(I64, (r * COLUMNS + column) * x.lanes)]))
                k = r % 2 * COLUMNS + column
                totals[k] = v.fma(one, weight, totals[k])
        return context.make_tuple(builder, signature.return_type, totals)

    many = types.UniTuple(x, 2 * COLUMNS)
    return many(G, x, w, types.int64, many), codegen


@intrinsic(prefer_literal=True)
def add_row_of_gradients(typingctx, G, x, i, step, g, o, count, d, j):
    """d[j + (r * 3 + column) * lanes] += sum over k < count of channel r of each group of x[i + k * step] * g[o + (k - column) * lanes].

    All are vectors. G is an integer literal that divides the lanes.
    """
    if not isinstance(G, types.IntegerLiteral):
        return None
    channels, lanes = G.literal_value, float_vector(x).lanes
    n = types.int64

    def codegen(context, builder, signature, args):
        pixels, gradients, target = (element_pointer(context, builder, signature, args, k) for k in (1, 4, 7))
        v = Vector(builder, x.dtype)
        for start in range(0, channels, MOST):
            cells = [(r, column) for r in range(start, min(channels, start + MOST)) for column in range(COLUMNS)]
            places = {cell: builder.gep(target, [ir.Constant(I64, (cell[0] * COLUMNS + cell[1]) * lanes)]) for cell in cells}
            sums = {cell: cgutils.alloca_once_value(builder, v.load(places[cell])) for cell in cells}
            with cgutils.for_range(builder, args[6]) as loop:
                pixel = v.load(builder.gep(pixels, [builder.mul(loop.index, args[3])]))
                first = builder.gep(gradients, [builder.mul(loop.index, ir.Constant(I64, lanes))])
                gradient = [v.load(builder.gep(first, [ir.Constant(I64, -column * lanes)])) for column in range(COLUMNS)]
                for r in range(start, min(channels, start + MOST)):
                    one = _spread(builder, pixel, channels, r, lanes)
                    for column in range(COLUMNS):
                        builder.store(v.fma(one, gradient[column], builder.load(sums[r, column])), sums[r, column])
            v.store([builder.load(sums[cell]) for cell in cells], [places[cell] for cell in cells])
        return context.get_dummy_value()

    return types.void(G, x, n, n, g, n, n, d, n), codegen
