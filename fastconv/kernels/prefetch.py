"""Memory asked for before it is read."""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastconv.kernels.simd import element_pointer
from fastconv.kernels.vector_type import I32, call


@intrinsic
def prefetch(typingctx, array, index):
    """Ask for the line of array[index], which will be read; an index outside of the array does no harm."""

    def codegen(context, builder, signature, args):
        pointer = builder.bitcast(element_pointer(context, builder, signature, args, 0), ir.IntType(8).as_pointer())
        read, all_caches, data = ir.Constant(I32, 0), ir.Constant(I32, 3), ir.Constant(I32, 1)
        call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, read, all_caches, data])
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen
