"""Weight gradients of the direct convolution by tiles that read each number of the input once for all taps of a row of the filter.

A job goes through its images in units of some output rows, and for each through its vectors of output channels, two at a time where tiles
take two: the gradient's are packed, and multiplied in passes over the unit, one for each block of input channels and row of the filter.
What the next unit will copy is asked for meanwhile, one line of each pixel in a pass.
"""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.conv_direct_weight import pack_gradient, part_of_job
from fastconv.kernels.dense import part
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.panel import clip, fill_panels
from fastconv.kernels.prefetch import elements_between
from fastconv.kernels.row_tile import code_of
from fastconv.kernels.row_tile_weight import most_channels, row_tiles_weight
from fastconv.kernels.scratch import LINE_BYTES, scratch
from fastconv.kernels.simd import itemsize
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import flat, zero


@device
def _place(unit, images, rows, column_blocks, OH, OW):
    """The first image, output row and output column of a unit, and the column after its last."""
    blocks = (OH + rows - 1) // rows * column_blocks
    block = unit % blocks
    ow0, ow1 = part(block % column_blocks, column_blocks, OW)
    return unit // blocks * images, block // column_blocks * rows, ow0, ow1


@device
def _number(turn, turns, line, pixels):
    """Where a pass begins that asks for a line of some pixels: after as many `turns` as all pixels take comes their next line."""
    return turn // turns * line + turn % turns * pixels


@apart
def _job(job, X, G, parts, window, taps, codes, images, rows, column_blocks, share, own, together):
    """Job `job` of `backward_weight`."""
    N, H, W, C = X.shape
    OC = G.shape[3]
    OH, OW, SH, SW, PT, PL = window
    KH, KW, DH, DW = taps
    splits, groups, vectors, CB, _, _, BC, _ = parts.shape
    x, g, d, L = flat(X), flat(G), flat(parts), lanes(X)
    CG, OCG = C // groups, OC // groups
    columns = (OW + column_blocks - 1) // column_blocks
    width, height = (columns - 1) * SW + (KW - 1) * DW + 1, min(H, (rows - 1) * SH + (KH - 1) * DH + 1)
    row_size, block_size, filter_size = width * BC, height * width * BC, KH * KW * BC * L
    units = (N + images - 1) // images * ((OH + rows - 1) // rows) * column_blocks
    s, group, v0, v1, b0, b1 = part_of_job(job, groups, vectors, CB, share, own)
    d0 = (s * groups + group) * vectors * CB * filter_size
    x_channel, g_channel = group * CG + b0 * BC, group * OCG + v0 * L
    image_size, code = (b1 - b0) * block_size, codes[code_of(KW, SW)]
    panel = scratch(images * image_size, x.dtype)
    packed = scratch(together * images * rows * columns * L, x.dtype)
    line, ages, most = LINE_BYTES // itemsize(x), (KW + SW - 1) // SW, most_channels(KW, SW, together)
    x_lines, g_lines = ((b1 - b0) * BC + line - 1) // line, ((v1 - v0) * L + line - 1) // line
    for v in range(v0, v1):
        zero(d, d0 + (v * CB + b0) * filter_size, (b1 - b0) * filter_size)
    for unit in range(s * units // splits, (s + 1) * units // splits):
        n0, oh0, ow0, ow1 = _place(unit, images, rows, column_blocks, OH, OW)
        n1, oh1, across = min(N, n0 + images), min(OH, oh0 + rows), ow1 - ow0
        ih0 = min(H, max(0, oh0 * SH - PT))
        ih1 = max(ih0, min(H, (oh1 - 1) * SH + (KH - 1) * DH - PT + 1))
        pixels, pixel, passes = (oh1 - oh0) * across, together * L, 0
        for n in range(n0, n1):
            fill_panels(panel, (n - n0) * image_size, block_size, x, 0, n, ih0, ih1 - ih0, H, W, C, x_channel,
                        min((b1 - b0) * BC, CG - b0 * BC), BC, PL - ow0 * SW, width)
        n2, oh2, ow2, _ = _place(unit + 1, images, rows, column_blocks, OH, OW)
        x_next = ((n2 * H + max(0, oh2 * SH - PT)) * W + max(0, ow2 * SW - PL)) * C + x_channel
        g_next = ((n2 * OH + oh2) * OW + ow2) * OC + g_channel
        requests = (n1 - n0) * (oh1 - oh0) * max(1, (across // DW + 1) // ages - 1) * ((BC + most - 1) // most)  # of a pass, as tiles ask
        x_turns, g_turns = (n1 - n0) * pixels * SH * SW // requests + 1, (n1 - n0) * pixels // requests + 1
        for v in range(v0, v1, together):
            wide = min(together, v1 - v)
            for n in range(n0, n1):
                for oh in range(oh0, oh1):
                    source = ((n * OH + oh) * OW + ow0) * OC + group * OCG + v * L
                    target = ((n - n0) * pixels + (oh - oh0) * across) * pixel
                    pack_gradient(packed, target, g, source, across, OC, min(wide * L, OCG - v * L), wide, L, pixel)
            for block in range(b0, b1):
                for kh in range(KH):
                    top = oh0 * SH + kh * DH - PT
                    low, high = clip(top, SH, oh1 - oh0, H)
                    a = (block - b0) * block_size + (top + low * SH - ih0) * row_size
                    c = d0 + (v * CB + block) * filter_size + kh * KW * BC * L
                    turn, asked, move = passes, 0, 0
                    if turn < x_turns * x_lines:
                        asked, move = elements_between(panel, a, x, x_next + _number(turn, x_turns, line, requests * C)), C
                    elif turn < x_turns * x_lines + g_turns * g_lines:
                        turn -= x_turns * x_lines
                        asked, move = elements_between(panel, a, g, g_next + _number(turn, g_turns, line, requests * OC)), OC
                    passes += 1
                    for first in range(DW):  # pixels whose taps meet the same ones
                        b, own_columns = (low * across + first) * pixel, (across - first + DW - 1) // DW
                        over = (n1 - n0, image_size, pixels * pixel, high - low, SH * row_size, across * pixel, own_columns)
                        row_tiles_weight(code, min(BC, CG - block * BC), panel, a + first * BC, DW * BC, packed, b, DW * pixel, d, c, L,
                                         BC * L, CB * filter_size, wide, over, (asked, move if first == 0 else 0))


@kernel
def backward_weight(X, G, parts, window, taps, codes, images, rows, column_blocks, share, own, together):
    """Reads X (N, H, W, C) and the output's gradient G (N, OH, OW, OC); writes parts as conv_direct_weight.backward_weight does.

    Parallel over splits of the blocks of `images` images, `rows` output rows and one of `column_blocks` even parts of the columns, groups,
    `share` vectors of output channels, of which tiles take `together`, and `own` of the CB blocks. `codes` are row_tile_weight's.
    """
    splits, groups, vectors, CB = parts.shape[:4]
    for job in prange(splits * groups * ((vectors + share - 1) // share) * ((CB + own - 1) // own)):
        _job(np.int64(job), X, G, parts, window, taps, codes, images, rows, column_blocks, share, own, together)
