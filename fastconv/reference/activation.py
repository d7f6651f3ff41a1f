"""Activations: one number becomes one number; and softmax, which makes a distribution of a row.

Each derivative stands below its function. NaN stays NaN everywhere.
"""

import math

import numpy as np


def relu(input):
    """x where x > 0, else 0."""
    return np.maximum(input, 0)


def relu_backward(grad_output, input):
    """1 where x > 0, else 0. A NaN passes the gradient on, as in PyTorch."""
    return np.where(input <= 0, input.dtype.type(0), grad_output)


def leaky_relu(input, negative_slope=0.01):
    """x where x > 0, else negative_slope * x."""
    return np.where(input > 0, input, input * input.dtype.type(negative_slope))


def leaky_relu_backward(grad_output, input, negative_slope=0.01):
    """1 where x > 0, else negative_slope."""
    return np.where(input > 0, grad_output, grad_output * input.dtype.type(negative_slope))


def sigmoid(input):
    """1 / (1 + exp(-x))."""
    with np.errstate(over="ignore"):  # exp(-x) is infinite for a very negative x, and 1 / inf = 0 is right
        return 1 / (1 + np.exp(-input))


def sigmoid_backward(grad_output, input):
    """s (1 - s)."""
    s = sigmoid(input)
    return grad_output * s * (1 - s)


def tanh(input):
    """The hyperbolic tangent."""
    return np.tanh(input)


def tanh_backward(grad_output, input):
    """1 - tanh(x)^2."""
    return grad_output * (1 - np.tanh(input) ** 2)


def silu(input):
    """x * sigmoid(x)."""
    return input * sigmoid(input)


def silu_backward(grad_output, input):
    """s + x s (1 - s)."""
    s = sigmoid(input)
    return grad_output * (s + input * s * (1 - s))


_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _normal_cdf(x):
    """Probability that a standard normal variable is below x."""
    return (0.5 * _erfc(-x / math.sqrt(2))).astype(x.dtype)


def _normal_pdf(x):
    """Its density at x."""
    return np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _tanh_inner(x):
    """sqrt(2/pi) (x + 0.044715 x^3): what the tanh approximation of the normal distribution takes the tanh of; and its derivative."""
    factor = math.sqrt(2 / math.pi)
    return factor * (x + 0.044715 * x**3), factor * (1 + 3 * 0.044715 * x**2)


def gelu(input, approximate="none"):
    """x Phi(x), Phi the normal distribution; "tanh" approximates it by (1 + tanh(...)) / 2."""
    if approximate == "tanh":
        return 0.5 * input * (1 + np.tanh(_tanh_inner(input)[0]))
    return input * _normal_cdf(input)


def gelu_backward(grad_output, input, approximate="none"):
    """Phi(x) + x phi(x); with "tanh", (1 + t)/2 + x (1 - t^2)/2 * inner'(x)."""
    if approximate == "tanh":
        inner, slope = _tanh_inner(input)
        t = np.tanh(inner)
        return grad_output * (0.5 * (1 + t) + 0.5 * input * (1 - t**2) * slope)
    return grad_output * (_normal_cdf(input) + input * _normal_pdf(input))


def softmax(input, dim=-1):
    """exp(x_i) / sum over j of exp(x_j). The maximum is taken off first: it cancels, and nothing overflows."""
    powers = np.exp(input - input.max(axis=dim, keepdims=True))
    return powers / powers.sum(axis=dim, keepdims=True)


def softmax_backward(grad_output, output, dim=-1):
    """s (g - sum over j of g_j s_j)."""
    return output * (grad_output - (grad_output * output).sum(axis=dim, keepdims=True))


def log_softmax(input, dim=-1):
    """x_i - log(sum over j of exp(x_j)), the maximum taken off first."""
    shifted = input - input.max(axis=dim, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=dim, keepdims=True))


def log_softmax_backward(grad_output, output, dim=-1):
    """g - exp(output) * sum over j of g_j."""
    return grad_output - np.exp(output) * grad_output.sum(axis=dim, keepdims=True)
