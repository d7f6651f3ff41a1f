"""Pooling of (N, H, W, C) arrays; the channels are the vector.

Backward kernels gather: the job that owns a row of grad_input collects what the windows that see it send there, in their order.
"""

import math

from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.vector import lanes, select, splat, splat_int
from fastconv.kernels.vector_memory import flat, load, load_unsigned, store, zero


@device
def _taps(start, K, D, size):
    """(first, stop) of the taps k < K whose positions start + k*D are from 0 up to, not including, `size`."""
    first = 0 if start >= 0 else (D - 1 - start) // D
    stop = K if start + (K - 1) * D < size else (size - start + D - 1) // D
    return first, stop

# --- maximum -------------------------------------------------------------------------------------------------------------


@device
def _max_forward_row(job, x, y, argmax, window):
    KH, KW, SH, SW, DH, DW, PH, PW = window
    (H, W, C), (OH, OW) = x.shape[1:], y.shape[1:3]
    n, oh = job // OH, job % OH
    top = oh * SH - PH
    kh_first, kh_stop = _taps(top, KH, DH, H)
    for ow in range(OW):
        left = ow * SW - PW
        kw_first, kw_stop = _taps(left, KW, DW, W)
        for c in range(0, C, lanes(x)):
            best = splat(x, -math.inf)
            offset = splat_int(best, kh_first * KW + kw_first)
            for kh in range(kh_first, kh_stop):
                row = (n * H + top + kh * DH) * W + left
                for kw in range(kw_first, kw_stop):
                    v = load(x, (row + kw * DW) * C + c, C - c)
                    larger = (v > best) | (v != v)  # the last NaN wins, as in PyTorch
                    best = select(larger, v, best)
                    offset = select(larger, kh * KW + kw, offset)
            store(y, (job * OW + ow) * C + c, best, C - c)
            if argmax.size > 0:
                store(argmax, (job * OW + ow) * C + c, offset, C - c)


@kernel
def max_forward(x, y, argmax, window):
    """Reads x, writes the maximum of each window to y (N, OH, OW, C) and which tap kh*KW + kw it is to argmax, of the same shape or
    without elements; window = (KH, KW, SH, SW, DH, DW, PH, PW); parallel over rows of y."""
    for job in prange(y.shape[0] * y.shape[1]):
        _max_forward_row(job, x, y, argmax, window)


@device
def _max_backward_row(job, g, argmax, d, window):
    KH, KW, SH, SW, DH, DW, PH, PW = window
    (OH, OW, C), (H, W) = g.shape[1:], d.shape[1:3]
    n, ih = job // H, job % H
    zero(d, job * W * C, W * C)
    for kh in range(KH - 1, -1, -1):  # backwards through the taps is forwards through the windows
        oh = (ih + PH - kh * DH) // SH
        if oh * SH == ih + PH - kh * DH and 0 <= oh < OH:
            for kw in range(KW - 1, -1, -1):
                shift = kw * DW - PW
                for ow in range(max(0, (SW - 1 - shift) // SW), min(OW, (W - 1 - shift) // SW + 1)):
                    o, i = ((n * OH + oh) * OW + ow) * C, (job * W + ow * SW + shift) * C
                    for c in range(0, C, lanes(g)):
                        total = load(d, i + c, C - c)
                        chosen = load_unsigned(argmax, o + c, C - c, total) == kh * KW + kw
                        store(d, i + c, total + select(chosen, load(g, o + c, C - c), 0.0), C - c)


@kernel
def max_backward(g, argmax, d, window):
    """Reads g and argmax (N, OH, OW, C), writes d (N, H, W, C); parallel over rows of d."""
    for job in prange(d.shape[0] * d.shape[1]):
        _max_backward_row(job, g, argmax, d, window)


# --- maximum of 2 x 2 with stride 2 --------------------------------------------------------------------------------------
# Most networks have no other. Without inner loops, 64 images of 28 x 28 x 6 take 67 and 88 us on one thread instead of 143 and 442.


@device(forceinline=True)
def _larger(v, best):
    return (v > best) | (v != v)


@device(forceinline=True)
def _largest(x, i, C, below, own):
    """The maximum of the pixels at x[i], x[i + C] and `below` numbers further on, and which of the four it is; `own` channels."""
    v0, v1, v2, v3 = load(x, i, own), load(x, i + C, own), load(x, i + below, own), load(x, i + below + C, own)
    right, lower_right = _larger(v1, v0), _larger(v3, v2)
    upper, lower = select(right, v1, v0), select(lower_right, v3, v2)
    down, one = _larger(lower, upper), splat_int(v0, 1)
    return select(down, lower, upper), select(down, select(lower_right, one + 2, one + 1), select(right, one, one - 1))


@device(forceinline=True)
def relu_largest(x, i, C, below, own):
    """As `_largest` after ReLU: 0 and 4, which is no tap, where the maximum is not above 0; no gradient goes anywhere then."""
    best, tap = _largest(x, i, C, below, own)
    return select(best <= 0.0, 0.0, best), select(best <= 0.0, splat_int(best, 4), tap)


@device
def _max_forward_row_2x2(job, x, y, argmax):
    (H, W, C), (OH, OW) = x.shape[1:], y.shape[1:3]
    top = (job // OH * H + job % OH * 2) * W * C
    for ow in range(OW):
        for c in range(0, C, lanes(x)):
            o = (job * OW + ow) * C + c
            best, tap = _largest(x, top + 2 * ow * C + c, C, W * C, C - c)
            store(y, o, best, C - c)
            if argmax.size > 0:
                store(argmax, o, tap, C - c)


@kernel
def max_forward_2x2(x, y, argmax):
    """As max_forward for windows (2, 2, 2, 2, 1, 1, 0, 0) that all lie within x."""
    for job in prange(y.shape[0] * y.shape[1]):
        _max_forward_row_2x2(job, x, y, argmax)


@apart
def relu_max_row_2x2(x, i, W, C, y, argmax, o):
    """A row of outputs, at y[o], of the two rows of W pixels at x[i]: their maximum, and 0 where that is not above 0. All flat."""
    for pixel in range(W // 2):
        for c in range(0, C, lanes(x)):
            a, b, own = i + 2 * pixel * C + c, o + pixel * C + c, C - c
            best, tap = relu_largest(x, a, C, W * C, own)
            store(y, b, best, own)
            if argmax.size > 0:
                store(argmax, b, tap, own)


@kernel
def relu_max_forward_2x2(x, y, argmax):
    """As max_forward_2x2 after ReLU; argmax is 4 where the result is 0. Parallel over rows of y."""
    (H, W, C), (OH, OW) = x.shape[1:], y.shape[1:3]
    flat_x, flat_y, flat_argmax = flat(x), flat(y), flat(argmax)
    for job in prange(y.shape[0] * OH):
        relu_max_row_2x2(flat_x, (job // OH * H + job % OH * 2) * W * C, W, C, flat_y, flat_argmax, job * OW * C)


@device
def _max_backward_row_2x2(job, g, argmax, d):
    (OH, OW, C), (H, W) = g.shape[1:], d.shape[1:3]
    oh = job % OH
    top = (job // OH * H + 2 * oh) * W * C
    for ow in range(OW):
        for c in range(0, C, lanes(g)):
            i, o = top + 2 * ow * C + c, (job * OW + ow) * C + c
            v = load(g, o, C - c)
            k = load_unsigned(argmax, o, C - c, v)
            store(d, i, select(k == 0, v, 0.0), C - c)
            store(d, i + C, select(k == 1, v, 0.0), C - c)
            store(d, i + W * C, select(k == 2, v, 0.0), C - c)
            store(d, i + W * C + C, select(k == 3, v, 0.0), C - c)
    if W > 2 * OW:
        zero(d, top + 2 * OW * C, C)
        zero(d, top + (W + 2 * OW) * C, C)
    if oh == OH - 1 and H > 2 * OH:
        zero(d, top + 2 * W * C, W * C)


@kernel
def max_backward_2x2(g, argmax, d):
    """As max_backward for windows (2, 2, 2, 2, 1, 1, 0, 0) that all lie within d; parallel over rows of g."""
    for job in prange(g.shape[0] * g.shape[1]):
        _max_backward_row_2x2(job, g, argmax, d)


# --- average -------------------------------------------------------------------------------------------------------------


@device
def _average_forward_row(job, x, rows, columns, y):
    (H, W, C), (OH, OW) = x.shape[1:], y.shape[1:3]
    n, oh = job // OH, job % OH
    for ow in range(OW):
        divisor = x.dtype.type(rows[oh, 2] * columns[ow, 2])
        for c in range(0, C, lanes(x)):
            total = splat(x, 0.0)
            for ih in range(rows[oh, 0], rows[oh, 1]):
                for iw in range(columns[ow, 0], columns[ow, 1]):
                    total = total + load(x, ((n * H + ih) * W + iw) * C + c, C - c)
            store(y, (job * OW + ow) * C + c, total / divisor, C - c)


@kernel
def average_forward(x, rows, columns, y):
    """Reads x, writes the mean of each window to y (N, OH, OW, C); rows (OH, 3) and columns (OW, 3): start and stop of a window, and its
    factor of the divisor; parallel over rows of y."""
    for job in prange(y.shape[0] * y.shape[1]):
        _average_forward_row(job, x, rows, columns, y)


@device
def _average_backward_row(job, g, rows, columns, d):
    (OH, OW, C), (H, W) = g.shape[1:], d.shape[1:3]
    n, ih = job // H, job % H
    zero(d, job * W * C, W * C)
    for oh in range(OH):
        if rows[oh, 0] <= ih < rows[oh, 1]:
            for ow in range(OW):
                divisor = g.dtype.type(rows[oh, 2] * columns[ow, 2])
                for c in range(0, C, lanes(g)):
                    share = load(g, ((n * OH + oh) * OW + ow) * C + c, C - c) / divisor
                    for iw in range(columns[ow, 0], columns[ow, 1]):
                        i = (job * W + iw) * C + c
                        store(d, i, load(d, i, C - c) + share, C - c)


@kernel
def average_backward(g, rows, columns, d):
    """Reads g (N, OH, OW, C), writes d (N, H, W, C); rows, columns as in average_forward; parallel over rows of d."""
    for job in prange(d.shape[0] * d.shape[1]):
        _average_backward_row(job, g, rows, columns, d)
