"""Cross entropy of class labels, softmax included."""

import numpy as np

from fastconv.errors import ArgumentError, ArgumentTypeError
from fastconv.functional.arrays import check_shape, contiguous, plain, same_dtype
from fastconv.functional.flat import TRANSCENDENTAL
from fastconv.functional.loss import REDUCTIONS, reduced_loss, upstream_scale
from fastconv.functional.options import choice, number
from fastconv.kernels import loss as kernels
from fastconv.kernels.vector import BLOCK
from fastconv.memory import empty
from fastconv.shapes import LIMIT, integer


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


class CrossEntropy:
    """The checked arguments of `cross_entropy`, its value and its gradient; rows has the classes innermost."""

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
        self.work = TRANSCENDENTAL * self.rows.size

    def _check(self, bad):
        """Raise when the kernel met a target, number `bad`, that is no class."""
        if bad >= 0:
            where = tuple(int(i) for i in np.unravel_index(bad, self.shape))
            raise ArgumentError(f"target must hold classes from 0 to {self.C - 1} or {self.ignore}, got {self.labels[bad]} at {where}")

    def loss(self):
        """The float, or the array, that `cross_entropy` returns."""
        rows, labels = self.rows, self.labels
        losses = empty(self.shape if self.reduction == "none" else (0,), rows.dtype)
        parts = np.empty(-(-labels.size // max(1, BLOCK // self.C)))
        total, weights, bad = kernels.cross_entropy_forward(
            self.work, rows.reshape(-1), labels, self.weight, losses.reshape(-1), parts, self.C, self.ignore, self.smoothing
        )
        self._check(bad)
        return reduced_loss(total, losses, self.reduction, weights)

    def gradient(self, grad_output=None):
        """What `cross_entropy_backward` returns."""
        scale, upstream = upstream_scale(grad_output, self.reduction, 0)
        rows, labels, g = self.rows, self.labels, np.empty(0, self.rows.dtype)
        if upstream is not None:
            check_shape("grad_output", plain("grad_output", upstream), self.shape)
            g = same_dtype("grad_output", upstream, rows.dtype, len(self.shape)).reshape(-1)
        d = empty(rows.shape, rows.dtype)
        mean = self.reduction == "mean"
        bad = kernels.cross_entropy_backward(
            self.work, rows.reshape(-1), labels, self.weight, g, d.reshape(-1), self.C, self.ignore, self.smoothing, scale, mean
        )
        self._check(bad)
        return d if d.ndim == 2 else np.moveaxis(d, -1, 1)


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
    return CrossEntropy(input, target, weight, ignore_index, reduction, label_smoothing).loss()


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
    return CrossEntropy(input, target, weight, ignore_index, reduction, label_smoothing).gradient(grad_output)
