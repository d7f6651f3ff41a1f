"""What a convolution of 1x1 with a stride does not see: pixels whose gradient is 0."""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.processor import VECTOR_BYTES
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import fence, flat, zero, zero_past_caches

FAR = 1 << 23
"""Bytes of an array from which on zeros go past the caches, where few of so many would be found later: 38 MB take a third of the time."""


@device
def _clear(d, start, count, past):
    if past:
        zero_past_caches(d, start, count)
    else:
        zero(d, start, count)


@apart
def _clear_row(row, D, window):
    """Row `row` of `clear_unseen`, counted over all images."""
    (_, H, W, C), (OH, OW, SH, SW), d = D.shape, window, flat(D)
    past = d.nbytes >= FAR and C % lanes(D) == 0 and D.ctypes.data % VECTOR_BYTES == 0
    seen = row % H % SH == 0 and row % H // SH < OH
    pixel = 0
    for ow in range(OW if seen else 0):
        _clear(d, (row * W + pixel) * C, (ow * SW - pixel) * C, past)
        pixel = ow * SW + 1
    _clear(d, (row * W + pixel) * C, (W - pixel) * C, past)
    if past:
        fence()


@kernel
def clear_unseen(D, window):
    """Sets to 0 all pixels of D (N, H, W, C) but every SW-th, OW of them, of every SH-th row, OH of these: `window` = (OH, OW, SH, SW).

    Parallel over rows.
    """
    for row in prange(D.shape[0] * D.shape[1]):
        _clear_row(np.int64(row), D, window)
