"""Memory used again: never while somebody sees it, always afterwards."""

import copy
import importlib
import pickle

import numpy as np
import pytest
from checks import in_threads

from fastconv import functional as F
from fastconv import memory
from fastconv.arena import LINE, Arena
from fastconv.functional.arrays import zeros

FLOAT32 = np.dtype(np.float32)
SHAPE = (3, 5, 7, 101)  # 42 KB
HUGE = (4, 5, 7, 10007)  # 5.6 MB


@pytest.fixture(autouse=True)
def nothing_unused():
    memory.release()
    yield
    memory.release()


def address(array):
    return array.ctypes.data


@pytest.mark.parametrize("shape", [(4096,), (64, 64), (1, 4097), (33, 17, 9, 2), (1 << 20,)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_arrays_are_what_numpy_makes(shape, dtype):
    array = memory.empty(shape, np.dtype(dtype))
    assert (array.shape, array.dtype, type(array)) == (shape, np.dtype(dtype), np.ndarray)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    if array.nbytes >= memory.LARGE:
        assert address(array) % LINE == 0


@pytest.mark.parametrize("shape", [(0,), (4, 0, 5), ()])
def test_empty_and_scalar_shapes(shape):
    assert memory.empty(shape, FLOAT32).shape == shape
    assert zeros(shape, FLOAT32).shape == shape


def test_tests_see_memory_that_nobody_wrote():
    for used in (memory, importlib.import_module("fastconv.functional.linear"), importlib.import_module("fastconv.functional.conv_direct")):
        assert np.isnan(used.empty((3, 5), np.dtype(np.float32))).all()
        assert np.isnan(used.empty((300, 50), np.dtype(np.float64))).all()


@pytest.mark.parametrize("shape", [SHAPE, HUGE])
def test_what_is_gone_is_used_again(shape):
    array = memory.empty(shape, FLOAT32)
    place = address(array)
    del array
    assert address(memory.empty(shape, FLOAT32)) == place


VIEWS = {
    "slice": lambda a: a[1:2],
    "transpose": lambda a: a.transpose(3, 0, 2, 1),
    "reshape": lambda a: a.reshape(-1),
    "element": lambda a: a[:1, :1, :1, :1],
    "view of a view": lambda a: a[1:].T[2:][::-1],
    "other dtype": lambda a: a.view(np.uint32),
    "asarray": np.asarray,
    "memoryview": lambda a: memoryview(a),
    "buffer": lambda a: np.frombuffer(a, np.float32),
    "broadcast": lambda a: np.broadcast_to(a, (2, *a.shape)),
}


@pytest.mark.parametrize("shape", [SHAPE, HUGE])
@pytest.mark.parametrize("name", VIEWS)
def test_a_view_keeps_the_memory(name, shape):
    array = memory.empty(shape, FLOAT32)
    place, view = address(array), VIEWS[name](array)
    del array
    others = [memory.empty(shape, FLOAT32) for _ in range(3)]
    assert place not in map(address, others)
    del view
    assert address(memory.empty(shape, FLOAT32)) == place


@pytest.mark.parametrize("shape", [SHAPE, HUGE])
def test_zeros_are_zeros_in_used_memory(shape):
    array = memory.empty(shape, FLOAT32)
    array.fill(7)
    del array
    assert not zeros(shape, FLOAT32).any()


def test_sizes_that_are_nearly_the_same_share_memory():
    array = memory.empty((100_000,), FLOAT32)
    place = address(array)
    del array
    assert address(memory.empty((99_999,), FLOAT32)) == place


def test_release(monkeypatch):
    monkeypatch.setattr(memory, "_arena", Arena(memory.KEEP))  # one that no other test has arrays in
    memory.empty(SHAPE, FLOAT32)
    assert any(memory._unused.values())
    memory.empty(HUGE, FLOAT32)
    assert memory._arena.unused() >= 4 * 5 * 7 * 10007 * 4
    memory.release()
    assert not any(memory._unused.values())
    assert memory._arena.unused() == 0


def test_unused_memory_has_a_limit(monkeypatch):
    monkeypatch.setattr(memory, "KEEP", 1 << 17)
    for eighths in range(1, 8):
        memory.empty((eighths << 17,), np.dtype(np.uint8))
    assert sum(size * len(unused) for size, unused in memory._unused.items()) <= 1 << 20


def test_memory_of_huge_arrays_has_no_sizes(monkeypatch):
    monkeypatch.setattr(memory, "_arena", Arena(memory.KEEP))
    array = memory.empty((1 << 22,), np.dtype(np.uint8))
    place = address(array)
    del array
    halves = [memory.empty((1 << 21,), np.dtype(np.uint8)) for _ in range(2)]
    assert sorted(map(address, halves)) == [place, place + (1 << 21)]
    halves.clear()
    assert address(memory.empty((1 << 20, 3), np.dtype(np.uint8))) == place


@pytest.mark.parametrize("shape", [SHAPE, HUGE])
def test_copies_are_independent(shape):
    array = zeros(shape, FLOAT32)
    copies = array.copy(), copy.deepcopy(array), pickle.loads(pickle.dumps(array))
    array += 1
    for other in copies:
        assert not other.any()


def test_threads_never_share_living_memory():
    wrong = []

    def work(number):
        for round_ in range(200):
            arrays = [memory.empty((5000 + 700 * i,), FLOAT32) for i in range(4)]
            for i, array in enumerate(arrays):
                array.fill(1000 * number + 10 * i)
            if any((array != 1000 * number + 10 * i).any() for i, array in enumerate(arrays)):
                wrong.append((number, round_))

    in_threads(work, 6)
    assert not wrong


def test_results_stay_what_they_are(rng):
    x, w = rng.standard_normal((8, 8, 16, 16), dtype=np.float32), rng.standard_normal((16, 8, 3, 3), dtype=np.float32)
    first = F.conv2d(x, w)
    kept = first.copy()
    for _ in range(20):
        F.conv2d(x + 1, w)
    assert np.array_equal(first, kept)
    assert np.array_equal(first[2], F.conv2d(x, w)[2])
