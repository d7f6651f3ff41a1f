"""Depthwise convolution, one filter a channel: a part of the algorithm "direct"."""

import functools
import itertools
import math

import numpy as np

from fastconv.functional.arrays import c_order, swapped, zeros
from fastconv.functional.linear import PARTS, sum_parts
from fastconv.functional.phases import phases
from fastconv.kernels import conv_depthwise, conv_depthwise_weight
from fastconv.kernels.processor import VECTOR_BYTES
from fastconv.memory import empty


def fits(g):
    """Whether the geometry is depthwise, with one filter for each channel."""
    return g.groups == g.IC == g.OC and g.groups > 1


PANEL_BYTES = 1 << 17
"""A job's copy of the rows that it needs of a vector of channels."""


@functools.lru_cache(maxsize=4096)
def _by_four(W, window, taps):
    """Whether a filter is three wide, and four pixels of a row or more see all of its columns, or none hangs far over the border."""
    (_, OW, _, SW, _, PL), (_, KW, _, DW) = window, taps
    first, last = -(-max(0, PL) // SW), min(OW, (W - 1 - (KW - 1) * DW + PL) // SW + 1)
    return KW == 3 and (last - first >= 4 or DW == 1)


def copies(g):
    """Whether rows are copied, with all of their padding."""
    return not _by_four(g.W, g.window, g.taps)


@functools.lru_cache(maxsize=4096)
def _rows(window, taps):
    """Output rows of a job: even parts, whose panels have PANEL_BYTES, or twice as many rows as the filter."""
    (OH, OW, SH, SW, _, _), (KH, KW, DH, DW) = window, taps
    fitting = PANEL_BYTES // (((OW - 1) * SW + (KW - 1) * DW + 1) * VECTOR_BYTES)
    rows = max(1, (max(fitting, 2 * KH) - (KH - 1) * DH - 1) // SH + 1)
    return -(-OH // -(-OH // rows))


def _convolve(work, x, filters, y, bias, window, taps, place):
    if _by_four(x.shape[2], window, taps):
        conv_depthwise.convolve_by_four(work, x, filters, y, bias, window, taps, place)
    else:
        conv_depthwise.convolve(work, x, filters, y, bias, window, taps, place, _rows(window, taps))


def forward(g, x, weight, bias):
    """x (N, H, W, C), weight (C, 1, KH, KW), bias (C,) to (N, OH, OW, C)."""
    y = empty((g.N, g.OH, g.OW, g.OC), x.dtype)
    _convolve(g.flops, x, channels_inside(weight), y, bias, g.window, g.taps, (1, 1, 0, 0))
    return y


def backward_input(g, grad_output, weight):
    """grad_output (N, OH, OW, C), weight (C, 1, KH, KW) to (N, H, W, C)."""
    filters, dtype = channels_inside(weight), grad_output.dtype
    if (g.KW, g.SW, g.DW) == (3, 2, 1):
        grad_input = empty((g.N, g.H, g.W, g.IC), dtype)
        window, taps = (g.SH, g.PT, g.PL), (g.KH, g.DH, g.SH // math.gcd(g.SH, g.DH))
        conv_depthwise.backward_input_by_two(g.flops, grad_output, filters, grad_input, window, taps)
        return grad_input
    rows, columns = phases(g.H, g.KH, g.SH, g.DH, g.PT), phases(g.W, g.KW, g.SW, g.DW, g.PL)
    untouched = any(phase.taps == 0 for phase in rows + columns)  # input that no kernel writes
    grad_input = (zeros if untouched else empty)((g.N, g.H, g.W, g.IC), dtype)
    rows, columns = ([phase for phase in axis if phase.taps] for axis in (rows, columns))
    bias = np.zeros(g.IC, dtype)
    for row, column in itertools.product(rows, columns):
        backwards = c_order(filters[row.own, column.own][::-1, ::-1])
        work, window = 2 * g.N * row.count * column.count * backwards.size, (row.count, column.count, 1, 1, row.padding, column.padding)
        taps, place = (row.taps, column.taps, row.dilation, column.dilation), (g.SH, g.SW, row.first, column.first)
        _convolve(work, grad_output, backwards, grad_input, bias, window, taps, place)
    return grad_input


def backward_weight(g, x, grad_output):
    """x (N, H, W, C), grad_output (N, OH, OW, C) to (C, 1, KH, KW)."""
    parts = empty((max(1, min(PARTS, g.N * g.OH)), g.KH, g.KW, g.IC), x.dtype)
    conv_depthwise_weight.backward_weight(g.flops, x, grad_output, parts, g.window, g.taps)
    return in_order(sum_parts(parts), g)


def channels_inside(weight):
    """(C, 1, KH, KW) as (KH, KW, C)."""
    C, _, KH, KW = weight.shape
    return swapped(weight, (1, C, KH * KW), (KH, KW, C))


def in_order(filters, g):
    """(KH, KW, C) as (C, 1, KH, KW)."""
    return swapped(filters, (1, g.KH * g.KW, g.IC), g.weight_shape)
