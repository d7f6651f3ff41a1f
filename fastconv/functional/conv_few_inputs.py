"""Which way the input gradient goes where the input has few channels: a part of the algorithm "direct".

As channels they leave lanes empty. Rows of the filter fill them (conv_few), or images (conv_lanes), or all taps of the filter, as columns
of a product that are added up afterwards (conv_im2col), but each of these has work of its own. What a way costs is counted in
multiply-adds of whole vectors, with numbers fitted to shapes on a Xeon, with the vectors of AVX-512 and of AVX2.
"""

import functools
from types import ModuleType

from fastconv.functional import conv_few, conv_im2col, conv_lanes
from fastconv.functional.arrays import whole
from fastconv.functional.conv_tiles import input_plans, inside
from fastconv.kernels.conv_few import BAND, IMAGES
from fastconv.kernels.processor import VECTOR_BYTES

LINE = 64
"""Bytes of the channels up to which they are few."""

TILE, ROW_TILE, RESULT, TILES_CALL = 1.25, 0.95, 36, 5_500_000
"""A multiply-add in tiles one vector wide, and in those of kernels.row_tile; a result of these, in multiply-adds; and a call."""

FEW_ADDED, FEW_CALL = 22, 1_000_000
"""A number that conv_few adds to the image, in channels that are summed; and a call."""

IMAGES_READ, IMAGES_WRITTEN, IMAGES_CALL = 17, 13, 5_500_000
"""A number of the output's gradient that conv_lanes transposes, one of the input's; and a call."""

ADDED, RUN_ADDED, PRODUCT_CALL = 35, 730, 9_000_000
"""A column of conv_im2col's product, in memory and added to the image; each run of them, a row of the filter or, dilated, a tap; a call."""


def _tiles_cost(g, itemsize):
    """Channels as vectors. Tiles that lie across images leave out the taps beyond the border."""
    lanes, share, plans = VECTOR_BYTES // itemsize, 1.0, input_plans(g, itemsize)
    if any(plan.across for plan in plans):
        share = inside(g.H, g.OH, g.KH, g.SH, g.DH, g.PT) * inside(g.W, g.OW, g.KW, g.SW, g.DW, g.PL)
    sums = share * g.N * g.OH * g.OW * g.KH * g.KW * g.OC + RESULT * g.N * g.H * g.W
    tile = ROW_TILE if any(plan.row_taps for plan in plans) else TILE
    return tile * sums * whole(g.IC, lanes) + TILES_CALL


def _few_cost(g, itemsize):
    """Rows of the filter as vectors, IMAGES pixels as rows of a tile; one job leaves a processor idle."""
    blocks, row = -(-g.N // IMAGES), whole(g.KW * g.IC, VECTOR_BYTES // itemsize)
    work = blocks * IMAGES * g.OH * g.OW * g.KH * row * (g.OC + FEW_ADDED)
    return work * (2 if blocks * -(-g.H // BAND) == 1 else 1) + FEW_CALL


def _lanes_cost(g, itemsize):
    """Images as vectors, input channels as rows of a tile."""
    numbers = g.KH * g.KW * g.OC * max(conv_lanes.FEWEST_ROWS, g.IC) + IMAGES_READ * g.OC + IMAGES_WRITTEN * g.IC
    return whole(g.N, VECTOR_BYTES // itemsize) * g.H * g.W * numbers + IMAGES_CALL


def _product_cost(g, itemsize):
    """Taps and channels as columns of a product, whose results cost as much to store as 4 channels to sum."""
    columns = g.KH * g.KW * g.IC
    runs = g.KH * (g.KW if g.DW > 1 else 1)
    pixel = (g.OC + 4) * whole(columns, VECTOR_BYTES // itemsize) + ADDED * columns + RUN_ADDED * runs
    return g.N * g.OH * g.OW * pixel + PRODUCT_CALL


def _costs(g, itemsize) -> dict[ModuleType | None, float]:
    """Of every way that takes the geometry, by its module; None is conv_tiles, with channels as vectors. Empty where channels are many."""
    if g.groups > 1 or g.IC * itemsize > LINE or g.flops == 0:
        return {}
    costs: dict[ModuleType | None, float] = {None: _tiles_cost(g, itemsize)}
    if g.OH * g.OW * g.KH * g.KW * g.IC * itemsize <= conv_im2col.PATCH_BYTES:  # of an image, which is taken as a whole
        costs[conv_im2col] = _product_cost(g, itemsize)
    if conv_few.fits_input(g):
        costs[conv_few] = _few_cost(g, itemsize)
    if conv_lanes.fits_input(g, itemsize):
        costs[conv_lanes] = _lanes_cost(g, itemsize)
    return costs


@functools.lru_cache(maxsize=1024)
def way(g, itemsize):
    """The module whose `backward_input` is likely to be the fastest, or None where that is conv_tiles."""
    costs = _costs(g, itemsize)
    return min(costs, key=lambda module: costs[module], default=None)


def cost(g, itemsize):
    """What that costs, or None where channels are many."""
    return min(_costs(g, itemsize).values(), default=None)
