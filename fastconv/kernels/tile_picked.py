"""The register tile of sums whose terms are picked from a list: the gradients behind maxima, most of which are zero."""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastconv.kernels.processor import VECTOR_REGISTERS
from fastconv.kernels.simd import I64, Vector, element_pointer, rolled_loop, switch

PICK_ROWS = 7
PICK_VECTORS = 4 if VECTOR_REGISTERS == 32 else 2
"""The largest tile of `tile_picked`: 7 x 4 sums and a broadcast in 32 registers, 7 x 2 in 16."""

FEW_SUMS = 4
"""Up to so many sums wait for themselves: each is two then, of the even and of the odd terms. More sums wait for what they load."""


@intrinsic(prefer_literal=True)
def tile_picked(typingctx, rows, NV, HALF, values, picks, step, count, B, b, bm, C, c, cm):
    """C[m, n] += sum over k < count of values[k*step] * B[picks[k*step]; m, n], for m < rows and n < NV vectors of lanes.

    Vector (m, n) of pick p starts at B[b + p + m*bm + n*lanes], that of C at C[c + m*cm + n*lanes]; arrays are pointers here.
    With HALF, vectors are half as long. NV and HALF are integer literals, 1 <= rows <= PICK_ROWS, 1 <= NV <= PICK_VECTORS.
    """
    if not all(isinstance(literal, types.IntegerLiteral) for literal in (NV, HALF)):
        return None
    vectors, half = NV.literal_value, HALF.literal_value
    n = types.intp
    signature = types.void(n, NV, HALF, values, picks, n, n, B, n, n, C, n, n)

    def codegen(context, builder, signature, args):
        rows, _, _, values, picks, step, count, _, _, bm, _, _, cm = args
        b, c = (element_pointer(context, builder, signature, args, k) for k in (7, 10))
        v = Vector(builder, B.dtype, half)

        def vector(pointer, stride, m, n):
            row = builder.gep(pointer, [builder.mul(stride, ir.Constant(I64, m))])
            return builder.gep(row, [ir.Constant(I64, n * v.lanes)])

        def add(k, sums):
            term = builder.mul(k, step)
            x = v.broadcast(builder.gep(values, [term]))
            pick = builder.sext(builder.load(builder.gep(picks, [term])), I64)
            for (m, n), total in sums.items():
                b_vector = v.load(builder.gep(vector(b, bm, m, n), [pick]))
                builder.store(v.fma(x, b_vector, builder.load(total)), total)

        def emit(height):
            cells = [(m, n) for m in range(height) for n in range(vectors)]
            # LLVM promotes these to registers
            sums, odd = ({cell: cgutils.alloca_once(builder, v.type) for cell in cells} for _ in range(2))
            for cell in cells:
                builder.store(v.load(vector(c, cm, *cell)), sums[cell])
            first = ir.Constant(I64, 0)
            if len(cells) <= FEW_SUMS:
                for cell in cells:
                    builder.store(ir.Constant(v.type, None), odd[cell])
                two = ir.Constant(I64, 2)
                pairs = builder.sdiv(count, two)
                with rolled_loop(builder, pairs) as k:
                    even = builder.mul(k, two)
                    add(even, sums)
                    add(builder.add(even, ir.Constant(I64, 1)), odd)
                for cell in cells:
                    builder.store(builder.fadd(builder.load(sums[cell]), builder.load(odd[cell])), sums[cell])
                first = builder.mul(pairs, two)
            with rolled_loop(builder, builder.sub(count, first)) as k:
                add(builder.add(first, k), sums)
            v.store([builder.load(sums[cell]) for cell in cells], [vector(c, cm, *cell) for cell in cells])

        switch(builder, rows, PICK_ROWS, emit)
        return context.get_dummy_value()

    return signature, codegen
