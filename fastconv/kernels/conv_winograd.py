"""Winograd's F(4x4, 3x3), F(3x3, 4x4) and F(2x2, 5x5): convolutions with 36 multiplications for 16, 9 or 4 outputs, not 144 or 100.

With 3 x 3 and stride 2 they are 81 for 16, not 144, see winograd_strided.

A tile of 6 x 6 inputs and the filter are transformed, multiplied element by element and summed over channels, which for each of the 36
elements is a matrix product of many tiles, and the product is transformed into outputs (Lavin and Gray 2015, arXiv 1509.09308, section 4).
A job keeps the transformed input of its tiles near, and never writes it to memory for others.

Transformed weights are (vectors, 36, IC * lanes + LINE), elements by rows of the tile; `tiling` is winograd_tiling's, and `group` =
(ic, IC, oc, OC) the first channel, and how many, of what is read and of what is written: those of one group of channels.
"""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.dense import part
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.prefetch import elements_between
from fastconv.kernels.processor import LATE_MEMORY
from fastconv.kernels.scratch import scratch_pair, whole_lines
from fastconv.kernels.simd import REQUEST
from fastconv.kernels.tiles import heights, tiles_ahead
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import flat
from fastconv.kernels.winograd_blocks import gradient_tiles, input_tiles, plain_outputs, pooled_outputs
from fastconv.kernels.winograd_filters import filters_back
from fastconv.kernels.winograd_tiling import ELEMENTS, LINE, count_rows, count_tiles, element, is_strided, memory_of_tiles, padded


@device
def whole_rows(memory, row):
    """How many numbers lie from memory[0] to memory[1], up to the next multiple of `row`."""
    return (memory[1] - memory[0] + row - 1) // row * row


@device
def multiply(V, stride, v_step, count, IC, strided, u, v, wide, u_step, M, m_step, line, start, L, y, outputs, x, inputs):
    """Element by element, the products of `count` tiles (count, IC) and vectors v .. v + wide of the weights, into M (count, line).

    Meanwhile they ask, a line in each step, for y[outputs[0] .. outputs[1]], which is written then, and x[inputs[0] .. inputs[1]], which
    the next job reads: as late as possible, since L2 is full. `row` numbers are asked for by the tiles of a row of an element.
    """
    over, pairs, requests, row = (1, 0, 0, 1, 0, 0, IC, 1, L), (wide + 1) // 2, max(1, IC // REQUEST), max(1, count * stride)
    step = (heights(count, IC)[0] + 1) * stride // (pairs * requests) + 1  # together, from what a tile asks for to what the next one does
    late = max(whole_rows(outputs, row), count_rows(strided) * row - whole_rows(inputs, row))
    for e in range(ELEMENTS):
        before, rows = element(e, strided)
        a, at, ahead = before * v_step, before * row, (0, 0, 0, 0)
        if at >= late and inputs[0] < inputs[1]:
            ahead = (elements_between(V, a, x, inputs[0] + at - late), step, requests * step, 0)
        elif at < outputs[1] - outputs[0]:
            ahead = (elements_between(V, a, y, outputs[0] + at), step, requests * step, 0)
        tiles_ahead(rows * count, V, a, stride, u, (v * ELEMENTS + e) * u_step, ELEMENTS * u_step, M, before * m_step, line, L,
                    wide, wide * L, start, 0, 0, over, ahead)


@apart
def _job(job, X, U, Y, argmax, bias, low, pooled, tiling, group, blocks, share, span):
    """Job `job` of `convolve`."""
    (ic, IC, _, _), (vectors, _, u_step) = group, U.shape
    N, x, u, y = X.shape[0], flat(X), flat(U), flat(Y)
    L, total = lanes(y), count_tiles(N, tiling)
    stride, most = padded(IC, L), (total + blocks - 1) // blocks
    line = padded(span * L, L)
    v_step, m_step = most * stride + LINE, most * line + LINE
    t0, t1 = part(job % blocks, blocks, total)
    v0 = job // blocks * share
    v1 = min(vectors, v0 + share)
    alone = v1 - v0 <= 2 and line == stride  # a row's products replace the row once they all are there, in the first cache
    strided = is_strided(tiling)
    rows = count_rows(strided)
    V, M = scratch_pair(rows * v_step, 0 if alone else rows * m_step, y.dtype)
    if alone:
        M = V
    start = np.zeros(span * L, y.dtype)
    inputs = memory_of_tiles(X, IC, t1, most, tiling)
    outputs = (y.size * t0 // total, y.size * t1 // total) if group[3] == Y.shape[3] and vectors <= span else (0, 0)
    input_tiles(X, t0, t1, ic, ic + IC, tiling, V, 0, 0, stride, v_step, False)
    for v in range(v0, v1, span):
        wide = min(span, v1 - v)
        multiply(V, stride, v_step, t1 - t0, IC, strided, u, v, wide, u_step, M, m_step, line, start, L, y, outputs,
                 x, inputs if v + span >= v1 else (0, 0))
        if pooled:
            pooled_outputs(M, m_step, line, t0, t1, v, wide, tiling, Y, argmax, group, bias)
        else:
            plain_outputs(M, m_step, line, t0, t1, v, wide, tiling, Y, group, bias, low)


@kernel
def convolve(X, U, Y, argmax, bias, low, pooled, tiling, group, blocks, share, span):
    """Reads X (N, H, W, C), transformed weights U, bias of all channels; writes Y (N, OH, OW, C), numbers below `low` as `low`.

    With `pooled`, Y is (N, OH / 2, OW / 2, C), the maxima of 2 x 2 of ReLU, and argmax as pool.relu_max_forward_2x2 writes it, or empty.
    Parallel over `share` vectors of output channels, of which a job takes `span` at a time, and `blocks` blocks of tiles.
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
    height, vectors = c1 - c, (o1 - o + L - 1) // L
    stride, g_stride = padded(height, L), padded(o1 - o, L)
    v_step, g_step, p_step = block * stride + LINE, block * g_stride + LINE, height * L + LINE
    d_size = whole_lines(rows * g_step)
    V, rest = scratch_pair(rows * v_step, d_size + vectors * ELEMENTS * p_step, X.dtype)
    D, p = rest[:d_size], rest[d_size:]
    x, g, start = flat(X), flat(G), np.zeros(vectors * L, X.dtype)
    first, last = part(s, parts.shape[0], count_tiles(X.shape[0], tiling))
    for t0 in range(first, max(last, first + 1), block):
        t1 = min(last, t0 + block)
        input_tiles(X, t0, t1, ic + c, ic + c1, tiling, V, 0, 0, stride, v_step, False)
        gradient_tiles(G, t0, t1, oc + o, oc + o1, tiling, D, 0, 0, g_stride, g_step)
        x_next, g_next = memory_of_tiles(X, height, t1, block, tiling), memory_of_tiles(G, o1 - o, t1, block, tiling)
        asked = (t1 - t0) // REQUEST * height
        row = max(1, asked * ((vectors + 1) // 2))  # numbers that the tiles of a row of an element ask for
        asks = not LATE_MEMORY or height <= L  # a line in each step is more than comes in time, but of one vector of channels
        x_asked, g_asked = (whole_rows(x_next, row), whole_rows(g_next, row)) if asks else (0, 0)
        late = max(0, rows * row - x_asked - g_asked)
        for e in range(ELEMENTS):
            before, own = element(e, strided)
            a, at, ahead = before * v_step, before * row - late, (own * v_step, stride, 0, 1)
            if 0 <= at < x_asked:
                ahead = (elements_between(V, a, x, x_next[0] + at), height, own * asked, 1)
            elif at >= x_asked and g_asked > 0:
                ahead = (elements_between(V, a, g, g_next[0] + at - x_asked), height, own * asked, 1)
            tiles_ahead(height, V, a, 1, D, before * g_step, L, p, e * p_step, L, ELEMENTS * p_step, vectors, vectors * L,
                        start, 0, t0 - first, (1, 0, 0, 1, 0, 0, own * (t1 - t0), stride, g_stride), ahead)
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
