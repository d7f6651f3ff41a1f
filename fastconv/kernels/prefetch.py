"""Memory asked for before it is read or written."""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastconv.kernels.jit import device
from fastconv.kernels.simd import I64, element_pointer, rolled_loop
from fastconv.kernels.vector_type import prefetch_line


@intrinsic
def prefetch(typingctx, array, index):
    """Ask for the line of array[index], which will be read or written; an index outside of the array does no harm."""

    def codegen(context, builder, signature, args):
        prefetch_line(builder, element_pointer(context, builder, signature, args, 0))
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


@intrinsic
def prefetch_to_write(typingctx, array, index):
    """`prefetch` of a line that will be written: stores then need not wait until other processors have given it up."""

    def codegen(context, builder, signature, args):
        prefetch_line(builder, element_pointer(context, builder, signature, args, 0), 1)
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


@intrinsic
def elements_between(typingctx, x, i, y, j):
    """How many elements y[j] lies behind x[i], of arrays or pointers of one dtype: a tile that moves along x may ask for memory of y."""

    def codegen(context, builder, signature, args):
        first, second = (builder.ptrtoint(element_pointer(context, builder, signature, args, k), I64) for k in (0, 2))
        return builder.sdiv(builder.sub(second, first), ir.Constant(I64, x.dtype.bitwidth // 8))

    return types.int64(x, types.int64, y, types.int64), codegen


@intrinsic
def prefetch_rows(typingctx, array, index, row, column, rows):
    """`prefetch` of two columns of `rows` rows, in a loop that is not unrolled: addresses on the stack would be in the way of results."""

    def codegen(context, builder, signature, args):
        data, index, row, column, rows = args
        with rolled_loop(builder, rows) as m:
            first = builder.add(index, builder.mul(m, row))
            for element in (first, builder.add(first, column)):
                prefetch_line(builder, element_pointer(context, builder, signature, (data, element), 0))
        return context.get_dummy_value()

    return types.void(array, *[types.int64] * 4), codegen


@device(forceinline=True)
def prefetch_four(array, index, step):
    """`prefetch` of four places `step` apart: what is read or written at several in turns, no processor foresees."""
    for k in range(4):
        prefetch(array, index + k * step)


@device(forceinline=True)
def prefetch_lines(array, first, last):
    """`prefetch` of array[first .. last]."""
    for index in range(first, last, 64 // array.itemsize):
        prefetch(array, index)
