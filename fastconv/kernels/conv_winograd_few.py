"""Winograd's algorithm for few tiles: a job takes all of them and some of the filters, which are larger; see conv_winograd.

Transformed filters stay near the processor that uses them. Of 512 x 512 they are 38 MB, which would go through memory twice, and
take longer than all multiplications with 100 tiles.
"""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.jit import kernel
from fastconv.kernels.scratch import scratch_pair
from fastconv.kernels.tiles import tiles_ahead
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import flat
from fastconv.kernels.winograd_blocks import plain_outputs, pooled_outputs
from fastconv.kernels.winograd_filters import transform_filters
from fastconv.kernels.winograd_tiling import ELEMENTS, LINE, count_tiles, element, is_strided, padded


@apart
def _pair(job, V, weight, Y, argmax, bias, low, pooled, tiling, group, by_input, depth):
    """Job `job` of `convolve_few`."""
    (_, IC, _, OC), (blocks, rows, v_step), strided = group, V.shape, is_strided(tiling)
    y, values = flat(Y), flat(V)
    L, total = lanes(y), count_tiles(Y.shape[0], tiling)
    u_step, m_step = depth * L + LINE, total * 2 * L + LINE
    U, M = scratch_pair(2 * ELEMENTS * u_step, rows * m_step, y.dtype)
    start = np.zeros(2 * L, y.dtype)
    v = 2 * job
    wide = min(2, (OC + L - 1) // L - v)
    for block in range(blocks):
        first, last = block * depth, min(IC, (block + 1) * depth)
        for w in range(wide):
            transform_filters(v + w, weight, first, last, by_input, strided, U, w * ELEMENTS * u_step, u_step, False)
        over = (1, 0, 0, 1, 0, 0, last - first, 1, L)
        for e in range(ELEMENTS):
            before, own = element(e, strided)
            tiles_ahead(own * total, values, (block * rows + before) * v_step, padded(depth, L), U, e * u_step, ELEMENTS * u_step,
                        M, before * m_step, 2 * L, L, wide, wide * L, start, 0, block, over, (own * v_step, LINE, 0, 1))
    if pooled:
        pooled_outputs(M, m_step, 2 * L, 0, total, v, wide, tiling, Y, argmax, group, bias)
    else:
        plain_outputs(M, m_step, 2 * L, 0, total, v, wide, tiling, Y, group, bias, low)


@kernel
def convolve_few(V, weight, Y, argmax, bias, low, pooled, tiling, group, by_input, depth):
    """As conv_winograd.convolve, of V, what `transform_tiles` made of the input, and of weights that are not transformed, with `by_input`
    for the input's gradient. Parallel over pairs of vectors of output channels, whose filters a job transforms for `depth` of the channels
    that it sums at a time.
    """
    L = lanes(weight)
    for job in prange((group[3] + 2 * L - 1) // (2 * L)):
        _pair(np.int64(job), V, weight, Y, argmax, bias, low, pooled, tiling, group, by_input, depth)
