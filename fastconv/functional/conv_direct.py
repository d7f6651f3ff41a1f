"""The algorithm "direct": the register tile. 1x1 convolutions are matrix products, depthwise ones stand in conv_depthwise."""

import dataclasses
import functools
import itertools
import math

import numpy as np

from fastconv.functional import conv_depthwise, conv_few, conv_grouped, conv_im2col, conv_lanes
from fastconv.functional.linear import PARTS, times, times_transposed, transposed_times
from fastconv.functional.phases import phases
from fastconv.functional.pool import relu_max_halves
from fastconv.kernels import conv_direct, conv_images
from fastconv.kernels.processor import VECTOR_BYTES
from fastconv.kernels.simd import MAX_ROWS
from fastconv.memory import empty, zeros

PIXELS, PANEL_BYTES = 256, 1 << 18
"""A job takes so many output pixels, that weights are read from L2 often enough, and a panel of input rows that leaves room for them."""

WHOLE_BYTES = 1 << 15
"""Images up to this size are not cut where there are many: the rows between two parts would be copied twice."""

PART_BYTES = 1 << 23
"""All private copies of a weight's gradient together."""

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
    """A product of the pixels that it sees, which are copied together first: 20 instead of 26 ms for ResNet's 256 to 512 channels."""
    return (g.KH, g.KW, g.groups) == (1, 1, 1) and g.SH * g.SW > 1


def _columns(OW):
    """Output columns of a job: even parts of long rows."""
    return OW if OW <= 2 * PIXELS else -(-OW // -(-OW // PIXELS))


@functools.lru_cache(maxsize=4096)
def _blocks(N, H, C, window, taps, itemsize):
    """(images, rows, columns) of a job: about PIXELS output pixels, in even parts; a whole image where that is small and there are many."""
    (OH, OW, _, SW, _, _), (_, KW, _, DW) = window, taps
    held = C * itemsize if DW == 1 else min(C * itemsize, BLOCK_BYTES)
    columns = _columns(OW)
    row_bytes = ((columns - 1) * SW + (KW - 1) * DW + 1) * held

    def panel_bytes(rows):
        return conv_direct.panel_rows.py_func(H, rows, window, taps)[0] * row_bytes

    if OH * OW <= PIXELS // 2 or (N >= PARTS and columns == OW and panel_bytes(OH) <= WHOLE_BYTES):
        return max(1, min(PIXELS // (OH * OW), N // PARTS, PANEL_BYTES // panel_bytes(OH))), OH, OW
    rows = min(OH, -(-PIXELS // columns))
    while rows > 1 and panel_bytes(rows) > PANEL_BYTES:
        rows -= 1
    return 1, -(-OH // -(-OH // rows)), columns


IMAGE_JOBS = 4
"""Where tiles lie across images there must be so many jobs."""

SMALL_PIXELS = 256
"""Pixels of the output up to which a tile takes one pixel of several images."""

LOW_TILES = MAX_ROWS <= 8
"""Whether rows of 8 pixels and more fill the rows of a tile, as they do where registers are 16."""

IMAGES, IMAGES_BYTES, OUTPUT_BYTES = 16, 1 << 17 if LOW_TILES else 1 << 20, 1 << 18
"""A job takes so many images, or half as many where these would take more bytes; and outputs that stay in L2 if it adds to them."""

BLOCK_BYTES, WEIGHT_BLOCK_BYTES = (128, VECTOR_BYTES) if LOW_TILES else (256, 256)
"""Channels of a panel's block, the second for weight gradients: longer sums lose less at their ends, but pixels share lines of the cache.

Against blocks of one vector AVX2 gains 3 to 8 %, dilated 14 %, but weight gradients lose 4 to 8 %; AVX-512 gains 2 to 10 % everywhere.
"""


def _held(H, W, C, itemsize):
    """Bytes of an image that a job holds at a time when tiles lie across images: all channels, or, for low tiles, a block of them."""
    return H * W * (min(C * itemsize, BLOCK_BYTES) if LOW_TILES else C * itemsize)


def _by_images(N, image_bytes, OH, OW, taps, pairs):
    """Whether a convolution of N images, of which a job holds `image_bytes` each, should take its tiles across images.

    Jobs may share out `pairs` of vectors too. By rows there are more jobs, and 2 jobs leave most processors idle.
    """
    KH, KW, _, DW = taps
    fitting = IMAGES // 2 * image_bytes <= IMAGES_BYTES and -(-N // (IMAGES // 2)) * pairs >= IMAGE_JOBS
    return fitting and N >= IMAGES // 2 and OH * OW <= SMALL_PIXELS and KH * KW > 1 and DW == 1


def _images(N, image_bytes, pairs):
    """How many images a job takes, of which it holds `image_bytes` each."""
    return IMAGES if IMAGES * image_bytes <= IMAGES_BYTES and -(-N // IMAGES) * pairs >= IMAGE_JOBS else IMAGES // 2


@functools.lru_cache(maxsize=4096)
def _image_cut(shape, packed_shape, OH, OW, itemsize):
    """(images, share, own) of kernels.conv_images.convolve for an input of `shape` (N, H, W, C)."""
    N, H, W, C = shape
    _, vectors, CB, _, _, BC, lanes = packed_shape
    image_bytes = _held(H, W, C, itemsize)
    images = _images(N, image_bytes, -(-vectors // 2))
    own = max(1, min(CB, IMAGES_BYTES // (images * H * W * BC * itemsize)))
    shares = max(1, PARTS // -(-N // images))
    if own < CB:
        shares = max(shares, min(N, images) * OH * OW * vectors * lanes * itemsize // OUTPUT_BYTES)
    return images, 2 * -(-vectors // (2 * shares)), own


def _convolve(work, x, packed, y, bias, window, taps, place):
    """One dense convolution of x (N, H, W, C) into y (N, YH, YW, OC), by images or by rows."""
    N, H, W, C = x.shape
    OH, OW = window[:2]
    if _by_images(N, _held(H, W, C, x.itemsize), OH, OW, taps, -(-packed.shape[1] // 2)):
        cut = _image_cut(x.shape, packed.shape, OH, OW, x.itemsize)
        conv_images.convolve(work, x, packed, y, bias, window, taps, place, *cut)
    else:
        conv_direct.convolve(work, x, packed, y, bias, window, taps, place, *_blocks(N, H, C, window, taps, x.itemsize))


@functools.lru_cache(maxsize=4096)
def _packed_shape(groups, vectorised, summed, taps, itemsize, block_bytes):
    """(groups, vectors, CB, KH, KW, BC, lanes): channels of a group as vectors, and as CB even blocks of BC that fit into block_bytes."""
    lanes = VECTOR_BYTES // itemsize
    CB = -(-summed * itemsize // block_bytes)
    return groups, -(-vectorised // lanes), CB, *taps, -(-summed // CB), lanes


def forward(g, x, weight, bias):
    """x (N, H, W, IC), weight OIHW, bias (OC,) to (N, OH, OW, OC)."""
    if _is_product(g):
        return times_transposed(x.reshape(-1, g.IC), weight.reshape(g.OC, g.IC), bias).reshape(g.N, g.OH, g.OW, g.OC)
    if lying := _lying(g):
        return forward(lying, x.reshape(g.N, 1, g.H, g.IC), weight.reshape(lying.weight_shape), bias).reshape(g.N, g.OH, 1, g.OC)
    if _is_strided_product(g):
        return conv_im2col.forward(g, x, weight, bias)
    if conv_depthwise.fits(g):
        return conv_depthwise.forward(g, x, weight, bias)
    if conv_grouped.fits(g, x.itemsize):
        return conv_grouped.forward(g, x, weight, bias)
    if conv_lanes.fits_forward(g, x.itemsize):
        return conv_lanes.forward(g, x, weight, bias)
    y = empty((g.N, g.OH, g.OW, g.OC), x.dtype)
    _convolve(g.flops, x, _packed(g, weight), y, bias, g.window, g.taps, (1, 1, 0, 0))
    return y


def forward_relu_max(g, x, weight, bias, argmax):
    """As `forward`, then ReLU and maxima of 2 x 2 with stride 2: (N, OH // 2, OW // 2, OC); argmax as in pool.relu_max_halves."""
    if _is_product(g) or _is_strided_product(g) or conv_depthwise.fits(g) or conv_grouped.fits(g, x.itemsize):
        return relu_max_halves(forward(g, x, weight, bias), argmax)
    if conv_lanes.fits_relu_max(g, x.itemsize):
        return conv_lanes.forward_relu_max(g, x, weight, bias, argmax)
    if conv_lanes.reorders(g, x.itemsize):
        return relu_max_halves(forward(g, x, weight, bias), argmax)
    kernel, window, cut = _relu_max(g, x.itemsize)
    y = empty((g.N, g.OH // 2, g.OW // 2, g.OC), x.dtype)
    kernel(g.flops, x, _packed(g, weight), y, argmax, bias, window, g.taps, *cut)
    return y


@functools.lru_cache(maxsize=1024)
def _relu_max(g, itemsize):
    """(kernel, window, how it is cut) of `forward_relu_max`."""
    OH, OW = g.OH // 2 * 2, g.OW // 2 * 2
    window = (OH, OW, g.SH, g.SW, g.PT, g.PL)  # without a last row or column that no maximum sees
    image_bytes = g.H * g.W * g.IC * itemsize
    if _by_images(g.N, image_bytes, OH, OW, g.taps, 1):
        return conv_images.convolve_relu_max, window, (_images(g.N, image_bytes, 1),)
    images, rows, _ = _blocks(g.N, g.H, g.IC, window, g.taps, itemsize)
    return conv_direct.convolve_relu_max, window, (images, rows + rows % 2)


def _packed(g, weight):
    """The weight in the order in which `convolve` reads it."""
    shape = _packed_shape(g.groups, g.OC // g.groups, g.IC // g.groups, (g.KH, g.KW), weight.itemsize, BLOCK_BYTES)
    packed = empty(shape, weight.dtype)
    conv_direct.pack(weight.size, weight, packed, 0, g.KW, 1, False)
    return packed


def _few_for_input(g, itemsize):
    """Whether conv_few takes the input gradient. Small images' tiles lie across images, and leave out taps beyond the border."""
    taps, pairs = (g.KH, g.KW, g.DH, g.DW), -(-g.IC // (2 * VECTOR_BYTES // itemsize))
    return conv_few.fits_input(g, itemsize) and not _by_images(g.N, _held(g.OH, g.OW, g.OC, itemsize), g.H, g.W, taps, pairs)


def backward_input(g, grad_output, weight):
    """grad_output (N, OH, OW, OC), weight OIHW to (N, H, W, IC)."""
    if _is_product(g):
        return times(grad_output.reshape(-1, g.OC), weight.reshape(g.OC, g.IC)).reshape(g.N, g.H, g.W, g.IC)
    if lying := _lying(g):
        weight = weight.reshape(lying.weight_shape)
        return backward_input(lying, grad_output.reshape(g.N, 1, g.OH, g.OC), weight).reshape(g.N, g.H, 1, g.IC)
    if _is_strided_product(g):
        return conv_im2col.backward_input(g, grad_output, weight)
    if conv_lanes.fits_input(g, grad_output.itemsize):
        return conv_lanes.backward_input(g, grad_output, weight)
    if _few_for_input(g, grad_output.itemsize):
        return conv_few.backward_input(g, grad_output, weight)
    if conv_depthwise.fits(g):
        return conv_depthwise.backward_input(g, grad_output, weight)
    if conv_grouped.fits(g, weight.itemsize):
        return conv_grouped.backward_input(g, grad_output, weight)
    rows, columns = phases(g.H, g.KH, g.SH, g.DH, g.PT), phases(g.W, g.KW, g.SW, g.DW, g.PL)
    untouched = any(phase.taps == 0 for phase in rows + columns)  # input that no window reads
    grad_input = (zeros if untouched else empty)((g.N, g.H, g.W, g.IC), grad_output.dtype)
    for row, column in itertools.product(rows, columns):
        if row.taps and column.taps:
            _backward_input_phase(g, grad_output, weight, grad_input, row, column)
    return grad_input


def _backward_input_phase(g, grad_output, weight, grad_input, row, column):
    dtype, taps = grad_output.dtype, (row.taps, column.taps, row.dilation, column.dilation)
    window, place = (row.count, column.count, 1, 1, row.padding, column.padding), (g.SH, g.SW, row.first, column.first)
    work = 2 * g.N * row.count * column.count * row.taps * column.taps * g.IC * g.OC // g.groups
    packed = empty(_packed_shape(g.groups, g.IC // g.groups, g.OC // g.groups, taps[:2], dtype.itemsize, BLOCK_BYTES), dtype)
    conv_direct.pack(packed.size, weight, packed, row.last * g.KW + column.last, -row.step * g.KW, -column.step, True)
    _convolve(work, grad_output, packed, grad_input, np.zeros(g.IC, dtype), window, taps, place)


def backward_weight(g, x, grad_output):
    """x (N, H, W, IC), grad_output (N, OH, OW, OC) to OIHW."""
    if _is_product(g):
        return transposed_times(grad_output.reshape(-1, g.OC), x.reshape(-1, g.IC)).reshape(g.weight_shape)
    if lying := _lying(g):
        x, grad_output = x.reshape(g.N, 1, g.H, g.IC), grad_output.reshape(g.N, 1, g.OH, g.OC)
        return backward_weight(lying, x, grad_output).reshape(g.weight_shape)
    if conv_depthwise.fits(g):
        return conv_depthwise.backward_weight(g, x, grad_output)
    if conv_grouped.fits(g, x.itemsize):
        return conv_grouped.backward_weight(g, x, grad_output)
    if conv_lanes.fits_weight(g, x.itemsize):
        return conv_lanes.backward_weight(g, x, grad_output)
    if conv_few.fits_weight(g, x.itemsize):
        return conv_few.backward_weight(g, x, grad_output)
    ICG, OCG = g.IC // g.groups, g.OC // g.groups
    shape = _packed_shape(g.groups, OCG, ICG, (g.KH, g.KW), x.itemsize, WEIGHT_BLOCK_BYTES)
    splits, *cut = _weight_jobs(g, shape, x.itemsize)
    parts = empty((splits, *shape), x.dtype)
    conv_direct.backward_weight(g.flops, x, grad_output, parts, g.window, g.taps, *cut)
    grad_weight = empty(g.weight_shape, x.dtype)
    conv_direct.unpack(parts.size, parts, grad_weight)
    return grad_weight


@functools.lru_cache(maxsize=1024)
def _weight_jobs(g, packed_shape, itemsize):
    """How the weight gradient is cut into PARTS jobs or more: splits, and (images, rows, columns, share, own) of the kernel.

    Every job copies the input of its channels and the gradient of its vectors, every split has a weight's gradient of its own: the cut
    that moves the fewest bytes is the best.
    """
    groups, vectors, CB = packed_shape[:3]
    part = math.prod(packed_shape) * itemsize
    input_bytes, gradient_bytes = (g.N * pixels * itemsize for pixels in (g.IC * g.H * g.W, g.OC * g.OH * g.OW))
    units = g.N * -(-g.OH * g.OW // (4 * PIXELS))  # an image, or some rows of a large one
    cuts = [
        (shares * input_bytes + owners * gradient_bytes + 4 * splits * part, splits, -(-vectors // shares), -(-CB // owners))
        for shares in _halvings(vectors // 2)
        for owners in _halvings(CB)
        for splits in _halvings(min(units, PART_BYTES // part))
        if splits * groups * shares * owners >= PARTS
    ]
    _, splits, share, own = min(cuts, default=(0, max(1, min(units, PART_BYTES // part)), 2, 1))
    columns = _columns(g.OW)
    row_bytes = ((columns - 1) * g.SW + (g.KW - 1) * g.DW + 1) * own * packed_shape[5] * itemsize
    if columns < g.OW:
        return splits, 1, 1, columns, share + share % 2, own
    rows = max(1, min(g.OH, -(-2 * PIXELS // g.OW), (PANEL_BYTES // row_bytes - (g.KH - 1) * g.DH - 1) // g.SH + 1))
    rows = -(-g.OH // -(-g.OH // rows))
    image_bytes = ((rows - 1) * g.SH + (g.KH - 1) * g.DH + 1) * row_bytes
    images = max(1, min(-(-g.N // splits), PIXELS // (rows * g.OW), PANEL_BYTES // image_bytes)) if rows == g.OH else 1
    return splits, images, rows, columns, share + share % 2, own


def _halvings(n):
    """1, 2, 4, ... up to n, at least 1."""
    return [1 << i for i in range(max(1, n).bit_length())]
