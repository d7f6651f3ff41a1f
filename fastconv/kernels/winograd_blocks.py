"""Blocks of Winograd's tiles, in and out of their transforms; see conv_winograd, and winograd_tiling for `tiling`."""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.pool import relu_largest
from fastconv.kernels.prefetch import prefetch_four, prefetch_to_write
from fastconv.kernels.scratch import scratch
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import flat, load, store
from fastconv.kernels.winograd_strided_blocks import strided_gradient_tiles, strided_input_tiles, strided_outputs
from fastconv.kernels.winograd_tile import (
    fill_edge,
    gradient_tile,
    gradient_tile_of_three,
    gradient_tile_of_two,
    input_tile,
    output_tile,
    output_tile_of_three,
    output_tile_of_two,
)
from fastconv.kernels.winograd_tiling import ELEMENTS, LINE, after, is_strided, padded, place

BLOCK = 4
"""Tiles of a job where they are transformed for all others."""


# --- tiles of the input and of the gradient -------------------------------------------------------------------------------


@apart
def _input_tiles(X, t0, t1, first, last, tiling, V, start, at, stride, step, shared):
    """`input_tiles` of stride 1."""
    N, H, W, C = X.shape
    x, (S, _, PT, PL, DH, DW, _, _), L = flat(X), tiling, lanes(V)
    zeros, edge = np.zeros(L, X.dtype), scratch(ELEMENTS * L, X.dtype)
    own, row, pixel = last - first, DH * W * C, DW * C
    end = x.size - 5 * (row + pixel) - L  # the last start of a tile of whole vectors; lanes of other channels are read and never used
    n, py, px, ty, tx = place(t0, tiling)
    for k in range(at, at + t1 - t0):
        o = start + k * stride
        ih, iw = py + S * DH * ty - PT, px + S * DW * tx - PL
        i, inside = ((n * H + ih) * W + iw) * C + first, (ih, iw, DH, DW, H, W)
        near = ih < 0 or iw < 0 or ih + 5 * DH >= H or iw + 5 * DW >= W
        for c in range(0, own, L):
            d, corner, below, beside = x, i + c, row, pixel
            if near or i + c > end:
                d, corner, below, beside = flat(edge), 0, 6 * L, L
                fill_edge(x, i + c, row, pixel, own - c, 6, inside, zeros, edge)
            if shared:
                soon = o + (c + LINE if c + LINE < own else stride)
                for e in range(ELEMENTS):
                    prefetch_to_write(V, soon + e * step)
            input_tile(d, corner, below, beside, V, o + c, step)
        n, py, px, ty, tx = after(n, py, px, ty, tx, tiling)


@device
def input_tiles(X, t0, t1, first, last, tiling, V, start, at, stride, step, shared):
    """Transforms channels first .. last of tiles t0 .. t1: element e of channel first + c of tile t0 + i goes to
    V[start + e * step + (at + i) * stride + c].

    Where V is `shared`, as a rule all processors have read what was there before: each line of it is asked for, to be written, a line of
    channels ahead.
    """
    if is_strided(tiling):
        strided_input_tiles(X, t0, t1, first, last, tiling, V, start, at, stride, step, shared)
    else:
        _input_tiles(X, t0, t1, first, last, tiling, V, start, at, stride, step, shared)


@apart
def _gradient_tiles(G, t0, t1, first, last, tiling, V, start, at, stride, step):
    """`gradient_tiles` of stride 1."""
    N, OH, OW, OC = G.shape
    g, (S, _, _, _, DH, DW, _, _), L = flat(G), tiling, lanes(V)
    zeros, edge = np.zeros(L, G.dtype), scratch(16 * L, G.dtype)
    own, row, pixel = last - first, DH * OW * OC, DW * OC
    end = g.size - (S - 1) * (row + pixel) - L
    n, py, px, ty, tx = place(t0, tiling)
    for k in range(at, at + t1 - t0):
        o = start + k * stride
        oh, ow = py + S * DH * ty, px + S * DW * tx
        i, inside = ((n * OH + oh) * OW + ow) * OC + first, (oh, ow, DH, DW, OH, OW)
        near = oh + (S - 1) * DH >= OH or ow + (S - 1) * DW >= OW
        for c in range(0, own, L):
            d, corner, below, beside = g, i + c, row, pixel
            if near or i + c > end:
                d, corner, below, beside = flat(edge), 0, S * L, L
                fill_edge(g, i + c, row, pixel, own - c, S, inside, zeros, edge)
            if S == 4:
                gradient_tile(d, corner, below, beside, V, o + c, step)
            elif S == 3:
                gradient_tile_of_three(d, corner, below, beside, V, o + c, step)
            else:
                gradient_tile_of_two(d, corner, below, beside, V, o + c, step)
        n, py, px, ty, tx = after(n, py, px, ty, tx, tiling)


@device
def gradient_tiles(G, t0, t1, first, last, tiling, V, start, at, stride, step):
    """As `input_tiles` with `gradient_tile`, of G (N, OH, OW, OC), at whose corner tiles begin."""
    if is_strided(tiling):
        strided_gradient_tiles(G, t0, t1, first, last, tiling, V, start, at, stride, step)
    else:
        _gradient_tiles(G, t0, t1, first, last, tiling, V, start, at, stride, step)


@kernel
def transform_tiles(X, V, tiling, depth, first, last):
    """Reads channels first .. last of X (N, H, W, C); writes all tiles, transformed, to V (blocks of `depth` channels, rows of a tile,
    count * padded(depth) + LINE). Parallel over tiles by BLOCK and blocks of channels.
    """
    blocks, rows, v_step = V.shape
    v, stride = flat(V), padded(depth, lanes(X))
    count = (v_step - LINE) // stride
    for job in prange((count + BLOCK - 1) // BLOCK * blocks):
        block, t = job % blocks, job // blocks * BLOCK
        c = first + block * depth
        input_tiles(X, t, min(count, t + BLOCK), c, min(last, c + depth), tiling, v, block * rows * v_step, t, stride, v_step, True)


# --- tiles of the output --------------------------------------------------------------------------------------------------


@apart
def _plain_outputs(M, m_step, line, t0, t1, v, wide, tiling, Y, group, bias, low):
    """`plain_outputs` of stride 1."""
    (S, _, _, _, DH, DW, _, _), (_, _, oc, OC), (_, OH, OW, C) = tiling, group, Y.shape
    y, b, L = flat(Y), flat(bias), lanes(M)
    clipped = scratch(16 * L, M.dtype)
    n, py, px, ty, tx = place(t0, tiling)
    for t in range(t0, t1):
        oh, ow = py + S * DH * ty, px + S * DW * tx
        inside, row, pixel = oh + (S - 1) * DH < OH and ow + (S - 1) * DW < OW, DH * OW * C, DW * C
        for c in range(v * L, min(OC, (v + wide) * L), L):
            o, own = ((n * OH + oh) * OW + ow) * C + oc + c, OC - c
            target, corner, below, beside, whole = y, o, row, pixel, inside and own >= L
            if not whole:
                target, corner, below, beside = flat(clipped), 0, S * L, L
            elif S == 4:
                for r in range(4):
                    prefetch_four(y, o + r * row + 4 * pixel, pixel)  # the next tile's
            shift = load(b, oc + c, own)
            if S == 4:
                output_tile(M, (t - t0) * line + c - v * L, m_step, shift, low, target, corner, below, beside)
            elif S == 3:
                output_tile_of_three(M, (t - t0) * line + c - v * L, m_step, shift, low, target, corner, below, beside)
            else:
                output_tile_of_two(M, (t - t0) * line + c - v * L, m_step, shift, low, target, corner, below, beside)
            if not whole:
                for r in range(min(S, (OH - oh + DH - 1) // DH)):
                    for k in range(min(S, (OW - ow + DW - 1) // DW)):
                        store(y, o + r * row + k * pixel, load(clipped, (r * S + k) * L, L), own)
        n, py, px, ty, tx = after(n, py, px, ty, tx, tiling)


@device
def plain_outputs(M, m_step, line, t0, t1, v, wide, tiling, Y, group, bias, low):
    """Transforms products M of tiles t0 .. t1, vectors v .. v + wide of the group, back; writes them, with bias, to Y (N, OH, OW, C)."""
    if is_strided(tiling):
        strided_outputs(M, m_step, line, t0, t1, v, wide, tiling, Y, group, bias, low)
    else:
        _plain_outputs(M, m_step, line, t0, t1, v, wide, tiling, Y, group, bias, low)


@apart
def pooled_outputs(M, m_step, line, t0, t1, v, wide, tiling, Y, argmax, group, bias):
    """As `plain_outputs` of stride 1, without dilation, of 4 x 4 or 2 x 2, then ReLU and maxima of 2 x 2: Y and argmax (N, GH, GW, C),
    argmax as in pool.relu_max_forward_2x2 or empty."""
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
