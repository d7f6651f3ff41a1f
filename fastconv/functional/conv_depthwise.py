"""Depthwise convolution, one filter a channel: a part of the algorithm "direct"."""

import itertools

import numpy as np

from fastconv.functional.linear import PARTS, sum_parts
from fastconv.functional.phases import phases
from fastconv.kernels import conv_depthwise
from fastconv.memory import empty, zeros


def fits(g):
    """Whether the geometry is depthwise, with one filter for each channel."""
    return g.groups == g.IC == g.OC and g.groups > 1


def forward(g, x, weight, bias):
    """x (N, H, W, C), weight (C, 1, KH, KW), bias (C,) to (N, OH, OW, C)."""
    y = empty((g.N, g.OH, g.OW, g.OC), x.dtype)
    conv_depthwise.convolve(g.flops, x, _channels_inside(weight), y, bias, g.window, g.taps, (1, 1, 0, 0))
    return y


def backward_input(g, grad_output, weight):
    """grad_output (N, OH, OW, C), weight (C, 1, KH, KW) to (N, H, W, C)."""
    filters, dtype = _channels_inside(weight), grad_output.dtype
    rows, columns = phases(g.H, g.KH, g.SH, g.DH, g.PT), phases(g.W, g.KW, g.SW, g.DW, g.PL)
    by_two = (g.KW, g.SW, g.DW) == (3, 2, 1)
    untouched = any(phase.taps == 0 for phase in (rows if by_two else rows + columns))  # input that no kernel writes
    grad_input = (zeros if untouched else empty)((g.N, g.H, g.W, g.IC), dtype)
    rows, columns = ([phase for phase in axis if phase.taps] for axis in (rows, columns))
    if by_two:
        for row in rows:
            backwards = np.ascontiguousarray(filters[row.own][::-1])
            work, window = 2 * g.N * row.count * g.W * row.taps * g.IC, (row.count, row.padding, g.PL)
            conv_depthwise.backward_input_by_two(
                work, grad_output, backwards, grad_input, window, (row.taps, row.dilation), (g.SH, row.first)
            )
        return grad_input
    bias = np.zeros(g.IC, dtype)
    for row, column in itertools.product(rows, columns):
        backwards = np.ascontiguousarray(filters[row.own, column.own][::-1, ::-1])
        work, window = 2 * g.N * row.count * column.count * backwards.size, (row.count, column.count, 1, 1, row.padding, column.padding)
        taps, place = (row.taps, column.taps, row.dilation, column.dilation), (g.SH, g.SW, row.first, column.first)
        conv_depthwise.convolve(work, grad_output, backwards, grad_input, bias, window, taps, place)
    return grad_input


def backward_weight(g, x, grad_output):
    """x (N, H, W, C), grad_output (N, OH, OW, C) to (C, 1, KH, KW)."""
    parts = empty((max(1, min(PARTS, g.N * g.OH)), g.KH, g.KW, g.IC), x.dtype)
    conv_depthwise.backward_weight(g.flops, x, grad_output, parts, g.window, g.taps)
    return np.ascontiguousarray(sum_parts(parts).transpose(2, 0, 1)).reshape(g.weight_shape)


def _channels_inside(weight):
    """(C, 1, KH, KW) as (KH, KW, C)."""
    return np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0))
