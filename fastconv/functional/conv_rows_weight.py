"""Weight gradients of the direct convolution by tiles that read each number of the input once for all taps of a row of the filter."""

import functools
import math

from fastconv.functional import conv_tiles
from fastconv.functional.linear import PARTS
from fastconv.kernels import conv_direct_weight, conv_rows_weight, row_tile_weight
from fastconv.kernels.processor import VECTOR_BYTES
from fastconv.kernels.row_tile import code_of
from fastconv.memory import empty

PART_BYTES = 1 << 23
"""All private copies of a weight's gradient together."""

JOB_FLOPS = 1 << 24
"""Floating-point operations of a job, at least, where the work is more than two of them. With 16 jobs for any work 2 to 60 million
operations took 3 to 40 % longer."""

UNIT = 4 * conv_tiles.PIXELS
"""Pixels of the output of which one split's part of the sum has some, at least."""

PIXELS = 200
"""Pixels of the output that a job takes together."""


def fits_weight(g, itemsize):
    """Whether these tiles can do it, and gain more than it takes to copy the output's gradient into an order of their own.

    They gain little where there are few channels, less with strides: of 4 channels they lose half of the time, of 8 a tenth, and of 16 with
    stride 2 and three rows of taps 3 %.
    """
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
    splits, share, own = shares(g, shape, itemsize)
    together = 2 if row_tile_weight.most_channels.py_func(g.KW, g.SW, 2) else 1
    column_blocks = -(-g.OW // conv_tiles.columns_of_job(g.OW))
    columns = -(-g.OW // column_blocks)
    rows = max(1, min(g.OH, PIXELS // columns))
    rows = -(-g.OH // -(-g.OH // rows))
    images = max(1, min(-(-g.N // splits), PIXELS // (rows * columns))) if rows == g.OH and column_blocks == 1 else 1
    return shape, splits, (images, rows, column_blocks, share, own, together)


def shares(g, packed_shape, itemsize):
    """How a weight gradient of `packed_shape` is cut into PARTS jobs or more, a small one into as many as it is worth: splits, vectors of a
    job, an even number, and its blocks.

    Every job copies the input of its channels and the gradient of its vectors, every split has a weight's gradient of its own: the cut
    that moves the fewest bytes is the best.
    """
    groups, vectors, CB = packed_shape[:3]
    part = math.prod(packed_shape) * itemsize
    input_bytes, gradient_bytes = (g.N * pixels * itemsize for pixels in (g.IC * g.H * g.W, g.OC * g.OH * g.OW))
    units = g.N * -(-g.OH * g.OW // UNIT)  # an image, or some rows of a large one
    jobs = max(2, min(PARTS, g.flops // JOB_FLOPS))
    cuts = [
        (shares * input_bytes + owners * gradient_bytes + 4 * splits * part, splits, -(-vectors // shares), -(-CB // owners))
        for shares in _halvings(vectors // 2)
        for owners in _halvings(CB)
        for splits in _halvings(min(units, PART_BYTES // part))
        if splits * groups * shares * owners >= jobs
    ]
    _, splits, share, own = min(cuts, default=(0, max(1, min(units, PART_BYTES // part)), 2, 1))
    return splits, share + share % 2, own


def _halvings(n):
    """1, 2, 4, ... up to n, at least 1."""
    return [1 << i for i in range(max(1, n).bit_length())]
