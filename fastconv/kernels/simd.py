"""The vector vocabulary: LLVM vector instructions as Numba intrinsics, and the register tile built from them.

`tile` computes a small block of a matrix product whose accumulators all stay in vector registers; the idea is the batch-reduce
product of Georganas et al. 2019 (arXiv 1906.06440, section 2), with the batch given by strides instead of pointers.
"""

import contextlib

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastconv.kernels.partial import load_first, store_first
from fastconv.kernels.processor import VECTOR_BYTES, VECTOR_REGISTERS
from fastconv.kernels.vector_type import call, prefetch_line, splat_lanes, suffix

I64 = ir.IntType(64)


class Vector:
    """LLVM types and operations of one vector shape: `lanes` elements of a float type, as many as VECTOR_BYTES hold or half of them."""

    def __init__(self, builder, dtype, half=False):
        self.builder = builder
        self.size = dtype.bitwidth // 8
        self.lanes = VECTOR_BYTES // self.size // (2 if half else 1)
        self.element = ir.FloatType() if self.size == 4 else ir.DoubleType()
        self.type = ir.VectorType(self.element, self.lanes)
        self.zero = ir.Constant(self.type, None)

    def broadcast(self, pointer):
        return splat_lanes(self.builder, self.builder.load(pointer), self.lanes)

    def fma(self, a, b, c):
        # fmuladd, not fma: on a target without FMA, fma becomes one libm call per lane (100 times slower)
        return call(self.builder, f"llvm.fmuladd.{suffix(self.type)}", self.type, [a, b, c])

    def load(self, pointer, count=None):
        """The vector at the pointer: its first `count` lanes and zeros, or all."""
        pointer = self.builder.bitcast(pointer, self.type.as_pointer())
        if count is None:
            return self.builder.load(pointer, align=self.size)
        return load_first(self.builder, pointer, count, self.zero, self.size)

    def store(self, values, pointers, count=None):
        """Each value to its pointer: its first `count` lanes, or all."""
        pointers = [self.builder.bitcast(pointer, self.type.as_pointer()) for pointer in pointers]
        if count is None:
            for value, pointer in zip(values, pointers, strict=True):
                self.builder.store(value, pointer, align=self.size)
        else:
            store_first(self.builder, values, pointers, count, self.size)


def element_pointer(context, builder, signature, args, i):
    """Pointer to element args[i + 1] of args[i], a flat array or a pointer to elements."""
    if isinstance(signature.args[i], types.CPointer):
        return builder.gep(args[i], [args[i + 1]])
    array = context.make_array(signature.args[i])(context, builder, args[i])
    return builder.gep(array.data, [args[i + 1]])


def flat_arguments(context, builder, signature, args):
    """Arguments as pointers and integers: each array, or pointer, and the offset after it become a pointer, tuples their elements."""
    arguments, skip = [], False
    for k, (value, kind) in enumerate(zip(args, signature.args, strict=True)):
        if skip:
            skip = False
        elif isinstance(kind, (types.Array, types.CPointer)):
            arguments.append(element_pointer(context, builder, signature, args, k))
            skip = True
        elif isinstance(kind, types.UniTuple):
            arguments += cgutils.unpack_tuple(builder, value)
        else:
            arguments.append(value)
    return arguments


@contextlib.contextmanager
def rolled_loop(builder, count):
    """A loop that LLVM must not unroll: by two, the sums of 8 or more rows no longer fit into registers (110 became 75 GFLOP/s)."""
    module = builder.module
    disable = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    identity = ir.MDValue(module, [disable], name=str(len(module.metadata)))
    identity.operands = (identity, disable)  # LLVM wants a loop's node to refer to itself
    index = cgutils.alloca_once_value(builder, ir.Constant(I64, 0))
    head, body, done = (builder.append_basic_block(f"rolled.{part}") for part in ("head", "body", "done"))
    builder.branch(head)
    builder.position_at_end(head)
    builder.cbranch(builder.icmp_signed("<", builder.load(index), count), body, done)
    builder.position_at_end(body)
    yield builder.load(index)
    builder.store(builder.add(builder.load(index), ir.Constant(I64, 1)), index)
    builder.branch(head).set_metadata("llvm.loop", identity)
    builder.position_at_end(done)


def moved(builder, pointer, *terms):
    """The pointer moved by a sum of stride * index."""
    for stride, index in terms:
        offset = builder.mul(stride, index if isinstance(index, ir.Value) else ir.Constant(I64, index))
        pointer = builder.gep(pointer, [offset])
    return pointer


def switch(builder, rows, most, emit, least=1):
    """Code for every number of rows, `least` to `most`, each emitted by `emit`, and a jump to that of `rows`."""
    done = builder.append_basic_block("tile.done")
    jump = builder.switch(rows, done)
    for count in range(least, most + 1):
        block = builder.append_basic_block(f"tile.{count}")
        jump.add_case(ir.Constant(I64, count), block)
        builder.position_at_end(block)
        emit(count)
        builder.branch(done)
    builder.position_at_end(done)


@intrinsic
def itemsize(typingctx, elements):
    """Bytes of an element of an array or of what a pointer points to."""
    size = elements.dtype.bitwidth // 8
    return types.intp(elements), lambda context, builder, signature, args: ir.Constant(I64, size)


MAX_ROWS = 14 if VECTOR_REGISTERS == 32 else 6
"""Rows of the tallest tile that is two vectors wide: 14 x 2 sums, 2 columns and a broadcast just fit into 32 registers."""


GROUP = 3
"""Rows of a tile that share a pointer: an address may be pointer + stride or pointer + 2 * stride without an addition before it."""


def unrolled(vector_bytes, vectors):
    """Steps of the innermost sum that are one of the loop where numbers of A lie next to each other: their addresses need no additions.

    NEON's registers do not suffice for that, though they are 32: LLVM loads too early.
    """
    return 2 * vectors if vector_bytes > 16 else 1


def steps_of_request(vector_bytes):
    """Steps for each of which a tile of two vectors asks for one line of memory.

    AVX2's low tiles take all instructions that are issued, one more in each step costs 4 %: they ask in every fourth only, where numbers
    of A lie next to each other. And they ask for the lines of C of the tile below instead of their own, before they begin: a first layer's
    64 channels of 27 numbers take a third less time.
    """
    return unrolled(vector_bytes, 2) if vector_bytes == 32 else 1


def spread(vector_bytes):
    """Whether tiles of two vectors ask for the lines of their results in the steps of their sum, as AVX-512's do: two in every other."""
    return steps_of_request(vector_bytes) == 1 and unrolled(vector_bytes, 2) > 1


REQUEST, SPREADS = steps_of_request(VECTOR_BYTES), spread(VECTOR_BYTES)
"""Those of this processor's whole vectors, and whether they do."""


def opaque(builder, value):
    """The same pointer or integer, of which LLVM knows nothing. It would compute a row's address from the row's before, one cycle each."""
    function_type = ir.FunctionType(value.type, [value.type])
    return builder.call(ir.InlineAsm(function_type, "", "=r,0"), [value])


class _Tile:
    """Emits the body of `tile` for one number of rows; with `elementwise`, A gives vectors too instead of broadcast scalars."""

    def __init__(self, builder, v, vectors, masked, pointers, first, strides, cols, accumulate, over, ahead=None, elementwise=False):
        self.builder, self.v, self.vectors, self.elementwise = builder, v, vectors, elementwise
        self.pa, self.pb, self.pc, self.pi = pointers
        self.first = first
        self.am, self.bn, self.cm, self.cn = strides
        self.accumulate, self.over = accumulate, over
        self.request = steps_of_request(v.lanes * v.size)
        self.ahead = ahead if vectors == 2 or (self.request == 1 and not masked) else None
        self.spreads = vectors == 2 and spread(v.lanes * v.size)
        self.count = cols if masked else None

    def at(self, pointer, *terms):
        return moved(self.builder, pointer, *terms)

    def anew(self, value):
        """The same integer, from which addresses are computed anew wherever they are needed.

        14 x 2 long vectors of results take 56 of the 64 places where stores wait in a Zen 4, and each address that was kept on the stack
        meanwhile cost 3 cycles. Shorter vectors take few; there it is faster to keep addresses.
        """
        return opaque(self.builder, value) if self.v.lanes * self.v.size == 64 else value

    def begin(self, pointer, row=None, column=None):
        """The pointer moved to the tile's first row and column, of these strides."""
        terms = [(stride, self.anew(first)) for stride, first in zip((row, column), self.first, strict=True) if stride]
        return self.at(pointer, *terms)

    def emit(self, rows):
        builder, v = self.builder, self.v
        cells = [(m, n) for m in range(rows) for n in range(self.vectors)]
        sums = {cell: cgutils.alloca_once(builder, v.type) for cell in cells}  # LLVM promotes these to registers
        self.emit_start(cells, sums)
        S, a_s, b_s, T, a_t, b_t, K, a_k, b_k = self.over
        wanted = cgutils.alloca_once_value(builder, self.at(self.begin(self.pa, self.am), (self.ahead[0], 1))) if self.ahead else None
        always = wanted if self.request == 1 else None
        result = None
        if self.spreads:
            corner, below = self.begin(self.pc, self.cm, self.cn), self.anew(self.ahead[2])
            result = cgutils.alloca_once_value(builder, self.at(corner, (below, rows))), self.at(corner, (below, 2 * rows - 1))
        with rolled_loop(builder, S) as s, rolled_loop(builder, T) as t:
            s = self.anew(s)
            a = self.at(self.begin(self.pa, self.am), (a_s, s), (a_t, t))
            pointers = [self.at(a, (self.am, m)) for m in range(0, rows, GROUP)]
            pointers.append(self.at(self.begin(self.pb, None, self.bn), (b_s, s), (b_t, t)))
            pointers = [cgutils.alloca_once_value(builder, pointer) for pointer in pointers]
            steps = unrolled(v.lanes * v.size, self.vectors)
            if self.count is None and steps > 1:  # ways to the same sums with fewer additions to addresses, where strides are 1
                zero, whole = ir.Constant(I64, 0), builder.sdiv(K, ir.Constant(I64, steps))
                in_a_row = builder.select(self.is_one(a_k), whole, zero)
                self.emit_steps(in_a_row, rows, pointers, sums, wanted, result, steps)
                adjacent = builder.select(self.is_one(a_k), zero, builder.select(self.is_one(self.am), whole, zero))
                self.emit_steps(adjacent, rows, [pointers[0], pointers[-1]], sums, wanted, result, steps, adjacent=True)
                for k, pointer in enumerate(pointers[1:-1], 1):
                    builder.store(self.at(builder.load(pointers[0]), (self.am, k * GROUP)), pointer)
                K = builder.sub(K, builder.mul(builder.add(in_a_row, adjacent), ir.Constant(I64, steps)))
            self.emit_steps(K, rows, pointers, sums, always)
        corner = self.begin(self.pc, self.cm, self.cn)
        results = [self.at(corner, (self.cm, m), (self.cn, n)) for m, n in cells]
        v.store([builder.load(sums[cell]) for cell in cells], results, self.count)

    def is_one(self, stride):
        return self.builder.icmp_signed("==", stride, ir.Constant(I64, 1))

    def emit_steps(self, count, rows, pointers, sums, wanted, result=None, steps=1, adjacent=False):
        """A loop of `count` times `steps` steps of the innermost sum. More than one need a_k = 1, or am = 1 and `adjacent`."""
        builder, v = self.builder, self.v
        _, _, _, _, _, _, _, a_k, b_k = self.over
        with rolled_loop(builder, count):
            *groups, b = [opaque(builder, builder.load(pointer)) for pointer in pointers]
            for step in range(steps):
                if wanted and step % self.request == 0:
                    line = builder.load(wanted)
                    prefetch_line(builder, line)
                    builder.store(builder.gep(line, [self.ahead[1]]), wanted)
                if result and step % 2:
                    place, last = result
                    row = builder.load(place)
                    for n in range(2):
                        prefetch_line(builder, self.at(row, (self.cn, n)))
                    below = builder.gep(row, [self.ahead[2]])
                    builder.store(builder.select(builder.icmp_unsigned("==", row, last), row, below), place)
                columns = [v.load(self.at(b, (self.bn, n)), self.count) for n in range(self.vectors)]
                for m in range(rows):
                    if adjacent:
                        a_row = builder.gep(groups[0], [ir.Constant(I64, m)])
                    else:
                        a_row = self.at(builder.gep(groups[m // GROUP], [ir.Constant(I64, step)]), (self.am, m % GROUP))
                    x = v.load(a_row, self.count) if self.elementwise else v.broadcast(a_row)
                    for n in range(self.vectors):
                        builder.store(v.fma(x, columns[n], builder.load(sums[m, n])), sums[m, n])
                b = opaque(builder, builder.gep(b, [b_k]))
                if adjacent:
                    groups = [opaque(builder, builder.gep(groups[0], [a_k]))]
            if not adjacent:
                groups = [builder.gep(group, [ir.Constant(I64, steps) if steps > 1 else a_k]) for group in groups]
            for pointer, value in zip(pointers, [*groups, b], strict=True):
                builder.store(value, pointer)

    def emit_start(self, cells, sums):
        builder, v = self.builder, self.v
        with builder.if_else(builder.icmp_signed("!=", self.accumulate, ir.Constant(I64, 0))) as (then, otherwise):
            with then:
                corner = self.begin(self.pc, self.cm, self.cn)
                for m, n in cells:
                    builder.store(v.load(self.at(corner, (self.cm, m), (self.cn, n)), self.count), sums[m, n])
            with otherwise:
                if self.vectors == 2 and self.request > 1:
                    corner = self.begin(self.pc, self.cm, self.cn)
                    for m in range(len(cells) // 2):  # both vectors of a row lie in one line, as a rule
                        prefetch_line(builder, self.at(corner, (self.cm, m + len(cells) // 2)))
                lanes = ir.Constant(I64, VECTOR_BYTES // v.size)  # also where vectors are half as long
                init = self.begin(self.pi, None, lanes)
                starts = [v.load(self.at(init, (lanes, n)), self.count) for n in range(self.vectors)]
                for m, n in cells:
                    builder.store(starts[n], sums[m, n])


@intrinsic(prefer_literal=True)
def tile(typingctx, rows, NV, HALF, MASKED, A, m0, am, B, v0, bn, C, cm, cn, cols, init, accumulate, over, ahead):
    """C[m, v] = start[m, v] + sum over (s, t, k) of A[m; s, t, k] * B[v; s, t, k], for `rows` m from m0 on and NV vectors v from v0 on.

    `over` = (S, as, bs, T, at, bt, K, ak, bk): three nested sums, each with its length and its strides in A and B.
    `start` is init[v] for every row, or C itself where `accumulate` is not 0. Element (m; s, t, k) of A is a scalar at
    A[m*am + s*as + t*at + k*ak]; vector (v; s, t, k) of B starts at B[v*bn + s*bs + t*bt + k*bk]; vector (m, v) of C at
    C[m*cm + v*cn]; init[v] at init[v*lanes], of whole vectors. With MASKED, the lanes from `cols` on are neither read nor written; with
    HALF, vectors are half as long. NV, HALF and MASKED are integer literals, NV is 1 with MASKED, 1 <= rows <= MAX_ROWS; arrays are
    pointers.

    With two vectors, and with a whole one where REQUEST is 1, each REQUEST of k also ask for a line of memory that will be read later: the
    n-th request, of all s and t, is for that of A[m0*am + distance + n*step], `ahead` = (distance, step, below). With SPREADS two
    vectors also ask, in every other step of four, for both vectors of one more row of C, those of the next tile if it is as high, which lie
    `below` = cm apart; with `below` = 0 for those of the tile's own first row.
    """
    if not all(isinstance(literal, types.IntegerLiteral) for literal in (NV, HALF, MASKED)):
        return None
    vectors, half, masked = NV.literal_value, HALF.literal_value, MASKED.literal_value
    n = types.intp
    signature = types.void(n, NV, HALF, MASKED, A, n, n, B, n, n, C, n, n, n, init, n, types.UniTuple(n, 9), types.UniTuple(n, 3))

    def codegen(context, builder, signature, args):
        rows, _, _, _, a, m0, am, b, v0, bn, c, cm, cn, cols, start, accumulate, over, ahead = args
        over, ahead = cgutils.unpack_tuple(builder, over, 9), cgutils.unpack_tuple(builder, ahead, 3)
        v, strides = Vector(builder, A.dtype, half), (am, bn, cm, cn)
        body = _Tile(builder, v, vectors, masked, (a, b, c, start), (m0, v0), strides, cols, accumulate, over, ahead)
        switch(builder, rows, MAX_ROWS, body.emit)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def tile_elementwise(typingctx, rows, MASKED, A, m0, am, B, C, cm, cols, init, accumulate, over):
    """C[m] = start[m] + sum over (s, t, k) of A[m; s, t, k] * B[s, t, k], all of them vectors of lanes, for `rows` m from m0 on.

    As `tile` with one vector of columns, but element (m; s, t, k) of A is the vector that starts at A[m*am + s*as + t*at + k*ak].
    """
    if not isinstance(MASKED, types.IntegerLiteral):
        return None
    masked = MASKED.literal_value
    n = types.intp
    signature = types.void(n, MASKED, A, n, n, B, C, n, n, init, n, types.UniTuple(n, 9))

    def codegen(context, builder, signature, args):
        rows, _, a, m0, am, b, c, cm, cols, start, accumulate, over = args
        zero, v = ir.Constant(I64, 0), Vector(builder, A.dtype)
        strides, over = (am, zero, cm, zero), cgutils.unpack_tuple(builder, over, 9)
        body = _Tile(builder, v, 1, masked, (a, b, c, start), (m0, zero), strides, cols, accumulate, over, elementwise=True)
        switch(builder, rows, MAX_ROWS, body.emit)
        return context.get_dummy_value()

    return signature, codegen
