"""Where the arrays of many parameters lie, so that one call of a kernel changes them all.

NumPy takes a microsecond to tell an address, as long as the call of a kernel, so it is asked only when an array is another one than at the
step before: parameters and an optimizer's state stay, and so do the gradients of small networks (`nn.replay`).
"""

import functools
import weakref

import numpy as np

from fastconv.kernels.vector import BLOCK


@functools.lru_cache(maxsize=64)
def _jobs(sizes):
    """The jobs of a `Table` whose rows have so many elements."""
    jobs = [(i, start, min(start + BLOCK, size)) for i, size in enumerate(sizes) for start in range(0, size, BLOCK)]
    return np.array(jobs, np.int64).reshape(-1, 3)


class Row:
    """A parameter's arrays, all C-contiguous and of one dtype. Its gradient is not held, so that others can see whether anybody has it.

    Attributes
    ----------
    new : bool
        Whether it had no state before this step.
    """

    __slots__ = ("data", "gradient", "named", "new", "state")

    def __init__(self, data, gradient, state, names, new):
        self.data, self.gradient, self.state, self.new = data, weakref.ref(gradient), state, new
        self.named = [(name, state[name]) for name in names]

    def addresses(self):
        """Of gradient, data and state."""
        arrays = [self.gradient(), self.data, *[array for _, array in self.named]]
        return [array.__array_interface__["data"][0] for array in arrays]


class Table:
    """What a kernel is told of some rows, all of one dtype.

    Attributes
    ----------
    like : ndarray without elements, of that dtype
    places : ndarray of shape (rows, 2 + arrays of the state), int64
        Addresses of gradient, data and state.
    jobs : ndarray of shape (jobs, 3), int64
        A row, the first of up to BLOCK elements, and the one after the last.
    size : int
        Elements of all rows.
    """

    def __init__(self, rows):
        self.rows, self.like = rows, np.empty(0, rows[0].data.dtype)
        self.places = np.array([row.addresses() for row in rows], np.int64)
        sizes = tuple([row.data.size for row in rows])
        self.jobs, self.size = _jobs(sizes), sum(sizes)
        self._given, self._numbers = None, None

    def numbers(self, given):
        """A list with a tuple for each row, as an array (rows, numbers), float64."""
        if given != self._given:
            self._given = None  # whatever interrupts
            self._numbers = np.array(given, np.float64)
            self._given = given
        return self._numbers


class Layout:
    """Rows of some parameters, in order, and the tables of each dtype among them; `names` are those of the state's arrays."""

    def __init__(self, names, rows):
        self.names, self.rows = names, rows
        self.tables = [Table([row for row in rows if row.data.dtype == dtype]) for dtype in {row.data.dtype for row in rows}]

    def __reduce__(self):
        return Layout, ((), ())  # a copy's arrays lie elsewhere

    def is_of(self, names, parameters, gradients, states):
        """Whether it is of those parameters still; `states` has a dict for each that has one."""
        if self.names != names or len(self.rows) != len(parameters):
            return False
        for row, parameter, gradient in zip(self.rows, parameters, gradients, strict=True):
            state = row.state
            if row.gradient() is not gradient or row.data is not parameter.data or states.get(parameter) is not state:
                return False
            for name, array in row.named:
                if state.get(name) is not array:
                    return False
        return True
