"""Where the arrays of many parameters lie, so that one call of a kernel changes them all.

NumPy takes a microsecond to tell an address, half as long as the call of a kernel takes, so it is asked only when an array is another one
than at the step before: parameters and an optimizer's state stay, and so do the gradients of small networks (`nn.replay`).
"""

import functools
import weakref

import numpy as np

from fastconv.errors import ArgumentError
from fastconv.functional.arrays import contiguous, plain
from fastconv.kernels.vector import BLOCK


def _address(array):
    return array.__array_interface__["data"][0]


def _nobody():
    """A reference to no gradient."""


@functools.lru_cache(maxsize=64)
def _jobs(sizes):
    """The jobs of a `Table` whose rows have so many elements."""
    jobs = [(i, start, min(start + BLOCK, size)) for i, size in enumerate(sizes) for start in range(0, size, BLOCK)]
    return np.array(jobs, np.int64).reshape(-1, 3)


class Row:
    """A parameter's arrays, all C-contiguous and of one dtype.

    Its gradient is not held: the network that has made it looks whether anybody has it, before it writes the next one there.

    Attributes
    ----------
    state : dict
        The parameter's, which gets new arrays `named` only when a step is done.
    new : bool
        Whether the parameter had no state before this step.
    places : ndarray of shape (2 + arrays of the state,), int64
        Addresses of gradient, data and state; a row of a `Table`.
    """

    __slots__ = ("data", "dtype", "gradient", "named", "new", "places", "shape", "state")

    def __init__(self, data, state, names):
        if not data.flags.writeable:
            raise ArgumentError(f"a parameter's data must be writable, got a read-only array of shape {data.shape}")
        self.data, self.shape, self.dtype, self.gradient, self.places = data, data.shape, data.dtype, _nobody, None
        self.state, self.new = {} if state is None else state, not state
        self.named = {name: _buffer(self.state, name, data) for name in names}

    def addresses(self, names):
        return [0, _address(self.data), *[_address(self.named[name]) for name in names]]

    def point_to(self, gradient):
        """Let the first address be that of the gradient, if it fits. Returns it, or a copy that a kernel can take."""
        gradient = plain("grad", gradient)
        if gradient.shape != self.shape or gradient.dtype != self.dtype:
            raise ArgumentError(f"grad must be {self.dtype} of shape {self.shape}, got {gradient.dtype} of shape {gradient.shape}")
        gradient = contiguous(gradient)
        self.gradient = _nobody  # whatever interrupts
        self.places[0] = _address(gradient)
        self.gradient = weakref.ref(gradient)
        return gradient


def _buffer(state, name, data):
    """The flat array `name` of a parameter's state, or zeros."""
    buffer = state.get(name)
    if buffer is None:
        return np.zeros(data.size, data.dtype)
    if plain(name, buffer).size != data.size or buffer.dtype != data.dtype:
        raise ArgumentError(
            f"a parameter changed from {buffer.size} numbers of {buffer.dtype} to {data.size} of {data.dtype}: make a new optimizer"
        )
    if not buffer.flags.carray:
        raise ArgumentError(f"the state's {name} must be C-contiguous and writable, got strides {buffer.strides}")
    return buffer


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

    def __init__(self, names, rows):
        self.rows, self.like = rows, np.empty(0, rows[0].data.dtype)
        self.places = np.array([row.addresses(names) for row in rows], np.int64)
        for row, places in zip(rows, self.places, strict=True):
            row.places = places
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
    """Rows of some parameters, in order, and the tables of each dtype among them; `names` are those of the state's arrays that the kernel
    takes, and may come twice. It `is_fresh` until a step is done, and all arrays of its rows are in the state."""

    def __init__(self, names, parameters, states):
        self.is_fresh, self.names, self.rows = True, names, [Row(parameter.data, states.get(parameter), names) for parameter in parameters]
        dtypes = {row.data.dtype for row in self.rows}
        self.tables = [Table(names, [row for row in self.rows if row.data.dtype == dtype]) for dtype in dtypes]

    def is_of(self, names, parameters, states):
        """Whether it is of those parameters still; `states` has a dict for each that has one."""
        if self.names != names or len(self.rows) != len(parameters):
            return False
        for row, parameter in zip(self.rows, parameters, strict=True):
            state = row.state
            if row.data is not parameter.data or states.get(parameter) is not state:
                return False
            for name, array in row.named.items():
                if state.get(name) is not array:
                    return False
        return True

    def take(self, gradients):
        """Find out where the gradients lie. Returns those that kernels read, which must be held until they have."""
        taken = []
        for row, gradient in zip(self.rows, gradients, strict=True):
            if row.gradient() is not gradient or gradient.shape != row.shape or gradient.dtype is not row.dtype:
                gradient = row.point_to(gradient)
            taken.append(gradient)
        return taken
