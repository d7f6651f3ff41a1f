"""Pooling: maximum, average, adaptive average."""

import functools

import numpy as np

from fastconv import shapes
from fastconv.errors import ArgumentError, ArgumentTypeError
from fastconv.functional.arrays import channels_last, check_shape, nchw, plain
from fastconv.kernels import pool as kernels
from fastconv.memory import empty

# --- maximum -------------------------------------------------------------------------------------------------------------


def _geometry(input, kernel_size, stride, padding, dilation=1, ceil_mode=False):
    x = channels_last("input", input)
    N, H, W, C = x.shape
    return x, shapes.pool2d((N, C, H, W), kernel_size, stride, padding, dilation, ceil_mode)


def _window(g):
    return g.KH, g.KW, g.SH, g.SW, g.DH, g.DW, g.PH, g.PW


def _work(g):
    """Scalar operations of one pass."""
    return 2 * g.N * g.OH * g.OW * g.C * g.KH * g.KW


def _halves(g):
    """Whether the windows are 2 x 2, side by side, all within the input."""
    return _window(g) == (2, 2, 2, 2, 1, 1, 0, 0) and 2 * g.OH <= g.H and 2 * g.OW <= g.W


def _argmax_dtype(g):
    """The smallest unsigned integer for the taps of a window."""
    taps = g.KH * g.KW
    return np.dtype(np.uint8 if taps <= 1 << 8 else np.uint16 if taps <= 1 << 16 else np.uint32)


def _max_forward(x, g, with_argmax):
    """(output, argmax), both (N, OH, OW, C)."""
    shape = (g.N, g.OH, g.OW, g.C)
    y = empty(shape, x.dtype)
    argmax = empty(shape if with_argmax else (0, 0, 0, 0), _argmax_dtype(g))
    if _halves(g):
        kernels.max_forward_2x2(_work(g), x, y, argmax)
    else:
        kernels.max_forward(_work(g), x, y, argmax, _window(g))
    return y, argmax


def relu_max_halves(x, argmax):
    """ReLU and maxima of 2 x 2 with stride 2 of x (N, H, W, C); argmax, of that shape or empty, becomes 4 where no gradient goes."""
    N, H, W, C = x.shape
    y = empty((N, H // 2, W // 2, C), x.dtype)
    kernels.relu_max_forward_2x2(10 * y.size, x, y, argmax)
    return y


def _max_backward(grad_output, argmax, g):
    d = empty((g.N, g.H, g.W, g.C), grad_output.dtype)
    if _halves(g):
        kernels.max_backward_2x2(_work(g), grad_output, argmax, d)
    else:
        kernels.max_backward(_work(g), grad_output, argmax, d, _window(g))
    return nchw(d)


def _plane_indices(argmax, g):
    """Taps (N, OH, OW, C) as PyTorch's indices ih*W + iw of the input's plane, (N, C, OH, OW)."""
    kh, kw = np.divmod(argmax.astype(np.int64), g.KW)
    ih = np.arange(g.OH)[:, None, None] * g.SH - g.PH + kh * g.DH
    iw = np.arange(g.OW)[:, None] * g.SW - g.PW + kw * g.DW
    return nchw(ih * g.W + iw)


def max_pool2d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """Maximum over windows, (N, C, H, W) to (N, C, OH, OW).

    Parameters
    ----------
    input : ndarray of shape (N, C, H, W), float32 or float64
    kernel_size, stride, padding, dilation : int or (height, width)
        Without a stride, it is kernel_size. Padding is -inf and at most half of kernel_size.
    ceil_mode : bool
        Round the number of windows up; a window must start inside the input or the padding before it.
    return_indices : bool
        Also return where the maxima are.

    Returns
    -------
    output : ndarray of shape (N, C, OH, OW), same dtype, channels-last memory
    indices : int64 ndarray of the same shape, when `return_indices`
        ih*W + iw of the maximum.

    Raises
    ------
    ValueError, TypeError
        When an argument does not fit; also when a window sees nothing but padding.

    Notes
    -----
    OH = floor((H + 2*PH - DH*(KH - 1) - 1) / SH) + 1, OW likewise. Of equal maxima the first in row-major order counts. A window that
    holds NaN becomes NaN; of several, the last counts. Parallel over rows of the output.

    Examples
    --------
    >>> max_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    array([[[[ 5.,  7.],
             [13., 15.]]]])
    """
    x, g = _geometry(input, kernel_size, stride, padding, dilation, ceil_mode)
    y, argmax = _max_forward(x, g, return_indices)
    return (nchw(y), _plane_indices(argmax, g)) if return_indices else nchw(y)


def max_pool2d_backward(grad_output, input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Gradient of `max_pool2d`: each number of grad_output goes to the place of its window's maximum, all other places get 0.

    Parameters
    ----------
    grad_output : ndarray of shape (N, C, OH, OW), float32 or float64
    input : ndarray of shape (N, C, H, W), same dtype
    kernel_size, stride, padding, dilation, ceil_mode
        As in `max_pool2d`.

    Returns
    -------
    ndarray of shape (N, C, H, W), same dtype, channels-last memory

    Raises
    ------
    ValueError, TypeError
        When an argument does not fit.

    Notes
    -----
    Looks for the maxima again; `max_pool2d_backward_argmax` does not have to. Where windows overlap, gradients add up in row-major order
    of the windows. Parallel over rows of the input.
    """
    x, g = _geometry(input, kernel_size, stride, padding, dilation, ceil_mode)
    check_shape("grad_output", plain("grad_output", grad_output), g.output_shape)
    grad_output = channels_last("grad_output", grad_output, x.dtype)
    return _max_backward(grad_output, _max_forward(x, g, True)[1], g)


def max_pool2d_forward_argmax(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """As `max_pool2d`; returns (output, argmax), where argmax (N, OH, OW, C) is opaque and what `max_pool2d_backward_argmax` needs.

    argmax takes a byte per output for windows of up to 256 elements.
    """
    x, g = _geometry(input, kernel_size, stride, padding, dilation, ceil_mode)
    y, argmax = _max_forward(x, g, True)
    return nchw(y), argmax


def relu_max_pool2d(input, *, with_argmax=True):
    """max_pool2d(relu(input), 2) in one pass; returns (output, argmax), where argmax gives `max_pool2d_backward_argmax` the gradient of the
    input: that of ReLU is in it."""
    x = channels_last("input", input)
    N, H, W, C = x.shape
    argmax = empty((N, H // 2, W // 2, C) if with_argmax else (0, 0, 0, 0), np.dtype(np.uint8))
    return nchw(relu_max_halves(x, argmax)), argmax


def max_pool2d_backward_argmax(grad_output, argmax, input_shape, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """As `max_pool2d_backward`, from the argmax of `max_pool2d_forward_argmax` and the shape of its input."""
    g = shapes.pool2d(_four(input_shape), kernel_size, stride, padding, dilation, ceil_mode)
    check_shape("grad_output", plain("grad_output", grad_output), g.output_shape)
    if argmax.shape != (g.N, g.OH, g.OW, g.C) or argmax.dtype != _argmax_dtype(g):
        raise ArgumentError("argmax must come from max_pool2d_forward_argmax with the same options")
    return _max_backward(channels_last("grad_output", grad_output), argmax, g)


# --- average -------------------------------------------------------------------------------------------------------------


def _four(input_shape):
    """`input_shape` as a tuple (N, C, H, W) of integers."""
    try:
        N, C, H, W = input_shape
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"input_shape must be (N, C, H, W), got {input_shape!r}") from None
    return tuple(shapes.integer("input_shape", extent, 0) for extent in (N, C, H, W))


@functools.lru_cache(maxsize=1024)
def _spans(size, kernel, stride, padding, outputs, count_include_pad):
    """(outputs, 3): start and stop of each window within the input, and by how many elements along this axis its sum is divided."""
    start = np.arange(outputs) * stride - padding
    stop = np.minimum(start + kernel, size + padding)
    seen_start, seen_stop = np.maximum(start, 0), np.minimum(stop, size)
    return np.stack([seen_start, seen_stop, stop - start if count_include_pad else seen_stop - seen_start], axis=1)


@functools.lru_cache(maxsize=1024)
def _adaptive_spans(size, outputs):
    """As `_spans`, for the windows of an adaptive pooling."""
    windows = [shapes.adaptive_window(o, size, outputs) for o in range(outputs)]
    return np.array([(start, stop, stop - start) for start, stop in windows], np.int64)


def _average_spans(g, count_include_pad):
    include = bool(count_include_pad)
    return _spans(g.H, g.KH, g.SH, g.PH, g.OH, include), _spans(g.W, g.KW, g.SW, g.PW, g.OW, include)


def avg_pool2d(input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """Average over windows, (N, C, H, W) to (N, C, OH, OW).

    Parameters
    ----------
    input : ndarray of shape (N, C, H, W), float32 or float64
    kernel_size, stride, padding : int or (height, width)
        Without a stride, it is kernel_size. Padding is 0 and at most half of kernel_size.
    ceil_mode : bool
        Round the number of windows up; a window must start inside the input or the padding before it.
    count_include_pad : bool
        Divide by the elements of the window including padding, though not what `ceil_mode` adds beyond it; else by those of the input.

    Returns
    -------
    ndarray of shape (N, C, OH, OW), same dtype, channels-last memory

    Raises
    ------
    ValueError, TypeError
        When an argument does not fit; also when a window sees nothing but padding.

    Notes
    -----
    OH = floor((H + 2*PH - KH) / SH) + 1, OW likewise. Parallel over rows of the output.
    """
    x, g = _geometry(input, kernel_size, stride, padding, ceil_mode=ceil_mode)
    y = empty((g.N, g.OH, g.OW, g.C), x.dtype)
    kernels.average_forward(_work(g), x, *_average_spans(g, count_include_pad), y)
    return nchw(y)


def avg_pool2d_backward(grad_output, input_shape, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """Gradient of `avg_pool2d`: each element of a window receives the window's number of grad_output over its divisor.

    Parameters
    ----------
    grad_output : ndarray of shape (N, C, OH, OW), float32 or float64
    input_shape : (N, C, H, W)
    kernel_size, stride, padding, ceil_mode, count_include_pad
        As in `avg_pool2d`.

    Returns
    -------
    ndarray of shape (N, C, H, W), same dtype, channels-last memory

    Raises
    ------
    ValueError, TypeError
        When an argument does not fit.
    """
    g = shapes.pool2d(_four(input_shape), kernel_size, stride, padding, 1, ceil_mode)
    check_shape("grad_output", plain("grad_output", grad_output), g.output_shape)
    return _average_backward(_work(g), grad_output, _average_spans(g, count_include_pad), g.H, g.W)


def _average_backward(work, grad_output, spans, H, W):
    grad_output = channels_last("grad_output", grad_output)
    N, _, _, C = grad_output.shape
    d = empty((N, H, W, C), grad_output.dtype)
    kernels.average_backward(work, grad_output, *spans, d)
    return nchw(d)


def adaptive_avg_pool2d(input, output_size):
    """Average over as many windows as asked for, (N, C, H, W) to (N, C, OH, OW).

    Parameters
    ----------
    input : ndarray of shape (N, C, H, W), float32 or float64
    output_size : int or (height, width)
        1 is the global average; None in place of a number means "as the input".

    Returns
    -------
    ndarray of shape (N, C, OH, OW), same dtype, channels-last memory

    Raises
    ------
    ValueError, TypeError
        When an argument does not fit.

    Notes
    -----
    Window o covers rows floor(o*H/OH) to ceil((o + 1)*H/OH), the latter not included; columns likewise. Neighbours may share one.
    """
    x = channels_last("input", input)
    N, H, W, C = x.shape
    shapes.pool2d((N, C, H, W), 1)  # for its errors: only the batch may be empty
    OH, OW = shapes.adaptive_output(output_size, H, W)
    y = empty((N, OH, OW, C), x.dtype)
    kernels.average_forward(x.size + y.size, x, _adaptive_spans(H, OH), _adaptive_spans(W, OW), y)
    return nchw(y)


def adaptive_avg_pool2d_backward(grad_output, input_shape):
    """Gradient of `adaptive_avg_pool2d`: each element of a window receives the window's number of grad_output over its size.

    Parameters
    ----------
    grad_output : ndarray of shape (N, C, OH, OW), float32 or float64
    input_shape : (N, C, H, W)

    Returns
    -------
    ndarray of shape (N, C, H, W), same dtype, channels-last memory

    Raises
    ------
    ValueError, TypeError
        When an argument does not fit.
    """
    N, C, H, W = shapes.pool2d(_four(input_shape), 1).output_shape
    grad_output = plain("grad_output", grad_output, 4)
    OH, OW = grad_output.shape[2:]
    if grad_output.shape[:2] != (N, C) or OH < 1 or OW < 1:
        raise ArgumentError(f"grad_output must have shape ({N}, {C}, OH, OW), got {grad_output.shape}")
    spans = _adaptive_spans(H, OH), _adaptive_spans(W, OW)
    return _average_backward(2 * N * C * (H * W + OH * OW), grad_output, spans, H, W)
