"""The transforms of Winograd's F(4x4, 3x3), F(3x3, 4x4) and F(2x2, 5x5) of a tile of a vector of channels; see conv_winograd.

Y = A^T [(G w G^T) * (B^T d B)] A for a tile d (6, 6), a filter w of 3 x 3, 4 x 4 or 5 x 5 and outputs Y of 4 x 4, 3 x 3 or 2 x 2, * element
by element; winograd_rows has the products with one matrix.
"""

from fastconv.kernels.jit import device
from fastconv.kernels.vector import lanes, select
from fastconv.kernels.vector_memory import load, load_inside, opaque, store
from fastconv.kernels.winograd_rows import (
    P2,
    Q2,
    P,
    Q,
    gradient_row,
    gradient_row_of_three,
    gradient_row_of_two,
    input_row,
    output_row,
    output_row_of_three,
    output_row_of_two,
    zero_at_p_and_q,
    zero_but_at,
)


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
def store_four(values, target, i, step):
    i = opaque(i)
    store(target, i, values[0], lanes(target))
    store(target, i + step, values[1], lanes(target))
    store(target, i + 2 * step, values[2], lanes(target))
    store(target, i + 3 * step, values[3], lanes(target))


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
def gradient_tile_of_three(g, i, row, pixel, v, o, step):
    """As `gradient_tile`, of 3 x 3 pixels."""
    L = lanes(g)
    c0, c1 = gradient_row_of_three(*load_three(g, i, row, L)), gradient_row_of_three(*load_three(g, i + pixel, row, L))
    c2 = gradient_row_of_three(*load_three(g, i + 2 * pixel, row, L))
    store_six(gradient_row_of_three(c0[0], c1[0], c2[0]), v, o, step)
    store_six(gradient_row_of_three(c0[1], c1[1], c2[1]), v, o + 6 * step, step)
    store_six(gradient_row_of_three(c0[2], c1[2], c2[2]), v, o + 12 * step, step)
    store_six(gradient_row_of_three(c0[3], c1[3], c2[3]), v, o + 18 * step, step)
    store_six(gradient_row_of_three(c0[4], c1[4], c2[4]), v, o + 24 * step, step)
    store_six(gradient_row_of_three(c0[5], c1[5], c2[5]), v, o + 30 * step, step)


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
def store_three_outputs(values, bias, low, y, o, pixel):
    store_output(values[0], bias, low, y, o)
    store_output(values[1], bias, low, y, o + pixel)
    store_output(values[2], bias, low, y, o + 2 * pixel)


@device(forceinline=True)
def store_four_outputs(values, bias, low, y, o, pixel):
    store_three_outputs(values, bias, low, y, o, pixel)
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
def output_tile_of_three(m, i, step, bias, low, y, o, row, pixel):
    """As `output_tile`, to 3 x 3 pixels."""
    L = lanes(m)
    c0, c1 = output_row_of_three(*load_six(m, i, 6 * step, L)), output_row_of_three(*load_six(m, i + step, 6 * step, L))
    c2, c3 = output_row_of_three(*load_six(m, i + 2 * step, 6 * step, L)), output_row_of_three(*load_six(m, i + 3 * step, 6 * step, L))
    c4, c5 = output_row_of_three(*load_six(m, i + 4 * step, 6 * step, L)), output_row_of_three(*load_six(m, i + 5 * step, 6 * step, L))
    store_three_outputs(output_row_of_three(c0[0], c1[0], c2[0], c3[0], c4[0], c5[0]), bias, low, y, o, pixel)
    store_three_outputs(output_row_of_three(c0[1], c1[1], c2[1], c3[1], c4[1], c5[1]), bias, low, y, o + row, pixel)
    store_three_outputs(output_row_of_three(c0[2], c1[2], c2[2], c3[2], c4[2], c5[2]), bias, low, y, o + 2 * row, pixel)


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
