"""The processor that code is generated for: how long its vectors are, how many registers hold them, and whether it has masks."""

from pathlib import Path

import llvmlite.binding as llvm
from numba.core import config

HOST = llvm.get_host_cpu_name()
NAME = config.CPU_NAME if config.CPU_NAME not in (None, "", "host") else HOST
"""LLVM's name of the processor."""


def _vector_shape():
    """(bytes of a vector, number of vector registers)."""
    if NAME != HOST:
        wide = {"skylake-avx512", "cascadelake", "icelake-server", "sapphirerapids", "x86-64-v4", "znver4", "znver5"}
        features = {"avx512f": NAME in wide}
    else:
        features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 32
    if llvm.get_process_triple().startswith(("aarch64", "arm64")):
        return 16, 32
    return 32, 16


VECTOR_BYTES, VECTOR_REGISTERS = _vector_shape()


def _second_cache():
    """Bytes of L2 of one processor, 0 where Linux does not say."""
    try:
        return int(Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text().strip().removesuffix("K")) << 10
    except (OSError, ValueError):
        return 0


L2_BYTES = _second_cache()

MASK_REGISTERS = VECTOR_BYTES == 64
"""Whether an access to the first few lanes of a vector costs as much as one to all."""

HALVES = VECTOR_BYTES < 64 or NAME == "znver4"
"""Whether the tiles of `tiles` take vectors of half the length where they use at most half of one. Zen 4 takes long vectors in two halves;
elsewhere with AVX-512 half a vector costs as much as one, and the code for it a second to compile.
"""

FEW_STORES = NAME == "znver4"
"""Whether the results of 14 x 2 whole vectors nearly fill the places where stores wait to be written: a Zen 4 has 64 of them, and such a
vector takes two."""

ADDERS = NAME.startswith("znver")
"""Whether additions have units of their own, beside those of multiplications and multiply-additions, as in AMD's Zen."""

LATE_MEMORY = VECTOR_BYTES == 64 and not ADDERS
"""Whether memory comes late, as on the meshes of Intel's servers: 100 ns from the last cache and 230 from memory, timed by hand on one. The
16 lines that a core waits for at a time are then scarce, also for what comes from L2."""
