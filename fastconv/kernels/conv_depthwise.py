"""Depthwise convolution, one filter a channel: channels are the vector. Arrays (N, H, W, C), weights (KH, KW, C).

Rows of taps outside the image are left out of the sum. Filters three wide, nearly all there are, take four pixels at a time and all
channels of these before the next: memory is read in order, and once; pixels at the left and right border, where some columns are missing,
and those of narrow images are computed one by one. Where channels fill no whole vectors, the last one overlaps the one before, and
computes some numbers again. Other filters, for which borders are wide, take one vector of channels at a time,
copied into a panel whose borders are real, and tiles of up to a row of pixels. The input gradient of filters three wide that move by two
takes all channels of four neighbouring pixels. `window` and `taps` as in conv_direct.
"""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.panel import clip
from fastconv.kernels.prefetch import prefetch_four
from fastconv.kernels.processor import LATE_MEMORY, VECTOR_BYTES
from fastconv.kernels.scratch import scratch
from fastconv.kernels.simd import itemsize
from fastconv.kernels.tiles import tiles_elementwise
from fastconv.kernels.vector import fma, lanes, splat
from fastconv.kernels.vector_memory import flat, load, store, zero

HALF_LINES = VECTOR_BYTES == 32
"""Whether four pixels take two vectors at a time: else pixels that lie in the same set of the cache fetch each line twice."""

FAR = 1 << (12 if VECTOR_BYTES == 64 else 11)
"""Bytes from one pixel to the next from which on it is no use to ask for others: they push each other out of the first cache."""

FAR_INPUT = 1 << 10 if LATE_MEMORY else 2 * FAR
"""Bytes from one window to the next from which on no input is asked for: where memory comes late, it had better come in order."""


@device(forceinline=True)
def add_row_to_four(x, a, pixel, tap, w, b, C, own, s0, s1, s2, s3):
    """Four sums plus what three taps of a row see, the first from x[a] on, with the filters at w[b]."""
    w0, w1, w2 = load(w, b, own), load(w, b + C, own), load(w, b + 2 * C, own)
    s0 = fma(load(x, a + 2 * tap, own), w2, fma(load(x, a + tap, own), w1, fma(load(x, a, own), w0, s0)))
    a += pixel
    s1 = fma(load(x, a + 2 * tap, own), w2, fma(load(x, a + tap, own), w1, fma(load(x, a, own), w0, s1)))
    a += pixel
    s2 = fma(load(x, a + 2 * tap, own), w2, fma(load(x, a + tap, own), w1, fma(load(x, a, own), w0, s2)))
    a += pixel
    s3 = fma(load(x, a + 2 * tap, own), w2, fma(load(x, a + tap, own), w1, fma(load(x, a, own), w0, s3)))
    return s0, s1, s2, s3


@device(forceinline=True)
def four_pixels(x, i, row, pixel, tap, w, j, step, rows, C, bias, c, y, o, y_pixel, own):
    """Four outputs from y[o] on, `y_pixel` apart: bias[c] and what windows of `rows` x 3 taps see from x[i] on, `pixel` apart."""
    s0 = s1 = s2 = s3 = load(bias, c, own)
    for kh in range(rows):
        s0, s1, s2, s3 = add_row_to_four(x, i + kh * row, pixel, tap, w, j + kh * step, C, own, s0, s1, s2, s3)
    store(y, o, s0, own)
    store(y, o + y_pixel, s1, own)
    store(y, o + 2 * y_pixel, s2, own)
    store(y, o + 3 * y_pixel, s3, own)


@device(forceinline=True)
def four_pixels_of_line(x, i, row, pixel, tap, w, j, step, rows, C, bias, c, y, o, y_pixel, own):
    """`four_pixels` of two whole vectors, `own` numbers each."""
    s0 = s1 = s2 = s3 = load(bias, c, own)
    r0 = r1 = r2 = r3 = load(bias, c + own, own)
    for kh in range(rows):
        a, b = i + kh * row, j + kh * step
        s0, s1, s2, s3 = add_row_to_four(x, a, pixel, tap, w, b, C, own, s0, s1, s2, s3)
        r0, r1, r2, r3 = add_row_to_four(x, a + own, pixel, tap, w, b + own, C, own, r0, r1, r2, r3)
    store(y, o, s0, own)
    store(y, o + own, r0, own)
    store(y, o + y_pixel, s1, own)
    store(y, o + y_pixel + own, r1, own)
    store(y, o + 2 * y_pixel, s2, own)
    store(y, o + 2 * y_pixel + own, r2, own)
    store(y, o + 3 * y_pixel, s3, own)
    store(y, o + 3 * y_pixel + own, r3, own)


@device(forceinline=True)
def prefetch_eight_of_two_rows(x, i, row, C):
    """Ask for what four windows that move by two see of the next two rows."""
    for pixels in range(0, 8 * C, 4 * C):
        prefetch_four(x, i + pixels, C)
        prefetch_four(x, i + row + pixels, C)


@device(forceinline=True)
def prefetch_below(x, i, row, pixel, C):
    """Ask for what four windows see of the row or, where they move by two, the two rows that come next; for nothing where `row` is 0."""
    if row > 0:
        if pixel == C:
            prefetch_four(x, i, C)
        else:
            prefetch_eight_of_two_rows(x, i, row, C)


@device(forceinline=True)
def four_in_order(x, i, row, pixel, tap, w, j, step, rows, C, bias, y, o, y_pixel, below, beside):
    """`four_pixels` of all channels, two vectors at a time where HALF_LINES, which ask for inputs and outputs that come next."""
    L = lanes(x)
    last, lines = C - L, C - C % (2 * L) if HALF_LINES else 0
    for c in range(0, lines, 2 * L):
        prefetch_below(x, i + 3 * below + c, below, pixel, C)
        prefetch_four(y, o + beside + c, y_pixel)
        four_pixels_of_line(x, i + c, row, pixel, tap, w, j + c, step, rows, C, bias, c, y, o + c, y_pixel, L)
    for k in range(lines, C, L):
        c = min(k, last)
        prefetch_below(x, i + 3 * below + c, below, pixel, C)
        prefetch_four(y, o + beside + c, y_pixel)
        four_pixels(x, i + c, row, pixel, tap, w, j + c, step, rows, C, bias, c, y, o + c, y_pixel, L)


@device
def four_of_all(x, i, row, pixel, tap, w, j, step, rows, C, bias, y, o, y_pixel):
    """`four_pixels` of all channels. With constants for what is nearly always the same, LLVM loads what two windows see once."""
    L = lanes(x)
    if C < L:
        four_pixels(x, i, row, pixel, tap, w, j, step, rows, C, bias, 0, y, o, y_pixel, C)
        return
    near = C * itemsize(x) < FAR
    below, beside = row if near and pixel * itemsize(x) < FAR_INPUT else 0, 4 * y_pixel if near else 0
    if rows == 3 and tap == C and step == 3 * C and pixel == C:
        four_in_order(x, i, row, C, C, w, j, 3 * C, 3, C, bias, y, o, y_pixel, below, beside)
    elif rows == 3 and tap == C and step == 3 * C and pixel == 2 * C:
        four_in_order(x, i, row, 2 * C, C, w, j, 3 * C, 3, C, bias, y, o, y_pixel, below, beside)
    elif rows == 2 and tap == C and step == 3 * C and pixel == C:
        four_in_order(x, i, row, C, C, w, j, 3 * C, 2, C, bias, y, o, y_pixel, 0, beside)
    else:
        for k in range(0, C, L):
            c = min(k, C - L)
            four_pixels(x, i + c, row, pixel, tap, w, j + c, step, rows, C, bias, c, y, o + c, y_pixel, L)


@device(forceinline=True)
def one_pixel(x, i, row, tap, w, j, step, rows, columns, C, bias, y, o, own):
    """One output, whose window of `rows` x `columns` taps starts at x[i], with the filters at w[j]."""
    total = bias
    for kh in range(rows):
        for kw in range(columns):
            total = fma(load(x, i + kh * row + kw * tap, own), load(w, j + kh * step + kw * C, own), total)
    store(y, o, total, own)


@device(forceinline=True)
def one_in_order(x, i, row, tap, w, j, step, rows, columns, C, bias, y, o):
    """`one_pixel` of all channels, vector after vector."""
    L = lanes(x)
    for k in range(0, C, L):
        c = min(k, C - L)
        one_pixel(x, i + c, row, tap, w, j + c, step, rows, columns, C, load(bias, c, L), y, o + c, L)


@device
def one_pixel_of_all(x, i, row, tap, w, j, step, rows, columns, C, bias, y, o):
    """`one_pixel` of all channels, with constants as in `four_of_all`: a border hides no more than a row and a column of three.

    With a loop over the rows images of 4 x 4 pixels take 40 % longer.
    """
    if C < lanes(x):
        one_pixel(x, i, row, tap, w, j, step, rows, columns, C, load(bias, 0, C), y, o, C)
    elif rows == 3 and columns == 3 and tap == C and step == 3 * C:
        one_in_order(x, i, row, C, w, j, 3 * C, 3, 3, C, bias, y, o)
    elif rows == 2 and columns == 3 and tap == C and step == 3 * C:
        one_in_order(x, i, row, C, w, j, 3 * C, 2, 3, C, bias, y, o)
    elif rows == 3 and columns == 2 and tap == C and step == 3 * C:
        one_in_order(x, i, row, C, w, j, 3 * C, 3, 2, C, bias, y, o)
    elif rows == 2 and columns == 2 and tap == C and step == 3 * C:
        one_in_order(x, i, row, C, w, j, 3 * C, 2, 2, C, bias, y, o)
    else:
        one_in_order(x, i, row, tap, w, j, step, rows, columns, C, bias, y, o)


@apart
def _row(job, X, weight, Y, bias, window, taps, place):
    """Row `job` of `convolve_by_four`."""
    N, H, W, C = X.shape
    YH, YW = Y.shape[1:3]
    OH, OW, SH, SW, PT, PL = window
    KH, KW, DH, DW = taps
    YSH, YSW, Y0, Y1 = place
    x, w, y, b = flat(X), flat(weight), flat(Y), flat(bias)
    inner0 = (PL + SW - 1) // SW if PL > 0 else 0  # the pixels inner0 .. inner1 see all columns of the filter
    inner1 = clip((KW - 1) * DW - PL, SW, OW, W)[1]
    if inner1 - inner0 < 4:
        inner1 = inner0
    n, oh = job // OH, job % OH
    top = oh * SH - PT
    low, high = clip(top, DH, KH, H)
    source = (n * H + top + low * DH) * W * C
    target = ((n * YH + oh * YSH + Y0) * YW + Y1) * C
    for ow in range(OW):
        if inner0 <= ow < inner1:
            if (ow - inner0) % 4 == 0:
                first = min(ow, inner1 - 4)  # the last four may overlap those before
                four_of_all(x, source + (first * SW - PL) * C, DH * W * C, SW * C, DW * C, w, low * KW * C, KW * C, high - low, C,
                            b, y, target + first * YSW * C, YSW * C)
        else:
            left, right = clip(ow * SW - PL, DW, KW, W)
            one_pixel_of_all(x, source + (ow * SW - PL + left * DW) * C, DH * W * C, DW * C, w, (low * KW + left) * C, KW * C,
                             high - low, right - left, C, b, y, target + ow * YSW * C)


@kernel
def convolve_by_four(X, weight, Y, bias, window, taps, place):
    """Reads X (N, H, W, C), weight (KH, 3, C), bias (C,); writes pixels of Y (N, YH, YW, C). Parallel over images and output rows.

    As conv_images.convolve, for one channel at a time. Pixels go one by one where fewer than four of a row see all columns of the filter.
    """
    for job in prange(X.shape[0] * window[0]):
        _row(np.int64(job), X, weight, Y, bias, window, taps, place)


@apart
def _vector(job, X, weight, Y, bias, window, taps, place, rows):
    """Job `job` of `convolve`."""
    N, H, W, C = X.shape
    YH, YW = Y.shape[1:3]
    OH, OW, SH, SW, PT, PL = window
    KH, KW, DH, DW = taps
    YSH, YSW, Y0, Y1 = place
    x, w, y, b, L = flat(X), flat(weight), flat(Y), flat(bias), lanes(X)
    blocks, vectors, width = (OH + rows - 1) // rows, (C + L - 1) // L, (OW - 1) * SW + (KW - 1) * DW + 1
    n, oh0, c = job // (blocks * vectors), job // vectors % blocks * rows, job % vectors * L
    own, oh1 = min(L, C - c), min(OH, oh0 + rows)
    ih0 = min(H, max(0, oh0 * SH - PT))
    ih1 = max(ih0, min(H, (oh1 - 1) * SH + (KH - 1) * DH - PT + 1))
    panel, filters = scratch((ih1 - ih0) * width * L, X.dtype), scratch(KH * KW * L, X.dtype)
    left, right = clip(-PL, 1, width, W)
    for ih in range(ih0, ih1):
        p, i = (ih - ih0) * width * L, ((n * H + ih) * W - PL) * C + c
        zero(panel, p, left * L)
        zero(panel, p + right * L, (width - right) * L)
        if own == L:
            for column in range(left, right):
                store(panel, p + column * L, load(x, i + column * C, L), L)
        else:
            for column in range(left, right):
                store(panel, p + column * L, load(x, i + column * C, own), L)
    for tap in range(KH * KW):
        store(filters, tap * L, load(w, tap * C + c, own), L)
    for oh in range(oh0, oh1):
        top = oh * SH - PT
        low, high = clip(top, DH, KH, H)
        over = (high - low, DH * width * L, KW * L, KW, DW * L, L)
        tiles_elementwise(OW, panel, (top + low * DH - ih0) * width * L, SW * L, filters, low * KW * L,
                          y, ((n * YH + oh * YSH + Y0) * YW + Y1) * C + c, YSW * C, own, b, c, 0, over)


@kernel
def convolve(X, weight, Y, bias, window, taps, place, rows):
    """As `convolve_by_four`, for any filter. A job takes one vector of channels of `rows` output rows."""
    C, L = X.shape[3], lanes(X)
    for job in prange(X.shape[0] * ((window[0] + rows - 1) // rows) * ((C + L - 1) // L)):
        _vector(np.int64(job), X, weight, Y, bias, window, taps, place, rows)


@device(forceinline=True)
def four_inputs(g, i, row, w, j, step, rows, C, d, o, own):
    """Four neighbouring inputs from d[o] on: g[i] sees the first with the left tap of three, the gradient before it with the right one."""
    nothing = splat(g, 0.0)
    d0, d1, d2, d3 = nothing, nothing, nothing, nothing
    for r in range(rows):
        a, b = i + r * row, j + r * step
        before, here, after = load(g, a - C, own), load(g, a, own), load(g, a + C, own)
        left, middle, right = load(w, b, own), load(w, b + C, own), load(w, b + 2 * C, own)
        d0, d1 = fma(here, left, fma(before, right, d0)), fma(here, middle, d1)
        d2, d3 = fma(after, left, fma(here, right, d2)), fma(after, middle, d3)
    store(d, o, d0, own)
    store(d, o + C, d1, own)
    store(d, o + 2 * C, d2, own)
    store(d, o + 3 * C, d3, own)


@device(forceinline=True)
def four_inputs_in_order(g, i, row, w, j, step, rows, C, d, o):
    """`four_inputs` of all channels, vector after vector."""
    L = lanes(g)
    for k in range(0, C, L):
        c = min(k, C - L)
        prefetch_four(d, o + 4 * C + c, C)
        four_inputs(g, i + c, row, w, j + c, step, rows, C, d, o + c, L)


@device
def four_inputs_of_all(g, i, row, w, j, step, rows, C, d, o):
    """`four_inputs` of all channels, of one row or two without a loop."""
    if C < lanes(g):
        four_inputs(g, i, row, w, j, step, rows, C, d, o, C)
    elif rows == 1:
        four_inputs_in_order(g, i, row, w, j, step, 1, C, d, o)
    elif rows == 2:
        four_inputs_in_order(g, i, row, w, j, step, 2, C, d, o)
    else:
        four_inputs_in_order(g, i, row, w, j, step, rows, C, d, o)


@device
def one_input_of_all(g, i, row, w, j, step, rows, C, position, GW, d, o):
    """One input of all channels, where some of the gradients that see it may be missing; `position` is its column in the padded image."""
    for c in range(0, C, lanes(g)):
        total, own = splat(g, 0.0), C - c
        for kw in range(3):
            ow = (position - kw) // 2
            if (position - kw) % 2 == 0 and 0 <= ow < GW:
                for r in range(rows):
                    total = fma(load(g, i + r * row + ow * C + c, own), load(w, j + r * step + kw * C + c, own), total)
        store(d, o + c, total, own)


@apart
def _input_row(job, G, weight, D, window, taps):
    """Row `job` of `backward_input_by_two`."""
    _, GH, GW, C = G.shape
    _, H, W, _ = D.shape
    SH, PT, PL = window
    KH, DH, step = taps
    g, w, d = flat(G), flat(weight), flat(D)
    n, target = job // H, job * W * C
    position, kh = job % H + PT, 0
    while kh < min(step, KH) and (position - kh * DH) % SH != 0:
        kh += 1
    oh, rows, down = (position - kh * DH) // SH, 0, step * DH // SH
    if kh < min(step, KH):  # taps kh, kh + step, ... send what rows oh, oh - down, ... of the gradient hold
        low = max(0, (oh - GH + down) // down)
        rows = max(0, min((KH - kh + step - 1) // step, oh // down + 1) - low)
        oh, kh = oh - low * down, kh + low * step
    source, row, j = (n * GH + oh) * GW * C, -down * GW * C, kh * 3 * C
    inner0, inner1 = max(1, (PL + 1) // 2), min(GW, (W + PL) // 2)  # gradients of which two inputs are seen, and those before them exist
    if inner1 - inner0 < 2:
        inner1 = inner0
    for ow in range(inner0, inner1, 2):
        first = min(ow, inner1 - 2)  # the last two may overlap those before
        four_inputs_of_all(g, source + first * C, row, w, j, step * 3 * C, rows, C, d, target + (2 * first - PL) * C)
    for iw in range(W):
        if not 2 * inner0 <= iw + PL < 2 * inner1:
            one_input_of_all(g, source, row, w, j, step * 3 * C, rows, C, iw + PL, GW, d, target + iw * C)


@kernel
def backward_input_by_two(G, weight, D, window, taps):
    """Input gradient of a filter three wide whose columns move by 2.

    Reads the output's gradient G (N, GH, GW, C) and weight (KH, 3, C), writes D (N, H, W, C). `window` = (SH, PT, PL), `taps` = (KH, DH,
    step), `step` the taps from one that a row of D sees to the next. Parallel over images and rows.
    """
    for job in prange(D.shape[0] * D.shape[1]):
        _input_row(np.int64(job), G, weight, D, window, taps)
