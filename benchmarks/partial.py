"""What it costs to read and write the first few lanes of a vector, with masked instructions and with fastconv's plain ones.

    python benchmarks/partial.py        a table for this processor: nanoseconds of an access, numbers of float32

The two sides are processes of their own, as `fastconv.kernels.partial` decides once which instructions there are.
"""

import subprocess
import sys
import time
from pathlib import Path

import numba
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if not __package__:
    sys.path[0] = str(ROOT)  # run as a script, it was this file's folder

from fastconv.kernels import partial  # noqa: E402
from fastconv.kernels.vector import lanes, splat, sum_lanes  # noqa: E402
from fastconv.kernels.vector_memory import load, store  # noqa: E402

ACCESSES, TURNS = 1_000_000, 7
SPAN = 1024  # numbers that are read or written again and again, all in the first cache


@numba.njit(error_model="numpy")
def loads(x, count):
    total = splat(x, 0.0)
    for i in range(ACCESSES):
        total = total + load(x, i * lanes(x) % SPAN, count)
    return sum_lanes(total)


@numba.njit(error_model="numpy")
def stores(x, count):
    value = splat(x, 1.0)
    for i in range(ACCESSES):
        store(x, i * lanes(x) % SPAN, value, count)


@numba.njit
def width(x):
    return lanes(x)


def nanoseconds(function, x, count):
    function(x, count)
    times = []
    for _ in range(TURNS):
        start = time.perf_counter()
        function(x, count)
        times.append(time.perf_counter() - start)
    return np.median(times) / ACCESSES * 1e9


def side():
    """Print a line for each number of lanes: it, and nanoseconds of a load and of a store."""
    x = np.zeros(SPAN + 64, np.float32)
    for count in range(1, width(x) + 1):
        print(count, nanoseconds(loads, x, count), nanoseconds(stores, x, count))


def main():
    rows = {}
    for name in ("masked", "plain"):
        output = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True).stdout
        for line in output.splitlines():
            count, *times = line.split()
            rows.setdefault(count, []).extend(float(t) for t in times)
    print("| lanes | masked load | masked store | plain load | plain store |\n| --- | --- | --- | --- | --- |")
    for count, times in rows.items():
        print("| " + " | ".join([count, *(f"{t:.2f}" for t in times)]) + " |")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        partial.MASK_REGISTERS = sys.argv[1] == "masked"
        side()
    else:
        main()
