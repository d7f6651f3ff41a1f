"""The Numba type of SIMD vectors, and their arithmetic and comparison operators."""

import operator

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model

from fastconv.kernels.processor import VECTOR_BYTES

I1, I32 = ir.IntType(1), ir.IntType(32)


class VectorType(types.Type):
    """The Numba type of `lanes` elements of `dtype`: a float type, int32, or boolean for masks."""

    def __init__(self, dtype, lanes):
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"vector({dtype} x {lanes})")


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, llvm_type(vector))


def llvm_type(vector):
    if vector.dtype == types.boolean:
        element = I1
    elif isinstance(vector.dtype, types.Integer):
        element = ir.IntType(vector.dtype.bitwidth)
    else:
        element = ir.FloatType() if vector.dtype == types.float32 else ir.DoubleType()
    return ir.VectorType(element, vector.lanes)


def float_vector(source):
    """The float vector type that belongs to an array of floats or to a vector."""
    if isinstance(source, VectorType):
        return source
    return VectorType(source.dtype, VECTOR_BYTES // (source.dtype.bitwidth // 8))


FLOATS = (types.float32, types.float64)


# --- code generation -----------------------------------------------------------------------------------------------------


def call(builder, name, result, arguments):
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, [a.type for a in arguments]), name)
    return builder.call(function, arguments)


def suffix(llvm_type):
    """The part of an intrinsic's name that says its vector type: v16f32."""
    element = llvm_type.element
    bits = {"float": "f32", "double": "f64"}.get(str(element)) or str(element)
    return f"v{llvm_type.count}{bits}"


def splat_lanes(builder, scalar, lanes):
    vector_type = ir.VectorType(scalar.type, lanes)
    undefined = ir.Constant(vector_type, ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def first_lanes(builder, count, lanes):
    """The mask of the first `count` lanes; `count` may be above the number of lanes."""
    limit = ir.Constant(count.type, lanes)
    count = builder.trunc(builder.select(builder.icmp_signed("<", count, limit), count, limit), I32)
    return builder.icmp_signed("<", ir.Constant(ir.VectorType(I32, lanes), list(range(lanes))), splat_lanes(builder, count, lanes))


def as_vector(context, builder, value, value_type, vector):
    """A vector, or a scalar in all lanes."""
    if isinstance(value_type, VectorType):
        return value
    return splat_lanes(builder, context.cast(builder, value, value_type, vector.dtype), vector.lanes)


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
        a, b = (as_vector(context, builder, v, t, vector) for v, t in zip(args, sig.args, strict=True))
        return _emit(builder, op, vector, a, b)

    for operands in ((VectorType, VectorType), (VectorType, types.Number), (types.Number, VectorType)):
        lower_builtin(op, *operands)(lower)


for _op in {**_FLOAT_OPERATORS, **_INT_OPERATORS, **_COMPARISONS}:
    _register(_op)


def prefetch_line(builder, pointer, to_write=0, into=3):
    """Emit a request for the line of memory at the pointer, with `to_write` 1 one that takes it from all other processors; `into` 3 brings
    it into all caches, 2 into all but the first."""
    pointer = builder.bitcast(pointer, ir.IntType(8).as_pointer())
    intent, caches, data = ir.Constant(I32, to_write), ir.Constant(I32, into), ir.Constant(I32, 1)
    call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, intent, caches, data])
