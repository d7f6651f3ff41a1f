"""Transposing small blocks in registers: rows of a vector's length that exchange their parts."""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastconv.kernels.vector import masked_load, vector_pointer
from fastconv.kernels.vector_type import I32, call, first_lanes, float_vector, llvm_type, suffix


@intrinsic
def transpose(typingctx, X, x, x_stride, rows, cols, Y, y, y_stride, width):
    """Y[y + j*y_stride + i] = X[x + i*x_stride + j] for i < rows and j < cols, both at most a vector's lanes; 0 for rows <= i < width.

    In registers: log2(lanes) rounds in which rows that lie 1, 2, 4, ... apart exchange halves.
    """
    count = float_vector(X).lanes

    def codegen(context, builder, sig, args):
        source, x, x_stride, rows, cols, target, y, y_stride, width = args
        nothing, zero = ir.Constant(ir.IntType(64), 0), ir.Constant(llvm_type(float_vector(X)), None)

        def place(start, stride, i):
            return builder.add(start, builder.mul(stride, ir.Constant(ir.IntType(64), i)))

        def present(i, limit, own):
            return builder.select(builder.icmp_signed("<", ir.Constant(ir.IntType(64), i), limit), own, nothing)

        values = [masked_load(context, builder, X, source, place(x, x_stride, i), present(i, rows, cols), zero) for i in range(count)]
        distance = 1
        while distance < count:
            first = [lane if not lane & distance else count + lane - distance for lane in range(count)]
            second = [lane + distance if not lane & distance else count + lane for lane in range(count)]
            masks = [ir.Constant(ir.VectorType(I32, count), mask) for mask in (first, second)]
            for i in range(count):
                if not i & distance:
                    a, b = values[i], values[i + distance]
                    values[i], values[i + distance] = (builder.shuffle_vector(a, b, mask) for mask in masks)
            distance *= 2
        for j, value in enumerate(values):
            pointer = vector_pointer(context, builder, Y, target, place(y, y_stride, j), count)
            mask = first_lanes(builder, present(j, cols, width), count)
            align = ir.Constant(I32, Y.dtype.bitwidth // 8)
            call(builder, f"llvm.masked.store.{suffix(value.type)}.p0", ir.VoidType(), [value, pointer, align, mask])
        return context.get_dummy_value()

    n = types.int64
    return types.void(X, n, n, n, n, Y, n, n, n), codegen
