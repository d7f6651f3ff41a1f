"""The weight gradient of depthwise convolution; see conv_depthwise.

Filters three wide are summed over the pixels of a row that see all columns, all channels of a few pixels at a time: four pixels with all
rows that they see; where channels are FEW long vectors, all nine taps of a run of pixels; or, where pixels lie FAR from each other, three
taps of a run of pixels: of 1,024 channels of 7 x 7 four pixels take twice as long. What remains, and the border, where columns are missing,
is added pixel by pixel. Of other filters a row is summed over the pixels that see all of it.
"""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.conv_depthwise import FAR, prefetch_eight_of_two_rows
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.panel import clip
from fastconv.kernels.prefetch import prefetch_four
from fastconv.kernels.processor import VECTOR_BYTES
from fastconv.kernels.simd import itemsize
from fastconv.kernels.tiles import tiles_elementwise
from fastconv.kernels.vector import fma, lanes
from fastconv.kernels.vector_memory import flat, load, opaque, store, zero


@device(forceinline=True)
def add_three_taps(x, i, pixel, tap, g, o, pixels, C, d, target, own, right):
    """d[target], and at the next two taps of the filter, += sums over `pixels` of x times g, of vectors of `own` and `right` channels."""
    L = lanes(x)
    s0, s1, s2 = load(d, target, own), load(d, target + C, own), load(d, target + 2 * C, own)
    r0, r1, r2 = load(d, target + L, right), load(d, target + C + L, right), load(d, target + 2 * C + L, right)
    for k in range(pixels):
        a, b = i + k * pixel, o + k * C
        gradient, second = load(g, b, own), load(g, b + L, right)
        s0, r0 = fma(load(x, a, own), gradient, s0), fma(load(x, a + L, right), second, r0)
        s1, r1 = fma(load(x, a + tap, own), gradient, s1), fma(load(x, a + tap + L, right), second, r1)
        s2, r2 = fma(load(x, a + 2 * tap, own), gradient, s2), fma(load(x, a + 2 * tap + L, right), second, r2)
    store(d, target, s0, own)
    store(d, target + C, s1, own)
    store(d, target + 2 * C, s2, own)
    store(d, target + L, r0, right)
    store(d, target + C + L, r1, right)
    store(d, target + 2 * C + L, r2, right)


@device
def add_three_taps_of_all(x, i, pixel, tap, g, o, pixels, C, d, target):
    """`add_three_taps` of all channels."""
    L = lanes(x)
    whole = C - C % (2 * L)
    for c in range(0, whole, 2 * L):
        add_three_taps(x, i + c, pixel, tap, g, o + c, pixels, C, d, target + c, L, L)
    if whole < C:
        add_three_taps(x, i + whole, pixel, tap, g, o + whole, pixels, C, d, target + whole, C - whole, C - whole - L)


@device(forceinline=True)
def add_four_pixels(x, i, row, pixel, tap, g, o, rows, C, d, target, own):
    """d[target] and the other taps of `rows` x 3 += the sums over four pixels of x times g; the windows start at x[i], `pixel` apart."""
    g0, g1, g2, g3 = load(g, o, own), load(g, o + C, own), load(g, o + 2 * C, own), load(g, o + 3 * C, own)
    for kh in range(rows):
        a, b = opaque(i + kh * row), target + kh * 3 * C
        s0, s1, s2 = load(d, b, own), load(d, b + C, own), load(d, b + 2 * C, own)
        s0, s1, s2 = fma(load(x, a, own), g0, s0), fma(load(x, a + tap, own), g0, s1), fma(load(x, a + 2 * tap, own), g0, s2)
        a += pixel
        s0, s1, s2 = fma(load(x, a, own), g1, s0), fma(load(x, a + tap, own), g1, s1), fma(load(x, a + 2 * tap, own), g1, s2)
        a += pixel
        s0, s1, s2 = fma(load(x, a, own), g2, s0), fma(load(x, a + tap, own), g2, s1), fma(load(x, a + 2 * tap, own), g2, s2)
        a += pixel
        s0, s1, s2 = fma(load(x, a, own), g3, s0), fma(load(x, a + tap, own), g3, s1), fma(load(x, a + 2 * tap, own), g3, s2)
        store(d, b, s0, own)
        store(d, b + C, s1, own)
        store(d, b + 2 * C, s2, own)


@device(forceinline=True)
def add_four_neighbours(x, i, row, g, o, rows, C, d, target, own):
    """As `add_four_pixels` where windows move by one: what several of them see is loaded once."""
    g0, g1, g2, g3 = load(g, o, own), load(g, o + C, own), load(g, o + 2 * C, own), load(g, o + 3 * C, own)
    for kh in range(rows):
        a, b = opaque(i + kh * row), target + kh * 3 * C
        x0, x1, x2 = load(x, a, own), load(x, a + C, own), load(x, a + 2 * C, own)
        s0, s1, s2 = fma(x0, g0, load(d, b, own)), fma(x1, g0, load(d, b + C, own)), fma(x2, g0, load(d, b + 2 * C, own))
        x3, x4, x5 = load(x, a + 3 * C, own), load(x, a + 4 * C, own), load(x, a + 5 * C, own)
        s0, s1, s2 = fma(x1, g1, s0), fma(x2, g1, s1), fma(x3, g1, s2)
        s0, s1, s2 = fma(x2, g2, s0), fma(x3, g2, s1), fma(x4, g2, s2)
        store(d, b, fma(x3, g3, s0), own)
        store(d, b + C, fma(x4, g3, s1), own)
        store(d, b + 2 * C, fma(x5, g3, s2), own)


@device
def add_four_of_all(x, i, row, pixel, tap, g, o, rows, C, d, target):
    """`add_four_pixels` of all channels."""
    L = lanes(x)
    whole = C - C % L
    if tap == C and pixel == C:
        for c in range(0, whole, L):
            prefetch_four(x, i + rows * row + c, C)
            prefetch_four(g, o + 4 * C + c, C)
            add_four_neighbours(x, i + c, row, g, o + c, rows, C, d, target + c, L)
    elif tap == C and pixel == 2 * C:
        for c in range(0, whole, L):
            prefetch_eight_of_two_rows(x, i + rows * row + c, row, C)
            prefetch_four(g, o + 4 * C + c, C)
            add_four_pixels(x, i + c, row, 2 * C, C, g, o + c, rows, C, d, target + c, L)
    else:
        for c in range(0, whole, L):
            add_four_pixels(x, i + c, row, pixel, tap, g, o + c, rows, C, d, target + c, L)
    if whole < C:
        add_four_pixels(x, i + whole, row, pixel, tap, g, o + whole, rows, C, d, target + whole, C - whole)


@device(forceinline=True)
def add_pixel(x, i, row, tap, g, o, rows, columns, C, d, target, own):
    """d[target] and the other taps of `rows` x `columns` += the products of one pixel, whose window starts at x[i]."""
    gradient = load(g, o, own)
    for kh in range(rows):
        a, b = opaque(i + kh * row), target + kh * 3 * C
        for kw in range(columns):
            store(d, b + kw * C, fma(load(x, a + kw * tap, own), gradient, load(d, b + kw * C, own)), own)


@device
def add_pixel_of_all(x, i, row, tap, g, o, rows, columns, C, d, target):
    """`add_pixel` of all channels, without a loop where a border hides no more than a column of three."""
    L = lanes(x)
    whole = C - C % L
    if columns == 3:
        for c in range(0, whole, L):
            add_pixel(x, i + c, row, tap, g, o + c, rows, 3, C, d, target + c, L)
    elif columns == 2:
        for c in range(0, whole, L):
            add_pixel(x, i + c, row, tap, g, o + c, rows, 2, C, d, target + c, L)
    else:
        for c in range(0, whole, L):
            add_pixel(x, i + c, row, tap, g, o + c, rows, columns, C, d, target + c, L)
    if whole < C:
        add_pixel(x, i + whole, row, tap, g, o + whole, rows, columns, C, d, target + whole, C - whole)


@device(forceinline=True)
def load_three(d, i, step, own):
    return load(d, i, own), load(d, i + step, own), load(d, i + 2 * step, own)


@device(forceinline=True)
def store_three(values, d, i, step, own):
    store(d, i, values[0], own)
    store(d, i + step, values[1], own)
    store(d, i + 2 * step, values[2], own)


@device(forceinline=True)
def three_taps(x, i, tap, gradient, sums, own):
    """Sums of three taps side by side, with the products of one more pixel."""
    i = opaque(i)
    return (fma(load(x, i, own), gradient, sums[0]), fma(load(x, i + tap, own), gradient, sums[1]),
            fma(load(x, i + 2 * tap, own), gradient, sums[2]))


@device(forceinline=True)
def last_two_taps(x, i, tap, gradient, sums, own):
    return sums[0], fma(load(x, i + tap, own), gradient, sums[1]), fma(load(x, i + 2 * tap, own), gradient, sums[2])


@device(forceinline=True)
def first_two_taps(x, i, tap, gradient, sums, own):
    return fma(load(x, i, own), gradient, sums[0]), fma(load(x, i + tap, own), gradient, sums[1]), sums[2]


@device(forceinline=True)
def add_nine_taps(x, i, row, pixel, tap, g, o, pixels, before, after, C, d, target, own):
    """d[target], and the other taps of a filter of 3 x 3, += sums over `pixels` of x times g. With `before` the pixel to the left counts
    too, but for the left taps, which see the border, with `after` the one to the right."""
    upper, middle, lower = load_three(d, target, C, own), load_three(d, target + 3 * C, C, own), load_three(d, target + 6 * C, C, own)
    if before:
        gradient, a = load(g, o - C, own), i - pixel
        upper, middle = last_two_taps(x, a, tap, gradient, upper, own), last_two_taps(x, a + row, tap, gradient, middle, own)
        lower = last_two_taps(x, a + 2 * row, tap, gradient, lower, own)
    for k in range(pixels):
        gradient, a = load(g, o + k * C, own), i + k * pixel
        upper, middle = three_taps(x, a, tap, gradient, upper, own), three_taps(x, a + row, tap, gradient, middle, own)
        lower = three_taps(x, a + 2 * row, tap, gradient, lower, own)
    if after:
        gradient, a = load(g, o + pixels * C, own), i + pixels * pixel
        upper, middle = first_two_taps(x, a, tap, gradient, upper, own), first_two_taps(x, a + row, tap, gradient, middle, own)
        lower = first_two_taps(x, a + 2 * row, tap, gradient, lower, own)
    store_three(upper, d, target, C, own)
    store_three(middle, d, target + 3 * C, C, own)
    store_three(lower, d, target + 6 * C, C, own)


@device
def add_nine_taps_of_all(x, i, row, pixel, tap, g, o, pixels, before, after, C, d, target):
    """`add_nine_taps` of all channels."""
    L = lanes(x)
    whole = C - C % L
    for c in range(0, whole, L):
        add_nine_taps(x, i + c, row, pixel, tap, g, o + c, pixels, before, after, C, d, target + c, L)
    if whole < C:
        add_nine_taps(x, i + whole, row, pixel, tap, g, o + whole, pixels, before, after, C, d, target + whole, C - whole)


@device
def add_products(x, i, g, o, C, d, target):
    """d[target] += x times g, of the channels of one pixel."""
    L = lanes(x)
    whole = C - C % L
    for c in range(0, whole, L):
        store(d, target + c, fma(load(x, i + c, L), load(g, o + c, L), load(d, target + c, L)), L)
    if whole < C:
        own = C - whole
        store(d, target + whole, fma(load(x, i + whole, own), load(g, o + whole, own), load(d, target + whole, own)), own)


FEW = 128 if VECTOR_BYTES == 64 else 0
"""Bytes of a pixel up to which all taps of a filter of 3 x 3 are summed up together: 16 channels take a quarter less time than four pixels
at a time, 32 as long, 128 a quarter more."""

PIXELS, NUMBERS = 8, 1024
"""So many pixels are added up before the next three taps, or pixels of so many numbers in all before the next nine: memory is read nearly
in order."""


@apart
def _split(s, X, G, parts, window, taps):
    """Split `s` of `backward_weight`."""
    N, H, W, C = X.shape
    OH, OW, SH, SW, PT, PL = window
    KH, KW, DH, DW = taps
    x, g, d = flat(X), flat(G), flat(parts)
    splits = parts.shape[0]
    inner0 = clip(-PL, SW, OW, W)[0]
    inner1 = max(inner0, clip((KW - 1) * DW - PL, SW, OW, W)[1])
    left = inner0 > 0 and clip((inner0 - 1) * SW - PL, DW, 3, W) == (1, 3)
    right = inner1 < OW and clip(inner1 * SW - PL, DW, 3, W) == (0, 2)
    near, few = KW == 3 and C * itemsize(x) < FAR, C * itemsize(x) <= FEW
    zero(d, s * KH * KW * C, KH * KW * C)
    for row in range(s * N * OH // splits, (s + 1) * N * OH // splits):
        n, oh = row // OH, row % OH
        low, high = clip(oh * SH - PT, DH, KH, H)
        nine = few and KW == 3 and low == 0 and high == 3 == KH and inner1 - inner0 >= 4
        top, first, done = (n * H + oh * SH - PT) * W - PL, inner0, inner0  # first .. done are added up by several pixels at once
        if nine:
            pixels = NUMBERS // C
            for ow in range(inner0, inner1, pixels):
                done = min(inner1, ow + pixels)
                add_nine_taps_of_all(x, (top + ow * SW) * C, DH * W * C, SW * C, DW * C, g, (row * OW + ow) * C, done - ow,
                                     left and ow == inner0, right and done == inner1, C, d, s * 9 * C)
            first, done = inner0 - left, inner1 + right
        elif near:
            while done + 4 <= inner1:
                add_four_of_all(x, (top + low * DH * W + done * SW) * C, DH * W * C, SW * C, DW * C, g, (row * OW + done) * C,
                                high - low, C, d, (s * KH + low) * 3 * C)
                done += 4
        if nine or near:
            for ow in range(OW):
                if not first <= ow < done:
                    kw, end = clip(ow * SW - PL, DW, 3, W)
                    add_pixel_of_all(x, (top + low * DH * W + ow * SW + kw * DW) * C, DH * W * C, DW * C, g, (row * OW + ow) * C,
                                     high - low, end - kw, C, d, ((s * KH + low) * 3 + kw) * C)
            continue
        if KW == 3:
            for ow in range(inner0, inner1, PIXELS):
                for kh in range(low, high):
                    add_three_taps_of_all(x, (top + kh * DH * W + ow * SW) * C, SW * C, DW * C, g, (row * OW + ow) * C,
                                          min(PIXELS, inner1 - ow), C, d, (s * KH + kh) * 3 * C)
        for kh in range(low, high):
            source, target = (top + kh * DH * W) * C, (s * KH + kh) * KW * C
            if KW != 3:
                over = (1, 0, 0, inner1 - inner0, SW * C, C)
                for c in range(0, C, lanes(x)):
                    tiles_elementwise(KW, x, source + inner0 * SW * C + c, DW * C, g, (row * OW + inner0) * C + c,
                                      d, target + c, C, C - c, g, 0, 1, over)
            for kw in range(KW):
                ow0, ow1 = clip(kw * DW - PL, SW, OW, W)
                for ow in range(ow0, ow1):
                    if not inner0 <= ow < inner1:
                        add_products(x, source + (ow * SW + kw * DW) * C, g, (row * OW + ow) * C, C, d, target + kw * C)


@kernel
def backward_weight(X, G, parts, window, taps):
    """Reads X (N, H, W, C) and grad_output G (N, OH, OW, C); writes parts (splits, KH, KW, C), to be summed over splits of the rows.
    Parallel over splits."""
    for s in prange(parts.shape[0]):
        _split(np.int64(s), X, G, parts, window, taps)
