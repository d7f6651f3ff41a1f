"""Regions of slabs: never two arrays in one place, nothing lost."""

import gc
import os
import random
import subprocess
import sys
import weakref

import numpy as np
import pytest
from checks import in_threads

from fastconv import arena
from fastconv.arena import Arena, joined

UINT8 = np.dtype(np.uint8)


def array(of, size):
    return of.empty((size,), UINT8, size)


def place(a):
    return a.ctypes.data


def check(of):
    """What is known of free regions agrees, and none has a free neighbour."""
    of.unused()  # reads the notes
    assert sorted((size, start) for start, (size, _) in of._free.items()) == of._sizes
    assert {start + size: start for start, (size, _) in of._free.items()} == of._ends
    assert not set(of._free) & set(of._ends)


@pytest.fixture
def small(monkeypatch):
    """An arena of small slabs."""
    monkeypatch.setattr(arena, "LEAST_SLAB", 1 << 10)
    return Arena(1 << 30)


def test_the_smallest_region_that_is_large_enough(small):
    arrays = [array(small, size) for size in (192, 64, 128, 64, 256, 64)]
    places = list(map(place, arrays))
    for i in (4, 2, 0):
        arrays[i] = None
    assert place(array(small, 128)) == places[2]
    first, second = array(small, 100), array(small, 150)
    assert (place(first), place(second)) == (places[2], places[0])
    check(small)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1)])
def test_free_neighbours_join(order, small):
    arrays = [array(small, 256) for _ in range(4)]
    places = list(map(place, arrays))
    assert places == [places[0] + 256 * i for i in range(4)]
    for i in order:
        arrays[i] = None
    check(small)
    assert place(array(small, 768)) == places[0]
    arrays.clear()
    check(small)
    assert [size for size, _ in small._sizes] == [1 << 10]


def test_slabs_grow(small):
    arrays = [array(small, 512) for _ in range(7)]
    assert small._total == 4 << 10  # 1, 1 and 2 KB
    assert small.unused() == 512
    large = array(small, 10_000)
    assert small._total == (4 << 10) + 10_000
    del arrays, large
    check(small)
    small.release()
    assert (small.unused(), small._total) == (0, 0)


def test_a_slab_with_an_array_stays(small):
    kept, gone = array(small, 64), array(small, 2000)
    kept[:] = 7
    del gone
    small.release()
    assert small.unused() == (1 << 10) - 64
    assert (kept == 7).all()
    assert place(array(small, 64)) == place(kept) + 64


def test_what_lies_unused_goes_back_when_more_is_needed(small):
    small.keep = 2000
    for size in (1000, 3000, 9000, 27000):
        array(small, size)
        assert small.unused() <= 1024 + size
    assert [size for size, _ in small._sizes] == [27000]


def test_without_memory_for_more_there_is_memory_for_this(small, monkeypatch):
    asked, fresh = [], arena.fresh

    def scarce(size):
        asked.append(size)
        if size > 2000:
            raise MemoryError
        return fresh(size)

    monkeypatch.setattr(arena, "fresh", scarce)
    arrays = [array(small, 1000) for _ in range(4)]
    assert asked == [1024, 1024, 2048, 1000, 3048, 1000]
    assert len(set(map(place, arrays))) == 4
    with pytest.raises(MemoryError):
        array(small, 3000)
    arrays.clear()
    check(small)
    assert len(small._sizes) == 4


@pytest.mark.parametrize("seed", range(20))
def test_arrays_never_share_memory_and_all_of_it_comes_back(seed, small):
    draw, living = random.Random(seed), {}
    for number in range(600):
        if living and draw.random() < 0.48:
            value, a = living.popitem() if draw.random() < 0.5 else (key := draw.choice(list(living)), living.pop(key))
            assert (a == value % 251).all()
            del a
        else:
            a = array(small, draw.choice([64, 128, 192, 500, 900, 4000]) + draw.randrange(3))
            a[:] = number % 251
            living[number] = a
    for value, a in living.items():
        assert (a == value % 251).all()
    check(small)
    living.clear()
    del a
    check(small)
    assert small.unused() == small._total  # whole slabs again
    small.release()
    assert small._total == 0


def test_two_threads_never_share_memory(small):
    wrong = []

    def work(number):
        draw, living = random.Random(number), []
        for _ in range(400):
            a = array(small, draw.choice([64, 200, 1000]))
            a[:] = number
            living.append(a)
            if len(living) > 8:
                b = living.pop(draw.randrange(8))
                if (b != number).any():
                    wrong.append(number)

    in_threads(work, 4)
    assert not wrong
    check(small)
    assert small.unused() == small._total


INSIDE = ("_take", "_read_notes", "_grow", "_release", "_add", "_remove")


def interrupt_at_line(number):
    """A tracing function that interrupts before the line of arena.py of this number, counted as they come; within what holds the lock."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        if frame.f_code.co_filename != arena.__file__ or frame.f_code.co_name not in INSIDE:
            return None
        if event == "line":
            count += 1
            if count == number:
                raise KeyboardInterrupt
        return trace

    return trace


def test_the_region_of_the_last_array_that_ended_is_the_next_ones(small):
    arrays = [array(small, 256) for _ in range(4)]
    places = list(map(place, arrays))
    arrays[1] = arrays[2] = None
    again = array(small, 256)
    assert place(again) == places[2]
    assert again.base.region[:2] == (arrays[0].base.region[0], places[2])
    other = array(small, 192)  # in the smallest region that is large enough
    assert place(other) == places[1]
    check(small)
    del again, other, arrays
    check(small)


@pytest.mark.parametrize("size", [200, 256, 5000])
def test_an_interrupt_anywhere_gives_nothing_away_twice(size, small):
    before, interrupted = sys.gettrace(), 0
    for line in range(1, 90):
        arrays = [array(small, 256) for _ in range(8)]
        for i, a in enumerate(arrays):
            a[:] = i
        for i in (1, 2, 4, 6):
            arrays[i] = None
        array(small, 64)  # ends last: what is wanted is looked for
        sys.settrace(interrupt_at_line(line))
        try:
            arrays.append(array(small, size))
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            sys.settrace(before)
        assert not small._busy
        check(small)
        more = [array(small, size) for size in (256, 256, 700, 64, 256)]
        for a in more:
            a[:] = 9
        for i in (0, 3, 5, 7):
            assert (arrays[i] == i).all()
        del arrays, more, a
    assert 20 < interrupted < 89  # everywhere, and at last nowhere


@pytest.mark.parametrize("work", [Arena.unused, Arena.release])
def test_an_interrupt_of_other_work_leaves_it_in_order(work, small):
    before = sys.gettrace()
    for line in range(1, 40):
        arrays = [array(small, 256) for _ in range(12)]
        for i in (1, 2, 4, 6, 8, 9, 10, 11):
            arrays[i] = None
        sys.settrace(interrupt_at_line(line))
        try:
            work(small)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        check(small)
        arrays += [array(small, size) for size in (256, 256, 700, 64, 256)]
        places = [place(a) for a in arrays if a is not None]
        assert len(set(places)) == len(places)


def test_memory_that_there_is_not_costs_nothing(small, monkeypatch):
    arrays = [array(small, 500) for _ in range(6)]
    arrays[1] = arrays[2] = None
    before = small.unused(), small._total
    fresh = arena.fresh
    with monkeypatch.context() as patch:
        patch.setattr(arena, "fresh", lambda size: fresh(1 << 62))
        with pytest.raises(MemoryError):
            array(small, 1 << 20)
    assert (small.unused(), small._total) == before
    arrays.clear()
    small.release()
    assert (small.unused(), small._total) == (0, 0)


def test_forgotten_slabs_go_with_their_last_array(small):
    kept, gone = array(small, 256), array(small, 256)
    slab = weakref.ref(kept.base.region[0])
    small._forget()
    del gone
    assert small.unused() == 0
    assert place(array(small, 256)) not in range(place(kept), place(kept) + 512)
    del kept
    gc.collect()
    assert slab() is None


def test_a_signal_in_the_middle_gets_memory_of_its_own(small, monkeypatch):
    original, inner = Arena._remove, []

    def signalled(self, start):
        if not inner:
            inner.append(array(self, 256))
            assert self.unused() is None
        return original(self, start)

    monkeypatch.setattr(Arena, "_remove", signalled)
    outer = array(small, 256)
    inner[0][:], outer[:] = 1, 2
    assert (inner[0] == 1).all()
    check(small)
    assert small.unused() == (1 << 10) - 256


def test_a_region_comes_back_while_another_is_looked_for(small, monkeypatch):
    """As when the garbage collector runs in the middle."""
    arrays, original = [array(small, 256) for _ in range(3)], Arena._add

    def collecting(self, *arguments):
        original(self, *arguments)
        arrays.clear()

    monkeypatch.setattr(Arena, "_add", collecting)
    a = array(small, 64)
    monkeypatch.undo()
    check(small)
    assert small.unused() == (1 << 10) - 64
    del a


PROGRAM = """
import os, sys, threading
import numpy as np
from fastconv.arena import Arena, joined
arena = Arena(1 << 30)
first = arena.empty((1 << 20,), np.dtype(np.uint8), 1 << 20)
thread = threading.Thread(target=arena._lock.acquire)  # as if it were in the middle
thread.start()
thread.join()
arena._busy = True
if os.fork() == 0:
    second = arena.empty((1 << 20,), np.dtype(np.uint8), 1 << 20)
    second[:] = 1
    os._exit(0 if second.ctypes.data != first.ctypes.data else 1)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_does_not_wait_for_a_thread_that_it_does_not_have():
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM], timeout=60, check=False).returncode == 0


def test_claimed_regions_are_nobody_elses(small):
    arrays = [array(small, 256) for _ in range(6)]
    regions = [a.base.region for a in arrays]
    arrays = arrays[5:]
    blocks = small.claim(joined([regions[1], regions[3], regions[2]]))
    assert [block.nbytes for block in blocks] == [3 * 256]
    check(small)
    others = [array(small, 256) for _ in range(4)]
    assert not set(map(place, others)) & {start for _, start, _ in regions[1:4]}
    assert small.claim([regions[1]]) is None
    blocks.clear()
    check(small)
    assert place(array(small, 3 * 256)) == regions[1][1]


def test_either_all_regions_or_none(small):
    arrays = [array(small, 128) for _ in range(8)]
    regions = [a.base.region for a in arrays]
    arrays = [arrays[4], arrays[7]]
    free = small.unused()
    assert small.claim(regions[:4] + regions[5:]) is None
    assert small.unused() == free
    blocks = small.claim([regions[0], regions[2], regions[5]])
    assert list(map(place, blocks)) == [start for _, start, _ in (regions[0], regions[2], regions[5])]
    assert small.unused() == free - 3 * 128
    check(small)


def test_regions_of_a_slab_that_has_been_given_back_are_gone(small):
    region = array(small, 256).base.region
    small.release()
    assert small.claim([region]) is None
    assert small.claim([]) == []


def test_joined():
    one, other = arena.Slab(1024, None), arena.Slab(1024, None)
    place = one.address
    regions = [(one, place + 256, 64), (one, place, 128), (other, other.address, 64), (one, place + 64, 128), (one, place + 320, 64)]
    expected = [(one, place, 192), (one, place + 256, 128), (other, other.address, 64)]
    assert joined(regions) == sorted(expected, key=lambda region: region[1:])
    assert joined([]) == []
