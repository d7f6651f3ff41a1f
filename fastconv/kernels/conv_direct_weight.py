"""Weight gradients of the direct convolution: the input from panels as in conv_direct, the output's gradient from packed vectors.

A job goes through its images in units of some output rows, and for each through its vectors of output channels, two at a time: the
gradient's are packed, and multiplied in passes over the unit, one for each row of the filter. What the next two vectors and the next unit
will copy is asked for meanwhile, a line in each step.
"""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.panel import clip, fill_panel
from fastconv.kernels.prefetch import elements_between
from fastconv.kernels.scratch import LINE_BYTES, scratch
from fastconv.kernels.simd import REQUEST, itemsize
from fastconv.kernels.tiles import tiles_ahead
from fastconv.kernels.transpose import transpose
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import flat, load, store, zero

FEW_ROWS, FEW_NUMBERS = 3, 100
"""A filter of so many rows of so many numbers, in one run each, reads the gradient too seldom for a copy of it to pay: with 3 channels the
copy is a quarter of the time. Nor does it where all output channels are one vector, and the copy would be the same."""


LOW = 7
"""Tiles of fewer rows ask for nothing: one more instruction in each of their steps costs more than it saves."""


@device
def pack_gradient(packed, p, g, source, pixels, OC, cols, wide, vector, pixel):
    """`cols` channels of each pixel into `wide` vectors: vector v of pixel q at packed[p + v*vector + q*pixel], zeros in the tail."""
    L = lanes(g)
    for v in range(wide):
        own = min(L, cols - v * L)
        for q in range(pixels):
            store(packed, p + v * vector + q * pixel, load(g, source + q * OC + v * L, own), L)


@device
def place(unit, images, rows, columns, OH, OW):
    """The first image, output row and output column of a unit."""
    row_blocks, column_blocks = (OH + rows - 1) // rows, (OW + columns - 1) // columns
    block = unit % (row_blocks * column_blocks)
    return unit // (row_blocks * column_blocks) * images, block // column_blocks * rows, block % column_blocks * columns


@device
def part_of_job(job, groups, vectors, CB, share, own):
    """The split, the group, the first vector and the one after the last, and the first block and the one after the last of a job."""
    shares, owners = (vectors + share - 1) // share, (CB + own - 1) // own
    v0, b0 = job // owners % shares * share, job % owners * own
    s, group = job // (groups * shares * owners), job // (shares * owners) % groups
    return s, group, v0, min(vectors, v0 + share), b0, min(CB, b0 + own)


@apart
def _weight_job(job, X, G, parts, window, taps, images, rows, columns, share, own):
    """Job `job` of `backward_weight`."""
    N, H, W, C = X.shape
    OC = G.shape[3]
    OH, OW, SH, SW, PT, PL = window
    KH, KW, DH, DW = taps
    splits, groups, vectors, CB, _, _, BC, _ = parts.shape
    x, g, d, L = flat(X), flat(G), flat(parts), lanes(X)
    CG, OCG = C // groups, OC // groups
    width, height = (columns - 1) * SW + (KW - 1) * DW + 1, min(H, (rows - 1) * SH + (KH - 1) * DH + 1)
    row_size, block_size, filter_size = width * BC, height * width * BC, KH * KW * BC * L
    M, T = (KW * BC, 1) if DW == 1 else (BC, KW)
    row_blocks, column_blocks = (OH + rows - 1) // rows, (OW + columns - 1) // columns
    units = (N + images - 1) // images * row_blocks * column_blocks
    s, group, v0, v1, b0, b1 = part_of_job(job, groups, vectors, CB, share, own)
    d0 = (s * groups + group) * vectors * CB * filter_size
    image_size = (b1 - b0) * block_size
    panel = scratch(images * image_size, x.dtype)
    packed = scratch(2 * images * rows * columns * L, x.dtype)
    if groups * CB == 1:  # a pass asks for the next M numbers of those that belong to an output pixel
        ask, passes = M, REQUEST * ((SH * SW * C + M - 1) // M)
    else:
        ask, passes = C, REQUEST * SH * SW
    line = LINE_BYTES // itemsize(x)
    lines = max(1, 2 * L // line)  # of a pixel's two vectors
    if M < LOW:
        passes, lines = 0, 0
    plain = OCG % L == 0 and CB * T == 1 and (OC == L or (KH <= FEW_ROWS and M <= FEW_NUMBERS))
    for v in range(v0, v1):
        zero(d, d0 + (v * CB + b0) * filter_size, (b1 - b0) * filter_size)
    for unit in range(s * units // splits, (s + 1) * units // splits):
        n0, oh0, ow0 = place(unit, images, rows, columns, OH, OW)
        n2, oh2, ow2 = place(unit + 1, images, rows, columns, OH, OW)
        x_next = ((n2 * H + max(0, oh2 * SH - PT)) * W + max(0, ow2 * SW - PL)) * C + group * CG
        g_next = ((n2 * OH + oh2) * OW + ow2) * OC + group * OCG + v0 * L
        n1 = min(N, n0 + images)
        oh1 = min(OH, oh0 + rows)
        across = min(columns, OW - ow0)
        ih0 = min(H, max(0, oh0 * SH - PT))
        ih1 = max(ih0, min(H, (oh1 - 1) * SH + (KH - 1) * DH - PT + 1))
        pixels = (oh1 - oh0) * across
        for n in range(n0, n1):
            for block in range(b0, b1):
                start = (n - n0) * image_size + (block - b0) * block_size
                fill_panel(panel, start, x, 0, n, ih0, ih1 - ih0, H, W, C, group * CG + block * BC,
                           min(BC, CG - block * BC), BC, PL - ow0 * SW, width)
        for v in range(v0, v1, 2):
            wide, last = min(2, v1 - v), v + 2 >= v1
            source = ((n0 * OH + oh0) * OW + ow0) * OC + group * OCG + v * L
            if not plain:
                for n in range(n0, n1):
                    pack_gradient(packed, (n - n0) * pixels * L, g, source + (n - n0) * OH * OW * OC, pixels, OC,
                                  min(wide * L, OCG - v * L), wide, (n1 - n0) * pixels * L, L)
            for kh in range(KH):
                top = oh0 * SH + kh * DH - PT
                low, high = clip(top, SH, oh1 - oh0, H)
                after = KH - 1 - kh  # passes over these vectors; the last ones over a unit ask for input, others for the gradient
                turn, rest = after - passes if last else after, after + (v1 - v - 1) // 2 * KH
                asked, move, beside = 0, 0, 0
                if rest < passes:
                    turn, move, beside = rest, SH * SW * C, BC
                    asked = elements_between(panel, 0, x, x_next + turn // REQUEST * ask)
                elif turn < REQUEST * lines:
                    move = OC
                    asked = elements_between(panel, 0, g, (g_next if last else source + 2 * L) + turn // REQUEST * line)
                asked, move = asked + turn % REQUEST * move, REQUEST * move
                if plain:
                    over = (n1 - n0, image_size, OH * OW * OC, high - low, SH * row_size, OW * OC, across, SW * BC, OC)
                    a = (top + low * SH - ih0) * row_size
                    tiles_ahead(M, panel, a, 1, g, source + low * OW * OC, L, d, d0 + (v * CB * KH + kh) * M * L, L, CB * filter_size,
                                wide, wide * L, g, 0, 1, over, (asked - a, move, 0, 0))
                    continue
                over = (n1 - n0, image_size, pixels * L, high - low, SH * row_size, across * L, across, SW * BC, L)
                for block in range(b0, b1):
                    for kw in range(T):
                        a = (block - b0) * block_size + (top + low * SH - ih0) * row_size + kw * DW * BC
                        c = d0 + (v * CB + block) * filter_size + (kh * KW + kw) * BC * L
                        tiles_ahead(M, panel, a, 1, packed, low * across * L, (n1 - n0) * pixels * L, d, c, L, CB * filter_size,
                                    wide, wide * L, packed, 0, 1, over, (asked + block * beside - a, move, 0, 0))


@kernel
def backward_weight(X, G, parts, window, taps, images, rows, columns, share, own):
    """Reads X (N, H, W, C) and the output's gradient G (N, OH, OW, OC); writes parts (splits, groups, vectors, CB, KH, KW, BC, lanes).

    The sum of parts over splits is the packed gradient of the weight. Parallel over splits of the blocks of `images` images, `rows` output
    rows and `columns` output columns, all of them unless `rows` is 1, whose panels a job sees one after the other, groups, `share` vectors
    and `own` of the CB blocks.
    """
    splits, groups, vectors, CB = parts.shape[:4]
    for job in prange(splits * groups * ((vectors + share - 1) // share) * ((CB + own - 1) // own)):
        _weight_job(np.int64(job), X, G, parts, window, taps, images, rows, columns, share, own)


@kernel
def unpack(parts, grad_weight):
    """Reads parts (splits, groups, vectors, CB, KH, KW, BC, lanes), writes their ordered sum as grad_weight (OC, C/groups, KH, KW).

    Parallel over groups and vectors.
    """
    splits, groups, vectors, CB, KH, KW, BC, _ = parts.shape
    OC, CG = grad_weight.shape[:2]
    OCG, area, split = OC // groups, KH * KW, parts.size // splits
    p, d, L = flat(parts), flat(grad_weight), lanes(parts)
    for job in prange(groups * vectors):
        group, j0 = job // vectors, job % vectors * L
        rows = scratch(BC * area * L, parts.dtype)  # (summed channel, tap, lane)
        for block in range(CB):
            own, source = min(BC, CG - block * BC), (job * CB + block) * area * BC * L
            for tap in range(area):
                for r in range(BC):
                    total = load(p, source, L)
                    for s in range(1, splits):
                        total = total + load(p, source + s * split, L)
                    store(rows, (r * area + tap) * L, total, L)
                    source += L
            target = ((group * OCG + j0) * CG + block * BC) * area
            for e in range(0, own * area, L):
                count = min(L, own * area - e)
                transpose(rows, e * L, L, count, min(L, OCG - j0), d, target + e, CG * area, count)
