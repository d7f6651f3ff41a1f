"""Dense arrays as flat memory: what elementwise kernels work on, without a copy, whatever the order of the axes."""

from fastconv.errors import ArgumentError, ArgumentTypeError
from fastconv.functional.arrays import contiguous, plain

TRANSCENDENTAL = 20
"""Scalar operations that an exponential counts for, when a kernel decides whether threads pay."""


class Flat:
    """The elements of an array in the order of its memory, C or channels-last; an array of any other order is copied.

    With `fixed`, the order depends on the number of axes alone: (N, C, H, W) arrays are channels-last.

    Attributes
    ----------
    values : ndarray of one axis, C-contiguous
        Of the array's memory wherever that is possible.
    """

    __slots__ = ("channels_last", "shape", "values")

    def __init__(self, name, array, fixed=False):
        array = plain(name, array)
        self.channels_last = array.ndim == 4 and (fixed or not array.flags.c_contiguous)
        if self.channels_last:
            array = array.transpose(0, 2, 3, 1)
        self.shape = array.shape
        self.values = contiguous(array).ravel()

    def beside(self, name, array):
        """The flat values of a further array, of the same shape and dtype, in the order of this one."""
        array = plain(name, array)
        ordered = array.transpose(0, 2, 3, 1) if self.channels_last and array.ndim == 4 else array
        if ordered.shape != self.shape:
            raise ArgumentError(f"{name} must have shape {self.restore(self.values).shape}, got {array.shape}")
        if array.dtype != self.values.dtype:
            raise ArgumentTypeError(f"{name} must be {self.values.dtype} as the other arrays are, got {array.dtype}")
        return contiguous(ordered).ravel()

    def restore(self, values):
        """Flat values as an array of the shape and order of this one."""
        array = values.reshape(self.shape)
        return array.transpose(0, 3, 1, 2) if self.channels_last else array
