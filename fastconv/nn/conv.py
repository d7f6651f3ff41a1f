"""Convolution layers."""

import numpy as np

from fastconv import functional as F
from fastconv.errors import ArgumentError
from fastconv.functional.conv import ALGORITHMS
from fastconv.functional.norm_conv import normalized
from fastconv.nn.weighted import Weighted
from fastconv.shapes import integer, padding_sides, pair


def _algorithm(name):
    """`name` when it is an algorithm's; whether it fits a shape is seen when there is an input."""
    known = ("auto", *ALGORITHMS)
    if name not in known:
        raise ArgumentError(f"algorithm must be one of {', '.join(known)}, got {name!r}")
    return name


def _channels(in_channels, out_channels, groups):
    """The three as checked integers."""
    in_channels, out_channels = integer("in_channels", in_channels, 1), integer("out_channels", out_channels, 1)
    groups = integer("groups", groups, 1)
    if in_channels % groups or out_channels % groups:
        raise ArgumentError(f"groups must divide in_channels {in_channels} and out_channels {out_channels}, got groups={groups}")
    return in_channels, out_channels, groups


class Conv2d(Weighted):
    """2-d convolution (cross-correlation), (N, in_channels, H, W) to (N, out_channels, OH, OW).

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, dilation : int or (height, width)
    padding : int, (height, width), ((top, bottom), (left, right)), "valid" or "same"
    groups : int
        Divides both numbers of channels.
    bias : bool
    algorithm : str
        See `fastconv.functional.conv2d`.
    seed : int or numpy.random.Generator, optional
        Of the initial weights; without it they come from the generator of `fastconv.manual_seed`.
    dtype : float32 or float64

    Attributes
    ----------
    weight : Parameter of shape (out_channels, in_channels // groups, KH, KW)
    bias : Parameter of shape (out_channels,), or None
        Both uniform in +-1/sqrt(in_channels // groups * KH * KW).

    Raises
    ------
    ValueError, TypeError
        When an option cannot be.
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True, *,
                 algorithm="auto", seed=None, dtype=np.float32):  # fmt: skip
        self.in_channels, self.out_channels, self.groups = _channels(in_channels, out_channels, groups)
        self.kernel_size = pair("kernel_size", kernel_size, 1)
        self.stride = pair("stride", stride, 1)
        self.dilation = pair("dilation", dilation, 1)
        top, bottom, left, right = padding_sides(padding, self.kernel_size, self.stride, self.dilation)
        if isinstance(padding, str):
            self.padding = padding
        else:
            self.padding = (top, left) if (top, left) == (bottom, right) else ((top, bottom), (left, right))
        self.algorithm = _algorithm(algorithm)
        weight_shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        self._initialise(weight_shape, self.out_channels, bias, seed, dtype)

    def forward(self, input):
        output = F.conv2d(input, *self._arrays(), self.stride, self.padding, self.dilation, self.groups, algorithm=self.algorithm)
        self.remember(input)
        return output

    def _input(self):
        input, *seen = self.recall()
        return normalized(*seen[:2]) if input is None else input  # with BatchNorm and ReLU before it in one, see fused

    def _gradients(self, grad_output, input, output_mask):
        return F.conv2d_backward(grad_output, input, self.weight.data, self.stride, self.padding, self.dilation, self.groups,
                                 algorithm=self.algorithm, output_mask=output_mask)  # fmt: skip

    def extra_repr(self):
        shown = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        defaults = {"padding": (0, 0), "dilation": (1, 1), "groups": 1, "algorithm": "auto"}
        shown += [f"{name}={getattr(self, name)!r}" for name, default in defaults.items() if getattr(self, name) != default]
        return ", ".join(shown + ["bias=False"] * (self.bias is None))


class ConvTranspose2d(Weighted):
    """Transposed convolution, the input gradient of a convolution: (N, in_channels, H, W) to (N, out_channels, OH, OW).

    OH = (H - 1)*SH - 2*PH + DH*(KH - 1) + output_padding + 1, OW likewise.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, output_padding : int or (height, width)
    groups : int
        Divides both numbers of channels.
    bias : bool
    dilation : int or (height, width)
    algorithm : str
        See `fastconv.functional.conv2d`.
    seed : int or numpy.random.Generator, optional
        Of the initial weights; without it they come from the generator of `fastconv.manual_seed`.
    dtype : float32 or float64

    Attributes
    ----------
    weight : Parameter of shape (in_channels, out_channels // groups, KH, KW)
    bias : Parameter of shape (out_channels,), or None
        Both uniform in +-1/sqrt(out_channels // groups * KH * KW), as PyTorch's are.

    Raises
    ------
    ValueError, TypeError
        When an option cannot be.
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, output_padding=0, groups=1, bias=True, dilation=1, *,
                 algorithm="auto", seed=None, dtype=np.float32):  # fmt: skip
        self.in_channels, self.out_channels, self.groups = _channels(in_channels, out_channels, groups)
        self.kernel_size = pair("kernel_size", kernel_size, 1)
        self.stride = pair("stride", stride, 1)
        self.padding = pair("padding", padding, 0)
        self.output_padding = pair("output_padding", output_padding, 0)
        self.dilation = pair("dilation", dilation, 1)
        self.algorithm = _algorithm(algorithm)
        weight_shape = (self.in_channels, self.out_channels // self.groups, *self.kernel_size)
        self._initialise(weight_shape, self.out_channels, bias, seed, dtype)

    def _options(self):
        return self.stride, self.padding, self.output_padding, self.groups, self.dilation

    def forward(self, input):
        output = F.conv_transpose2d(input, *self._arrays(), *self._options(), algorithm=self.algorithm)
        self.remember(input)
        return output

    def _gradients(self, grad_output, input, output_mask):
        return F.conv_transpose2d_backward(
            grad_output, input, self.weight.data, *self._options(), algorithm=self.algorithm, output_mask=output_mask
        )

    def extra_repr(self):
        shown = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        defaults = {"padding": (0, 0), "output_padding": (0, 0), "dilation": (1, 1), "groups": 1, "algorithm": "auto"}
        shown += [f"{name}={getattr(self, name)!r}" for name, default in defaults.items() if getattr(self, name) != default]
        return ", ".join(shown + ["bias=False"] * (self.bias is None))
