"""Losses: a number that says how wrong a prediction is, and its gradient."""

from typing import Any

from fastconv.functional.arrays import plain
from fastconv.functional.cross_entropy import CrossEntropy
from fastconv.functional.loss import BinaryCrossEntropy, BinaryCrossEntropyWithLogits, Checked, SquaredError
from fastconv.functional.options import choice, number
from fastconv.nn.module import Module
from fastconv.nn.recording import recording
from fastconv.shapes import integer


class Loss(Module):
    """Base class of losses: called with (prediction, target) it returns a float, and backward() the gradient of the prediction.

    With reduction "none" it returns an array, and backward takes the gradient of that array, ones when it is left out.
    Subclasses name a class of `fastconv.functional`, which checks prediction, target and options, and has the loss and its gradient.
    """

    _checked: Any = None

    def __init__(self, reduction="mean"):
        self.reduction = choice("reduction", reduction, "mean", "sum", "none")

    def _options(self):
        return {"reduction": self.reduction}

    def forward(self, prediction, target):
        options, saved, checked = self._options(), self._saved, None
        if saved and isinstance(saved[0], Checked):
            checked = saved[0].again(prediction, target, options)
        if checked is None:
            checked = self._checked(prediction, target, **options)
            checked.options = options
        loss = self._value(checked)
        self.remember(checked)
        return loss

    def _value(self, checked):
        return checked.loss()

    def backward(self, grad_output=None):
        (checked,) = self.recall()
        return checked.gradient(grad_output)

    def extra_repr(self):
        return f"reduction={self.reduction!r}"


def _weights(name, weight):
    """An optional array of weights, a copy of its own."""
    return None if weight is None else plain(name, weight).copy()


class CrossEntropyLoss(Loss):
    """Cross entropy of softmax(prediction) and class labels, both in one.

    Called with a prediction of shape (N, C), or (N, C, H, W), and integer labels of shape (N,), or (N, H, W), from 0 to C - 1.

    Parameters
    ----------
    weight : ndarray of shape (C,), optional
        Of the classes; the mean is then weighted.
    ignore_index : int
        The label of elements that do not count.
    reduction : "mean", "sum" or "none"
    label_smoothing : float
        From 0 to 1: the share of a target that is spread over all classes.

    Raises
    ------
    ValueError, TypeError
        When an option cannot be; in forward, when shapes do not fit or labels are out of range.
    """

    _checked = CrossEntropy

    def __init__(self, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
        super().__init__(reduction)
        self.weight = _weights("weight", weight)
        self.ignore_index = integer("ignore_index", ignore_index, -(1 << 40))
        self.label_smoothing = number("label_smoothing", label_smoothing, 0, 1)

    def _options(self):
        return {
            "weight": self.weight,
            "ignore_index": self.ignore_index,
            "reduction": self.reduction,
            "label_smoothing": self.label_smoothing,
        }

    def _value(self, checked):
        return checked.loss(ahead=recording())


class BCELoss(Loss):
    """Binary cross entropy of probabilities: -target*log(prediction) - (1 - target)*log(1 - prediction), logarithms not below -100.

    Called with two arrays of the same shape. `BCEWithLogitsLoss` includes the sigmoid and is more accurate.

    Parameters
    ----------
    weight : ndarray that broadcasts to the prediction, optional
    reduction : "mean", "sum" or "none"

    Raises
    ------
    ValueError, TypeError
        When an option cannot be; in forward, when shapes do not fit or a probability is outside 0 to 1.
    """

    _checked = BinaryCrossEntropy

    def __init__(self, weight=None, reduction="mean"):
        super().__init__(reduction)
        self.weight = _weights("weight", weight)

    def _options(self):
        return {"weight": self.weight, "reduction": self.reduction}


class BCEWithLogitsLoss(Loss):
    """Binary cross entropy of sigmoid(prediction), both in one. Called with two arrays of the same shape.

    Parameters
    ----------
    weight : ndarray that broadcasts to the prediction, optional
    reduction : "mean", "sum" or "none"
    pos_weight : ndarray that broadcasts to the prediction, optional
        Of the terms with target 1.

    Raises
    ------
    ValueError, TypeError
        When an option cannot be; in forward, when shapes do not fit.
    """

    _checked = BinaryCrossEntropyWithLogits

    def __init__(self, weight=None, reduction="mean", pos_weight=None):
        super().__init__(reduction)
        self.weight, self.pos_weight = _weights("weight", weight), _weights("pos_weight", pos_weight)

    def _options(self):
        return {"weight": self.weight, "reduction": self.reduction, "pos_weight": self.pos_weight}


class MSELoss(Loss):
    """Mean squared error, (prediction - target)**2. Called with two arrays of the same shape.

    Parameters
    ----------
    reduction : "mean", "sum" or "none"

    Raises
    ------
    ValueError, TypeError
        When reduction cannot be; in forward, when shapes do not fit.
    """

    _checked = SquaredError
