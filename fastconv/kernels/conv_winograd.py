"""Winograd's F(4x4, 3x3) and F(2x2, 5x5): convolutions of stride 1 with 36 multiplications for 16 or 4 outputs, not 144 or 100.

A tile of 6 x 6 inputs and the filter are transformed, multiplied element by element and summed over channels, which for each of the 36
elements is a matrix product of many tiles, and the product is transformed into 4 x 4 or 2 x 2 outputs (Lavin and Gray 2015, arXiv
1509.09308, section 4). A job keeps the transformed input of its tiles near, and never writes it to memory for others.

Transformed weights are (vectors, 36, IC * lanes + LINE), elements by rows of the tile; `tiling` is winograd_blocks's, and `group` =
(ic, IC, oc, OC) the first channel, and how many, of what is read and of what is written: those of one group of channels.
"""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.dense import part
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.prefetch import prefetch_part
from fastconv.kernels.scratch import scratch_pair
from fastconv.kernels.tiles import tiles, tiles_ahead
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import flat
from fastconv.kernels.winograd_blocks import (
    BLOCK,
    ELEMENTS,
    LINE,
    count_tiles,
    gradient_tiles,
    input_tiles,
    memory_of_tiles,
    padded,
    plain_outputs,
    pooled_outputs,
)


@device
def multiply(V, stride, v_step, count, IC, u, v, wide, u_step, M, m_step, line, start, L, x, ahead):
    """Element by element, the products of `count` tiles (count, IC) and vectors v .. v + wide of the weights, into M (count, line).

    The input x[ahead[0] .. ahead[1]], which the next job reads, is asked for: until then memory would have nothing to do.
    """
    over = (1, 0, 0, 1, 0, 0, IC, 1, L)
    for e in range(ELEMENTS):
        prefetch_part(x, ahead[0], ahead[1], e, ELEMENTS)
        tiles(count, V, e * v_step, stride, u, (v * ELEMENTS + e) * u_step, ELEMENTS * u_step, M, e * m_step, line, L,
              wide, wide * L, start, 0, 0, over)


@apart
def _job(job, X, U, Y, argmax, bias, low, pooled, tiling, group, blocks, share, span):
    """Job `job` of `convolve`."""
    (ic, IC, _, _), (vectors, _, u_step) = group, U.shape
    N, x, u, y = X.shape[0], flat(X), flat(U), flat(Y)
    L, total, shares = lanes(y), count_tiles(N, tiling), (vectors + share - 1) // share
    stride, most = padded(IC, L), (total + blocks - 1) // blocks
    line = padded(span * L, L)
    v_step, m_step = most * stride + LINE, most * line + LINE
    t0, t1 = part(job // shares, blocks, total)
    v0 = job % shares * share
    v1 = min(vectors, v0 + share)
    alone = v1 - v0 <= 2 and line == stride  # a row's products replace the row once they all are there, in the first cache
    V, M = scratch_pair(ELEMENTS * v_step, 0 if alone else ELEMENTS * m_step, y.dtype)
    if alone:
        M = V
    start = np.zeros(span * L, y.dtype)
    ahead = memory_of_tiles(X, IC, t1, most, tiling)
    input_tiles(X, t0, t1, ic, ic + IC, tiling, V, 0, stride, v_step)
    for v in range(v0, v1, span):
        wide = min(span, v1 - v)
        multiply(V, stride, v_step, t1 - t0, IC, u, v, wide, u_step, M, m_step, line, start, L, x, ahead if v + span >= v1 else (0, 0))
        if pooled:
            pooled_outputs(M, m_step, line, t0, t1, v, wide, tiling, Y, argmax, group, bias)
        else:
            plain_outputs(M, m_step, line, t0, t1, v, wide, tiling, Y, group, bias, low)


@kernel
def convolve(X, U, Y, argmax, bias, low, pooled, tiling, group, blocks, share, span):
    """Reads X (N, H, W, C), transformed weights U, bias of all channels; writes Y (N, OH, OW, C), numbers below `low` as `low`.

    With `pooled`, Y is (N, OH / 2, OW / 2, C), the maxima of 2 x 2 of ReLU, and argmax as pool.relu_max_forward_2x2 writes it, or empty.
    Parallel over `blocks` blocks of tiles and `share` vectors of output channels, of which a job takes `span` at a time.
    """
    for job in prange(blocks * ((U.shape[0] + share - 1) // share)):
        _job(np.int64(job), X, U, Y, argmax, bias, low, pooled, tiling, group, blocks, share, span)


@device
def add_products(V, v, v_step, stride, D, d, g_stride, count, p, target, d_step, IC, vectors, start, accumulate, L):
    """Sums over `count` tiles of products of V[v] (count, IC) and `vectors` vectors of D[d], into, or added to, the same element of each
    vector of p, the first at p[target].

    What lies v_step further in V, the next element, is asked for.
    """
    over, ahead = (1, 0, 0, 1, 0, 0, count, stride, g_stride), (v_step, stride, 0)
    tiles_ahead(IC, V, v, 1, D, d, L, p, target, L, ELEMENTS * d_step, vectors, vectors * L, start, 0, accumulate, over, ahead)


@apart
def _split(s, X, G, parts, tiling, group, block):
    """Split `s` of `backward_weight`."""
    N, (ic, IC, oc, OC) = X.shape[0], group
    splits, vectors, _, d_step = parts.shape
    x, g, p, total, L = flat(X), flat(G), flat(parts), count_tiles(N, tiling), lanes(X)
    stride, g_stride = padded(IC, L), padded(OC, L)
    v_step, g_step = block * stride + LINE, block * g_stride + LINE
    first, last = part(s, splits, total)
    V, D = scratch_pair(ELEMENTS * v_step, ELEMENTS * g_step, p.dtype)
    start = np.zeros(vectors * L, p.dtype)
    for t0 in range(first, max(last, first + 1), block):
        t1 = min(last, t0 + block)
        input_tiles(X, t0, t1, ic, ic + IC, tiling, V, 0, stride, v_step)
        gradient_tiles(G, t0, t1, oc, oc + OC, tiling, D, 0, g_stride, g_step)
        ahead, g_ahead = memory_of_tiles(X, IC, t1, block, tiling), memory_of_tiles(G, OC, t1, block, tiling)
        for e in range(ELEMENTS):
            prefetch_part(x, ahead[0], ahead[1], e, ELEMENTS)
            prefetch_part(g, g_ahead[0], g_ahead[1], e, ELEMENTS)
            add_products(V, e * v_step, v_step, stride, D, e * g_step, g_stride, t1 - t0, p, (s * vectors * ELEMENTS + e) * d_step, d_step,
                         IC, vectors, start, t0 - first, L)


@kernel
def backward_weight(X, G, parts, tiling, group, block):
    """Reads X (N, H, W, C) and grad_output G (N, OH, OW, C); writes parts (splits, vectors, 36, IC * lanes + LINE), whose sum over splits
    is the gradient of the transformed weights. Parallel over splits of the tiles, which a job takes `block` at a time.
    """
    for s in prange(parts.shape[0]):
        _split(np.int64(s), X, G, parts, tiling, group, block)


@kernel
def sum_products(V, D, part, count, IC, OC, accumulate):
    """Reads `count` transformed tiles of the input and of the gradient; writes the sums of their products to part, or adds them:
    (vectors, 36, IC * lanes + LINE). Parallel over elements and blocks of vectors of output channels.
    """
    vectors, _, d_step = part.shape
    v, d, p, L = flat(V), flat(D), flat(part), lanes(V)
    shares = (vectors + BLOCK - 1) // BLOCK
    for job in prange(ELEMENTS * shares):
        e, first, start = job // shares, job % shares * BLOCK, np.zeros(BLOCK * L, p.dtype)
        add_products(v, e * V.shape[1], V.shape[1], padded(IC, L), d, e * D.shape[1] + first * L, padded(OC, L), count,
                     p, (first * ELEMENTS + e) * d_step, d_step, IC, min(vectors - first, BLOCK), start, accumulate, L)
