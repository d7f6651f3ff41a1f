"""The transforms of Winograd's F(4x4, 3x3) and F(2x2, 5x5): of a row or column, and of a tile of a vector of channels; see conv_winograd.

Y = A^T [(G w G^T) * (B^T d B)] A for a tile d (6, 6), a filter w (3, 3) or (5, 5) and outputs Y (4, 4) or (2, 2), * element by element.
Both have the same six points, so B is the same; G and A have a column for each tap and output, powers of the points.
"""

from fastconv.kernels.jit import device
from fastconv.kernels.vector import fma, lanes, select
from fastconv.kernels.vector_memory import load, load_inside, store

# Points 0, +-P, +-Q and infinity. 5/8 and 3/2 halve the error of the usual 1 and 2 (5e-7 against 1.1e-6, root mean square, 64 channels), at
# the same number of operations, and all products of them that stand below are exact: Alam et al. 2022 (ACM TODS 48, section 4) search so.
P, Q = 5 / 8, 3 / 2
P2, Q2, P3, Q3, P4, Q4 = P**2, Q**2, P**3, Q**3, P**4, Q**4
BOTH, PRODUCT = P2 + Q2, P2 * Q2
SHARE_P, SHARE_Q = 1 / (2 * P2 * (P2 - Q2)), 1 / (2 * Q2 * (Q2 - P2))


# --- one row or column -----------------------------------------------------------------------------------------------------


@device(forceinline=True)
def input_row(d0, d1, d2, d3, d4, d5):
    """B^T d, six numbers to six: the polynomials that are zero at all points but one."""
    even_p, odd_p = fma(d2, -Q2, d4), fma(d1, -Q2, d3)
    even_q, odd_q = fma(d2, -P2, d4), fma(d1, -P2, d3)
    return (fma(d0, PRODUCT, fma(d2, -BOTH, d4)), fma(odd_p, P, even_p), fma(odd_p, -P, even_p), fma(odd_q, Q, even_q),
            fma(odd_q, -Q, even_q), fma(d1, PRODUCT, fma(d3, -BOTH, d5)))


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
def load_five(x, i, step, own):
    return (load(x, i, own), load(x, i + step, own), load(x, i + 2 * step, own), load(x, i + 3 * step, own), load(x, i + 4 * step, own))


@device(forceinline=True)
def load_six(x, i, step, own):
    return (load(x, i, own), load(x, i + step, own), load(x, i + 2 * step, own),
            load(x, i + 3 * step, own), load(x, i + 4 * step, own), load(x, i + 5 * step, own))


@device(forceinline=True)
def store_six(values, target, i, step):
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
def load_pixel(x, i, row, pixel, own, r, column, inside, zeros):
    """`own` channels of pixel (r, column) of a tile at x[i], zeros where that is outside the image: `inside` = (h, w, DH, DW, H, W), where
    the tile starts in the image, from pixel to pixel, and the image's size."""
    h, w, DH, DW, H, W = inside
    here = (h + r * DH >= 0) & (h + r * DH < H) & (w + column * DW >= 0) & (w + column * DW < W)
    return load_inside(x, i + r * row + column * pixel, own, here, zeros)


@device(forceinline=True)
def input_tile(x, i, row, pixel, own, inside, zeros, half, v, o, step):
    """B^T d B of the 6 x 6 pixels at x[i], `own` of a vector's channels, `inside` as in `load_pixel`; element e goes to v[o + e * step].
    `half` is scratch. Where `own` and `inside` are constants nothing is masked or chosen."""
    L = lanes(half)
    for column in range(6):
        pixels = (load_pixel(x, i, row, pixel, own, 0, column, inside, zeros), load_pixel(x, i, row, pixel, own, 1, column, inside, zeros),
                  load_pixel(x, i, row, pixel, own, 2, column, inside, zeros), load_pixel(x, i, row, pixel, own, 3, column, inside, zeros),
                  load_pixel(x, i, row, pixel, own, 4, column, inside, zeros), load_pixel(x, i, row, pixel, own, 5, column, inside, zeros))
        store_six(input_row(*pixels), half, column * L, 6 * L)
    for r in range(6):
        store_six(input_row(*load_six(half, r * 6 * L, L, L)), v, o + r * 6 * step, step)


@device(forceinline=True)
def gradient_tile(g, i, row, pixel, own, inside, zeros, half, v, o, step):
    """A g A^T of the 4 x 4 pixels at g[i], otherwise as `input_tile`."""
    L = lanes(half)
    for column in range(4):
        pixels = (load_pixel(g, i, row, pixel, own, 0, column, inside, zeros), load_pixel(g, i, row, pixel, own, 1, column, inside, zeros),
                  load_pixel(g, i, row, pixel, own, 2, column, inside, zeros), load_pixel(g, i, row, pixel, own, 3, column, inside, zeros))
        store_six(gradient_row(*pixels), half, column * L, 4 * L)
    for r in range(6):
        a = r * 4 * L
        values = gradient_row(load(half, a, L), load(half, a + L, L), load(half, a + 2 * L, L), load(half, a + 3 * L, L))
        store_six(values, v, o + r * 6 * step, step)


@device(forceinline=True)
def gradient_tile_of_two(g, i, row, pixel, own, inside, zeros, half, v, o, step):
    """As `gradient_tile`, of 2 x 2 pixels."""
    L = lanes(half)
    for column in range(2):
        pixels = load_pixel(g, i, row, pixel, own, 0, column, inside, zeros), load_pixel(g, i, row, pixel, own, 1, column, inside, zeros)
        store_six(gradient_row_of_two(*pixels), half, column * L, 2 * L)
    for r in range(6):
        a = r * 2 * L
        store_six(gradient_row_of_two(load(half, a, L), load(half, a + L, L)), v, o + r * 6 * step, step)


@device(forceinline=True)
def output_tile(m, i, step, bias, low, half, y, o, row, pixel):
    """A^T m A + bias, and at least `low`, of the 36 vectors that lie `step` apart at m[i]; writes 4 x 4 pixels at y[o]."""
    L = lanes(half)
    for column in range(6):
        values = output_row(*load_six(m, i + column * step, 6 * step, L))
        store(half, column * L, values[0], L)
        store(half, (6 + column) * L, values[1], L)
        store(half, (12 + column) * L, values[2], L)
        store(half, (18 + column) * L, values[3], L)
    for r in range(4):
        v0, v1, v2, v3 = output_row(*load_six(half, r * 6 * L, L, L))
        v0, v1, v2, v3 = v0 + bias, v1 + bias, v2 + bias, v3 + bias
        p = o + r * row
        store(y, p, select(v0 <= low, low, v0), L)
        store(y, p + pixel, select(v1 <= low, low, v1), L)
        store(y, p + 2 * pixel, select(v2 <= low, low, v2), L)
        store(y, p + 3 * pixel, select(v3 <= low, low, v3), L)


@device(forceinline=True)
def output_tile_of_two(m, i, step, bias, low, half, y, o, row, pixel):
    """As `output_tile`, to 2 x 2 pixels."""
    L = lanes(half)
    for column in range(6):
        values = output_row_of_two(*load_six(m, i + column * step, 6 * step, L))
        store(half, column * L, values[0], L)
        store(half, (6 + column) * L, values[1], L)
    for r in range(2):
        v0, v1 = output_row_of_two(*load_six(half, r * 6 * L, L, L))
        v0, v1 = v0 + bias, v1 + bias
        store(y, o + r * row, select(v0 <= low, low, v0), L)
        store(y, o + r * row + pixel, select(v1 <= low, low, v1), L)
