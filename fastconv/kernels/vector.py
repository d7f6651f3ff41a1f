"""SIMD vectors as values of kernels: `load`, arithmetic operators, comparisons, `select`, `store`.

A kernel written with them is vectorised whatever LLVM's loop vectoriser thinks of it, also where the innermost loop is shorter
than a vector (6 channels, 10 classes): the last, partial vector is masked. A lane computes the same in a full and in a partial
vector, in a serial and in a parallel kernel.

A float vector has VECTOR_BYTES bytes; an int vector has as many lanes of int32 as the float vector it belongs to.
"""

import operator

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from fastconv.kernels.jit import device
from fastconv.kernels.simd import VECTOR_BYTES

BLOCK = 4096  # elements of a flat array that one job takes: 16 KB of float32, half of a small L1 cache

I1, I32 = ir.IntType(1), ir.IntType(32)


class VectorType(types.Type):
    """The Numba type of `lanes` elements of `dtype`: a float type, int32, or boolean for masks."""

    def __init__(self, dtype, lanes):
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"vector({dtype} x {lanes})")


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, _llvm_type(vector))


def _llvm_type(vector):
    if vector.dtype == types.boolean:
        element = I1
    elif isinstance(vector.dtype, types.Integer):
        element = ir.IntType(vector.dtype.bitwidth)
    else:
        element = ir.FloatType() if vector.dtype == types.float32 else ir.DoubleType()
    return ir.VectorType(element, vector.lanes)


def _float_vector(source):
    """The float vector type that belongs to an array of floats or to a vector."""
    if isinstance(source, VectorType):
        return source
    return VectorType(source.dtype, VECTOR_BYTES // (source.dtype.bitwidth // 8))


def _is(value, *dtypes):
    return isinstance(value, VectorType) and value.dtype in dtypes


FLOATS = (types.float32, types.float64)


# --- code generation -----------------------------------------------------------------------------------------------------


def _call(builder, name, result, arguments):
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, [a.type for a in arguments]), name)
    return builder.call(function, arguments)


def _suffix(llvm_type):
    """The part of an intrinsic's name that says its vector type: v16f32."""
    element = llvm_type.element
    bits = {"float": "f32", "double": "f64"}.get(str(element)) or str(element)
    return f"v{llvm_type.count}{bits}"


def _splat(builder, scalar, lanes):
    vector_type = ir.VectorType(scalar.type, lanes)
    undefined = ir.Constant(vector_type, ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def _first(builder, count, lanes):
    """The mask of the first `count` lanes; `count` may be above the number of lanes."""
    limit = ir.Constant(count.type, lanes)
    count = builder.trunc(builder.select(builder.icmp_signed("<", count, limit), count, limit), I32)
    return builder.icmp_signed("<", ir.Constant(ir.VectorType(I32, lanes), list(range(lanes))), _splat(builder, count, lanes))


def _pointer(context, builder, array_type, array, index, lanes):
    data = context.make_array(array_type)(context, builder, array).data
    pointer = builder.gep(data, [index])
    return builder.bitcast(pointer, ir.VectorType(pointer.type.pointee, lanes).as_pointer())


def _masked_load(context, builder, array_type, array, index, count, fill):
    lanes = fill.type.count
    pointer = _pointer(context, builder, array_type, array, index, lanes)
    align = ir.Constant(I32, array_type.dtype.bitwidth // 8)
    return _call(builder, f"llvm.masked.load.{_suffix(fill.type)}.p0", fill.type, [pointer, align, _first(builder, count, lanes), fill])


def _as_vector(context, builder, value, value_type, vector):
    """A vector, or a scalar in all lanes."""
    if isinstance(value_type, VectorType):
        return value
    return _splat(builder, context.cast(builder, value, value_type, vector.dtype), vector.lanes)


# --- memory --------------------------------------------------------------------------------------------------------------


@intrinsic
def lanes(typingctx, array):
    """How many elements of the float array's dtype a vector holds."""
    count = _float_vector(array).lanes

    def codegen(context, builder, sig, args):
        return ir.Constant(ir.IntType(64), count)

    return types.int64(array), codegen


@intrinsic
def load(typingctx, array, index, count):
    """array[index : index + count] of a flat float array; lanes from `count` on are 0."""
    vector = _float_vector(array)

    def codegen(context, builder, sig, args):
        return _masked_load(context, builder, array, *args, ir.Constant(_llvm_type(vector), None))

    return vector(array, types.int64, types.int64), codegen


@intrinsic
def load_or(typingctx, array, index, count, fill):
    """As `load`, with lanes from `count` on set to the number `fill`."""
    vector = _float_vector(array)

    def codegen(context, builder, sig, args):
        return _masked_load(context, builder, array, *args[:3], _splat(builder, args[3], vector.lanes))

    return vector(array, types.int64, types.int64, vector.dtype), codegen


@intrinsic
def load_unsigned(typingctx, array, index, count, like):
    """array[index : index + count] of a flat array of unsigned integers or int32, as the int vector that belongs to `like`."""
    vector = VectorType(types.int32, like.lanes)

    def codegen(context, builder, sig, args):
        zero = ir.Constant(ir.VectorType(ir.IntType(array.dtype.bitwidth), like.lanes), None)
        value = _masked_load(context, builder, array, *args[:3], zero)
        return value if array.dtype.bitwidth == 32 else builder.zext(value, _llvm_type(vector))

    return vector(array, types.int64, types.int64, like), codegen


@intrinsic
def store(typingctx, array, index, value, count):
    """Write the first `count` lanes to array[index : index + count]; an int vector is cut to the array's unsigned dtype."""

    def codegen(context, builder, sig, args):
        target, index, result, count = args
        element = ir.VectorType(context.get_data_type(array.dtype), value.lanes)
        if result.type != element:
            result = builder.trunc(result, element)
        pointer = _pointer(context, builder, array, target, index, value.lanes)
        align = ir.Constant(I32, array.dtype.bitwidth // 8)
        mask = _first(builder, count, value.lanes)
        _call(builder, f"llvm.masked.store.{_suffix(element)}.p0", ir.VoidType(), [result, pointer, align, mask])
        return context.get_dummy_value()

    return types.void(array, types.int64, value, types.int64), codegen


@intrinsic
def splat(typingctx, like, number):
    """The number in every lane of a float vector of the dtype of `like`, an array or a vector."""
    vector = _float_vector(like)

    def codegen(context, builder, sig, args):
        return _splat(builder, args[1], vector.lanes)

    return vector(like, vector.dtype), codegen


@intrinsic
def splat_int(typingctx, like, number):
    """The integer in every lane of the int vector that belongs to the float vector `like`."""

    def codegen(context, builder, sig, args):
        return _splat(builder, args[1], like.lanes)

    return VectorType(types.int32, like.lanes)(like, types.int32), codegen


# --- lane by lane --------------------------------------------------------------------------------------------------------


@intrinsic
def select(typingctx, mask, a, b):
    """a where `mask`, else b; either may be a number."""
    vector = a if isinstance(a, VectorType) else b

    def codegen(context, builder, sig, args):
        a_vector, b_vector = (_as_vector(context, builder, v, t, vector) for v, t in zip(args[1:], sig.args[1:], strict=True))
        return builder.select(args[0], a_vector, b_vector)

    return vector(mask, a, b), codegen


@intrinsic
def fma(typingctx, a, b, c):
    """a*b + c, rounded once where the processor can; any of them may be a number."""
    vector = next(v for v in (a, b, c) if isinstance(v, VectorType))

    def codegen(context, builder, sig, args):
        vectors = [_as_vector(context, builder, v, t, vector) for v, t in zip(args, sig.args, strict=True)]
        return _call(builder, f"llvm.fmuladd.{_suffix(vectors[0].type)}", vectors[0].type, vectors)

    return vector(a, b, c), codegen


def _unary(name):
    """An intrinsic of one float vector, LLVM's of the same name. LLVM calls the C library lane by lane where it has to."""

    def typer(typingctx, v):
        def codegen(context, builder, sig, args):
            return _call(builder, f"llvm.{name}.{_suffix(args[0].type)}", args[0].type, args)

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
            value = _call(builder, "erfc", ir.DoubleType(), [builder.extract_element(args[0], index)])
            result = builder.insert_element(result, value, index)
        return result

    return v(v), codegen


@intrinsic
def to_int(typingctx, v):
    """Float vector to int32, towards zero; the value must fit."""
    vector = VectorType(types.int32, v.lanes)

    def codegen(context, builder, sig, args):
        return builder.fptosi(args[0], _llvm_type(vector))

    return vector(v), codegen


@intrinsic
def to_float(typingctx, v):
    """int32 vector to float32."""
    vector = VectorType(types.float32, v.lanes)

    def codegen(context, builder, sig, args):
        return builder.sitofp(args[0], _llvm_type(vector))

    return vector(v), codegen


@intrinsic
def bits(typingctx, v):
    """The bit pattern of a float32 vector, as int32."""
    vector = VectorType(types.int32, v.lanes)

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], _llvm_type(vector))

    return vector(v), codegen


@intrinsic
def from_bits(typingctx, v):
    """The float32 vector of an int32 bit pattern."""
    vector = VectorType(types.float32, v.lanes)

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], _llvm_type(vector))

    return vector(v), codegen


@intrinsic
def within(typingctx, v, count):
    """The mask of the first `count` lanes."""

    def codegen(context, builder, sig, args):
        return _first(builder, args[1], v.lanes)

    return VectorType(types.boolean, v.lanes)(v, types.int64), codegen


# --- across lanes --------------------------------------------------------------------------------------------------------


@intrinsic
def count_lanes(typingctx, mask):
    """In how many lanes the mask is set."""

    def codegen(context, builder, sig, args):
        pattern = builder.bitcast(args[0], ir.IntType(mask.lanes))
        return builder.zext(builder.ctpop(pattern), ir.IntType(64))

    return types.int64(mask), codegen


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
    keep = builder.or_(builder.fcmp_unordered(">=", a, b), builder.fcmp_unordered("uno", a, a))
    b_is_nan = builder.fcmp_unordered("uno", b, b)
    return builder.select(b_is_nan, b, builder.select(keep, a, b))


sum_lanes = intrinsic(_reduce(lambda builder, a, b: builder.fadd(a, b)))
max_lanes = intrinsic(_reduce(_larger_or_nan))


# --- operators -----------------------------------------------------------------------------------------------------------

_FLOAT_OPERATORS = {operator.add: "fadd", operator.sub: "fsub", operator.mul: "fmul", operator.truediv: "fdiv"}
_INT_OPERATORS = {
    operator.add: "add",
    operator.sub: "sub",
    operator.and_: "and_",
    operator.or_: "or_",
    operator.lshift: "shl",
    operator.rshift: "ashr",
}
_COMPARISONS = {operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">=", operator.eq: "==", operator.ne: "!="}


def _operand_vector(args):
    """The vector type of a binary operation, None when there is none."""
    vectors = {a for a in args if isinstance(a, VectorType)}
    others = [a for a in args if not isinstance(a, VectorType)]
    if len(vectors) != 1 or not all(isinstance(a, types.Number) for a in others):
        return None
    return vectors.pop()


def _emit(builder, op, vector, a, b):
    if op in _COMPARISONS:
        if vector.dtype not in FLOATS:
            return builder.icmp_signed(_COMPARISONS[op], a, b)
        if op is operator.ne:
            return builder.fcmp_unordered("!=", a, b)
        return builder.fcmp_ordered(_COMPARISONS[op], a, b)
    names = _FLOAT_OPERATORS if vector.dtype in FLOATS else _INT_OPERATORS
    return getattr(builder, names[op])(a, b)


def _register(op):
    class Operator(AbstractTemplate):
        def generic(self, args, kws):
            vector = _operand_vector(args)
            if vector is None or kws:
                return None
            if op in _COMPARISONS:
                return signature(VectorType(types.boolean, vector.lanes), *args)
            known = _FLOAT_OPERATORS if vector.dtype in FLOATS else _INT_OPERATORS
            return signature(vector, *args) if op in known else None

    infer_global(op)(Operator)

    def lower(context, builder, sig, args):
        vector = _operand_vector(sig.args)
        a, b = (_as_vector(context, builder, v, t, vector) for v, t in zip(args, sig.args, strict=True))
        return _emit(builder, op, vector, a, b)

    for operands in ((VectorType, VectorType), (VectorType, types.Number), (types.Number, VectorType)):
        lower_builtin(op, *operands)(lower)


for _op in {**_FLOAT_OPERATORS, **_INT_OPERATORS, **_COMPARISONS}:
    _register(_op)


# --- flat arrays ---------------------------------------------------------------------------------------------------------


@device
def blocks(array):
    """How many jobs share a flat array."""
    return (array.size + BLOCK - 1) // BLOCK


@device
def block(array, job):
    """(start, stop) of a job's part of a flat array."""
    return job * BLOCK, min((job + 1) * BLOCK, array.size)
