"""Cross entropy of class labels, softmax included."""

import numpy as np

from fastconv.errors import ArgumentError, ArgumentTypeError
from fastconv.functional.arrays import check_shape, contiguous, plain, same_dtype
from fastconv.functional.flat import TRANSCENDENTAL
from fastconv.functional.loss import REDUCTIONS, Checked, is_like, reduced_loss, upstream_scale
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
    return contiguous(target if target.dtype == np.int64 else target.astype(np.int64)).ravel()


class CrossEntropy(Checked):
    """The checked arguments of `cross_entropy`, its value and its gradient; rows has the classes innermost."""

    def __init__(self, input, target, weight, ignore_index, reduction, label_smoothing):
        input = plain("input", input)
        shape, dtype = input.shape, input.dtype
        if len(shape) < 2 or shape[1] == 0:
            raise ArgumentError(f"input must have shape (N, C) or (N, C, H, W) with at least one class, got {shape}")
        self.C = shape[1]
        self.rows = contiguous(input if len(shape) == 2 else np.moveaxis(input, 1, -1))
        self.shape = (shape[0], *shape[2:])
        self.labels = _labels(target, self.shape)
        self.none = np.empty(0, dtype)
        self.weight = self.none
        if weight is not None:
            check_shape("weight", plain("weight", weight), (self.C,))
            self.weight = same_dtype("weight", weight, dtype, 1)
        self.reduction = choice("reduction", reduction, *REDUCTIONS)
        self.ignore = integer("ignore_index", ignore_index, -LIMIT)
        self.smoothing = number("label_smoothing", label_smoothing, 0, 1)
        self.ahead = None

    def _is_like(self, input, target):
        shape, dtype = self.rows.shape, self.rows.dtype
        return len(shape) == 2 and not self.weight.size and is_like(input, shape, dtype) and is_like(target, shape[:1], self.labels.dtype)

    def _take(self, input, target):
        self.rows, self.labels, self.ahead = input, target, None

    def _compute(self, losses, d, g, scale):
        """(sum of losses, sum of their weights), which need g and scale only for the gradient d."""
        rows, labels, C = self.rows.ravel(), self.labels, self.C
        total, weights, bad = kernels.cross_entropy(
            TRANSCENDENTAL * rows.size, rows, labels, self.weight, g, losses.ravel(), d.ravel(),
            np.empty(-(-labels.size // max(1, BLOCK // C))), C, self.ignore, self.smoothing, scale, self.reduction == "mean",
        )  # fmt: skip
        if bad >= 0:
            where = tuple(int(i) for i in np.unravel_index(bad, self.shape))
            raise ArgumentError(f"target must hold classes from 0 to {C - 1} or {self.ignore}, got {labels[bad]} at {where}")
        return total, weights

    def loss(self, ahead=False):
        """The float, or the array, that `cross_entropy` returns; with `ahead` its gradient is computed in the same pass, and kept."""
        dtype = self.rows.dtype
        losses = empty(self.shape, dtype) if self.reduction == "none" else self.none
        d = empty(self.rows.shape, dtype) if ahead else self.none
        total, weights = self._compute(losses, d, self.none, 1.0)
        self.ahead = d if ahead else None
        return reduced_loss(total, losses, self.reduction, weights)

    def gradient(self, grad_output=None):
        """What `cross_entropy_backward` returns."""
        d, self.ahead = self.ahead, None  # given to one caller, who may change it
        if d is None or grad_output is not None:
            scale, upstream = upstream_scale(grad_output, self.reduction, 0)
            dtype, g = self.rows.dtype, self.none
            if upstream is not None:
                check_shape("grad_output", plain("grad_output", upstream), self.shape)
                g = same_dtype("grad_output", upstream, dtype, len(self.shape)).ravel()
            d = empty(self.rows.shape, dtype)
            self._compute(self.none, d, g, scale)
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
    ndarray of the shape and dtype of input, the classes innermost in memory; magnitudes below 1e-31 (float64: 1e-292) are 0

    Raises
    ------
    ValueError, TypeError
        When an argument does not fit, or a target is no class.
    """
    return CrossEntropy(input, target, weight, ignore_index, reduction, label_smoothing).gradient(grad_output)
