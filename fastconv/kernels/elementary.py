"""Exponential, logarithm, hyperbolic tangent, the logistic function and the normal distribution of SIMD vectors.

float32: range reduction and a polynomial, no branch, no table. The polynomials are minimax fits of the relative error (Lawson's
iteration in float64), rounded to float32. Largest error over every 64th of all float32 inputs, in units in the last place:
exp 1.1, log 0.9, log1p 1.5, tanh 1.5, sigmoid 2.2, normal_tail 4 up to v = 1, 12 up to 5, 32 in the far tail.
Infinities and NaN behave as in C; results below 2**-126 are rounded to subnormals, not to zero.
float64: the C library, lane by lane, to its accuracy.
"""

import math

from numba.core import types
from numba.extending import overload

from fastconv.kernels.vector import (
    bits,
    fma,
    from_bits,
    libm_erfc,
    libm_exp,
    libm_log,
    libm_tanh,
    magnitude,
    nearest,
    select,
    to_float,
    to_int,
)
from fastconv.kernels.vector_type import VectorType

INLINE = {"error_model": "numpy", "forceinline": True}
LOG2_E = 1 / math.log(2)
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4  # ln 2 = HIGH + LOW; HIGH has 9 bits, so n * HIGH is exact
ROOT_HALF_BITS, ONE_BITS = 0x3F3504F3, 0x3F800000  # sqrt(1/2) and 1 as float32


def _by_dtype(stub, single, double):
    """Make `stub`, called in a kernel with a vector, mean `single` or `double`."""

    @overload(stub, jit_options=INLINE)
    def choose(v):
        if isinstance(v, VectorType):
            return single if v.dtype == types.float32 else double
        return None


def exp(v):
    """e**v."""


def log(v):
    """Natural logarithm."""


def log1p(v):
    """log(1 + v) for -1 <= v <= 1."""


def tanh(v):
    """Hyperbolic tangent."""


def sigmoid(v):
    """1 / (1 + e**-v)."""


def normal_tail(v):
    """Probability that a standard normal variable is above `v`, for v >= 0."""


# --- float32 -------------------------------------------------------------------------------------------------------------


def exp_single(v):
    """2**n * e**r with n = round(v / ln 2), |r| <= ln 2 / 2. 2**n is applied in two halves, which reaches subnormals and infinity.

    What is 0 is not multiplied until it is: a result below all normal numbers takes Intel's processors 150 cycles.
    """
    vanishing = v < -105.0
    x = select(v > 90.0, 90.0, select(vanishing, 0.0, v))  # NaN compares false and stays
    n = nearest(x * LOG2_E)
    r = fma(n, -LN2_LOW, fma(n, -LN2_HIGH, x))
    q = fma(fma(fma(fma(r, 1.39505996e-3, 8.36895406e-3), r, 4.16662060e-2), r, 1.66665182e-1), r, 0.5)
    k = to_int(n)
    half = k >> 1
    result = (1.0 + fma(q * r, r, r)) * from_bits((half + 127) << 23) * from_bits((k - half + 127) << 23)
    return select(vanishing, 0.0, result)


def log_single(v):
    """n ln 2 + log(1 + f) with v = 2**n (1 + f), sqrt(1/2) <= 1 + f < sqrt(2)."""
    tiny = v < 1.17549435e-38
    pattern = bits(select(tiny, v * 8388608.0, v)) + (ONE_BITS - ROOT_HALF_BITS)
    n = to_float((pattern >> 23) - 127) - select(tiny, v * 0.0 + 23.0, 0.0)
    f = from_bits((pattern & 0x7FFFFF) + ROOT_HALF_BITS) - 1.0
    p = fma(fma(fma(f, -7.63442963e-2, 1.27615497e-1), f, -1.31601945e-1), f, 1.42017618e-1)
    p = fma(fma(fma(fma(p, f, -1.66233569e-1), f, 2.00012267e-1), f, -2.50008225e-1), f, 3.33333313e-1)
    square = f * f
    small = fma(p * f, square, fma(n, LN2_LOW, square * -0.5))
    result = fma(n, LN2_HIGH, f + small)
    result = select(v == 0.0, -math.inf, select(v < math.inf, result, v))
    return select(v < 0.0, math.nan, result)


def tanh_single(v):
    """An odd polynomial near 0, elsewhere 1 - 2 / (e**2|v| + 1)."""
    x, square = magnitude(v), v * v
    p = fma(fma(fma(square, -6.28246693e-3, 2.10777540e-2), square, -5.38538583e-2), square, 1.33326024e-1)
    near = fma(v * square, fma(p, square, -3.33333194e-1), v)
    far = 1.0 - 2.0 / (exp(x + x) + 1.0)
    return select(x < 0.55, near, select(v < 0.0, 0.0 - far, far))


def normal_tail_single(v):
    """e**(-v*v/2) times a polynomial of 0.33 v / (1 + 0.33 v), the form of Hastings 1955 (sheet 43).

    The part of v*v that rounding takes is given back: at v = 13 it would be worth 80 units in the last place.
    """
    x = select(v > 20.0, 20.0, v)
    scaled = x * 0.33
    u = scaled / (1.0 + scaled)
    p = fma(fma(fma(fma(u, 2.58790441e-2, -8.42998847e-2), u, 6.51493445e-2), u, 2.22519934e-2), u, 6.52993843e-2)
    p = fma(fma(fma(fma(fma(p, u, -1.54287115e-1), u, -3.17839563e-1), u, 1.08676946), u, -1.20891631), u, 0.5)
    half = x * -0.5
    high = x * half
    low = fma(x, half, 0.0 - high)
    e = exp(high)
    return p * fma(e, low, e)


# --- float64 -------------------------------------------------------------------------------------------------------------


def exp_double(v):
    return libm_exp(v)


def log_double(v):
    return libm_log(v)


def tanh_double(v):
    return libm_tanh(v)


def normal_tail_double(v):
    return 0.5 * libm_erfc(v * math.sqrt(0.5))


# --- both ----------------------------------------------------------------------------------------------------------------


def log1p_any(v):
    """log(u) plus what rounding took from u = 1 + v (Kahan)."""
    u = 1.0 + v
    return log(u) + select(u > 0.0, (v - (u - 1.0)) / u, 0.0)


def sigmoid_any(v):
    """With e = e**-|v| <= 1, which cannot overflow: 1 / (1 + e), or e / (1 + e) for negative v."""
    e = exp(0.0 - magnitude(v))
    return select(v < 0.0, e, 1.0) / (1.0 + e)


_by_dtype(exp, exp_single, exp_double)
_by_dtype(log, log_single, log_double)
_by_dtype(tanh, tanh_single, tanh_double)
_by_dtype(normal_tail, normal_tail_single, normal_tail_double)
_by_dtype(log1p, log1p_any, log1p_any)
_by_dtype(sigmoid, sigmoid_any, sigmoid_any)
