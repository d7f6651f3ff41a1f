"""Weight gradients on the matrix registers: the sums run over pixels, 32 of them at a step.

A tile is TALL output channels times two vectors of input channels, for one tap. Registers of the gradient are 16 output channels of 32
pixels; of the input, 16 input channels of 16 pairs of pixels that lie side by side. A tap is a place to begin at, in the one of two copies
of the input, those of even and of odd pairs, in which it is the first of a pair. Rows and columns are sorted by their remainders of the
strides as in `conv_amx`, and between rows of the gradient there are zeros.

`layout` = (RC, Q, copies, region, steps): rows from image to image, pixels from row to row, copies of the input, pairs of each, and
registers of 32 pixels in a unit.
"""

import numpy as np
from numba import prange

from fastconv.kernels.amx import ASKED, DEPTH, HALF, ROWS, TALL, THIRD, begin_matrices, end_matrices, matrix_tile
from fastconv.kernels.apart import apart
from fastconv.kernels.conv_amx import seen
from fastconv.kernels.conv_direct_weight import part_of_job, place
from fastconv.kernels.jit import kernel
from fastconv.kernels.scratch import scratch
from fastconv.kernels.thirds import split
from fastconv.kernels.transpose import transpose
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import flat, load, pointer, store, zero

ROWS_STEP = TALL * HALF
"""Numbers of a third of what a step reads of a tile's rows."""


@apart
def _gather(pixels, count, a, start, spread, n0, n1, images, lines, RC, Q, first, every, high, begin, end, cols):
    """`count` pixels of `cols` channels, as vectors: `lines` of Q, RC for each image but the last of `images`.

    Lines are rows first, first + every, ... of images n0 .. n1, with their pixels begin .. end; the first of these of row 0 of image 0 is
    at a[start]. Zeros are where there is no such image, no such pixel, and where a row is not in 0 .. high.
    """
    L = lanes(a)
    for line in range(lines):
        image = min(line // RC, images - 1)
        row, p = first + (line - image * RC) * every, line * Q
        own, here = min(Q, count - p), n0 + image < n1 and 0 <= row < high
        before = max(0, min(begin if here else own, own))
        after = max(before, min(end, own))
        zero(pixels, p * L, before * L)
        zero(pixels, (p + after) * L, (own - after) * L)
        source = start + (n0 + image) * spread[0] + row * spread[1]
        for column in range(before, after):
            store(pixels, (p + column) * L, load(a, source, cols), L)
            source += spread[2]
    zero(pixels, lines * Q * L, (count - lines * Q) * L)


@apart
def _split_input(panel, p, third, copies, region, pixels):
    """Thirds of pairs of pixels, from panel[p] on: of even pixels with the next, and in a second copy of odd ones with the next."""
    L = lanes(pixels)
    for r in range(region):
        even, odd = load(pixels, 2 * r * L, L), load(pixels, (2 * r + 1) * L, L)
        split(panel, p + r * L, third, even, odd)
        if copies > 1:
            split(panel, p + (region + r) * L, third, odd, load(pixels, (2 * r + 2) * L, L))


@apart
def _split_gradient(panel, p, steps, pixels, near):
    """Thirds of pairs of pixels of each channel of a vector, from panel[p] on: its half of (3, steps, TALL, HALF)."""
    L = lanes(pixels)
    for s in range(steps):
        for odd in range(2):
            transpose(pixels, (s * DEPTH + odd) * L, 2 * L, L, L, near, odd * L * L, L, L)
        for c in range(L):
            split(panel, p + s * ROWS_STEP + c * HALF, steps * ROWS_STEP, load(near, c * L, L), load(near, (L + c) * L, L))


@apart
def _weight_job(job, X, G, parts, offsets, size, x_spread, spread, window, taps, layout, images, rows, columns, share, own):
    """Job `job` of `backward_weight`."""
    N, H, W, C, OC = size
    OH, OW, SH, SW, PT, PL = window
    KH, KW, DH, DW = taps
    RC, Q, copies, region, steps = layout
    splits, groups, vectors, CB = parts.shape[:4]
    x, g, d, L = flat(X), flat(G), flat(parts), lanes(X)
    CG, OCG = C // groups, OC // groups
    filter_size, x_third = KH * KW * TALL * L, SH * SW * copies * region * L
    row_blocks, column_blocks = (OH + rows - 1) // rows, (OW + columns - 1) // columns
    units = (N + images - 1) // images * row_blocks * column_blocks
    s, group, v0, v1, b0, b1 = part_of_job(job, groups, vectors, CB, share, own)
    d0, g_size = (s * groups + group) * vectors * CB * filter_size, 3 * steps * ROWS_STEP
    count = 2 * region + 1
    memory = scratch((count + 2 * L) * L + (b1 - b0) * g_size + (v1 - v0) * 3 * x_third, x.dtype)
    near, split_gradient = memory[count * L :], memory[(count + 2 * L) * L :]
    split_input = split_gradient[(b1 - b0) * g_size :]
    results, places = pointer(d, 0), pointer(offsets, 0)
    for v in range(v0, v1):
        zero(d, d0 + (v * CB + b0) * filter_size, (b1 - b0) * filter_size)
    begin_matrices()
    for unit in range(s * units // splits, (s + 1) * units // splits):
        n0, oh0, ow0 = place(unit, images, rows, columns, OH, OW)
        n1, own_rows, across = min(N, n0 + images), min(rows, OH - oh0), min(columns, OW - ow0)
        first, left = oh0 * SH - PT, PL - ow0 * SW
        lines = (images - 1) * RC + own_rows + (KH - 1) * DH // SH
        for v in range(v0, v1):
            for i in range(SH):
                for j in range(SW):
                    if not (seen(i, KH, DH, SH) and seen(j, KW, DW, SW)):
                        continue
                    # columns with this remainder inside the image
                    begin = max(0, (left - j + SW - 1) // SW)
                    end = (W + left - j + SW - 1) // SW
                    start = (begin * SW + j - left) * x_spread[2] + group * CG + v * L
                    _gather(memory, count, x, start, (x_spread[0], x_spread[1], SW * x_spread[2]), n0, n1, images, lines, RC, Q,
                            first + i, SH, H, begin, end, min(L, CG - v * L))  # fmt: skip
                    target = (v - v0) * 3 * x_third + (i * SW + j) * copies * region * L
                    _split_input(split_input, target, x_third, copies, region, memory)
        for v in range(2 * b0, 2 * b1):
            start = ow0 * spread[2] + group * OCG + v * L
            _gather(memory, steps * DEPTH, g, start, spread, n0, n1, images, (images - 1) * RC + own_rows, RC, Q,
                    oh0, 1, OH, 0, across, min(L, OCG - v * L))  # fmt: skip
            _split_gradient(split_gradient, (v // 2 - b0) * g_size + v % 2 * ROWS * HALF, steps, memory, near)
        # what the next unit reads, where it is one run of memory
        n2, oh2, ow2 = place(unit + 1, images, rows, columns, OH, OW)
        work = max(1, (b1 - b0) * KH * KW * ((v1 - v0 + 1) // 2) * steps * ASKED)
        x_next = n2 * x_spread[0] + max(0, oh2 * SH - PT) * x_spread[1] + max(0, ow2 * SW - PL) * x_spread[2]
        g_next = n2 * spread[0] + oh2 * spread[1] + ow2 * spread[2]
        x_move, g_move = 0, 0
        if unit + 1 < (s + 1) * units // splits and (column_blocks == 1 or H == 1):
            if (v1 - v0) * L >= C:
                x_move = min(64, 4 * images * min(H, rows * SH) * min(x_spread[1], columns * SW * x_spread[2]) // work)
            if (b1 - b0) * TALL >= OC:
                g_move = min(64, 4 * images * rows * min(spread[1], columns * spread[2]) // work)
        ahead, also = pointer(x, x_next), pointer(g, g_next)
        if g_move > x_move:
            ahead, also, x_move, g_move = also, ahead, g_move, x_move
        g_move = min(64, 2 * g_move)
        asked = 0
        for block in range(b0, b1):
            for kh in range(KH):
                for kw in range(KW):
                    i, j = kh * DH, kw * DW
                    shift = i // SH * Q + j // SW
                    b = ((i % SH * SW + j % SW) * copies + shift % 2) * region * L + shift // 2 * L
                    for v in range(v0, v1, 2):
                        c = d0 + ((v * CB + block) * KH + kh) * KW * TALL * L + kw * TALL * L
                        below = 2 * CB * filter_size if v + 2 < v1 else TALL * L - (v - v0) * CB * filter_size
                        matrix_tile(min(2, v1 - v), split_gradient, (block - b0) * g_size, (HALF, steps * ROWS_STEP), places, 0,
                                    split_input, (v - v0) * 3 * x_third + b, (3 * x_third, x_third, THIRD, steps),
                                    results, c, (L, ROWS * L), results, c, results, c + ROWS * L, (L, L, CB * filter_size, below),
                                    ahead, asked * x_move // 4, also, asked // 2 * g_move // 4, (x_move, g_move))  # fmt: skip
                        asked += steps * ASKED
    end_matrices()


@kernel
def backward_weight(X, G, parts, offsets, size, x_spread, spread, window, taps, layout, images, rows, columns, share, own):
    """Reads X (N, H, W, C) and the output's gradient G; writes parts (splits, groups, vectors, CB, KH, KW, TALL, lanes), whose sum over
    splits is the weight's gradient: vectors of input channels, and CB blocks of TALL output channels.

    `size` = (N, H, W, C, OC); an image, a row and a pixel of X are `x_spread` numbers from the next, those of G `spread`. `offsets` are
    0, ROWS_STEP, 2 * ROWS_STEP, ..., a number for each step. Parallel over splits of the blocks of `images` images, `rows` output rows and
    `columns` output columns, groups, `share` vectors and `own` of the CB blocks.
    """
    splits, groups, vectors, CB = parts.shape[:4]
    for job in prange(splits * groups * ((vectors + share - 1) // share) * ((CB + own - 1) // own)):
        _weight_job(np.int64(job), X, G, parts, offsets, size, x_spread, spread, window, taps, layout, images, rows, columns, share, own)


@kernel
def unpack(parts, grad_weight):
    """Reads what `backward_weight` writes, writes the ordered sum over splits as grad_weight (OC, C/groups, KH, KW).

    Parallel over groups and blocks of output channels.
    """
    splits, groups, vectors, CB, KH, KW, _, _ = parts.shape
    OC, CG = grad_weight.shape[:2]
    OCG, area, split_size = OC // groups, KH * KW, parts.size // splits
    p, d, L = flat(parts), flat(grad_weight), lanes(parts)
    for job in prange(groups * CB):
        group, block = job // CB, job % CB
        numbers = scratch(area * L, parts.dtype)
        for m in range(min(TALL, OCG - block * TALL)):
            for v in range(vectors):
                cols, target = min(L, CG - v * L), ((group * OCG + block * TALL + m) * CG + v * L) * area
                for tap in range(area):
                    source = ((((group * vectors + v) * CB + block) * area + tap) * TALL + m) * L
                    total = load(p, source, L)
                    for s in range(1, splits):
                        total = total + load(p, source + s * split_size, L)
                    store(numbers, tap * L, total, L)
                if area == 1:
                    store(d, target, load(numbers, 0, L), cols)
                else:
                    for tap in range(0, area, L):
                        count = min(L, area - tap)
                        transpose(numbers, tap * L, L, count, cols, d, target + tap, area, count)
