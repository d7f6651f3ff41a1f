"""Panels: the part of an image that a job reads, copied, with the padding around it made real."""

from numba.core import types
from numba.extending import intrinsic

from fastconv.kernels.apart import Apart
from fastconv.kernels.jit import device
from fastconv.kernels.tiles import call_apart
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import copy, load, store, zero


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


def _fill_panels(panel, size, x, n, ih0, rows, H, W, C, c0, channels, BC, left, width):
    first, last, L = min(width, max(0, left)), max(0, min(width, W + left)), lanes(x)
    whole, panels = channels // L if BC == L else 0, (channels + BC - 1) // BC
    for ih in range(ih0, ih0 + rows):
        p = (ih - ih0) * width * BC
        if ih < 0 or ih >= H:
            for k in range(panels):
                zero(panel, p + k * size, width * BC)
            continue
        for k in range(panels):
            zero(panel, p + k * size, first * BC)
            zero(panel, p + k * size + max(first, last) * BC, (width - max(first, last)) * BC)
        source = ((n * H + ih) * W + first - left) * C + c0
        for column in range(first, last):
            i, q = source + (column - first) * C, p + column * BC
            for k in range(whole):
                store(panel, q + k * size, load(x, i + k * L, L), L)
            for k in range(whole, panels):
                store(panel, q + k * size, load(x, i + k * BC, min(BC, channels - k * BC)), BC)


PANEL = Apart(_fill_panel, "pp" + "i" * 11)
PANELS = Apart(_fill_panels, "pip" + "i" * 11)


@intrinsic
def fill_panel(typingctx, panel, p, x, i, n, ih0, rows, H, W, C, c0, channels, BC, left, width):
    """Channels c0 .. c0 + channels of rows ih0 .. ih0 + rows of image n of x[i] (N, H, W, C) into panel[p] (rows, width, BC).

    Column 0 of the panel is column -left of the image; what lies outside the image or beyond the channels becomes 0.
    """
    return call_apart(PANEL, (panel, types.intp, x, *[types.intp] * 12), x)


@intrinsic
def fill_panels(typingctx, panel, p, size, x, i, n, ih0, rows, H, W, C, c0, channels, BC, left, width):
    """As `fill_panel`, for blocks of BC channels, at most a vector, each into a panel of its own, `size` numbers after the one before."""
    return call_apart(PANELS, (panel, types.intp, types.intp, x, *[types.intp] * 12), x)
