"""The Trainer: what it is made of, and what it is asked to do."""

import numpy as np

from fastconv import nn
from fastconv.errors import ArgumentError, ArgumentTypeError
from fastconv.optim.optimizer import Optimizer
from fastconv.optim.schedule import OneCycleLR, Scheduler
from fastconv.shapes import integer
from fastconv.trainer.batches import check_images, check_pair
from fastconv.trainer.evaluation import evaluating, in_order, measure
from fastconv.trainer.fitting import Fitting
from fastconv.trainer.metrics import task_of


class Trainer:
    """Trains a model on arrays of images, a batch at a time.

    Parameters
    ----------
    model : Module
    loss : Module
        One of `fastconv.nn`'s losses, with reduction "mean" or "sum". It also says what accuracy is: for CrossEntropyLoss the share of
        images whose largest output is the label's; for BCELoss and BCEWithLogitsLoss that of outputs on the target's side of 0.5 (of 0
        before the sigmoid); MSELoss has none.
    optimizer : Optimizer
        Of the model's parameters.
    scheduler : Scheduler, optional
        OneCycleLR is stepped after every batch; ReduceLROnPlateau after every epoch, with the validation loss (the training loss when
        there is no validation); all others after every epoch.
    seed : int
        Of the order of the images and of dropout layers that have no seed of their own: same seed, same bits.
    progress : bool
        Show a bar for each epoch on a terminal, a line for each elsewhere, on standard error.
    callbacks : sequence
        Functions called after every epoch with a `fastconv.trainer.Report`; returning True stops the training. An object may instead
        have a method ``on_epoch``, and a method ``on_batch`` that is called after every batch.
    patience : int, optional
        Stop after so many epochs without a lower validation loss (training loss when there is no validation), and put the parameters of
        the best epoch back.
    checkpoint : str or path-like, optional
        Safetensors file that always holds the state of the best epoch, by the same measure.
    scheduler_step : "batch" or "epoch", optional
        When to step the scheduler, where the above does not fit.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        When an option cannot be, or the optimizer is of other parameters.

    Notes
    -----
    Images are float32 or float64, or uint8, which are divided by 255 as each batch is gathered. Whatever their dtype, they
    are computed with in the model's.

    When a loss is not finite, `fit` raises NotFiniteError, which says in which epoch and batch and what was not finite first. The
    model is then put back to its state after the last whole epoch (before `fit`, in its first): the weights just before
    are finite but as a rule useless, and batch normalization's running means are not even finite.

    Ctrl-C ends the training after the batch that is being computed: `fit` returns the history, with ``stopped`` "interrupted", and
    the model keeps its parameters of that moment.
    """

    def __init__(self, model, loss, optimizer, *, scheduler=None, seed=0, progress=True, callbacks=(), patience=None, checkpoint=None,
                 scheduler_step=None):  # fmt: skip
        for name, value, kind in (("model", model, nn.Module), ("loss", loss, nn.Module), ("optimizer", optimizer, Optimizer)):
            if not isinstance(value, kind):
                raise ArgumentTypeError(f"{name} must be of type {kind.__name__}, got {type(value).__name__}")
        own = {id(p) for p in model.parameters()}
        if not all(id(p) in own for group in optimizer.param_groups for p in group["params"]):
            raise ArgumentError("optimizer must be of the model's parameters, but has others: make it with model.parameters()")
        if scheduler is not None and not isinstance(scheduler, Scheduler):
            raise ArgumentTypeError(f"scheduler must be a Scheduler, got {type(scheduler).__name__}")
        if scheduler is not None and scheduler.optimizer is not optimizer:
            raise ArgumentError("scheduler must be of this optimizer, but is of another")
        if scheduler_step not in (None, "batch", "epoch"):
            raise ArgumentError(f'scheduler_step must be "batch" or "epoch", got {scheduler_step!r}')
        self.model, self.loss, self.optimizer, self.scheduler = model, loss, optimizer, scheduler
        self.scheduler_step = scheduler_step or ("batch" if isinstance(scheduler, OneCycleLR) else "epoch")
        self.seed = integer("seed", seed, 0)
        self.progress = bool(progress)
        self.on_batch = [c.on_batch for c in callbacks if hasattr(c, "on_batch")]
        self.on_epoch = [getattr(c, "on_epoch", c) for c in callbacks if hasattr(c, "on_epoch") or not hasattr(c, "on_batch")]
        for callback in self.on_batch + self.on_epoch:
            if not callable(callback):
                raise ArgumentTypeError(f"callbacks must be functions, or objects with on_epoch or on_batch, got {callback!r}")
        self.patience = None if patience is None else integer("patience", patience, 1)
        self.checkpoint = checkpoint
        self.task = task_of(loss)
        self.dtype = next(model.parameters()).dtype
        self.epochs_done = 0

    # --- training

    def fit(self, x, y, epochs=1, batch_size=32, validation_data=None, shuffle=True, history=None):
        """Train for a number of epochs.

        Parameters
        ----------
        x : ndarray of shape (N, C, H, W), or (N, ...)
            float32, float64, or uint8 (divided by 255).
        y : ndarray
            Integer labels (N,) for CrossEntropyLoss; for the other losses numbers of the model's output shape, (N,) also where that
            is (N, 1).
        epochs : int
            How many to train; counted on from those in `history`.
        batch_size : int
            At most N. The last batch of an epoch may be smaller.
        validation_data : (x, y), optional
            Evaluated after every epoch.
        shuffle : bool
            Take the images in a new order in every epoch.
        history : History, optional
            Of earlier epochs; it is added to.

        Returns
        -------
        History
            `history`, or a new one.

        Raises
        ------
        ArgumentError, ArgumentTypeError
            When arrays or options do not fit each other, the model or the loss.
        NotFiniteError
            When a loss becomes NaN or infinite.
        """
        return Fitting(self, x, y, epochs, batch_size, validation_data, shuffle, history).run()

    # --- use

    def evaluate(self, x, y, batch_size=256):
        """Measure loss and accuracy, in evaluation mode.

        Parameters
        ----------
        x, y : ndarrays
            As in `fit`.
        batch_size : int

        Returns
        -------
        dict
            "loss" and "accuracy", floats; accuracy is None where the loss has none.

        Raises
        ------
        ArgumentError, ArgumentTypeError
            As `fit`.
        """
        x, y = check_pair("x", x, "y", y)
        y = self.task.targets("y", y, self.dtype)
        return measure(self.model, self.task, x, y, integer("batch_size", batch_size, 1))

    def predict(self, x, batch_size=256):
        """The model's outputs, in evaluation mode.

        Parameters
        ----------
        x : ndarray
            As in `fit`; may be empty.
        batch_size : int

        Returns
        -------
        ndarray of shape (N, ...)
            For a classifier the scores before softmax: ``predict(x).argmax(axis=1)`` are the classes.

        Raises
        ------
        ArgumentError, ArgumentTypeError
            When `x` does not fit the model.
        """
        x, batch_size = check_images("x", x), integer("batch_size", batch_size, 1)
        with evaluating(self.model):
            if len(x) == 0:
                return self.model(np.empty(x.shape, self.dtype))
            outputs = None
            for start, batch in in_order(x, batch_size, self.dtype):
                output = self.model(batch)
                if outputs is None:
                    outputs = np.empty((len(x), *output.shape[1:]), output.dtype)
                outputs[start : start + len(batch)] = output
        return outputs
