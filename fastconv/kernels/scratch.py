"""Memory that a job works in, at the start of a cache line: Numba's own may start in the middle of one, and vectors then lie across two."""

import numpy as np

from fastconv.kernels.jit import device

LINE_BYTES, LINE_NUMBERS = 64, 16
"""A cache line, and how many float32 it holds."""


@device
def scratch(count, dtype):
    """A new flat array of `count` numbers."""
    numbers = np.empty(count + LINE_NUMBERS, dtype)
    first = -numbers.ctypes.data % LINE_BYTES // numbers.itemsize
    return numbers[first : first + count]


@device
def whole_lines(count):
    """`count`, or as many numbers as make the next whole line."""
    return (count + LINE_NUMBERS - 1) // LINE_NUMBERS * LINE_NUMBERS


@device
def scratch_pair(first, second, dtype):
    """Two such arrays in one piece of memory: two large ones the C library gives back to the system each time."""
    numbers = scratch(whole_lines(first) + second, dtype)
    return numbers[:first], numbers[whole_lines(first) :]
