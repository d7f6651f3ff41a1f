"""The matrix registers of Intel's AMX: eight of 16 rows of 64 bytes, and an instruction that multiplies two and adds to a third.

A product of 16 x 32 by 32 x 16 bfloat16 takes 16 cycles, in which two units for vectors of float32 do a sixteenth of the multiply-adds. A
float32 is the sum of three bfloat16 (`kernels.thirds`), and six products of these are one of float32: Henry, Tang and Heinecke 2019,
"Leveraging the bfloat16 artificial intelligence datatype for higher-precision computations" (arXiv 1904.06376).

Between registers that hold zeros this is 600 GFLOP/s of float32 on one core of an Intel Xeon, where vectors do 190 to 240; with operands
from the caches, which are not all 0, it is 350, since bits that change cost power (timed by hand).
"""

import ctypes
import sys

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, config, types
from numba.extending import intrinsic

from fastconv.kernels.apart import Apart
from fastconv.kernels.processor import HOST, NAME, VECTOR_BYTES
from fastconv.kernels.simd import I64, moved, rolled_loop
from fastconv.kernels.tiles import call_apart
from fastconv.kernels.vector_type import call, prefetch_line

ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA = 158, 0x1023, 18
"""Linux's system call, and its request, for leave to use the registers, which make a thread's state 8 KB larger."""


def _available():
    """Whether this process may use the registers: the processor has them, code is generated for it, and Linux gives leave."""
    features = llvm.get_host_cpu_features()
    if config.CPU_FEATURES is not None:  # code is generated for these
        features = {name: f"+{name}" in config.CPU_FEATURES.split(",") for name in ("amx-tile", "amx-bf16")}
    if NAME != HOST or VECTOR_BYTES != 64 or sys.platform != "linux" or not (features.get("amx-tile") and features.get("amx-bf16")):
        return False
    return ctypes.CDLL(None).syscall(ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0


AVAILABLE = _available()

ROWS = COLUMNS = 16
"""Of a register: so many rows, of as many float32 or pairs of bfloat16."""

DEPTH = 2 * COLUMNS
"""Numbers of a sum that one product adds up."""

TALL = 2 * ROWS
"""Rows of a tile of `matrix_tile`."""

ASKED = 24
"""Lines of memory that each step asks for."""

HALF = DEPTH // 2
"""float32 that hold so many bfloat16."""

THIRD = ROWS * COLUMNS
"""A register of bfloat16, as an array of float32 counts it."""

STEP = 3 * THIRD
"""What one step reads of a vector of columns of B."""

I8 = ir.IntType(8)

CHANGES = (("B", 1), ("A", 1), ("B", 0), ("A", 2), ("A", 0))
"""Thirds of A and B that are multiplied after the first of A and the last of B: small products first, one operand changes at a time."""


class _Registers:
    """Emits instructions on the matrix registers, which these name by number."""

    def __init__(self, builder):
        self.builder = builder

    def _emit(self, name, registers, arguments=()):
        call(self.builder, f"llvm.x86.{name}", ir.VoidType(), [*(ir.Constant(I8, register) for register in registers), *arguments])

    def _memory(self, pointer, stride):
        return self.builder.bitcast(pointer, I8.as_pointer()), stride

    def load(self, register, pointer, stride):
        """Rows `stride` bytes apart."""
        self._emit("tileloadd64", [register], self._memory(pointer, stride))

    def store(self, register, pointer, stride):
        self._emit("tilestored64", [register], self._memory(pointer, stride))

    def multiply_add(self, c, a, b):
        self._emit("tdpbf16ps", [c, a, b])


@intrinsic
def begin_matrices(typingctx):
    """Let the matrix registers of this thread be whole ones."""

    def codegen(context, builder, signature, args):
        numbers = [1] + 15 * [0] + 8 * [4 * COLUMNS, 0] + 16 * [0] + 8 * [ROWS] + 8 * [0]  # palette 1; bytes of a row, rows
        memory = cgutils.alloca_once_value(builder, ir.Constant(ir.ArrayType(I8, len(numbers)), numbers))
        call(builder, "llvm.x86.ldtilecfg", ir.VoidType(), [builder.bitcast(memory, I8.as_pointer())])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def end_matrices(typingctx):
    """The thread has no matrix registers any more, which nobody need keep for it."""

    def codegen(context, builder, signature, args):
        call(builder, "llvm.x86.tilerelease", ir.VoidType(), [])
        return context.get_dummy_value()

    return types.void(), codegen


class _Tile:
    """Emits the body of `matrix_tile` for one or two vectors of columns."""

    def __init__(self, builder, vectors, of_a, offsets, of_b, targets):
        self.builder, self.vectors, self.registers = builder, vectors, _Registers(builder)
        (self.am, self.a_third), (self.bn, self.b_third, self.b_step, self.steps) = of_a, of_b
        self.offsets, self.targets = offsets, targets

    def bytes_of(self, numbers):
        return self.builder.mul(numbers, ir.Constant(I64, 4))

    def sums(self, m, n):
        return 2 * m + n

    def place(self, pointer):
        """A variable that holds a pointer to bytes."""
        return cgutils.alloca_once_value(self.builder, self.builder.bitcast(pointer, I8.as_pointer()))

    def ask(self, place, distance):
        """Ask for the line at a place, which moves on."""
        pointer = self.builder.load(place)
        prefetch_line(self.builder, pointer, into=2)
        self.builder.store(self.builder.gep(pointer, [distance]), place)

    def emit_start(self, start, start_row, start_tile, cn):
        for m in range(2):
            for n in range(self.vectors):
                self.registers.load(self.sums(m, n), moved(self.builder, start, (start_tile, m), (cn, n)), self.bytes_of(start_row))

    def emit_end(self, cn):
        for m, (pointer, row) in enumerate(self.targets):
            for n in range(self.vectors):
                self.registers.store(self.sums(m, n), moved(self.builder, pointer, (cn, n)), self.bytes_of(row))

    def emit_step(self, pa, pb, step, asked, asks):
        """One step; it asks for the lines of memory `asked`, to be written, two after each product, and for what `asks` says."""
        builder, vectors, wanted = self.builder, self.vectors, list(asked)
        a = builder.gep(pa, [builder.load(builder.gep(self.offsets, [step]))])

        def load(operand, index, third):
            if operand == "A":
                pointer = moved(builder, a, (self.am, ROWS * index), (self.a_third, third))
                self.registers.load(4 + index, pointer, self.bytes_of(self.am))
            else:
                pointer = moved(builder, pb, (self.bn, index), (self.b_third, third))
                self.registers.load(6 + index, pointer, ir.Constant(I64, 4 * COLUMNS))

        for operand, index, third in (("A", 0, 0), ("B", 0, 2), ("A", 1, 0), ("B", 1, 2))[: 2 + vectors]:
            load(operand, index, third)
        for operand, third in (*CHANGES, (None, 0)):
            order = [[(m, n) for m in range(2)] for n in range(vectors)]  # a register is loaded anew when its products have begun
            if operand != "B":
                order = [[(m, n) for n in range(vectors)] for m in range(2)]
            for index, some in enumerate(order):
                for m, n in some:
                    self.registers.multiply_add(self.sums(m, n), 4 + m, 6 + n)
                    for pointer in [wanted.pop(0) for _ in range(min(2, len(wanted)))]:
                        prefetch_line(builder, pointer, 1)
                    for place, distance in asks[: 1 + m]:
                        self.ask(place, distance)
                if operand:
                    load(operand, index, third)

    def emit(self, pa, pb, cn, below, asks):
        """All steps, of which the first two ask for the lines of the results, `below` numbers further on."""
        builder, b_step, two = self.builder, cgutils.alloca_once_value(self.builder, pb), ir.Constant(I64, 2)
        (upper, upper_row), (lower, lower_row) = self.targets
        first = builder.select(builder.icmp_signed("<", self.steps, two), self.steps, two)
        for count, before in ((first, None), (builder.sub(self.steps, first), first)):
            with rolled_loop(builder, count) as step:
                b, asked = builder.load(b_step), []
                if before is None:
                    second = builder.icmp_signed(">", step, ir.Constant(I64, 0))
                    rows, row = builder.select(second, lower, upper), builder.select(second, lower_row, upper_row)
                    rows = builder.gep(rows, [below])
                    asked = [moved(builder, rows, (row, m), (cn, n)) for m in range(ROWS) for n in range(self.vectors)]
                self.emit_step(pa, b, builder.add(step, before) if before else step, asked, asks)
                builder.store(builder.gep(b, [self.b_step]), b_step)


@intrinsic(prefer_literal=True)
def _matrix_tile(typingctx, NV, A, of_a, offsets, B, of_b, start, of_start, upper, lower, of_c, ahead, also, moves):
    vectors = NV.literal_value

    def codegen(context, builder, signature, args):
        _, pa, of_a, offsets, pb, of_b, start, of_start, upper, lower, of_c, ahead, also, moves = args
        of_a, of_start, moves = (cgutils.unpack_tuple(builder, pair, 2) for pair in (of_a, of_start, moves))
        of_b = cgutils.unpack_tuple(builder, of_b, 4)
        upper_row, lower_row, cn, below = cgutils.unpack_tuple(builder, of_c, 4)
        tile = _Tile(builder, vectors, of_a, offsets, of_b, ((upper, upper_row), (lower, lower_row)))
        tile.emit_start(start, *of_start, cn)
        tile.emit(pa, pb, cn, below, list(zip(map(tile.place, (ahead, also)), moves, strict=True)))
        tile.emit_end(cn)
        return context.get_dummy_value()

    pair, four = types.UniTuple(types.intp, 2), types.UniTuple(types.intp, 4)
    return types.void(NV, A, pair, offsets, B, four, start, pair, upper, lower, four, ahead, also, pair), codegen


def _tile(
    vectors, A, am, a_third, offsets, B, bn, b_third, b_step, steps, start, start_row, start_tile, upper, lower, upper_row, lower_row, cn,
    below, ahead, also, move, also_move,
):  # fmt: skip
    of_a, of_b, of_start, moves = (am, a_third), (bn, b_third, b_step, steps), (start_row, start_tile), (move, also_move)
    of_c = upper_row, lower_row, cn, below
    if vectors == 2:
        _matrix_tile(2, A, of_a, offsets, B, of_b, start, of_start, upper, lower, of_c, ahead, also, moves)
    else:
        _matrix_tile(1, A, of_a, offsets, B, of_b, start, of_start, upper, lower, of_c, ahead, also, moves)


TILE = Apart(_tile, "ipiilpiiiipiippiiiippii")


@intrinsic
def matrix_tile(
    typingctx, vectors, A, a, of_a, offsets, o, B, b, of_b, start, i, of_start, upper, u, lower, l, of_c, ahead, x, also, y, moves
):
    """C[m, n] = start[m, n] + sum over steps s and k < DEPTH of A[m; s, k] * B[s, k; n], of TALL rows m, one or two vectors n.

    A and B are arrays of float32 that hold bfloat16, two of a sum in each number, the same two of A and of B. With `of_a` = (am, a_third)
    the first thirds of A[m; s, :] are at A[a + m*am + offsets[o + s]], the second ones a_third further on. With `of_b` = (bn, b_third,
    b_step, steps) registers of B, HALF rows of two numbers each, are at B[b], those of the second thirds b_third further on, of the next
    step b_step, of the next vector bn. Row m of `start` is at start[i + m // ROWS * start_tile + m % ROWS * start_row] with `of_start` =
    (start_row, start_tile). With `of_c` = (upper_row, lower_row, cn, below) the first ROWS rows of C are at upper[u],
    upper_row apart, the others at lower[l]; vectors of `start` and of C are cn apart.

    Meanwhile it asks for memory that will be written, or read at the start of the next tile: the lines of C, `below` further on. And for
    what will be read later: in each step for ASKED places from ahead[x] on and half as many from also[y] on, `moves` = bytes from one to
    the next of these and of those, 64 at most.
    """
    n, pair, four = types.intp, types.UniTuple(types.intp, 2), types.UniTuple(types.intp, 4)
    parameters = (n, A, n, pair, offsets, n, B, n, four, start, n, pair, upper, n, lower, n, four, ahead, n, also, n, pair)
    return call_apart(TILE, parameters, A)
