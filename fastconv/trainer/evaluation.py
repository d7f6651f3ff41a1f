"""Passes over images in evaluation mode, in order."""

import contextlib

from fastconv.nn import no_grad
from fastconv.trainer.batches import Batches


class Means:
    """Sums over batches, for the means."""

    def __init__(self, task):
        self.task = task
        self.images = self.loss = self.right = self.counted = 0

    def add(self, loss, prediction, target):
        """Take in a batch and its loss."""
        right, counted = self.task.correct(prediction, target)
        self.loss += loss if self.task.sums else loss * len(prediction)
        self.images += len(prediction)
        self.right += right
        self.counted += counted

    def values(self):
        """{"loss", "accuracy"}: floats, None for what was not measured."""
        return {
            "loss": self.loss / self.images if self.images else None,
            "accuracy": self.right / self.counted if self.counted else None,
        }


@contextlib.contextmanager
def evaluating(model):
    """Evaluation mode without memory for backward; afterwards every module is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def in_order(x, batch_size, dtype):
    """Yield (start, images) for each batch of `x`; the images are valid until the next ones."""
    batches = Batches(x, min(batch_size, len(x)), dtype)
    for start in range(0, len(x), batch_size):
        yield start, batches(slice(start, start + batch_size))


def measure(model, task, x, y, batch_size, interrupted=lambda: False):
    """{"loss", "accuracy"} over all of `x` and its checked targets `y`, or None when interrupted."""
    dtype = next(model.parameters()).dtype
    means = Means(task)
    with evaluating(model):
        for start, images in in_order(x, batch_size, dtype):
            prediction = model(images)
            if start == 0:
                y = task.fit_to("y", y, prediction)
            target = y[start : start + len(images)]
            means.add(task.loss.forward(prediction, target), prediction, target)
            if interrupted():
                return None
    return means.values()
