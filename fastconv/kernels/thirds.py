"""A float32 as the sum of three bfloat16, and vectors of these as the matrix registers take them.

The first and the second third are what is left, rounded to the nearest of 8 bits, and then no more than 8 bits are left of the 24 of a
float32. But products take subnormal numbers as 0: below 1e-33 the last bits begin to be lost. Infinities have no second third, and become
NaN in a product; so do numbers from 3.39e38 on.
"""

from llvmlite import ir
from numba.extending import intrinsic

from fastconv.kernels.jit import device
from fastconv.kernels.vector import bits, from_bits, lanes
from fastconv.kernels.vector_memory import store
from fastconv.kernels.vector_type import I32


@intrinsic
def in_pairs(typingctx, a, b):
    """The upper halves of the numbers of two float32 vectors, in turn: of a[0], of b[0], of a[1], ..."""

    def codegen(context, builder, sig, args):
        integers = ir.VectorType(I32, a.lanes)
        lower, upper = (builder.bitcast(arg, integers) for arg in args)
        lower = builder.lshr(lower, ir.Constant(integers, a.lanes * [16]))
        upper = builder.and_(upper, ir.Constant(integers, a.lanes * [-0x10000]))
        return builder.bitcast(builder.or_(lower, upper), args[0].type)

    return a(a, b), codegen


@device
def rounded(v):
    """v to 8 bits, the nearest, those in the middle away from zero."""
    return from_bits((bits(v) + 0x8000) & -0x10000)


@device
def thirds(v):
    """Three vectors of float32 whose sum is v; of each only the upper halves of the numbers count."""
    first = rounded(v)
    rest = v - first
    second = rounded(rest)
    return first, second, rest - second


@device
def split(panel, p, third, v, w):
    """Thirds of v and w, in pairs, to panel[p], [p + third] and [p + 2 * third]."""
    (v0, v1, v2), (w0, w1, w2) = thirds(v), thirds(w)
    store(panel, p, in_pairs(v0, w0), lanes(panel))
    store(panel, p + third, in_pairs(v1, w1), lanes(panel))
    store(panel, p + 2 * third, in_pairs(v2, w2), lanes(panel))
