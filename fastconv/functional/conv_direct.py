"""The algorithm "direct": the register tile. 1x1 convolutions are matrix products, depthwise ones stand in conv_depthwise."""

import dataclasses
import functools

import numpy as np

from fastconv.functional import conv_amx, conv_depthwise, conv_few, conv_few_inputs, conv_grouped, conv_im2col, conv_lanes, conv_rows_weight
from fastconv.functional.arrays import swapped, zeros
from fastconv.functional.conv_tiles import (
    LOW_TILES,
    PANEL_BYTES,
    PIXELS,
    blocks_of_job,
    columns_of_job,
    convolve,
    enough_images,
    forward_plan,
    images_of_job,
    input_plans,
    packed,
    packed_channels,
    weight_jobs,
)
from fastconv.functional.linear import (
    pixels_times_transposed,
    times,
    times_into_pixels,
    times_transposed,
    transposed_pixels_times,
    transposed_times,
)
from fastconv.functional.pool import relu_max_halves
from fastconv.kernels import conv_direct, conv_direct_weight, conv_images, strided
from fastconv.kernels.conv_direct import ROW
from fastconv.kernels.dense import CROWDED
from fastconv.kernels.processor import VECTOR_BYTES
from fastconv.memory import empty

WEIGHT_BLOCK_BYTES = VECTOR_BYTES if LOW_TILES else 256
"""Channels of a panel's block for weight gradients: where registers are 16, blocks of 128 bytes take 4 to 8 % longer than one vector."""

STRIDED_FILTERS = 1 << 11
"""Filters from which on the weight gradient of a strided 1x1 convolution is a product of pixels that are copied together, too."""

FEWEST_PIXELS = 7
"""Pixels of a row of the output from which on a strided 1x1 convolution with high tiles does not copy what it sees."""

ROW_NUMBERS = 1 << 26
"""A padded row of more numbers than this is all padding but for a sliver, and would not fit into memory several times."""


@functools.lru_cache(maxsize=1024)
def _lying(g):
    """The geometry with an image of one column as one row, which is the same memory and gives whole tiles; None for other images."""
    if g.W == g.KW == 1 < g.H and g.PL == g.PR == 0:
        return dataclasses.replace(
            g, H=1, W=g.H, KH=1, KW=g.KH, SH=g.SW, SW=g.SH, DH=g.DW, DW=g.DH, PT=0, PB=0, PL=g.PT, PR=g.PB, OH=1, OW=g.OH
        )
    return None


def unfit(g):
    """Why this algorithm cannot take the geometry, or None."""
    g = _lying(g) or g
    columns, channels = max((g.OW - 1) * g.SW + 1, g.W) + (g.KW - 1) * g.DW, max(g.IC, g.OC)
    if conv_depthwise.fits(g):
        channels = 4 * VECTOR_BYTES if conv_depthwise.copies(g) else 0  # a vector at a time, but in several rows
    if columns * channels > ROW_NUMBERS:
        return f"a row of the input would be padded to {columns} columns"
    return None


def _is_product(g):
    return (g.KH, g.KW, g.SH, g.SW, g.groups) == (1, 1, 1, 1, 1) and (g.OH, g.OW) == (g.H, g.W) and g.PT == g.PL == 0


def _is_strided_product(g):
    """A product of the pixels that it sees, even if these are copied together first: 20 instead of 26 ms for 256 to 512 channels."""
    return (g.KH, g.KW, g.groups) == (1, 1, 1) and g.SH * g.SW > 1


def _pixels(g):
    """The pixels that a strided product sees, as `rows` of dense.product, or None where they had better be copied together: low tiles, and
    high ones that find few of them in a row."""
    padded, even = g.PT or g.PB or g.PL or g.PR, g.N == 1 or g.H == g.OH * g.SH  # from image to image as from row to row
    if LOW_TILES or g.OW < FEWEST_PIXELS or padded or not even:
        return None
    return g.OW, g.SW * g.IC, g.SH * g.W * g.IC


def forward(g, x, weight, bias):
    """x (N, H, W, IC), weight OIHW, bias (OC,) to (N, OH, OW, OC)."""
    return _forward_way(g, x.dtype, conv_amx.get_amx())(g, x, weight, bias)


@functools.lru_cache(maxsize=1024)
def _forward_way(g, dtype, amx):
    """The function that does it. One look-up for each pass: after a kernel nothing of Python is in the caches, and all it looks at costs
    many times what it costs in a loop."""
    if amx and conv_amx.takes(g, dtype, "forward"):
        return conv_amx.forward
    if _is_product(g):
        return _product
    if _lying(g):
        return _lying_forward
    if _is_strided_product(g):
        return _strided_product if _pixels(g) else conv_im2col.forward
    if conv_depthwise.fits(g):
        return conv_depthwise.forward
    if conv_grouped.fits(g, dtype.itemsize):
        return conv_grouped.forward
    return conv_lanes.forward if conv_lanes.fits_forward(g, dtype.itemsize) else _tiles


def _product(g, x, weight, bias):
    return times_transposed(x.reshape(-1, g.IC), weight.reshape(g.OC, g.IC), bias).reshape(g.N, g.OH, g.OW, g.OC)


def _lying_forward(g, x, weight, bias):
    lying = _lying(g)
    return forward(lying, x.reshape(g.N, 1, g.H, g.IC), weight.reshape(lying.weight_shape), bias).reshape(g.N, g.OH, 1, g.OC)


def _strided_product(g, x, weight, bias):
    y = empty((g.N * g.OH * g.OW, g.OC), x.dtype)
    product = pixels_times_transposed(x.reshape(-1, g.IC), _pixels(g), weight.reshape(g.OC, g.IC), bias, y)
    return product.reshape(g.N, g.OH, g.OW, g.OC)


def _tiles(g, x, weight, bias):
    y = empty((g.N, g.OH, g.OW, g.OC), x.dtype)
    convolve(forward_plan(g, x.itemsize), x, weight, y, bias)
    return y


def forward_relu_max(g, x, weight, bias, argmax):
    """As `forward`, then ReLU and maxima of 2 x 2 with stride 2: (N, OH // 2, OW // 2, OC); argmax as in pool.relu_max_halves."""
    return _relu_max_way(g, x.dtype, conv_amx.get_amx())(g, x, weight, bias, argmax)


@functools.lru_cache(maxsize=1024)
def _relu_max_way(g, dtype, amx):
    """The function that does it: one pass over memory wherever sums run in the order of `forward`."""
    way = _forward_way(g, dtype, amx)
    if way is conv_lanes.forward or way is _tiles or way is _lying_forward:
        if conv_lanes.fits_relu_max(g, dtype.itemsize):
            return conv_lanes.forward_relu_max
        if not conv_lanes.reorders(g, dtype.itemsize):
            return _tiles_relu_max
    return _forward_then_relu_max


def _forward_then_relu_max(g, x, weight, bias, argmax):
    return relu_max_halves(forward(g, x, weight, bias), argmax)


def _tiles_relu_max(g, x, weight, bias, argmax):
    y = empty(g.halves_in_memory, x.dtype)
    kernel, arguments, shape = _relu_max(g, x.itemsize)
    kernel(g.flops, x, packed(forward_plan(g, x.itemsize), weight).reshape(shape), y, argmax, bias, *arguments)
    return y


@functools.lru_cache(maxsize=1024)
def _relu_max(g, itemsize):
    """(kernel, its last arguments, the shape of the packed weight) of `_tiles_relu_max`."""
    plan, image_bytes = forward_plan(g, itemsize), g.H * g.W * g.IC * itemsize
    OH, OW = g.OH // 2 * 2, g.OW // 2 * 2
    window = (OH, OW, g.SH, g.SW, g.PT, g.PL)  # without a last row or column that no maximum sees
    if plan.across and enough_images(g.N, 1):
        return conv_images.convolve_relu_max, (window, g.taps, images_of_job(g.N, image_bytes, 1)), plan.shapes[0]
    images, rows, _ = blocks_of_job(g.N, g.H, g.IC, window, g.taps, itemsize)
    table = plan.table.copy()
    table[:, ROW.index("OH")], table[:, ROW.index("OW")] = OH, OW
    return conv_direct.convolve_relu_max, (table, plan.channels, window, g.taps, plan.codes, images, rows + rows % 2), (plan.size,)


def backward_input(g, grad_output, weight):
    """grad_output (N, OH, OW, OC), weight OIHW to (N, H, W, IC)."""
    return _input_way(g, weight.dtype, conv_amx.get_amx())(g, grad_output, weight)


@functools.lru_cache(maxsize=1024)
def _input_way(g, dtype, amx):
    """The function that does it."""
    if amx and conv_amx.takes(g, dtype, "input"):
        return conv_amx.backward_input
    if _is_product(g):
        return _product_input
    if _lying(g):
        return _lying_input
    if _is_strided_product(g):
        return _strided_product_input if _pixels(g) else conv_im2col.backward_input
    if few := conv_few_inputs.way(g, dtype.itemsize):
        return few.backward_input
    if conv_depthwise.fits(g):
        return conv_depthwise.backward_input
    return conv_grouped.backward_input if conv_grouped.fits(g, dtype.itemsize) else _tiles_input


def _product_input(g, grad_output, weight):
    return times(grad_output.reshape(-1, g.OC), weight.reshape(g.OC, g.IC)).reshape(g.N, g.H, g.W, g.IC)


def _lying_input(g, grad_output, weight):
    lying = _lying(g)
    grad_input = backward_input(lying, grad_output.reshape(g.N, 1, g.OH, g.OC), weight.reshape(lying.weight_shape))
    return grad_input.reshape(g.N, g.H, 1, g.IC)


def _strided_product_input(g, grad_output, weight):
    grad_input = empty((g.N, g.H, g.W, g.IC), grad_output.dtype)
    # the product writes all other pixels
    strided.clear_unseen(grad_input.size, grad_input, (g.OH, g.OW, g.SH, g.SW))
    times_into_pixels(grad_output.reshape(-1, g.OC), weight.reshape(g.OC, g.IC), grad_input.reshape(-1, g.IC), _pixels(g))
    return grad_input


def _tiles_input(g, grad_output, weight):
    plans = input_plans(g, weight.itemsize)
    outputs = sum(plan.outputs for plan in plans)
    grad_input = (empty if outputs == g.H * g.W else zeros)((g.N, g.H, g.W, g.IC), grad_output.dtype)  # no window reads the others
    bias = np.zeros(g.IC, grad_output.dtype)
    for plan in plans:
        convolve(plan, grad_output, weight, grad_input, bias)
    return grad_input


def backward_weight(g, x, grad_output):
    """x (N, H, W, IC), grad_output (N, OH, OW, OC) to OIHW."""
    return _weight_way(g, x.dtype, conv_amx.get_amx())(g, x, grad_output)


@functools.lru_cache(maxsize=1024)
def _weight_way(g, dtype, amx):
    """The function that does it."""
    itemsize = dtype.itemsize
    if amx and conv_amx.takes(g, dtype, "weight"):
        return conv_amx.backward_weight
    if _is_product(g):
        return _product_weight
    if _lying(g):
        return _lying_weight
    if _is_strided_product(g) and g.IC * g.OC >= STRIDED_FILTERS:
        rows = _pixels(g)  # of crowded ones the sum gains nothing by it
        return _strided_product_weight if rows and rows[1] * itemsize % CROWDED else conv_im2col.backward_weight
    if conv_depthwise.fits(g):
        return conv_depthwise.backward_weight
    if conv_grouped.fits(g, itemsize):
        return conv_grouped.backward_weight
    fitting = (module for module in (conv_lanes, conv_few, conv_rows_weight) if module.fits_weight(g, itemsize))
    return next((module.backward_weight for module in fitting), _tiles_weight)


def _product_weight(g, x, grad_output):
    return transposed_times(grad_output.reshape(-1, g.OC), x.reshape(-1, g.IC)).reshape(g.weight_shape)


def _lying_weight(g, x, grad_output):
    x, grad_output = x.reshape(g.N, 1, g.H, g.IC), grad_output.reshape(g.N, 1, g.OH, g.OC)
    return backward_weight(_lying(g), x, grad_output).reshape(g.weight_shape)


def _strided_product_weight(g, x, grad_output):
    product = transposed_pixels_times(x.reshape(-1, g.IC), _pixels(g), grad_output.reshape(-1, g.OC))
    return swapped(product, (1, g.IC, g.OC), g.weight_shape)


def _tiles_weight(g, x, grad_output):
    ICG, OCG = g.IC // g.groups, g.OC // g.groups
    *blocks, BC = packed_channels(g.groups, OCG, ICG, x.itemsize, WEIGHT_BLOCK_BYTES)
    shape = *blocks, g.KH, g.KW, BC, VECTOR_BYTES // x.itemsize
    splits, *cut = _weight_jobs(g, shape, x.itemsize)
    parts = empty((splits, *shape), x.dtype)
    conv_direct_weight.backward_weight(g.flops, x, grad_output, parts, g.window, g.taps, *cut)
    grad_weight = empty(g.weight_shape, x.dtype)
    conv_direct_weight.unpack(parts.size, parts, grad_weight)
    return grad_weight


@functools.lru_cache(maxsize=1024)
def _weight_jobs(g, packed_shape, itemsize):
    """How the weight gradient is cut into jobs: splits, and (images, rows, columns, share, own) of the kernel."""
    splits, share, own = weight_jobs(g, packed_shape, itemsize)
    columns = columns_of_job(g.OW)
    row_bytes = ((columns - 1) * g.SW + (g.KW - 1) * g.DW + 1) * own * packed_shape[5] * itemsize
    if columns < g.OW:
        return splits, 1, 1, columns, share, own
    rows = max(1, min(g.OH, -(-2 * PIXELS // g.OW), (PANEL_BYTES // row_bytes - (g.KH - 1) * g.DH - 1) // g.SH + 1))
    rows = -(-g.OH // -(-g.OH // rows))
    image_bytes = ((rows - 1) * g.SH + (g.KH - 1) * g.DH + 1) * row_bytes
    images = max(1, min(-(-g.N // splits), PIXELS // (rows * g.OW), PANEL_BYTES // image_bytes)) if rows == g.OH else 1
    return splits, images, rows, columns, share, own
