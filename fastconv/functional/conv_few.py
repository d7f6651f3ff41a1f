"""Gradients of convolutions of few channels, whose vectors are rows of the filter: a part of the algorithm "direct"."""

from fastconv.functional.arrays import swapped, taps_first
from fastconv.functional.linear import PARTS, sum_parts
from fastconv.kernels import conv_few
from fastconv.kernels.processor import VECTOR_BYTES
from fastconv.memory import empty

PIXELS, NUMBERS, MOST_NUMBERS = 1 << 10, 1 << 16, 1 << 20
"""Output pixels of a block of rows, and about how many numbers of the input at most; no row may need more than MOST_NUMBERS."""


def fits_input(g):
    """Whether the kernel takes the geometry."""
    return g.groups == g.DW == 1


def weight_cost(g, itemsize):
    """Multiplications of vectors for each output pixel of the weight gradient, with rows of the filter as vectors and output channels as
    rows of the tile. A tile of fewer than 8 vectors waits for its own sums, and vectors up to half full count half."""
    lanes, run = VECTOR_BYTES // itemsize, g.KW * g.IC
    return g.KH * -(-2 * run // lanes) / 2 * max(g.OC, 8 / min(2, -(-run // lanes)))


def fits_weight(g, itemsize):
    """Whether the weight gradient is cheaper so than with output channels as vectors: with few input channels, or few output channels."""
    lanes, run = VECTOR_BYTES // itemsize, g.KW * g.IC
    vectors = -(-g.OC // lanes)
    short = ((g.KH - 1) * g.DH + 1) * ((g.OW - 1) * g.SW + g.KW) * g.IC <= MOST_NUMBERS
    cheaper = weight_cost(g, itemsize) < g.KH * vectors * max(run, 8 / min(2, vectors))
    return short and g.groups == g.DW == 1 and lanes > min(g.IC, g.OC) and cheaper


def backward_input(g, grad_output, weight):
    """grad_output (N, OH, OW, OC), weight OIHW to (N, H, W, IC)."""
    grad_input = empty((g.N, g.H, g.W, g.IC), grad_output.dtype)
    filters = taps_first(weight).reshape(g.OC, g.KH, -1)
    conv_few.backward_input(g.flops, grad_output, filters, grad_input, g.window, g.taps)
    return grad_input


def backward_weight(g, x, grad_output):
    """x (N, H, W, IC), grad_output (N, OH, OW, OC) to OIHW."""
    rows = max(1, min(g.OH, min(PIXELS, NUMBERS // g.IC) // g.OW))
    splits = max(1, min(PARTS, g.N * -(-g.OH // rows)))
    parts = empty((splits, g.OC, g.KH, g.KW * g.IC), x.dtype)
    conv_few.backward_weight(g.flops, x, grad_output, parts, g.window, g.taps, rows)
    return swapped(sum_parts(parts), (g.OC, g.KH * g.KW, g.IC), g.weight_shape)
