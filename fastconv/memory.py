"""Memory of large arrays, used again: a fresh page costs more than what a kernel writes into it.

The system hands out memory in pages that it clears one by one as they are first touched, some 0.3 to 2 us for 4 KB. A training
step whose arrays are new each time spends up to half of its time on that. Here an array's memory comes back when the last view of it
is gone, and the next array of about that size gets it, of the largest any that fits. Arrays start at the start of a cache line, so that
no vector lies across two.
"""

import contextlib
import functools
import math
import weakref

import numpy as np

from fastconv.arena import Arena, fresh

LARGE = 1 << 14
"""Bytes from which on memory is used again; what is smaller comes from the heap, which keeps its pages."""

HUGE = 1 << 20
"""Bytes from which on arrays are regions of an `Arena`; below it is quicker to keep memory of each size apart."""

KEEP = 1 << 28
"""When memory is needed from the system, and more than so many bytes lie unused, these go back to it first."""

_arena = Arena(KEEP)
_unused = {}  # size to memory of this size that no array has


class _Block(np.ndarray):
    """What every view of some memory refers to: gives it back when it is the last to go. Its base is the memory."""

    def __del__(self, unused=_unused):
        memory = self.base
        if memory is not None:
            unused[memory.size].append(memory)


@functools.lru_cache(maxsize=4096)
def _place(shape, itemsize):
    """(bytes, unused memory of this size) of an array, up by at most an eighth, so that batches of nearly the same size share memory; None
    for an array that is not large, and for a huge one no memory."""
    size = math.prod(shape) * itemsize
    if size < LARGE:
        return None
    step = 1 << min(16, max(12, size.bit_length() - 4))
    size = -(-size // step) * step
    return size, _unused.setdefault(size, []) if size < HUGE else None


holders = weakref.WeakSet()
"""Who holds memory without an array in it, for later; `release` of each gives up what is not in use."""


def _fresh(size):
    if sum(size * len(memories) for size, memories in list(_unused.items())) > KEEP:
        _give_back()
    return fresh(size)


def release():
    """Give memory that no array has back to the system; of huge arrays, where no array is left in a whole slab.

    What large networks need for their next training step goes too; then they find out anew what they need.
    """
    for holder in list(holders):
        holder.release()
    _give_back()


def _give_back():
    for memories in list(_unused.values()):
        memories.clear()
    _arena.release()


_planning = 0


@contextlib.contextmanager
def planned():
    """Within, all arrays that are not small are regions of the arena, in few bytes; which they are, `arena.Block` knows."""
    global _planning
    _planning += 1
    try:
        yield
    finally:
        _planning -= 1


def claim(regions):
    """Blocks of regions of the arena, or None where not all of them are free; see `Arena.claim`."""
    return _arena.claim(regions)


def empty(shape, dtype):
    """As np.empty for a tuple `shape` and an np.dtype, in C order."""
    place = _place(shape, dtype.itemsize)
    if place is None:
        return np.empty(shape, dtype)
    size, unused = place
    if unused is None or _planning:
        return _arena.empty(shape, dtype, size)
    try:
        memory = unused.pop()
    except IndexError:
        memory = _fresh(size)
    return _Block(shape, dtype, memory).view(np.ndarray)
