"""The algorithm "loops": the textbook nest, any shape."""

from fastconv.kernels import conv_loops
from fastconv.memory import empty


def unfit(g):
    """Why this algorithm cannot take the geometry, or None."""
    return None


def _window(g):
    return g.SH, g.SW, g.DH, g.DW, g.PT, g.PL


def forward(g, x, weight, bias):
    """x (N, H, W, IC), weight OIHW, bias (OC,) to (N, OH, OW, OC)."""
    y = empty((g.N, g.OH, g.OW, g.OC), x.dtype)
    conv_loops.forward(g.flops, x, weight, bias, y, _window(g), g.groups)
    return y


def backward_input(g, grad_output, weight):
    """grad_output (N, OH, OW, OC), weight OIHW to (N, H, W, IC)."""
    grad_input = empty((g.N, g.H, g.W, g.IC), grad_output.dtype)
    conv_loops.backward_input(g.flops, grad_output, weight, grad_input, _window(g), g.groups)
    return grad_input


def backward_weight(g, x, grad_output):
    """x (N, H, W, IC), grad_output (N, OH, OW, OC) to OIHW."""
    grad_weight = empty(g.weight_shape, x.dtype)
    conv_loops.backward_weight(g.flops, x, grad_output, grad_weight, _window(g), g.groups)
    return grad_weight
