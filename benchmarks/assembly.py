"""The register tile's innermost loop as assembly, for this processor or another: does it spill?

    python benchmarks/assembly.py             a table for AVX2, AVX-512 and NEON
    python benchmarks/assembly.py --show neon the loop of the largest tile

The tile is emitted by `kernels/simd.py` as kernels emit it, and compiled by LLVM for the processor that is asked for.
"""

import argparse
import re
import sys
from pathlib import Path

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import types

ROOT = Path(__file__).resolve().parents[1]
if not __package__:
    sys.path[0] = str(ROOT)  # run as a script, it was this file's folder

from fastconv.kernels import simd  # noqa: E402

# name: LLVM's triple and processor, bytes of a vector, rows of the tallest tile two vectors wide
TARGETS = {
    "avx2": ("x86_64-unknown-linux-gnu", "haswell", 32, 6),
    "avx512": ("x86_64-unknown-linux-gnu", "znver4", 64, 14),
    "neon": ("aarch64-unknown-linux-gnu", "neoverse-n1", 16, 14),
}
STACK = re.compile(r"\(%rsp\)|\[sp")
FMA = re.compile(r"\b(vfn?m(add|sub)\d+ps|fmla)\b")


def module(rows, vectors, vector_bytes):
    """LLVM's text of a function that computes one tile of float32."""
    kept, simd.VECTOR_BYTES = simd.VECTOR_BYTES, vector_bytes
    try:
        pointer, integer = ir.FloatType().as_pointer(), simd.I64
        function = ir.Function(ir.Module("tile"), ir.FunctionType(ir.VoidType(), [pointer] * 4 + [integer] * 20), "tile")
        builder = ir.IRBuilder(function.append_basic_block())
        a, b, c, start, *rest = function.args
        first, strides, cols, accumulate, over, ahead = rest[:2], rest[2:6], rest[6], rest[7], rest[8:17], rest[17:]
        vector = simd.Vector(builder, types.float32)
        simd._Tile(builder, vector, vectors, False, (a, b, c, start), first, strides, cols, accumulate, over, ahead).emit(rows)
        builder.ret_void()
        return str(function.module)
    finally:
        simd.VECTOR_BYTES = kept


def assembly(text, triple, processor):
    """What LLVM makes of it, with the optimisations that Numba asks for."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    parsed = llvm.parse_assembly(text)
    parsed.triple = triple
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=processor, opt=3)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    llvm.create_pass_builder(machine, options).getModulePassManager().run(parsed, llvm.create_pass_builder(machine, options))
    return machine.emit_assembly(parsed)


def innermost(code):
    """Lines of the loop with the most multiply-adds, of those that have no loop inside: from a label to the jump back to it."""
    lines, loops = code.splitlines(), []
    labels = {line.split(":")[0]: k for k, line in enumerate(lines) if re.match(r"\.L\w+:", line)}
    for last, line in enumerate(lines):
        jump = re.search(r"\s(j\w+|b\.\w+|b|cbn?z\s+\w+,)\s+(\.L\w+)", line)
        first = labels.get(jump.group(2), last) if jump else last
        if first < last and not any(first <= start for start, _ in loops):
            loops.append((first, last))
    best = max((lines[first : last + 1] for first, last in loops), key=lambda body: sum(bool(FMA.search(x)) for x in body))
    return [line for line in best if re.match(r"\s+[a-z]", line)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", choices=TARGETS, help="print this processor's loop")
    show = parser.parse_args().show
    print("| processor | tile, rows x vectors | instructions of the loop | multiply-adds | of the stack |\n| --- | --- | --- | --- | --- |")
    for name, (triple, processor, vector_bytes, most) in TARGETS.items():
        for rows, vectors in ((most, 2), (most // 2, 2), (most, 1)):
            loop = innermost(assembly(module(rows, vectors, vector_bytes), triple, processor))
            counts = [len(loop), *(sum(bool(pattern.search(line)) for line in loop) for pattern in (FMA, STACK))]
            print(f"| {name} ({processor}) | {rows} x {vectors} | {' | '.join(map(str, counts))} |")
            if show == name and (rows, vectors) == (most, 2):
                print("\n".join(loop), file=sys.stderr)


if __name__ == "__main__":
    main()
