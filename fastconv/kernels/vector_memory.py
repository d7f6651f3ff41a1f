"""Vectors from and to memory: `load`, `store`, and what copies and clears with them; `kernels.vector` says what a vector is."""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from fastconv.kernels.jit import device
from fastconv.kernels.partial import load_first, store_first
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_type import VectorType, float_vector, llvm_type, splat_lanes


def _element(context, builder, array_type, array, index):
    """Pointer to an element of a flat array, or of what a pointer points to."""
    data = array if isinstance(array_type, types.CPointer) else context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def vector_pointer(context, builder, array_type, array, index, lanes):
    pointer = _element(context, builder, array_type, array, index)
    return builder.bitcast(pointer, ir.VectorType(pointer.type.pointee, lanes).as_pointer())


def _load(context, builder, array_type, array, index, count, fill):
    pointer = vector_pointer(context, builder, array_type, array, index, fill.type.count)
    return load_first(builder, pointer, count, fill, array_type.dtype.bitwidth // 8)


@intrinsic
def flat(typingctx, array):
    """The numbers of a C-contiguous array as a flat array, which does not own them: it must not outlive the array.

    `ravel` does the same, but counts references and takes long to compile: without it LeNet-5's kernels compile a second sooner.
    """
    if not isinstance(array, types.Array) or array.layout != "C":
        return None
    result = types.Array(array.dtype, 1, "C", readonly=not array.mutable, aligned=array.aligned)

    def codegen(context, builder, sig, args):
        source = context.make_array(array)(context, builder, args[0])
        target = context.make_array(result)(context, builder)
        populate_array(target, source.data, [source.nitems], [source.itemsize], source.itemsize, None)
        return target._getvalue()

    return result(array), codegen


@intrinsic
def pointer(typingctx, array, index):
    """A pointer to array[index], which does not keep the array, for where it depends on something which array it is, or whether it is used:
    Numba would count references each time one is passed on."""

    def codegen(context, builder, sig, args):
        return _element(context, builder, array, *args)

    return types.CPointer(array.dtype)(array, types.int64), codegen


@intrinsic
def pointer_to(typingctx, like, address):
    """A pointer to numbers of the dtype of the array `like`, from their address."""

    def codegen(context, builder, sig, args):
        return builder.inttoptr(args[1], context.get_data_type(like.dtype).as_pointer())

    return types.CPointer(like.dtype)(like, types.int64), codegen


@intrinsic
def opaque(typingctx, index):
    """The same integer, of which LLVM knows nothing: it would compute all addresses that follow from it before a loop, and spill them."""

    def codegen(context, builder, sig, args):
        function_type = ir.FunctionType(args[0].type, [args[0].type])
        return builder.call(ir.InlineAsm(function_type, "", "=r,0"), args)

    return types.int64(types.int64), codegen


@intrinsic
def load(typingctx, array, index, count):
    """array[index : index + count] of a flat float array; lanes from `count` on are 0."""
    vector = float_vector(array)

    def codegen(context, builder, sig, args):
        return _load(context, builder, array, *args, ir.Constant(llvm_type(vector), None))

    return vector(array, types.int64, types.int64), codegen


@intrinsic
def load_inside(typingctx, array, index, count, inside, outside):
    """As `load` where `inside` is true; where it is not, as load(outside, 0, count), and `index` may be anywhere."""
    vector = float_vector(array)

    def codegen(context, builder, sig, args):
        data, index, count, inside, zeros = args
        there = vector_pointer(context, builder, array, data, index, vector.lanes)
        nowhere = vector_pointer(context, builder, outside, zeros, ir.Constant(index.type, 0), vector.lanes)
        fill = ir.Constant(llvm_type(vector), None)
        return load_first(builder, builder.select(inside, there, nowhere), count, fill, array.dtype.bitwidth // 8)

    return vector(array, types.int64, types.int64, types.boolean, outside), codegen


@intrinsic
def load_or(typingctx, array, index, count, fill):
    """As `load`, with lanes from `count` on set to the number `fill`."""
    vector = float_vector(array)

    def codegen(context, builder, sig, args):
        return _load(context, builder, array, *args[:3], splat_lanes(builder, args[3], vector.lanes))

    return vector(array, types.int64, types.int64, vector.dtype), codegen


@intrinsic
def load_unsigned(typingctx, array, index, count, like):
    """array[index : index + count] of a flat array of unsigned integers or int32, as the int vector that belongs to `like`."""
    vector = VectorType(types.int32, like.lanes)

    def codegen(context, builder, sig, args):
        zero = ir.Constant(ir.VectorType(ir.IntType(array.dtype.bitwidth), like.lanes), None)
        value = _load(context, builder, array, *args[:3], zero)
        return value if array.dtype.bitwidth == 32 else builder.zext(value, llvm_type(vector))

    return vector(array, types.int64, types.int64, like), codegen


@intrinsic
def store(typingctx, array, index, value, count):
    """Write the first `count` lanes to array[index : index + count]; an int vector is cut to the array's unsigned dtype."""

    def codegen(context, builder, sig, args):
        target, index, result, count = args
        element = ir.VectorType(context.get_data_type(array.dtype), value.lanes)
        if result.type != element:
            result = builder.trunc(result, element)
        pointer = vector_pointer(context, builder, array, target, index, value.lanes)
        store_first(builder, [result], [pointer], count, array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, value, types.int64), codegen


@intrinsic
def zero(typingctx, array, start, count):
    """array[start : start + count] = 0 of a flat array; nothing for a count of 0 or less.

    A loop that does it may become scattered stores, as LLVM does not know that indices are not negative: ten times slower.
    """

    def codegen(context, builder, sig, args):
        target, start, count = args
        none = ir.Constant(count.type, 0)
        count = builder.select(builder.icmp_signed("<", count, none), none, count)
        pointer = _element(context, builder, array, target, start)
        cgutils.memset(builder, pointer, builder.mul(count, ir.Constant(count.type, array.dtype.bitwidth // 8)), 0)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), codegen


@intrinsic
def _store_past_caches(typingctx, array, index):
    """A vector of zeros to array[index], where a vector must be aligned, past the caches."""
    vector = float_vector(array)

    def codegen(context, builder, sig, args):
        pointer = vector_pointer(context, builder, array, *args, vector.lanes)
        size = vector.lanes * array.dtype.bitwidth // 8
        instruction = builder.store(ir.Constant(llvm_type(vector), None), pointer, align=size)
        instruction.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


@intrinsic
def fence(typingctx):
    """Whatever is written before it is seen by all before what is written after it, also what went past the caches."""

    def codegen(context, builder, sig, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


@device
def zero_past_caches(array, start, count):
    """As `zero`, of whole aligned vectors, past the caches: lines are not fetched first, and not kept. A `fence` must follow.

    What `count` does not fill of the last vector is set to 0 too.
    """
    for i in range(start, start + count, lanes(array)):
        _store_past_caches(array, i)


@device
def copy(source, s, target, t, count):
    """target[t : t + count] = source[s : s + count] of flat float arrays; only the end can be a partial vector."""
    size, first, into = lanes(source), pointer(source, s), pointer(target, t)  # no references are counted
    for i in range(0, count - size + 1, size):
        store(into, i, load(first, i, size), size)
    rest = count % size
    if rest > 0:
        store(into, count - rest, load(first, count - rest, rest), rest)
