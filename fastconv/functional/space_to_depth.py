"""A strided convolution as one with stride 1 of deep images, see kernels.space_to_depth."""

import functools

from fastconv.kernels import space_to_depth
from fastconv.memory import empty
from fastconv.shapes import Conv2d


@functools.lru_cache(maxsize=1024)
def deep(g):
    """The geometry of the deep images' convolution, or None where there is no such: without a stride, with dilation or groups."""
    if g.SH * g.SW == 1 or g.DH * g.DW > 1 or g.groups > 1:
        return None
    TH, TW = -(-g.KH // g.SH), -(-g.KW // g.SW)
    return Conv2d(
        g.N, g.SH * g.SW * g.IC, g.OH + TH - 1, g.OW + TW - 1, g.OC, TH, TW, 1, 1, 1, 1, 0, 0, 0, 0, 1, g.OH, g.OW,
    )  # fmt: skip


@functools.lru_cache(maxsize=1024)
def _window(g):
    return g.SH, g.SW, g.PT, g.PL


def images_to_depth(g, x):
    """x (N, H, W, IC) as deep(g) takes it."""
    d = deep(g)
    images = empty((d.N, d.H, d.W, d.IC), x.dtype)
    space_to_depth.images_to_depth(2 * images.size, x, images, _window(g))
    return images


def images_from_depth(g, images):
    """The gradient of what `images_to_depth` has read, from that of what it has given."""
    x = empty((g.N, g.H, g.W, g.IC), images.dtype)
    space_to_depth.images_from_depth(2 * x.size, images, x, _window(g))
    return x


def filters_to_depth(g, weight):
    """weight (OC, IC, KH, KW) as deep(g) takes it."""
    filters = empty(deep(g).weight_shape, weight.dtype)
    space_to_depth.filters_to_depth(8 * filters.size, weight, filters, g.SH, g.SW)
    return filters


def filters_from_depth(g, filters):
    """The gradient of what `filters_to_depth` has read, from that of what it has given."""
    weight = empty(g.weight_shape, filters.dtype)
    space_to_depth.filters_from_depth(8 * weight.size, filters, weight, g.SH, g.SW)
    return weight
