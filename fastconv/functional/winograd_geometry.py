"""Which convolutions Winograd's algorithm takes, the tiles that it makes of them, and when jobs share the filters.

What `conv_winograd`, which computes, and `winograd_cost`, which estimates, both need.
"""

import functools

from fastconv.functional.space_to_depth import deep
from fastconv.kernels import winograd_tiling
from fastconv.kernels.processor import VECTOR_BYTES

SIZES = (3, 3), (4, 4), (5, 5)
"""Of filters with stride 1."""

JOBS = 8
"""How many jobs are wanted: where blocks of tiles are fewer, jobs share the output channels."""

MOST_SHARED, TILES_PER_PAIR = 200, 32
"""Tiles up to which jobs take all of them and share the filters: at most, and for each pair of vectors of output channels after the second;
a pair is a job, and few jobs gain little."""

count_tiles, is_strided = winograd_tiling.count_tiles.py_func, winograd_tiling.is_strided.py_func  # what kernels count, outside of them


def stride_of(g):
    """The stride along both axes, or 0 where they differ; a single row or column of outputs has none."""
    strides = {stride for stride, size in ((g.SH, g.OH), (g.SW, g.OW)) if size > 1} or {1}
    return strides.pop() if len(strides) == 1 else 0


def unfit(g):
    """Why this algorithm cannot take the geometry, or None."""
    strided = (g.KH, g.KW, stride_of(g), g.DH, g.DW) == (3, 3, 2, 1, 1)
    if strided or ((g.KH, g.KW) in SIZES and stride_of(g) == 1) or deepened(g):
        return None
    return (
        "it takes filters of 3x3, 4x4 and 5x5 with stride 1, of 3x3 with stride 2 and no dilation, and without dilation and groups those "
        "whose height over the stride, rounded up, is 3, 4 or 5, and whose width is the same"
    )


@functools.lru_cache(maxsize=1024)
def deepened(g):
    """The geometry with stride 1 that computes the same from deep images, where it takes that, or None."""
    d = deep(g)
    return d if d and (d.KH, d.KW) in SIZES else None


def _tiling(g, S, R, PT, PL, OH, OW):
    """Kernels' `tiling` of OH x OW outputs: in each of the lattices that dilation makes of them, as many tiles as the largest one needs."""
    return S, R, PT, PL, g.DH, g.DW, -(-OH // (S * g.DH)), -(-OW // (S * g.DW))


@functools.lru_cache(maxsize=1024)
def forward_tiling(g, OH, OW):
    """The tiling of the forward pass, and of the weight's gradient."""
    size = 7 - g.KH  # outputs of a tile along an axis, of 6 inputs; with stride 2, where KH is 3, there are 9
    return _tiling(g, size, size * stride_of(g), g.PT, g.PL, OH, OW)


@functools.lru_cache(maxsize=1024)
def backward_tiling(g):
    """The tiling of the input's gradient."""
    if stride_of(g) == 2:
        return _tiling(g, 8, 4, g.PT, g.PL, g.H, g.W)
    size = 7 - g.KH
    return _tiling(g, size, size, (g.KH - 1) * g.DH - g.PT, (g.KW - 1) * g.DW - g.PL, g.H, g.W)


def rows_of(tiling):
    """Rows of all elements of a tile."""
    return winograd_tiling.count_rows.py_func(is_strided(tiling))


def channels_of(g):
    """Input and output channels of a group."""
    return g.IC // g.groups, g.OC // g.groups


def filters_shared(T, OC, itemsize):
    """Whether jobs take all of `T` tiles, transformed once, and share the filters: there are few tiles, and output channels enough."""
    pairs = OC * itemsize // (2 * VECTOR_BYTES)
    return 0 < T <= min(MOST_SHARED, TILES_PER_PAIR * (pairs - 2))
