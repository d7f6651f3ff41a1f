"""Memory asked for before it is read."""

from numba.core import types
from numba.extending import intrinsic

from fastconv.kernels.simd import element_pointer
from fastconv.kernels.vector_type import prefetch_line


@intrinsic
def prefetch(typingctx, array, index):
    """Ask for the line of array[index], which will be read; an index outside of the array does no harm."""

    def codegen(context, builder, signature, args):
        prefetch_line(builder, element_pointer(context, builder, signature, args, 0))
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen
