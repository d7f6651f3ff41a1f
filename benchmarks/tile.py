"""The register tile and Winograd's transforms alone, on one core, in memory that stays in the first two caches.

    python benchmarks/tile.py       tables: GFLOP/s of tiles two vectors wide and one, by rows; and nanoseconds of a transform, by alignment

A whole convolution adds what panels, memory and the ends of rows cost.
"""

import sys
import time
from pathlib import Path

import numba
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if not __package__:
    sys.path[0] = str(ROOT)  # run as a script, it was this file's folder

from benchmarks import peak  # noqa: E402
from fastconv.kernels.processor import VECTOR_BYTES  # noqa: E402
from fastconv.kernels.simd import MAX_ROWS  # noqa: E402
from fastconv.kernels.tiles import tiles  # noqa: E402
from fastconv.kernels.winograd_tile import input_tile, output_tile  # noqa: E402
from fastconv.kernels.winograd_tiling import ELEMENTS  # noqa: E402

LANES, TURNS = VECTOR_BYTES // 4, 15
CHANNELS, TILES, COLUMNS = 64, 56, 34


@numba.njit(error_model="numpy")
def convolve_pixels(repeats, rows, wide, panel, filters, out):
    """`rows` neighbouring pixels of a 3x3 convolution of CHANNELS channels into `wide` vectors, as conv_direct computes them."""
    run = 3 * CHANNELS
    over = (1, 0, 0, 3, COLUMNS * CHANNELS, run * LANES, run, 1, LANES)
    for _ in range(repeats):
        tiles(rows, panel, 0, CHANNELS, filters, 0, 3 * run * LANES, out, 0, 2 * LANES, LANES, wide, wide * LANES, out, 0, 0, over)


@numba.njit(error_model="numpy")
def transform_inputs(repeats, x, v, step):
    for _ in range(repeats):
        for t in range(TILES):
            for c in range(0, CHANNELS, LANES):
                i = t % 8 * 4 * CHANNELS + c
                input_tile(x, i, COLUMNS * CHANNELS, CHANNELS, v, t * CHANNELS + c, step)


@numba.njit(error_model="numpy")
def transform_outputs(repeats, x, v, step):
    for _ in range(repeats):
        for t in range(TILES):
            for c in range(0, CHANNELS, LANES):
                output_tile(v, t * CHANNELS + c, step, 0.0, -np.inf, x, t % 8 * 4 * CHANNELS + c, COLUMNS * CHANNELS, CHANNELS)


def numbers(count, start=0):
    """`count` numbers of which the first lies `start` bytes behind the start of a cache line."""
    memory = np.ones(count + 32, np.float32)
    first = (start - memory.ctypes.data) % 64 // 4
    return memory[first : first + count]


def seconds(function, repeats, *arguments):
    """Median time of one of `repeats` repetitions."""
    function(1, *arguments)
    times = []
    for _ in range(TURNS):
        begin = time.perf_counter()
        function(repeats, *arguments)
        times.append(time.perf_counter() - begin)
    return np.median(times) / repeats


def main():
    print(f"Multiply-adds between registers: {peak.gflops(1):.0f} GFLOP/s\n")
    print("| rows of the tile | two vectors, GFLOP/s | one vector, GFLOP/s |\n| --- | --- | --- |")
    panel, filters = numbers(3 * COLUMNS * CHANNELS), numbers(2 * 9 * CHANNELS * LANES)
    for rows in range(MAX_ROWS, 0, -1):
        out, work = numbers(rows * 2 * LANES), 2 * rows * LANES * 9 * CHANNELS
        speeds = [wide * work / seconds(convolve_pixels, 1000, rows, wide, panel, filters, out) * 1e-9 for wide in (2, 1)]
        print(f"| {rows} | {speeds[0]:.0f} | {speeds[1]:.0f} |")
    print("\n| arrays start at | ns of an input tile's vector | of an output tile's |\n| --- | --- | --- |")
    step = TILES * CHANNELS + 16
    for start in (0, 32, 16):
        x, v = numbers(6 * COLUMNS * CHANNELS + 4096, start), numbers(ELEMENTS * step, start)
        times = [seconds(f, 20, x, v, step) / TILES / (CHANNELS // LANES) * 1e9 for f in (transform_inputs, transform_outputs)]
        print(f"| a line + {start} bytes | {times[0]:.0f} | {times[1]:.0f} |")


if __name__ == "__main__":
    main()
