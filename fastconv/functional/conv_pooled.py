"""Gradients of a convolution followed by ReLU and maxima of 2 x 2, from the gradients of the maxima: a part of the algorithm "direct"."""

from fastconv.functional.conv_direct import PARTS, window_and_taps
from fastconv.kernels import conv_pooled
from fastconv.kernels.simd import VECTOR_BYTES
from fastconv.memory import empty

PANEL_BYTES = 1 << 15
"""Input that the gradients of one list see: half of a small L1 cache."""


def _row(g, itemsize):
    """Numbers of a row of the filter, up to a whole number of vectors."""
    lanes = VECTOR_BYTES // itemsize
    return -(-g.KW * g.IC // lanes) * lanes


def fits(g):
    """Whether the kernels take the geometry."""
    return g.groups == g.SH == g.SW == g.DH == g.DW == 1


def backward_weight(g, x, grad_output, argmax):
    """x (N, H, W, IC), grad_output and argmax (N, OH // 2, OW // 2, OC) to OIHW and (OC,)."""
    window, taps = window_and_taps(g)
    GH, GW = grad_output.shape[1:3]
    lanes, row = VECTOR_BYTES // x.itemsize, _row(g, x.itemsize)
    apart = g.IC % lanes > 0 and lanes // 2 < g.KW * g.IC
    line = (2 * GW * row if apart else ((2 * GW - 1) * g.SW + g.KW) * g.IC) * x.itemsize
    rows = max(1, min(GH, (PANEL_BYTES // line - (g.KH - 1) * g.DH - 1 + g.SH) // (2 * g.SH)))
    images = max(1, PANEL_BYTES // (line * ((2 * rows - 1) * g.SH + (g.KH - 1) * g.DH + 1)))
    splits = max(1, min(PARTS, g.N * -(-GH // rows)))
    parts = empty((splits, g.OC, g.KH + 1, row), x.dtype)
    conv_pooled.backward_weight(g.flops // 4, x, grad_output, argmax, parts, window, taps, images, rows, apart)
    grad_weight, grad_bias = empty(g.weight_shape, x.dtype), empty((g.OC,), x.dtype)
    conv_pooled.unpack(2 * parts.size, parts, grad_weight, grad_bias)
    return grad_weight, grad_bias


def backward_input(g, grad_output, argmax, weight):
    """grad_output and argmax (N, OH // 2, OW // 2, OC), weight OIHW to (N, H, W, IC)."""
    packed = empty((2, g.OC, g.KH + 1, _row(g, weight.itemsize)), weight.dtype)
    conv_pooled.pack(weight.size, weight, packed)
    grad_input = empty((g.N, g.H, g.W, g.IC), weight.dtype)
    conv_pooled.backward_input(g.flops // 4, grad_output, argmax, packed, grad_input, *window_and_taps(g))
    return grad_input
