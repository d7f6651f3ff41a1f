"""Gradients of a convolution behind which ReLU and maxima of 2 x 2 lie: of four numbers of its output's gradient, three or four are 0.

`argmax` says where in its 2 x 2 outputs the gradient of a maximum belongs, 4 if nowhere. The gradients are listed, with the place that they
belong to, and a tile adds up the list. Strides and dilations are 1, OH and OW are even, `padding` = (PT, PL), `taps` = (KH, KW). A row of
the filter is one run of KW * C numbers in memory.
"""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.panel import fill_panel
from fastconv.kernels.scratch import scratch
from fastconv.kernels.tiles import tiles_picked
from fastconv.kernels.transpose import transpose
from fastconv.kernels.vector import compress, count_lanes, lanes, select, splat, within
from fastconv.kernels.vector_memory import copy, flat, load, load_unsigned, store, zero


@device
def _line_start(array):
    """Index of the first number of a flat array that starts a line of 64 bytes of the cache."""
    return (-array.ctypes.data & 63) // array.itemsize


@device
def _fill_apart(panel, p, padded, rows, columns, width, C, row):
    """What a row of the filter sees from each output column, `row` numbers each, from padded (rows, width, C) into panel[p]."""
    L = lanes(panel)
    for r in range(rows):
        for j in range(0, row, L):
            for column in range(columns):
                store(panel, p + column * row + j, load(padded, (r * width + column) * C + j, L), L)
        p += columns * row


@apart
def _weight_job(job, X, G, argmax, parts, padding, taps, images, rows, share, apart):
    """Job `job` of `backward_weight`."""
    N, H, W, C = X.shape
    _, GH, GW, OC = G.shape
    (PT, PL), (KH, KW) = padding, taps
    x, g, a, d = flat(X), flat(G), flat(argmax), flat(parts)
    L, run, (splits, _, _, row) = lanes(X), KW * C, parts.shape
    filter_size, blocks = (KH + 1) * row, (GH + rows - 1) // rows
    width, height = 2 * GW - 1 + KW, 2 * rows - 1 + KH
    step, line = (row, 2 * GW * row) if apart else (C, width * C)
    size, most = height * line, images * rows * GW * L
    panel, padded = scratch(images * size + 2 * L, X.dtype), scratch(height * width * C + L, X.dtype)
    values, picks = scratch(most, X.dtype), np.empty(most, np.int32)
    start = _line_start(panel)
    s, v0 = job % splits, job // splits * share * L
    v1 = min(OC, v0 + share * L)
    first, last = s * N * blocks // splits, (s + 1) * N * blocks // splits
    zero(d, (s * OC + v0) * filter_size, (v1 - v0) * filter_size)
    zero(padded, height * width * C, L)
    zero(panel, start + images * size, panel.size - start - images * size)
    for u0 in range(first, last, images):
        u1 = min(last, u0 + images)
        for u in range(u0, u1):
            n, gh0 = u // blocks, u % blocks * rows
            top, into = 2 * gh0 - PT, start + (u - u0) * size
            if apart:
                fill_panel(padded, 0, x, 0, n, top, height, H, W, C, 0, C, C, PL, width)
                _fill_apart(panel, into, padded, height, 2 * GW, width, C, row)
            else:
                fill_panel(panel, into, x, 0, n, top, height, H, W, C, 0, C, C, PL, width)
        for v in range(v0, v1, L):
            count, total = 0, splat(values, 0.0)
            for u in range(u0, u1):
                n, gh0 = u // blocks, u % blocks * rows
                for gh in range(gh0, min(GH, gh0 + rows)):
                    origin, o = (u - u0) * size + 2 * (gh - gh0) * line, (n * GH + gh) * GW * OC + v
                    for gw in range(GW):
                        value = load(g, o, OC - v)
                        place = load_unsigned(a, o, OC - v, value)
                        value = select(place == 4, 0.0, value)
                        right, down = (0 - (place & 1)) & step, (0 - (place >> 1 & 1)) & line  # where the bit is set, else 0
                        store(values, count * L, value, L)
                        store(picks, count * L, right + down + (origin + 2 * gw * step), L)
                        total = total + value
                        count += 1
                        o += OC
            for lane in range(min(L, OC - v)):
                target = (s * OC + v + lane) * filter_size
                tiles_picked(KH, run, values, lane, picks, lane, L, count, panel, start, line, d, target, row)
            store(values, 0, total, L)
            for lane in range(min(L, OC - v)):
                d[(s * OC + v + lane) * filter_size + KH * row] += values[lane]


@apart
def _unpack(oc, parts, grad_weight, grad_bias):
    """The gradients of output channel `oc`: sums of its `parts`, transposed."""
    splits, OC, _, row = parts.shape
    _, C, KH, KW = grad_weight.shape
    p, d, size, L = flat(parts), flat(grad_weight), (KH + 1) * row, lanes(parts)
    total = scratch(size, parts.dtype)
    for i in range(0, size, L):
        column = load(p, oc * size + i, L)
        for s in range(1, splits):
            column = column + load(p, (s * OC + oc) * size + i, L)
        store(total, i, column, L)
    grad_bias[oc] = total[KH * row]
    filters = scratch(KH * KW * C, parts.dtype)  # (tap, channel)
    for kh in range(KH):
        copy(total, kh * row, filters, kh * KW * C, KW * C)
    for tap in range(0, KH * KW, L):
        taps = min(L, KH * KW - tap)
        for c in range(0, C, L):
            transpose(filters, tap * C + c, C, taps, min(L, C - c), d, (oc * C + c) * KH * KW + tap, KH * KW, taps)


@kernel
def backward_weight(X, G, argmax, parts, grad_weight, grad_bias, padding, taps, images, rows, share, apart):
    """Reads X (N, H, W, C), G and argmax (N, OH / 2, OW / 2, OC); writes grad_weight (OC, C, KH, KW) and grad_bias (OC,).

    They are sums of parts (splits, OC, KH + 1, R), where the rows of an output channel's filter fill vectors, R numbers each; the one
    after the last starts with the gradient of the bias. With `apart` the panel has a row of the filter's numbers for each column of the
    output, so that none lies across two lines of the cache. Parallel over splits of the images' blocks of `rows` rows of G, of which
    `images` make one list, and `share` vectors of output channels; then over output channels.
    """
    L, OC = lanes(X), G.shape[3]
    for job in prange(parts.shape[0] * ((OC + share * L - 1) // (share * L))):
        _weight_job(np.int64(job), X, G, argmax, parts, padding, taps, images, rows, share, apart)  # prange's uint64 would compile it again
    for oc in prange(OC):
        _unpack(np.int64(oc), parts, grad_weight, grad_bias)


@apart
def _pack(oc, weight, packed):
    """Filters of output channel `oc`, between two rows of 0."""
    _, C, KH, KW = weight.shape
    w, p, L = flat(weight), flat(packed), lanes(weight)
    row, run = packed.shape[2], KW * C
    filters = scratch(KH * run, weight.dtype)  # (tap, channel)
    for c in range(0, C, L):
        channels = min(L, C - c)
        for tap in range(0, KH * KW, L):
            source = (oc * C + c) * KH * KW + tap
            transpose(w, source, KH * KW, channels, min(L, KH * KW - tap), filters, tap * C + c, C, channels)
    target = oc * (KH + 2) * row
    zero(p, target, (KH + 2) * row)
    for kh in range(KH):
        copy(filters, kh * run, p, target + (kh + 1) * row, run)


@apart
def _input_job(job, G, argmax, weight, D, padding, taps, images, rows):
    """Job `job` of `backward_input`."""
    N, GH, GW, OC = G.shape
    _, H, W, C = D.shape
    (PT, PL), (KH, KW) = padding, taps
    g, a, w, d = flat(G), flat(argmax), flat(weight), flat(D)
    L, run, row = lanes(G), KW * C, weight.shape[2]
    blocks, filter_size = (GH + rows - 1) // rows, (KH + 2) * row
    n0, block = job // blocks * images, job % blocks
    # rows of the padded image that are its own; a filter and more may lie below the image
    top, bottom = 2 * block * rows, H + PT if block == blocks - 1 else min(H + PT, 2 * (block + 1) * rows)
    if bottom <= top:
        return
    first, last = max(0, (top - KH + 1) // 2), min(GH, (bottom + 1) // 2)  # rows of G that send something there
    width, height = 2 * GW - 1 + KW, 2 * (last - first) - 1 + KH
    line = width * C
    panel = scratch(height * line + L, d.dtype)
    middle = OC + L  # where the list of the right begins: whole vectors are written
    values, picks, filters = scratch(2 * middle, d.dtype), np.empty(2 * middle, np.int32), np.empty(middle, np.int32)
    for oc in range(middle):
        filters[oc] = oc * filter_size + row  # after a row of 0; lower outputs begin with that
    for n in range(n0, min(N, n0 + images)):
        zero(panel, 0, panel.size)
        for gh in range(first, last):
            for gw in range(GW):
                o, left, right = ((n * GH + gh) * GW + gw) * OC, 0, middle
                for v in range(0, OC, L):
                    value = load(g, o + v, OC - v)
                    place = load_unsigned(a, o + v, OC - v, value)
                    pick = load_unsigned(filters, v, L, value) - ((0 - (place >> 1 & 1)) & row)  # one row before for lower outputs, 2 and 3
                    to_left = within(value, OC - v) & ((place & 5) == 0)
                    to_right = (place & 5) == 1
                    store(values, left, compress(value, to_left), L)
                    store(picks, left, compress(pick, to_left), L)
                    store(values, right, compress(value, to_right), L)
                    store(picks, right, compress(pick, to_right), L)
                    left += count_lanes(to_left)
                    right += count_lanes(to_right)
                target = 2 * ((gh - first) * line + gw * C)
                tiles_picked(KH + 1, run, values, 0, picks, 0, 1, left, w, 0, row, panel, target, line)
                tiles_picked(KH + 1, run, values, middle, picks, middle, 1, right - middle, w, 0, row, panel, target + C, line)
        for ih in range(max(0, top - PT), bottom - PT):
            source, target = ih + PT - 2 * first, (n * H + ih) * W * C
            inside = max(0, min(W, width - PL)) * C if source < height else 0  # beyond the panel no window sees anything
            copy(panel, (source * width + PL) * C, d, target, inside)
            zero(d, target + inside, W * C - inside)


@kernel
def backward_input(G, argmax, weight, packed, D, padding, taps, images, rows):
    """Reads G and argmax (N, OH / 2, OW / 2, OC), weight (OC, C, KH, KW); writes D (N, H, W, C), and packed (OC, KH + 2, R) before.

    Two lists for each pixel of G: the gradients that belong to the left and to the right of its outputs. Parallel over blocks of `images`
    images and of `rows` rows of G, each of which computes what its neighbours' last rows send into its own once more.
    """
    for oc in range(weight.shape[0]):
        _pack(oc, weight, packed)
    for job in prange((G.shape[0] + images - 1) // images * ((G.shape[1] + rows - 1) // rows)):
        _input_job(np.int64(job), G, argmax, packed, D, padding, taps, images, rows)
