"""The first few lanes of a vector: nothing beyond them is written, nor read where memory ends."""

import ctypes
import mmap
import sys

import numba
import numpy as np
import pytest

from fastconv.kernels.processor import VECTOR_BYTES
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import load, load_or, load_unsigned, store

PAGE = mmap.PAGESIZE


@numba.njit(error_model="numpy")
def copy_part(x, i, y, o, count):
    store(y, o, load(x, i, count), count)


@numba.njit(error_model="numpy")
def copy_bytes(x, i, y, o, count, like):
    store(y, o, load_unsigned(x, i, count, load(like, 0, lanes(like))), count)


@numba.njit(error_model="numpy")
def fill_rest(x, i, y, count, fill):
    store(y, 0, load_or(x, i, count, fill), lanes(y))


def before_nothing():
    """The last page before memory that nobody may read."""
    memory = mmap.mmap(-1, 2 * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address + PAGE), PAGE, 0) == 0
    return np.frombuffer(memory, np.uint8)[:PAGE]


def copied(kind, source, start, count, target, offset):
    if kind == "bytes":
        copy_bytes(source, start, target, offset, count, np.ones(VECTOR_BYTES // 4, np.float32))
    else:
        copy_part(source, start, target, offset, count)


KINDS = {"float32": np.float32, "float64": np.float64, "bytes": np.uint8}


@pytest.mark.skipif(sys.platform == "win32", reason="no mprotect")
@pytest.mark.parametrize("kind", KINDS)
def test_the_last_lanes_of_a_page(kind, rng):
    dtype, width = KINDS[kind], VECTOR_BYTES // (8 if kind == "float64" else 4)
    page = before_nothing().view(dtype)
    page[:] = rng.integers(1, 200, page.size)
    for count in range(-1, width + 1):
        # elements up to the end of the page, `count` of which are wanted; where none is, the address may be anywhere
        for left in range(count if count > 0 else -width, width + 1):
            target = np.zeros(3 * width, dtype)
            copied(kind, page, page.size - left, count, target, width)
            expected, n = np.zeros(3 * width, dtype), max(0, count)
            expected[width : width + n] = page[page.size - left :][:n]
            np.testing.assert_array_equal(target, expected, err_msg=f"{count} of the last {left}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", [0, 1, 3])
def test_neighbours_stay(kind, start, rng):
    dtype, width = KINDS[kind], VECTOR_BYTES // (8 if kind == "float64" else 4)
    source = rng.integers(1, 200, 4 * width).astype(dtype)
    for count in range(-2, width + 3):
        target = np.full(3 * width, 7, dtype)
        copied(kind, source, start, count, target, start)
        expected, n = np.full(3 * width, 7, dtype), min(width, max(0, count))
        expected[start : start + n] = source[start : start + n]
        np.testing.assert_array_equal(target, expected, err_msg=f"{count}")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_other_lanes_are_filled(dtype, rng):
    width = VECTOR_BYTES // np.dtype(dtype).itemsize
    source, target = rng.standard_normal(3 * width).astype(dtype), np.empty(width, dtype)
    for count in range(-1, width + 2):
        fill_rest(source, 1, target, count, dtype(-5))
        n = min(width, max(0, count))
        np.testing.assert_array_equal(target, [*source[1 : 1 + n], *[-5] * (width - n)])
