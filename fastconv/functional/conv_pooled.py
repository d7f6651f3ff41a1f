"""Gradients of a convolution followed by ReLU and maxima of 2 x 2, from the gradients of the maxima: a part of the algorithm "direct"."""

import functools
import math

from fastconv.functional import conv_direct
from fastconv.functional.conv_tiles import PART_BYTES
from fastconv.functional.linear import PARTS
from fastconv.kernels import conv_pooled
from fastconv.kernels.processor import VECTOR_BYTES
from fastconv.memory import empty

NEAR_BYTES = 1 << 15 if VECTOR_BYTES <= 32 else 3 << 14
"""A list of gradients and the input that they see, which are added up in the first cache."""

SPREAD_BYTES = 1 << 17
"""Up to so much a row of maxima's input is spread out, with a row of the filter's numbers for each column of the output."""

JOB_WORK = 1 << 17
"""Operations of a job of the weight's gradient at least, where there are more than two: each fills panels and a gradient of its own."""

INPUT_BYTES = 1 << 17
"""A job's rows of the input's gradient, which many lists are added to."""

IMAGES = 8
"""Images of such a job, where there are many: small ones take no longer than asking for memory."""

MOST_PICKS = 1 << 31
"""Places in a list are int32."""

FILTER_BYTES = 5 << 18
"""Packed filters that are near when a list picks them: with 256 channels, 4 MB, the input's gradient took four times as long as dense."""


def _row(g, itemsize):
    """Numbers of a row of the filter, up to a whole number of vectors."""
    lanes = VECTOR_BYTES // itemsize
    return -(-g.KW * g.IC // lanes) * lanes


@functools.lru_cache(maxsize=1024)
def fits(g, itemsize):
    """Whether the kernels take the geometry, and not slowly."""
    panel, filter_bytes = (g.OW + g.KW) * (g.KH + 1) * g.IC, math.prod(_input_cut(g, itemsize)[0]) * itemsize
    plain = g.groups == g.SH == g.SW == g.DH == g.DW == 1
    return plain and panel < MOST_PICKS and filter_bytes <= FILTER_BYTES and not conv_direct.unfit(g)


@functools.lru_cache(maxsize=1024)
def _weight_cut(g, itemsize):
    """(shape of the parts, (images, rows, share, apart)) of kernels.conv_pooled.backward_weight."""
    GH, GW, lanes, row = g.OH // 2, g.OW // 2, VECTOR_BYTES // itemsize, _row(g, itemsize)
    apart = g.IC % lanes > 0 and lanes // 2 < g.KW * g.IC and 2 * GW * row * (g.KH + 1) * itemsize <= SPREAD_BYTES
    line = (2 * GW * row if apart else (2 * GW - 1 + g.KW) * g.IC) * itemsize
    listed, overlap = 2 * line + GW * lanes * (itemsize + 4), (g.KH - 1) * line  # bytes of a row of maxima, and of what the next sees too
    rows = -(-GH // -(-GH // max(1, (NEAR_BYTES - overlap) // listed)))
    images = max(1, NEAR_BYTES // (overlap + rows * listed))
    part, vectors = g.OC * (g.KH + 1) * row, -(-g.OC // lanes)
    work = g.flops // 4
    jobs = 1 if work < JOB_WORK else min(PARTS, 2 * max(1, work // (2 * JOB_WORK)))
    splits = max(1, min(jobs, g.N * -(-GH // rows), PART_BYTES // (part * itemsize)))
    share = -(-vectors // -(-jobs // splits))
    return (splits, g.OC, g.KH + 1, row), (images, rows, share, apart)


def backward_weight(g, x, grad_output, argmax):
    """x (N, H, W, IC), grad_output and argmax (N, OH // 2, OW // 2, OC) to OIHW and (OC,)."""
    shape, cut = _weight_cut(g, x.itemsize)
    parts, grad_weight, grad_bias = empty(shape, x.dtype), empty(g.weight_shape, x.dtype), empty((g.OC,), x.dtype)
    conv_pooled.backward_weight(g.flops // 4, x, grad_output, argmax, parts, grad_weight, grad_bias, (g.PT, g.PL), (g.KH, g.KW), *cut)
    return grad_weight, grad_bias


@functools.lru_cache(maxsize=1024)
def _input_cut(g, itemsize):
    """(shape of the packed filters, (images, rows)) of kernels.conv_pooled.backward_input."""
    GH, line = g.OH // 2, (g.OW + g.KW) * g.IC * itemsize
    rows = min(GH, max(2 * g.KH, INPUT_BYTES // (2 * line)))
    return (g.OC, g.KH + 2, _row(g, itemsize)), (max(1, min(IMAGES, g.N // PARTS)), -(-GH // -(-GH // rows)))


def backward_input(g, grad_output, argmax, weight):
    """grad_output and argmax (N, OH // 2, OW // 2, OC), weight OIHW to (N, H, W, IC)."""
    shape, cut = _input_cut(g, weight.itemsize)
    packed, grad_input = empty(shape, weight.dtype), empty((g.N, g.H, g.W, g.IC), weight.dtype)
    conv_pooled.backward_input(g.flops // 4, grad_output, argmax, weight, packed, grad_input, (g.PT, g.PL), (g.KH, g.KW), *cut)
    return grad_input
