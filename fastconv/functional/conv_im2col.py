"""The algorithm "im2col": windows copied into a matrix, then one matrix product; the classical alternative.

The matrix would be KH*KW times as large as the input, so images are taken in chunks of a bounded number of bytes.
"""

from fastconv.functional.arrays import c_order, swapped, taps_first, zeros
from fastconv.functional.linear import times, times_transposed, transposed_times
from fastconv.kernels import conv_im2col, host
from fastconv.memory import empty

PATCH_BYTES = 1 << 23
"""A chunk of patches fits into the last-level cache of one thread's share of most processors."""


def unfit(g):
    """Why this algorithm cannot take the geometry, or None."""
    return None


def _chunks(g, itemsize):
    """First image and number of images of every chunk."""
    images = max(1, PATCH_BYTES // (g.OH * g.OW * _patch_size(g) * itemsize))
    return [(n, min(images, g.N - n)) for n in range(0, g.N, images)]


def _patch_size(g):
    return g.KH * g.KW * g.IC // g.groups


def _window(g):
    return g.SH, g.SW, g.DH, g.DW, g.PT, g.PL


def _channels_inside(weight):
    """OIHW as a matrix (OC, KH*KW*IC), in the order of a patch."""
    return taps_first(weight).reshape(len(weight), -1)


def _patches(g, x, n, images, group):
    patches = empty((images, g.OH, g.OW, _patch_size(g)), x.dtype)
    conv_im2col.im2col(patches.size, x, patches, n, group * (g.IC // g.groups), _window(g), (g.KH, g.KW))
    return patches.reshape(-1, patches.shape[-1])


def forward(g, x, weight, bias):
    """x (N, H, W, IC), weight OIHW, bias (OC,) to (N, OH, OW, OC)."""
    y = empty((g.N, g.OH, g.OW, g.OC), x.dtype)
    matrix, OCG = _channels_inside(weight), g.OC // g.groups
    for group in range(g.groups):
        own = slice(group * OCG, (group + 1) * OCG)
        for n, images in _chunks(g, x.itemsize):
            patches, chunk = _patches(g, x, n, images, group), y[n : n + images]
            if g.groups == 1:
                times_transposed(patches, matrix, bias, chunk.reshape(-1, OCG))
            else:
                host.copy(0, chunk[..., own], times_transposed(patches, matrix[own], bias[own]).reshape(images, g.OH, g.OW, OCG))
    return y


def backward_input(g, grad_output, weight):
    """grad_output (N, OH, OW, OC), weight OIHW to (N, H, W, IC)."""
    grad_input = empty((g.N, g.H, g.W, g.IC), grad_output.dtype)
    matrix, OCG = _channels_inside(weight), g.OC // g.groups
    for group in range(g.groups):
        own = slice(group * OCG, (group + 1) * OCG)
        for n, images in _chunks(g, grad_output.itemsize):
            gradient = c_order(grad_output[n : n + images, :, :, own]).reshape(-1, OCG)  # no copy of a single group
            patches = times(gradient, matrix[own]).reshape(images, g.OH, g.OW, -1)
            conv_im2col.col2im(patches.size, patches, grad_input, n, group * (g.IC // g.groups), _window(g), (g.KH, g.KW))
    return grad_input


def backward_weight(g, x, grad_output):
    """x (N, H, W, IC), grad_output (N, OH, OW, OC) to OIHW."""
    matrix, OCG = zeros((g.OC, _patch_size(g)), x.dtype), g.OC // g.groups
    for group in range(g.groups):
        own = slice(group * OCG, (group + 1) * OCG)
        for n, images in _chunks(g, x.itemsize):
            gradient = c_order(grad_output[n : n + images, :, :, own]).reshape(-1, OCG)
            host.add_to(0, matrix[own], transposed_times(gradient, _patches(g, x, n, images, group)))
    return swapped(matrix, (g.OC, g.KH * g.KW, g.IC // g.groups), g.weight_shape)
