"""Batch normalisation."""

import functools

import numpy as np

from fastconv.errors import ArgumentError, ArgumentTypeError
from fastconv.functional.arrays import check_shape, contiguous, plain, same_dtype
from fastconv.functional.options import number, three
from fastconv.kernels import host, norm, norm_gradient
from fastconv.kernels.processor import VECTOR_BYTES
from fastconv.memory import empty

LAST = {2: (0, 1), 3: (0, 2, 1), 4: (0, 2, 3, 1)}  # by number of axes: the order that has the channels last, and its inverse
SECOND = {2: (0, 1), 3: (0, 2, 1), 4: (0, 3, 1, 2)}


def _rows(array):
    """(N, C, ...) as C-contiguous (N * ..., C)."""
    C = array.shape[1]
    return contiguous(array.transpose(LAST[array.ndim])).reshape(array.size // C, C)


def _restored(rows, shape):
    """(N * ..., C) as an array of the given shape (N, C, ...)."""
    return rows.reshape(shape[0], *shape[2:], shape[1]).transpose(SECOND[len(shape)])


def _checked(input):
    input = plain("input", input)
    if not 2 <= input.ndim <= 4 or 0 in input.shape[1:]:
        raise ArgumentError(f"input must have shape (N, C, H, W), (N, C, L) or (N, C), all but N at least 1, got {input.shape}")
    return input


def _like(name, array, input, x):
    """An array of the shape and dtype of input, whose rows are x, as rows."""
    array = plain(name, array)
    check_shape(name, array, input.shape)
    if array.dtype != x.dtype:
        raise ArgumentTypeError(f"{name} must be {x.dtype} as the other arrays are, got {array.dtype}")
    return _rows(array)


def _vector(name, vector, like):
    """An optional array of one number per channel; an empty one when it is None."""
    if vector is None:
        return np.empty(0, like.dtype)
    vector = same_dtype(name, vector, like.dtype, 1)
    if len(vector) != like.shape[1]:
        raise ArgumentError(f"{name} must have shape {(like.shape[1],)}, got {vector.shape}")
    return vector


BLOCKS, LEAST, MOST = 16, 8192, 32768
"""Blocks of sums where numbers suffice, and the numbers of one: of more, memory is read faster, and there are fewer sums to combine."""

RUN = 8
"""Wide rows of a run, at least: its sums are few beside it."""


@functools.lru_cache(maxsize=1024)
def _cut(M, C, itemsize):
    """How the kernels cut M rows of C channels: (fold, numbers of a wide row, wide rows of a run, blocks of runs, blocks of all rows).

    A wide row is `fold` rows, as many as fit into four vectors.
    """
    fold = max(1, 4 * VECTOR_BYTES // (C * itemsize))
    W, runs = fold * C, norm.RUNS
    step = max(RUN, min(MOST, max(LEAST, M * C // BLOCKS)) // (runs * W))
    return fold, W, step, -(-(M // (runs * fold)) // step), -(-M // (fold * max(1, norm.ELEMENTS // W)))


NO_BATCHES = np.empty(0, np.int64)
"""A number of batches that nobody counts, as the kernel takes it."""


def _forward(x, other, training, running_mean, running_var, batches, momentum, eps, weight, bias, low, wanted=True):
    """(normalized rows like x, statistics, factors) of kernels.norm.forward; without the rows unless they are `wanted`."""
    (M, C), dtype = x.shape, x.dtype
    fold, W, step, blocks, jobs = _cut(M, C, x.itemsize)
    y = empty(x.shape if wanted else (0, C), dtype)
    saved, factors = np.zeros((2, C), dtype), empty((3, W), dtype)
    if M:
        norm.forward(
            4 * x.size, x, other, training, running_mean, running_var, batches, momentum, eps, weight, bias, low, saved, y, fold, step,
            jobs if wanted else 0, empty((blocks, 3, W), dtype), np.empty((2, C)), factors,
        )  # fmt: skip
    elif training:
        batches += 1
    return y, saved, factors


def _constants(running_mean, running_var, x):
    """Running statistics where they are the mean and the variance."""
    if running_mean is None or running_var is None:
        missing = "running_mean" if running_mean is None else "running_var"
        raise ArgumentTypeError(f"{missing} must be an array when training is False, got None")
    return _vector("running_mean", running_mean, x), _vector("running_var", running_var, x)


def _check_writable(name, array):
    if array is not None and not array.flags.writeable:
        raise ArgumentError(f"{name} must be writable: training moves it")


def _check_count(batches):
    if batches is not None and not (isinstance(batches, np.ndarray) and batches.dtype == np.int64 and batches.size == 1):
        raise ArgumentTypeError(f"num_batches_tracked must be an int64 array of no axes, got {batches!r}")
    _check_writable("num_batches_tracked", batches)


def _check_batch(x):
    if len(x) == 1:
        raise ArgumentError("input must have more than one value per channel in training: the variance of one number is not defined")


def batch_norm_forward_saved(
    input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5,
    batches=None, *, relu=False, addend=None,
):  # fmt: skip
    """As `batch_norm`, plus `addend`, an array of its shape, and with `relu` ReLU of that; returns (output, saved), saved opaque and what
    `batch_norm_backward_saved` needs. In training `batches`, an int64 array of no axes, is counted up."""
    input = _checked(input)
    arguments = running_mean, running_var, weight, bias, training, momentum, eps, batches
    y, saved, _ = _normalized(input, *arguments, relu=relu, addend=addend)
    return _restored(y, input.shape), saved


def batch_norm_factors(input, running_mean, running_var, weight, bias, training, momentum, eps, batches):
    """What `batch_norm_forward_saved` does, but for its output: (saved, the factors that kernels.norm.forward computes with)."""
    return _normalized(_checked(input), running_mean, running_var, weight, bias, training, momentum, eps, batches, wanted=False)[1:]


def _normalized(input, running_mean, running_var, weight, bias, training, momentum, eps, batches, relu=False, addend=None, wanted=True):
    x = _rows(input)
    momentum, eps = number("momentum", momentum), number("eps", eps, 0)
    weight, bias = _vector("weight", weight, x), _vector("bias", bias, x)
    other = np.empty((0, 0), x.dtype) if addend is None else _like("addend", addend, input, x)
    if training:
        mean, var = _vector("running_mean", running_mean, x), _vector("running_var", running_var, x)
        _check_writable("running_mean", running_mean)
        _check_writable("running_var", running_var)
        _check_count(batches)
        _check_batch(x)
    else:
        mean, var = _constants(running_mean, running_var, x)
    count = NO_BATCHES if batches is None else batches.reshape(1)
    results = _forward(x, other, bool(training), mean, var, count, momentum, eps, weight, bias, 0.0 if relu else -np.inf, wanted)
    if training:
        for array, moved in ((running_mean, mean), (running_var, var)):
            if array is not None and moved is not array:
                host.copy(0, array, moved)
    return results


def batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """Batch normalisation, (input - mean) / sqrt(variance + eps) * weight + bias for each channel.

    Parameters
    ----------
    input : ndarray of shape (N, C, H, W), (N, C, L) or (N, C), float32 or float64
    running_mean, running_var : ndarrays of shape (C,), same dtype, or None in training
        Training changes them in place; otherwise they are the mean and the variance.
    weight, bias : ndarrays of shape (C,), same dtype, optional
    training : bool
        Take mean and (biased) variance of the batch.
    momentum : float
        The share of the batch in the new running statistics. The variance goes into them unbiased.
    eps : float

    Returns
    -------
    ndarray of the shape and dtype of input, channels-last memory

    Raises
    ------
    ValueError, TypeError
        When an argument does not fit; in training also when there is one value per channel, or running statistics are read-only.

    Notes
    -----
    Mean and variance are those of blocks of rows, of distances from a near mean, combined in float64: a large mean does not spoil the
    variance. An empty batch leaves the running statistics as they are. Parallel over blocks.

    References
    ----------
    S. Ioffe, C. Szegedy, "Batch normalization", 2015, algorithm 1. T. Chan, G. Golub, R. LeVeque, "Updating formulae and a pairwise
    algorithm for computing sample variances", 1979.
    """
    return batch_norm_forward_saved(input, running_mean, running_var, weight, bias, training, momentum, eps)[0]


# --- gradient ------------------------------------------------------------------------------------------------------------


def batch_norm_backward_saved(
    grad_output, input, saved, weight=None, bias=None, training=False, *, relu=False, output_mask=(True, True, True), in_place=False
):
    """As `batch_norm_backward`, from what `batch_norm_forward_saved` returned, with the same `relu`, for which it needs the bias. With
    `in_place` the gradient of the input may be in the memory of grad_output."""
    input = _checked(input)
    x = _rows(input)
    weight, bias = _vector("weight", weight, x), _vector("bias", bias, x)
    g = _like("grad_output", grad_output, input, x)
    (M, C), dtype, (need_input, need_weight, need_bias) = x.shape, x.dtype, three("output_mask", output_mask)
    grad_weight, grad_bias = np.zeros(C, dtype), np.zeros(C, dtype)
    d = g if in_place and need_input else empty(x.shape if need_input else (0, C), dtype)
    if M:
        fold, W, step, blocks, jobs = _cut(M, C, x.itemsize)
        norm_gradient.backward(
            4 * x.size, g, x, saved, weight, bias, 0.0 if relu else np.nan, bool(training), bool(training) or need_weight or need_bias,
            grad_weight, grad_bias, d, fold, step, jobs if need_input else 0, empty((blocks, 2, W), dtype), np.empty((2, C)),
            empty((5, W), dtype),
        )  # fmt: skip
    return _restored(d, input.shape) if need_input else None, grad_weight if need_weight else None, grad_bias if need_bias else None


def batch_norm_backward(
    grad_output, input, running_mean, running_var, weight=None, training=False, eps=1e-5, *, output_mask=(True, True, True)
):
    """Gradients of `batch_norm`.

    Parameters
    ----------
    grad_output : ndarray of the shape of input, float32 or float64
    input : ndarray of shape (N, C, H, W), (N, C, L) or (N, C), same dtype
    running_mean, running_var : ndarrays of shape (C,), same dtype, or None in training, which does not look at them
    weight : ndarray of shape (C,), same dtype, optional
    training : bool
    eps : float
    output_mask : three bools
        Which gradients to compute.

    Returns
    -------
    (grad_input, grad_weight, grad_bias)
        Of the shapes of input, (C,) and (C,); None where masked out.

    Raises
    ------
    ValueError, TypeError
        When an argument does not fit.

    Notes
    -----
    With x = (input - mean) / sqrt(variance + eps): grad_bias = sum of grad_output, grad_weight = sum of grad_output * x, and in training
    grad_input = weight / sqrt(variance + eps) * (grad_output - mean of grad_output - x * mean of grad_output * x).
    """
    input = _checked(input)
    x = _rows(input)
    eps = number("eps", eps, 0)
    if training:
        for name, array in (("running_mean", running_mean), ("running_var", running_var)):
            _vector(name, array, x)
        _check_batch(x)
        mean = var = np.empty(0, x.dtype)
    else:
        mean, var = _constants(running_mean, running_var, x)
    none = np.empty(0, x.dtype)
    _, saved, _ = _forward(x, none.reshape(0, 0), bool(training), mean, var, NO_BATCHES, 0.0, eps, none, none, 0.0, wanted=False)
    return batch_norm_backward_saved(grad_output, input, saved, weight, None, training, output_mask=output_mask)
