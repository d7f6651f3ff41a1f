"""Activations, element by element over arrays of any shape.

Results have the shape of the input and its memory order, C or channels-last; NaN stays NaN.
"""

import numpy as np

from fastconv.functional.flat import TRANSCENDENTAL, Flat
from fastconv.functional.options import choice, number
from fastconv.kernels import activation as kernels
from fastconv.memory import empty


def _forward(kernel, cost, input, *options):
    x = Flat("input", input)
    y = empty(x.values.shape, x.values.dtype)
    kernel(cost * y.size, x.values, y, *options)
    return x.restore(y)


def _backward(kernel, cost, grad_output, input, *options):
    x = Flat("input", input)
    d = empty(x.values.shape, x.values.dtype)
    kernel(cost * d.size, x.beside("grad_output", grad_output), x.values, d, *options)
    return x.restore(d)


# --- piecewise linear ----------------------------------------------------------------------------------------------------


def relu(input):
    """Rectified linear unit, max(input, 0).

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64

    Returns
    -------
    ndarray of the same shape, dtype and memory order

    Raises
    ------
    TypeError
        When input is not an array of float32 or float64.

    Examples
    --------
    >>> relu(np.array([-1.0, 2.0]))
    array([0., 2.])
    """
    return _forward(kernels.relu_forward, 1, input)


def relu_in_place(output):
    """`relu` of an array that nobody else has, in its own memory where that is contiguous."""
    x = Flat("output", output)
    kernels.relu_forward(x.values.size, x.values, x.values)
    return x.restore(x.values)


def add(a, b, *, relu=False):
    """a + b of two arrays of the same shape and dtype, or `relu` of it; in the memory order of a."""
    x = Flat("a", a)
    y = empty(x.values.shape, x.values.dtype)
    kernels.add(2 * y.size, x.values, x.beside("b", b), 0.0 if relu else -np.inf, y)
    return x.restore(y)


def relu_backward(grad_output, input):
    """Gradient of `relu`: grad_output where input > 0, else 0; a NaN in input lets it pass.

    Parameters
    ----------
    grad_output : ndarray of any shape, float32 or float64
    input : ndarray of the same shape and dtype
        The input of `relu`, or its output: their signs agree.

    Returns
    -------
    ndarray of the same shape and dtype, in the memory order of input

    Raises
    ------
    ValueError, TypeError
        When shapes or dtypes differ.
    """
    return _backward(kernels.relu_backward, 1, grad_output, input)


def leaky_relu(input, negative_slope=0.01):
    """The input where it is positive, negative_slope * input elsewhere.

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64
    negative_slope : float

    Returns
    -------
    ndarray of the same shape, dtype and memory order

    Raises
    ------
    TypeError, ValueError
        When input is not an array of float32 or float64, or negative_slope is not a finite number.
    """
    return _forward(kernels.leaky_relu_forward, 1, input, number("negative_slope", negative_slope))


def leaky_relu_backward(grad_output, input, negative_slope=0.01):
    """Gradient of `leaky_relu`: grad_output where input > 0, negative_slope * grad_output elsewhere.

    Parameters
    ----------
    grad_output, input : ndarrays of the same shape, float32 or float64
    negative_slope : float

    Returns
    -------
    ndarray of the same shape and dtype, in the memory order of input

    Raises
    ------
    ValueError, TypeError
        When shapes or dtypes differ.
    """
    return _backward(kernels.leaky_relu_backward, 1, grad_output, input, number("negative_slope", negative_slope))


# --- smooth --------------------------------------------------------------------------------------------------------------


def sigmoid(input):
    """Logistic function, 1 / (1 + exp(-input)).

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64

    Returns
    -------
    ndarray of the same shape, dtype and memory order

    Raises
    ------
    TypeError
        When input is not an array of float32 or float64.

    Notes
    -----
    Computed from exp(-abs(input)), which cannot overflow; in float32 within 2.2 units in the last place.
    """
    return _forward(kernels.sigmoid_forward, TRANSCENDENTAL, input)


def sigmoid_backward(grad_output, input, *, output=None):
    """Gradient of `sigmoid`: grad_output * s * (1 - s) with s = sigmoid(input).

    Parameters
    ----------
    grad_output, input : ndarrays of the same shape, float32 or float64
    output : ndarray of the same shape and dtype, optional
        sigmoid(input), when it is known: it is not computed again, and input is not looked at.

    Returns
    -------
    ndarray of the same shape and dtype, in the memory order of input or output; magnitudes below 1e-31 (float64: 1e-292) are 0

    Raises
    ------
    ValueError, TypeError
        When shapes or dtypes differ.
    """
    return _backward(kernels.sigmoid_backward, 1, grad_output, sigmoid(input) if output is None else output)


def tanh(input):
    """Hyperbolic tangent.

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64

    Returns
    -------
    ndarray of the same shape, dtype and memory order

    Raises
    ------
    TypeError
        When input is not an array of float32 or float64.
    """
    return _forward(kernels.tanh_forward, TRANSCENDENTAL, input)


def tanh_backward(grad_output, input, *, output=None):
    """Gradient of `tanh`: grad_output * (1 - tanh(input)**2).

    Parameters
    ----------
    grad_output, input : ndarrays of the same shape, float32 or float64
    output : ndarray of the same shape and dtype, optional
        tanh(input), when it is known: it is not computed again, and input is not looked at.

    Returns
    -------
    ndarray of the same shape and dtype, in the memory order of input or output

    Raises
    ------
    ValueError, TypeError
        When shapes or dtypes differ.
    """
    return _backward(kernels.tanh_backward, 1, grad_output, tanh(input) if output is None else output)


def silu(input):
    """Sigmoid linear unit, input * sigmoid(input).

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64

    Returns
    -------
    ndarray of the same shape, dtype and memory order

    Raises
    ------
    TypeError
        When input is not an array of float32 or float64.
    """
    return _forward(kernels.silu_forward, TRANSCENDENTAL, input)


def silu_backward(grad_output, input):
    """Gradient of `silu`: grad_output * s * (1 + input * (1 - s)) with s = sigmoid(input).

    Parameters
    ----------
    grad_output, input : ndarrays of the same shape, float32 or float64

    Returns
    -------
    ndarray of the same shape and dtype, in the memory order of input

    Raises
    ------
    ValueError, TypeError
        When shapes or dtypes differ.
    """
    return _backward(kernels.silu_backward, TRANSCENDENTAL, grad_output, input)


GELU = {"none": (kernels.gelu_forward, kernels.gelu_backward), "tanh": (kernels.gelu_tanh_forward, kernels.gelu_tanh_backward)}


def gelu(input, approximate="none"):
    """Gaussian error linear unit, input * Phi(input), Phi the standard normal distribution.

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64
    approximate : "none" or "tanh"
        "tanh" takes (1 + tanh(sqrt(2/pi) * (input + 0.044715 * input**3))) / 2 for Phi.

    Returns
    -------
    ndarray of the same shape, dtype and memory order

    Raises
    ------
    ValueError, TypeError
        When input is not an array of float32 or float64, or approximate is unknown.

    References
    ----------
    D. Hendrycks, K. Gimpel, "Gaussian error linear units", 2016.
    """
    forward, _ = GELU[choice("approximate", approximate, *GELU)]
    return _forward(forward, TRANSCENDENTAL, input)


def gelu_backward(grad_output, input, approximate="none"):
    """Gradient of `gelu`: grad_output * (Phi(input) + input * phi(input)), phi the density of Phi.

    Parameters
    ----------
    grad_output, input : ndarrays of the same shape, float32 or float64
    approximate : "none" or "tanh"

    Returns
    -------
    ndarray of the same shape and dtype, in the memory order of input

    Raises
    ------
    ValueError, TypeError
        When shapes or dtypes differ, or approximate is unknown.
    """
    _, backward = GELU[choice("approximate", approximate, *GELU)]
    return _backward(backward, TRANSCENDENTAL, grad_output, input)
