"""The operations as functions: NCHW arrays in, NCHW views of channels-last memory out, every operation `x` with its `x_backward`."""

from fastconv.functional.conv import conv2d, conv2d_backward, conv_transpose2d, conv_transpose2d_backward
from fastconv.functional.linear import linear, linear_backward

__all__ = ["conv2d", "conv2d_backward", "conv_transpose2d", "conv_transpose2d_backward", "linear", "linear_backward"]
