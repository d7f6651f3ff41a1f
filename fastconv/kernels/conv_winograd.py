"""Winograd's F(4x4, 3x3): 3 x 3 convolutions of stride 1 with 36 multiplications for 16 outputs, where the formula has 144.

A tile of 6 x 6 inputs and the 3 x 3 filter are transformed, multiplied element by element and summed over channels, which for each of the
36 elements is a matrix product of many tiles, and the product is transformed into 4 x 4 outputs (Lavin and Gray 2015, arXiv 1509.09308,
section 4). A job keeps the transformed input of its tiles near, and never writes it to memory for others.

`tiling` = (PT, PL, TY, TX): padding above and left, and how many tiles stand in a column and in a row of the output. Tile t of a batch is
(n, ty, tx), its outputs start at (4*ty, 4*tx). Transformed weights are (vectors, 36, IC * lanes + LINE), elements by rows of the tile.
"""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.dense import part
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.pool import relu_largest
from fastconv.kernels.scratch import scratch, scratch_pair
from fastconv.kernels.tiles import tiles
from fastconv.kernels.transpose import transpose
from fastconv.kernels.vector import flat, lanes, load, store
from fastconv.kernels.winograd_tile import (
    gradient_tile,
    input_tile,
    load_six,
    output_tile,
    store_six,
    store_three,
    weight_gradient_row,
    weight_row,
)

ELEMENTS = 36
LINE = 16
"""Numbers between arrays of which 36 are written side by side: without them all may fall on the same few lines of the cache."""

BLOCK = 8
"""Tiles, or vectors of channels, of a job where work is shared out finely."""


# --- blocks of tiles -------------------------------------------------------------------------------------------------------


@device
def place(t, tiling):
    """(n, ty, tx) of tile t."""
    _, _, TY, TX = tiling
    return t // (TY * TX), t // TX % TY, t % TX


@device
def padded(C, L):
    """Numbers from tile to tile of C transformed channels: whole vectors, and a line more where tiles would fall on the same few lines."""
    return (C + L - 1) // L * L + (LINE if C % 256 == 0 else 0)


@device
def input_tiles(X, t0, t1, tiling, V, start, stride, step):
    """Transforms tiles t0 .. t1: element e of channel c of tile t0 + i goes to V[start + e * step + i * stride + c]."""
    N, H, W, C = X.shape
    x, (PT, PL, _, _), L = flat(X), tiling, lanes(V)
    zeros, half = np.zeros(L, X.dtype), scratch(ELEMENTS * L, X.dtype)
    whole = C - C % L
    for t in range(t0, t1):
        n, ty, tx = place(t, tiling)
        ih, iw, o = 4 * ty - PT, 4 * tx - PL, start + (t - t0) * stride
        i, row, inside = ((n * H + ih) * W + iw) * C, W * C, (-ih, -iw, H - ih, W - iw)
        if ih >= 0 and iw >= 0 and ih + 6 <= H and iw + 6 <= W:
            for c in range(0, whole, L):
                input_tile(x, i + c, row, C, L, (0, 0, 6, 6), zeros, half, V, o + c, step)
        else:
            for c in range(0, whole, L):
                input_tile(x, i + c, row, C, L, inside, zeros, half, V, o + c, step)
        if whole < C:
            input_tile(x, i + whole, row, C, C - whole, inside, zeros, half, V, o + whole, step)


@device
def gradient_tiles(G, t0, t1, tiling, V, start, stride, step):
    """As `input_tiles` with `gradient_tile`, of G (N, OH, OW, OC), at whose corner tiles begin."""
    N, OH, OW, OC = G.shape
    g, L = flat(G), lanes(V)
    zeros, half = np.zeros(L, G.dtype), scratch(ELEMENTS * L, G.dtype)
    whole = OC - OC % L
    for t in range(t0, t1):
        n, ty, tx = place(t, tiling)
        o = start + (t - t0) * stride
        i, row, inside = ((n * OH + 4 * ty) * OW + 4 * tx) * OC, OW * OC, (0, 0, OH - 4 * ty, OW - 4 * tx)
        if 4 * ty + 4 <= OH and 4 * tx + 4 <= OW:
            for c in range(0, whole, L):
                gradient_tile(g, i + c, row, OC, L, (0, 0, 4, 4), zeros, half, V, o + c, step)
        else:
            for c in range(0, whole, L):
                gradient_tile(g, i + c, row, OC, L, inside, zeros, half, V, o + c, step)
        if whole < OC:
            gradient_tile(g, i + whole, row, OC, OC - whole, inside, zeros, half, V, o + whole, step)


@device
def multiply(V, stride, v_step, count, IC, u, v, wide, u_step, M, m_step, line, start, L):
    """Element by element, the products of `count` tiles (count, IC) and vectors v .. v + wide of the weights, into M (count, line)."""
    over = (1, 0, 0, 1, 0, 0, IC, 1, L)
    for e in range(ELEMENTS):
        tiles(count, V, e * v_step, stride, u, (v * ELEMENTS + e) * u_step, ELEMENTS * u_step, M, e * m_step, line, L,
              wide, wide * L, start, 0, 0, over)


@device
def plain_outputs(M, m_step, line, t0, t1, v, wide, tiling, y, OH, OW, OC, b, low, half):
    """Transforms products M of tiles t0 .. t1, vectors v .. v + wide, back; writes them, with bias b, to y (N, OH, OW, OC)."""
    L = lanes(M)
    clipped = scratch(16 * L, M.dtype)
    for t in range(t0, t1):
        n, ty, tx = place(t, tiling)
        oh, ow = 4 * ty, 4 * tx
        inside = oh + 4 <= OH and ow + 4 <= OW
        for c in range(v * L, min(OC, (v + wide) * L), L):
            m, o, own = (t - t0) * line + c - v * L, ((n * OH + oh) * OW + ow) * OC + c, OC - c
            if inside and own >= L:
                output_tile(M, m, m_step, load(b, c, L), low, half, y, o, OW * OC, OC)
            else:
                output_tile(M, m, m_step, load(b, c, own), low, half, clipped, 0, 4 * L, L)
                for r in range(min(4, OH - oh)):
                    for k in range(min(4, OW - ow)):
                        store(y, o + (r * OW + k) * OC, load(clipped, (r * 4 + k) * L, L), own)


@device
def pooled_outputs(M, m_step, line, t0, t1, v, wide, tiling, y, argmax, GH, GW, OC, b, half):
    """As `plain_outputs`, then ReLU and maxima of 2 x 2: y and argmax (N, GH, GW, OC), argmax as in pool.relu_max_forward_2x2 or empty."""
    L = lanes(M)
    before = scratch(16 * L, M.dtype)
    for t in range(t0, t1):
        n, ty, tx = place(t, tiling)
        for c in range(v * L, min(OC, (v + wide) * L), L):
            own = OC - c
            output_tile(M, (t - t0) * line + c - v * L, m_step, load(b, c, own), -np.inf, half, before, 0, 4 * L, L)
            for r in range(min(2, GH - 2 * ty)):
                for k in range(min(2, GW - 2 * tx)):
                    best, tap = relu_largest(before, (r * 8 + k * 2) * L, L, 4 * L, L)
                    o = ((n * GH + 2 * ty + r) * GW + 2 * tx + k) * OC + c
                    store(y, o, best, own)
                    if argmax.size > 0:
                        store(argmax, o, tap, own)


@apart
def _job(job, X, U, Y, argmax, bias, low, pooled, tiling, blocks, share, span):
    """Job `job` of `convolve`."""
    _, _, TY, TX = tiling
    N, OH, OW, OC = Y.shape
    IC, (vectors, _, u_step) = X.shape[3], U.shape
    u, b, y, a = flat(U), flat(bias), flat(Y), flat(argmax)
    L, total, shares = lanes(y), N * TY * TX, (vectors + share - 1) // share
    stride, most = padded(IC, L), (total + blocks - 1) // blocks
    line = padded(span * L, L)
    v_step, m_step = most * stride + LINE, most * line + LINE
    t0, t1 = part(job // shares, blocks, total)
    v0 = job % shares * share
    v1 = min(vectors, v0 + share)
    V, M = scratch_pair(ELEMENTS * v_step, ELEMENTS * m_step, y.dtype)
    half, start = scratch(ELEMENTS * L, y.dtype), np.zeros(span * L, y.dtype)
    input_tiles(X, t0, t1, tiling, V, 0, stride, v_step)
    for v in range(v0, v1, span):
        wide = min(span, v1 - v)
        multiply(V, stride, v_step, t1 - t0, IC, u, v, wide, u_step, M, m_step, line, start, L)
        if pooled:
            pooled_outputs(M, m_step, line, t0, t1, v, wide, tiling, y, a, OH, OW, OC, b, half)
        else:
            plain_outputs(M, m_step, line, t0, t1, v, wide, tiling, y, OH, OW, OC, b, low, half)


@kernel
def convolve(X, U, Y, argmax, bias, low, pooled, tiling, blocks, share, span):
    """Reads X (N, H, W, IC), transformed weights U, bias (OC,); writes Y (N, OH, OW, OC), numbers below `low` as `low`.

    With `pooled`, Y is (N, OH / 2, OW / 2, OC), the maxima of 2 x 2 of ReLU, and argmax as pool.relu_max_forward_2x2 writes it, or empty.
    Parallel over `blocks` blocks of tiles and `share` vectors of output channels, of which a job takes `span` at a time.
    """
    for job in prange(blocks * ((U.shape[0] + share - 1) // share)):
        _job(np.int64(job), X, U, Y, argmax, bias, low, pooled, tiling, blocks, share, span)


@device
def add_products(V, v, stride, D, d, g_stride, count, p, vector, e, d_step, IC, first, last, start, accumulate, L):
    """Sums over `count` tiles of products of V[v] (count, IC) and vectors first .. last of D[d], into, or added to, element e of p."""
    over = (1, 0, 0, 1, 0, 0, count, stride, g_stride)
    for w in range(first, last, 2):
        wide = min(2, last - w)
        tiles(IC, V, v, 1, D, d + w * L, L, p, ((vector + w) * ELEMENTS + e) * d_step, L, ELEMENTS * d_step, wide, wide * L,
              start, 0, accumulate, over)


@apart
def _split(s, X, G, parts, tiling, block):
    """Split `s` of `backward_weight`."""
    _, _, TY, TX = tiling
    N, IC, OC = X.shape[0], X.shape[3], G.shape[3]
    splits, vectors, _, d_step = parts.shape
    p, total, L = flat(parts), N * TY * TX, lanes(X)
    stride, g_stride = padded(IC, L), padded(OC, L)
    v_step, g_step = block * stride + LINE, block * g_stride + LINE
    first, last = part(s, splits, total)
    V, D = scratch_pair(ELEMENTS * v_step, ELEMENTS * g_step, p.dtype)
    start = np.zeros(2 * L, p.dtype)
    for t0 in range(first, max(last, first + 1), block):
        t1 = min(last, t0 + block)
        input_tiles(X, t0, t1, tiling, V, 0, stride, v_step)
        gradient_tiles(G, t0, t1, tiling, D, 0, g_stride, g_step)
        for e in range(ELEMENTS):
            add_products(V, e * v_step, stride, D, e * g_step, g_stride, t1 - t0, p, s * vectors, e, d_step, IC, 0, vectors,
                         start, t0 - first, L)


@kernel
def backward_weight(X, G, parts, tiling, block):
    """Reads X (N, H, W, IC) and grad_output G (N, OH, OW, OC); writes parts (splits, vectors, 36, IC * lanes + LINE), whose sum over splits
    is the gradient of the transformed weights. Parallel over splits of the tiles, which a job takes `block` at a time.
    """
    for s in prange(parts.shape[0]):
        _split(np.int64(s), X, G, parts, tiling, block)


@kernel
def transform_input(X, V, t0, tiling):
    """Reads X (N, H, W, C), writes its tiles from t0 on, transformed, to V (36, count * padded(C) + LINE). Parallel over tiles by BLOCK."""
    C, v, L = X.shape[3], flat(V), lanes(X)
    stride = padded(C, L)
    count = (V.shape[1] - LINE) // stride
    for job in prange((count + BLOCK - 1) // BLOCK):
        first, last = job * BLOCK, min(count, (job + 1) * BLOCK)
        input_tiles(X, t0 + first, t0 + last, tiling, v, first * stride, stride, V.shape[1])


@kernel
def transform_gradient(G, D, t0, tiling):
    """As `transform_input`, of grad_output G (N, OH, OW, C)."""
    C, d, L = G.shape[3], flat(D), lanes(G)
    stride = padded(C, L)
    count = (D.shape[1] - LINE) // stride
    for job in prange((count + BLOCK - 1) // BLOCK):
        first, last = job * BLOCK, min(count, (job + 1) * BLOCK)
        gradient_tiles(G, t0 + first, t0 + last, tiling, d, first * stride, stride, D.shape[1])


@kernel
def sum_products(V, D, part, count, IC, OC, accumulate):
    """Reads `count` transformed tiles of the input and of the gradient; writes the sums of their products to part, or adds them:
    (vectors, 36, IC * lanes + LINE). Parallel over elements and blocks of vectors of output channels.
    """
    vectors, _, d_step = part.shape
    v, d, p, L = flat(V), flat(D), flat(part), lanes(V)
    shares = (vectors + BLOCK - 1) // BLOCK
    for job in prange(ELEMENTS * shares):
        e, first, start = job // shares, job % shares * BLOCK, np.zeros(2 * L, p.dtype)
        add_products(v, e * V.shape[1], padded(IC, L), d, e * D.shape[1], padded(OC, L), count, p, 0, e, d_step, IC,
                     first, min(vectors, first + BLOCK), start, accumulate, L)


@apart
def _transform_vector(v, weight, U, by_input):
    """Vector `v` of `transform_weight`."""
    OC, IC = weight.shape[:2]
    vectors, _, u_step = U.shape
    summed, vectorised = (OC, IC) if by_input else (IC, OC)
    w, u, L = flat(weight), flat(U), lanes(weight)
    j0 = v * L
    cols = min(L, vectorised - j0)
    taps, half = scratch(9 * L * L, w.dtype), scratch(18 * L, w.dtype)  # (summed channel, tap, lane)
    for r0 in range(0, summed, L):
        own = min(L, summed - r0)
        if by_input:
            for r in range(own):
                for e in range(0, 9, L):
                    transpose(w, ((r0 + r) * IC + j0) * 9 + e, 9, cols, min(L, 9 - e), taps, (r * 9 + e) * L, L, L)
        else:
            for e in range(0, own * 9, L):
                transpose(w, (j0 * IC + r0) * 9 + e, IC * 9, cols, min(L, own * 9 - e), taps, e * L, L, L)
        first, step = (8, -1) if by_input else (0, 1)
        for r in range(own):
            for column in range(3):
                i = (r * 9 + first + column * step) * L
                values = weight_row(load(taps, i, L), load(taps, i + 3 * step * L, L), load(taps, i + 6 * step * L, L))
                store_six(values, half, column * L, 3 * L)
            for k in range(6):
                i = k * 3 * L
                values = weight_row(load(half, i, L), load(half, i + L, L), load(half, i + 2 * L, L))
                store_six(values, u, (v * ELEMENTS + 6 * k) * u_step + (r0 + r) * L, u_step)


@kernel
def transform_weight(weight, U, by_input):
    """Reads weight (OC, IC, 3, 3), writes U: G w G^T, the lanes output channels, elements in the order of a product.

    With `by_input` the lanes are input channels, what is summed are output channels, and filters are turned by 180 degrees.
    Parallel over vectors.
    """
    for v in prange(U.shape[0]):
        _transform_vector(np.int64(v), weight, U, by_input)


@kernel
def transform_back(parts, grad_weight):
    """Reads parts (splits, vectors, 36, IC * lanes + LINE), writes G^T (their ordered sum) G as grad_weight (OC, IC, 3, 3).

    Parallel over vectors of output channels and blocks of as many input channels as a vector has lanes.
    """
    OC, IC = grad_weight.shape[:2]
    splits, vectors, _, d_step = parts.shape
    p, d, L = flat(parts), flat(grad_weight), lanes(parts)
    split, blocks = vectors * ELEMENTS * d_step, (IC + L - 1) // L
    for job in prange(vectors * blocks):
        v, c0 = job // blocks, job % blocks * L
        own = min(L, IC - c0)
        element, half = scratch(ELEMENTS * L * L, p.dtype), scratch(18 * L, p.dtype)
        taps = scratch(9 * L * L, p.dtype)  # (input channel, tap, lane)
        for e in range(ELEMENTS):
            source = (v * ELEMENTS + e) * d_step + c0 * L
            for r in range(own):
                total = load(p, source + r * L, L)
                for s in range(1, splits):
                    total = total + load(p, source + r * L + s * split, L)
                store(element, (r * ELEMENTS + e) * L, total, L)
        for r in range(own):
            for column in range(6):
                values = weight_gradient_row(*load_six(element, (r * ELEMENTS + column) * L, 6 * L, L))
                store_three(values, half, column * L, 6 * L)
            for k in range(3):
                values = weight_gradient_row(*load_six(half, k * 6 * L, L, L))
                store_three(values, taps, (r * 9 + k * 3) * L, L)
        for e in range(0, own * 9, L):
            count = min(L, own * 9 - e)
            transpose(taps, e * L, L, count, min(L, OC - v * L), d, (v * L * IC + c0) * 9 + e, IC * 9, count)
