"""Images whose SH x SW neighbouring pixels are the channels of one, which makes of a convolution's stride (SH, SW) a stride of 1.

Pixel (i, j) of a deep image has the pixels (i*SH + r - PT, j*SW + q - PL) of the image, r < SH and q < SW, one after the other, with zeros
for what lies outside. So tap (a, b) of a deep filter has the taps (a*SH + r, b*SW + q), with zeros for those that are not there.
`window` = (SH, SW, PT, PL).
"""

from numba import prange

from fastconv.kernels.jit import device, kernel
from fastconv.kernels.panel import clip
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import copy, flat, load, store, zero


@device
def _pixels(x, p, p_step, y, q, q_step, run, count):
    """Copy `count` runs of numbers, p_step and q_step apart."""
    size = lanes(x)
    for _ in range(count):
        for i in range(0, run, size):
            store(y, q + i, load(x, p + i, run - i), run - i)
        p, q = p + p_step, q + q_step


@device
def _whole(PL, SW, W, DW):
    """Columns [first, last) of a deep image show SW columns of the image, those before and after them fewer."""
    first = min(DW, (PL + SW - 1) // SW)
    return first, max(first, min(DW, (W + PL) // SW))


@kernel
def images_to_depth(X, D, window):
    """Reads X (N, H, W, C), writes D (N, DH, DW, SH*SW*C). Parallel over rows of D."""
    (N, H, W, C), (DH, DW), (SH, SW, PT, PL) = X.shape, D.shape[1:3], window
    x, d, run = flat(X), flat(D), SW * C
    first, last = _whole(PL, SW, W, DW)
    for job in prange(N * DH):
        n, top = job // DH, job % DH * SH - PT
        for r in range(SH):
            start, row = (job * DW * SH + r) * run, ((n * H + top + r) * W - PL) * C
            inside = 0 <= top + r < H
            if inside:
                _pixels(x, row + first * run, run, d, start + first * SH * run, SH * run, run, last - first)
            for j in range(DW):
                if inside and first <= j < last:
                    continue
                low, high = clip(j * SW - PL, 1, SW, W) if inside else (0, 0)
                target = start + j * SH * run
                zero(d, target, low * C)
                copy(x, row + j * run + low * C, d, target + low * C, (high - low) * C)
                zero(d, target + high * C, (SW - high) * C)


@kernel
def images_from_depth(D, X, window):
    """Reads D (N, DH, DW, SH*SW*C), writes X (N, H, W, C), zeros where no number of D is. Parallel over rows of X."""
    (N, H, W, C), (DH, DW), (SH, SW, PT, PL) = X.shape, D.shape[1:3], window
    x, d, run = flat(X), flat(D), SW * C
    first, last = _whole(PL, SW, W, DW)
    for job in prange(N * H):
        n, i, r = job // H, (job % H + PT) // SH, (job % H + PT) % SH
        start, row, columns = (((n * DH + i) * DW) * SH + r) * run, (job * W - PL) * C, 0
        if i < DH:
            columns = min(W, max(0, DW * SW - PL))
            _pixels(d, start + first * SH * run, SH * run, x, row + first * run, run, run, last - first)
            for j in range(DW):
                if j < first or j >= last:
                    low, high = clip(j * SW - PL, 1, SW, W)
                    copy(d, start + j * SH * run + low * C, x, row + j * run + low * C, (high - low) * C)
        zero(x, (job * W + columns) * C, (W - columns) * C)


@kernel
def filters_to_depth(weight, deep, SH, SW):
    """Reads weight (OC, C, KH, KW), writes deep (OC, SH*SW*C, TH, TW). Parallel over OC."""
    (OC, C, KH, KW), (TH, TW) = weight.shape, deep.shape[2:]
    w, d = flat(weight), flat(deep)
    for oc in prange(OC):
        target = oc * SH * SW * C * TH * TW
        for r in range(SH):
            for q in range(SW):
                rows, columns = (KH - r + SH - 1) // SH, (KW - q + SW - 1) // SW  # taps that are there
                for c in range(C):
                    source = ((oc * C + c) * KH + r) * KW + q
                    zero(d, target, TH * TW)
                    for a in range(rows):
                        for b in range(columns):
                            d[target + a * TW + b] = w[source + a * SH * KW + b * SW]
                    target += TH * TW


@kernel
def filters_from_depth(deep, weight, SH, SW):
    """Reads deep (OC, SH*SW*C, TH, TW), writes weight (OC, C, KH, KW). Parallel over OC."""
    (OC, C, KH, KW), (TH, TW) = weight.shape, deep.shape[2:]
    w, d = flat(weight), flat(deep)
    for oc in prange(OC):
        source = oc * SH * SW * C * TH * TW
        for r in range(SH):
            for q in range(SW):
                rows, columns = (KH - r + SH - 1) // SH, (KW - q + SW - 1) // SW
                for c in range(C):
                    target = ((oc * C + c) * KH + r) * KW + q
                    for a in range(rows):
                        for b in range(columns):
                            w[target + a * SH * KW + b * SW] = d[source + a * TW + b]
                    source += TH * TW
