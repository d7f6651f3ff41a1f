"""A float32 as the sum of three bfloat16, and vectors of these as the matrix registers take them.

The first and the second third are what is left, rounded to the nearest of 8 bits, and then no more than 8 bits are left of the 24 of a
float32. But products take subnormal numbers as 0: below 1e-33 the last bits begin to be lost. Infinities have no second third, and become
NaN in a product; so do numbers from 3.39e38 on.
"""

from llvmlite import ir
from numba.extending import intrinsic

from fastconv.kernels.jit import device
from fastconv.kernels.vector import bits, from_bits
from fastconv.kernels.vector_type import I32


def _halves(pairs):
    """An intrinsic that takes the upper halves of the numbers of two float32 vectors: all of the one, then all of the other, or in turn."""

    def typer(typingctx, a, b):
        def codegen(context, builder, sig, args):
            count = 2 * a.lanes
            halves = [builder.bitcast(arg, ir.VectorType(ir.IntType(16), count)) for arg in args]
            upper = [2 * lane + 1 for lane in range(a.lanes)]
            order = [k for i in upper for k in (i, count + i)] if pairs else upper + [count + i for i in upper]
            return builder.bitcast(builder.shuffle_vector(*halves, ir.Constant(ir.VectorType(I32, count), order)), args[0].type)

        return a(a, b), codegen

    typer.__name__ = "in_pairs" if pairs else "joined"
    return intrinsic(typer)


joined, in_pairs = _halves(False), _halves(True)


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
