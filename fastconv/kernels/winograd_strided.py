"""Winograd's transforms of a tile for filters of 3 x 3 with stride 2: 81 multiplications for 4 x 4 outputs, not 144; see conv_winograd.

Along an axis y[j] = w0 x[2j] + w1 x[2j + 1] + w2 x[2j + 2]. What the outer taps meet, the even inputs, is a convolution of stride 1 with
two taps, F(4, 2) with the points +-P, +-Q and infinity; what the middle tap meets, the odd ones, is multiplied by it as it is: 5 + 4
multiplications for four outputs, not 12 (Yepez and Ko 2020, IEEE TVLSI 28, 853). The input's gradient d[2i] = w2 g[i - 1] + w0 g[i],
d[2i + 1] = w1 g[i] takes five gradients to eight with the same filters turned.

A filter has 6 x 6 elements, five points and the middle tap along each axis. Of a tile an element of a point and the middle tap has four
rows, and that of both middle taps 16, one for each output: its product is that of so many more rows.
"""

from fastconv.kernels.jit import device
from fastconv.kernels.vector import fma, lanes
from fastconv.kernels.winograd_rows import P2, P3, Q2, Q3, SHARE_P, SHARE_Q, P, Q, gradient_row, zero_at_p_and_q, zero_but_at
from fastconv.kernels.winograd_tile import load_five, load_four, store_five, store_four, store_four_outputs

ROWS = 81
"""Rows of all elements of a tile."""

TAP = 5
"""The element along an axis that is the middle tap's; those before it are the points'."""


@device
def rows_of(e):
    """Rows of a tile in element e."""
    return (4 if e // 6 == TAP else 1) * (4 if e % 6 == TAP else 1)


@device
def rows_before(e):
    """Rows of a tile in the elements before e."""
    return 9 * (e // 6) + (4 if e // 6 == TAP else 1) * (e % 6)


# --- one row or column -----------------------------------------------------------------------------------------------------


@device(forceinline=True)
def points_row(d0, d1, d2, d3, d4):
    """B^T d, five numbers to five: the polynomials that are zero at all points but one."""
    at_p, at_minus_p = zero_but_at(P, Q2, d0, d1, d2, d3)
    at_q, at_minus_q = zero_but_at(Q, P2, d0, d1, d2, d3)
    return at_p, at_minus_p, at_q, at_minus_q, zero_at_p_and_q(d0, d2, d4)


@device(forceinline=True)
def outputs_row(m0, m1, m2, m3, m4):
    """A^T m, five numbers to four: the polynomial's coefficients from its values."""
    even_p, odd_p, even_q, odd_q = m0 + m1, m0 - m1, m2 + m3, m2 - m3
    return even_p + even_q, fma(odd_q, Q, odd_p * P), fma(even_q, Q2, even_p * P2), fma(odd_q, Q3, fma(odd_p, P3, m4))


@device(forceinline=True)
def values_row(g0, g1, g2, g3):
    """A g, four numbers to five: the transpose of `outputs_row`."""
    _, at_p, at_minus_p, at_q, at_minus_q, last = gradient_row(g0, g1, g2, g3)
    return at_p, at_minus_p, at_q, at_minus_q, last


@device(forceinline=True)
def weight_row_of_stride_2(w0, w1, w2):
    """G w, three numbers to six: the outer taps' values at the points, each over what B^T leaves of its own polynomial there; the tap."""
    share_p, share_q = P * SHARE_P, Q * SHARE_Q
    even_p, odd_p, even_q, odd_q = w0 * share_p, w2 * (P * share_p), w0 * share_q, w2 * (Q * share_q)
    return odd_p + even_p, odd_p - even_p, odd_q + even_q, odd_q - even_q, w2, w1


@device(forceinline=True)
def weight_gradient_row_of_stride_2(m0, m1, m2, m3, m4, m5):
    """G^T m, six numbers to three: the transpose of `weight_row_of_stride_2`."""
    share_p, share_q = P * SHARE_P, Q * SHARE_Q
    first = fma(m0 - m1, share_p, (m2 - m3) * share_q)
    return first, m5, fma(m0 + m1, P * share_p, fma(m2 + m3, Q * share_q, m4))


# --- one tile of one vector of channels ------------------------------------------------------------------------------------


@device(forceinline=True)
def places(start, tile, stride, step):
    """Where the rows of tile `tile` begin in an array at `start`: of two points, a point and the tap, the tap and a point, the tap twice.

    The rows of one tile are `stride` apart, and elements `step` for each row of a tile: element e begins at rows_before(e) * step.
    """
    o = tile * stride
    return start + o, start + 5 * step + 4 * o, start + 45 * step + 4 * o, start + 65 * step + 16 * o


@device(forceinline=True)
def store_two_points(point, other, x, i, row, pixel, v, o, step):
    """The rows of B^T d B that belong to `point` and -`point`, of five columns; x[i] is the tile's first row."""
    L = lanes(x)
    d0, d1 = load_five(x, i, pixel, L), load_five(x, i + row, pixel, L)
    d2, d3 = load_five(x, i + 2 * row, pixel, L), load_five(x, i + 3 * row, pixel, L)
    a0, b0 = zero_but_at(point, other, d0[0], d1[0], d2[0], d3[0])
    a1, b1 = zero_but_at(point, other, d0[1], d1[1], d2[1], d3[1])
    a2, b2 = zero_but_at(point, other, d0[2], d1[2], d2[2], d3[2])
    a3, b3 = zero_but_at(point, other, d0[3], d1[3], d2[3], d3[3])
    a4, b4 = zero_but_at(point, other, d0[4], d1[4], d2[4], d3[4])
    store_five(points_row(a0, a1, a2, a3, a4), v, o, step)
    store_five(points_row(b0, b1, b2, b3, b4), v, o + 9 * step, step)


@device(forceinline=True)
def last_point_of_five(x, i, row, pixel):
    """The row of B^T d that belongs to infinity, of five columns."""
    L = lanes(x)
    d, e, f = load_five(x, i, pixel, L), load_five(x, i + 2 * row, pixel, L), load_five(x, i + 4 * row, pixel, L)
    return (zero_at_p_and_q(d[0], e[0], f[0]), zero_at_p_and_q(d[1], e[1], f[1]), zero_at_p_and_q(d[2], e[2], f[2]),
            zero_at_p_and_q(d[3], e[3], f[3]), zero_at_p_and_q(d[4], e[4], f[4]))


@device
def strided_input_tile(x, i, row, pixel, down, right, v, start, tile, stride, step):
    """B^T d B of a tile at x[i]; to v at `start` as tile `tile`, see `places`.

    `row` and `pixel` lead from one to the next of the pixels that meet the outer taps, `down` and `right` from there to those that meet the
    middle one.
    """
    L = lanes(x)
    points, right_taps, down_taps, taps = places(start, tile, stride, step)
    store_two_points(P, Q2, x, i, row, pixel, v, points, step)
    store_two_points(Q, P2, x, i, row, pixel, v, points + 18 * step, step)
    store_five(points_row(*last_point_of_five(x, i, row, pixel)), v, points + 36 * step, step)
    for k in range(4):
        store_five(points_row(*load_five(x, i + right + k * pixel, row, L)), v, right_taps + k * stride, 9 * step)
        store_five(points_row(*load_five(x, i + down + k * row, pixel, L)), v, down_taps + k * stride, 4 * step)
        store_four(load_four(x, i + down + right + k * row, pixel, L), v, taps + 4 * k * stride, stride)


@device
def strided_gradient_tile(g, i, row, pixel, v, start, tile, stride, step):
    """A g A^T of the 4 x 4 pixels at g[i], otherwise as `strided_input_tile`."""
    L = lanes(g)
    points, right_taps, down_taps, taps = places(start, tile, stride, step)
    c0, c1 = values_row(*load_four(g, i, row, L)), values_row(*load_four(g, i + pixel, row, L))
    c2, c3 = values_row(*load_four(g, i + 2 * pixel, row, L)), values_row(*load_four(g, i + 3 * pixel, row, L))
    store_five(values_row(c0[0], c1[0], c2[0], c3[0]), v, points, step)
    store_five(values_row(c0[1], c1[1], c2[1], c3[1]), v, points + 9 * step, step)
    store_five(values_row(c0[2], c1[2], c2[2], c3[2]), v, points + 18 * step, step)
    store_five(values_row(c0[3], c1[3], c2[3], c3[3]), v, points + 27 * step, step)
    store_five(values_row(c0[4], c1[4], c2[4], c3[4]), v, points + 36 * step, step)
    for k in range(4):
        store_five(values_row(*load_four(g, i + k * pixel, row, L)), v, right_taps + k * stride, 9 * step)
        store_five(values_row(*load_four(g, i + k * row, pixel, L)), v, down_taps + k * stride, 4 * step)
        store_four(load_four(g, i + k * row, pixel, L), v, taps + 4 * k * stride, stride)


@device(forceinline=True)
def plus(a, b):
    return a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]


@device
def strided_output_tile(m, start, tile, stride, step, bias, low, y, o, row, pixel):
    """A^T m A + bias, and at least `low`, of tile `tile` of m at `start`, see `places`; writes 4 x 4 pixels at y[o]."""
    L = lanes(m)
    points, right_taps, down_taps, taps = places(start, tile, stride, step)
    c0 = plus(outputs_row(*load_five(m, points, 9 * step, L)), load_four(m, down_taps, stride, L))
    c1 = plus(outputs_row(*load_five(m, points + step, 9 * step, L)), load_four(m, down_taps + 4 * step, stride, L))
    c2 = plus(outputs_row(*load_five(m, points + 2 * step, 9 * step, L)), load_four(m, down_taps + 8 * step, stride, L))
    c3 = plus(outputs_row(*load_five(m, points + 3 * step, 9 * step, L)), load_four(m, down_taps + 12 * step, stride, L))
    c4 = plus(outputs_row(*load_five(m, points + 4 * step, 9 * step, L)), load_four(m, down_taps + 16 * step, stride, L))
    t0 = plus(outputs_row(*load_five(m, right_taps, 9 * step, L)), load_four(m, taps, 4 * stride, L))
    t1 = plus(outputs_row(*load_five(m, right_taps + stride, 9 * step, L)), load_four(m, taps + stride, 4 * stride, L))
    t2 = plus(outputs_row(*load_five(m, right_taps + 2 * stride, 9 * step, L)), load_four(m, taps + 2 * stride, 4 * stride, L))
    t3 = plus(outputs_row(*load_five(m, right_taps + 3 * stride, 9 * step, L)), load_four(m, taps + 3 * stride, 4 * stride, L))
    y0 = plus(outputs_row(c0[0], c1[0], c2[0], c3[0], c4[0]), (t0[0], t1[0], t2[0], t3[0]))
    y1 = plus(outputs_row(c0[1], c1[1], c2[1], c3[1], c4[1]), (t0[1], t1[1], t2[1], t3[1]))
    y2 = plus(outputs_row(c0[2], c1[2], c2[2], c3[2], c4[2]), (t0[2], t1[2], t2[2], t3[2]))
    y3 = plus(outputs_row(c0[3], c1[3], c2[3], c3[3], c4[3]), (t0[3], t1[3], t2[3], t3[3]))
    store_four_outputs(y0, bias, low, y, o, pixel)
    store_four_outputs(y1, bias, low, y, o + row, pixel)
    store_four_outputs(y2, bias, low, y, o + 2 * row, pixel)
    store_four_outputs(y3, bias, low, y, o + 3 * row, pixel)


@device
def strided_back_tile(m, start, tile, stride, step, bias, low, y, o, row, pixel, down, right):
    """As `strided_output_tile`, of the input's gradient: 8 x 8 pixels, of which those behind the outer taps begin at y[o] and lie `row` and
    `pixel` apart, and those behind the middle one begin `down` and `right` of them."""
    L = lanes(m)
    points, right_taps, down_taps, taps = places(start, tile, stride, step)
    c0, c1 = outputs_row(*load_five(m, points, 9 * step, L)), outputs_row(*load_five(m, points + step, 9 * step, L))
    c2, c3 = outputs_row(*load_five(m, points + 2 * step, 9 * step, L)), outputs_row(*load_five(m, points + 3 * step, 9 * step, L))
    c4 = outputs_row(*load_five(m, points + 4 * step, 9 * step, L))
    store_four_outputs(outputs_row(c0[0], c1[0], c2[0], c3[0], c4[0]), bias, low, y, o, pixel)
    store_four_outputs(outputs_row(c0[1], c1[1], c2[1], c3[1], c4[1]), bias, low, y, o + row, pixel)
    store_four_outputs(outputs_row(c0[2], c1[2], c2[2], c3[2], c4[2]), bias, low, y, o + 2 * row, pixel)
    store_four_outputs(outputs_row(c0[3], c1[3], c2[3], c3[3], c4[3]), bias, low, y, o + 3 * row, pixel)
    for k in range(4):
        right_column = outputs_row(*load_five(m, right_taps + k * stride, 9 * step, L))
        store_four_outputs(right_column, bias, low, y, o + right + k * pixel, row)
        lower_row = outputs_row(*load_five(m, down_taps + k * stride, 4 * step, L))
        store_four_outputs(lower_row, bias, low, y, o + down + k * row, pixel)
        store_four_outputs(load_four(m, taps + 4 * k * stride, stride, L), bias, low, y, o + down + right + k * row, pixel)
