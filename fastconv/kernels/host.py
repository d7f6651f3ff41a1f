"""What NumPy does to arrays between two kernels, called as kernels are: whoever watches these then sees all that happens to an array."""

import numpy as np

from fastconv.kernels.jit import Kernel


class Host(Kernel):
    """A function that writes to its first argument."""

    def __init__(self, function):
        self.__name__ = function.__name__
        self.serial = self.parallel = function

    def compiled(self, work, arguments):
        return self.serial


@Host
def copy(target, source):
    """target = source, which may be of another type, have other strides, or be a number."""
    np.copyto(target, source)


@Host
def add_to(target, source):
    """target += source."""
    np.add(target, source, out=target)
