"""`fastconv info`: what fastconv runs on."""

import contextlib
import platform
import sys

import llvmlite
import llvmlite.binding as llvm
import numba
import numpy as np

import fastconv
from fastconv import models
from fastconv.commands.console import table
from fastconv.kernels import jit
from fastconv.kernels.amx import AVAILABLE
from fastconv.kernels.processor import VECTOR_BYTES


def add_arguments(parser):
    """It takes none."""


def run(options):
    count, size = _cache()
    facts = [
        ("fastconv", fastconv.__version__),
        ("Python", f"{platform.python_version()}, {sys.platform}"),
        ("NumPy", np.__version__),
        ("Numba", f"{numba.__version__}, llvmlite {llvmlite.__version__}"),
        ("processor", _processor()),
        ("vectors", f"{8 * VECTOR_BYTES} bits: {VECTOR_BYTES // 4} float32 numbers at once"),
        ("matrices", _matrices()),
        ("threads", f"{jit.get_num_threads()}, threading layer {jit.threading_layer()}"),
        ("cache", f"{jit.cache_root()}: {count} kernels, {size / 1e6:.1f} MB"),
    ]
    width = max(len(name) for name, _ in facts)
    for name, fact in facts:
        print(f"{name.ljust(width)}  {fact}")
    print()
    rows = [("network", "image", "parameters")]
    for name, shape in models.INPUT_SHAPES.items():
        rows.append((name, " x ".join(map(str, shape)), f"{models.create(name, seed=0).num_parameters():,}"))
    for line in table(rows, right=(2,)):
        print(line)
    return 0


def _processor():
    """The processor's name as the system gives it, and as the compiler knows it."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:  # Linux only
        name = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), name)
    return f"{name} (LLVM: {llvm.get_host_cpu_name()})"


def _matrices():
    """Whether there are matrix registers, and whether convolutions use them."""
    if not AVAILABLE:
        return "none"
    return "AMX, for large convolutions" if fastconv.get_amx() else "AMX, not allowed"


def _cache():
    """Number and size in bytes of the files of compiled code, of this and of other versions."""
    sizes = []
    for path in jit.cache_root().rglob("*.bin"):
        with contextlib.suppress(OSError):  # another process may just replace it
            sizes.append(path.stat().st_size)
    return len(sizes), sum(sizes)
