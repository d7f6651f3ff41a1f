"""Convolution in groups of a few channels: a part of the algorithm "direct"."""

import numpy as np

from fastconv.functional.arrays import c_order
from fastconv.functional.linear import PARTS, sum_parts
from fastconv.kernels import conv_grouped, host
from fastconv.kernels.processor import VECTOR_BYTES
from fastconv.memory import empty

CHANNELS = (2, 4, 8)
"""Channels of a group."""


def fits(g, itemsize):
    """Whether the geometry has such groups, in whole vectors, and filters three wide that move by one."""
    lanes, channels = VECTOR_BYTES // itemsize, g.IC // g.groups
    few = g.IC == g.OC and channels in CHANNELS and channels <= lanes and g.IC % lanes == 0
    return few and (g.KW, g.SH, g.SW, g.DW) == (3, 1, 1, 1)


def forward(g, x, weight, bias):
    """x (N, H, W, C), weight (C, C / groups, KH, 3), bias (C,) to (N, OH, OW, C)."""
    y = empty((g.N, g.OH, g.OW, g.OC), x.dtype)
    conv_grouped.convolve(g.flops, x, _packed(weight), y, bias, (g.OH, g.OW, g.PT, g.PL), (g.KH, g.DH))
    return y


def backward_input(g, grad_output, weight):
    """grad_output (N, OH, OW, C), weight (C, C / groups, KH, 3) to (N, H, W, C): the convolution with the filters turned by 180 degrees."""
    own = g.IC // g.groups
    turned = weight.reshape(g.groups, own, own, g.KH, g.KW)[:, :, :, ::-1, ::-1].transpose(0, 2, 1, 3, 4).reshape(weight.shape)
    grad_input = empty((g.N, g.H, g.W, g.IC), grad_output.dtype)
    window = g.H, g.W, (g.KH - 1) * g.DH - g.PT, g.KW - 1 - g.PL
    conv_grouped.convolve(g.flops, grad_output, _packed(turned), grad_input, np.zeros(g.IC, weight.dtype), window, (g.KH, g.DH))
    return grad_input


def backward_weight(g, x, grad_output):
    """x (N, H, W, C), grad_output (N, OH, OW, C) to (C, C / groups, KH, 3)."""
    lanes = VECTOR_BYTES // x.itemsize
    splits = max(1, min(PARTS, g.N * g.OH))
    parts = empty((splits, g.IC // lanes, g.KH, g.IC // g.groups, g.KW, lanes), x.dtype)
    conv_grouped.backward_weight(g.flops, x, grad_output, parts, (g.OH, g.OW, g.PT, g.PL), (g.KH, g.DH))
    return c_order(sum_parts(parts).transpose(0, 4, 2, 1, 3)).reshape(g.weight_shape)


def _packed(weight):
    """(C, C / groups, KH, 3) as (C / lanes, KH, C / groups, 3, lanes)."""
    C, own, KH, KW = weight.shape
    lanes = VECTOR_BYTES // weight.itemsize
    packed = empty((C // lanes, KH, own, KW, lanes), weight.dtype)  # at the start of a cache line, as vectors had better be
    host.copy(0, packed, weight.reshape(C // lanes, lanes, own, KH, KW).transpose(0, 3, 2, 4, 1))
    return packed
