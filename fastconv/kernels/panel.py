"""Panels: the part of an image that a job reads, copied, with the padding around it made real."""

from numba.core import types
from numba.extending import intrinsic

from fastconv.kernels.apart import Apart
from fastconv.kernels.jit import device
from fastconv.kernels.tiles import call_apart
from fastconv.kernels.vector_memory import copy, zero


@device
def clip(start, step, count, size):
    """The part [low, high) of 0 <= i < count with 0 <= start + i*step < size."""
    low = 0 if start >= 0 else min(count, (-start + step - 1) // step)
    high = 0 if start >= size else min(count, (size - 1 - start) // step + 1)
    return low, max(low, high)


def _fill_panel(panel, x, n, ih0, rows, H, W, C, c0, channels, BC, left, width):
    first, last = min(width, max(0, left)), max(0, min(width, W + left))  # columns of the panel that show the image
    p = 0
    for ih in range(ih0, ih0 + rows):
        if ih < 0 or ih >= H:
            zero(panel, p, width * BC)
        else:
            source = ((n * H + ih) * W + first - left) * C + c0
            zero(panel, p, first * BC)
            if channels == C:  # the row is one run
                copy(x, source, panel, p + first * BC, (last - first) * C)
            else:
                if channels < BC:
                    zero(panel, p + first * BC, (last - first) * BC)
                for column in range(first, last):
                    copy(x, source, panel, p + column * BC, channels)
                    source += C
            zero(panel, p + max(first, last) * BC, (width - max(first, last)) * BC)
        p += width * BC


PANEL = Apart(_fill_panel, "pp" + "i" * 11)


@intrinsic
def fill_panel(typingctx, panel, p, x, i, n, ih0, rows, H, W, C, c0, channels, BC, left, width):
    """Channels c0 .. c0 + channels of rows ih0 .. ih0 + rows of image n of x[i] (N, H, W, C) into panel[p] (rows, width, BC).

    Column 0 of the panel is column -left of the image; what lies outside the image or beyond the channels becomes 0.
    """
    return call_apart(PANEL, (panel, types.intp, x, *[types.intp] * 12), x)
