"""The algorithm "winograd", F(4x4, 3x3) and F(2x2, 5x5): how its work is cut, and weights transformed for each call.

A training step uses each weight once forward and, turned, once backward: there is nothing to keep between calls but for evaluation,
where nobody tells when a weight changes.
"""

import functools
import math

import numpy as np

from fastconv.functional.linear import PARTS
from fastconv.functional.pool import relu_max_halves
from fastconv.kernels import conv_winograd, conv_winograd_few, winograd_blocks
from fastconv.kernels.processor import L2_BYTES, VECTOR_BYTES
from fastconv.kernels.simd import MAX_ROWS
from fastconv.kernels.winograd_blocks import ELEMENTS, LINE
from fastconv.memory import empty

NO_ARGMAX = np.empty((0, 0, 0, 0), np.uint8)
"""The argmax of a convolution without maxima, as kernels take it."""

LARGE_L2 = VECTOR_BYTES == 64
"""Whether L2 holds 1 or 2 MB, as with most processors of long vectors, and not half of that."""

BLOCK_BYTES, WIDE_BYTES, FILTER_BYTES = 1 << 18, (1 << 19 if 0 < L2_BYTES < 1 << 21 else 1 << 21) if LARGE_L2 else 1 << 18, 3 << 20
"""Transformed input of a job; and where FILTER_BYTES of transformed weights, more than L2 holds, should be read seldom: 2 MB, or
0.5 where L2 is smaller than that, which is 2 % faster on a Zen 4."""

WEIGHT_BYTES = 1 << 20 if LARGE_L2 else BLOCK_BYTES
"""The same of a weight's gradient, whose sums a job reads and writes once for each block of tiles."""

FEWEST, MOST, MOST_WIDE = (2 * MAX_ROWS, 8 * MAX_ROWS, 4 * MAX_ROWS) if LARGE_L2 else (48, 96, 96)
"""Tiles of a job, and where these take WIDE_BYTES."""

SPAN_BYTES = 1 << 20 if LARGE_L2 else 1 << 18
"""Products of a job before they are transformed: of many vectors, which then read the transformed input less often (5 to 20 %)."""

JOBS, SHARE = 8, 32
"""Where there are fewer blocks of tiles than JOBS, jobs share the output channels, SHARE each at least: all transform the same input."""

FEW, DEPTH = 128, 256
"""Up to so many tiles jobs take all of them and share the filters, of which they transform those of DEPTH summed channels at a time."""

FEW_WEIGHT, DEPTH_WEIGHT = 32, 128
"""The same of a weight's gradient, whose jobs have DEPTH_WEIGHT input channels each."""

SMALL = 64 * 64 + 1
"""Filters from which on a weight's gradient is large enough that jobs had better share it than have one each."""

CHUNK, CHUNK_BYTES = 64, 5 << (21 if LARGE_L2 else 19)
"""Tiles that are transformed at once for all jobs then, in L3: so many, or what takes so many bytes. Fewer add to the sums more often."""


def unfit(g):
    """Why this algorithm cannot take the geometry, or None."""
    if (g.KH, g.KW) not in ((3, 3), (5, 5)) or (g.SH, g.SW) != (1, 1):
        return "it takes 3x3 and 5x5 filters with stride 1 only"
    return None


TILE_COST, WEIGHT_COST, CALL_COST = 400, 600, 800_000
"""What transforming a tile of one channel or one filter, and a call cost, in multiply-adds of the register tile: fitted to measurements."""


MOST_FILTERS = 1 << 20
"""Transformed, these are 150 MB of float32; more had better not be."""

FEWEST_CHANNELS = 32
"""Channels of a group from which on it pays: all are read with the pixels of a tile, so these lie far apart."""

FEWEST_PAYING = 4
"""Tiles from which on it pays where jobs share the filters: so many for the weight; forward and for the input 1 would do."""


UNPOOL_COST, INPUT_SHARE, WEIGHT_SHARE = 25, 0.95, 0.4
"""What writing out a number of the gradient behind maxima of 2 x 2 costs, and conv_pooled's passes in terms of direct's multiply-adds:
fitted too."""


@functools.lru_cache(maxsize=1024)
def _share(g):
    """This algorithm's cost over direct's, counted in multiply-adds: a quarter of them, but tiles over the border, and transforms."""
    T, (IC, OC) = _count(g.N, _tiling(g, g.PT, g.PL, g.OH, g.OW)), _channels(g)
    filters = IC * OC
    if filters > MOST_FILTERS or (g.groups > 1 and min(IC, OC) < FEWEST_CHANNELS):
        return math.inf
    if _filters_shared(T, min(IC, OC), 4):
        return 0.5 if T >= FEWEST_PAYING else math.inf
    cost = 1.1 * (T * (ELEMENTS * filters + TILE_COST * (IC + OC)) + WEIGHT_COST * filters) + CALL_COST
    return cost / max(1, g.KH * g.KW * g.N * g.OH * g.OW * filters)


def pays(g):
    """Whether this algorithm is the faster one."""
    return _share(g) < 1


def pays_behind_maxima(g):
    """Whether gradients behind ReLU and maxima of 2 x 2 are computed sooner from the convolution's own, written out, than by conv_pooled:
    (the input's, the weight's)."""
    share = _share(g)
    return share + UNPOOL_COST / (g.KH * g.KW * g.IC) < INPUT_SHARE, share < WEIGHT_SHARE


@functools.lru_cache(maxsize=1024)
def _tiling(g, PT, PL, OH, OW):
    """Kernels' `tiling` of OH x OW outputs: in each of the lattices that dilation makes of them, as many tiles as the largest one needs."""
    size = 7 - g.KH  # of a tile's outputs: with 6 x 6 inputs and filters of 3 or 5
    return size, PT, PL, g.DH, g.DW, -(-OH // (size * g.DH)), -(-OW // (size * g.DW))


_count = winograd_blocks.count_tiles.py_func


def _channels(g):
    """Input and output channels of a group."""
    return g.IC // g.groups, g.OC // g.groups


@functools.lru_cache(maxsize=1024)
def _groups(g):
    """For each group of channels: which filters are its own, its input channels and its output channels, as (first, how many)."""
    IC, OC = _channels(g)
    return tuple((slice(k * OC, (k + 1) * OC), (k * IC, IC), (k * OC, OC)) for k in range(g.groups))


def _even(n):
    """An even number, for vectors that are taken by twos and blocks that two threads share."""
    return n + n % 2


def _block(channels, itemsize, size, most):
    """Tiles, `most` at most, that a job transforms at once: as many as take `size` bytes."""
    return max(FEWEST, min(most, size // (ELEMENTS * channels * itemsize)))


@functools.lru_cache(maxsize=1024)
def _cut(T, IC, vectors, itemsize):
    """(blocks, share, span) of kernels.conv_winograd.convolve for `T` tiles and `vectors` vectors of output channels."""
    wide = ELEMENTS * IC * vectors * VECTOR_BYTES >= FILTER_BYTES
    blocks = -(-T // _block(IC, itemsize, *((WIDE_BYTES, MOST_WIDE) if wide else (BLOCK_BYTES, MOST))))
    if blocks > JOBS:
        blocks = _even(blocks)
    least = max(1, SHARE * itemsize // VECTOR_BYTES)
    shares = min(-(-JOBS // blocks), max(1, vectors // least)) if blocks else 1
    share = _even(-(-vectors // shares))
    vector_bytes = ELEMENTS * max(1, -(-T // max(1, blocks))) * VECTOR_BYTES
    return blocks, share, max(2, min(share, SPAN_BYTES // vector_bytes // 2 * 2))


def _filters_shared(T, OC, itemsize):
    """Whether jobs take all of `T` tiles and share the filters: there are few tiles, and output channels for JOBS jobs."""
    return 0 < T <= FEW and OC * itemsize >= 2 * JOBS * VECTOR_BYTES


def _convolve(x, weight, by_input, y, argmax, bias, low, pooled, tiling, group):
    """One group of channels of x to its channels of y, group = (first, how many, first, how many); weight is the group's."""
    N, (first, IC, _, OC) = len(x), group
    T = _count(N, tiling)
    work = _work(T, IC, OC)
    if _filters_shared(T, OC, x.itemsize):
        depth = min(DEPTH, IC)
        V = _transformed(x, 0, T, tiling, depth, first, IC, False)
        conv_winograd_few.convolve_few(work, V, weight, y, argmax, bias, low, pooled, tiling, group, by_input, depth)
    else:
        lanes = VECTOR_BYTES // x.itemsize
        U = empty((-(-OC // lanes), ELEMENTS, IC * lanes + LINE), x.dtype)
        winograd_blocks.transform_weight(16 * weight.size, weight, U, by_input)
        cut = _cut(T, IC, U.shape[0], x.itemsize)
        conv_winograd.convolve(work, x, U, y, argmax, bias, low, pooled, tiling, group, *cut)


def _transformed(x, first, last, tiling, depth, channel, C, gradient):
    """Tiles first .. last of C channels of x (N, H, W, ...) from `channel` on, for `depth` of them at a time; x may be a gradient."""
    stride = winograd_blocks.padded.py_func(depth, VECTOR_BYTES // x.itemsize)
    V = empty((-(-C // depth), ELEMENTS, (last - first) * stride + LINE), x.dtype)
    winograd_blocks.transform_tiles(16 * V.size, x, V, first, tiling, depth, channel, channel + C, gradient)
    return V


def _work(T, IC, OC):
    return 2 * ELEMENTS * T * IC * OC


def _forward(g, x, weight, y, argmax, bias, low, pooled, tiling):
    for filters, inputs, outputs in _groups(g):
        _convolve(x, weight[filters], False, y, argmax, bias, low, pooled, tiling, (*inputs, *outputs))
    return y


def forward(g, x, weight, bias, relu=False):
    """x (N, H, W, IC), weight OIHW, bias (OC,) to (N, OH, OW, OC); with `relu`, ReLU of it."""
    y, low = empty((g.N, g.OH, g.OW, g.OC), x.dtype), 0.0 if relu else -np.inf
    return _forward(g, x, weight, y, NO_ARGMAX, bias, low, False, _tiling(g, g.PT, g.PL, g.OH, g.OW))


def forward_relu_max(g, x, weight, bias, argmax):
    """As `forward`, then ReLU and maxima of 2 x 2 with stride 2: (N, OH // 2, OW // 2, OC); argmax as in pool.relu_max_halves."""
    if g.DH * g.DW > 1:  # neighbours do not lie in one tile
        return relu_max_halves(forward(g, x, weight, bias), argmax)
    y = empty((g.N, g.OH // 2, g.OW // 2, g.OC), x.dtype)
    return _forward(g, x, weight, y, argmax, bias, -np.inf, True, _tiling(g, g.PT, g.PL, g.OH // 2 * 2, g.OW // 2 * 2))


def backward_input(g, grad_output, weight):
    """grad_output (N, OH, OW, OC), weight OIHW to (N, H, W, IC): the convolution with the filters turned by 180 degrees."""
    d, no_bias = empty((g.N, g.H, g.W, g.IC), grad_output.dtype), np.zeros(g.IC, grad_output.dtype)
    tiling = _tiling(g, (g.KH - 1) * g.DH - g.PT, (g.KW - 1) * g.DW - g.PL, g.H, g.W)
    for filters, inputs, outputs in _groups(g):
        _convolve(grad_output, weight[filters], True, d, NO_ARGMAX, no_bias, -np.inf, False, tiling, (*outputs, *inputs))
    return d


def backward_weight(g, x, grad_output):
    """x (N, H, W, IC), grad_output (N, OH, OW, OC) to OIHW."""
    tiling, grad_weight = _tiling(g, g.PT, g.PL, g.OH, g.OW), empty(g.weight_shape, x.dtype)
    for filters, inputs, outputs in _groups(g):
        _weight_gradient(x, grad_output, grad_weight[filters], tiling, (*inputs, *outputs))
    return grad_weight


def _weight_gradient(x, grad_output, grad_weight, tiling, group):
    """One group's grad_weight."""
    _, IC, _, OC = group
    T, depth, wide = _count(len(x), tiling), min(DEPTH_WEIGHT, IC), conv_winograd_few.WIDE * VECTOR_BYTES // x.itemsize
    if 0 < T <= FEW_WEIGHT and JOBS * DEPTH_WEIGHT * wide <= IC * OC:
        V, D = _transformed_both(x, grad_output, 0, T, tiling, group, depth, wide)
        conv_winograd_few.backward_weight_few(_work(T, IC, OC), V, D, grad_weight, T, depth)
    else:
        sums = _sums_of_splits if IC * OC < SMALL else _sums_of_chunks
        parts = sums(x, grad_output, tiling, group)
        winograd_blocks.transform_back(4 * parts.size, parts, grad_weight)


def _transformed_both(x, grad_output, first, last, tiling, group, depth, wide):
    """Tiles first .. last of the input and of the gradient, for `depth` and for `wide` channels at a time."""
    V = _transformed(x, first, last, tiling, depth, *group[:2], False)
    return V, _transformed(grad_output, first, last, tiling, wide, *group[2:], True)


def _sums_of_splits(x, grad_output, tiling, group):
    """Gradients of the transformed weights, one from each part of the tiles."""
    _, IC, _, OC = group
    T = _count(len(x), tiling)
    splits = max(1, min(PARTS, T // FEWEST // 2 * 2))  # an even number, for two threads
    parts = _parts(splits, IC, OC, x.dtype)
    share = max(1, -(-T // splits))
    block = -(-share // -(-share // _block(IC + OC, x.itemsize, WEIGHT_BYTES, MOST)))  # even ones
    conv_winograd.backward_weight(_work(T, IC, OC), x, grad_output, parts, tiling, group, block)
    return parts


def _sums_of_chunks(x, grad_output, tiling, group):
    """The gradient of the transformed weights, its elements shared among the jobs, to which chunks of tiles are added one by one."""
    _, IC, _, OC = group
    T, parts = _count(len(x), tiling), _parts(1, IC, OC, x.dtype)
    chunks = max(1, -(-T // max(CHUNK, CHUNK_BYTES // (ELEMENTS * (IC + OC) * x.itemsize))))
    for k in range(chunks):
        first, last = k * T // chunks, (k + 1) * T // chunks
        V, D = _transformed_both(x, grad_output, first, last, tiling, group, IC, OC)
        conv_winograd.sum_products(_work(last - first, IC, OC), V[0], D[0], parts[0], last - first, IC, OC, k > 0)
    return parts


def _parts(splits, IC, OC, dtype):
    lanes = VECTOR_BYTES // dtype.itemsize
    return empty((splits, -(-OC // lanes), ELEMENTS, IC * lanes + LINE), dtype)
