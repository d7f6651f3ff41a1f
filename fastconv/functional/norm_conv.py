"""Batch normalisation, ReLU and a depthwise convolution in one: what lies between them is not written to memory."""

import functools

import numpy as np

from fastconv import shapes
from fastconv.errors import FastconvError
from fastconv.functional import conv_depthwise
from fastconv.functional.activation import relu_in_place
from fastconv.functional.arrays import channels_last, check_shape, nchw, same_dtype
from fastconv.functional.linear import PARTS, sum_parts, sum_rows, zeros_bias
from fastconv.functional.norm import batch_norm_factors
from fastconv.kernels import norm_depthwise, norm_depthwise_gradient
from fastconv.memory import empty

BAND_BYTES = 1 << 16
"""Bytes of an image that a job normalizes before it convolves them, and two rows more, unless one row of the output needs more."""

BAND_ROWS = 4
"""Rows of a band, at least, where more bands are to give more threads something to do: each normalizes two rows more."""


def _fits(g, algorithm):
    """Whether the kernels take the geometry: depthwise, 3 x 3, moving by 1 or, with a column of padding, by 2; and `algorithm` is no other
    way."""
    moves = ((g.SH, g.SW) == (1, 1) and g.PL <= 2) or (g.SH, g.SW, g.PL) == (2, 2, 1)
    plain = (g.KH, g.KW, g.DH, g.DW) == (3, 3, 1, 1) and g.PT <= 2
    return algorithm in ("auto", "direct") and conv_depthwise.fits(g) and plain and moves and g.N > 0


@functools.lru_cache(maxsize=1024)
def _bands(g, itemsize):
    """Bands of an image: of BAND_BYTES, or where there are few images of BAND_ROWS, but of one row of the output at least."""
    fitting = -(-g.H * g.W * g.IC * itemsize // BAND_BYTES)
    return max(1, min(g.OH, max(fitting, min(g.OH // BAND_ROWS, -(-PARTS // g.N)))))


def batch_norm_relu_conv2d(input, norm, weight, bias, stride, padding, dilation, groups, algorithm):
    """conv2d(relu(batch_norm(input, *norm)), ...), the same bits unless a filter is not finite, as padding is multiplied; `norm` are the
    arguments of `norm.batch_norm_factors`.

    Returns (output, saved, factors, g): saved is batch_norm_forward_saved's, of factors `normalized` makes what lies before the
    convolution, and g is its geometry. None where the kernels do not fit, or the convolution would raise; then nothing has been done.
    """
    try:
        x = channels_last("input", input)
        weight = same_dtype("weight", weight, x.dtype, 4)
        g = shapes.conv2d(input.shape, weight.shape, stride, padding, dilation, groups)
        bias = zeros_bias(bias, g.OC, x.dtype)
    except FastconvError:
        return None
    if not _fits(g, algorithm):
        return None
    saved, factors = batch_norm_factors(nchw(x), *norm)
    y = empty((g.N, g.OH, g.OW, g.OC), x.dtype)
    work = g.flops + 4 * x.size
    filters = conv_depthwise.channels_inside(weight)
    norm_depthwise.convolve(work, x, factors, filters, y, bias, g.SH, (g.PT, g.PL), _bands(g, x.itemsize))
    return nchw(y), saved, factors, g


def normalized(input, factors):
    """ReLU of the normalized input, of the factors that `batch_norm_relu_conv2d` has returned."""
    mean, scale, bias = factors[:, : input.shape[1], np.newaxis, np.newaxis]
    return relu_in_place((input - mean) * scale + bias)


def batch_norm_relu_conv2d_backward(grad_output, input, saved, factors, g, training, weight, input_gradient=True, bias_gradient=True):
    """Gradients of `batch_norm_relu_conv2d`, from what it has returned: those of the layers one after the other but for rounding.

    Returns ((grad_input, grad_norm_weight, grad_norm_bias), (grad_weight, grad_bias)); grad_input and grad_bias are None where they are
    not asked for.
    """
    x, dtype = channels_last("input", input), input.dtype
    grad_output = channels_last("grad_output", grad_output, dtype, g.output_shape)
    weight = same_dtype("weight", weight, dtype, 4)
    check_shape("weight", weight, g.weight_shape)
    bands = min(g.H, _bands(g, x.itemsize))
    splits = min(PARTS, g.N * bands)
    parts = empty((splits, 3, 3, g.IC), dtype)
    grad_norm_weight, grad_norm_bias = np.zeros(g.IC, dtype), np.zeros(g.IC, dtype)
    grad_input = empty(x.shape if input_gradient else (0, *x.shape[1:]), dtype)
    norm_depthwise_gradient.backward(
        3 * g.flops + 8 * x.size, grad_output, x, saved, factors, bool(training), conv_depthwise.channels_inside(weight),
        g.SH, (g.PT, g.PL), bands, g.N * bands if input_gradient else 0, parts, grad_norm_weight, grad_norm_bias, grad_input,
        empty((splits, 2, g.IC), dtype), np.empty((splits, 2, g.IC)), np.empty((2, g.IC)), empty((5, factors.shape[1]), dtype),
    )  # fmt: skip
    return (
        (nchw(grad_input) if input_gradient else None, grad_norm_weight, grad_norm_bias),
        (conv_depthwise.in_order(sum_parts(parts), g), sum_rows(grad_output.reshape(-1, g.OC)) if bias_gradient else None),
    )
