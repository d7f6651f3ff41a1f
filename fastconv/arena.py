"""Memory of the largest arrays, cut from slabs: where one was, others fit, whatever their sizes.

A step of a deep network has arrays of dozens of sizes, which are not all needed at a time. Here regions that are free join their free
neighbours, and an array gets the start of the smallest free region that it fits into (best fit with immediate coalescing: D. Knuth, "The
Art of Computer Programming", volume 1, section 2.5; P. Wilson et al., "Dynamic storage allocation: a survey and critical review", 1995).
"""

import os
import threading
from bisect import bisect_left, insort
from collections import deque

import numpy as np

LEAST_SLAB = 1 << 23
"""Bytes of the first slab; each later one is as large as all before it, so that there are few. What is never written takes no memory."""

LINE = 64
"""Bytes of a cache line, and of the longest vector."""


class Memory(np.ndarray):
    """Bytes that arrays lie in. A type of its own, as otherwise NumPy would let views refer to it and not to a block of it."""


def fresh(size):
    """`size` bytes from the system, from the start of a line on; other memory never begins where they end."""
    raw = np.empty(size + LINE, np.uint8)
    start = -raw.ctypes.data % LINE
    return raw[start : start + size].view(Memory)


class Block(np.ndarray):
    """What every view of a region refers to: gives it back when it is the last to go."""

    region: tuple["Slab", int, int]

    def __del__(self):
        if "region" in vars(self):  # copies and views of the type have none
            self.region[0].returned.append(self.region)


def _block(region, shape, dtype):
    slab, start, _ = region
    block = Block(shape, dtype, slab.memory, start - slab.address)
    block.region = region
    return block


class Slab:
    """Memory of many regions."""

    def __init__(self, size, returned):
        self.memory, self.size, self.returned, self.released = fresh(size), size, returned, False
        self.address = self.memory.ctypes.data


class Arena:
    """Slabs, and which regions of them are free.

    A region is known by the address of its start. Arrays end in whatever thread and at whatever moment, also while a region is looked for:
    so they only leave a note, which the next one to look reads. Where as much is wanted as the last note gives back, that is taken
    without looking further.
    """

    def __init__(self, keep):
        self.keep = keep
        self._start()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _start(self):
        self._lock, self._busy = threading.RLock(), False
        self._forget()

    def _after_fork(self):
        """In a child, which does not have the thread that may have been looking for a region."""
        if self._busy:
            self._start()
        self._lock = threading.RLock()

    def _forget(self):
        """Begin anew, without the slabs that there are: nobody reads the notes for them, and each goes with its last array."""
        self._returned = deque()
        self._sizes, self._free, self._ends = [], {}, {}  # sorted (size, start); start to (size, slab); end to start
        self._total = 0  # bytes of all slabs

    def _alone(self, work, *arguments):
        """work(*arguments), when all notes are read and while no other thread looks. None when it is called from within itself, as by a
        signal's handler that makes arrays."""
        with self._lock:
            if self._busy:
                return None
            try:
                self._busy = True
                self._read_notes()
                return work(*arguments)
            except MemoryError:
                raise
            except BaseException:  # Ctrl-C anywhere above: rather forget what is free than give it away twice
                self._forget()
                raise
            finally:
                self._busy = False

    def empty(self, shape, dtype, size):
        """An array in the first of `size` bytes; in those of the last array that ended, where it had as many."""
        region = self._last(size) or self._alone(self._take, size)
        if region is None:
            return np.ndarray(shape, dtype, fresh(size))
        return _block(region, shape, dtype).view(np.ndarray)

    def _last(self, size):
        """The region of the last note, which is then read, where it has `size` bytes; else None."""
        notes = self._returned
        try:
            if notes[-1][2] != size:
                return None
            slab, start, found = notes.pop()
        except IndexError:
            return None
        if found != size:  # of another array, that ended in between
            notes.append((slab, start, found))
            return None
        return slab, start, size  # another tuple: who had it before is somebody else

    def claim(self, regions):
        """A `Block` for each of some `regions`, (slab, start, size) of which none meets another, or None where not all of them are free."""
        taken = self._alone(self._claim, regions)
        return [_block(region, (region[2],), np.uint8) for region in regions] if taken else None

    def unused(self):
        """Bytes of slabs that no array has."""
        return self._alone(lambda: sum(size for size, _ in self._sizes))

    def release(self):
        """Give slabs in which no array is left back to the system."""
        self._alone(self._release)

    def _take(self, size):
        i = bisect_left(self._sizes, (size, 0))
        if i == len(self._sizes):
            self._grow(size)
            i = bisect_left(self._sizes, (size, 0))
        start = self._sizes[i][1]
        found, slab = self._remove(start)
        if found > size:
            self._add(start + size, found - size, slab)
        return slab, start, size

    def _claim(self, regions):
        around = [self._around(*region) for region in regions]
        if None in around:
            return False
        for slab, start, size in regions:
            first = self._around(slab, start, size)  # the region before may have been cut from the same one
            found, _ = self._remove(first)
            for begin, end in ((first, start), (start + size, first + found)):
                if begin < end:
                    self._add(begin, end - begin, slab)
        return True

    def _around(self, slab, start, size):
        """Start of the free region that has all of this one, or None."""
        for first, (found, of) in self._free.items():
            if of is slab and first <= start and start + size <= first + found:
                return first
        return None

    def _read_notes(self):
        """Make free what came back, together with its neighbours."""
        while True:
            try:
                slab, start, size = self._returned.popleft()
            except IndexError:  # another thread may have read the last one, without a lock
                return
            if start + size in self._free:
                size += self._remove(start + size)[0]
            if start in self._ends:
                start = self._ends[start]
                size += self._remove(start)[0]
            self._add(start, size, slab)

    def _add(self, start, size, slab):
        insort(self._sizes, (size, start))
        self._free[start] = size, slab
        self._ends[start + size] = start

    def _remove(self, start):
        size, slab = self._free.pop(start)
        del self._ends[start + size]
        del self._sizes[bisect_left(self._sizes, (size, start))]
        return size, slab

    def _grow(self, size):
        if sum(size for size, _ in self._sizes) > self.keep:
            self._release()
        try:
            slab = Slab(max(size, LEAST_SLAB, self._total), self._returned)
        except MemoryError:
            self._release()
            slab = Slab(size, self._returned)
        self._total += slab.size
        self._add(slab.address, slab.size, slab)

    def _release(self):
        for start, (size, slab) in list(self._free.items()):
            if size == slab.size:
                slab.released = True
                self._remove(start)
                self._total -= size


def joined(regions):
    """The memory of some regions, as few regions that do not meet."""
    result = []
    for slab, start, size in sorted(regions, key=lambda region: region[1:]):
        if result and result[-1][0] is slab and start <= result[-1][1] + result[-1][2]:
            _, first, length = result[-1]
            result[-1] = slab, first, max(length, start + size - first)
        else:
            result.append((slab, start, size))
    return result
