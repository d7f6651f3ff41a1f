"""Transposing small blocks in registers: rows of a vector's length that exchange their parts."""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastconv.kernels.apart import Apart
from fastconv.kernels.partial import load_first, store_first
from fastconv.kernels.tiles import call_apart
from fastconv.kernels.vector_memory import vector_pointer
from fastconv.kernels.vector_type import I32, float_vector, llvm_type


@intrinsic
def transpose_block(typingctx, X, x, x_stride, rows, cols, Y, y, y_stride, width):
    """As `transpose`, of pointers: compiled once, since its two bodies of a hundred instructions would be in a dozen kernels."""
    lanes = float_vector(X).lanes

    def codegen(context, builder, sig, args):
        source, x, x_stride, rows, cols, target, y, y_stride, width = args
        zero = ir.Constant(llvm_type(float_vector(X)), None)

        def place(start, stride, i):
            return builder.add(start, builder.mul(stride, _integer(i)))

        def present(i, limit, own):
            return builder.select(builder.icmp_signed("<", _integer(i), limit), own, _integer(0))

        def emit(whole):
            """The block, without asking for each vector where it is a `whole` one."""
            size = X.dtype.bitwidth // 8
            sources = [vector_pointer(context, builder, X, source, place(x, x_stride, i), lanes) for i in range(lanes)]
            targets = [vector_pointer(context, builder, Y, target, place(y, y_stride, j), lanes) for j in range(lanes)]
            if whole:
                values = [builder.load(pointer, align=size) for pointer in sources]
            else:
                values = [load_first(builder, pointer, present(i, rows, cols), zero, size) for i, pointer in enumerate(sources)]
            for pointer, value, j in zip(targets, _transposed(builder, values), range(lanes), strict=True):
                if whole:
                    builder.store(value, pointer, align=size)
                else:
                    store_first(builder, [value], [pointer], present(j, cols, width), size)

        whole = builder.and_(*(builder.icmp_signed(">=", extent, _integer(lanes)) for extent in (rows, cols)))
        whole = builder.and_(whole, builder.icmp_signed(">=", width, _integer(lanes)))
        with builder.if_else(whole) as (then, otherwise):
            with then:
                emit(True)
            with otherwise:
                emit(False)
        return context.get_dummy_value()

    n = types.int64
    return types.void(X, n, n, n, n, Y, n, n, n), codegen


def _transpose(X, x_stride, rows, cols, Y, y_stride, width):
    transpose_block(X, 0, x_stride, rows, cols, Y, 0, y_stride, width)


TRANSPOSE = Apart(_transpose, "piiipii")


@intrinsic
def transpose(typingctx, X, x, x_stride, rows, cols, Y, y, y_stride, width):
    """Y[y + j*y_stride + i] = X[x + i*x_stride + j] for i < rows and j < cols, both at most a vector's lanes; 0 for rows <= i < width."""
    n = types.intp
    return call_apart(TRANSPOSE, (X, n, n, n, n, Y, n, n, n), X)


def _integer(value):
    return ir.Constant(ir.IntType(64), value)


def _transposed(builder, values):
    """As many vectors as they have lanes, transposed: in rounds in which vectors 1, 2, 4, ... apart exchange halves."""
    count, distance = len(values), 1
    while distance < count:
        first = [lane if not lane & distance else count + lane - distance for lane in range(count)]
        second = [lane + distance if not lane & distance else count + lane for lane in range(count)]
        masks = [ir.Constant(ir.VectorType(I32, count), mask) for mask in (first, second)]
        for i in range(count):
            if not i & distance:
                a, b = values[i], values[i + distance]
                values[i], values[i + distance] = (builder.shuffle_vector(a, b, mask) for mask in masks)
        distance *= 2
    return values
