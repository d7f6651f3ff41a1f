"""Pooling: one window of one channel becomes one number, its maximum or its mean."""

import numpy as np


def _pair(value):
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def output_size(size, kernel, stride, padding, dilation, ceil_mode):
    """Number of windows along one axis; with `ceil_mode` also the last incomplete one, if it starts in the input or the left padding."""
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= size + padding else count


def positions(size, kernel, stride, padding, dilation, ceil_mode):
    """For every window along one axis: the positions of the input that it sees, without those in the padding."""
    for o in range(output_size(size, kernel, stride, padding, dilation, ceil_mode)):
        seen = o * stride - padding + dilation * np.arange(kernel)
        yield seen[(seen >= 0) & (seen < size)]


def plane_windows(input_shape, kernel_size, stride, padding, dilation, ceil_mode):
    """For every output element: (oh, ow), and the rows (as a column, to index with) and columns of the input that its window sees."""
    stride = kernel_size if stride is None else stride
    options = [_pair(kernel_size), _pair(stride), _pair(padding), _pair(dilation)]
    rows, columns = (list(positions(input_shape[2 + axis], *(o[axis] for o in options), ceil_mode)) for axis in (0, 1))
    return [(oh, ow, ih[:, None], iw) for oh, ih in enumerate(rows) for ow, iw in enumerate(columns)]


def _output(windows, input_shape, dtype):
    oh, ow = windows[-1][:2]
    return np.zeros((*input_shape[:2], oh + 1, ow + 1), dtype)


# --- maximum -------------------------------------------------------------------------------------------------------------


def _argmax(values):
    """First maximum along the last axis. NaN beats every number and, as in PyTorch, the last NaN beats the others."""
    nan = np.isnan(values)
    last_nan = values.shape[-1] - 1 - np.argmax(nan[..., ::-1], axis=-1)
    return np.where(nan.any(axis=-1), last_nan, np.argmax(values, axis=-1))


def max_pool2d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """P[oh, ow] = maximum of the window; the padding is -inf, so it never wins. Indices are ih*W + iw."""
    W = input.shape[3]
    windows = plane_windows(input.shape, kernel_size, stride, padding, dilation, ceil_mode)
    output, indices = _output(windows, input.shape, input.dtype), _output(windows, input.shape, np.int64)
    for oh, ow, ih, iw in windows:
        values = input[:, :, ih, iw].reshape(*input.shape[:2], len(ih) * len(iw))
        best = _argmax(values)
        output[:, :, oh, ow] = np.take_along_axis(values, best[..., None], axis=-1)[..., 0]
        indices[:, :, oh, ow] = (ih * W + iw).ravel()[best]
    return (output, indices) if return_indices else output


def max_pool2d_backward(grad_output, input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """dL/dX: every dL/dP goes to the place of its window's maximum, all other places get 0."""
    _, indices = max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices=True)
    N, C, H, W = input.shape
    grad_input = np.zeros((N, C, H * W), grad_output.dtype)
    for n, c, oh, ow in np.ndindex(grad_output.shape):
        grad_input[n, c, indices[n, c, oh, ow]] += grad_output[n, c, oh, ow]
    return grad_input.reshape(N, C, H, W)


# --- mean ----------------------------------------------------------------------------------------------------------------


def _divisors(size, kernel, stride, padding, ceil_mode):
    """Extent of every window along one axis, padding included, but not what lies beyond the padding (`ceil_mode`)."""
    for o in range(output_size(size, kernel, stride, padding, 1, ceil_mode)):
        start = o * stride - padding
        yield min(start + kernel, size + padding) - start


def _mean_windows(input_shape, kernel_size, stride, padding, ceil_mode, count_include_pad):
    """(oh, ow, rows, columns, divisor) of every window."""
    stride = kernel_size if stride is None else stride
    options = [_pair(kernel_size), _pair(stride), _pair(padding)]
    high, wide = (list(_divisors(input_shape[2 + axis], *(o[axis] for o in options), ceil_mode)) for axis in (0, 1))
    for oh, ow, ih, iw in plane_windows(input_shape, kernel_size, stride, padding, 1, ceil_mode):
        yield oh, ow, ih, iw, high[oh] * wide[ow] if count_include_pad else len(ih) * len(iw)


def avg_pool2d(input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """P[oh, ow] = sum of the window / its number of elements, those of the zero padding counted or not."""
    windows = list(_mean_windows(input.shape, kernel_size, stride, padding, ceil_mode, count_include_pad))
    output = _output(windows, input.shape, input.dtype)
    for oh, ow, ih, iw, divisor in windows:
        output[:, :, oh, ow] = input[:, :, ih, iw].sum(axis=(2, 3)) / divisor
    return output


def avg_pool2d_backward(grad_output, input_shape, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """dL/dX: every element of a window receives dL/dP / divisor."""
    grad_input = np.zeros(input_shape, grad_output.dtype)
    for oh, ow, ih, iw, divisor in _mean_windows(input_shape, kernel_size, stride, padding, ceil_mode, count_include_pad):
        grad_input[:, :, ih, iw] += (grad_output[:, :, oh, ow] / divisor)[:, :, None, None]
    return grad_input


def _adaptive_windows(input_shape, output_size):
    """Window o of `size` elements cut into `outputs` parts: floor(o*size/outputs) up to, not including, ceil((o + 1)*size/outputs)."""
    sizes = [extent if size is None else size for size, extent in zip(_pair(output_size), input_shape[2:], strict=True)]
    cuts = [
        [slice(o * extent // size, -((-(o + 1) * extent) // size)) for o in range(size)]
        for size, extent in zip(sizes, input_shape[2:], strict=True)
    ]
    return [(oh, ow, rows, columns) for oh, rows in enumerate(cuts[0]) for ow, columns in enumerate(cuts[1])]


def adaptive_avg_pool2d(input, output_size):
    """Mean over windows whose sizes follow from the wanted number of outputs; neighbours may overlap by one."""
    windows = _adaptive_windows(input.shape, output_size)
    output = _output(windows, input.shape, input.dtype)
    for oh, ow, rows, columns in windows:
        output[:, :, oh, ow] = input[:, :, rows, columns].mean(axis=(2, 3))
    return output


def adaptive_avg_pool2d_backward(grad_output, input_shape):
    """dL/dX: every element of a window receives dL/dP / number of elements."""
    grad_input = np.zeros(input_shape, grad_output.dtype)
    for oh, ow, rows, columns in _adaptive_windows(input_shape, grad_output.shape[2:]):
        window = grad_input[:, :, rows, columns]
        window += (grad_output[:, :, oh, ow] / (window.shape[2] * window.shape[3]))[:, :, None, None]
    return grad_input
