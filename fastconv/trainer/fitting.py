"""One call of `Trainer.fit`: its epochs and batches, and every way in which it can end."""

import contextlib
import math
import time
from typing import NamedTuple

import numpy as np

from fastconv import nn
from fastconv.errors import ArgumentError, ArgumentTypeError, NotFiniteError
from fastconv.optim.schedule import ReduceLROnPlateau
from fastconv.serialization import save
from fastconv.shapes import integer
from fastconv.trainer.batches import Batches, check_pair
from fastconv.trainer.evaluation import Means, measure
from fastconv.trainer.finite import broken_after_epoch, broken_data, trace
from fastconv.trainer.history import History
from fastconv.trainer.interrupt import Interrupt
from fastconv.trainer.progress import display


class Report(NamedTuple):
    """What callbacks are given: where the training is, counted from 1, and the means of the epoch so far."""

    trainer: object
    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    accuracy: float | None
    history: History


class Fitting:
    """See `Trainer.fit`, whose arguments these are."""

    def __init__(self, trainer, x, y, epochs, batch_size, validation_data, shuffle, history):
        self.trainer, self.model, self.task, self.optimizer = trainer, trainer.model, trainer.task, trainer.optimizer
        self.x, y = check_pair("x", x, "y", y)
        self.y = self.task.targets("y", y, trainer.dtype)
        self.validation = self._validation(validation_data)
        self.batch_size = integer("batch_size", batch_size, 1)
        if self.batch_size > len(self.x):
            raise ArgumentError(f"batch_size must be at most the number of images, {len(self.x)}, got {batch_size}")
        if history is not None and not isinstance(history, History):
            raise ArgumentTypeError(f"history must be a History, got {type(history).__name__}")
        self.history = History() if history is None else history
        self.history.stopped = None
        self.first = len(self.history)
        self.repeats = max(0, trainer.epochs_done - self.first)  # a second fit without history must not repeat the orders of the first
        self.epochs = self.first + integer("epochs", epochs, 1)
        self.batches = -(-len(self.x) // self.batch_size)
        self.shuffle = bool(shuffle)
        self.gather = Batches(self.x, self.batch_size, trainer.dtype)
        self.display = display(trainer.progress)
        self.checked = False
        self.best = min((v for v in self.history.monitored() if v is not None), default=math.inf)
        self.best_state, self.since_best = None, 0

    def _validation(self, data):
        if data is None:
            return None
        if not isinstance(data, (tuple, list)) or len(data) != 2:
            raise ArgumentTypeError("validation_data must be a pair (x, y)")
        x, y = check_pair("validation_data x", data[0], "validation_data y", data[1])
        if x.shape[1:] != self.x.shape[1:]:
            raise ArgumentError(f"validation_data x must have the shape of x but for its length, got {x.shape} and {self.x.shape}")
        return x, self.task.targets("validation_data y", y, self.trainer.dtype)

    # --- epochs

    def run(self):
        """Train; return the history."""
        with Interrupt() as self.interrupt, self._dropout_seeded() as self.dropouts:
            for epoch in range(self.first + 1, self.epochs + 1):
                self.snapshot = self.model.state_dict()
                self._epoch(epoch)
                if self.history.stopped:
                    break
        if self.trainer.patience is not None and self.history.stopped != "interrupted" and self.best_state is not None:
            self.model.load_state_dict(self.best_state)
        return self.history

    def _epoch(self, epoch):
        began = time.perf_counter()
        self.model.train()
        self.display.start(epoch, self.epochs, len(self.x))
        try:
            means, lr = self._train(epoch)
            trained = time.perf_counter() - began
            if means.images == 0:
                self.history.stopped = "interrupted"
                return
            results = {**means.values(), **self._validate()}
            speed = {"images_per_second": means.images / trained, "seconds": time.perf_counter() - began}
            self.history.append(**results, **speed, lr=lr)
        finally:
            self.display.close()
        self.display.summary(**results, **speed)
        if self.interrupt.requested:
            self.history.stopped = "interrupted"
            return
        self.trainer.epochs_done = epoch + self.repeats
        self._after_epoch()
        if self._call(self.trainer.on_epoch, epoch, self.batches, means) and not self.interrupt.requested:
            self.history.stopped = "callback"
        if self.interrupt.requested:
            self.history.stopped = "interrupted"

    def _train(self, epoch):
        """All batches of an epoch, or those up to an interruption; the means and the last learning rate."""
        rng = np.random.default_rng((self.trainer.seed, epoch + self.repeats))  # so a resumed run draws as an unbroken one does
        for module in self.dropouts:
            module.rng = rng
        order = rng.permutation(len(self.x)) if self.shuffle else np.arange(len(self.x))
        by_batch = self.trainer.scheduler is not None and self.trainer.scheduler_step == "batch"
        means, lr = Means(self.task), self.optimizer.lr
        for batch in range(1, self.batches + 1):
            if self.interrupt.requested:
                break
            indices = order[(batch - 1) * self.batch_size : batch * self.batch_size]
            loss, prediction, target = self._learn(indices, epoch, batch)
            means.add(loss, prediction, target)
            self.display.update(len(indices), means.values)
            lr = self.optimizer.lr
            if by_batch:
                self.trainer.scheduler.step()
            if self.trainer.on_batch:
                self._call(self.trainer.on_batch, epoch, batch, means)
        broken = broken_after_epoch(self.model)
        if broken:
            self._stop(f"after epoch {epoch}, {broken}", diverged=True)
        return means, lr

    def _learn(self, indices, epoch, batch):
        """Forward, backward and update for one batch; its loss, prediction and target."""
        x = self.gather(indices)
        prediction = self.model(x)
        if not self.checked:
            self._check_targets(prediction)
        target = self.y[indices]
        loss = self.task.loss.forward(prediction, target)
        if not math.isfinite(loss):
            data = broken_data(x, target, indices)
            what = data or trace(self.model, x, batch)
            self._stop(f"the loss is {loss} in epoch {epoch}, batch {batch} of {self.batches}: {what}", diverged=not data)
        self.optimizer.zero_grad()
        self.model.backward_parameters(self.task.loss.backward())
        self.optimizer.step()
        return loss, prediction, target

    def _check_targets(self, prediction):
        """All targets, against the first output: rather now than in the middle of an epoch."""
        self.y = self.task.fit_to("y", self.y, prediction)
        if self.validation:
            x, y = self.validation
            self.validation = x, self.task.fit_to("validation_data y", y, prediction)
        self.checked = True

    def _validate(self):
        """{"val_loss", "val_accuracy"}, or {} when there is nothing to measure or no time."""
        if self.validation is None or self.interrupt.requested:
            return {}
        values = measure(self.model, self.task, *self.validation, max(self.batch_size, 256), lambda: self.interrupt.requested)
        return {f"val_{name}": value for name, value in values.items()} if values else {}

    def _after_epoch(self):
        """Step the scheduler; keep what is best; see whether patience is at its end."""
        scheduler, value = self.trainer.scheduler, self.history.monitored()[-1]
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(value)
        elif scheduler is not None and self.trainer.scheduler_step == "epoch":
            scheduler.step()
        if value < self.best:
            self.best, self.since_best = value, 0
            if self.trainer.patience is not None:
                self.best_state = self.model.state_dict()
            if self.trainer.checkpoint is not None:
                save(self.model.state_dict(), self.trainer.checkpoint)
        else:
            self.since_best += 1
            if self.trainer.patience is not None and self.since_best >= self.trainer.patience:
                self.history.stopped = "patience"

    # --- ends

    def _call(self, callbacks, epoch, batch, means):
        """Call them; whether one of them wants the training to stop. A KeyboardInterrupt in one is a Ctrl-C."""
        stop = False
        try:
            for callback in callbacks:
                report = Report(self.trainer, epoch, self.epochs, batch, self.batches, **means.values(), history=self.history)
                stop = callback(report) is True or stop
        except KeyboardInterrupt:
            self.interrupt.requested = True
        return stop

    def _stop(self, text, diverged):
        """Put the model back to where the epoch began and raise."""
        self.model.load_state_dict(self.snapshot)
        epochs = len(self.history)
        where = f"at the end of epoch {epochs}" if epochs else "before the training"
        advice = f"; a learning rate below {self.optimizer.lr:g} may help" if diverged else ""
        raise NotFiniteError(f"{text}. The model is as it was {where}{advice}.")

    @contextlib.contextmanager
    def _dropout_seeded(self):
        """The dropout layers that have no generator of their own; they get the run's, for as long as it lasts."""
        layers = [module for module in self.model.modules() if isinstance(module, nn.Dropout) and module.rng is None]
        try:
            yield layers
        finally:
            for module in layers:
                module.rng = None
