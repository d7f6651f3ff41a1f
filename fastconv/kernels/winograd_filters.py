"""Filters and their gradients, into Winograd's transform and out of it; see conv_winograd."""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.prefetch import prefetch, prefetch_lines, prefetch_to_write
from fastconv.kernels.scratch import scratch
from fastconv.kernels.transpose import transpose
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import flat
from fastconv.kernels.winograd_rows import (
    weight_gradient_row,
    weight_gradient_row_of_five,
    weight_gradient_row_of_four,
    weight_row,
    weight_row_of_five,
    weight_row_of_four,
)
from fastconv.kernels.winograd_strided import weight_gradient_row_of_stride_2, weight_row_of_stride_2
from fastconv.kernels.winograd_tile import load_five, load_four, load_six, load_three, store_five, store_four, store_six, store_three
from fastconv.kernels.winograd_tiling import ELEMENTS, LINE


@device(forceinline=True)
def _row_of_three(strided, w0, w1, w2):
    return weight_row_of_stride_2(w0, w1, w2) if strided else weight_row(w0, w1, w2)


@device(forceinline=True)
def _gradient_row_of_three(strided, m0, m1, m2, m3, m4, m5):
    return weight_gradient_row_of_stride_2(m0, m1, m2, m3, m4, m5) if strided else weight_gradient_row(m0, m1, m2, m3, m4, m5)


@device
def transform_filters(v, weight, first, last, by_input, strided, u, o, u_step, shared):
    """Filters of vector `v` and of the summed channels first .. last: element e of channel first + c goes to u[o + e * u_step + c * L].

    Where u is `shared`, lines of it are asked for, to be written, as in winograd_blocks.input_tiles.
    """
    OC, IC, K, _ = weight.shape
    w, L, n, row = flat(weight), lanes(weight), K * K, IC * K * K
    j0 = v * L
    cols = min(L, (IC if by_input else OC) - j0)
    taps, half = scratch(n * L * L, w.dtype), scratch(6 * K * L, w.dtype)  # (summed channel, tap, lane)
    for r0 in range(first, last, L):
        own = min(L, last - r0)
        # what is read asks for the same numbers of the next L summed channels
        if by_input:
            for r in range(own):
                i = ((r0 + r) * IC + j0) * n
                prefetch_lines(w, i + L * row, i + L * row + cols * n)
                for e in range(0, n, L):
                    transpose(w, i + e, n, cols, min(L, n - e), taps, (r * n + e) * L, L, L)
        else:
            for e in range(0, own * n, L):
                i = (j0 * IC + r0) * n + e
                for j in range(cols):
                    prefetch(w, i + L * n + j * row)
                transpose(w, i, row, cols, min(L, own * n - e), taps, e * L, L, L)
        tap, step = (n - 1, -L) if by_input else (0, L)
        for r in range(own):
            i, e = (r * n + tap) * L, o + (r0 - first + r) * L
            if shared:
                for k in range(ELEMENTS):
                    prefetch_to_write(u, e + LINE + k * u_step)
            if K == 3:
                for column in range(3):
                    store_six(_row_of_three(strided, *load_three(taps, i + column * step, 3 * step, L)), half, column * L, 3 * L)
                for k in range(6):
                    store_six(_row_of_three(strided, *load_three(half, k * 3 * L, L, L)), u, e + 6 * k * u_step, u_step)
            elif K == 4:
                for column in range(4):
                    store_six(weight_row_of_four(*load_four(taps, i + column * step, 4 * step, L)), half, column * L, 4 * L)
                for k in range(6):
                    store_six(weight_row_of_four(*load_four(half, k * 4 * L, L, L)), u, e + 6 * k * u_step, u_step)
            else:
                for column in range(5):
                    store_six(weight_row_of_five(*load_five(taps, i + column * step, 5 * step, L)), half, column * L, 5 * L)
                for k in range(6):
                    store_six(weight_row_of_five(*load_five(half, k * 5 * L, L, L)), u, e + 6 * k * u_step, u_step)


@apart
def _transform_vector(v, weight, by_input, strided, u, u_step):
    """Vector `v` of `transform_weight`."""
    transform_filters(v, weight, 0, weight.shape[0 if by_input else 1], by_input, strided, u, v * ELEMENTS * u_step, u_step, True)


@kernel
def transform_weight(weight, U, by_input, strided):
    """Reads weight (OC, IC, K, K), writes U, G w G^T, the lanes output channels, elements in the order of a product.

    With `by_input` the lanes are input channels, what is summed are output channels, and filters are turned by 180 degrees. `strided` says
    whether the stride is 2.
    Parallel over vectors.
    """
    vectors, _, u_step = U.shape
    u = flat(U)
    for v in prange(vectors):
        _transform_vector(np.int64(v), weight, by_input, strided, u, u_step)


@device
def filters_back(p, source, p_step, strided, v, c0, c1, grad_weight):
    """G^T m G of vector `v` of output channels and input channels c0 .. c1, as many as lanes at most, into grad_weight (OC, IC, K, K).

    Element e of channel c0 + r is p[source + e * p_step + r * L].
    """
    OC, IC, K, _ = grad_weight.shape
    d, L, n, own = flat(grad_weight), lanes(p), K * K, c1 - c0
    half, taps = scratch(6 * K * L, p.dtype), scratch(n * L * L, p.dtype)  # (input channel, tap, lane)
    for r in range(own):
        i, t = source + r * L, r * n * L
        if K == 3:
            for column in range(6):
                store_three(_gradient_row_of_three(strided, *load_six(p, i + column * p_step, 6 * p_step, L)), half, column * L, 6 * L)
            for k in range(3):
                store_three(_gradient_row_of_three(strided, *load_six(half, k * 6 * L, L, L)), taps, t + 3 * k * L, L)
        elif K == 4:
            for column in range(6):
                store_four(weight_gradient_row_of_four(*load_six(p, i + column * p_step, 6 * p_step, L)), half, column * L, 6 * L)
            for k in range(4):
                store_four(weight_gradient_row_of_four(*load_six(half, k * 6 * L, L, L)), taps, t + 4 * k * L, L)
        else:
            for column in range(6):
                store_five(weight_gradient_row_of_five(*load_six(p, i + column * p_step, 6 * p_step, L)), half, column * L, 6 * L)
            for k in range(5):
                store_five(weight_gradient_row_of_five(*load_six(half, k * 6 * L, L, L)), taps, t + 5 * k * L, L)
    for e in range(0, own * n, L):
        count = min(L, own * n - e)
        transpose(taps, e * L, L, count, min(L, OC - v * L), d, (v * L * IC + c0) * n + e, IC * n, count)
