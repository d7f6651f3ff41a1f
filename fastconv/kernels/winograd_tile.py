"""The transforms of Winograd's F(4x4, 3x3) and F(2x2, 5x5): of a row or column, and of a tile of a vector of channels; see conv_winograd.

Y = A^T [(G w G^T) * (B^T d B)] A for a tile d (6, 6), a filter w (3, 3) or (5, 5) and outputs Y (4, 4) or (2, 2), * element by element.
Both have the same six points, so B is the same; G and A have a column for each tap and output, powers of the points.
"""

from fastconv.kernels.jit import device
from fastconv.kernels.vector import fma, lanes, select
from fastconv.kernels.vector_memory import load, load_inside, opaque, store

# Points 0, +-P, +-Q and infinity. 5/8 and 3/2 halve the error of the usual 1 and 2 (5e-7 against 1.1e-6, root mean square, 64 channels), at
# the same number of operations, and all products of them that stand below are exact: Alam et al. 2022 (ACM TODS 48, section 4) search so.
P, Q = 5 / 8, 3 / 2
P2, Q2, P3, Q3, P4, Q4 = P**2, Q**2, P**3, Q**3, P**4, Q**4
BOTH, PRODUCT = P2 + Q2, P2 * Q2
SHARE_P, SHARE_Q = 1 / (2 * P2 * (P2 - Q2)), 1 / (2 * Q2 * (Q2 - P2))


# --- one row or column -----------------------------------------------------------------------------------------------------


@device(forceinline=True)
def zero_at_p_and_q(d0, d2, d4):
    """The polynomial that is zero at +-P and +-Q: at all points but 0; one number further in a row, at all but infinity."""
    return fma(d0, PRODUCT, fma(d2, -BOTH, d4))


@device(forceinline=True)
def zero_but_at(point, other, d1, d2, d3, d4):
    """Those that are zero at all points but `point`, and at all but -`point`; `other` is the square of the other two."""
    even, odd = fma(d2, -other, d4), fma(d1, -other, d3)
    return fma(odd, point, even), fma(odd, -point, even)


@device(forceinline=True)
def input_row(d0, d1, d2, d3, d4, d5):
    """B^T d, six numbers to six: the polynomials that are zero at all points but one."""
    at_p, at_minus_p = zero_but_at(P, Q2, d1, d2, d3, d4)
    at_q, at_minus_q = zero_but_at(Q, P2, d1, d2, d3, d4)
    return zero_at_p_and_q(d0, d2, d4), at_p, at_minus_p, at_q, at_minus_q, zero_at_p_and_q(d1, d3, d5)


@device(forceinline=True)
def output_row(m0, m1, m2, m3, m4, m5):
    """A^T m, six numbers to four: the polynomial's coefficients from its values."""
    even_p, odd_p, even_q, odd_q = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return m0 + even_p + even_q, fma(odd_q, Q, odd_p * P), fma(even_q, Q2, even_p * P2), fma(odd_q, Q3, fma(odd_p, P3, m5))


@device(forceinline=True)
def output_row_of_two(m0, m1, m2, m3, m4, m5):
    """A^T m, six numbers to two."""
    return m0 + (m1 + m2) + (m3 + m4), fma(m3 - m4, Q, fma(m1 - m2, P, m5))


@device(forceinline=True)
def gradient_row(g0, g1, g2, g3):
    """A g, four numbers to six: the transpose of `output_row`."""
    even_p, odd_p = fma(g2, P2, g0), fma(g3, P2, g1)
    even_q, odd_q = fma(g2, Q2, g0), fma(g3, Q2, g1)
    return g0, fma(odd_p, P, even_p), fma(odd_p, -P, even_p), fma(odd_q, Q, even_q), fma(odd_q, -Q, even_q), g3


@device(forceinline=True)
def gradient_row_of_two(g0, g1):
    """A g, two numbers to six: the transpose of `output_row_of_two`."""
    return g0, fma(g1, P, g0), fma(g1, -P, g0), fma(g1, Q, g0), fma(g1, -Q, g0), g1


@device(forceinline=True)
def weight_row(w0, w1, w2):
    """G w, three numbers to six: the filter's values at the points, each over what B^T leaves of its own polynomial there."""
    even_p, even_q = fma(w2, P2, w0) * SHARE_P, fma(w2, Q2, w0) * SHARE_Q
    odd_p, odd_q = w1 * (P * SHARE_P), w1 * (Q * SHARE_Q)
    return w0 * (1 / PRODUCT), even_p + odd_p, even_p - odd_p, even_q + odd_q, even_q - odd_q, w2


@device(forceinline=True)
def weight_gradient_row(m0, m1, m2, m3, m4, m5):
    """G^T m, six numbers to three: the transpose of `weight_row`."""
    even_p, odd_p = (m1 + m2) * SHARE_P, (m1 - m2) * SHARE_P
    even_q, odd_q = (m3 + m4) * SHARE_Q, (m3 - m4) * SHARE_Q
    return fma(m0, 1 / PRODUCT, even_p + even_q), fma(odd_p, P, odd_q * Q), fma(even_p, P2, fma(even_q, Q2, m5))


@device(forceinline=True)
def weight_row_of_five(w0, w1, w2, w3, w4):
    """G w, five numbers to six."""
    even_p, even_q = fma(w4, P4, fma(w2, P2, w0)) * SHARE_P, fma(w4, Q4, fma(w2, Q2, w0)) * SHARE_Q
    odd_p, odd_q = fma(w3, P3, w1 * P) * SHARE_P, fma(w3, Q3, w1 * Q) * SHARE_Q
    return w0 * (1 / PRODUCT), even_p + odd_p, even_p - odd_p, even_q + odd_q, even_q - odd_q, w4


@device(forceinline=True)
def weight_gradient_row_of_five(m0, m1, m2, m3, m4, m5):
    """G^T m, six numbers to five: the transpose of `weight_row_of_five`."""
    even_p, odd_p = (m1 + m2) * SHARE_P, (m1 - m2) * SHARE_P
    even_q, odd_q = (m3 + m4) * SHARE_Q, (m3 - m4) * SHARE_Q
    return (fma(m0, 1 / PRODUCT, even_p + even_q), fma(odd_p, P, odd_q * Q), fma(even_p, P2, even_q * Q2),
            fma(odd_p, P3, odd_q * Q3), fma(even_p, P4, fma(even_q, Q4, m5)))


# --- one tile of one vector of channels ------------------------------------------------------------------------------------


@device(forceinline=True)
def load_three(x, i, step, own):
    return load(x, i, own), load(x, i + step, own), load(x, i + 2 * step, own)


@device(forceinline=True)
def load_four(x, i, step, own):
    return load(x, i, own), load(x, i + step, own), load(x, i + 2 * step, own), load(x, i + 3 * step, own)


@device(forceinline=True)
def load_five(x, i, step, own):
    return (load(x, i, own), load(x, i + step, own), load(x, i + 2 * step, own), load(x, i + 3 * step, own), load(x, i + 4 * step, own))


@device(forceinline=True)
def load_six(x, i, step, own):
    i = opaque(i)
    return (load(x, i, own), load(x, i + step, own), load(x, i + 2 * step, own),
            load(x, i + 3 * step, own), load(x, i + 4 * step, own), load(x, i + 5 * step, own))


@device(forceinline=True)
def store_six(values, target, i, step):
    i = opaque(i)
    store(target, i, values[0], lanes(target))
    store(target, i + step, values[1], lanes(target))
    store(target, i + 2 * step, values[2], lanes(target))
    store(target, i + 3 * step, values[3], lanes(target))
    store(target, i + 4 * step, values[4], lanes(target))
    store(target, i + 5 * step, values[5], lanes(target))


@device(forceinline=True)
def store_three(values, target, i, step):
    store(target, i, values[0], lanes(target))
    store(target, i + step, values[1], lanes(target))
    store(target, i + 2 * step, values[2], lanes(target))


@device(forceinline=True)
def store_five(values, target, i, step):
    store(target, i, values[0], lanes(target))
    store(target, i + step, values[1], lanes(target))
    store(target, i + 2 * step, values[2], lanes(target))
    store(target, i + 3 * step, values[3], lanes(target))
    store(target, i + 4 * step, values[4], lanes(target))


@device(forceinline=True)
def _fill_edge(x, i, row, pixel, own, size, inside, zeros, edge):
    """`fill_edge`, without a choice where `own` is a constant."""
    h, w, DH, DW, H, W = inside
    i, h, w, L = opaque(i), opaque(h), opaque(w), lanes(edge)
    for r in range(size):
        row_inside = (h + r * DH >= 0) & (h + r * DH < H)
        for column in range(size):
            here = row_inside & (w + column * DW >= 0) & (w + column * DW < W)
            store(edge, (r * size + column) * L, load_inside(x, i + r * row + column * pixel, own, here, zeros), L)


@device(forceinline=True)
def fill_edge(x, i, row, pixel, own, size, inside, zeros, edge):
    """Copies size x size pixels of a tile at x[i], `own` of a vector's channels, to `edge`, with zeros where the tile is outside the image.

    `inside` = (h, w, DH, DW, H, W): where the tile starts in the image, from pixel to pixel, and the image's size.
    """
    if own < lanes(edge):
        _fill_edge(x, i, row, pixel, own, size, inside, zeros, edge)
    else:
        _fill_edge(x, i, row, pixel, lanes(edge), size, inside, zeros, edge)


@device(forceinline=True)
def zero_at_p_and_q_of_six(x, i, row, pixel):
    """`zero_at_p_and_q` of six columns' pixels i, i + 2 * row, i + 4 * row."""
    L = lanes(x)
    d, e, f = load_six(x, i, pixel, L), load_six(x, i + 2 * row, pixel, L), load_six(x, i + 4 * row, pixel, L)
    return (zero_at_p_and_q(d[0], e[0], f[0]), zero_at_p_and_q(d[1], e[1], f[1]), zero_at_p_and_q(d[2], e[2], f[2]),
            zero_at_p_and_q(d[3], e[3], f[3]), zero_at_p_and_q(d[4], e[4], f[4]), zero_at_p_and_q(d[5], e[5], f[5]))


@device(forceinline=True)
def store_two_rows(point, other, x, i, row, pixel, v, o, step):
    """The rows of B^T d B that belong to `point` and -`point`; x[i] is the tile's second row."""
    L = lanes(x)
    d1, d2 = load_six(x, i, pixel, L), load_six(x, i + row, pixel, L)
    d3, d4 = load_six(x, i + 2 * row, pixel, L), load_six(x, i + 3 * row, pixel, L)
    a0, b0 = zero_but_at(point, other, d1[0], d2[0], d3[0], d4[0])
    a1, b1 = zero_but_at(point, other, d1[1], d2[1], d3[1], d4[1])
    a2, b2 = zero_but_at(point, other, d1[2], d2[2], d3[2], d4[2])
    a3, b3 = zero_but_at(point, other, d1[3], d2[3], d3[3], d4[3])
    a4, b4 = zero_but_at(point, other, d1[4], d2[4], d3[4], d4[4])
    a5, b5 = zero_but_at(point, other, d1[5], d2[5], d3[5], d4[5])
    store_six(input_row(a0, a1, a2, a3, a4, a5), v, o, step)
    store_six(input_row(b0, b1, b2, b3, b4, b5), v, o + 6 * step, step)


@device(forceinline=True)
def input_tile(x, i, row, pixel, v, o, step):
    """B^T d B of the 6 x 6 pixels at x[i]; element e goes to v[o + e * step].

    By rows of the result, which read some pixels twice or three times: 36 numbers between the two products would not fit into registers.
    """
    store_six(input_row(*zero_at_p_and_q_of_six(x, i, row, pixel)), v, o, step)
    store_two_rows(P, Q2, x, i + row, row, pixel, v, o + 6 * step, step)
    store_two_rows(Q, P2, x, i + row, row, pixel, v, o + 18 * step, step)
    store_six(input_row(*zero_at_p_and_q_of_six(x, i + row, row, pixel)), v, o + 30 * step, step)


@device(forceinline=True)
def gradient_tile(g, i, row, pixel, v, o, step):
    """A g A^T of the 4 x 4 pixels at g[i], otherwise as `input_tile`."""
    L = lanes(g)
    c0, c1 = gradient_row(*load_four(g, i, row, L)), gradient_row(*load_four(g, i + pixel, row, L))
    c2, c3 = gradient_row(*load_four(g, i + 2 * pixel, row, L)), gradient_row(*load_four(g, i + 3 * pixel, row, L))
    store_six(gradient_row(c0[0], c1[0], c2[0], c3[0]), v, o, step)
    store_six(gradient_row(c0[1], c1[1], c2[1], c3[1]), v, o + 6 * step, step)
    store_six(gradient_row(c0[2], c1[2], c2[2], c3[2]), v, o + 12 * step, step)
    store_six(gradient_row(c0[3], c1[3], c2[3], c3[3]), v, o + 18 * step, step)
    store_six(gradient_row(c0[4], c1[4], c2[4], c3[4]), v, o + 24 * step, step)
    store_six(gradient_row(c0[5], c1[5], c2[5], c3[5]), v, o + 30 * step, step)


@device(forceinline=True)
def gradient_tile_of_two(g, i, row, pixel, v, o, step):
    """As `gradient_tile`, of 2 x 2 pixels."""
    L = lanes(g)
    c0 = gradient_row_of_two(load(g, i, L), load(g, i + row, L))
    c1 = gradient_row_of_two(load(g, i + pixel, L), load(g, i + pixel + row, L))
    store_six(gradient_row_of_two(c0[0], c1[0]), v, o, step)
    store_six(gradient_row_of_two(c0[1], c1[1]), v, o + 6 * step, step)
    store_six(gradient_row_of_two(c0[2], c1[2]), v, o + 12 * step, step)
    store_six(gradient_row_of_two(c0[3], c1[3]), v, o + 18 * step, step)
    store_six(gradient_row_of_two(c0[4], c1[4]), v, o + 24 * step, step)
    store_six(gradient_row_of_two(c0[5], c1[5]), v, o + 30 * step, step)


@device(forceinline=True)
def store_output(value, bias, low, y, o):
    value = value + bias
    store(y, o, select(value <= low, low, value), lanes(y))


@device(forceinline=True)
def store_four_outputs(values, bias, low, y, o, pixel):
    store_output(values[0], bias, low, y, o)
    store_output(values[1], bias, low, y, o + pixel)
    store_output(values[2], bias, low, y, o + 2 * pixel)
    store_output(values[3], bias, low, y, o + 3 * pixel)


@device(forceinline=True)
def output_tile(m, i, step, bias, low, y, o, row, pixel):
    """A^T m A + bias, and at least `low`, of the 36 vectors that lie `step` apart at m[i]; writes 4 x 4 pixels at y[o]."""
    L = lanes(m)
    c0, c1 = output_row(*load_six(m, i, 6 * step, L)), output_row(*load_six(m, i + step, 6 * step, L))
    c2, c3 = output_row(*load_six(m, i + 2 * step, 6 * step, L)), output_row(*load_six(m, i + 3 * step, 6 * step, L))
    c4, c5 = output_row(*load_six(m, i + 4 * step, 6 * step, L)), output_row(*load_six(m, i + 5 * step, 6 * step, L))
    store_four_outputs(output_row(c0[0], c1[0], c2[0], c3[0], c4[0], c5[0]), bias, low, y, o, pixel)
    store_four_outputs(output_row(c0[1], c1[1], c2[1], c3[1], c4[1], c5[1]), bias, low, y, o + row, pixel)
    store_four_outputs(output_row(c0[2], c1[2], c2[2], c3[2], c4[2], c5[2]), bias, low, y, o + 2 * row, pixel)
    store_four_outputs(output_row(c0[3], c1[3], c2[3], c3[3], c4[3], c5[3]), bias, low, y, o + 3 * row, pixel)


@device(forceinline=True)
def output_tile_of_two(m, i, step, bias, low, y, o, row, pixel):
    """As `output_tile`, to 2 x 2 pixels."""
    L = lanes(m)
    c0, c1 = output_row_of_two(*load_six(m, i, 6 * step, L)), output_row_of_two(*load_six(m, i + step, 6 * step, L))
    c2, c3 = output_row_of_two(*load_six(m, i + 2 * step, 6 * step, L)), output_row_of_two(*load_six(m, i + 3 * step, 6 * step, L))
    c4, c5 = output_row_of_two(*load_six(m, i + 4 * step, 6 * step, L)), output_row_of_two(*load_six(m, i + 5 * step, 6 * step, L))
    upper = output_row_of_two(c0[0], c1[0], c2[0], c3[0], c4[0], c5[0])
    lower = output_row_of_two(c0[1], c1[1], c2[1], c3[1], c4[1], c5[1])
    store_output(upper[0], bias, low, y, o)
    store_output(upper[1], bias, low, y, o + pixel)
    store_output(lower[0], bias, low, y, o + row)
    store_output(lower[1], bias, low, y, o + row + pixel)
