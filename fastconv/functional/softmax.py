"""Softmax along one axis of an array of any shape, and its logarithm."""

import numpy as np

from fastconv.errors import ArgumentError
from fastconv.functional.arrays import check_shape, contiguous, plain, same_dtype
from fastconv.functional.flat import TRANSCENDENTAL
from fastconv.kernels import softmax as kernels
from fastconv.memory import empty
from fastconv.shapes import integer


def _axis(array, dim):
    """`dim` as an axis from 0 on."""
    dim = integer("dim", dim, -array.ndim)
    if dim >= array.ndim:
        raise ArgumentError(f"dim must be from {-array.ndim} to {array.ndim - 1} for shape {array.shape}, got {dim}")
    return dim % array.ndim


def _along(kernel, cost, name, array, dim, *others):
    """Call a row kernel on the rows of `array` along axis `dim`; `others` are (name, array) that the kernel reads before it."""
    array = plain(name, array)
    if array.ndim == 0:
        raise ArgumentError(f"{name} must have at least one axis, got a single number")
    axis = _axis(array, dim)
    last = axis == array.ndim - 1
    # the axes keep their order but for `axis`, which goes last: no copy for channels-last memory and dim 1, nor for C order and dim -1
    order = (*(a for a in range(array.ndim) if a != axis), axis)
    rows = [array if last else array.transpose(order)]
    for other_name, other in others:
        check_shape(other_name, plain(other_name, other), array.shape)
        rows.append(same_dtype(other_name, other if last else other.transpose(order), array.dtype, array.ndim))
    first = contiguous(rows[0])
    result = empty(first.shape, first.dtype)
    if first.size:
        kernel(cost * first.size, *(r.reshape(-1) for r in (*rows[1:], first, result)), first.shape[-1])
    return result if last else result.transpose(np.argsort(order))


def softmax(input, dim=-1):
    """exp(input) over its sum along axis `dim`.

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64
    dim : int
        Axis; negative numbers count from the last.

    Returns
    -------
    ndarray of the same shape and dtype
        `dim` is innermost in its memory: channels-last for dim 1 of (N, C, H, W).

    Raises
    ------
    ValueError, TypeError
        When input is not an array of float32 or float64, or dim is out of range.

    Notes
    -----
    The maximum is subtracted first: nothing overflows. A row that holds NaN or +inf, or only -inf, becomes NaN.
    """
    return _along(kernels.softmax_forward, TRANSCENDENTAL, "input", input, dim)


def softmax_backward(grad_output, output, dim=-1):
    """Gradient of `softmax`: output * (grad_output - sum of grad_output * output along `dim`).

    Parameters
    ----------
    grad_output : ndarray of any shape, float32 or float64
    output : ndarray of the same shape and dtype
        The output of `softmax`.
    dim : int

    Returns
    -------
    ndarray of the same shape and dtype; magnitudes below 1e-31 (float64: 1e-292) are 0

    Raises
    ------
    ValueError, TypeError
        When shapes or dtypes differ, or dim is out of range.
    """
    return _along(kernels.softmax_backward, 4, "output", output, dim, ("grad_output", grad_output))


def log_softmax(input, dim=-1):
    """Logarithm of `softmax`, input - log(sum of exp(input)) along axis `dim`.

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64
    dim : int
        Axis; negative numbers count from the last.

    Returns
    -------
    ndarray of the same shape and dtype
        `dim` is innermost in its memory: channels-last for dim 1 of (N, C, H, W).

    Raises
    ------
    ValueError, TypeError
        When input is not an array of float32 or float64, or dim is out of range.
    """
    return _along(kernels.log_softmax_forward, TRANSCENDENTAL, "input", input, dim)


def log_softmax_backward(grad_output, output, dim=-1):
    """Gradient of `log_softmax`: grad_output - exp(output) * sum of grad_output along `dim`.

    Parameters
    ----------
    grad_output : ndarray of any shape, float32 or float64
    output : ndarray of the same shape and dtype
        The output of `log_softmax`.
    dim : int

    Returns
    -------
    ndarray of the same shape and dtype; magnitudes below 1e-31 (float64: 1e-292) are 0

    Raises
    ------
    ValueError, TypeError
        When shapes or dtypes differ, or dim is out of range.
    """
    return _along(kernels.log_softmax_backward, TRANSCENDENTAL, "output", output, dim, ("grad_output", grad_output))
