"""Convolution on the matrix registers, channels-last memory: of float32 as three bfloat16 each.

A tile is TALL output pixels times two vectors of output channels. What it reads of the input are registers of 16 pixels and 32 numbers
of the sum, from a panel: the rows that a job needs, in thirds. The sum goes through a list of such registers' places, `offsets`, which
is the same for all tiles of a job: blocks of channels, taps, strides and dilation are all in it.

The panel is (CB, 3, SH, SW, images, RC, Q, HALF): HALF float32 hold the DEPTH channels of a block, rows and columns of the image are
sorted by their remainders of the strides, so that those that neighbouring outputs see lie side by side. Between two rows there is no more
padding than one of them needs: pixels right of a row are those left of the next. Tiles go on from row to row and from image to image;
what they compute between two rows is dropped.

Long sums are taken in slices of the blocks: a panel holds a slice of more pixels, and a slice's filters stay in L2 for all of these. What
one slice leaves in the output the next one begins with.

`layout` = (CB, RC, Q, region, third, after): blocks of a slice, rows from image to image, outputs from row to row; numbers of a remainder,
of which `after` zeros follow its last row, and of one third of a block.

A row of the table of `phases` says where a phase's packed weight begins, how many steps its sums have, where its offsets begin, its outputs
OH and OW, and the first one's place in an output image.
"""

import numpy as np
from numba import prange

from fastconv.kernels.amx import ASKED, DEPTH, HALF, ROWS, STEP, TALL, THIRD, begin_matrices, end_matrices, matrix_tile
from fastconv.kernels.apart import apart
from fastconv.kernels.dense import part
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.scratch import scratch
from fastconv.kernels.thirds import split
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import copy, flat, load, pointer, store, zero

FEW_STEPS, FILTER_NUMBERS = 6, 1 << 17
"""See `_at_once`."""


@apart
def _split_step(step, weight, packed):
    """Step `step` of `split_filters`."""
    w, p, L = flat(weight), flat(packed), lanes(weight)
    for k in range(HALF):
        source, target = (step * DEPTH + k) * L, step * STEP + k * L
        split(p, target, THIRD, load(w, source, L), load(w, source + HALF * L, L))


@kernel
def split_filters(weight, packed):
    """Reads a weight in steps (steps, DEPTH, lanes), as conv_direct.pack writes it, writes what matrix tiles read of each, STEP numbers.

    Parallel over steps.
    """
    for step in prange(weight.shape[0]):
        _split_step(np.int64(step), weight, packed)


@device
def seen(remainder, taps, dilation, stride):
    """Whether any tap lies at this remainder of the stride."""
    for tap in range(taps):
        if tap * dilation % stride == remainder:
            return True
    return False


@apart
def _fill(panel, x, n0, n1, first, span, H, W, C, c0, channels, left, window, taps, layout):
    """`channels` channels from c0 on, of rows first .. first + span of images n0 .. n1; the panel's first column is column -left."""
    CB, RC, Q, region, third, after = layout
    _, _, SH, SW, _, _ = window
    KH, KW, DH, DW = taps
    L, whole = lanes(x), channels // DEPTH
    for n in range(n0, n1):
        for i in range(span if n + 1 == n1 else min(span, RC * SH)):
            if not seen(i % SH, KH, DH, SH):
                continue
            ih = first + i
            for remainder in range(SW):
                if not seen(remainder, KW, DW, SW):
                    continue
                p = (i % SH * SW + remainder) * region + ((n - n0) * RC + i // SH) * Q * HALF
                if i + SH >= span:
                    for k in range(3 * CB):
                        zero(panel, p + k * third + Q * HALF, after)
                if ih < 0 or ih >= H:
                    for k in range(3 * CB):
                        zero(panel, p + k * third, Q * HALF)
                    continue
                for column in range(Q):
                    iw = column * SW + remainder - left
                    source, target, inside = ((n * H + ih) * W + iw) * C + c0, p + column * HALF, 0 <= iw < W
                    for block in range(whole if inside else 0):
                        here, there = source + block * DEPTH, target + 3 * block * third
                        split(panel, there, third, load(x, here, L), load(x, here + L, L))
                    for block in range(whole if inside else 0, CB):
                        own = channels - block * DEPTH if inside else 0
                        here, there = source + block * DEPTH, target + 3 * block * third
                        split(panel, there, third, load(x, here, own), load(x, here + L, own - L))


@device
def _place(q, grid, rows, across, spread):
    """Output q of those that tiles go through: (how many from it on lie side by side, none if it is dropped, its place)."""
    Q, RC = grid
    image, row, step = spread
    line, column = q // Q, q % Q
    return across - column if line % RC < rows else 0, line // RC * image + line % RC * row + column * step


@device
def _carry(keeps, results, r, q, total, y, target, cols, grid, rows, across, spread):
    """Writes those of ROWS outputs from q on that are not dropped, from results[r] on; or reads them into these, unless it `keeps`."""
    Q, L, last = grid[0], lanes(y), min(q + ROWS, total)
    while q < last:
        side, place = _place(q, grid, rows, across, spread)
        for m in range(min(side, last - q)):
            for i in range(0, cols, L):
                there, here = target + place + m * spread[2] + i, r + m * 2 * L + i
                if keeps:
                    store(y, there, load(results, here, L), cols - i)
                else:
                    store(results, here, load(y, there, cols - i), L)
        passed = Q - q % Q  # to the next row
        r += passed * 2 * L
        q += passed


@device
def _outputs(phases, p, n0, n1, oh0, oh1, ow0, ow1, Q, RC):
    """How many outputs the tiles of phase `p` go through, those between rows with them."""
    rows, across = min(oh1, phases[p, 3]) - oh0, min(ow1, phases[p, 4]) - ow0
    return ((n1 - n0 - 1) * RC + rows - 1) * Q + across if min(rows, across) > 0 else 0


@device
def _at_once(steps):
    """Vectors of output channels that each tile of pixels is multiplied by before the next one: all whose filters stay in L2, where what a
    tile reads of the panel stays in L1, else two, whose filters all tiles read."""
    return max(2, FILTER_NUMBERS // (2 * steps * STEP) * 2) if steps <= FEW_STEPS else 2


@apart
def _convolve_job(
    X, weight, Y, bias, spread, phases, offsets, channels, window, taps, layout, n0, n1, oh0, oh1, ow0, ow1, v0, v1, ahead, numbers
):
    """Output rows oh0 .. oh1, columns ow0 .. ow1 and vectors v0 .. v1 of each group, of each phase, of images n0 .. n1; `spread` is how far
    an image, a row and a pixel of the output are from the next. `numbers` from X[ahead] on are what the next job reads."""
    _, H, W, C = X.shape
    _, _, SH, SW, PT, PL = window
    KH, _, DH, _ = taps
    groups, vectors = channels
    CB, RC, Q, _, third, _ = layout
    step = spread[2]
    x, w, y, b, L = flat(X), flat(weight), flat(Y), flat(bias), lanes(X)
    CG, OCG, grid = C // groups, b.size // groups, (Q, RC)
    blocks = (CG + DEPTH - 1) // DEPTH
    slices = (blocks + CB - 1) // CB
    memory = scratch(vectors * L + TALL * 2 * L + 3 * CB * third, x.dtype)
    starts, results, panel = pointer(memory, 0), pointer(memory, vectors * L), memory[(vectors + 2 * TALL) * L :]
    first_places = pointer(offsets, 0)
    span = (oh1 - oh0 - 1) * SH + (KH - 1) * DH + 1
    work = 0
    for p in range(len(phases)):
        work += _outputs(phases, p, n0, n1, oh0, oh1, ow0, ow1, Q, RC) // TALL * phases[p, 1]
    work = max(1, work * groups * ((v1 - v0 + 1) // 2) * ASKED)
    move = min(64, 4 * numbers // work)
    begin_matrices()
    for unit in range(groups * slices):
        group, block = unit // slices, unit % slices * CB
        own, c0 = min(CB, blocks - block), group * CG + block * DEPTH
        own_channels = min(CB * DEPTH, (group + 1) * CG - c0)
        _fill(panel, x, n0, n1, oh0 * SH - PT, span, H, W, C, c0, own_channels, PL - ow0 * SW, window, taps, layout)
        zero(starts, OCG, vectors * L - OCG)
        copy(b, group * OCG, starts, 0, OCG)
        for p in range(len(phases)):
            steps, o, vector_size = phases[p, 1] // blocks * own, phases[p, 2], phases[p, 1] * STEP
            first_filters = phases[p, 0] + phases[p, 1] // blocks * block * STEP
            rows, across = min(oh1, phases[p, 3]) - oh0, min(ow1, phases[p, 4]) - ow0
            start = n0 * spread[0] + oh0 * spread[1] + ow0 * step + phases[p, 5] + group * OCG
            total = _outputs(phases, p, n0, n1, oh0, oh1, ow0, ow1, Q, RC)
            at_once = _at_once(steps)
            for v2 in range(v0, v1, at_once):
                # the next vectors' filters, where those of a job are more than stay in L2
                filters = first_filters + (group * vectors + (v2 + 2 if v2 + 2 < v1 else v0)) * vector_size
                filters_move = 0
                if at_once == 2 and (v1 - v0) * vector_size > FILTER_NUMBERS and slices == 1:
                    filters_move = min(64, 4 * 2 * vector_size // max(1, (total // TALL) * steps * (ASKED // 2)))
                for q in range(0, total, TALL):
                    upper_side, upper_place = _place(q, grid, rows, across, spread)
                    lower_side, lower_place = _place(q + ROWS, grid, rows, across, spread)
                    lower_side = lower_side if q + ROWS < total else 0
                    for v in range(v2, min(v1, v2 + at_once), 2):
                        wide, cols, target = min(2, v1 - v), min(2 * L, OCG - v * L), start + v * L
                        upper_whole = upper_side >= ROWS and cols == wide * L
                        lower_whole = lower_side >= ROWS and cols == wide * L
                        if block > 0 and upper_whole != lower_whole:  # what both begin with lies in one array
                            upper_whole = lower_whole = False
                        begin, of_begin = pointer(starts, v * L), (0, 0)
                        if block > 0 and upper_whole:
                            begin, of_begin = pointer(y, target + upper_place), (step, lower_place - upper_place)
                        elif block > 0:
                            _carry(False, results, 0, q, total, y, target, cols, grid, rows, across, spread)
                            _carry(False, results, ROWS * 2 * L, q + ROWS, total, y, target, cols, grid, rows, across, spread)
                            begin, of_begin = results, (2 * L, ROWS * 2 * L)
                        upper = pointer(y, target + upper_place) if upper_whole else pointer(results, 0)
                        lower = pointer(y, target + lower_place) if lower_whole else pointer(results, ROWS * 2 * L)
                        rows_apart = step if upper_whole else 2 * L, step if lower_whole else 2 * L, L, 0
                        own_filters, filters_apart = first_filters + (group * vectors + v) * vector_size, (vector_size, THIRD, STEP, steps)
                        matrix_tile(wide, panel, q * HALF, (HALF, third), first_places, o,
                                    w, own_filters, filters_apart, begin, 0, of_begin, upper, 0, lower, 0, rows_apart,
                                    x, ahead, w, filters, (move, filters_move))  # fmt: skip
                        ahead += steps * ASKED * move // 4
                        filters += steps * (ASKED // 2) * filters_move // 4
                        if not upper_whole:
                            _carry(True, results, 0, q, total, y, target, cols, grid, rows, across, spread)
                        if not lower_whole:
                            _carry(True, results, ROWS * 2 * L, q + ROWS, total, y, target, cols, grid, rows, across, spread)
    end_matrices()


@kernel
def convolve(X, weight, Y, bias, phases, offsets, channels, window, taps, layout, steps, images, rows, columns, share):
    """Reads X (N, H, W, C), the packed weight of each phase, bias (OC,); writes pixels of Y (N, YH, YW, OC).

    As conv_direct.convolve. Parallel over blocks of `images` images, `rows` output rows and, in even parts, up to
    `columns` output columns, and `share` vectors of output channels, an even number.
    """
    N, (OH, OW) = X.shape[0], window[:2]
    YH, YW, OC = Y.shape[1:]
    row_blocks, column_blocks = (OH + rows - 1) // rows, (OW + columns - 1) // columns
    vectors = channels[1]
    shares = (vectors + share - 1) // share
    spread = YH * YW * OC, steps[0] * YW * OC, steps[1] * OC
    blocks = (N + images - 1) // images * row_blocks * column_blocks
    for job in prange(blocks * shares):
        block, v0 = job // shares, job % shares * share
        n0, oh0 = block // (row_blocks * column_blocks) * images, block // column_blocks % row_blocks * rows
        ow0, ow1 = part(block % column_blocks, column_blocks, OW)
        oh1 = min(OH, oh0 + rows)
        # the next job's input
        n2, oh2 = (block + 1) // (row_blocks * column_blocks) * images, (block + 1) // column_blocks % row_blocks * rows
        ow2 = part((block + 1) % column_blocks, column_blocks, OW)[0]
        ahead, numbers = 0, 0
        if job % shares == shares - 1 and block + 1 < blocks:
            ahead = ((n2 * X.shape[1] + max(0, oh2 * window[2] - window[4])) * X.shape[2] + ow2 * window[3]) * X.shape[3]
            if column_blocks == 1:
                numbers = min(images, N - n2) * rows * window[2] * X.shape[2] * X.shape[3]
            elif X.shape[1] == 1:
                numbers = (ow1 - ow0) * window[3] * X.shape[3]
        _convolve_job(X, weight, Y, bias, spread, phases, offsets, channels, window, taps, layout, n0, min(N, n0 + images), oh0,
                      oh1, ow0, ow1, v0, min(vectors, v0 + share), ahead, numbers)  # fmt: skip
