"""The vector vocabulary: LLVM vector instructions as Numba intrinsics, and the register tile built from them.

`tile` computes a small block of a matrix product whose accumulators all stay in vector registers; the idea is the batch-reduce
product of Georganas et al. 2019 (arXiv 1906.06440, section 2), with the batch given by strides instead of pointers.
"""

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, config, types
from numba.extending import intrinsic

I32, I64 = ir.IntType(32), ir.IntType(64)


def _vector_shape():
    """(bytes of a vector, number of vector registers) of the processor that code is generated for."""
    if config.CPU_NAME and config.CPU_NAME not in ("host", llvm.get_host_cpu_name()):
        wide = {"skylake-avx512", "cascadelake", "icelake-server", "sapphirerapids", "x86-64-v4", "znver4", "znver5"}
        features = {"avx512f": config.CPU_NAME in wide}
    else:
        features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 32
    if llvm.get_process_triple().startswith(("aarch64", "arm64")):
        return 16, 32
    return 32, 16


VECTOR_BYTES, VECTOR_REGISTERS = _vector_shape()


class Vector:
    """LLVM types and operations of one vector shape: `lanes` elements of a Numba float type."""

    def __init__(self, builder, dtype):
        self.builder = builder
        self.size = dtype.bitwidth // 8
        self.lanes = VECTOR_BYTES // self.size
        self.element = ir.FloatType() if self.size == 4 else ir.DoubleType()
        self.type = ir.VectorType(self.element, self.lanes)
        self.mask_type = ir.VectorType(ir.IntType(1), self.lanes)
        self.name = f"v{self.lanes}f{self.size * 8}"
        self.zero = ir.Constant(self.type, [0.0] * self.lanes)

    def _call(self, name, result, arguments):
        function = cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(result, [a.type for a in arguments]), name)
        return self.builder.call(function, arguments)

    def _splat(self, scalar):
        vector_type = ir.VectorType(scalar.type, self.lanes)
        undefined = ir.Constant(vector_type, ir.Undefined)
        one = self.builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
        return self.builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes))

    def broadcast(self, pointer):
        return self._splat(self.builder.load(pointer))

    def fma(self, a, b, c):
        # fmuladd, not fma: on a target without FMA, fma becomes one libm call per lane (100 times slower)
        return self._call(f"llvm.fmuladd.{self.name}", self.type, [a, b, c])

    def mask(self, count):
        """The first `count` lanes."""
        lane = ir.Constant(ir.VectorType(I64, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed("<", lane, self._splat(count))

    def load(self, pointer, mask=None):
        pointer = self.builder.bitcast(pointer, self.type.as_pointer())
        if mask is None:
            return self.builder.load(pointer, align=self.size)
        return self._call(f"llvm.masked.load.{self.name}.p0", self.type, [pointer, ir.Constant(I32, self.size), mask, self.zero])

    def store(self, value, pointer, mask=None):
        pointer = self.builder.bitcast(pointer, self.type.as_pointer())
        if mask is None:
            self.builder.store(value, pointer, align=self.size)
        else:
            self._call(f"llvm.masked.store.{self.name}.p0", ir.VoidType(), [value, pointer, ir.Constant(I32, self.size), mask])


def _pointer(context, builder, signature, args, i):
    """Pointer to element args[i + 1] of the flat array args[i]."""
    array = context.make_array(signature.args[i])(context, builder, args[i])
    return builder.gep(array.data, [args[i + 1]])


@intrinsic(prefer_literal=True)
def tile(typingctx, MR, NV, MASKED, A, a, am, B, b, bn, C, c, cm, cn, cols, init, i, accumulate, over):
    """C[m, n] = start[m, n] + sum over (s, t, k) of A[m; s, t, k] * B[n; s, t, k], for m < MR rows and n < NV vectors of lanes.

    `over` = (S, as, bs, T, at, bt, K, ak, bk): three nested sums, each with its length and its strides in A and B.
    `start` is init[n] for every row, or C itself where `accumulate` is not 0. Element (m; s, t, k) of A is a scalar at
    A[a + m*am + s*as + t*at + k*ak]; vector (n; s, t, k) of B starts at B[b + n*bn + s*bs + t*bt + k*bk]; vector (m, n) of C at
    C[c + m*cm + n*cn]. With MASKED, the lanes from `cols` on are neither read nor written. MR, NV, MASKED are integer literals.
    """
    if not all(isinstance(v, types.IntegerLiteral) for v in (MR, NV, MASKED)):
        return None
    rows, vectors, masked = MR.literal_value, NV.literal_value, MASKED.literal_value
    signature = types.void(MR, NV, MASKED, A, types.intp, types.intp, B, types.intp, types.intp, C, *[types.intp] * 4,
                           init, types.intp, types.intp, types.UniTuple(types.intp, 9))

    def codegen(context, builder, signature, args):
        v = Vector(builder, A.dtype)
        pa, pb, pc, pi = (_pointer(context, builder, signature, args, k) for k in (3, 6, 9, 14))
        am, bn, cm, cn, cols, accumulate = args[5], args[8], args[11], args[12], args[13], args[16]
        S, a_s, b_s, T, a_t, b_t, K, a_k, b_k = cgutils.unpack_tuple(builder, args[17], 9)

        def at(pointer, stride, index):
            return builder.gep(pointer, [builder.mul(stride, ir.Constant(I64, index))])

        lanes = ir.Constant(I64, v.lanes)
        cells = [(m, n) for m in range(rows) for n in range(vectors)]
        masks = [v.mask(builder.sub(cols, builder.mul(lanes, ir.Constant(I64, n)))) if masked else None for n in range(vectors)]
        a_row = [builder.mul(am, ir.Constant(I64, m)) for m in range(rows)]
        b_vector = [builder.mul(bn, ir.Constant(I64, n)) for n in range(vectors)]
        c_cell = {(m, n): at(at(pc, cm, m), cn, n) for m, n in cells}
        sums = {cell: cgutils.alloca_once(builder, v.type) for cell in cells}  # LLVM promotes these to registers

        with builder.if_else(builder.icmp_signed("!=", accumulate, ir.Constant(I64, 0))) as (then, otherwise):
            with then:
                for m, n in cells:
                    builder.store(v.load(c_cell[m, n], masks[n]), sums[m, n])
            with otherwise:
                for n in range(vectors):
                    start = v.load(at(pi, lanes, n), masks[n])
                    for m in range(rows):
                        builder.store(start, sums[m, n])

        with cgutils.for_range(builder, S) as s, cgutils.for_range(builder, T) as t:
            a_next = cgutils.alloca_once(builder, pa.type)
            b_next = cgutils.alloca_once(builder, pb.type)
            builder.store(builder.gep(pa, [builder.add(builder.mul(s.index, a_s), builder.mul(t.index, a_t))]), a_next)
            builder.store(builder.gep(pb, [builder.add(builder.mul(s.index, b_s), builder.mul(t.index, b_t))]), b_next)
            with cgutils.for_range(builder, K):
                a_here, b_here = builder.load(a_next), builder.load(b_next)
                columns = [v.load(builder.gep(b_here, [b_vector[n]]), masks[n]) for n in range(vectors)]
                for m in range(rows):
                    x = v.broadcast(builder.gep(a_here, [a_row[m]]))
                    for n in range(vectors):
                        builder.store(v.fma(x, columns[n], builder.load(sums[m, n])), sums[m, n])
                builder.store(builder.gep(a_here, [a_k]), a_next)
                builder.store(builder.gep(b_here, [b_k]), b_next)

        for m, n in cells:
            v.store(builder.load(sums[m, n]), c_cell[m, n], masks[n])
        return context.get_dummy_value()

    return signature, codegen
