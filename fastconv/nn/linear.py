"""The dense layer, and the reshaping that leads to it."""

import math

import numpy as np

from fastconv import functional as F
from fastconv.errors import ArgumentError, ArgumentTypeError
from fastconv.functional.arrays import channels_first, check_shape
from fastconv.nn.module import Module
from fastconv.nn.weighted import Weighted
from fastconv.shapes import integer


class Linear(Weighted):
    """Dense layer, input @ weight.T + bias: (..., in_features) to (..., out_features).

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
    seed : int or numpy.random.Generator, optional
        Of the initial weights; without it they come from the generator of `fastconv.manual_seed`.
    dtype : float32 or float64

    Attributes
    ----------
    weight : Parameter of shape (out_features, in_features)
    bias : Parameter of shape (out_features,), or None
        Both uniform in +-1/sqrt(in_features).

    Raises
    ------
    ValueError, TypeError
        When an option cannot be.
    """

    def __init__(self, in_features, out_features, bias=True, *, seed=None, dtype=np.float32):
        self.in_features = integer("in_features", in_features, 1)
        self.out_features = integer("out_features", out_features, 1)
        self._initialise((self.out_features, self.in_features), self.out_features, bias, seed, dtype)

    def forward(self, input):
        output = F.linear(input, *self._arrays())
        self.remember(input)
        return output

    def _gradients(self, grad_output, input, output_mask):
        return F.linear_backward(grad_output, input, self.weight.data, output_mask=output_mask)

    def extra_repr(self):
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Flatten(Module):
    """Join the axes from `start_dim` to `end_dim` into one, in C, H, W order.

    Parameters
    ----------
    start_dim, end_dim : int
        Negative ones count from the end.

    Notes
    -----
    The gradient is a view of grad_output where its memory allows.
    """

    def __init__(self, start_dim=1, end_dim=-1):
        self.start_dim = integer("start_dim", start_dim, -64)
        self.end_dim = integer("end_dim", end_dim, -64)

    def forward(self, input):
        if not isinstance(input, np.ndarray):
            raise ArgumentTypeError(f"input must be a NumPy array, got {type(input).__name__}")
        shape, ndim = input.shape, input.ndim
        start, end = (axis + ndim if axis < 0 else axis for axis in (self.start_dim, self.end_dim))
        if not 0 <= start <= end < ndim:
            raise ArgumentError(f"input must have axes {self.start_dim} to {self.end_dim} in this order, got shape {shape}")
        array = channels_first(input) if ndim == 4 else input
        output = array.reshape(*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])
        self.remember(shape, output.shape)
        return output

    def backward(self, grad_output):
        shape, output_shape = self.recall()
        check_shape("grad_output", grad_output, output_shape)
        return grad_output.reshape(shape)

    def extra_repr(self):
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
