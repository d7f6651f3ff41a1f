"""Losses: how wrong a prediction is, and the gradient of that by the prediction."""

import math

import numpy as np

from fastconv.errors import ArgumentError, ArgumentTypeError
from fastconv.functional.arrays import check_shape, contiguous, plain, same_dtype
from fastconv.functional.flat import TRANSCENDENTAL, Flat
from fastconv.functional.options import choice, number
from fastconv.kernels import loss as kernels
from fastconv.kernels.vector import BLOCK
from fastconv.shapes import LIMIT, integer

REDUCTIONS = ("mean", "sum", "none")


def _reduced(total, losses, reduction, count):
    """The float or array that a loss returns."""
    if reduction == "none":
        return losses
    if reduction == "sum":
        return total
    return total / count if count else math.nan


def _upstream(grad_output, reduction, count):
    """(scale, array or None): what the gradient of each loss is multiplied by."""
    if reduction == "none":
        return 1.0, grad_output
    scale = 1.0 if grad_output is None else number("grad_output", grad_output)
    return (scale / count if reduction == "mean" and count else scale), None


# --- classes -------------------------------------------------------------------------------------------------------------


def _labels(target, shape):
    """`target` as flat int64 labels of the given shape."""
    if not isinstance(target, np.ndarray) or isinstance(target, np.ma.MaskedArray):
        raise ArgumentTypeError(f"target must be a NumPy array of integers, got {type(target).__name__}")
    target = np.asarray(target)
    if target.dtype.kind not in "iu":
        raise ArgumentTypeError(f"target must be integers, got {target.dtype}")
    check_shape("target", target, shape)
    if target.dtype.kind == "u" and target.dtype.itemsize == 8:
        target = np.minimum(target, LIMIT)  # beyond 2**63 it would turn negative, and perhaps into ignore_index
    return contiguous(target if target.dtype == np.int64 else target.astype(np.int64)).reshape(-1)


class _Classes:
    """The checked arguments that cross entropy and its gradient share; rows has the classes innermost."""

    def __init__(self, input, target, weight, ignore_index, reduction, label_smoothing):
        input = plain("input", input)
        if input.ndim < 2 or input.shape[1] == 0:
            raise ArgumentError(f"input must have shape (N, C) or (N, C, H, W) with at least one class, got {input.shape}")
        shape = input.shape
        self.C = shape[1]
        self.rows = contiguous(input if input.ndim == 2 else np.moveaxis(input, 1, -1))
        self.shape = (shape[0], *shape[2:])
        self.labels = _labels(target, self.shape)
        self.weight = np.empty(0, input.dtype)
        if weight is not None:
            check_shape("weight", plain("weight", weight), (self.C,))
            self.weight = same_dtype("weight", weight, input.dtype, 1)
        self.reduction = choice("reduction", reduction, *REDUCTIONS)
        self.ignore = integer("ignore_index", ignore_index, -LIMIT)
        self.smoothing = number("label_smoothing", label_smoothing, 0, 1)

    @property
    def work(self):
        return TRANSCENDENTAL * self.rows.size

    def check(self, bad):
        """Raise when the kernel met a target, number `bad`, that is no class."""
        if bad >= 0:
            where = tuple(int(i) for i in np.unravel_index(bad, self.shape))
            raise ArgumentError(f"target must hold classes from 0 to {self.C - 1} or {self.ignore}, got {self.labels[bad]} at {where}")


def cross_entropy(input, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """Cross entropy of softmax(input) and class labels.

    Parameters
    ----------
    input : ndarray of shape (N, C) or (N, C, H, W), float32 or float64
        Logits: softmax is part of the loss.
    target : integer ndarray of shape (N,) or (N, H, W)
        Classes from 0 to C - 1.
    weight : ndarray of shape (C,), same dtype as input, optional
        Of the classes.
    ignore_index : int
        Targets that do not count.
    reduction : "mean", "sum" or "none"
        The mean is over the weights of all targets that count.
    label_smoothing : float
        From 0 to 1: the share of each target that is spread evenly over all classes.

    Returns
    -------
    float, or with reduction "none" an ndarray of the shape of target
        The mean of nothing is NaN.

    Raises
    ------
    ValueError, TypeError
        When an argument does not fit, or a target is no class.

    Notes
    -----
    -sum over c of q_c * log(softmax(input)_c) with q_c = weight_c * ((1 - label_smoothing) * [c = target] + label_smoothing / C).
    The logarithm of the sum of exponentials is taken with the maximum subtracted. Losses add up in float64, in a fixed order.

    Examples
    --------
    >>> round(cross_entropy(np.array([[0.0, 0.0], [9.0, 0.0]]), np.array([1, 0])), 4)
    0.3466
    """
    a = _Classes(input, target, weight, ignore_index, reduction, label_smoothing)
    losses = np.empty(a.shape if reduction == "none" else 0, a.rows.dtype)
    parts = np.empty(-(-a.labels.size // max(1, BLOCK // a.C)))
    total, weights, bad = kernels.cross_entropy_forward(
        a.work, a.rows.reshape(-1), a.labels, a.weight, losses.reshape(-1), parts, a.C, a.ignore, a.smoothing
    )
    a.check(bad)
    return _reduced(total, losses, reduction, weights)


def cross_entropy_backward(input, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0, *, grad_output=None):
    """Gradient of `cross_entropy` by its input: softmax(input) * sum of q - q, over the sum of weights for the mean.

    Parameters
    ----------
    input, target, weight, ignore_index, reduction, label_smoothing
        As in `cross_entropy`.
    grad_output : ndarray of the shape of target for reduction "none", else float; optional
        Gradient of the loss; without it, 1.

    Returns
    -------
    ndarray of the shape and dtype of input, the classes innermost in memory

    Raises
    ------
    ValueError, TypeError
        When an argument does not fit, or a target is no class.
    """
    a = _Classes(input, target, weight, ignore_index, reduction, label_smoothing)
    scale, upstream = _upstream(grad_output, reduction, 0)
    g = np.empty(0, a.rows.dtype)
    if upstream is not None:
        check_shape("grad_output", plain("grad_output", upstream), a.shape)
        g = same_dtype("grad_output", upstream, a.rows.dtype, len(a.shape)).reshape(-1)
    d = np.empty_like(a.rows)
    bad = kernels.cross_entropy_backward(
        a.work, a.rows.reshape(-1), a.labels, a.weight, g, d.reshape(-1), a.C, a.ignore, a.smoothing, scale, reduction == "mean"
    )
    a.check(bad)
    return d if d.ndim == 2 else np.moveaxis(d, -1, 1)


# --- element by element --------------------------------------------------------------------------------------------------


class _Pairs:
    """The checked arguments that element by element losses share, flat and in the order of the prediction's memory."""

    def __init__(self, input, target, reduction, *weights):
        self.x = Flat("input", input)
        self.values = self.x.values
        self.target = self.x.beside("target", target)
        self.reduction = choice("reduction", reduction, *REDUCTIONS)
        self.weights = [self._weight(name, weight, np.shape(input)) for name, weight in weights]

    def _weight(self, name, weight, shape):
        if weight is None:
            return np.empty(0, self.values.dtype)
        weight = plain(name, weight)
        if weight.shape != shape:
            try:
                weight = np.broadcast_to(weight, shape)
            except ValueError:
                raise ArgumentError(f"{name} must broadcast to the shape {shape} of input, got {weight.shape}") from None
        return self.x.beside(name, weight)

    def forward(self, kernel, cost, *others):
        """Call a kernel with (x, target, *weights, losses, parts, *others); returns (losses or None, what the kernel returns)."""
        losses = np.empty(self.values.size if self.reduction == "none" else 0, self.values.dtype)
        parts = np.empty(-(-self.values.size // BLOCK))
        result = kernel(cost * self.values.size, self.values, self.target, *self.weights, losses, parts, *others)
        return losses, result

    def reduced(self, total, losses):
        return _reduced(total, self.x.restore(losses) if self.reduction == "none" else None, self.reduction, self.values.size)

    def backward(self, kernel, cost, grad_output):
        """Call a kernel with (x, target, *weights, g, d, scale)."""
        scale, upstream = _upstream(grad_output, self.reduction, self.values.size)
        g = np.empty(0, self.values.dtype) if upstream is None else self.x.beside("grad_output", upstream)
        d = np.empty_like(self.values)
        kernel(cost * d.size, self.values, self.target, *self.weights, g, d, scale)
        return self.x.restore(d)


def binary_cross_entropy(input, target, weight=None, reduction="mean"):
    """Binary cross entropy of probabilities, -target*log(input) - (1 - target)*log(1 - input).

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64
        Probabilities.
    target : ndarray of the same shape and dtype
    weight : ndarray of the same dtype that broadcasts to the shape of input, optional
    reduction : "mean", "sum" or "none"

    Returns
    -------
    float, or with reduction "none" an ndarray of the shape of input
        The mean of nothing is NaN.

    Raises
    ------
    ValueError, TypeError
        When an argument does not fit, or a probability is outside 0 to 1. NaN is let through.

    Notes
    -----
    Logarithms are at least -100, so that a wrong certainty costs 100 and not infinity.
    """
    a = _Pairs(input, target, reduction, ("weight", weight))
    losses, (total, bad) = a.forward(
        kernels.binary_cross_entropy_forward, 2 * TRANSCENDENTAL, np.empty(-(-a.values.size // BLOCK), np.int64)
    )
    if bad:
        raise ArgumentError(f"input must be probabilities from 0 to 1, got {bad} of {a.values.size} outside")
    return a.reduced(total, losses)


def binary_cross_entropy_backward(input, target, weight=None, reduction="mean", *, grad_output=None):
    """Gradient of `binary_cross_entropy` by its input: (input - target) / max(input * (1 - input), 1e-12).

    Parameters
    ----------
    input, target, weight, reduction
        As in `binary_cross_entropy`.
    grad_output : ndarray of the shape of input for reduction "none", else float; optional
        Gradient of the loss; without it, 1.

    Returns
    -------
    ndarray of the shape and dtype of input

    Raises
    ------
    ValueError, TypeError
        When an argument does not fit.
    """
    return _Pairs(input, target, reduction, ("weight", weight)).backward(kernels.binary_cross_entropy_backward, 8, grad_output)


def binary_cross_entropy_with_logits(input, target, weight=None, reduction="mean", pos_weight=None):
    """Binary cross entropy of sigmoid(input), both in one.

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64
        Logits.
    target : ndarray of the same shape and dtype
    weight : ndarray of the same dtype that broadcasts to the shape of input, optional
    reduction : "mean", "sum" or "none"
    pos_weight : ndarray of the same dtype that broadcasts to the shape of input, optional
        Of the terms with target 1.

    Returns
    -------
    float, or with reduction "none" an ndarray of the shape of input
        The mean of nothing is NaN.

    Raises
    ------
    ValueError, TypeError
        When an argument does not fit.

    Notes
    -----
    pos_weight * target * log(1 + exp(-input)) + (1 - target) * log(1 + exp(input)), computed without overflow.
    """
    a = _Pairs(input, target, reduction, ("weight", weight), ("pos_weight", pos_weight))
    losses, total = a.forward(kernels.logits_forward, 2 * TRANSCENDENTAL)
    return a.reduced(total, losses)


def binary_cross_entropy_with_logits_backward(input, target, weight=None, reduction="mean", pos_weight=None, *, grad_output=None):
    """Gradient of `binary_cross_entropy_with_logits` by its input: sigmoid(input) - target where no weights are given.

    Parameters
    ----------
    input, target, weight, reduction, pos_weight
        As in `binary_cross_entropy_with_logits`.
    grad_output : ndarray of the shape of input for reduction "none", else float; optional
        Gradient of the loss; without it, 1.

    Returns
    -------
    ndarray of the shape and dtype of input

    Raises
    ------
    ValueError, TypeError
        When an argument does not fit.
    """
    a = _Pairs(input, target, reduction, ("weight", weight), ("pos_weight", pos_weight))
    return a.backward(kernels.logits_backward, 2 * TRANSCENDENTAL, grad_output)


def mse_loss(input, target, reduction="mean"):
    """Squared error, (input - target)**2.

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64
    target : ndarray of the same shape and dtype
    reduction : "mean", "sum" or "none"

    Returns
    -------
    float, or with reduction "none" an ndarray of the shape of input
        The mean of nothing is NaN.

    Raises
    ------
    ValueError, TypeError
        When an argument does not fit.
    """
    a = _Pairs(input, target, reduction)
    losses, total = a.forward(kernels.squared_error_forward, 3)
    return a.reduced(total, losses)


def mse_loss_backward(input, target, reduction="mean", *, grad_output=None):
    """Gradient of `mse_loss` by its input: 2 * (input - target).

    Parameters
    ----------
    input, target, reduction
        As in `mse_loss`.
    grad_output : ndarray of the shape of input for reduction "none", else float; optional
        Gradient of the loss; without it, 1.

    Returns
    -------
    ndarray of the shape and dtype of input

    Raises
    ------
    ValueError, TypeError
        When an argument does not fit.
    """
    return _Pairs(input, target, reduction).backward(kernels.squared_error_backward, 3, grad_output)
