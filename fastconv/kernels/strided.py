"""What a convolution of 1x1 with a stride does not see: pixels whose gradient is 0."""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.jit import kernel
from fastconv.kernels.processor import VECTOR_BYTES
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import fence, flat, zero, zero_past_caches

FAR = 1 << 23
"""Bytes of an array from which on zeros go past the caches, where few of so many would be found later: 38 MB take a third of the time."""


@apart
def _clear_row(row, D, window):
    """Row `row` of `clear_unseen`, counted over all images."""
    _, H, W, C = D.shape
    (OW, SH, SW), L, d = window, lanes(D), flat(D)
    past = d.nbytes >= FAR and C % L == 0 and D.ctypes.data % VECTOR_BYTES == 0
    pixels, width, step = (1, W, W) if row % H % SH > 0 else (OW, SW - 1, SW)
    for pixel in range(pixels):
        first = pixel * step + step - width
        start, count = (row * W + first) * C, min(width, W - first) * C
        if past:
            zero_past_caches(d, start, count)
        else:
            zero(d, start, count)
    if past:
        fence()


@kernel
def clear_unseen(D, window):
    """Sets to 0 all pixels of D (N, H, W, C) but every SW-th of every SH-th row, OW of them: `window` (OW, SH, SW). Parallel over rows."""
    for row in prange(D.shape[0] * D.shape[1]):
        _clear_row(np.int64(row), D, window)
