"""Convolution and transposed convolution: one window of the input, one element of the output, and the same loop for every gradient.

As all of deep learning does, "convolution" means cross-correlation: the filter is not flipped. Channels are split into groups
(index g); in the sums n is the image, o an output channel and i an input channel of its group, k and l a row and a column of the filter.
"""

import numpy as np


def pair(value):
    """An int for both axes, or (height, width)."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def padding_sides(padding, kernel, dilation):
    """((top, bottom), (left, right)) of an int, a pair, two pairs, "valid" or "same"; "same" puts an odd row or column at the end."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(pair(dilation), kernel, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple(pair(p) for p in pair(padding))


def zero_pad(array, sides):
    return np.pad(array, ((0, 0), (0, 0), *sides))


def crop(padded, sides):
    """Undo `zero_pad`: only what belongs to the array itself."""
    (top, bottom), (left, right) = sides
    H, W = padded.shape[2:]
    return padded[:, :, top : H - bottom, left : W - right]


def windows(padded_shape, kernel, stride, dilation):
    """For every output element (oh, ow): the rows and the columns of the padded input that its window sees."""
    (H, W), (KH, KW), (SH, SW), (DH, DW) = padded_shape[2:], kernel, pair(stride), pair(dilation)
    for oh, top in enumerate(range(0, H - DH * (KH - 1), SH)):
        for ow, left in enumerate(range(0, W - DW * (KW - 1), SW)):
            yield oh, ow, slice(top, top + DH * (KH - 1) + 1, DH), slice(left, left + DW * (KW - 1) + 1, DW)


def split_channels(array, groups):
    """(N, C, H, W) seen as (N, groups, C // groups, H, W)."""
    N, C, H, W = array.shape
    return array.reshape(N, groups, C // groups, H, W)


def split_filters(weight, groups):
    """(F, C, KH, KW) seen as (groups, F // groups, C, KH, KW)."""
    F, C, KH, KW = weight.shape
    return weight.reshape(groups, F // groups, C, KH, KW)


def output_size(size, kernel, stride, before, after, dilation):
    return (size + before + after - dilation * (kernel - 1) - 1) // stride + 1


# --- convolution ---------------------------------------------------------------------------------------------------------


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Z[oh, ow] = sum of window * W + b, for every window of the padded input X.

    Z[n, oc, oh, ow] = b[oc] + sum over ic, kh, kw of X[n, ic, oh*SH + kh*DH, ow*SW + kw*DW] W[oc, ic, kh, kw].
    """
    kernel = weight.shape[2:]
    sides = padding_sides(padding, kernel, dilation)
    OH, OW = (
        output_size(s, k, t, *side, d)
        for s, k, t, side, d in zip(input.shape[2:], kernel, pair(stride), sides, pair(dilation), strict=True)
    )
    padded = zero_pad(input, sides)
    output = np.zeros((len(input), len(weight), OH, OW), input.dtype)
    X, W, Z = split_channels(padded, groups), split_filters(weight, groups), split_channels(output, groups)
    for oh, ow, rows, columns in windows(padded.shape, kernel, stride, dilation):
        Z[..., oh, ow] = np.einsum("ngikl,goikl->ngo", X[..., rows, columns], W)
    return output if bias is None else output + bias[:, None, None]


def conv2d_backward_input(grad_output, weight, input_shape, stride=1, padding=0, dilation=1, groups=1):
    """dL/dX: each window receives dL/dZ[oh, ow] * W, and windows that overlap add up.

    At stride 1 this is the full convolution of dL/dZ with W rotated by 180 degrees.
    """
    kernel = weight.shape[2:]
    sides = padding_sides(padding, kernel, dilation)
    padded = zero_pad(np.zeros(input_shape, grad_output.dtype), sides)
    dX, W, dZ = split_channels(padded, groups), split_filters(weight, groups), split_channels(grad_output, groups)
    for oh, ow, rows, columns in windows(padded.shape, kernel, stride, dilation):
        dX[..., rows, columns] += np.einsum("ngo,goikl->ngikl", dZ[..., oh, ow], W)
    return crop(padded, sides)


def conv2d_backward_weight(grad_output, input, weight_shape, stride=1, padding=0, dilation=1, groups=1):
    """dL/dW = sum over all windows of dL/dZ[oh, ow] * window."""
    kernel = weight_shape[2:]
    padded = zero_pad(input, padding_sides(padding, kernel, dilation))
    grad_weight = np.zeros(weight_shape, grad_output.dtype)
    X, dW, dZ = split_channels(padded, groups), split_filters(grad_weight, groups), split_channels(grad_output, groups)
    for oh, ow, rows, columns in windows(padded.shape, kernel, stride, dilation):
        dW += np.einsum("ngo,ngikl->goikl", dZ[..., oh, ow], X[..., rows, columns])
    return grad_weight


def conv2d_backward_bias(grad_output):
    """dL/db: b runs with every element of Z, so its gradient is their sum."""
    return grad_output.sum(axis=(0, 2, 3))


def conv2d_backward(grad_output, input, weight, stride=1, padding=0, dilation=1, groups=1):
    """(dL/dX, dL/dW, dL/db)."""
    options = (stride, padding, dilation, groups)
    return (
        conv2d_backward_input(grad_output, weight, input.shape, *options),
        conv2d_backward_weight(grad_output, input, weight.shape, *options),
        conv2d_backward_bias(grad_output),
    )


# --- transposed convolution ----------------------------------------------------------------------------------------------


def _transposed_sides(padding):
    """`padding` of a transposed convolution is what its output loses on every side."""
    return tuple((p, p) for p in pair(padding))


def conv_transpose2d(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """Each input element paints X[h, w] * W onto a window of the output: the forward of one is the input gradient of the other.

    OH = (H - 1)*SH - 2*PH + DH*(KH - 1) + output_padding + 1; weight is (IC, OC // groups, KH, KW).
    """
    kernel, sides = weight.shape[2:], _transposed_sides(padding)
    OC = weight.shape[1] * groups
    OH, OW = (
        (h - 1) * s + d * (k - 1) + extra + 1
        for h, s, d, k, extra in zip(input.shape[2:], pair(stride), pair(dilation), kernel, pair(output_padding), strict=True)
    )
    padded = np.zeros((len(input), OC, OH, OW), input.dtype)
    X, W, Z = split_channels(input, groups), split_filters(weight, groups), split_channels(padded, groups)
    for h, w, rows, columns in _painted(padded.shape, kernel, stride, dilation, input.shape):
        Z[..., rows, columns] += np.einsum("ngi,giokl->ngokl", X[..., h, w], W)
    output = crop(padded, sides)
    return output if bias is None else output + bias[:, None, None]


def _painted(padded_shape, kernel, stride, dilation, input_shape):
    """The windows of those elements that exist: output_padding may leave room for a window that no input element paints."""
    for h, w, rows, columns in windows(padded_shape, kernel, stride, dilation):
        if h < input_shape[2] and w < input_shape[3]:
            yield h, w, rows, columns


def _padded_gradient(grad_output, padding):
    return zero_pad(grad_output, _transposed_sides(padding))


def conv_transpose2d_backward_input(grad_output, weight, input_shape, stride=1, padding=0, groups=1, dilation=1):
    """dL/dX[h, w] = sum of W * the window of dL/dZ that X[h, w] painted: a convolution."""
    padded = _padded_gradient(grad_output, padding)
    grad_input = np.zeros(input_shape, grad_output.dtype)
    dX, W, dZ = split_channels(grad_input, groups), split_filters(weight, groups), split_channels(padded, groups)
    for h, w, rows, columns in _painted(padded.shape, weight.shape[2:], stride, dilation, input_shape):
        dX[..., h, w] = np.einsum("ngokl,giokl->ngi", dZ[..., rows, columns], W)
    return grad_input


def conv_transpose2d_backward_weight(grad_output, input, weight_shape, stride=1, padding=0, groups=1, dilation=1):
    """dL/dW = sum over all input elements of X[h, w] * the window of dL/dZ that X[h, w] painted."""
    padded = _padded_gradient(grad_output, padding)
    grad_weight = np.zeros(weight_shape, grad_output.dtype)
    X, dW, dZ = split_channels(input, groups), split_filters(grad_weight, groups), split_channels(padded, groups)
    for h, w, rows, columns in _painted(padded.shape, weight_shape[2:], stride, dilation, input.shape):
        dW += np.einsum("ngi,ngokl->giokl", X[..., h, w], dZ[..., rows, columns])
    return grad_weight


def conv_transpose2d_backward_bias(grad_output):
    """dL/db, as for `conv2d`."""
    return grad_output.sum(axis=(0, 2, 3))


def conv_transpose2d_backward(grad_output, input, weight, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """(dL/dX, dL/dW, dL/db). `output_padding` shows in the gradient's shape already."""
    options = (stride, padding, groups, dilation)
    return (
        conv_transpose2d_backward_input(grad_output, weight, input.shape, *options),
        conv_transpose2d_backward_weight(grad_output, input, weight.shape, *options),
        conv_transpose2d_backward_bias(grad_output),
    )
