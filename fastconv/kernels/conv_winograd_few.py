"""Winograd's algorithm for few tiles: a job takes all of them and some of the filters, which are larger; see conv_winograd.

Transformed filters, or their gradients' sums, stay near the processor that uses them. Of 512 x 512 they are 38 MB, which would go through
memory twice or more, and take longer than all multiplications with 100 tiles.
"""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.jit import kernel
from fastconv.kernels.scratch import scratch, scratch_pair
from fastconv.kernels.tiles import tiles_ahead
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import flat
from fastconv.kernels.winograd_blocks import (
    ELEMENTS,
    LINE,
    count_tiles,
    filters_back,
    padded,
    plain_outputs,
    pooled_outputs,
    transform_filters,
)

WIDE = 4
"""Vectors of output channels whose filters' gradients a job sums up."""


@apart
def _pair(job, V, weight, Y, argmax, bias, low, pooled, tiling, group, by_input, depth):
    """Job `job` of `convolve_few`."""
    (_, IC, _, OC), (blocks, _, v_step) = group, V.shape
    y, values = flat(Y), flat(V)
    L, total = lanes(y), count_tiles(Y.shape[0], tiling)
    u_step, m_step = depth * L + LINE, total * 2 * L + LINE
    U, M = scratch_pair(2 * ELEMENTS * u_step, ELEMENTS * m_step, y.dtype)
    start = np.zeros(2 * L, y.dtype)
    v = 2 * job
    wide = min(2, (OC + L - 1) // L - v)
    for block in range(blocks):
        first, last = block * depth, min(IC, (block + 1) * depth)
        for w in range(wide):
            transform_filters(v + w, weight, first, last, by_input, U, w * ELEMENTS * u_step, u_step)
        over = (1, 0, 0, 1, 0, 0, last - first, 1, L)
        for e in range(ELEMENTS):
            tiles_ahead(total, values, (block * ELEMENTS + e) * v_step, padded(depth, L), U, e * u_step, ELEMENTS * u_step,
                        M, e * m_step, 2 * L, L, wide, wide * L, start, 0, block, over, (v_step, LINE, 0))
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


@apart
def _block_of_filters(job, V, D, grad_weight, count, depth):
    """Job `job` of `backward_weight_few`."""
    (OC, IC), (blocks, _, v_step), d_step = grad_weight.shape[:2], V.shape, D.shape[2]
    values, d, L = flat(V), flat(D), lanes(V)
    block, v = job % blocks, job // blocks * WIDE
    first, vectors = block * depth, min(WIDE, (OC + L - 1) // L - v)
    last, p_step = min(IC, first + depth), depth * L + LINE
    stride, d_stride = padded(depth, L), padded(WIDE * L, L)
    p, start = scratch(vectors * ELEMENTS * p_step, V.dtype), np.zeros(vectors * L, V.dtype)
    over = (1, 0, 0, 1, 0, 0, count, stride, d_stride)
    for e in range(ELEMENTS):
        tiles_ahead(last - first, values, (block * ELEMENTS + e) * v_step, 1, d, (job // blocks * ELEMENTS + e) * d_step, L,
                    p, e * p_step, L, ELEMENTS * p_step, vectors, vectors * L, start, 0, 0, over, (v_step, stride, 0))
    for w in range(vectors):
        for c in range(first, last, L):
            filters_back(p, w * ELEMENTS * p_step + (c - first) * L, p_step, 1, 0, v + w, c, grad_weight)


@kernel
def backward_weight_few(V, D, grad_weight, count, depth):
    """Reads `count` tiles of the input and of the gradient, as `transform_tiles` writes them; writes grad_weight
    (OC, IC, K, K). Parallel over blocks of WIDE vectors of output channels and of `depth` input channels.
    """
    for job in prange(V.shape[0] * D.shape[0]):
        _block_of_filters(np.int64(job), V, D, grad_weight, count, depth)
