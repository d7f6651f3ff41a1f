"""Weight gradients on the matrix registers: the sums run over pixels, 32 of them at a step.

A tile is TALL input channels times two vectors of output channels, for one tap. Of the input it reads registers of 16 channels and 32
pixels, from a panel in which each channel's pixels lie side by side, in thirds, (blocks, 3, classes, TALL, region): in the order of
`conv_amx`, so that a tap is a place to begin at. The gradient's thirds are pairs of pixels, (vectors, steps, 3, 16, 16, 2), with zeros
for the pixels between rows.

`layout` = (row classes, column classes, RC, Q, region, steps): numbers of a class, and registers of 32 pixels in a unit.
"""

import numpy as np
from numba import prange
from numba.core import types
from numba.extending import intrinsic

from fastconv.kernels.amx import ASKED, DEPTH, ROWS, STEP, TALL, THIRD, begin_matrices, end_matrices, matrix_tile
from fastconv.kernels.apart import apart
from fastconv.kernels.conv_amx import seen
from fastconv.kernels.conv_direct_weight import part_of_job, place
from fastconv.kernels.jit import kernel
from fastconv.kernels.scratch import scratch
from fastconv.kernels.thirds import in_pairs, joined, thirds
from fastconv.kernels.transpose import transpose
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import flat, load, pointer, store, zero


@intrinsic
def _half_pointer(typingctx, array, index):
    """A pointer to the number `index` of bfloat16 that an array of float32 holds."""

    def codegen(context, builder, sig, args):
        data = context.make_array(array)(context, builder, args[0]).data
        halves = builder.bitcast(data, context.get_data_type(types.int16).as_pointer())
        return builder.bitcast(builder.gep(halves, [args[1]]), data.type)

    return types.CPointer(array.dtype)(array, types.int64), codegen


@apart
def _fill_channels(panel, rows, x, spread, n0, n1, images, first, most_rows, own_rows, H, W, c0, channels, left, cut, taps, layout):
    """`channels` channels from c0 on of what `own_rows` output rows see, of images n0 .. n1; the first column is column -left.

    `rows` is scratch memory, a vector of channels' pixels as float32. Between `images` images of `most_rows` output rows it is 0 from the
    start; the columns beside an image are the same in each unit unless rows are `cut`.
    """
    row_classes, column_classes, RC, Q, region, _ = layout
    KH, KW, DH, DW = taps
    L, size = lanes(x), row_classes * column_classes * region
    span, own_span = (most_rows - 1) * row_classes + (KH - 1) * DH + 1, (own_rows - 1) * row_classes + (KH - 1) * DH + 1
    for c in range(0, channels, L):
        cols, source_c = min(L, channels - c), c0 + c
        for n in range(n0, n0 + images):
            for i in range(span if n + 1 == n0 + images else min(span, RC * row_classes)):
                if not seen(i % row_classes, KH, DH, row_classes):
                    continue
                ih = first + i
                inside = n < n1 and i < own_span and 0 <= ih < H
                for column_class in range(column_classes):
                    if not seen(column_class, KW, DW, column_classes):
                        continue
                    p = (i % row_classes * column_classes + column_class) * region + ((n - n0) * RC + i // row_classes) * Q
                    if not inside:
                        for channel in range(L):
                            zero(rows, channel * size + p, Q)
                        continue
                    # columns of the class inside the image
                    begin = max(0, (left - column_class + column_classes - 1) // column_classes)
                    end = min(Q, (W + left - column_class + column_classes - 1) // column_classes)
                    if cut:
                        for channel in range(L):
                            zero(rows, channel * size + p, min(begin, Q))
                            zero(rows, channel * size + p + max(0, end), Q - max(0, end))
                    source = n * spread[0] + ih * spread[1] + (begin * column_classes + column_class - left) * spread[2] + source_c
                    for column in range(begin, end, L):
                        count = min(L, end - column)
                        transpose(x, source, column_classes * spread[2], count, cols, rows, p + column, size, count)
                        source += L * column_classes * spread[2]
        target, third = c // TALL * 3 * TALL * (size // 2) + c % TALL * (region // 2), TALL * (size // 2)
        for channel in range(cols):
            for i in range(0, size, DEPTH):
                a0, a1, a2 = thirds(load(rows, channel * size + i, L))
                b0, b1, b2 = thirds(load(rows, channel * size + i + L, L))
                t = target + (i // region * TALL + channel) * (region // 2) + i % region // 2
                store(panel, t, joined(a0, b0), L)
                store(panel, t + third, joined(a1, b1), L)
                store(panel, t + 2 * third, joined(a2, b2), L)


@apart
def _fill_pairs(pairs, g, start, vectors, channels, rows, across, images, spread, layout):
    """The gradient's thirds, of `vectors` vectors of `channels` channels in all from g[start] on."""
    _, _, RC, Q, _, steps = layout
    L, line, column = lanes(g), 0, 0
    for q in range(0, steps * DEPTH, 2):
        first, second = -1, -1  # where two pixels of the unit are, if there are any
        if column < across and line % RC < rows and line // RC < images:
            first = start + line // RC * spread[0] + line % RC * spread[1] + column * spread[2]
        column += 1
        if column == Q:
            line, column = line + 1, 0
        if first >= 0 and 0 < column < across:
            second = first + spread[2]
        elif column < across and line % RC < rows and line // RC < images:
            second = start + line // RC * spread[0] + line % RC * spread[1] + column * spread[2]
        column += 1
        if column == Q:
            line, column = line + 1, 0
        t = q // DEPTH * STEP + q % DEPTH // 2 * L
        for v in range(vectors):
            cols = min(L, channels - v * L)
            a0, a1, a2 = thirds(load(g, first + v * L, cols if first >= 0 else 0))
            b0, b1, b2 = thirds(load(g, second + v * L, cols if second >= 0 else 0))
            store(pairs, t, in_pairs(a0, b0), L)
            store(pairs, t + THIRD, in_pairs(a1, b1), L)
            store(pairs, t + 2 * THIRD, in_pairs(a2, b2), L)
            t += steps * STEP


@apart
def _weight_job(job, X, G, parts, offsets, size, x_spread, spread, window, taps, layout, images, rows, columns, share, own):
    """Job `job` of `backward_weight`."""
    N, H, W, C, OC = size
    OH, OW, SH, SW, PT, PL = window
    KH, KW, DH, DW = taps
    row_classes, column_classes, RC, Q, region, steps = layout
    splits, groups, vectors, CB = parts.shape[:4]
    x, g, d, L = flat(X), flat(G), flat(parts), lanes(X)
    CG, OCG = C // groups, OC // groups
    filter_size, numbers = KH * KW * TALL * L, row_classes * column_classes * region
    row_blocks, column_blocks = (OH + rows - 1) // rows, (OW + columns - 1) // columns
    units = (N + images - 1) // images * row_blocks * column_blocks
    s, group, v0, v1, b0, b1 = part_of_job(job, groups, vectors, CB, share, own)
    d0 = (s * groups + group) * vectors * CB * filter_size
    memory = scratch(L * numbers + (v1 - v0) * steps * STEP + (b1 - b0) * 3 * TALL * (numbers // 2), x.dtype)
    pairs, panel = memory[L * numbers :], memory[L * numbers + (v1 - v0) * steps * STEP :]
    results, places = pointer(d, 0), pointer(offsets, 0)
    zero(memory, 0, L * numbers)
    for v in range(v0, v1):
        zero(d, d0 + (v * CB + b0) * filter_size, (b1 - b0) * filter_size)
    begin_matrices()
    for unit in range(s * units // splits, (s + 1) * units // splits):
        n0, oh0, ow0 = place(unit, images, rows, columns, OH, OW)
        n1, own_rows, across = min(N, n0 + images), min(rows, OH - oh0), min(columns, OW - ow0)
        c0 = b0 * TALL
        _fill_channels(panel, memory, x, x_spread, n0, n1, images, oh0 * SH - PT, rows, own_rows, H, W, group * CG + c0,
                       min(CG - c0, (b1 - b0) * TALL), PL - ow0 * SW, columns < OW, taps, layout)  # fmt: skip
        start = n0 * spread[0] + oh0 * spread[1] + ow0 * spread[2] + group * OCG + v0 * L
        _fill_pairs(pairs, g, start, v1 - v0, OCG - v0 * L, own_rows, across, n1 - n0, spread, layout)
        # what the next unit reads, where it is one run of memory
        n2, oh2, ow2 = place(unit + 1, images, rows, columns, OH, OW)
        work = max(1, (b1 - b0) * KH * KW * ((v1 - v0 + 1) // 2) * steps * ASKED)
        x_next = n2 * x_spread[0] + max(0, oh2 * SH - PT) * x_spread[1] + max(0, ow2 * SW - PL) * x_spread[2]
        g_next = n2 * spread[0] + oh2 * spread[1] + ow2 * spread[2]
        x_move, g_move = 0, 0
        if unit + 1 < (s + 1) * units // splits and (column_blocks == 1 or H == 1):
            if (b1 - b0) * TALL >= C:
                x_move = min(64, 4 * images * min(H, rows * SH) * min(x_spread[1], columns * SW * x_spread[2]) // work)
            if (v1 - v0) * L >= OC:
                g_move = min(64, 4 * images * rows * min(spread[1], columns * spread[2]) // work)
        first, second = pointer(x, x_next), pointer(g, g_next)
        if g_move > x_move:
            first, second, x_move, g_move = second, first, g_move, x_move
        g_move = min(64, 2 * g_move)
        asked = 0
        for block in range(b0, b1):
            for kh in range(KH):
                for kw in range(KW):
                    i, j = kh * DH, kw * DW
                    a = (i % row_classes * column_classes + j % column_classes) * TALL * region + i // row_classes * Q + j // column_classes
                    pixels = _half_pointer(panel, (block - b0) * 3 * TALL * numbers + a)
                    for v in range(v0, v1, 2):
                        c = d0 + ((v * CB + block) * KH + kh) * KW * TALL * L + kw * TALL * L
                        below = 2 * CB * filter_size if v + 2 < v1 else TALL * L - (v - v0) * CB * filter_size
                        matrix_tile(min(2, v1 - v), pixels, 0, (region // 2, TALL * (numbers // 2)), places, 0,
                                    pairs, (v - v0) * steps * STEP, (steps * STEP, steps), results, c, (L, ROWS * L),
                                    results, c, results, c + ROWS * L, (L, L, CB * filter_size, below),
                                    first, asked * x_move // 4, second, asked // 2 * g_move // 4, (x_move, g_move))  # fmt: skip
                        asked += steps * ASKED
    end_matrices()


@kernel
def backward_weight(X, G, parts, offsets, size, x_spread, spread, window, taps, layout, images, rows, columns, share, own):
    """Reads X and the output's gradient G; writes parts (splits, groups, vectors, CB, KH, KW, TALL, lanes), as
    conv_direct_weight.backward_weight does.

    `size` = (N, H, W, C, OC); an image, a row and a pixel of X are `x_spread` numbers from the next, those of G `spread`. `offsets` are
    0, 16, 32, ..., a number for each step. Parallel over splits of the blocks of `images` images, `rows` output rows and `columns` output
    columns, groups, `share` vectors and `own` of the CB blocks.
    """
    splits, groups, vectors, CB = parts.shape[:4]
    for job in prange(splits * groups * ((vectors + share - 1) // share) * ((CB + own - 1) // own)):
        _weight_job(np.int64(job), X, G, parts, offsets, size, x_spread, spread, window, taps, layout, images, rows, columns, share, own)
