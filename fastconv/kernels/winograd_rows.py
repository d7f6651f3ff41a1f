"""The transforms of Winograd's F(4x4, 3x3), F(3x3, 4x4) and F(2x2, 5x5), of a row or column; see winograd_tile.

All have the same six points, so B is the same; G and A have a column for each tap and output, powers of the points.
"""

from fastconv.kernels.jit import device
from fastconv.kernels.processor import ADDERS
from fastconv.kernels.vector import fma

# Points 0, +-P, +-Q and infinity. 5/8 and 3/2 halve the error of the usual 1 and 2 (5e-7 against 1.1e-6, root mean square, 64 channels), at
# the same number of operations, and all products of them that stand below are exact: Alam et al. 2022 (ACM TODS 48, section 4) search so.
P, Q = 5 / 8, 3 / 2
P2, Q2, P3, Q3, P4, Q4 = P**2, Q**2, P**3, Q**3, P**4, Q**4
BOTH, PRODUCT = P2 + Q2, P2 * Q2
SHARE_P, SHARE_Q = 1 / (2 * P2 * (P2 - Q2)), 1 / (2 * Q2 * (Q2 - P2))


@device(forceinline=True)
def zero_at_p_and_q(d0, d2, d4):
    """The polynomial that is zero at +-P and +-Q: at all points but 0; one number further in a row, at all but infinity."""
    return fma(d0, PRODUCT, fma(d2, -BOTH, d4))


@device(forceinline=True)
def at_both(point, odd, even):
    """even + point * odd and even - point * odd: a multiplication and, for ADDERS, two additions, else two multiply-additions."""
    if ADDERS:
        part = odd * point
        return even + part, even - part
    return fma(odd, point, even), fma(odd, -point, even)


@device(forceinline=True)
def zero_but_at(point, other, d1, d2, d3, d4):
    """Those that are zero at all points but `point`, and at all but -`point`; `other` is the square of the other two."""
    even, odd = fma(d2, -other, d4), fma(d1, -other, d3)
    return at_both(point, odd, even)


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
def output_row_of_three(m0, m1, m2, m3, m4, m5):
    """A^T m, six numbers to three."""
    even_p, odd_p, even_q, odd_q = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return m0 + even_p + even_q, fma(odd_q, Q, odd_p * P), fma(even_q, Q2, fma(even_p, P2, m5))


@device(forceinline=True)
def output_row_of_two(m0, m1, m2, m3, m4, m5):
    """A^T m, six numbers to two."""
    return m0 + (m1 + m2) + (m3 + m4), fma(m3 - m4, Q, fma(m1 - m2, P, m5))


@device(forceinline=True)
def gradient_row(g0, g1, g2, g3):
    """A g, four numbers to six: the transpose of `output_row`."""
    even_p, odd_p = fma(g2, P2, g0), fma(g3, P2, g1)
    even_q, odd_q = fma(g2, Q2, g0), fma(g3, Q2, g1)
    at_p, at_q = at_both(P, odd_p, even_p), at_both(Q, odd_q, even_q)
    return g0, at_p[0], at_p[1], at_q[0], at_q[1], g3


@device(forceinline=True)
def gradient_row_of_three(g0, g1, g2):
    """A g, three numbers to six: the transpose of `output_row_of_three`."""
    at_p, at_q = at_both(P, g1, fma(g2, P2, g0)), at_both(Q, g1, fma(g2, Q2, g0))
    return g0, at_p[0], at_p[1], at_q[0], at_q[1], g2


@device(forceinline=True)
def gradient_row_of_two(g0, g1):
    """A g, two numbers to six: the transpose of `output_row_of_two`."""
    at_p, at_q = at_both(P, g1, g0), at_both(Q, g1, g0)
    return g0, at_p[0], at_p[1], at_q[0], at_q[1], g1


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
def weight_row_of_four(w0, w1, w2, w3):
    """G w, four numbers to six."""
    even_p, even_q = fma(w2, P2, w0) * SHARE_P, fma(w2, Q2, w0) * SHARE_Q
    odd_p, odd_q = fma(w3, P3, w1 * P) * SHARE_P, fma(w3, Q3, w1 * Q) * SHARE_Q
    return w0 * (1 / PRODUCT), even_p + odd_p, even_p - odd_p, even_q + odd_q, even_q - odd_q, w3


@device(forceinline=True)
def weight_gradient_row_of_four(m0, m1, m2, m3, m4, m5):
    """G^T m, six numbers to four: the transpose of `weight_row_of_four`."""
    even_p, odd_p = (m1 + m2) * SHARE_P, (m1 - m2) * SHARE_P
    even_q, odd_q = (m3 + m4) * SHARE_Q, (m3 - m4) * SHARE_Q
    return (fma(m0, 1 / PRODUCT, even_p + even_q), fma(odd_p, P, odd_q * Q), fma(even_p, P2, even_q * Q2),
            fma(odd_p, P3, fma(odd_q, Q3, m5)))


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
