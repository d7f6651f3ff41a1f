"""Blocks of tiles, filters, and what becomes of them, in and out of their transforms; see conv_winograd.

`tiling` = (S, PT, PL, DH, DW, TY, TX): a tile's outputs are S x S, 4 with filters of 3 x 3 and 2 with 5 x 5; padding above and left;
dilation; how many tiles stand in a column and in a row of the output. With dilation neighbours in a tile are DH rows and DW columns apart,
so tiles lie in DH * DW lattices, one moved by (py, px) for each; they are counted by image, lattice, row and column, and the outputs of
(n, py, px, ty, tx) start at (py + S*DH*ty, px + S*DW*tx).
"""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.pool import relu_largest
from fastconv.kernels.prefetch import prefetch_four
from fastconv.kernels.scratch import scratch
from fastconv.kernels.transpose import transpose
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import flat, load, store
from fastconv.kernels.winograd_tile import (
    fill_edge,
    gradient_tile,
    gradient_tile_of_two,
    input_tile,
    load_five,
    load_six,
    load_three,
    output_tile,
    output_tile_of_two,
    store_five,
    store_six,
    store_three,
    weight_gradient_row,
    weight_gradient_row_of_five,
    weight_row,
    weight_row_of_five,
)

ELEMENTS = 36
LINE = 16
"""Numbers between arrays of which 36 are written side by side: without them all may fall on the same few lines of the cache."""

BLOCK = 8
"""Tiles, or vectors of channels, of a job where work is shared out finely."""


# --- tiles of the input and of the gradient -------------------------------------------------------------------------------


@device
def count_tiles(N, tiling):
    """Tiles of N images."""
    _, _, _, DH, DW, TY, TX = tiling
    return N * DH * DW * TY * TX


@device
def place(t, tiling):
    """(n, py, px, ty, tx) of tile t."""
    _, _, _, DH, DW, TY, TX = tiling
    rest = t // (TX * TY)
    return rest // (DW * DH), rest // DW % DH, rest % DW, t // TX % TY, t % TX


@device
def after(n, py, px, ty, tx, tiling):
    """The place of the next tile; to divide for each would take longer."""
    _, _, _, DH, DW, TY, TX = tiling
    if tx + 1 < TX:
        return n, py, px, ty, tx + 1
    if ty + 1 < TY:
        return n, py, px, ty + 1, 0
    if px + 1 < DW:
        return n, py, px + 1, 0, 0
    if py + 1 < DH:
        return n, py + 1, 0, 0, 0
    return n + 1, 0, 0, 0, 0


@device
def memory_of_tiles(images, channels, t0, count, tiling):
    """(first, last) of the flat `images` that `count` tiles from t0 on are the first to read, about: memory lies as tiles are counted.

    Nothing where tiles take some of the channels only.
    """
    total, row = count_tiles(images.shape[0], tiling), tiling[6]
    first, last = min(total, t0 + row), min(total, t0 + row + count)  # those of a row see the same rows of the image
    return (images.size * first // total, images.size * last // total) if channels == images.shape[3] else (0, 0)


@device
def padded(C, L):
    """Numbers from tile to tile of C transformed channels: whole vectors, and a line more where tiles would fall on the same few lines."""
    return (C + L - 1) // L * L + (LINE if C % 256 == 0 else 0)


@device
def input_tiles(X, t0, t1, first, last, tiling, V, start, stride, step):
    """Transforms channels first .. last of tiles t0 .. t1: element e of channel first + c of tile t0 + i goes to
    V[start + e * step + i * stride + c]."""
    N, H, W, C = X.shape
    x, (S, PT, PL, DH, DW, _, _), L = flat(X), tiling, lanes(V)
    zeros, edge = np.zeros(L, X.dtype), scratch(ELEMENTS * L, X.dtype)
    own = last - first
    n, py, px, ty, tx = place(t0, tiling)
    for o in range(start, start + (t1 - t0) * stride, stride):
        ih, iw = py + S * DH * ty - PT, px + S * DW * tx - PL
        i, row, pixel, inside = ((n * H + ih) * W + iw) * C + first, DH * W * C, DW * C, (ih, iw, DH, DW, H, W)
        near = ih < 0 or iw < 0 or ih + 5 * DH >= H or iw + 5 * DW >= W
        for c in range(0, own, L):
            if near or own - c < L:
                if own - c < L:
                    fill_edge(x, i + c, row, pixel, own - c, 6, inside, zeros, edge)
                else:
                    fill_edge(x, i + c, row, pixel, L, 6, inside, zeros, edge)
                input_tile(edge, 0, 6 * L, L, V, o + c, step)
            else:
                input_tile(x, i + c, row, pixel, V, o + c, step)
        n, py, px, ty, tx = after(n, py, px, ty, tx, tiling)


@device
def gradient_tiles(G, t0, t1, first, last, tiling, V, start, stride, step):
    """As `input_tiles` with `gradient_tile`, of G (N, OH, OW, OC), at whose corner tiles begin."""
    N, OH, OW, OC = G.shape
    g, (S, _, _, DH, DW, _, _), L = flat(G), tiling, lanes(V)
    zeros, edge = np.zeros(L, G.dtype), scratch(16 * L, G.dtype)
    own = last - first
    n, py, px, ty, tx = place(t0, tiling)
    for o in range(start, start + (t1 - t0) * stride, stride):
        oh, ow = py + S * DH * ty, px + S * DW * tx
        i, row, pixel, inside = ((n * OH + oh) * OW + ow) * OC + first, DH * OW * OC, DW * OC, (oh, ow, DH, DW, OH, OW)
        near = oh + (S - 1) * DH >= OH or ow + (S - 1) * DW >= OW
        for c in range(0, own, L):
            if near or own - c < L:
                if own - c < L:
                    fill_edge(g, i + c, row, pixel, own - c, S, inside, zeros, edge)
                else:
                    fill_edge(g, i + c, row, pixel, L, S, inside, zeros, edge)
                if S == 4:
                    gradient_tile(edge, 0, 4 * L, L, V, o + c, step)
                else:
                    gradient_tile_of_two(edge, 0, 2 * L, L, V, o + c, step)
            elif S == 4:
                gradient_tile(g, i + c, row, pixel, V, o + c, step)
            else:
                gradient_tile_of_two(g, i + c, row, pixel, V, o + c, step)
        n, py, px, ty, tx = after(n, py, px, ty, tx, tiling)


@kernel
def transform_tiles(X, V, t0, tiling, depth, first, last, gradient):
    """Reads channels first .. last of X (N, H, W, C), the input or with `gradient` its output's gradient; writes the tiles from t0 on,
    transformed, to V (blocks of `depth` channels, 36, count * padded(depth) + LINE). Parallel over tiles by BLOCK and blocks of channels.
    """
    blocks, _, v_step = V.shape
    v, stride = flat(V), padded(depth, lanes(X))
    count = (v_step - LINE) // stride
    for job in prange((count + BLOCK - 1) // BLOCK * blocks):
        block, t = job % blocks, job // blocks * BLOCK
        c, start, stop = first + block * depth, t0 + t, t0 + min(count, t + BLOCK)
        target = block * ELEMENTS * v_step + t * stride
        if gradient:
            gradient_tiles(X, start, stop, c, min(last, c + depth), tiling, v, target, stride, v_step)
        else:
            input_tiles(X, start, stop, c, min(last, c + depth), tiling, v, target, stride, v_step)


# --- tiles of the output --------------------------------------------------------------------------------------------------


@device
def plain_outputs(M, m_step, line, t0, t1, v, wide, tiling, Y, group, bias, low):
    """Transforms products M of tiles t0 .. t1, vectors v .. v + wide of the group, back; writes them, with bias, to Y (N, OH, OW, C)."""
    (S, _, _, DH, DW, _, _), (_, _, oc, OC), (_, OH, OW, C) = tiling, group, Y.shape
    y, b, L = flat(Y), flat(bias), lanes(M)
    clipped = scratch(16 * L, M.dtype)
    n, py, px, ty, tx = place(t0, tiling)
    for t in range(t0, t1):
        oh, ow = py + S * DH * ty, px + S * DW * tx
        inside, row, pixel = oh + (S - 1) * DH < OH and ow + (S - 1) * DW < OW, DH * OW * C, DW * C
        for c in range(v * L, min(OC, (v + wide) * L), L):
            m, o, own = (t - t0) * line + c - v * L, ((n * OH + oh) * OW + ow) * C + oc + c, OC - c
            if inside and own >= L:
                if S == 4:
                    for r in range(4):
                        prefetch_four(y, o + r * row + 4 * pixel, pixel)  # the next tile's
                    output_tile(M, m, m_step, load(b, oc + c, L), low, y, o, row, pixel)
                else:
                    output_tile_of_two(M, m, m_step, load(b, oc + c, L), low, y, o, row, pixel)
            else:
                if S == 4:
                    output_tile(M, m, m_step, load(b, oc + c, own), low, clipped, 0, 4 * L, L)
                else:
                    output_tile_of_two(M, m, m_step, load(b, oc + c, own), low, clipped, 0, 2 * L, L)
                for r in range(min(S, (OH - oh + DH - 1) // DH)):
                    for k in range(min(S, (OW - ow + DW - 1) // DW)):
                        store(y, o + r * row + k * pixel, load(clipped, (r * S + k) * L, L), own)
        n, py, px, ty, tx = after(n, py, px, ty, tx, tiling)


@device
def pooled_outputs(M, m_step, line, t0, t1, v, wide, tiling, Y, argmax, group, bias):
    """As `plain_outputs`, without dilation, then ReLU and maxima of 2 x 2: Y and argmax (N, GH, GW, C), argmax as in
    pool.relu_max_forward_2x2 or empty."""
    S, (_, _, oc, OC), (_, GH, GW, C) = tiling[0], group, Y.shape
    y, taps, b, L = flat(Y), flat(argmax), flat(bias), lanes(M)
    before, halves = scratch(16 * L, M.dtype), S // 2
    n, py, px, ty, tx = place(t0, tiling)
    for t in range(t0, t1):
        for c in range(v * L, min(OC, (v + wide) * L), L):
            own = OC - c
            m = (t - t0) * line + c - v * L
            if S == 4:
                output_tile(M, m, m_step, load(b, oc + c, own), -np.inf, before, 0, 4 * L, L)
            else:
                output_tile_of_two(M, m, m_step, load(b, oc + c, own), -np.inf, before, 0, 2 * L, L)
            for r in range(min(halves, GH - halves * ty)):
                for k in range(min(halves, GW - halves * tx)):
                    best, tap = relu_largest(before, (r * S + k) * 2 * L, L, S * L, L)
                    o = ((n * GH + halves * ty + r) * GW + halves * tx + k) * C + oc + c
                    store(y, o, best, own)
                    if taps.size > 0:
                        store(taps, o, tap, own)
        n, py, px, ty, tx = after(n, py, px, ty, tx, tiling)


# --- filters --------------------------------------------------------------------------------------------------------------


@device
def transform_filters(v, weight, first, last, by_input, u, o, u_step):
    """Filters of vector `v` and of the summed channels first .. last: element e of channel first + c goes to u[o + e * u_step + c * L]."""
    OC, IC, K, _ = weight.shape
    w, L, n = flat(weight), lanes(weight), K * K
    j0 = v * L
    cols = min(L, (IC if by_input else OC) - j0)
    taps, half = scratch(n * L * L, w.dtype), scratch(6 * K * L, w.dtype)  # (summed channel, tap, lane)
    for r0 in range(first, last, L):
        own = min(L, last - r0)
        if by_input:
            for r in range(own):
                for e in range(0, n, L):
                    transpose(w, ((r0 + r) * IC + j0) * n + e, n, cols, min(L, n - e), taps, (r * n + e) * L, L, L)
        else:
            for e in range(0, own * n, L):
                transpose(w, (j0 * IC + r0) * n + e, IC * n, cols, min(L, own * n - e), taps, e * L, L, L)
        tap, step = (n - 1, -L) if by_input else (0, L)
        for r in range(own):
            i, e = (r * n + tap) * L, o + (r0 - first + r) * L
            if K == 3:
                for column in range(3):
                    store_six(weight_row(*load_three(taps, i + column * step, 3 * step, L)), half, column * L, 3 * L)
                for k in range(6):
                    store_six(weight_row(*load_three(half, k * 3 * L, L, L)), u, e + 6 * k * u_step, u_step)
            else:
                for column in range(5):
                    store_six(weight_row_of_five(*load_five(taps, i + column * step, 5 * step, L)), half, column * L, 5 * L)
                for k in range(6):
                    store_six(weight_row_of_five(*load_five(half, k * 5 * L, L, L)), u, e + 6 * k * u_step, u_step)


@apart
def _transform_vector(v, weight, by_input, u, u_step):
    """Vector `v` of `transform_weight`."""
    transform_filters(v, weight, 0, weight.shape[0 if by_input else 1], by_input, u, v * ELEMENTS * u_step, u_step)


@kernel
def transform_weight(weight, U, by_input):
    """Reads weight (OC, IC, K, K), writes U, G w G^T, the lanes output channels, elements in the order of a product.

    With `by_input` the lanes are input channels, what is summed are output channels, and filters are turned by 180 degrees.
    Parallel over vectors.
    """
    vectors, _, u_step = U.shape
    u = flat(U)
    for v in prange(vectors):
        _transform_vector(np.int64(v), weight, by_input, u, u_step)


@device
def filters_back(p, source, d_step, splits, split, v, c0, grad_weight):
    """G^T m G of vector `v` of output channels and input channels c0 .. c0 + lanes into grad_weight (OC, IC, K, K).

    Element e of channel c0 + r is the sum over `splits`, `split` apart, of p[source + e * d_step + r * L].
    """
    OC, IC, K, _ = grad_weight.shape
    d, L, n = flat(grad_weight), lanes(p), K * K
    own = min(L, IC - c0)
    element, half = scratch(ELEMENTS * L * L, p.dtype), scratch(6 * K * L, p.dtype)
    taps = scratch(n * L * L, p.dtype)  # (input channel, tap, lane)
    for e in range(ELEMENTS):
        for r in range(own):
            i = source + e * d_step + r * L
            total = load(p, i, L)
            for s in range(1, splits):
                total = total + load(p, i + s * split, L)
            store(element, (r * ELEMENTS + e) * L, total, L)
    for r in range(own):
        if K == 3:
            for column in range(6):
                values = weight_gradient_row(*load_six(element, (r * ELEMENTS + column) * L, 6 * L, L))
                store_three(values, half, column * L, 6 * L)
            for k in range(3):
                values = weight_gradient_row(*load_six(half, k * 6 * L, L, L))
                store_three(values, taps, (r * 9 + k * 3) * L, L)
        else:
            for column in range(6):
                values = weight_gradient_row_of_five(*load_six(element, (r * ELEMENTS + column) * L, 6 * L, L))
                store_five(values, half, column * L, 6 * L)
            for k in range(5):
                values = weight_gradient_row_of_five(*load_six(half, k * 6 * L, L, L))
                store_five(values, taps, (r * 25 + k * 5) * L, L)
    for e in range(0, own * n, L):
        count = min(L, own * n - e)
        transpose(taps, e * L, L, count, min(L, OC - v * L), d, (v * L * IC + c0) * n + e, IC * n, count)


@kernel
def transform_back(parts, grad_weight):
    """Reads parts (splits, vectors, 36, IC * lanes + LINE), writes G^T (their ordered sum) G as grad_weight (OC, IC, K, K).

    Parallel over vectors of output channels and blocks of as many input channels as a vector has lanes.
    """
    splits, vectors, _, d_step = parts.shape
    p, L = flat(parts), lanes(parts)
    blocks = (grad_weight.shape[1] + L - 1) // L
    for job in prange(vectors * blocks):
        v, c0 = job // blocks, job % blocks * L
        filters_back(p, v * ELEMENTS * d_step + c0 * L, d_step, splits, vectors * ELEMENTS * d_step, v, c0, grad_weight)


