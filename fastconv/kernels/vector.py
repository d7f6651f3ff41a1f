"""SIMD vectors as values of kernels: arithmetic operators, comparisons, `select`; `load` and `store` are in `kernels.vector_memory`.

A kernel written with them is vectorised whatever LLVM's loop vectoriser thinks of it, also where the innermost loop is shorter
than a vector (6 channels, 10 classes): of the last, partial vector only the lanes that count are read and written. A lane computes
the same in a full and in a partial vector, in a serial and in a parallel kernel.

A float vector has VECTOR_BYTES bytes; an int vector has as many lanes of int32 as the float vector it belongs to.
"""

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numba.np.numpy_support import as_dtype

from fastconv.kernels.jit import device
from fastconv.kernels.processor import VECTOR_BYTES
from fastconv.kernels.vector_type import I32, VectorType, as_vector, call, first_lanes, float_vector, llvm_type, splat_lanes, suffix

BLOCK = 4096  # elements of a flat array that one job takes: 16 KB of float32, half of a small L1 cache


@intrinsic
def lanes(typingctx, array):
    """How many elements of the float array's dtype a vector holds."""
    count = float_vector(array).lanes

    def codegen(context, builder, sig, args):
        return ir.Constant(ir.IntType(64), count)

    return types.int64(array), codegen


@intrinsic
def splat(typingctx, like, number):
    """The number in every lane of a float vector of the dtype of `like`, an array or a vector."""
    vector = float_vector(like)

    def codegen(context, builder, sig, args):
        return splat_lanes(builder, args[1], vector.lanes)

    return vector(like, vector.dtype), codegen


@intrinsic
def splat_int(typingctx, like, number):
    """The integer in every lane of the int vector that belongs to the float vector `like`."""

    def codegen(context, builder, sig, args):
        return splat_lanes(builder, args[1], like.lanes)

    return VectorType(types.int32, like.lanes)(like, types.int32), codegen


# --- lane by lane --------------------------------------------------------------------------------------------------------


@intrinsic
def select(typingctx, mask, a, b):
    """a where `mask`, else b; either may be a number."""
    vector = a if isinstance(a, VectorType) else b

    def codegen(context, builder, sig, args):
        a_vector, b_vector = (as_vector(context, builder, v, t, vector) for v, t in zip(args[1:], sig.args[1:], strict=True))
        return builder.select(args[0], a_vector, b_vector)

    return vector(mask, a, b), codegen


@intrinsic
def fma(typingctx, a, b, c):
    """a*b + c, rounded once where the processor can; any of them may be a number."""
    vector = next(v for v in (a, b, c) if isinstance(v, VectorType))

    def codegen(context, builder, sig, args):
        vectors = [as_vector(context, builder, v, t, vector) for v, t in zip(args, sig.args, strict=True)]
        return call(builder, f"llvm.fmuladd.{suffix(vectors[0].type)}", vectors[0].type, vectors)

    return vector(a, b, c), codegen


def _unary(name):
    """An intrinsic of one float vector, LLVM's of the same name. LLVM calls the C library lane by lane where it has to."""

    def typer(typingctx, v):
        def codegen(context, builder, sig, args):
            return call(builder, f"llvm.{name}.{suffix(args[0].type)}", args[0].type, args)

        return v(v), codegen

    typer.__name__ = f"llvm_{name}"
    return intrinsic(typer)


sqrt = _unary("sqrt")
magnitude = _unary("fabs")
nearest = _unary("rint")
libm_exp = _unary("exp")
libm_log = _unary("log")
libm_tanh = _unary("tanh")


@intrinsic
def libm_erfc(typingctx, v):
    """Complementary error function of a float64 vector; LLVM has no intrinsic of that name."""

    def codegen(context, builder, sig, args):
        result = args[0]
        for lane in range(v.lanes):
            index = ir.Constant(I32, lane)
            value = call(builder, "erfc", ir.DoubleType(), [builder.extract_element(args[0], index)])
            result = builder.insert_element(result, value, index)
        return result

    return v(v), codegen


@intrinsic
def to_int(typingctx, v):
    """Float vector to int32, towards zero; the value must fit."""
    vector = VectorType(types.int32, v.lanes)

    def codegen(context, builder, sig, args):
        return builder.fptosi(args[0], llvm_type(vector))

    return vector(v), codegen


@intrinsic
def to_float(typingctx, v):
    """int32 vector to the float vector that it belongs to."""
    vector = VectorType(types.float32 if v.lanes == VECTOR_BYTES // 4 else types.float64, v.lanes)

    def codegen(context, builder, sig, args):
        return builder.sitofp(args[0], llvm_type(vector))

    return vector(v), codegen


@intrinsic
def bits(typingctx, v):
    """The bit pattern of a float32 vector, as int32."""
    vector = VectorType(types.int32, v.lanes)

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], llvm_type(vector))

    return vector(v), codegen


@intrinsic
def from_bits(typingctx, v):
    """The float32 vector of an int32 bit pattern."""
    vector = VectorType(types.float32, v.lanes)

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], llvm_type(vector))

    return vector(v), codegen


@intrinsic
def within(typingctx, v, count):
    """The mask of the first `count` lanes."""

    def codegen(context, builder, sig, args):
        return first_lanes(builder, args[1], v.lanes)

    return VectorType(types.boolean, v.lanes)(v, types.int64), codegen


@intrinsic
def _limits(typingctx, v):
    """(smallest normal number, machine epsilon) of the dtype of a float vector."""
    limits = np.finfo(as_dtype(v.dtype))

    def codegen(context, builder, sig, args):
        return context.make_tuple(builder, sig.return_type, [ir.Constant(ir.DoubleType(), float(n)) for n in (limits.tiny, limits.eps)])

    return types.UniTuple(types.float64, 2)(v), codegen


@device
def without_subnormal(v):
    """v, with 0 for subnormal numbers: Intel's processors take 150 cycles for each of these."""
    return select(magnitude(v) < _limits(v)[0], 0.0, v)


@device
def without_negligible(v):
    """v, with 0 for numbers whose product with machine epsilon would be subnormal.

    Gradients that have almost vanished would become subnormal a few layers on.
    """
    smallest, eps = _limits(v)
    return select(magnitude(v) < smallest / eps, 0.0, v)


# --- across lanes --------------------------------------------------------------------------------------------------------


@intrinsic
def count_lanes(typingctx, mask):
    """In how many lanes the mask is set."""

    def codegen(context, builder, sig, args):
        pattern = builder.bitcast(args[0], ir.IntType(mask.lanes))
        return builder.zext(builder.ctpop(pattern), ir.IntType(64))

    return types.int64(mask), codegen


@intrinsic
def compress(typingctx, v, mask):
    """The lanes of `v` in which the mask is set, side by side from the first on; the others are undefined."""

    def codegen(context, builder, sig, args):
        value = args[0]
        name = f"llvm.experimental.vector.compress.{suffix(value.type)}"
        return call(builder, name, value.type, [*args, ir.Constant(value.type, ir.Undefined)])

    return v(v, mask), codegen


def _reduce(combine):
    """An intrinsic that folds the upper half onto the lower until one lane is left: the same order on every machine."""

    def typer(typingctx, v):
        def codegen(context, builder, sig, args):
            value, width = args[0], v.lanes
            undefined = ir.Constant(value.type, ir.Undefined)
            while width > 1:
                width //= 2
                upper = [(lane + width) % v.lanes for lane in range(v.lanes)]
                shuffled = builder.shuffle_vector(value, undefined, ir.Constant(ir.VectorType(I32, v.lanes), upper))
                value = combine(builder, value, shuffled)
            return builder.extract_element(value, ir.Constant(I32, 0))

        return v.dtype(v), codegen

    return typer


def _larger_or_nan(builder, a, b):
    """max(a, b), NaN when either is."""
    larger = builder.select(builder.fcmp_unordered(">=", a, b), a, b)  # a when a is NaN
    return builder.select(builder.fcmp_unordered("uno", b, b), b, larger)


sum_lanes = intrinsic(_reduce(lambda builder, a, b: builder.fadd(a, b)))
max_lanes = intrinsic(_reduce(_larger_or_nan))


# --- flat arrays ---------------------------------------------------------------------------------------------------------


@device
def blocks(array):
    """How many jobs share a flat array."""
    return (array.size + BLOCK - 1) // BLOCK


@device
def block(array, job):
    """(start, stop) of a job's part of a flat array."""
    return job * BLOCK, min((job + 1) * BLOCK, array.size)
