"""Direct convolution on the register tile, channels-last memory.

A tile is some neighbouring output pixels of one row times two vectors of output channels. What it reads of the input comes from a
panel: the rows that a job needs, with the columns left and right of the image made real, in blocks of neighbouring channels,
(blocks, rows, columns, BC). There the KW * BC numbers under a row of the filter are one run of memory, and pixels lie so close
that they never fall on the same few lines of the cache, as they do in an image of 256 or more channels. Rows above and below
the image are left out of the sum. Copying costs 1 to 3 % of the time.

`window` = (OH, OW, SH, SW, PT, PL), `taps` = (KH, KW, DH, DW). The channels of a group are (CB, BC), CB blocks of BC, of which
`channels` = (groups, vectors, CB, BC) has the numbers, with the vectors of a group's outputs.

`phases` is a table of the convolutions that a job computes from one panel: a single one, or those that make up the input gradient of a
strided convolution (functional.phases). A row of it says in the order of ROW where the phase's packed weight begins and which of the
weight's taps are in it, the extents of its outputs and its padding, and which number of an output image is its first. Then `window` and
`taps` are those of one convolution that sees all that the phases see.

Where the filter moves by one pixel or two, tiles are those of `row_tile`; `codes` has the addresses of these.
"""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.dense import part
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.panel import clip, fill_panel
from fastconv.kernels.pool import relu_max_row_2x2
from fastconv.kernels.prefetch import prefetch_to_write
from fastconv.kernels.row_tile import code_of, row_tiles, suits_rows
from fastconv.kernels.scratch import scratch
from fastconv.kernels.tiles import OUTPUT_FIRST, tiles_ahead
from fastconv.kernels.transpose import transpose
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import flat, load, store, zero

AHEAD = 64
"""Vectors between what `pack` writes and what it asks for: as a rule all processors have read what was there before."""

ROW = ("packed", "KH", "KW", "first", "kh_step", "kw_step", "OH", "OW", "PT", "PL", "place")
"""A row of the table of phases."""


@apart
def _pack_vector(job, weight, packed, phases, channels, by_input):
    """Job `job` of `pack`."""
    groups, vectors, CB, BC = channels
    OC, CG, area = weight.shape[0], weight.shape[1], weight.shape[2] * weight.shape[3]
    OCG, L = OC // groups, lanes(weight)
    w, f = flat(weight), flat(packed)
    group, j0 = job // vectors, job % vectors * L
    rows = scratch(BC * area * L, weight.dtype)  # (summed channel, tap, lane)
    for block in range(CB):
        r0 = block * BC
        if by_input:
            own, cols = min(BC, OCG - r0), min(L, CG - j0)
            for r in range(own):
                start = ((group * OCG + r0 + r) * CG + j0) * area
                if area == 1:
                    store(rows, r * L, load(w, start, cols), L)
                    continue
                for e in range(0, area, L):
                    transpose(w, start + e, area, cols, min(L, area - e), rows, (r * area + e) * L, L, L)
        else:
            own, cols = min(BC, CG - r0), min(L, OCG - j0)
            start = ((group * OCG + j0) * CG + r0) * area
            for e in range(0, own * area, L):
                transpose(w, start + e, CG * area, cols, min(L, own * area - e), rows, e * L, L, L)
        zero(rows, own * area * L, (BC - own) * area * L)
        for p in range(len(phases)):
            begin, KH, KW, first, kh_step, kw_step = phases[p, 0], phases[p, 1], phases[p, 2], phases[p, 3], phases[p, 4], phases[p, 5]
            target = begin + (job * CB + block) * KH * KW * BC * L
            for kh in range(KH):
                for kw in range(KW):
                    tap = first + kh * kh_step + kw * kw_step
                    for r in range(BC):
                        prefetch_to_write(f, target + AHEAD * L)
                        store(f, target, load(rows, (r * area + tap) * L, L), L)
                        target += L


@kernel
def pack(weight, packed, phases, channels, by_input):
    """Reads weight (OC, C/groups, ., .), writes each phase's (groups, vectors, CB, KH, KW, BC, lanes), in the order in which tiles read.

    The lanes are a group's output channels, (CB, BC) its input channels, or the other way round with `by_input`; zeros beyond them.
    Tap (kh, kw) comes from the number first + kh*kh_step + kw*kw_step of the weight's taps. Parallel over groups and vectors.
    """
    for job in prange(channels[0] * channels[1]):
        _pack_vector(np.int64(job), weight, packed, phases, channels, by_input)


@device
def panel_rows(H, rows, window, taps):
    """(how many rows a panel for `rows` output rows has at most, whether each row of taps has some of its own there: where dilated rows
    are so far apart that most of the image's H rows between them are not needed)."""
    (_, _, SH, _, _, _), (KH, _, DH, _) = window, taps
    span = (rows - 1) * SH + 1
    together = min(H, span + (KH - 1) * DH)
    return min(together, KH * span), KH * span < together


@device
def fill_block(panel, p, x, n, first, rows, H, W, C, c0, channels, BC, window, taps):
    """Block of channels c0 .. of the panel for `rows` output rows that see row `first` of the image first; at panel[p]."""
    (_, OW, SH, SW, _, PL), (KH, KW, DH, DW) = window, taps
    width, span = (OW - 1) * SW + (KW - 1) * DW + 1, (rows - 1) * SH + 1
    if panel_rows(H, rows, window, taps)[1]:
        for kh in range(KH):
            fill_panel(panel, p + kh * span * width * BC, x, 0, n, first + kh * DH, span, H, W, C, c0, channels, BC, PL, width)
    else:
        ih0 = min(H, max(0, first))
        ih1 = max(ih0, min(H, first + span + (KH - 1) * DH))
        fill_panel(panel, p, x, 0, n, ih0, ih1 - ih0, H, W, C, c0, channels, BC, PL, width)


FAR = 4
"""From this dilation on tiles end where a column of taps leaves the image: they are still tall enough, and nothing is multiplied by 0."""


@device
def alike(ow, W, window, taps):
    """(ow1, left, right): output columns ow .. ow1 see the columns of taps left .. right inside the image, or all OW see all, as near
    ones do in a panel."""
    (_, OW, _, SW, _, PL), (_, KW, _, DW) = window, taps
    if DW < FAR:
        return OW, 0, KW
    left, right = clip(ow * SW - PL, DW, KW, W)
    end = OW
    for tap in range(KW):
        enters, leaves = (PL - tap * DW + SW - 1) // SW, (W + PL - tap * DW + SW - 1) // SW
        end = min(end, enters if enters > ow else leaves if leaves > ow else OW)
    return end, left, right


@apart
def convolve_block(
    X, weight, y, origin, image_size, row_size, step, bias, phases, channels, window, taps, codes, n0, n1, oh0, oh1, ow0, v0, v1
):
    """Vectors v0 .. v1 of each group, of each phase output rows oh0 .. oh1 and columns from ow0 on, as many as `window` has, of images
    n0 .. n1.

    Row oh of image n starts at y[origin + n * image_size + oh * row_size], its pixels lie `step` apart. With dilated columns the panel is
    that of one block of channels at a time.
    """
    N, H, W, C = X.shape
    _, OW, SH, SW, PT, PL = window
    _, KW, DH, DW = taps
    groups, vectors, CB, BC = channels
    x, w, b, L = flat(X), flat(weight), flat(bias), lanes(X)
    CG, OCG, rows, first = C // groups, bias.size // groups, oh1 - oh0, oh0 * SH - PT
    panel_row = ((OW - 1) * SW + (KW - 1) * DW + 1) * BC
    most, apart = panel_rows(H, rows, window, taps)
    block_size = most * panel_row
    if apart:
        start, kh_row = 0, ((rows - 1) * SH + 1) * panel_row
    else:
        start, kh_row = min(H, max(0, first)) - first, DH * panel_row  # rows above the image are not in the panel
    held = CB if DW == 1 else 1
    panel = scratch((n1 - n0) * held * block_size, x.dtype)
    for group in range(groups):
        for block0 in range(0, CB, held):
            for n in range(n0, n1):
                for block in range(block0, block0 + held):
                    fill_block(panel, ((n - n0) * held + block - block0) * block_size, x, n, first, rows, H, W, C, group * CG + block * BC,
                               min(BC, CG - block * BC), BC, window, taps)
            for v in range(v0, v1, 2):
                wide, cols = min(2, v1 - v), min(2 * L, OCG - v * L)
                channel = group * OCG + v * L
                for p in range(len(phases)):
                    begin, kernel_rows, kernel_columns = phases[p, 0], phases[p, 1], phases[p, 2]
                    last, across, top, before, place = phases[p, 6], min(OW, phases[p, 7] - ow0), phases[p, 8], phases[p, 9], phases[p, 10]
                    kh_size, filter_size = kernel_columns * BC * L, kernel_rows * kernel_columns * BC * L
                    filters, target = begin + ((group * vectors + v) * CB + block0) * filter_size, origin + place + channel
                    own, own_taps = (last, across, SH, SW, top, before - ow0 * SW), (kernel_rows, kernel_columns, DH, DW)
                    code = codes[code_of(kernel_columns, SW)] if suits_rows(kernel_columns, across, SW, DW) else 0
                    for n in range(n0, n1):
                        for oh in range(oh0, min(oh1, last)):
                            low, high = clip(oh * SH - top, DH, kernel_rows, H)
                            a = (n - n0) * held * block_size + ((oh - oh0) * SH + PT - top - start) * panel_row + low * kh_row
                            a += (PL - own[5]) * BC
                            f, c = filters + low * kh_size, target + n * image_size + oh * row_size
                            if code:
                                over = (CB, block_size, filter_size, high - low, kh_row, kh_size, BC)
                                row_tiles(code, across, panel, a, BC, w, f, CB * filter_size, BC * L, y, c, step, L, wide, cols, b, channel,
                                          over)
                                continue
                            if DW == 1:
                                over = (CB, block_size, filter_size, high - low, kh_row, kh_size, kernel_columns * BC, 1, L)
                                tiles_ahead(across, panel, a, SW * BC, w, f, CB * filter_size, y, c, step, L, wide, cols, b, channel, 0,
                                            over, OUTPUT_FIRST)
                                continue
                            at = 0
                            while at < across:
                                end, left, right = alike(at, W, own, own_taps)
                                over = (high - low, kh_row, kh_size, right - left, DW * BC, BC * L, BC, 1, L)
                                tiles_ahead(end - at, panel, a + (at * SW + left * DW) * BC, SW * BC, w, f + left * BC * L,
                                            CB * filter_size, y, c + at * step, step, L, wide, cols, b, channel, block0, over, OUTPUT_FIRST)
                                at = end


@kernel
def convolve(X, weight, Y, bias, phases, channels, window, taps, codes, steps, images, rows, columns, share):
    """Reads X (N, H, W, C), the packed weight of each phase, bias (OC,); writes pixels of Y (N, YH, YW, OC).

    Number place + (oh*YSH*YW + ow*YSW) * OC of image n of Y = bias + sum of X[n, oh*SH + kh*DH - PT, ow*SW + kw*DW - PL] * weight over the
    taps inside the image; `steps` = (YSH, YSW). Parallel over blocks of `images` images, `rows` output rows and, in even parts, up to
    `columns` output columns, and `share` vectors of output channels, an even number.
    """
    N, (OH, OW, SH, SW, PT, PL) = X.shape[0], window
    YH, YW, OC = Y.shape[1:]
    YSH, YSW = steps
    y, row_blocks, column_blocks = flat(Y), (OH + rows - 1) // rows, (OW + columns - 1) // columns
    shares = (channels[1] + share - 1) // share
    for job in prange((N + images - 1) // images * row_blocks * column_blocks * shares):
        block, v0 = job // shares, job % shares * share
        n0, oh0 = block // (row_blocks * column_blocks) * images, block // column_blocks % row_blocks * rows
        ow0, ow1 = part(block % column_blocks, column_blocks, OW)
        n1, oh1 = min(N, n0 + images), min(OH, oh0 + rows)
        own = OH, ow1 - ow0, SH, SW, PT, PL - ow0 * SW
        convolve_block(X, weight, y, ow0 * YSW * OC, YH * YW * OC, YSH * YW * OC, YSW * OC, bias, phases, channels, own, taps, codes,
                       n0, n1, oh0, oh1, ow0, v0, min(channels[1], v0 + share))


@kernel
def convolve_relu_max(X, weight, Y, argmax, bias, phases, channels, window, taps, codes, images, rows):
    """Convolution, ReLU, and maxima of 2 x 2 with stride 2, whose inputs never leave the cache.

    Reads as `convolve`, of a single phase, writes Y (N, OH / 2, OW / 2, OC) and argmax as pool.relu_max_forward_2x2 does. Parallel over
    blocks of `images` images and an even number `rows` of rows before pooling.
    """
    N, (OH, OW), OC = X.shape[0], window[:2], Y.shape[3]
    y, a, row_size = flat(Y), flat(argmax), OW * OC
    row_blocks = (OH + rows - 1) // rows
    for job in prange((N + images - 1) // images * row_blocks):
        n0, oh0 = job // row_blocks * images, job % row_blocks * rows
        n1, oh1 = min(N, n0 + images), min(OH, oh0 + rows)
        before = scratch((n1 - n0) * rows * row_size, X.dtype)
        origin = -(n0 * rows + oh0) * row_size
        convolve_block(X, weight, before, origin, rows * row_size, row_size, OC, bias, phases, channels, window, taps, codes, n0, n1, oh0,
                       oh1, 0, 0, channels[1])
        for n in range(n0, n1):
            for oh in range(oh0, oh1, 2):
                target = (n * OH + oh) // 2 * (OW // 2) * OC
                relu_max_row_2x2(before, (n * rows + oh) * row_size + origin, OW, OC, y, a, target)
