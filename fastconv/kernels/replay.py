"""Calls of kernels, noted once and made again without the Python between them.

What Python does between two kernels, checks and choices and new arrays, depends on shapes alone. For a small network it takes as long as
the kernels, and leaves the caches to them cold. Here the same calls are made again in the same memory, but for arrays of the caller: these
are `roots`, and an argument that lies in the memory of one lies at the same place of the next.

Memory is taken as it is in any other pass, so that arrays which are not needed at a time share it: a note of an array holds its region of
the arena, not the array.
"""

import contextlib
from operator import itemgetter

import numpy as np

from fastconv.arena import Block
from fastconv.kernels import jit
from fastconv.memory import planned

MOST_BYTES = 1 << 24
"""Bytes of arrays that are kept, being no regions of the arena; those of more are not replayed."""


class Unfit(Exception):
    """Why calls cannot be made again."""


class Note:
    """An array, from the byte `first` of memory to `last`; where it lies in a region of the arena, this is not held."""

    __slots__ = ("array", "first", "last", "region")

    def __init__(self, array):
        owner = array
        while type(owner) is np.ndarray:
            owner = owner.base
        self.region = owner.region if type(owner) is Block else None
        if self.region is not None:
            slab = self.region[0]
            array = np.ndarray(array.shape, array.dtype, slab.memory, array.ctypes.data - slab.address, _strides(array))
        self.array = array
        self.first, self.last = np.lib.array_utils.byte_bounds(array)

    def meets(self, other):
        """Whether some of their memory is the same."""
        return self.region is other.region and self.first < other.last and other.first < self.last and self.array.size > 0

    def is_same(self, other):
        mine, its = self.array, other.array
        return (self.first, mine.shape, mine.strides, mine.dtype) == (other.first, its.shape, its.strides, its.dtype)


class Space(Note):
    """A region of the arena, or some that lie side by side; arrays that were made in it are parts of it."""

    def __init__(self, region):
        slab, start, size = region
        super().__init__(np.ndarray((size,), np.uint8, slab.memory, start - slab.address))
        self.region = region

    def meets(self, other):
        inside = other.region is not None and other.region[0] is self.region[0]
        return inside and self.first < other.last and other.first < self.last

    def is_same(self, other):
        return False


def _strides(array):
    """Strides of an array; those of axes of one element can be anything, and np.ndarray does not take anything."""
    return [step if extent > 1 else array.itemsize for step, extent in zip(array.strides, array.shape, strict=True)]


def noted(value):
    """A value, or a tuple, with notes in the places of arrays."""
    if isinstance(value, tuple):
        return tuple(map(noted, value))
    return Note(value) if isinstance(value, np.ndarray) else value


def unnoted(value):
    """The arrays in the places of their notes."""
    if isinstance(value, tuple):
        return tuple(map(unnoted, value))
    return value.array if isinstance(value, Note) else value


def notes_in(value):
    """All notes in a value, or tuple, as a list."""
    if isinstance(value, tuple):
        return [note for element in value for note in notes_in(element)]
    return [value] if isinstance(value, Note) else []


@contextlib.contextmanager
def recorded():
    """Within, this thread's kernels are noted as they run: the context is a list that gets (kernel, work, arguments) of each call."""
    calls = []

    def record(run, kernel, work, *arguments):
        if run(kernel, work, *arguments) is not None:
            raise Unfit(f"the result of {kernel.__name__} is used outside of kernels")
        calls.append((kernel, work, noted(arguments)))

    with jit.intercepted(record), planned():
        yield calls


def part_of(roots, value):
    """A function of other roots that gives what `value` is of these; None where it has no part of them.

    `roots` are notes of C-contiguous arrays, and others have their shapes; `value` is a note or anything else, or a tuple of such.
    """
    if isinstance(value, tuple):
        parts = [part_of(roots, element) for element in value]
        return _tuple(parts, value) if any(parts) else None
    if not isinstance(value, Note) or not value.array.size:
        return None
    for i, root in enumerate(roots):
        if root.meets(value):
            if value.first < root.first or root.last < value.last:
                raise Unfit("an array lies only partly in another")
            return itemgetter(i) if root.is_same(value) else _view(i, root, value.array)
    return None


def _tuple(parts, notes):
    old, changing = unnoted(notes), [(i, part) for i, part in enumerate(parts) if part]

    def other(roots):
        new = list(old)
        for i, part in changing:
            new[i] = part(roots)
        return tuple(new)

    return other


def _view(i, root, array):
    """A function of roots for `array`, which lies in the one of number i, noted as `root`."""
    shape, dtype, offset, strides = array.shape, array.dtype, array.ctypes.data - root.array.ctypes.data, _strides(array)
    if type(root) is Note and (array.nbytes, dtype) == (root.array.nbytes, root.array.dtype) and array.flags.c_contiguous:
        return lambda roots: roots[i].reshape(shape)  # twice as fast
    return lambda roots: np.ndarray(shape, dtype, roots[i], offset, strides)


class Launches:
    """Calls that `recorded` has noted. `roots` of them change every time; `fixed` ones seldom do, they are given to `bind` before.

    Attributes
    ----------
    regions : list
        Of the arena, for each array that lies in one: memory that must be nobody else's while these calls are made.
    """

    def __init__(self, calls, roots, fixed):
        self.parallel = any(work >= jit.SERIAL_BELOW for _, work, _ in calls)
        self.calls, self.bound, self.regions = [], [], []
        kept = {}
        for kernel, work, notes in calls:
            arguments, changing = list(unnoted(notes)), []
            compiled = kernel.compiled(work, arguments)
            for i, note in enumerate(notes):
                if part := part_of(roots, note):
                    changing.append((i, part))
                    arguments[i] = None
                elif part := part_of(fixed, note):
                    self.bound.append((arguments, i, part))
                    arguments[i] = None
                elif isinstance(note, Note) and note.region is None:
                    kept[note.array.ctypes.data] = note.array.nbytes
                elif isinstance(note, Note):
                    self.regions.append(note.region)
            self.calls.append((kernel, work, compiled, arguments, changing))
        if sum(kept.values()) > MOST_BYTES:
            raise Unfit("its arrays are too large to be kept")

    def bind(self, fixed):
        for arguments, i, part in self.bound:
            arguments[i] = part(fixed)

    def run(self, roots):
        free = not self.parallel or jit.free_to_launch()
        for kernel, work, compiled, arguments, changing in self.calls:
            for i, part in changing:
                arguments[i] = part(roots)
            if free:
                compiled(*arguments)
            else:
                kernel(work, *arguments)
            for i, _ in changing:
                arguments[i] = None  # the caller's memory is not kept
