"""Activations over flat arrays, element by element.

Forward kernels read x and write y; backward kernels read g, the gradient of the output, and write d, that of the input. All arrays
of a call have the same size and order. Parallel over blocks of elements.
"""

import math

from numba import prange

from fastconv.kernels.elementary import exp, normal_tail, sigmoid, tanh
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.vector import block, blocks, fma, lanes, magnitude, select, without_negligible
from fastconv.kernels.vector_memory import load, store

# --- piecewise linear ----------------------------------------------------------------------------------------------------


@kernel
def relu_forward(x, y):
    """0 where x <= 0, else x: NaN stays."""
    for job in prange(blocks(x)):
        start, stop = block(x, job)
        for i in range(start, stop, lanes(x)):
            v = load(x, i, stop - i)
            store(y, i, select(v <= 0.0, 0.0, v), stop - i)


@kernel
def relu_backward(g, x, d):
    """0 where x <= 0, else g. x may be the input or the output."""
    for job in prange(blocks(x)):
        start, stop = block(x, job)
        for i in range(start, stop, lanes(x)):
            store(d, i, select(load(x, i, stop - i) <= 0.0, 0.0, load(g, i, stop - i)), stop - i)


@kernel
def add(a, b, low, y):
    """a + b, at least `low`: 0 is ReLU of the sum, -inf nothing."""
    for job in prange(blocks(y)):
        start, stop = block(y, job)
        for i in range(start, stop, lanes(y)):
            v = load(a, i, stop - i) + load(b, i, stop - i)
            store(y, i, select(v <= low, low, v), stop - i)


@kernel
def leaky_relu_forward(x, y, slope):
    """x where x > 0, else slope * x."""
    for job in prange(blocks(x)):
        start, stop = block(x, job)
        for i in range(start, stop, lanes(x)):
            v = load(x, i, stop - i)
            store(y, i, select(v > 0.0, v, v * slope), stop - i)


@kernel
def leaky_relu_backward(g, x, d, slope):
    """g where x > 0, else slope * g."""
    for job in prange(blocks(x)):
        start, stop = block(x, job)
        for i in range(start, stop, lanes(x)):
            gradient = load(g, i, stop - i)
            store(d, i, select(load(x, i, stop - i) > 0.0, gradient, gradient * slope), stop - i)


# --- sigmoid, tanh, silu -------------------------------------------------------------------------------------------------


@kernel
def sigmoid_forward(x, y):
    """1 / (1 + exp(-x))."""
    for job in prange(blocks(x)):
        start, stop = block(x, job)
        for i in range(start, stop, lanes(x)):
            store(y, i, sigmoid(load(x, i, stop - i)), stop - i)


@kernel
def sigmoid_backward(g, y, d):
    """g * y * (1 - y), from the output y."""
    for job in prange(blocks(y)):
        start, stop = block(y, job)
        for i in range(start, stop, lanes(y)):
            s = load(y, i, stop - i)
            store(d, i, without_negligible(load(g, i, stop - i) * s * (1.0 - s)), stop - i)


@kernel
def tanh_forward(x, y):
    """tanh(x)."""
    for job in prange(blocks(x)):
        start, stop = block(x, job)
        for i in range(start, stop, lanes(x)):
            store(y, i, tanh(load(x, i, stop - i)), stop - i)


@kernel
def tanh_backward(g, y, d):
    """g * (1 - y * y), from the output y."""
    for job in prange(blocks(y)):
        start, stop = block(y, job)
        for i in range(start, stop, lanes(y)):
            t = load(y, i, stop - i)
            store(d, i, load(g, i, stop - i) * (1.0 - t * t), stop - i)


@kernel
def silu_forward(x, y):
    """x * sigmoid(x)."""
    for job in prange(blocks(x)):
        start, stop = block(x, job)
        for i in range(start, stop, lanes(x)):
            v = load(x, i, stop - i)
            store(y, i, v * sigmoid(v), stop - i)


@kernel
def silu_backward(g, x, d):
    """g * s * (1 + x * (1 - s)) with s = sigmoid(x)."""
    for job in prange(blocks(x)):
        start, stop = block(x, job)
        for i in range(start, stop, lanes(x)):
            v = load(x, i, stop - i)
            s = sigmoid(v)
            store(d, i, load(g, i, stop - i) * s * fma(v, 1.0 - s, 1.0), stop - i)


# --- gelu ----------------------------------------------------------------------------------------------------------------

TANH_SCALE, TANH_CUBIC = 2 * math.sqrt(2 / math.pi), 0.044715
PDF_SCALE = 1 / math.sqrt(2 * math.pi)


@device(forceinline=True)
def _normal_cdf(v):
    tail = normal_tail(magnitude(v))
    return select(v < 0.0, tail, 1.0 - tail)


@kernel
def gelu_forward(x, y):
    """x * Phi(x), Phi the normal distribution."""
    for job in prange(blocks(x)):
        start, stop = block(x, job)
        for i in range(start, stop, lanes(x)):
            v = load(x, i, stop - i)
            store(y, i, v * _normal_cdf(v), stop - i)


@kernel
def gelu_backward(g, x, d):
    """g * (Phi(x) + x * phi(x)), phi the density of Phi."""
    for job in prange(blocks(x)):
        start, stop = block(x, job)
        for i in range(start, stop, lanes(x)):
            v = load(x, i, stop - i)
            slope = fma(v * PDF_SCALE, exp(v * (v * -0.5)), _normal_cdf(v))
            store(d, i, load(g, i, stop - i) * slope, stop - i)


@kernel
def gelu_tanh_forward(x, y):
    """x * (1 + tanh(u)) / 2 = x * sigmoid(2u) with u = sqrt(2/pi) * (x + 0.044715 * x**3)."""
    for job in prange(blocks(x)):
        start, stop = block(x, job)
        for i in range(start, stop, lanes(x)):
            v = load(x, i, stop - i)
            store(y, i, v * sigmoid(v * TANH_SCALE * fma(v * v, TANH_CUBIC, 1.0)), stop - i)


@kernel
def gelu_tanh_backward(g, x, d):
    """g * (s + x * s * (1 - s) * 2u') with s = sigmoid(2u), u as in the forward kernel."""
    for job in prange(blocks(x)):
        start, stop = block(x, job)
        for i in range(start, stop, lanes(x)):
            v = load(x, i, stop - i)
            square = v * v
            s = sigmoid(v * TANH_SCALE * fma(square, TANH_CUBIC, 1.0))
            inner = TANH_SCALE * fma(square, 3 * TANH_CUBIC, 1.0)
            store(d, i, load(g, i, stop - i) * fma(v * s * (1.0 - s), inner, s), stop - i)
