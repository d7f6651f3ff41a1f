"""The register tile and Winograd's transforms alone, on one core, in memory that stays in the first two caches.

    python benchmarks/tile.py       tables: GFLOP/s of tiles two vectors wide, by rows; and nanoseconds of a transform, by alignment

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
from fastconv.kernels.winograd_blocks import ELEMENTS  # noqa: E402
from fastconv.kernels.winograd_tile import input_tile, output_tile  # noqa: E402

LANES, TURNS = VECTOR_BYTES // 4, 15
CHANNELS, TILES, COLUMNS = 64, 56, 34


@numba.njit(error_model="numpy")
def convolve_pixels(repeats, rows, panel, filters, out):
    """`rows` neighbouring pixels of a 3x3 convolution of CHANNELS channels into two vectors, as conv_direct computes them."""
    run = 3 * CHANNELS
    over = (1, 0, 0, 3, COLUMNS * CHANNELS, run * LANES, run, 1, LANES)
    for _ in range(repeats):
        tiles(rows, panel, 0, CHANNELS, filters, 0, 3 * run * LANES, out, 0, 2 * LANES, LANES, 2, 2 * LANES, out, 0, 0, over)


@numba.njit(error_model="numpy")
def transform_inputs(repeats, x, half, v, step):
    inside = (0, 0, 1, 1, 6, 6)  # no tile lies over a border
    for _ in range(repeats):
        for t in range(TILES):
            for c in range(0, CHANNELS, LANES):
                i = t % 8 * 4 * CHANNELS + c
                input_tile(x, i, COLUMNS * CHANNELS, CHANNELS, LANES, inside, x, half, v, t * CHANNELS + c, step)


@numba.njit(error_model="numpy")
def transform_outputs(repeats, x, half, v, step):
    for _ in range(repeats):
        for t in range(TILES):
            for c in range(0, CHANNELS, LANES):
                output_tile(v, t * CHANNELS + c, step, 0.0, -np.inf, half, x, t % 8 * 4 * CHANNELS + c, COLUMNS * CHANNELS, CHANNELS)


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
    print("| rows of the tile | GFLOP/s |\n| --- | --- |")
    panel, filters = numbers(3 * COLUMNS * CHANNELS), numbers(2 * 9 * CHANNELS * LANES)
    for rows in range(MAX_ROWS, 0, -1):
        out = numbers(rows * 2 * LANES)
        work = 2 * rows * 2 * LANES * 9 * CHANNELS
        print(f"| {rows} | {work / seconds(convolve_pixels, 1000, rows, panel, filters, out) * 1e-9:.0f} |")
    print("\n| arrays start at | ns of an input tile's vector | of an output tile's |\n| --- | --- | --- |")
    step = TILES * CHANNELS + 16
    for start in (0, 32, 16):
        x, half, v = numbers(6 * COLUMNS * CHANNELS + 4096, start), numbers(ELEMENTS * LANES, start), numbers(ELEMENTS * step, start)
        times = [seconds(f, 20, x, half, v, step) / TILES / (CHANNELS // LANES) * 1e9 for f in (transform_inputs, transform_outputs)]
        print(f"| a line + {start} bytes | {times[0]:.0f} | {times[1]:.0f} |")


if __name__ == "__main__":
    main()
