"""Code that kernels call by its address, compiled when a convolution first needs it."""

import functools
import threading

import numpy as np
from numba.core import types
from numba.np.numpy_support import from_dtype

from fastconv.kernels.apart import call_code, parameter_types
from fastconv.kernels.host import Host
from fastconv.kernels.simd import flat_arguments

_providing = threading.Lock()


class ByNeed:
    """A row of functions, of which `make(index)` gives the `Apart`: `addresses` has for each size of a number where the code of each is,
    0 while it is not there."""

    def __init__(self, make, count):
        self.make, self.addresses = functools.cache(make), {size: np.zeros(count, np.int64) for size in (4, 8)}
        self._compile = Host(self._provide)

    def provide(self, index, dtype):
        """Let there be code of function `index` for `dtype`: by a Host, for nothing is to be compiled where kernels are only listed."""
        addresses = self.addresses[dtype.itemsize]
        if not addresses[index]:
            self._compile(0, addresses, index, dtype)

    def _provide(self, addresses, index, dtype):
        with _providing:
            addresses[index] = self.make(index).address(from_dtype(dtype))


def call_address(parameters, array, arguments):
    """A signature and code of an intrinsic that calls, at the address that is its first argument, code of `parameters` for the dtype of
    `array` with all others, which have the types `arguments` and are passed as `flat_arguments` says."""
    kinds = parameter_types(parameters, array.dtype)

    def codegen(context, builder, signature, args):
        function = context.call_conv.get_function_type(types.void, kinds).as_pointer()
        address, *values = flat_arguments(context, builder, signature, args)
        call_code(context, builder, builder.inttoptr(address, function), kinds, values)
        return context.get_dummy_value()

    return types.void(types.intp, *arguments), codegen
