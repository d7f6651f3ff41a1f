"""The algorithm "winograd", F(4x4, 3x3), also with stride 2, F(3x3, 4x4) and F(2x2, 5x5): how its work is cut.

Other strides become channels (functional.space_to_depth): a filter of 11 x 11 with stride 4 is one of 3 x 3 that sees 16 times as many.

Weights are transformed for each call. A training step uses each weight once forward and, turned, once backward: there is nothing to keep
between calls but for evaluation, where nobody tells when a weight changes.
"""

import functools

import numpy as np

from fastconv.functional.arrays import whole
from fastconv.functional.linear import sum_parts
from fastconv.functional.pool import relu_max_halves
from fastconv.functional.space_to_depth import filters_from_depth, filters_to_depth, images_from_depth, images_to_depth
from fastconv.functional.winograd_geometry import (
    JOBS,
    backward_tiling,
    channels_of,
    count_tiles,
    deepened,
    filters_shared,
    forward_tiling,
    is_strided,
    rows_of,
    stride_of,
    unfit,
)
from fastconv.kernels import conv_winograd, conv_winograd_few, winograd_blocks, winograd_filters, winograd_tiling
from fastconv.kernels.jit import get_num_threads
from fastconv.kernels.processor import L2_BYTES, VECTOR_BYTES
from fastconv.kernels.simd import MAX_ROWS
from fastconv.kernels.winograd_tiling import ELEMENTS, LINE
from fastconv.memory import empty

__all__ = ["backward_input", "backward_weight", "forward", "forward_relu_max", "unfit"]

NO_ARGMAX = np.empty((0, 0, 0, 0), np.uint8)
"""The argmax of a convolution without maxima, as kernels take it."""

LARGE_L2 = VECTOR_BYTES == 64
"""Whether L2 holds 1 or 2 MB, as with most processors of long vectors, and not half of that."""

BLOCK_BYTES, WIDE_BYTES, FILTER_BYTES = 1 << 18, (1 << 19 if 0 < L2_BYTES < 1 << 21 else 1 << 21) if LARGE_L2 else 1 << 18, 3 << 20
"""Transformed input of a job; and where FILTER_BYTES of transformed weights, more than L2 holds, should be read seldom: 2 MB, or
0.5 where L2 is smaller than that, which is 2 % faster on a Zen 4."""

FEWEST, MOST, MOST_WIDE = (2 * MAX_ROWS, 8 * MAX_ROWS, 4 * MAX_ROWS) if LARGE_L2 else (48, 96, 96)
"""Tiles of a job, and where these take WIDE_BYTES."""

SPAN_BYTES = 1 << 20 if LARGE_L2 else 1 << 18
"""Products of a job before they are transformed: of many vectors, which then read the transformed input less often (5 to 20 %)."""

SHARE = 32
"""Output channels at least of each of the jobs that share them; all transform the same input."""

HALVED = 2
"""Where filters take FILTER_BYTES, and no more than so many tiles meet each, jobs share these in two halves, and one thread of two reads
what it has transformed itself: lines that another has just written take longer to come than tiles to be transformed twice."""

DEPTH = 256
"""Where jobs share the filters they transform those of so many summed channels at a time."""

WEIGHT_DEPTH, WEIGHT_WIDE, WEIGHT_BYTES, MOST_WEIGHT = 128, 256, 7 << 18, 56
"""Input and output channels of a job of a weight's gradient, and what it transforms of them at once: so many bytes, so many tiles at most.

More channels are transformed less often, more tiles change the sums less often."""

WEIGHT_NARROW = 64
"""Output channels of a job at least, where fewer make jobs for more threads."""

WEIGHT_JOBS, SPLIT = 8, 192
"""Up to so many jobs are made by splitting the tiles, so many tiles for each: a split's sums take as long on their way back as some ten."""


@functools.lru_cache(maxsize=1024)
def _groups(g):
    """For each group of channels: which filters are its own, its input channels and its output channels, as (first, how many)."""
    IC, OC = channels_of(g)
    return tuple((slice(k * OC, (k + 1) * OC), (k * IC, IC), (k * OC, OC)) for k in range(g.groups))


def _even(n):
    """An even number, for vectors that are taken by twos and blocks that two threads share."""
    return n + n % 2


def _block(rows, channels, itemsize, size, most):
    """Tiles, `most` at most, that a job transforms at once: as many as take `size` bytes."""
    return max(FEWEST, min(most, size // (rows * channels * itemsize)))


@functools.lru_cache(maxsize=1024)
def _cut(T, rows, IC, vectors, itemsize):
    """(blocks, share, span) of kernels.conv_winograd.convolve for `T` tiles and `vectors` vectors of output channels."""
    wide = ELEMENTS * IC * vectors * VECTOR_BYTES >= FILTER_BYTES
    blocks = -(-T // _block(rows, IC, itemsize, *((WIDE_BYTES, MOST_WIDE) if wide else (BLOCK_BYTES, MOST))))
    if blocks > JOBS:
        blocks = _even(blocks)
    least = max(1, SHARE * itemsize // VECTOR_BYTES)
    shares = min(-(-JOBS // blocks), max(1, vectors // least)) if blocks else 1
    halves = wide and shares == 1 and T * itemsize <= HALVED * vectors * VECTOR_BYTES
    share = -(-vectors // 2) if halves else _even(-(-vectors // shares))
    vector_bytes = rows * max(1, -(-T // max(1, blocks))) * VECTOR_BYTES
    return blocks, share, max(2, min(share, SPAN_BYTES // vector_bytes // 2 * 2))


def _convolve(x, weight, by_input, y, argmax, bias, low, pooled, tiling, group):
    """One group of channels of x to its channels of y, group = (first, how many, first, how many); weight is the group's."""
    first, IC, _, OC = group
    T, rows = count_tiles(len(x), tiling), rows_of(tiling)
    work = 2 * rows * T * IC * OC
    if filters_shared(T, OC, x.itemsize):
        depth = min(DEPTH, IC)
        V = _transformed(x, T, tiling, depth, first, IC)
        conv_winograd_few.convolve_few(work, V, weight, y, argmax, bias, low, pooled, tiling, group, by_input, depth)
    else:
        lanes = VECTOR_BYTES // x.itemsize
        U = empty((-(-OC // lanes), ELEMENTS, IC * lanes + LINE), x.dtype)
        winograd_filters.transform_weight(16 * weight.size, weight, U, by_input, is_strided(tiling))
        cut = _cut(T, rows, IC, U.shape[0], x.itemsize)
        conv_winograd.convolve(work, x, U, y, argmax, bias, low, pooled, tiling, group, *cut)


def _transformed(x, T, tiling, depth, channel, C):
    """All `T` tiles of C channels of x (N, H, W, ...) from `channel` on, `depth` of them at a time."""
    stride = winograd_tiling.padded.py_func(depth, VECTOR_BYTES // x.itemsize)
    V = empty((-(-C // depth), rows_of(tiling), T * stride + LINE), x.dtype)
    winograd_blocks.transform_tiles(16 * V.size, x, V, tiling, depth, channel, channel + C)
    return V


def _forward(g, x, weight, y, argmax, bias, low, pooled, tiling):
    for filters, inputs, outputs in _groups(g):
        _convolve(x, weight[filters], False, y, argmax, bias, low, pooled, tiling, (*inputs, *outputs))
    return y


def forward(g, x, weight, bias, relu=False):
    """x (N, H, W, IC), weight OIHW, bias (OC,) to (N, OH, OW, OC); with `relu`, ReLU of it."""
    if deepened(g):
        return forward(deepened(g), images_to_depth(g, x), filters_to_depth(g, weight), bias, relu)
    y, low = empty((g.N, g.OH, g.OW, g.OC), x.dtype), 0.0 if relu else -np.inf
    return _forward(g, x, weight, y, NO_ARGMAX, bias, low, False, forward_tiling(g, g.OH, g.OW))


def forward_relu_max(g, x, weight, bias, argmax):
    """As `forward`, then ReLU and maxima of 2 x 2 with stride 2: (N, OH // 2, OW // 2, OC); argmax as in pool.relu_max_halves."""
    if deepened(g):
        return forward_relu_max(deepened(g), images_to_depth(g, x), filters_to_depth(g, weight), bias, argmax)
    if g.DH * g.DW > 1 or stride_of(g) > 1 or g.KH == 4:  # neighbours do not lie in one tile, or it has no maxima
        return relu_max_halves(forward(g, x, weight, bias), argmax)
    y = empty((g.N, g.OH // 2, g.OW // 2, g.OC), x.dtype)
    return _forward(g, x, weight, y, argmax, bias, -np.inf, True, forward_tiling(g, g.OH // 2 * 2, g.OW // 2 * 2))


def backward_input(g, grad_output, weight):
    """grad_output (N, OH, OW, OC), weight OIHW to (N, H, W, IC): the convolution with the filters turned by 180 degrees."""
    if deepened(g):
        return images_from_depth(g, backward_input(deepened(g), grad_output, filters_to_depth(g, weight)))
    d, no_bias, tiling = empty((g.N, g.H, g.W, g.IC), grad_output.dtype), np.zeros(g.IC, grad_output.dtype), backward_tiling(g)
    for filters, inputs, outputs in _groups(g):
        _convolve(grad_output, weight[filters], True, d, NO_ARGMAX, no_bias, -np.inf, False, tiling, (*outputs, *inputs))
    return d


def backward_weight(g, x, grad_output):
    """x (N, H, W, IC), grad_output (N, OH, OW, OC) to OIHW."""
    if deepened(g):
        return filters_from_depth(g, backward_weight(deepened(g), images_to_depth(g, x), grad_output))
    tiling, grad_weight = forward_tiling(g, g.OH, g.OW), empty(g.weight_shape, x.dtype)
    for filters, inputs, outputs in _groups(g):
        _weight_gradient(x, grad_output, grad_weight[filters], tiling, (*inputs, *outputs))
    return grad_weight


def _weight_gradient(x, grad_output, grad_weight, tiling, group):
    """One group's grad_weight."""
    (_, IC, _, OC), T, rows = group, count_tiles(len(x), tiling), rows_of(tiling)
    splits, block, depth, wide = _weight_cut(T, rows, IC, OC, x.itemsize, get_num_threads())
    parts = grad_weight[None] if splits == 1 else empty((splits, *grad_weight.shape), x.dtype)
    conv_winograd.backward_weight(2 * rows * T * IC * OC, x, grad_output, parts, tiling, group, block, depth, wide)
    if splits > 1:
        sum_parts(parts, grad_weight)


def _share_of(channels, most, lanes):
    """Channels of each of as few blocks as have `most` or fewer, all nearly alike, in whole vectors."""
    return whole(-(-channels // -(-channels // most)), lanes)


@functools.lru_cache(maxsize=1024)
def _weight_cut(T, rows, IC, OC, itemsize, threads):
    """(splits, block, depth, wide) of kernels.conv_winograd.backward_weight for `T` tiles; the order of sums depends on `splits` only."""
    lanes, most = VECTOR_BYTES // itemsize, WEIGHT_WIDE
    depth, wide = _share_of(IC, WEIGHT_DEPTH, lanes), _share_of(OC, most, lanes)
    blocks = -(-IC // depth) * -(-OC // wide)
    splits = max(1, min(WEIGHT_JOBS // blocks, T // SPLIT))
    if blocks % 2 and blocks < WEIGHT_JOBS:  # an even number of jobs, for two threads
        splits = max(1, splits // 2 * 2, min(2, T // FEWEST))
    while blocks * splits < threads and most > WEIGHT_NARROW:
        most //= 2
        wide = _share_of(OC, most, lanes)
        blocks = -(-IC // depth) * -(-OC // wide)
    if blocks * splits == 1:  # few tiles: two jobs nevertheless
        depth, wide = (depth, whole(-(-OC // 2), lanes)) if lanes < OC else (whole(-(-IC // 2), lanes), wide)
    share, most = max(1, -(-T // splits)), _block(rows, depth + wide, itemsize, WEIGHT_BYTES, MOST_WEIGHT)
    return splits, -(-share // -(-share // most)), depth, wide // lanes
