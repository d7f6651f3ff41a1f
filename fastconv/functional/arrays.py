"""What kernels are fed: plain, native, aligned, C-contiguous arrays of float32 or float64, checked by name."""

import numpy as np

from fastconv.errors import ArgumentError, ArgumentTypeError
from fastconv.kernels import axes, host
from fastconv.memory import empty

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def plain(name, array, ndim=None):
    """`array` as a base-class ndarray of float32 or float64, of `ndim` axes when given."""
    if type(array) is not np.ndarray:
        if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
            raise ArgumentTypeError(f"{name} must be a NumPy array, got {type(array).__name__}")
        array = np.asarray(array)
    dtype = array.dtype
    if dtype is not FLOAT32 and dtype is not FLOAT64:
        if dtype.kind != "f" or dtype.itemsize not in (4, 8):
            raise ArgumentTypeError(f"{name} must be float32 or float64, got {dtype}")
        array = array.astype(dtype.newbyteorder("="), copy=False)
    if ndim is not None and array.ndim != ndim:
        raise ArgumentError(f"{name} must have {ndim} axes, got {array.ndim}: shape {array.shape}")
    return array


def contiguous(array):
    """`array` itself when a kernel can take it as it is, else a C-contiguous copy or, when only read-only, another view."""
    flags = array.flags
    if flags.carray:
        return array
    if not (flags.c_contiguous and flags.aligned):
        return c_order(array)
    return np.asarray(_Writable(array))  # Numba would compile every kernel anew for read-only arrays; kernels never write to their inputs


def c_order(array):
    """`array` itself where it is C-contiguous, else a copy that is."""
    if array.flags.c_contiguous:
        return array
    result = empty(array.shape, array.dtype)
    host.copy(0, result, array)
    return result


def zeros(shape, dtype):
    """As np.zeros for a tuple `shape` and an np.dtype."""
    result = empty(shape, dtype)
    host.copy(0, result, 0)
    return result


class _Writable:
    """A view of a read-only array that NumPy takes for a writable one."""

    def __init__(self, array):
        self.array = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.__array_interface__["data"][0], False)}


def channels_last(name, array, dtype=None, shape=None):
    """An (N, C, H, W) array, of `shape` when given, as a C-contiguous (N, H, W, C) one; no copy when that is how its memory lies."""
    array = plain(name, array, 4)
    if shape is not None:
        check_shape(name, array, shape)
    if dtype is not None and array.dtype != dtype:
        raise ArgumentTypeError(f"{name} must be {dtype} as the other arrays are, got {array.dtype}")
    pixels = array.transpose(0, 2, 3, 1)
    if pixels.flags.carray:
        return pixels
    if array.flags.c_contiguous and not pixels.flags.c_contiguous:
        N, C, H, W = array.shape
        return swapped(array, (N, C, H * W), pixels.shape)
    return contiguous(pixels)


def channels_first(array):
    """An (N, C, H, W) array as a C-contiguous one, copied unless it is."""
    pixels = array.transpose(0, 2, 3, 1)
    if array.dtype in (FLOAT32, FLOAT64) and pixels.flags.c_contiguous and not array.flags.c_contiguous:
        N, C, H, W = array.shape
        return swapped(pixels, (N, H * W, C), array.shape)
    return c_order(array)


def swapped(array, extents, shape):
    """A C-contiguous array, seen as `extents` (N, A, B), with the last two axes exchanged, as `shape`: a copy unless A or B is 1."""
    N, A, B = extents
    if A == 1 or B == 1:
        return contiguous(array).reshape(shape)
    result = empty((N, B, A), array.dtype)
    # counts as 16 operations a number: one thread alone would wait for numbers that lie in the other's cache
    axes.swap(16 * array.size, contiguous(array).reshape(extents), result)
    return result.reshape(shape)


def taps_first(weight):
    """OIHW as (OC, KH, KW, IC): the channels of a tap are neighbours."""
    OC, C, KH, KW = weight.shape
    return swapped(weight, (OC, C, KH * KW), (OC, KH, KW, C))


def same_dtype(name, array, dtype, ndim):
    """`array` C-contiguous, of `dtype` and `ndim` axes."""
    array = plain(name, array, ndim)
    if array.dtype != dtype:
        raise ArgumentTypeError(f"{name} must be {dtype} as the other arrays are, got {array.dtype}")
    return contiguous(array)


def check_shape(name, array, shape):
    """Raise unless the (N, C, H, W)-ordered `array` has exactly `shape`."""
    if array.shape != shape:
        raise ArgumentError(f"{name} must have shape {shape}, got {array.shape}")


def nchw(array):
    """The (N, C, H, W) view of an (N, H, W, C) array."""
    return array.transpose(0, 3, 1, 2)


def whole(count, lanes):
    """`count` rounded up to whole vectors of so many lanes."""
    return -(-count // lanes) * lanes
