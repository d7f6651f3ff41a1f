"""Calls of kernels, noted once and made again without the Python between them.

What Python does between two kernels, checks and choices and new arrays, depends on shapes alone. For a small network it takes as long as
the kernels, and leaves the first cache to them cold. Here the same calls are made again, with the same arrays, but for those of the
caller: these are `roots`, and an argument that lies in the memory of one lies at the same place of the next.
"""

import contextlib
from operator import itemgetter

import numpy as np

from fastconv.kernels import jit

MOST_BYTES = 1 << 24
"""Bytes of all arguments of all calls at most: the arrays are kept."""


class Unfit(Exception):
    """Why calls cannot be made again."""


@contextlib.contextmanager
def recorded():
    """Within, this thread's kernels are noted as they run: the context is a list that gets (kernel, work, arguments) of each call."""
    calls, size = [], 0

    def record(run, kernel, work, *arguments):
        nonlocal size
        size += sum(argument.nbytes for argument in arguments if isinstance(argument, np.ndarray))
        if size > MOST_BYTES:
            raise Unfit("its arrays are too large to be kept")
        if run(kernel, work, *arguments) is not None:
            raise Unfit(f"the result of {kernel.__name__} is used outside of kernels")
        calls.append((kernel, work, arguments))

    with jit.intercepted(record):
        yield calls


def part_of(roots, value):
    """A function of other roots that gives what `value` is of these; None where it has no part of them.

    `value` is an array or anything else, or a tuple of such; roots are C-contiguous arrays, and others have their shapes.
    """
    if isinstance(value, tuple):
        parts = [part_of(roots, element) for element in value]
        return _tuple(parts, value) if any(parts) else None
    if not isinstance(value, np.ndarray) or not value.size:
        return None
    first, last = np.lib.array_utils.byte_bounds(value)
    for i, root in enumerate(roots):
        start, stop = np.lib.array_utils.byte_bounds(root)
        if root.size and first < stop and start < last:
            if first < start or stop < last:
                raise Unfit("an array lies only partly in another")
            if (first, value.shape, value.strides) == (start, root.shape, root.strides):
                return itemgetter(i)
            strides = [step if extent > 1 else value.itemsize for step, extent in zip(value.strides, value.shape, strict=True)]
            return _view(i, value.shape, value.dtype, value.ctypes.data - start, strides)
    return None


def _tuple(parts, old):
    return lambda roots: tuple(before if part is None else part(roots) for part, before in zip(parts, old, strict=True))


def _view(i, shape, dtype, offset, strides):
    return lambda roots: np.ndarray(shape, dtype, roots[i], offset, strides)


class Launches:
    """Calls that `recorded` has noted. `roots` of them change every time; `fixed` ones seldom do, they are given to `bind` before."""

    def __init__(self, calls, roots, fixed):
        self.parallel = any(work >= jit.SERIAL_BELOW for _, work, _ in calls)
        self.calls, self.bound = [], []
        for kernel, work, arguments in calls:
            own, changing = list(arguments), []
            for i, argument in enumerate(arguments):
                if part := part_of(roots, argument):
                    changing.append((i, part))
                elif part := part_of(fixed, argument):
                    self.bound.append((own, i, part))
            self.calls.append((kernel, work, kernel.compiled(work, arguments), own, changing))

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
