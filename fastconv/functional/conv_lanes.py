"""Convolutions of few channels, whose vectors are images: a part of the algorithm "direct"."""

import functools
import math

import numpy as np

from fastconv.functional.arrays import c_order, swapped, taps_first
from fastconv.functional.conv_few import weight_cost
from fastconv.functional.linear import PARTS, sum_parts
from fastconv.kernels import conv_lanes, conv_lanes_weight
from fastconv.kernels.processor import VECTOR_BYTES
from fastconv.memory import empty

FEWEST_ROWS = 4
"""Rows of a tile, which are output channels: one of fewer takes as long, since it waits for its own sums."""

BLOCK_BYTES, PANEL_BYTES = 128, VECTOR_BYTES << 14
"""Channels that a job reads at a time; and what it reads of them and writes, which stays in L2, or takes twice that if rows are long."""

SHORT_ROW, POOLED_BYTES = 8, 1 << 18
"""Numbers under a row of the filter up to which lanes are images before ReLU and maxima: 5 of LeNet's first layer, 470 against 140 us for
64 images. And what the larger one of a job's two arrays takes there."""


TRANSPOSING, SUM_BYTES, GRADIENT_BYTES = 8, 1 << 15, 3 << 13
"""Of the weight's gradient: what transposing a number of a vector's images costs, in multiplications; all its sums; and the rows of the
output's gradient that a job takes at a time. Both stay in L1, as each tap of the filter reads these rows once more."""


def _fills(N, channels, itemsize):
    """Whether N images fill vectors better than `channels` output channels do."""
    lanes = VECTOR_BYTES // itemsize
    return -(-N // lanes) * lanes * max(channels, FEWEST_ROWS) < lanes * N


def _block(C, itemsize):
    """How many of C channels a job reads at a time."""
    return -(-C // -(-C * itemsize // BLOCK_BYTES))


def _row_bytes(channels, OC, window, taps):
    """Bytes of a row of the panel of so many channels, and of a row of outputs."""
    (_, OW, _, SW, _, _), KW = window, taps[1]
    return (((OW - 1) * SW + KW) * channels + OW * OC) * VECTOR_BYTES


def _short(channels, OC, window, taps):
    """Whether the rows that one row of outputs sees are no more than a job may hold."""
    return ((taps[0] - 1) * taps[2] + 1) * _row_bytes(channels, OC, window, taps) <= 2 * PANEL_BYTES


@functools.lru_cache(maxsize=1024)
def fits_forward(g, itemsize):
    """Whether the forward pass takes fewer vectors so."""
    few = g.groups == g.DW == 1 < g.KH * g.KW and _fills(g.N, g.OC, itemsize)
    return few and _short(_block(g.IC, itemsize), g.OC, g.window, g.taps)


@functools.lru_cache(maxsize=1024)
def fits_input(g, itemsize):
    """Whether the kernel takes the geometry for the input gradient. With a stride, each of its phases would read all images again."""
    plain = g.groups == g.DW == g.SH == g.SW == 1 < g.KH * g.KW
    return plain and _short(_block(g.OC, itemsize), g.IC, _turned_window(g), g.taps)


@functools.lru_cache(maxsize=1024)
def fits_relu_max(g, itemsize):
    """Whether the numbers under a row of the filter make no sum worth another tile, as in a first layer, before ReLU and maxima.

    Channels must be one block, or sums would run in another order than those of the forward pass.
    """
    lanes = VECTOR_BYTES // itemsize
    few = g.groups == g.DW == 1 and g.KW * g.IC <= SHORT_ROW and g.IC <= lanes <= g.N
    return few and _short(g.IC, g.OC, g.window, g.taps)


@functools.lru_cache(maxsize=1024)
def fits_weight(g, itemsize):
    """Whether the weight gradient takes fewer vectors so than with rows of the filter, or output channels, as vectors.

    Counted as in conv_few, for the images of a vector; transposing a number costs TRANSPOSING.
    """
    lanes, numbers = VECTOR_BYTES // itemsize, g.KH * g.KW * g.IC
    own = -(-g.N // lanes) * lanes / g.N * (numbers * max(g.OC, 8) + TRANSPOSING * (g.IC + g.OC)) if g.N else math.inf
    rows, channels = lanes * weight_cost(g, itemsize), lanes * numbers * -(-g.OC // lanes)
    few = g.groups == g.DW == 1 < g.KH * g.KW and numbers * g.OC * VECTOR_BYTES <= SUM_BYTES
    return few and own < min(rows, channels) and _short(g.IC, g.OC, g.window, g.taps)


def reorders(g, itemsize):
    """Whether the forward pass goes this way and may sum up its channels in another order than the ways fused with ReLU and maxima."""
    return fits_forward(g, itemsize) and g.IC * itemsize > BLOCK_BYTES


def _turned_window(g):
    """The window of the convolution that is the input gradient."""
    return g.H, g.W, 1, 1, (g.KH - 1) * g.DH - g.PT, g.KW - 1 - g.PL


@functools.lru_cache(maxsize=1024)
def _cut(N, C, OC, window, taps, itemsize):
    """(channels that a job reads at a time, output rows of a job)."""
    OH, SH, channels = window[0], window[2], _block(C, itemsize)
    most = max(1, (PANEL_BYTES // _row_bytes(channels, OC, window, taps) - (taps[0] - 1) * taps[2] - 1) // SH + 1)
    groups = -(-N * itemsize // VECTOR_BYTES)
    return channels, -(-OH // max(-(-OH // most), min(OH, -(-PARTS // groups))))


def _convolve(g, x, filters, y, bias, window):
    """x (N, H, W, C) with filters (OC, KH, KW, C) into y (N, OH, OW, OC)."""
    cut = _cut(g.N, x.shape[3], y.shape[3], window, g.taps, x.itemsize)
    conv_lanes.convolve(g.flops, x, filters, y, bias, window, g.taps, *cut)
    return y


def forward(g, x, weight, bias):
    """x (N, H, W, IC), weight OIHW, bias (OC,) to (N, OH, OW, OC)."""
    return _convolve(g, x, taps_first(weight), empty((g.N, g.OH, g.OW, g.OC), x.dtype), bias, g.window)


def backward_input(g, grad_output, weight):
    """grad_output (N, OH, OW, OC), weight OIHW to (N, H, W, IC): the convolution with the filters turned by 180 degrees."""
    turned = c_order(weight[:, :, ::-1, ::-1].transpose(1, 2, 3, 0))
    grad_input = empty((g.N, g.H, g.W, g.IC), grad_output.dtype)
    return _convolve(g, grad_output, turned, grad_input, np.zeros(g.IC, grad_output.dtype), _turned_window(g))


def backward_weight(g, x, grad_output):
    """x (N, H, W, IC), grad_output (N, OH, OW, OC) to OIHW."""
    rows = max(1, min(g.OH, GRADIENT_BYTES // (g.OW * g.OC * VECTOR_BYTES)))
    units = -(-g.N * x.itemsize // VECTOR_BYTES) * -(-g.OH // rows)
    parts = empty((max(1, min(PARTS, units)), g.OC, g.KH, g.KW * g.IC), x.dtype)
    conv_lanes_weight.backward_weight(g.flops, x, grad_output, parts, g.window, g.taps, rows)
    return swapped(sum_parts(parts), (g.OC, g.KH * g.KW, g.IC), g.weight_shape)


def forward_relu_max(g, x, weight, bias, argmax):
    """As `forward`, then ReLU and maxima of 2 x 2 with stride 2: (N, OH // 2, OW // 2, OC); argmax as in pool.relu_max_halves."""
    y = empty(g.halves_in_memory, x.dtype)
    conv_lanes.convolve_relu_max(g.flops, x, taps_first(weight), y, argmax, bias, *_relu_max_cut(g))
    return y


@functools.lru_cache(maxsize=1024)
def _relu_max_cut(g):
    """(window, taps, rows) of kernels.conv_lanes.convolve_relu_max."""
    window = (g.OH // 2 * 2, g.OW // 2 * 2, *g.window[2:])  # without a last row or column that no maximum sees
    return window, g.taps, _pooled_rows(window[1] * max(g.OC, g.IC) * VECTOR_BYTES, window[0])


def _pooled_rows(row_bytes, OH):
    """Rows of a job, an even number."""
    rows = max(2, min(OH, POOLED_BYTES // row_bytes // 2 * 2))
    parts = -(-OH // rows)
    return -(-OH // (2 * parts)) * 2
