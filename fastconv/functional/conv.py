"""2-D convolution and its transpose: checks, the choice of the algorithm, and results in (N, C, H, W)."""

import functools
import os

import numpy as np

from fastconv import shapes
from fastconv.errors import ArgumentError
from fastconv.functional import conv_amx, conv_direct, conv_im2col, conv_loops, conv_pooled, conv_winograd, winograd_cost
from fastconv.functional.activation import relu_in_place
from fastconv.functional.arrays import FLOAT32, channels_last, check_shape, nchw, same_dtype
from fastconv.functional.linear import sum_rows, zeros_bias
from fastconv.functional.options import flag, three
from fastconv.functional.pool import max_pool2d_backward_argmax, relu_max_halves
from fastconv.kernels import host
from fastconv.memory import empty

UINT8 = np.dtype(np.uint8)
ALGORITHMS = {"loops": conv_loops, "direct": conv_direct, "im2col": conv_im2col, "winograd": conv_winograd}


_winograd_allowed = os.environ.get("FASTCONV_WINOGRAD", "1") != "0"


def set_winograd(allowed):
    """Let algorithm="auto" take Winograd's algorithm where it is the fastest, or not, in the whole process.

    It is allowed at first, unless the environment has ``FASTCONV_WINOGRAD=0``. Winograd's rounding errors are larger, see
    docs/algorithms.md. A call or a layer forbids it for itself with algorithm="direct".

    Parameters
    ----------
    allowed : bool

    Raises
    ------
    TypeError
        When `allowed` is no bool.
    """
    global _winograd_allowed
    _winograd_allowed = flag("allowed", allowed)


def get_winograd():
    """Return whether algorithm="auto" may take Winograd's algorithm (bool)."""
    return _winograd_allowed


def get_allowed():
    """(whether algorithm="auto" may take Winograd's algorithm, whether there may be matrix registers)."""
    return _winograd_allowed, conv_amx.get_amx()


@functools.lru_cache(maxsize=4096)
def module_of(name, geometry, dtype, allowed, wanted="forward"):
    """The module that computes, for an algorithm's name: the output ("forward"), or the gradient of the "input" or the "weight".

    `allowed` is what `get_allowed` says.
    """
    if name == "auto":
        winograd, amx = allowed
        if winograd and dtype == FLOAT32 and not conv_winograd.unfit(geometry) and not (amx and conv_amx.beats_winograd(geometry, wanted)):
            if winograd_cost.pays(geometry, wanted):
                return conv_winograd
        return conv_loops if conv_direct.unfit(geometry) else conv_direct
    if name not in ALGORITHMS:
        known = ", ".join(f'"{a}"' for a in ("auto", *ALGORITHMS))
        raise ArgumentError(f"algorithm must be one of {known}, got {name!r}")
    reason = ALGORITHMS[name].unfit(geometry)
    if reason:
        raise ArgumentError(f'algorithm="{name}" does not fit: {reason}')
    return ALGORITHMS[name]


def _convolution(input, weight, stride, padding, dilation, groups):
    """What every pass starts with: (input as (N, H, W, IC), weight, geometry), checked."""
    x = channels_last("input", input)
    weight = same_dtype("weight", weight, x.dtype, 4)
    return x, weight, shapes.conv2d(input.shape, weight.shape, stride, padding, dilation, groups)


def _module(algorithm, g, dtype, wanted):
    """The module that computes what is `wanted`, see `module_of`."""
    return module_of(algorithm, g, dtype, get_allowed(), wanted)


def _gradient_modules(algorithm, g, dtype):
    """The modules that compute the input's and the weight's gradient."""
    return _module(algorithm, g, dtype, "input"), _module(algorithm, g, dtype, "weight")


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, algorithm="auto"):
    """2-D convolution (cross-correlation: the filter is not flipped), (N, IC, H, W) to (N, OC, OH, OW).

    Parameters
    ----------
    input : ndarray of shape (N, IC, H, W), float32 or float64
        Any strides; channels-last memory costs no copy.
    weight : ndarray of shape (OC, IC // groups, KH, KW), same dtype
    bias : ndarray of shape (OC,), same dtype, optional
    stride, dilation : int or (height, width)
    padding : int, (height, width), ((top, bottom), (left, right)), "valid" or "same"
        Zeros around the input. "same" needs stride 1 and puts an odd row or column at the end.
    groups : int
        Divides IC and OC; output channels of a group see the input channels of that group.
    algorithm : {"auto", "loops", "direct", "im2col", "winograd"}

    Returns
    -------
    ndarray of shape (N, OC, OH, OW), same dtype
        A view of channels-last memory, (N, OH, OW, OC).

    Raises
    ------
    ValueError
        When shapes or options do not fit, or the algorithm cannot take them.
    TypeError
        When a dtype or type is wrong. Both messages name the argument.

    Notes
    -----
    y[n, oc, oh, ow] = bias[oc] + sum over ic, kh, kw of x[n, ic, oh*SH + kh*DH - PT, ow*SW + kw*DW - PL] * w[oc, ic, kh, kw];
    OH = floor((H + PT + PB - DH*(KH - 1) - 1) / SH) + 1. Results are the same bits for any number of threads.

    References
    ----------
    V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", 2016, arXiv 1603.07285.

    Examples
    --------
    >>> conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)))[0, 0]
    array([[4., 4.],
           [4., 4.]])
    """
    x, weight, g = _convolution(input, weight, stride, padding, dilation, groups)
    compute = _module(algorithm, g, x.dtype, "forward")
    return nchw(compute.forward(g, x, weight, zeros_bias(bias, g.OC, x.dtype)))


def conv2d_relu(input, weight, bias, stride, padding, dilation, groups, algorithm="auto"):
    """relu(conv2d(...)), in the same pass where the algorithm can, else in the memory of the convolution's output; the same bits."""
    x, weight, g = _convolution(input, weight, stride, padding, dilation, groups)
    compute = _module(algorithm, g, x.dtype, "forward")
    bias = zeros_bias(bias, g.OC, x.dtype)
    if compute is conv_winograd:
        return nchw(compute.forward(g, x, weight, bias, relu=True))
    return relu_in_place(nchw(compute.forward(g, x, weight, bias)))


def conv2d_relu_max_pool2d(input, weight, bias, stride, padding, dilation, groups, algorithm="auto", with_argmax=True):
    """max_pool2d(relu(conv2d(...)), 2) in one pass over memory, the same bits; None where the convolution gives less than 2 x 2 outputs.

    Returns (output, argmax, seen), `seen` for `conv2d_relu_max_pool2d_backward`. ReLU's gradient is in the argmax: with it
    max_pool2d_backward_argmax gives the gradient of the convolution's output.
    """
    x, weight, g = _convolution(input, weight, stride, padding, dilation, groups)
    compute = _module(algorithm, g, x.dtype, "forward")
    gradients = _gradient_modules(algorithm, g, x.dtype)
    bias = zeros_bias(bias, g.OC, x.dtype)
    if g.OH < 2 or g.OW < 2:
        return None
    argmax = empty(g.halves_in_memory if with_argmax else (0, 0, 0, 0), UINT8)
    if compute in (conv_direct, conv_winograd):
        y = compute.forward_relu_max(g, x, weight, bias, argmax)
    else:
        y = relu_max_halves(compute.forward(g, x, weight, bias), argmax)
    sparse = algorithm in ("auto", "direct") and conv_pooled.fits(g, x.itemsize)
    return nchw(y), argmax, (x, g, gradients, sparse)


def conv2d_relu_max_pool2d_backward(grad_output, argmax, seen, weight, output_mask=(True, True, True)):
    """Gradients of `conv2d_relu_max_pool2d`, from what it has returned: those of `conv2d_backward`, to rounding, for that of the maxima.

    Three of four numbers of the convolution's own gradient are 0. They are neither written to memory nor multiplied, unless there are so
    many channels that "winograd" takes less time for all of them, or another algorithm is asked for.
    """
    x, g, gradients, sparse = seen
    weight = same_dtype("weight", weight, x.dtype, 4)
    check_shape("weight", weight, g.weight_shape)
    grad_output = channels_last("grad_output", grad_output, x.dtype, g.halves_shape)
    need_input, need_weight, need_bias = output_mask
    dense_input = dense_weight = not sparse
    if sparse and conv_winograd in gradients:
        pays = winograd_cost.pays_behind_maxima(g)
        dense_input, dense_weight = (module is conv_winograd and sooner for module, sooner in zip(gradients, pays, strict=True))
    mask = need_input and dense_input, need_weight and dense_weight, need_bias and dense_weight
    grad_input = grad_weight = grad_bias = None
    if any(mask):
        before = channels_last("grad_output", max_pool2d_backward_argmax(nchw(grad_output), argmax, g.output_shape, 2))
        grad_input, grad_weight, grad_bias = _gradients(g, gradients, before, x, weight, mask)
    if need_input and not dense_input:
        grad_input = nchw(conv_pooled.backward_input(g, grad_output, argmax, weight))
    if (need_weight or need_bias) and not dense_weight:
        grad_weight, grad_bias = conv_pooled.backward_weight(g, x, grad_output, argmax)
    return grad_input, grad_weight if need_weight else None, grad_bias if need_bias else None


def conv2d_backward(
    grad_output, input, weight, stride=1, padding=0, dilation=1, groups=1, *, algorithm="auto", output_mask=(True, True, True)
):
    """Gradients of `conv2d`.

    Parameters
    ----------
    grad_output : ndarray of shape (N, OC, OH, OW), float32 or float64
    input : ndarray of shape (N, IC, H, W), same dtype
    weight : ndarray of shape (OC, IC // groups, KH, KW), same dtype
    stride, padding, dilation, groups, algorithm
        As in `conv2d`.
    output_mask : three bools
        Which gradients to compute.

    Returns
    -------
    (grad_input, grad_weight, grad_bias)
        Of the shapes of input, weight and bias; None where masked out.

    Raises
    ------
    ValueError, TypeError
        As `conv2d`; also when grad_output does not have the output's shape.

    Notes
    -----
    grad_weight[oc, ic, kh, kw] = sum over n, oh, ow of grad_output[n, oc, oh, ow] * x[n, ic, oh*SH + kh*DH - PT, ow*SW + kw*DW - PL];
    grad_input is the full convolution of grad_output with the filter rotated by 180 degrees; grad_bias sums over n, oh, ow.
    """
    x, weight, g = _convolution(input, weight, stride, padding, dilation, groups)
    modules = _gradient_modules(algorithm, g, x.dtype)
    mask = three("output_mask", output_mask)
    grad_output = channels_last("grad_output", grad_output, x.dtype, g.output_shape)
    return _gradients(g, modules, grad_output, x, weight, mask)


def _gradients(g, modules, grad_output, x, weight, output_mask):
    """What `conv2d_backward` returns, of grad_output (N, OH, OW, OC) and x (N, H, W, IC), by the modules for input and weight."""
    (compute_input, compute_weight), (need_input, need_weight, need_bias) = modules, output_mask
    return (
        nchw(compute_input.backward_input(g, grad_output, weight)) if need_input else None,
        compute_weight.backward_weight(g, x, grad_output) if need_weight else None,
        sum_rows(grad_output.reshape(-1, g.OC)) if need_bias else None,
    )


def _transposed(input, weight, stride, padding, output_padding, groups, dilation):
    """As `_convolution`, for the convolution whose input gradient is wanted."""
    x = channels_last("input", input)
    weight = same_dtype("weight", weight, x.dtype, 4)
    return x, weight, shapes.conv_transpose2d(input.shape, weight.shape, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, *, algorithm="auto"):
    """Transposed 2-D convolution, the input gradient of `conv2d` as an operation: (N, IC, H, W) to (N, OC, OH, OW).

    Parameters
    ----------
    input : ndarray of shape (N, IC, H, W), float32 or float64
    weight : ndarray of shape (IC, OC // groups, KH, KW), same dtype
    bias : ndarray of shape (OC,), same dtype, optional
    stride, padding, dilation : int or (height, width)
        Those of the convolution.
    output_padding : int or (height, width)
        Rows and columns added at the end of the output, fewer than stride or dilation.
    groups : int
    algorithm : {"auto", "loops", "direct", "im2col", "winograd"}

    Returns
    -------
    ndarray of shape (N, OC, OH, OW), same dtype, channels-last memory
        OH = (H - 1)*SH - 2*PH + DH*(KH - 1) + output_padding + 1.

    Raises
    ------
    ValueError, TypeError
        When shapes, options or dtypes do not fit; the message names the argument.

    References
    ----------
    V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", 2016, section 4.
    """
    x, weight, g = _transposed(input, weight, stride, padding, output_padding, groups, dilation)
    compute = _module(algorithm, g, x.dtype, "input")
    y = compute.backward_input(g, x, weight)
    if bias is not None:
        host.add_to(0, y, zeros_bias(bias, g.IC, x.dtype))
    return nchw(y)


def conv_transpose2d_backward(
    grad_output,
    input,
    weight,
    stride=1,
    padding=0,
    output_padding=0,
    groups=1,
    dilation=1,
    *,
    algorithm="auto",
    output_mask=(True, True, True),
):
    """Gradients of `conv_transpose2d`.

    Parameters
    ----------
    grad_output : ndarray of shape (N, OC, OH, OW), float32 or float64
    input : ndarray of shape (N, IC, H, W), same dtype
    weight : ndarray of shape (IC, OC // groups, KH, KW), same dtype
    stride, padding, output_padding, groups, dilation, algorithm
        As in `conv_transpose2d`.
    output_mask : three bools
        Which gradients to compute.

    Returns
    -------
    (grad_input, grad_weight, grad_bias)
        Of the shapes of input, weight and bias; None where masked out.

    Raises
    ------
    ValueError, TypeError
        As `conv_transpose2d`; also when grad_output does not have the output's shape.
    """
    x, weight, g = _transposed(input, weight, stride, padding, output_padding, groups, dilation)
    compute, compute_weight = _module(algorithm, g, x.dtype, "forward"), _module(algorithm, g, x.dtype, "weight")
    need_input, need_weight, need_bias = three("output_mask", output_mask)
    grad_output = channels_last("grad_output", grad_output, x.dtype, g.input_shape)
    return (
        nchw(compute.forward(g, grad_output, weight, zeros_bias(None, g.OC, x.dtype))) if need_input else None,
        compute_weight.backward_weight(g, grad_output, x) if need_weight else None,
        sum_rows(grad_output.reshape(-1, g.IC)) if need_bias else None,
    )
