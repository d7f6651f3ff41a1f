"""Weight gradients of the direct convolution by tiles that read each number of the input once for all taps of a row of the filter."""

import functools

from fastconv.functional import conv_tiles
from fastconv.kernels import conv_direct_weight, conv_rows_weight, row_tile_weight
from fastconv.kernels.processor import VECTOR_BYTES
from fastconv.kernels.row_tile import code_of
from fastconv.memory import empty

UNIT, TALL_UNIT, UNIT_BYTES = 200, 512, 1 << 20
"""Pixels of the output that a job takes together, more where it had to copy many rows of the input for few of the output, and bytes of the
input that it copies for them."""

FAR = 4
"""From this dilation of rows on, most of the rows that lie between those of a tap would be copied for nothing."""


def fits_weight(g, itemsize):
    """Whether these tiles can do it, and gain more than it takes to copy the output's gradient into an order of their own.

    They gain little where there are few channels, less with strides: of 4 channels they lose half of the time, of 8 a tenth, and of 16 with
    stride 2 and three rows of taps 3 %.
    """
    if g.DH >= FAR:
        return False
    channels, lanes = g.IC // g.groups, VECTOR_BYTES // itemsize
    pays = channels >= lanes and (g.SW == 1 or channels * g.KH >= 4 * lanes)
    return pays and row_tile_weight.suits_rows.py_func(g.KW, g.OW, g.SW, g.DW)


def backward_weight(g, x, grad_output):
    """x (N, H, W, IC), grad_output (N, OH, OW, OC) to OIHW."""
    row_tile_weight.CODES.provide(code_of.py_func(g.KW, g.SW), x.dtype)
    shape, splits, cut = _cut(g, x.itemsize)
    parts = empty((splits, *shape), x.dtype)
    codes = row_tile_weight.CODES.addresses[x.itemsize]
    conv_rows_weight.backward_weight(g.flops, x, grad_output, parts, g.window, g.taps, codes, *cut)
    grad_weight = empty(g.weight_shape, x.dtype)
    conv_direct_weight.unpack(parts.size, parts, grad_weight)
    return grad_weight


@functools.lru_cache(maxsize=1024)
def _cut(g, itemsize):
    """(shape of a packed gradient, splits, last arguments of the kernel)."""
    *blocks, BC = conv_tiles.packed_channels(g.groups, g.OC // g.groups, g.IC // g.groups, itemsize, VECTOR_BYTES)
    shape = *blocks, g.KH, g.KW, BC, VECTOR_BYTES // itemsize
    splits, share, own = conv_tiles.weight_jobs(g, shape, itemsize)
    together = 2 if row_tile_weight.most_channels.py_func(g.KW, g.SW, 2) else 1
    column_blocks = -(-g.OW // conv_tiles.columns_of_job(g.OW))
    columns = -(-g.OW // column_blocks)
    span, row_bytes = (g.KH - 1) * g.DH + 1, ((columns - 1) * g.SW + (g.KW - 1) * g.DW + 1) * own * BC * itemsize
    pixels = UNIT if 3 * span * columns <= UNIT * g.SH else TALL_UNIT
    rows = max(1, min(g.OH, pixels // columns, (UNIT_BYTES // row_bytes - span) // g.SH + 1))
    rows = -(-g.OH // -(-g.OH // rows))
    image_bytes = ((rows - 1) * g.SH + span) * row_bytes
    whole = rows == g.OH and column_blocks == 1
    images = max(1, min(-(-g.N // splits), pixels // (rows * columns), UNIT_BYTES // image_bytes)) if whole else 1
    return shape, splits, (images, rows, column_blocks, share, own, together)
