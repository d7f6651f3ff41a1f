"""In which passes Winograd's algorithm is the faster one. It takes fewer multiplications than the algorithm "direct", but of whole tiles,
and transforms. A part of `functional.conv_winograd`.

Costs are estimates in multiply-adds of whole vectors, as the direct algorithm does them, with numbers fitted to measurements. On a Xeon
with two threads, with the vectors of AVX-512 and of AVX2, what is faster by these costs takes 1.01 to 1.03 times as long as the better
one, on the average of 1,300 geometries, and of 690 more with stride 2. The numbers for processors with ADDERS were fitted to fewer, on a
Zen 4.
"""

import functools
from typing import NamedTuple

from fastconv.functional import conv_few, conv_few_inputs, conv_grouped, conv_lanes, conv_rows_weight
from fastconv.functional.arrays import whole
from fastconv.functional.conv_tiles import forward_plan, input_plans
from fastconv.functional.winograd_geometry import (
    backward_tiling,
    channels_of,
    count_tiles,
    deepened,
    filters_shared,
    forward_tiling,
    is_strided,
    rows_of,
    stride_of,
)
from fastconv.kernels.processor import ADDERS, VECTOR_BYTES
from fastconv.kernels.row_tile import MOST_TAPS

ITEMSIZE = 4
"""Of float32: `auto` takes this algorithm for nothing else."""

LANES = VECTOR_BYTES // ITEMSIZE


class Costs(NamedTuple):
    """What a multiply-add of a product costs, a tile of a channel that is summed and of one that is written, a filter to transform, and a
    call."""

    product: float
    summed: float
    written: float
    filter: float
    call: float


class Pass(NamedTuple):
    """Costs of a pass with stride 1 and with stride 2; of few tiles of many channels with either; how many times as much a group costs; and
    what direct's last vector costs, no more than half of it full, in terms of a full one.

    That may be more than 1: without a neighbour, it has tiles half as wide.

    `rows` are direct's multiply-adds with stride 1 and with stride 2 where tiles are those of kernels.row_tile, or of row_tile_weight, in
    terms of the others'.
    """

    plain: Costs
    strided: Costs
    few_plain: Costs
    few_strided: Costs
    grouped: float
    half: float
    rows: tuple = (1.0, 1.0)


if ADDERS:
    STRIDED, FEW_TILES = Costs(1.25, 325, 325, 330, 800_000), Costs(1.1, 0, 0, 270, 800_000)
    FORWARD = INPUT = Pass(Costs(1.1, 440, 440, 660, 800_000), STRIDED, FEW_TILES, STRIDED, grouped=1.2, half=1.0)
    WEIGHT = Pass(Costs(0.98, 165, 193, 660, 0), STRIDED, FEW_TILES, STRIDED, grouped=1.0, half=0.5)
else:
    FEW_TILES = Costs(1.1, 0, 0, 270, 1_200_000)
    STRIDED_INPUT = Costs(1.55, 850, 350, 180, 34_000_000)
    if MOST_TAPS:
        STRIDED, STRIDED_WEIGHT = Costs(0.925, 3890, 1300, 8350, 13_000_000), Costs(1.03, 1000, 1480, 420, 0)
        FEW_STRIDED, FEW_STRIDED_INPUT = Costs(0.61, 10_400, 2600, 250, 520_000), Costs(0.86, 6290, 4560, 105, 4_900_000)
    else:
        STRIDED = FEW_STRIDED = Costs(1.1, 6200, 195, 45, 2_430_000)
        STRIDED_WEIGHT, FEW_STRIDED_INPUT = Costs(1.2, 365, 640, 250, 0), Costs(1.17, 7180, 32, 56, 125_000)
    FORWARD = Pass(Costs(1.8, 180, 230, 265, 1_200_000), STRIDED, FEW_TILES, FEW_STRIDED, grouped=1.2, half=1.28, rows=(0.8, 1.0))
    INPUT = Pass(
        Costs(0.9, 340, 330, 1140, 6_700_000), STRIDED_INPUT, FEW_TILES, FEW_STRIDED_INPUT, grouped=1.1, half=1.56, rows=(0.75, 0.96)
    )
    FEW_FOR_WEIGHT = Costs(1.9, 0, 0, 290, 0)
    WEIGHT = Pass(Costs(0.95, 215, 185, 0, 0), STRIDED_WEIGHT, FEW_FOR_WEIGHT, STRIDED_WEIGHT, grouped=0.76, half=0.47, rows=(1.0, 0.8))

WEIGHT_TILES, WEIGHT_CHANNELS = 128, 16 * LANES
"""Up to so many tiles, and from so many input and output channels on, a weight gradient costs as one of few tiles."""

FEWEST_ROWS = 6
"""Rows of a product, the channels that are summed, at least: fewer take as long."""

IMAGES_AS_LANES = 1.1
"""Direct's multiply-adds where lanes are images (conv_lanes), in terms of the others'."""

FEW_INPUTS, FEW_INPUTS_STRIDED = 1.25, 0.86
"""Multiply-adds as conv_few_inputs counts them in one of these; with 3 x 3 at stride 2 its ways take longer than it counts."""

STRIDED_WEIGHT_CALL = 0 if ADDERS or MOST_TAPS else 2_700_000
"""What a call of direct's weight gradient costs more than one of this algorithm with stride 2, but no more than its multiply-adds."""

STRIDED_ROWS_CALL = 2_400_000
"""The same with the tiles of kernels.row_tile_weight, but no more than twice its multiply-adds."""

FEWEST_CHANNELS = 8
"""Channels of a group from which on it may pay: all are read with the pixels of a tile, so these lie far apart."""

MOST_FILTERS = 1 << 20
"""Transformed, these are 150 MB of float32; more had better not be."""

DEPTH_COSTS = 30, 100
"""What a number of a deep image costs, and one of a deep filter: memory, and taps one by one."""

UNPOOL_COST, INPUT_SHARE, WEIGHT_SHARE = 25, 0.95 if ADDERS else 0.7, 0.35
"""Of gradients behind maxima of 2 x 2: what writing one out costs, and up to which shares of all multiply-adds they are computed sooner so
than by conv_pooled."""


def _few_for_weight(T, IC, OC):
    """Whether a weight gradient costs as one of few tiles of many channels; there jobs share nothing."""
    return T <= WEIGHT_TILES and min(IC, OC) >= WEIGHT_CHANNELS


def _cost(g, of_pass, tiling, summed, written):
    """What a pass costs. Each tile in `tiling` is a sum over `summed` channels of a group, and writes `written`."""
    T, rows, (IC, OC) = count_tiles(g.N, tiling), rows_of(tiling), channels_of(g)
    few = _few_for_weight(T, IC, OC) if of_pass is WEIGHT else filters_shared(T, written, ITEMSIZE)
    if is_strided(tiling):
        costs = of_pass.few_strided if few else of_pass.strided
    else:
        costs = of_pass.few_plain if few else of_pass.plain
    product = costs.product * rows * max(FEWEST_ROWS, summed) * whole(written, LANES)
    tile = product + costs.summed * whole(summed, LANES) + costs.written * whole(written, LANES)
    return g.groups * (T * tile + costs.filter * IC * OC + costs.call) * (of_pass.grouped if g.groups > 1 else 1)


def _direct(g, of_pass, written):
    """What the pass costs with direct's tiles, whose vectors are the `written` channels of a group."""
    rest = written % LANES
    vectors = written // LANES + (0 if rest == 0 else of_pass.half if 2 * rest <= LANES else 1)
    return g.flops // 2 / written * vectors * LANES


def _by_rows(g, of_pass, plans):
    """What direct's multiply-adds cost in the tiles of these plans. Forward, that of 5x5 filters with this algorithm is counted a fifth too
    high; so are these."""
    if not any(plan.row_taps for plan in plans) or (of_pass is FORWARD and g.KH == g.KW == 5):
        return 1.0
    return of_pass.rows[stride_of(g) > 1]


def _direct_weight(g):
    """What the weight gradient costs with direct's tiles."""
    cost = _direct(g, WEIGHT, g.OC // g.groups)
    others = conv_lanes.fits_weight(g, ITEMSIZE) or conv_few.fits_weight(g, ITEMSIZE)
    by_rows = not others and conv_rows_weight.fits_weight(g, ITEMSIZE)
    call, most = (STRIDED_ROWS_CALL, 2 * cost) if by_rows else (STRIDED_WEIGHT_CALL, cost)
    return cost * (WEIGHT.rows[stride_of(g) > 1] if by_rows else 1.0) + (min(most, call) if _strided(g) else 0)


def _strided(g):
    """Whether the filters of 3 x 3 move by two, as they are."""
    return stride_of(g) == 2 and not deepened(g)


def _may_pay(g):
    """Whether costs are worth a comparison. With stride 2 groups are not: each is a call."""
    IC, OC = channels_of(deepened(g) or g)
    few = g.groups > 1 and (_strided(g) or min(IC, OC) < FEWEST_CHANNELS or conv_grouped.fits(g, ITEMSIZE))
    return g.flops > 0 and IC * OC <= MOST_FILTERS and not few


def _depth(g):
    """What it costs to make images and filters deep, where they are."""
    (image, tap), d = DEPTH_COSTS, deepened(g)
    return image * d.N * d.H * d.W * d.IC + tap * d.KH * d.KW * d.IC * d.OC if d else 0


def _own(g, wanted):
    """What the pass that is `wanted` costs with this algorithm: "forward", or the gradient of the "input" or the "weight"."""
    d = deepened(g) or g
    (IC, OC), tiling = channels_of(d), forward_tiling(d, d.OH, d.OW)
    if wanted == "input":
        cost = _cost(d, INPUT, backward_tiling(d), OC, IC)
    else:
        cost = _cost(d, WEIGHT if wanted == "weight" else FORWARD, tiling, IC, OC)
    return cost + _depth(g)


def _others(g, wanted):
    """What it costs without this algorithm."""
    if wanted == "input":
        few = conv_few_inputs.cost(g, ITEMSIZE)
        if few is None:
            return _by_rows(g, INPUT, input_plans(g, ITEMSIZE)) * _direct(g, INPUT, g.IC // g.groups)
        return few / (FEW_INPUTS_STRIDED if _strided(g) else FEW_INPUTS)
    if wanted == "weight":
        return _direct_weight(g)
    if conv_lanes.fits_forward(g, ITEMSIZE):
        return IMAGES_AS_LANES * (g.flops // 2) / g.OC * max(conv_lanes.FEWEST_ROWS, g.OC)
    return _by_rows(g, FORWARD, (forward_plan(g, ITEMSIZE),)) * _direct(g, FORWARD, g.OC // g.groups)


@functools.lru_cache(maxsize=1024)
def pays(g, wanted):
    """Whether this algorithm is the faster one for what is `wanted`: "forward", or the gradient of the "input" or the "weight"."""
    return _may_pay(g) and _own(g, wanted) < _others(g, wanted)


@functools.lru_cache(maxsize=1024)
def pays_behind_maxima(g):
    """Whether gradients behind ReLU and maxima of 2 x 2 are computed sooner from the convolution's own, written out, than by conv_pooled:
    (the input's, the weight's)."""
    if not _may_pay(g):
        return False, False
    multiplied, unpool = g.flops // 2, UNPOOL_COST * g.N * g.OH * g.OW * g.OC
    return tuple(_own(g, wanted) + unpool < share * multiplied for wanted, share in (("input", INPUT_SHARE), ("weight", WEIGHT_SHARE)))
