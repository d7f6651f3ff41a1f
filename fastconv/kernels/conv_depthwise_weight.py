"""The weight gradient of depthwise convolution; see conv_depthwise.

A row of the filter is summed over the output pixels that see all of it, all taps of 3 x 3 together where vectors are long; where the
border hides some taps the others are added one by one.
"""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.panel import clip
from fastconv.kernels.processor import VECTOR_BYTES
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


NINE = VECTOR_BYTES == 64
"""Whether all taps of a filter of 3 x 3 are summed up together, a vector of channels at a time: 15 to 30 % faster where that is a line of
the cache; with AVX2, whose vectors are half of one, 25 % slower than two vectors of three taps.
"""

PIXELS, NUMBERS = 8, 1024
"""All channels of so many pixels, or so many numbers, are added up before the next pixels of the row: memory is read nearly in order."""


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
    zero(d, s * KH * KW * C, KH * KW * C)
    for row in range(s * N * OH // splits, (s + 1) * N * OH // splits):
        n, oh = row // OH, row % OH
        low, high = clip(oh * SH - PT, DH, KH, H)
        nine = NINE and KW == 3 and low == 0 and high == 3 == KH and inner1 - inner0 >= 4
        if KW == 3:
            pixels = max(PIXELS, NUMBERS // C)
            for first in range(inner0, inner1, pixels):
                count = min(pixels, inner1 - first)
                if nine:
                    i = ((n * H + oh * SH - PT) * W + first * SW - PL) * C
                    add_nine_taps_of_all(x, i, DH * W * C, SW * C, DW * C, g, (row * OW + first) * C, count,
                                         left and first == inner0, right and first + count == inner1, C, d, s * 9 * C)
                    continue
                for kh in range(low, high):
                    i = ((n * H + oh * SH - PT + kh * DH) * W + first * SW - PL) * C
                    add_three_taps_of_all(x, i, SW * C, DW * C, g, (row * OW + first) * C, count, C, d, (s * KH + kh) * KW * C)
        done0, done1 = inner0 - (nine and left), inner1 + (nine and right)
        if KW == 3 and done0 == 0 and done1 == OW:
            continue
        for kh in range(low, high):
            source, target = (n * H + oh * SH - PT + kh * DH) * W * C, (s * KH + kh) * KW * C
            if KW != 3:
                i, o = source + (inner0 * SW - PL) * C, (row * OW + inner0) * C
                over = (1, 0, 0, inner1 - inner0, SW * C, C)
                for c in range(0, C, lanes(x)):
                    tiles_elementwise(KW, x, i + c, DW * C, g, o + c, d, target + c, C, C - c, g, 0, 1, over)
            for kw in range(KW):
                first, last = clip(kw * DW - PL, SW, OW, W)
                for ow in range(first, min(last, done0)):
                    add_products(x, source + (ow * SW - PL + kw * DW) * C, g, (row * OW + ow) * C, C, d, target + kw * C)
                for ow in range(max(first, done1), last):
                    add_products(x, source + (ow * SW - PL + kw * DW) * C, g, (row * OW + ow) * C, C, d, target + kw * C)


@kernel
def backward_weight(X, G, parts, window, taps):
    """Reads X (N, H, W, C) and grad_output G (N, OH, OW, C); writes parts (splits, KH, KW, C), to be summed over splits of the rows.
    Parallel over splits."""
    for s in prange(parts.shape[0]):
        _split(np.int64(s), X, G, parts, window, taps)
