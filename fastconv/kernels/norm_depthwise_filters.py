"""The gradient of depthwise filters of 3 x 3 whose input lies in a panel, see norm_depthwise: nine sums stay in registers down a band."""

from fastconv.kernels.jit import device
from fastconv.kernels.norm_depthwise import nine
from fastconv.kernels.vector import fma, lanes
from fastconv.kernels.vector_memory import load, store


@device(forceinline=True)
def _add_three(panel, p, g, s0, s1, s2):
    L = lanes(panel)
    return fma(load(panel, p, L), g, s0), fma(load(panel, p + L, L), g, s1), fma(load(panel, p + 2 * L, L), g, s2)


@device(forceinline=True)
def _add_nine(panel, p, row, g, sums):
    """The nine sums and the products of a vector of gradients with what its filters see, from panel[p] on, rows `row` numbers apart."""
    return (*_add_three(panel, p, g, sums[0], sums[1], sums[2]), *_add_three(panel, p + row, g, sums[3], sums[4], sums[5]),
            *_add_three(panel, p + 2 * row, g, sums[6], sums[7], sums[8]))  # fmt: skip


@device(forceinline=True)
def _add_channels(panel, p, row, step, g, o, OH, OW, C, own, d, to):
    """Adds to d[to:], the gradient (3, 3, C) of a vector of channels, what OH rows of gradients from g[o] on give."""
    L, sums = lanes(panel), nine(d, to, C, own)
    whole = OW - OW % 4
    for oh in range(OH):
        q, at = p + oh * step * row, o + oh * OW * C
        for ow in range(0, whole, 4):  # what several see is loaded once
            for k in range(4):
                sums = _add_nine(panel, q + (ow + k) * step * L, row, load(g, at + (ow + k) * C, own), sums)
        for ow in range(whole, OW):
            sums = _add_nine(panel, q + ow * step * L, row, load(g, at + ow * C, own), sums)
    for k in range(9):
        store(d, to + k * C, sums[k], own)


@device
def add_filters(panel, row, plane, step, g, o, OH, OW, C, d, to):
    """`_add_channels` of all channels; those of a vector have `plane` numbers in the panel."""
    L = lanes(panel)
    whole = C - C % L
    for c in range(0, whole, L):
        _add_channels(panel, c // L * plane, row, step, g, o + c, OH, OW, C, L, d, to + c)
    if whole < C:
        _add_channels(panel, whole // L * plane, row, step, g, o + whole, OH, OW, C, C - whole, d, to + whole)
