"""What a loss asks of its targets, and which accuracy goes with it."""

import numpy as np

from fastconv import nn
from fastconv.errors import ArgumentError, ArgumentTypeError


class Task:
    """Any loss that has no rules of its own: float targets in the model's dtype, no accuracy."""

    def __init__(self, loss):
        self.loss = loss
        self.sums = getattr(loss, "reduction", "mean") == "sum"

    def targets(self, name, y, dtype):
        """`y` as the array that the loss takes, or an error that names it."""
        if y.dtype.kind not in "biuf":
            raise ArgumentTypeError(f"{name} must hold numbers, got {y.dtype}")
        return y.astype(dtype, copy=False)

    def fit_to(self, name, y, prediction):
        """`y` checked against the model's first prediction, and with an axis added where (N,) means (N, 1)."""
        if y.ndim == 1 and prediction.ndim == 2 and prediction.shape[1] == 1:
            y = y[:, None]
        if y.shape[1:] != prediction.shape[1:]:
            raise ArgumentError(
                f"{name} must have the shape of the model's output, {('N', *prediction.shape[1:])}, for {type(self.loss).__name__}, "
                f"got {y.shape}"
            )
        return y

    def correct(self, prediction, target):
        """How many elements are predicted right, and how many count."""
        return 0, 0


class Classification(Task):
    """CrossEntropyLoss: integer class labels; right when the largest output is the label's."""

    def targets(self, name, y, dtype):
        if y.dtype.kind not in "iu":
            hint = f"; of one-hot rows, pass {name}.argmax(axis=1)" if y.ndim == 2 else ""
            raise ArgumentTypeError(f"{name} must be integer class labels for CrossEntropyLoss, got {y.dtype} of shape {y.shape}{hint}")
        return y.astype(np.int64, copy=False)

    def fit_to(self, name, y, prediction):
        if prediction.ndim < 2 or y.shape[1:] != prediction.shape[2:]:
            raise ArgumentError(f"{name} must have the shape {('N', *prediction.shape[2:])} of a label for each output of the model "
                                f"{('N', *prediction.shape[1:])}, got {y.shape}")  # fmt: skip
        classes, counting = prediction.shape[1], y != self.loss.ignore_index
        wrong = np.flatnonzero(((y < 0) | (y >= classes)) & counting)
        if len(wrong):
            raise ArgumentError(f"{name} must be labels from 0 to {classes - 1}, as the model has {classes} outputs, "
                                f"got {y.flat[wrong[0]]} at index {wrong[0]}")  # fmt: skip
        return y

    def correct(self, prediction, target):
        right = prediction.argmax(axis=1) == target
        if self.loss.ignore_index < 0:  # then it is no class, so never right
            return np.count_nonzero(right), target.size - np.count_nonzero(target == self.loss.ignore_index)
        counting = target != self.loss.ignore_index
        return np.count_nonzero(right & counting), np.count_nonzero(counting)


class Binary(Task):
    """BCELoss and BCEWithLogitsLoss: targets from 0 to 1; right when prediction and target are on the same side."""

    def targets(self, name, y, dtype):
        y = super().targets(name, y, dtype)
        if not ((y >= 0) & (y <= 1)).all():
            raise ArgumentError(f"{name} must be from 0 to 1 for {type(self.loss).__name__}, got values from {y.min()} to {y.max()}")
        return y

    def correct(self, prediction, target):
        limit = 0.5 if isinstance(self.loss, nn.BCELoss) else 0.0
        return np.count_nonzero((prediction >= limit) == (target >= 0.5)), target.size


def task_of(loss):
    """The Task of a loss."""
    if getattr(loss, "reduction", "mean") == "none":
        raise ArgumentError('loss must have reduction "mean" or "sum" to be trained on, got "none"')
    if isinstance(loss, nn.CrossEntropyLoss):
        return Classification(loss)
    return Binary(loss) if isinstance(loss, (nn.BCELoss, nn.BCEWithLogitsLoss)) else Task(loss)
