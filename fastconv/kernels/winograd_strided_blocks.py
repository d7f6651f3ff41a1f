"""Blocks of tiles of a convolution of stride 2, in and out of their transforms; see winograd_strided and, for arguments, winograd_blocks.

Apart from winograd_blocks, whose loops would have to save their registers for a call of these larger functions.
"""

import numpy as np

from fastconv.kernels.apart import apart
from fastconv.kernels.prefetch import prefetch_four, prefetch_to_write
from fastconv.kernels.scratch import scratch
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import flat, load, store
from fastconv.kernels.winograd_strided import strided_back_tile, strided_gradient_tile, strided_input_tile, strided_output_tile
from fastconv.kernels.winograd_tile import fill_edge
from fastconv.kernels.winograd_tiling import ELEMENTS, LINE, after, element, place


@apart
def strided_input_tiles(X, t0, t1, first, last, tiling, V, start, at, stride, step, shared):
    """`input_tiles`, to where winograd_strided.places says."""
    N, H, W, C = X.shape
    x, (S, R, PT, PL, _, _, _, _), L = flat(X), tiling, lanes(V)
    size, jump, down, right = 9, 2, 1, 1  # between pixels that meet the outer taps, and from there to those that meet the middle one
    if S > R:  # outputs 8 * ty + PT and so on are made of gradients around half of that
        size, jump, down, right = 5, 1, 1 - PT % 2, 1 - PL % 2
        PT, PL = 1 - (PT + 1) // 2, 1 - (PL + 1) // 2
    row, pixel, own = W * C, C, last - first
    zeros, edge = np.zeros(L, X.dtype), scratch(size * size * L, X.dtype)
    end = x.size - (size - 1) * (row + pixel) - L  # as in `input_tiles`
    n, py, px, ty, tx = place(t0, tiling)
    for k in range(at, at + t1 - t0):
        ih, iw = R * ty - PT, R * tx - PL
        i, inside = ((n * H + ih) * W + iw) * C + first, (ih, iw, 1, 1, H, W)
        near = ih < 0 or iw < 0 or ih + size > H or iw + size > W
        for c in range(0, own, L):
            d, corner, below, beside = x, i + c, row, pixel
            if near or i + c > end:
                d, corner, below, beside = flat(edge), 0, size * L, L
                fill_edge(x, i + c, row, pixel, own - c, size, inside, zeros, edge)
            if shared:
                soon = start + (c + LINE if c + LINE < own else stride)
                for e in range(ELEMENTS):
                    before, rows = element(e, True)
                    for r in range(rows):
                        prefetch_to_write(V, soon + before * step + (k * rows + r) * stride)
            strided_input_tile(d, corner, jump * below, jump * beside, down * below, right * beside, V, start + c, k, stride, step)
        n, py, px, ty, tx = after(n, py, px, ty, tx, tiling)


@apart
def strided_gradient_tiles(G, t0, t1, first, last, tiling, V, start, at, stride, step):
    """`gradient_tiles`, to where winograd_strided.places says."""
    N, OH, OW, OC = G.shape
    g, L, row, pixel, own = flat(G), lanes(V), OW * OC, OC, last - first
    zeros, edge, end = np.zeros(L, G.dtype), scratch(16 * L, G.dtype), g.size - 3 * (row + pixel) - L
    n, py, px, ty, tx = place(t0, tiling)
    for k in range(at, at + t1 - t0):
        oh, ow = 4 * ty, 4 * tx
        i, inside = ((n * OH + oh) * OW + ow) * OC + first, (oh, ow, 1, 1, OH, OW)
        near = oh + 4 > OH or ow + 4 > OW
        for c in range(0, own, L):
            d, corner, below, beside = g, i + c, row, pixel
            if near or i + c > end:
                d, corner, below, beside = flat(edge), 0, 4 * L, L
                fill_edge(g, i + c, row, pixel, own - c, 4, inside, zeros, edge)
            strided_gradient_tile(d, corner, below, beside, V, start + c, k, stride, step)
        n, py, px, ty, tx = after(n, py, px, ty, tx, tiling)


@apart
def strided_outputs(M, m_step, line, t0, t1, v, wide, tiling, Y, group, bias, low):
    """`plain_outputs`."""
    (S, R, PT, PL, _, _, _, _), (_, _, oc, OC), (_, OH, OW, C) = tiling, group, Y.shape
    y, b, L, row, pixel = flat(Y), flat(bias), lanes(M), OW * C, C
    clipped = scratch(S * S * L, M.dtype)
    top, left = PT % 2, PL % 2  # first row and column of an input's gradient that met outer taps; the middle's are the others
    n, py, px, ty, tx = place(t0, tiling)
    for t in range(t0, t1):
        oh, ow = S * ty, S * tx
        inside = oh + S <= OH and ow + S <= OW
        for c in range(v * L, min(OC, (v + wide) * L), L):
            o, own = ((n * OH + oh) * OW + ow) * C + oc + c, OC - c
            target, corner, below, beside, whole = y, o, row, pixel, inside and own >= L
            if whole:
                for r in range(S):
                    for k in range(S, 2 * S, 4):
                        prefetch_four(y, o + r * row + k * pixel, pixel)  # the next tile's
            else:
                target, corner, below, beside = flat(clipped), 0, S * L, L
            shift = load(b, oc + c, own)
            if S > R:
                corner += top * below + left * beside
                down, right = (1 - 2 * top) * below, (1 - 2 * left) * beside
                strided_back_tile(M, c - v * L, t - t0, line, m_step, shift, low, target, corner, 2 * below, 2 * beside, down, right)
            else:
                strided_output_tile(M, c - v * L, t - t0, line, m_step, shift, low, target, corner, below, beside)
            if not whole:
                for r in range(min(S, OH - oh)):
                    for k in range(min(S, OW - ow)):
                        store(y, o + r * row + k * pixel, load(clipped, (r * S + k) * L, L), own)
        n, py, px, ty, tx = after(n, py, px, ty, tx, tiling)
