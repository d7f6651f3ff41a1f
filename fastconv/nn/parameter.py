"""What training changes: arrays with their gradients."""

import numpy as np

from fastconv.errors import ArgumentError, ArgumentTypeError
from fastconv.functional.arrays import plain


def float_dtype(dtype):
    """`dtype` as np.dtype float32 or float64, or an error."""
    try:
        # None would mean float64 to NumPy
        checked = np.dtype(dtype).name if dtype is not None else None
    except TypeError:
        checked = None
    if checked not in ("float32", "float64"):
        raise ArgumentTypeError(f"dtype must be float32 or float64, got {dtype!r}")
    return np.dtype(checked)


class Changes:
    """How many attributes of modules, and arrays of parameters, have been set in this process: while it stays, they are the same."""

    __slots__ = ("count",)

    def __init__(self):
        self.count = 0


changes = Changes()


class Parameter:
    """An array that training changes, with its gradient.

    Parameters
    ----------
    data : ndarray of any shape, float32 or float64
        Copied, so that an update in place never reaches an array of the caller's.

    Attributes
    ----------
    data : ndarray, C-contiguous
        Assigning copies too. An array of another shape or dtype clears `grad`.
    grad : ndarray of the shape and dtype of data, or None
        What backward has added up since the last `zero_grad`; None when that is nothing.

    Raises
    ------
    TypeError
        When data is no NumPy array of float32 or float64.
    """

    __slots__ = ("_data", "grad")

    def __init__(self, data):
        self._data = self.grad = None
        self.data = data

    @property
    def data(self):
        return self._data

    @data.setter
    def data(self, array):
        array = np.array(plain("data", array), order="C")
        if self.grad is not None and (self.grad.shape, self.grad.dtype) != (array.shape, array.dtype):
            self.grad = None
        self._data = array
        changes.count += 1

    @property
    def shape(self):
        return self._data.shape

    @property
    def dtype(self):
        return self._data.dtype

    @property
    def ndim(self):
        return self._data.ndim

    @property
    def size(self):
        return self._data.size

    def accumulate(self, gradient):
        """Add `gradient` to grad. The first one is kept as it is, not copied: pass an array that nobody else writes to."""
        if gradient.shape != self._data.shape or gradient.dtype != self._data.dtype:
            raise ArgumentError(
                f"gradient must be {self.dtype} of shape {self.shape} as its parameter is, got {gradient.dtype} of shape {gradient.shape}"
            )
        if self.grad is None:
            self.grad = gradient
        else:
            np.add(self.grad, gradient, out=self.grad)

    def zero_grad(self, set_to_none=True):
        """Forget the gradient, or with ``set_to_none=False`` fill it with zeros."""
        if set_to_none or self.grad is None:
            self.grad = None
        else:
            self.grad.fill(0)

    def __array__(self, dtype=None, copy=None):
        return np.array(self._data, dtype, copy=copy)

    def __repr__(self):
        return f"Parameter containing:\n{self._data!r}"
