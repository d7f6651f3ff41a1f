"""In which passes Winograd's algorithm is the faster one. It takes fewer multiplications than the algorithm "direct", but of whole tiles,
and transforms. A part of `functional.conv_winograd`.

Costs are multiply-adds of whole vectors, as the direct algorithm does them; the numbers were fitted to measurements. On a Xeon with two
threads, with the vectors of AVX-512 and of AVX2, what is faster by these costs takes 1.01 to 1.03 times as long as the better one, on
the average of 1,100 geometries.
"""

import functools
import math
from typing import NamedTuple

from fastconv.functional import conv_few_inputs, conv_grouped, conv_lanes
from fastconv.functional.winograd_geometry import (
    backward_tiling,
    channels_of,
    count,
    deepened,
    filters_shared,
    forward_tiling,
    is_strided,
    rows_of,
    whole,
)
from fastconv.kernels.processor import ADDERS, VECTOR_BYTES

ITEMSIZE = 4
"""Of float32: `auto` takes this algorithm for nothing else."""

LANES = VECTOR_BYTES // ITEMSIZE


class Costs(NamedTuple):
    """What a multiply-add of a product costs, a tile of a channel that is summed and of one that is written, and a filter to transform."""

    product: float
    summed: float
    written: float
    filter: float


class Pass(NamedTuple):
    """Costs of a pass with stride 1, with stride 2, and where jobs share the filters; a call's; how many times as much a group costs; and
    what direct's last vector costs, at most half of which is full, in whole ones."""

    plain: Costs
    strided: Costs
    shared: Costs
    call: float
    grouped: float
    half: float


if ADDERS:  # transforms, which are additions, cost half as many multiply-adds
    FORWARD = Pass(Costs(1.1, 440, 440, 660), Costs(1.25, 325, 325, 330), Costs(1.1, 0, 0, 270), 800_000, 1.2, 1.0)
    INPUT = FORWARD
    WEIGHT = Pass(Costs(0.98, 165, 193, 660), Costs(1.25, 325, 325, 330), Costs(1.1, 0, 0, 270), 0, 1.0, 0.5)
else:
    FORWARD = Pass(Costs(1.8, 180, 230, 265), Costs(1.2, 1700, 585, 60), Costs(1.1, 0, 0, 270), 1_200_000, 1.2, 1.28)
    INPUT = Pass(Costs(0.9, 340, 330, 1140), Costs(1.2, 100, 1070, 20), Costs(1.1, 0, 0, 270), 6_700_000, 1.1, 1.56)
    WEIGHT = Pass(Costs(0.95, 215, 185, 0), Costs(0.86, 0, 985, 300), Costs(1.9, 0, 0, 290), 0, 0.76, 0.47)

FEWEST_ROWS = 6
"""Rows of a product, the channels that are summed, at least: fewer take as long."""

IMAGES_AS_LANES = 1.1
"""Direct's multiply-adds where lanes are images (conv_lanes), in terms of the others'."""

FEW_INPUTS = 1.25
"""Multiply-adds as conv_few_inputs counts them in one of these."""

FEWEST_CHANNELS = 8
"""Channels of a group from which on it may pay: all are read with the pixels of a tile, so these lie far apart."""

MOST_FILTERS = 1 << 20
"""Transformed, these are 150 MB of float32; more had better not be."""

DEPTH_COSTS = 30, 100
"""What a number of a deep image costs, and one of a deep filter: memory, and taps one by one."""

UNPOOL_COST, INPUT_SHARE, WEIGHT_SHARE = 25, 0.95 if ADDERS else 0.7, 0.35
"""What writing out a number of the gradient behind maxima of 2 x 2 costs, and conv_pooled's passes in terms of direct's multiply-adds."""


def _cost(g, costs, tiling, summed, written):
    """What a pass costs whose tiles, in `tiling`, are sums over so many channels and write so many."""
    T, rows, (IC, OC) = count(g.N, tiling), rows_of(tiling), channels_of(g)
    if not is_strided(tiling) and filters_shared(T, min(IC, OC), ITEMSIZE):
        own = costs.shared
    else:
        own = costs.strided if is_strided(tiling) else costs.plain
    product = own.product * rows * max(FEWEST_ROWS, summed) * whole(written, LANES)
    tile = product + own.summed * whole(summed, LANES) + own.written * whole(written, LANES)
    return g.groups * (T * tile + own.filter * IC * OC + costs.call) * (costs.grouped if g.groups > 1 else 1)


def _direct(g, costs, written):
    """What the pass costs with direct's tiles, whose vectors are the channels that are written."""
    rest = written % LANES
    vectors = written // LANES + (0 if rest == 0 else costs.half if 2 * rest <= LANES else 1)
    return max(1, g.flops // 2) / written * vectors * LANES


def _takes(g):
    """Whether it may pay at all."""
    IC, OC = channels_of(deepened(g) or g)
    few = g.groups > 1 and (min(IC, OC) < FEWEST_CHANNELS or conv_grouped.fits(g, ITEMSIZE))
    return g.flops > 0 and IC * OC <= MOST_FILTERS and not few


def _depth(g):
    """What it costs to make images and filters deep, where they are."""
    (image, tap), d = DEPTH_COSTS, deepened(g)
    return image * d.N * d.H * d.W * d.IC + tap * d.KH * d.KW * d.IC * d.OC if d else 0


@functools.lru_cache(maxsize=1024)
def _forward_share(g):
    """This algorithm's cost over direct's."""
    if not _takes(g):
        return math.inf
    d = deepened(g) or g
    IC, OC = channels_of(d)
    if conv_lanes.fits_forward(g, ITEMSIZE):
        direct = IMAGES_AS_LANES * max(1, g.flops // 2) / OC * max(conv_lanes.FEWEST_ROWS, OC)
    else:
        direct = _direct(g, FORWARD, OC)
    return (_cost(d, FORWARD, forward_tiling(d, d.OH, d.OW), IC, OC) + _depth(g)) / direct


@functools.lru_cache(maxsize=1024)
def _input_share(g):
    """The same for the input's gradient."""
    if not _takes(g):
        return math.inf
    d = deepened(g) or g
    IC, OC = channels_of(d)
    direct = conv_few_inputs.cost(g, ITEMSIZE) / FEW_INPUTS or _direct(g, INPUT, g.IC // g.groups)
    return (_cost(d, INPUT, backward_tiling(d), OC, IC) + _depth(g)) / direct


@functools.lru_cache(maxsize=1024)
def _weight_share(g):
    """The same for the weight's gradient."""
    if not _takes(g):
        return math.inf
    d = deepened(g) or g
    IC, OC = channels_of(d)
    return (_cost(d, WEIGHT, forward_tiling(d, d.OH, d.OW), IC, OC) + _depth(g)) / _direct(g, WEIGHT, OC)


def pays(g):
    """Whether this algorithm is the faster one forward."""
    return _forward_share(g) < 1


def pays_for_input(g):
    """Whether it is for the input's gradient."""
    return _input_share(g) < 1


def pays_for_weight(g):
    """Whether it is for the weight's gradient."""
    return _weight_share(g) < 1


def pays_behind_maxima(g):
    """Whether gradients behind ReLU and maxima of 2 x 2 are computed sooner from the convolution's own, written out, than by conv_pooled:
    (the input's, the weight's)."""
    unpool = UNPOOL_COST / (g.KH * g.KW * g.IC)
    return _input_share(g) + unpool < INPUT_SHARE, _weight_share(g) + unpool < WEIGHT_SHARE
