"""The algorithm "winograd", F(4x4, 3x3), also with stride 2, F(3x3, 4x4) and F(2x2, 5x5): how its work is cut.

Other strides become channels (functional.space_to_depth): a filter of 11 x 11 with stride 4 is one of 3 x 3 that sees 16 times as many.

Weights are transformed for each call. A training step uses each weight once forward and, turned, once backward: there is nothing to keep
between calls but for evaluation, where nobody tells when a weight changes.
"""

import functools
import math

import numpy as np

from fastconv.functional.pool import relu_max_halves
from fastconv.functional.space_to_depth import deep, filters_from_depth, filters_to_depth, images_from_depth, images_to_depth
from fastconv.kernels import conv_winograd, conv_winograd_few, dense, winograd_blocks, winograd_filters, winograd_tiling
from fastconv.kernels.jit import get_num_threads
from fastconv.kernels.processor import ADDERS, L2_BYTES, VECTOR_BYTES
from fastconv.kernels.simd import MAX_ROWS
from fastconv.kernels.winograd_strided import ROWS
from fastconv.kernels.winograd_tiling import ELEMENTS, LINE
from fastconv.memory import empty

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

JOBS, SHARE = 8, 32
"""Where there are fewer blocks of tiles than JOBS, jobs share the output channels, SHARE each at least: all transform the same input."""

HALVED = 2
"""Where filters take FILTER_BYTES, and no more than so many tiles meet each, jobs share these in two halves, and one thread of two reads
what it has transformed itself: lines that another has just written take longer to come than tiles to be transformed twice."""

FEW, DEPTH = 128, 256
"""Up to so many tiles jobs take all of them and share the filters, of which they transform those of DEPTH summed channels at a time."""

WEIGHT_DEPTH, WEIGHT_WIDE, WEIGHT_BYTES, MOST_WEIGHT = 128, 256, 7 << 18, 56
"""Input and output channels of a job of a weight's gradient, and what it transforms of them at once: so many bytes, so many tiles at most.

More channels are transformed less often, more tiles change the sums less often."""

WEIGHT_NARROW = 64
"""Output channels of a job at least, where fewer make jobs for more threads."""

WEIGHT_JOBS, SPLIT = 8, 192
"""Up to so many jobs are made by splitting the tiles, so many tiles for each: a split's sums take as long on their way back as some ten."""


def _stride(g):
    """The stride along both axes, or 0 where they differ; a single row or column of outputs has none."""
    strides = {stride for stride, size in ((g.SH, g.OH), (g.SW, g.OW)) if size > 1} or {1}
    return strides.pop() if len(strides) == 1 else 0


SIZES = (3, 3), (4, 4), (5, 5)
"""Of filters with stride 1."""


def unfit(g):
    """Why this algorithm cannot take the geometry, or None."""
    strided = (g.KH, g.KW, _stride(g), g.DH, g.DW) == (3, 3, 2, 1, 1)
    if strided or ((g.KH, g.KW) in SIZES and _stride(g) == 1) or _deep(g):
        return None
    return (
        "it takes filters of 3x3, 4x4 and 5x5 with stride 1, of 3x3 with stride 2 and no dilation, and without dilation and groups those "
        "whose height over the stride, rounded up, is 3, 4 or 5, and whose width is the same"
    )


@functools.lru_cache(maxsize=1024)
def _deep(g):
    """The geometry with stride 1 that computes the same from deep images, where it takes that, or None."""
    d = deep(g)
    return d if d and (d.KH, d.KW) in SIZES else None


COSTS, CALL_COST = {ELEMENTS: (1.1, 440, 660), ROWS: (1.25, 325, 330)}, 800_000
"""What a product, a tile of one channel and a filter to transform, for each number of rows, and a call cost, in multiply-adds of the direct
algorithm: fitted to measurements."""

MOST_FILTERS = 1 << 20
"""Transformed, these are 150 MB of float32; more had better not be."""

FEWEST_CHANNELS = 32
"""Channels of a group from which on it pays: all are read with the pixels of a tile, so these lie far apart."""

FEWEST_PAYING = 4
"""Tiles from which on it pays where jobs share the filters: so many for the weight; forward and for the input 1 would do."""

DEPTH_COSTS = 30, 60
"""What a number of a deep image costs, and one of a deep filter, in multiply-adds as well: memory, and taps one by one."""

WEIGHT_COSTS, FEWEST_ROWS = (0.98, 165, 193) if ADDERS else (1.1, 290, 340), 6
"""As COSTS, of a weight's gradient alone, with stride 1: a product, whose rows are FEWEST_ROWS at least, a tile of one channel of the
input, and one of the gradient. Vectors count as a whole. Its products are long sums, where those of the other passes are as short as
channels are few, so that it pays sooner. Without ADDERS transforms, which are additions, cost nearly twice as many multiply-adds."""

UNPOOL_COST, INPUT_SHARE, WEIGHT_SHARE = 25, 0.95, 0.4
"""What writing out a number of the gradient behind maxima of 2 x 2 costs, and conv_pooled's passes in terms of direct's multiply-adds:
fitted too."""


def _whole(channels, lanes=VECTOR_BYTES // 4):
    """Channels of whole vectors."""
    return -(-channels // lanes) * lanes


def _cost(g):
    """What a pass of a group costs, of three the average, in multiply-adds: fewer than direct's, but of whole tiles, and transforms."""
    tiling, (IC, OC) = _forward_tiling(g, g.OH, g.OW), _channels(g)
    rows, filters = _rows(tiling), IC * OC
    product, tile, filter_cost = COSTS[rows]
    whole = filters if rows == ELEMENTS else _whole(IC) * _whole(OC)
    T = (2 * _count(g.N, tiling) + _count(g.N, _backward_tiling(g))) / 3  # the input's gradient may need a row and a column of tiles more
    return T * (product * rows * whole + tile * (IC + OC)) + filter_cost * filters + CALL_COST


@functools.lru_cache(maxsize=1024)
def _share(g):
    """This algorithm's cost over direct's."""
    d, (IC, OC) = _deep(g) or g, _channels(g)
    if d.IC // d.groups * OC > MOST_FILTERS or (g.groups > 1 and min(IC, OC) < FEWEST_CHANNELS):
        return math.inf
    cost = d.groups * _cost(d)
    if d is not g:
        image, tap = DEPTH_COSTS
        cost += image * d.N * d.H * d.W * d.IC + tap * d.KH * d.KW * d.IC * d.OC
    elif not _is_strided(_forward_tiling(g, g.OH, g.OW)):
        T = _count(g.N, _forward_tiling(g, g.OH, g.OW))
        if _filters_shared(T, min(IC, OC), 4):
            return 0.5 if T >= FEWEST_PAYING else math.inf
    return cost / max(1, g.flops // 2)


@functools.lru_cache(maxsize=1024)
def _weight_share(g):
    """`_share` for the weight's gradient alone, where that differs: with stride 1 and many tiles."""
    if _share(g) == math.inf or _deep(g):
        return _share(g)
    tiling, (IC, OC) = _forward_tiling(g, g.OH, g.OW), _channels(g)
    T = _count(g.N, tiling)
    if _is_strided(tiling) or _filters_shared(T, min(IC, OC), 4):
        return _share(g)
    (product, input_tile, gradient_tile), (_, _, filter_cost) = WEIGHT_COSTS, COSTS[ELEMENTS]
    tile = product * ELEMENTS * max(FEWEST_ROWS, IC) * _whole(OC) + input_tile * _whole(IC) + gradient_tile * _whole(OC)
    return g.groups * (T * tile + filter_cost * IC * OC) / max(1, g.flops // 2)


def pays(g):
    """Whether this algorithm is the faster one forward and for the input's gradient."""
    return _share(g) < 1


def pays_for_weight(g):
    """The same for the weight's gradient."""
    return _weight_share(g) < 1


def pays_behind_maxima(g):
    """Whether gradients behind ReLU and maxima of 2 x 2 are computed sooner from the convolution's own, written out, than by conv_pooled:
    (the input's, the weight's)."""
    share = _share(g)
    return share + UNPOOL_COST / (g.KH * g.KW * g.IC) < INPUT_SHARE, share < WEIGHT_SHARE


def _tiling(g, S, R, PT, PL, OH, OW):
    """Kernels' `tiling` of OH x OW outputs: in each of the lattices that dilation makes of them, as many tiles as the largest one needs."""
    return S, R, PT, PL, g.DH, g.DW, -(-OH // (S * g.DH)), -(-OW // (S * g.DW))


@functools.lru_cache(maxsize=1024)
def _forward_tiling(g, OH, OW):
    size = 7 - g.KH  # of a tile's outputs: with 6 x 6 inputs and filters of 3 or 5
    return _tiling(g, size, size * _stride(g), g.PT, g.PL, OH, OW)


@functools.lru_cache(maxsize=1024)
def _backward_tiling(g):
    if _stride(g) == 2:
        return _tiling(g, 8, 4, g.PT, g.PL, g.H, g.W)
    size = 7 - g.KH
    return _tiling(g, size, size, (g.KH - 1) * g.DH - g.PT, (g.KW - 1) * g.DW - g.PL, g.H, g.W)


_count, _is_strided = winograd_tiling.count_tiles.py_func, winograd_tiling.is_strided.py_func


def _rows(tiling):
    """Rows of all elements of a tile."""
    return winograd_tiling.count_rows.py_func(_is_strided(tiling))


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


def _filters_shared(T, OC, itemsize):
    """Whether jobs take all of `T` tiles and share the filters: there are few tiles, and output channels for JOBS jobs."""
    return 0 < T <= FEW and OC * itemsize >= 2 * JOBS * VECTOR_BYTES


def _convolve(x, weight, by_input, y, argmax, bias, low, pooled, tiling, group):
    """One group of channels of x to its channels of y, group = (first, how many, first, how many); weight is the group's."""
    first, IC, _, OC = group
    T, rows = _count(len(x), tiling), _rows(tiling)
    work = 2 * rows * T * IC * OC
    if _filters_shared(T, OC, x.itemsize):
        depth = min(DEPTH, IC)
        V = _transformed(x, T, tiling, depth, first, IC)
        conv_winograd_few.convolve_few(work, V, weight, y, argmax, bias, low, pooled, tiling, group, by_input, depth)
    else:
        lanes = VECTOR_BYTES // x.itemsize
        U = empty((-(-OC // lanes), ELEMENTS, IC * lanes + LINE), x.dtype)
        winograd_filters.transform_weight(16 * weight.size, weight, U, by_input, _is_strided(tiling))
        cut = _cut(T, rows, IC, U.shape[0], x.itemsize)
        conv_winograd.convolve(work, x, U, y, argmax, bias, low, pooled, tiling, group, *cut)


def _transformed(x, T, tiling, depth, channel, C):
    """All `T` tiles of C channels of x (N, H, W, ...) from `channel` on, `depth` of them at a time."""
    stride = winograd_tiling.padded.py_func(depth, VECTOR_BYTES // x.itemsize)
    V = empty((-(-C // depth), _rows(tiling), T * stride + LINE), x.dtype)
    winograd_blocks.transform_tiles(16 * V.size, x, V, tiling, depth, channel, channel + C)
    return V


def _forward(g, x, weight, y, argmax, bias, low, pooled, tiling):
    for filters, inputs, outputs in _groups(g):
        _convolve(x, weight[filters], False, y, argmax, bias, low, pooled, tiling, (*inputs, *outputs))
    return y


def forward(g, x, weight, bias, relu=False):
    """x (N, H, W, IC), weight OIHW, bias (OC,) to (N, OH, OW, OC); with `relu`, ReLU of it."""
    if _deep(g):
        return forward(_deep(g), images_to_depth(g, x), filters_to_depth(g, weight), bias, relu)
    y, low = empty((g.N, g.OH, g.OW, g.OC), x.dtype), 0.0 if relu else -np.inf
    return _forward(g, x, weight, y, NO_ARGMAX, bias, low, False, _forward_tiling(g, g.OH, g.OW))


def forward_relu_max(g, x, weight, bias, argmax):
    """As `forward`, then ReLU and maxima of 2 x 2 with stride 2: (N, OH // 2, OW // 2, OC); argmax as in pool.relu_max_halves."""
    if _deep(g):
        return forward_relu_max(_deep(g), images_to_depth(g, x), filters_to_depth(g, weight), bias, argmax)
    if g.DH * g.DW > 1 or _stride(g) > 1 or g.KH == 4:  # neighbours do not lie in one tile, or it has no maxima
        return relu_max_halves(forward(g, x, weight, bias), argmax)
    y = empty((g.N, g.OH // 2, g.OW // 2, g.OC), x.dtype)
    return _forward(g, x, weight, y, argmax, bias, -np.inf, True, _forward_tiling(g, g.OH // 2 * 2, g.OW // 2 * 2))


def backward_input(g, grad_output, weight):
    """grad_output (N, OH, OW, OC), weight OIHW to (N, H, W, IC): the convolution with the filters turned by 180 degrees."""
    if _deep(g):
        return images_from_depth(g, backward_input(_deep(g), grad_output, filters_to_depth(g, weight)))
    d, no_bias, tiling = empty((g.N, g.H, g.W, g.IC), grad_output.dtype), np.zeros(g.IC, grad_output.dtype), _backward_tiling(g)
    for filters, inputs, outputs in _groups(g):
        _convolve(grad_output, weight[filters], True, d, NO_ARGMAX, no_bias, -np.inf, False, tiling, (*outputs, *inputs))
    return d


def backward_weight(g, x, grad_output):
    """x (N, H, W, IC), grad_output (N, OH, OW, OC) to OIHW."""
    if _deep(g):
        return filters_from_depth(g, backward_weight(_deep(g), images_to_depth(g, x), grad_output))
    tiling, grad_weight = _forward_tiling(g, g.OH, g.OW), empty(g.weight_shape, x.dtype)
    for filters, inputs, outputs in _groups(g):
        _weight_gradient(x, grad_output, grad_weight[filters], tiling, (*inputs, *outputs))
    return grad_weight


def _weight_gradient(x, grad_output, grad_weight, tiling, group):
    """One group's grad_weight."""
    (_, IC, _, OC), T, rows = group, _count(len(x), tiling), _rows(tiling)
    splits, block, depth, wide = _weight_cut(T, rows, IC, OC, x.itemsize, get_num_threads())
    parts = grad_weight[None] if splits == 1 else empty((splits, *grad_weight.shape), x.dtype)
    conv_winograd.backward_weight(2 * rows * T * IC * OC, x, grad_output, parts, tiling, group, block, depth, wide)
    if splits > 1:
        dense.sum_splits(2 * parts.size, parts.reshape(splits, -1), grad_weight.ravel())


def _share_of(channels, most, lanes):
    """Channels of each of as few blocks as have `most` or fewer, all nearly alike, in whole vectors."""
    return _whole(-(-channels // -(-channels // most)), lanes)


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
        depth, wide = (depth, _whole(-(-OC // 2), lanes)) if lanes < OC else (_whole(-(-IC // 2), lanes), wide)
    share, most = max(1, -(-T // splits)), _block(rows, depth + wide, itemsize, WEIGHT_BYTES, MOST_WEIGHT)
    return splits, -(-share // -(-share // most)), depth, wide // lanes
