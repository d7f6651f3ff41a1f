"""The speed limit of a core: a loop of nothing but fused multiply-adds between registers, in the vectors that fastconv uses."""

import time

import numba
import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

CHAINS = 12  # independent sums: above latency times ports (4 x 2) of every processor of today, and within 16 registers
STEPS = 1 << 16


def lanes():
    """float32 numbers in a vector; asked late, because asv imports this file with any version of fastconv."""
    from fastconv.kernels.processor import VECTOR_BYTES

    return VECTOR_BYTES // 4


@intrinsic
def multiply_add_chains(typingctx, steps, data):
    """CHAINS vector sums, each `steps` times s = a*s + b with a, b = data[0], data[1]; their total, so that nothing is left out."""
    count = lanes()

    def codegen(context, builder, signature, args):
        vector = ir.VectorType(ir.FloatType(), count)
        fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fmuladd.v{count}f32")
        base = context.make_array(signature.args[1])(context, builder, args[1]).data

        def broadcast(k):
            scalar = builder.load(builder.gep(base, [ir.Constant(ir.IntType(64), k)]))
            full = ir.Constant(vector, ir.Undefined)
            for lane in range(count):
                full = builder.insert_element(full, scalar, ir.Constant(ir.IntType(32), lane))
            return full

        a, b = broadcast(0), broadcast(1)
        sums = [cgutils.alloca_once(builder, vector) for _ in range(CHAINS)]
        for k, s in enumerate(sums):
            builder.store(broadcast(k), s)  # different starts: equal chains would be merged
        with cgutils.for_range(builder, args[0]):
            for s in sums:
                builder.store(builder.call(fma, [a, builder.load(s), b]), s)
        total = ir.Constant(ir.FloatType(), 0.0)
        for s in sums:
            total = builder.fadd(total, builder.extract_element(builder.load(s), ir.Constant(ir.IntType(32), 0)))
        return total

    return types.float32(types.int64, data), codegen


@numba.njit(parallel=True)
def run_chains(threads, steps, data, totals):
    for t in prange(threads):
        totals[t] = multiply_add_chains(steps, data)


def gflops(threads, repeats=5):
    """Float32 operations per ns of `threads` threads together: the best of `repeats` runs of a few ms."""
    numba.set_num_threads(threads)
    data = np.linspace(0.5, 0.9, CHAINS, dtype=np.float32)
    totals = np.empty(threads, np.float32)
    best = np.inf
    for _ in range(repeats + 1):  # the first compiles
        start = time.perf_counter()
        run_chains(threads, STEPS, data, totals)
        best = min(best, time.perf_counter() - start)
    if not np.isfinite(totals).all():
        raise FloatingPointError(f"the sums must converge to {data[1] / (1 - data[0])} each, got {totals}")
    return 2 * lanes() * CHAINS * STEPS * threads / best * 1e-9


if __name__ == "__main__":
    for n in range(1, numba.config.NUMBA_NUM_THREADS + 1):
        print(f"{n} thread{'s' if n > 1 else ''}: {gflops(n):.0f} GFLOP/s, {lanes()} lanes")
