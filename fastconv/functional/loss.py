"""Losses element by element, and what all losses share: how wrong a prediction is, and the gradient of that by the prediction."""

import math
from operator import is_

import numpy as np

from fastconv.errors import ArgumentError
from fastconv.functional.arrays import plain
from fastconv.functional.flat import TRANSCENDENTAL, Flat
from fastconv.functional.options import choice, number
from fastconv.kernels import loss as kernels
from fastconv.kernels.vector import BLOCK
from fastconv.memory import empty

REDUCTIONS = ("mean", "sum", "none")


def reduced_loss(total, losses, reduction, count):
    """The float or array that a loss returns."""
    if reduction == "none":
        return losses
    if reduction == "sum":
        return total
    return total / count if count else math.nan


def upstream_scale(grad_output, reduction, count):
    """(scale, array or None): what the gradient of each loss is multiplied by."""
    if reduction == "none":
        return 1.0, grad_output
    scale = 1.0 if grad_output is None else number("grad_output", grad_output)
    return (scale / count if reduction == "mean" and count else scale), None


class Checked:
    """The checked arguments of a loss. Each has a `loss()`, what the function of its name returns, and a `gradient(grad_output)`.

    Attributes
    ----------
    options : dict
        The options as they were given, where a layer has given them.
    """

    options: dict

    def again(self, input, target, options):
        """The same for other arrays with the same options, where nothing needs to be checked and there are no weights; else None."""
        if not (all(map(is_, options.values(), self.options.values())) and self._is_like(input, target)):
            return None
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other._take(input, target)
        return other

    def _is_like(self, input, target):
        raise NotImplementedError

    def _take(self, input, target):
        raise NotImplementedError


def is_like(array, shape, dtype):
    """Whether a kernel can take `array` as it is, and it is of that shape and dtype."""
    return type(array) is np.ndarray and array.shape == shape and array.dtype == dtype and array.flags.carray


class _Pairs(Checked):
    """Those of an element by element loss, flat and in the order of the prediction's memory: what its classes share."""

    def __init__(self, input, target, reduction, *weights):
        self.x = Flat("input", input)
        self.values = self.x.values
        self.target = self.x.beside("target", target)
        self.reduction = choice("reduction", reduction, *REDUCTIONS)
        self.weights = [self._weight(name, weight, np.shape(input)) for name, weight in weights]

    def _is_like(self, input, target):
        if self.x.channels_last or any(weight.size for weight in self.weights):
            return False
        shape, dtype = self.x.shape, self.values.dtype
        return is_like(input, shape, dtype) and is_like(target, shape, dtype)

    def _take(self, input, target):
        self.x = Flat("input", input)
        self.values, self.target = self.x.values, target.ravel()

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

    def _forward(self, kernel, cost, *others):
        """Call a kernel with (x, target, *weights, losses, parts, *others); returns (losses, what the kernel returns)."""
        losses = empty(self.values.shape if self.reduction == "none" else (0,), self.values.dtype)
        parts = np.empty(-(-self.values.size // BLOCK))
        result = kernel(cost * self.values.size, self.values, self.target, *self.weights, losses, parts, *others)
        return losses, result

    def _reduced(self, total, losses):
        return reduced_loss(total, self.x.restore(losses) if self.reduction == "none" else None, self.reduction, self.values.size)

    def _backward(self, kernel, cost, grad_output):
        """Call a kernel with (x, target, *weights, g, d, scale)."""
        scale, upstream = upstream_scale(grad_output, self.reduction, self.values.size)
        g = np.empty(0, self.values.dtype) if upstream is None else self.x.beside("grad_output", upstream)
        d = empty(self.values.shape, self.values.dtype)
        kernel(cost * d.size, self.values, self.target, *self.weights, g, d, scale)
        return self.x.restore(d)


class BinaryCrossEntropy(_Pairs):
    def __init__(self, input, target, weight, reduction):
        super().__init__(input, target, reduction, ("weight", weight))

    def loss(self):
        count = self.values.size
        counts = np.empty(-(-count // BLOCK), np.int64)
        losses, (total, bad) = self._forward(kernels.binary_cross_entropy_forward, 2 * TRANSCENDENTAL, counts)
        if bad:
            raise ArgumentError(f"input must be probabilities from 0 to 1, got {bad} of {count} outside")
        return self._reduced(total, losses)

    def gradient(self, grad_output=None):
        return self._backward(kernels.binary_cross_entropy_backward, 8, grad_output)


class BinaryCrossEntropyWithLogits(_Pairs):
    def __init__(self, input, target, weight, reduction, pos_weight):
        super().__init__(input, target, reduction, ("weight", weight), ("pos_weight", pos_weight))

    def loss(self):
        losses, total = self._forward(kernels.logits_forward, 2 * TRANSCENDENTAL)
        return self._reduced(total, losses)

    def gradient(self, grad_output=None):
        return self._backward(kernels.logits_backward, 2 * TRANSCENDENTAL, grad_output)


class SquaredError(_Pairs):
    def loss(self):
        losses, total = self._forward(kernels.squared_error_forward, 3)
        return self._reduced(total, losses)

    def gradient(self, grad_output=None):
        return self._backward(kernels.squared_error_backward, 3, grad_output)


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
    return BinaryCrossEntropy(input, target, weight, reduction).loss()


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
    return BinaryCrossEntropy(input, target, weight, reduction).gradient(grad_output)


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
    return BinaryCrossEntropyWithLogits(input, target, weight, reduction, pos_weight).loss()


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
    ndarray of the shape and dtype of input; magnitudes below 1e-31 (float64: 1e-292) are 0

    Raises
    ------
    ValueError, TypeError
        When an argument does not fit.
    """
    return BinaryCrossEntropyWithLogits(input, target, weight, reduction, pos_weight).gradient(grad_output)


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
    return SquaredError(input, target, reduction).loss()


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
    return SquaredError(input, target, reduction).gradient(grad_output)
