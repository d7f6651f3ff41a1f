"""Winograd's F(4x4, 3x3) and F(2x2, 5x5): convolutions with 36 multiplications for 16 or 4 outputs, not 144 or 100.

With stride 2 they are 81 for 16, not 144, see winograd_strided.

A tile of 6 x 6 inputs and the filter are transformed, multiplied element by element and summed over channels, which for each of the 36
elements is a matrix product of many tiles, and the product is transformed into 4 x 4 or 2 x 2 outputs (Lavin and Gray 2015, arXiv
1509.09308, section 4). A job keeps the transformed input of its tiles near, and never writes it to memory for others.

Transformed weights are (vectors, 36, IC * lanes + LINE), elements by rows of the tile; `tiling` is winograd_tiling's, and `group` =
(ic, IC, oc, OC) the first channel, and how many, of what is read and of what is written: those of one group of channels.
"""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.dense import part
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.prefetch import elements_between
from fastconv.kernels.scratch import scratch_pair, whole_lines
from fastconv.kernels.simd import MAX_ROWS
from fastconv.kernels.tiles import tiles_ahead
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import flat
from fastconv.kernels.winograd_blocks import gradient_tiles, input_tiles, plain_outputs, pooled_outputs
from fastconv.kernels.winograd_filters import filters_back
from fastconv.kernels.winograd_tiling import ELEMENTS, LINE, count_rows, count_tiles, element, is_strided, memory_of_tiles, padded


@device
def multiply(V, stride, v_step, count, IC, strided, u, v, wide, u_step, M, m_step, line, start, L, y, outputs, x, ahead):
    """Element by element, the products of `count` tiles (count, IC) and vectors v .. v + wide of the weights, into M (count, line).

    Meanwhile y[outputs[0] .. outputs[1]], which will be written, and x[ahead[0] .. ahead[1]], which the next job reads, are asked for.
    """
    over, pairs, row = (1, 0, 0, 1, 0, 0, IC, 1, L), (wide + 1) // 2, count * stride
    step = (MAX_ROWS * stride + pairs * IC - 1) // (pairs * IC)
    late = max(outputs[1] - outputs[0], count_rows(strided) * row - (ahead[1] - ahead[0])) // row * row
    for e in range(ELEMENTS):
        before, rows = element(e, strided)
        a, requests = before * v_step, (0, 0, 0, 0)
        if PFX and before * row >= late and ahead[1] > ahead[0]:
            requests = (elements_between(V, a, x, ahead[0] + before * row - late), step, IC * step, 0)
        elif PFY and before * row < outputs[1] - outputs[0]:
            requests = (elements_between(V, a, y, outputs[0] + before * row), step, IC * step, 0)
        tiles_ahead(rows * count, V, a, stride, u, (v * ELEMENTS + e) * u_step, ELEMENTS * u_step, M, before * m_step, line, L,
                    wide, wide * L, start, 0, 0, over, requests)


PFX, PFY, PFW = 1, 1, 1


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
    strided = is_strided(tiling)
    rows = count_rows(strided)
    V, M = scratch_pair(rows * v_step, 0 if alone else rows * m_step, y.dtype)
    if alone:
        M = V
    start = np.zeros(span * L, y.dtype)
    ahead = memory_of_tiles(X, IC, t1, most, tiling) if (job + 1) % shares == 0 else (0, 0)
    outputs = (Y.size * t0 // total, Y.size * t1 // total) if group[3] == Y.shape[3] and v1 - v0 <= vectors and v1 - v0 <= span else (0, 0)
    input_tiles(X, t0, t1, ic, ic + IC, tiling, V, 0, 0, stride, v_step)
    for v in range(v0, v1, span):
        wide = min(span, v1 - v)
        multiply(V, stride, v_step, t1 - t0, IC, strided, u, v, wide, u_step, M, m_step, line, start, L, y, outputs, x,
                 ahead if v + span >= v1 else (0, 0))
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


@apart
def _filters_gradient(job, X, G, parts, tiling, group, block, depth, wide):
    """Job `job` of `backward_weight`."""
    (ic, IC, oc, OC), L, strided = group, lanes(X), is_strided(tiling)
    inputs, outputs = (IC + depth - 1) // depth, (OC + wide * L - 1) // (wide * L)
    s, v, c = job // (inputs * outputs), job // inputs % outputs * wide, job % inputs * depth
    c1, o, o1, rows = min(IC, c + depth), v * L, min(OC, (v + wide) * L), count_rows(strided)
    vectors, stride, g_stride = (o1 - o + L - 1) // L, padded(c1 - c, L), padded(o1 - o, L)
    v_step, g_step, p_step = block * stride + LINE, block * g_stride + LINE, (c1 - c) * L + LINE
    d_size = whole_lines(rows * g_step)
    V, rest = scratch_pair(rows * v_step, d_size + vectors * ELEMENTS * p_step, X.dtype)
    D, p = rest[:d_size], rest[d_size:]
    x, g, start = flat(X), flat(G), np.zeros(vectors * L, X.dtype)
    first, last = part(s, parts.shape[0], count_tiles(X.shape[0], tiling))
    for t0 in range(first, max(last, first + 1), block):
        t1 = min(last, t0 + block)
        input_tiles(X, t0, t1, ic + c, ic + c1, tiling, V, 0, 0, stride, v_step)
        gradient_tiles(G, t0, t1, oc + o, oc + o1, tiling, D, 0, 0, g_stride, g_step)
        x_ahead, g_ahead = memory_of_tiles(X, c1 - c, t1, block, tiling), memory_of_tiles(G, o1 - o, t1, block, tiling)
        pairs = (vectors + 1) // 2
        row = (t1 - t0) * (c1 - c) * pairs
        x_size, g_size = (x_ahead[1] - x_ahead[0] + row - 1) // row * row, (g_ahead[1] - g_ahead[0] + row - 1) // row * row
        late = max(0, rows * row - x_size - g_size)
        for e in range(ELEMENTS):
            before, own = element(e, strided)
            a, at, requests = before * v_step, before * row - late, (own * v_step, stride, 0, 1)
            if PFW and 0 <= at < x_size:
                requests = (elements_between(V, a, x, x_ahead[0] + at), c1 - c, own * (t1 - t0) * (c1 - c), 1)
            elif PFW and at >= x_size and g_size > 0:
                requests = (elements_between(V, a, g, g_ahead[0] + at - x_size), c1 - c, own * (t1 - t0) * (c1 - c), 1)
            over = (1, 0, 0, 1, 0, 0, own * (t1 - t0), stride, g_stride)
            tiles_ahead(c1 - c, V, a, 1, D, before * g_step, L, p, e * p_step, L, ELEMENTS * p_step,
                        vectors, vectors * L, start, 0, t0 - first, over, requests)
    for w in range(vectors):
        for k in range(c, c1, L):
            filters_back(p, w * ELEMENTS * p_step + (k - c) * L, p_step, strided, v + w, k, min(k + L, c1), parts[s])


@kernel
def backward_weight(X, G, parts, tiling, group, block, depth, wide):
    """Reads X (N, H, W, C) and grad_output G (N, OH, OW, C); writes parts (splits, OC, IC, K, K), whose sum over splits is the gradient.

    Parallel over splits of the tiles, of which a job takes `block` at a time, blocks of `depth` input channels and of `wide` vectors of
    output channels.
    """
    blocks = ((group[1] + depth - 1) // depth) * ((group[3] + wide * lanes(X) - 1) // (wide * lanes(X)))
    for job in prange(parts.shape[0] * blocks):
        _filters_gradient(np.int64(job), X, G, parts, tiling, group, block, depth, wide)
