"""Learning rates that change: every schedule is a formula of the number of steps, so that any point of it can be restored."""

import math
from bisect import bisect_right

from fastconv.errors import ArgumentError, ArgumentTypeError
from fastconv.functional.options import choice, number
from fastconv.optim.optimizer import Optimizer
from fastconv.shapes import integer


class Scheduler:
    """Base class: sets the learning rate of every parameter group at its start and at each `step`.

    Subclasses write `rate`. The rate a group had when its first scheduler was made is kept as its "initial_lr".

    Parameters
    ----------
    optimizer : Optimizer
    """

    def __init__(self, optimizer):
        if not isinstance(optimizer, Optimizer):
            raise ArgumentTypeError(f"optimizer must be an Optimizer, got {type(optimizer).__name__}")
        self.optimizer = optimizer
        self.base_lrs = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
        self.last_epoch = 0
        self.set(0)

    def rate(self, base_lr, epoch):
        """The learning rate after `epoch` steps of a group that began with `base_lr`."""
        raise NotImplementedError

    def set(self, epoch):
        """Give the groups the rates of `epoch`."""
        for group, base_lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = self.rate(base_lr, epoch)

    def step(self):
        """Go on by one: an epoch, or a batch, as the schedule is meant."""
        self.set(self.last_epoch + 1)
        self.last_epoch += 1

    def get_last_lr(self):
        """The current rate of each group, a list."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self):
        """What `load_state_dict` needs to go on from here."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict):
        """Go on from where `state_dict` was taken; the schedule itself must have been made with the same options."""
        base_lrs = [number("base_lrs", lr) for lr in state_dict["base_lrs"]]
        if len(base_lrs) != len(self.base_lrs):
            raise ArgumentError(f"state_dict must be of {len(self.base_lrs)} parameter groups, got {len(base_lrs)}")
        epoch = integer("last_epoch", state_dict["last_epoch"], 0)
        self.base_lrs, self.last_epoch = base_lrs, epoch
        self.set(epoch)


class StepLR(Scheduler):
    """The initial rate times gamma every `step_size` steps: base * gamma**(epoch // step_size)."""

    def __init__(self, optimizer, step_size, gamma=0.1):
        self.step_size, self.gamma = integer("step_size", step_size, 1), number("gamma", gamma, 0)
        super().__init__(optimizer)

    def rate(self, base_lr, epoch):
        return base_lr * self.gamma ** (epoch // self.step_size)


class MultiStepLR(Scheduler):
    """The initial rate times gamma at each of the `milestones`, a list of step numbers."""

    def __init__(self, optimizer, milestones, gamma=0.1):
        self.milestones = sorted(integer("milestones", m, 0) for m in milestones)
        self.gamma = number("gamma", gamma, 0)
        super().__init__(optimizer)

    def rate(self, base_lr, epoch):
        return base_lr * self.gamma ** bisect_right(self.milestones, epoch)


class ExponentialLR(Scheduler):
    """The initial rate times gamma every step: base * gamma**epoch."""

    def __init__(self, optimizer, gamma):
        self.gamma = number("gamma", gamma, 0)
        super().__init__(optimizer)

    def rate(self, base_lr, epoch):
        return base_lr * self.gamma**epoch


class LinearLR(Scheduler):
    """From base * start_factor to base * end_factor in `total_iters` equal steps: the usual warm-up."""

    def __init__(self, optimizer, start_factor=1 / 3, end_factor=1.0, total_iters=5):
        self.start_factor = number("start_factor", start_factor, 0, 1)
        if self.start_factor == 0:
            raise ArgumentError("start_factor must be greater than 0")
        self.end_factor = number("end_factor", end_factor, 0, 1)
        self.total_iters = integer("total_iters", total_iters, 1)
        super().__init__(optimizer)

    def rate(self, base_lr, epoch):
        share = min(epoch, self.total_iters) / self.total_iters
        return base_lr * (self.start_factor + (self.end_factor - self.start_factor) * share)


class CosineAnnealingLR(Scheduler):
    """Half a cosine from the initial rate to `eta_min` in `T_max` steps.

    References
    ----------
    I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017, equation 5.
    """

    def __init__(self, optimizer, T_max, eta_min=0.0):
        self.T_max, self.eta_min = integer("T_max", T_max, 1), number("eta_min", eta_min, 0)
        super().__init__(optimizer)

    def rate(self, base_lr, epoch):
        return self.eta_min + (base_lr - self.eta_min) * (1 + math.cos(math.pi * epoch / self.T_max)) / 2


class SequentialLR(Scheduler):
    """One schedule after the other: the next begins, at its own step 0, at each of the `milestones`. For a warm-up before any other.

    Parameters
    ----------
    optimizer : Optimizer
    schedulers : list of Scheduler
        Of the same optimizer.
    milestones : list of int
        Rising step numbers, one fewer than there are schedulers.
    """

    def __init__(self, optimizer, schedulers, milestones):
        self.schedulers = list(schedulers)
        self.milestones = [integer("milestones", m, 1) for m in milestones]
        if len(self.milestones) != len(self.schedulers) - 1 or sorted(set(self.milestones)) != self.milestones:
            raise ArgumentError(f"milestones must be {len(self.schedulers) - 1} rising step numbers, got {milestones}")
        if not all(isinstance(s, Scheduler) and s.optimizer is optimizer for s in self.schedulers):
            raise ArgumentError("schedulers must all be schedulers of the optimizer that is given")
        super().__init__(optimizer)

    def set(self, epoch):
        current = bisect_right(self.milestones, epoch)
        self.schedulers[current].set(epoch - (self.milestones[current - 1] if current else 0))


class OneCycleLR(Scheduler):
    """Up from max_lr / div_factor to max_lr, then down to 1 / final_div_factor of the start, once, stepped after every batch.

    Momentum (or Adam's first beta) goes the opposite way.

    Parameters
    ----------
    optimizer : Optimizer
    max_lr : float or list of float
        One for all groups, or one for each.
    total_steps : int, optional
        Without it, epochs * steps_per_epoch.
    epochs, steps_per_epoch : int, optional
    pct_start : float
        The share of the steps that go up.
    anneal_strategy : "cos" or "linear"
    cycle_momentum : bool
    base_momentum, max_momentum : float
    div_factor, final_div_factor : float

    References
    ----------
    L. Smith, N. Topin, "Super-convergence: very fast training of neural networks using large learning rates", 2018, section 3.
    """

    def __init__(self, optimizer, max_lr, total_steps=None, epochs=None, steps_per_epoch=None, pct_start=0.3, anneal_strategy="cos",
                 cycle_momentum=True, base_momentum=0.85, max_momentum=0.95, div_factor=25.0, final_div_factor=1e4):  # fmt: skip
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ArgumentError("total_steps must be given, or both epochs and steps_per_epoch")
            total_steps = integer("epochs", epochs, 1) * integer("steps_per_epoch", steps_per_epoch, 1)
        self.total_steps = integer("total_steps", total_steps, 1)
        self.anneal_strategy = choice("anneal_strategy", anneal_strategy, "cos", "linear")
        self.max_lr = [number("max_lr", lr, 0) for lr in max_lr] if isinstance(max_lr, (list, tuple)) else number("max_lr", max_lr, 0)
        self.peak = number("pct_start", pct_start, 0, 1) * self.total_steps - 1
        self.cycle_momentum = bool(cycle_momentum)
        self.base_momentum = number("base_momentum", base_momentum, 0, 1)
        self.max_momentum = number("max_momentum", max_momentum, 0, 1)
        self.div_factor, self.final_div_factor = number("div_factor", div_factor, 1), number("final_div_factor", final_div_factor, 1)
        if isinstance(optimizer, Optimizer):
            self._prepare(optimizer)
        super().__init__(optimizer)

    def _prepare(self, optimizer):
        if self.cycle_momentum and not {"momentum", "betas"} & set(optimizer.defaults):
            raise ArgumentError(f"cycle_momentum needs an optimizer with momentum or betas, {type(optimizer).__name__} has neither")
        groups = optimizer.param_groups
        peaks = self.max_lr if isinstance(self.max_lr, list) else [self.max_lr] * len(groups)
        if len(peaks) != len(groups):
            raise ArgumentError(f"max_lr must be a number or {len(groups)} numbers, one for each group, got {len(peaks)}")
        for group, peak in zip(groups, peaks, strict=True):
            group["initial_lr"] = peak / self.div_factor

    def rate(self, base_lr, epoch):
        return self._between(base_lr, base_lr * self.div_factor, base_lr / self.final_div_factor, epoch)

    def set(self, epoch):
        if epoch > self.total_steps:
            raise ArgumentError(f"the schedule has {self.total_steps} steps, and all are done")
        super().set(epoch)
        if self.cycle_momentum:
            momentum = self._between(self.max_momentum, self.base_momentum, self.max_momentum, epoch)
            for group in self.optimizer.param_groups:
                if "betas" in group:
                    group["betas"] = (momentum, group["betas"][1])
                else:
                    group["momentum"] = momentum

    def _between(self, first, middle, last, epoch):
        """`first` at step 0, `middle` at the peak, `last` at the last step, interpolated."""
        end = self.total_steps - 1
        epoch = min(epoch, end)  # a loop that steps after every batch does so once more after the last
        if epoch <= self.peak:
            start, stop, share = first, middle, epoch / self.peak if self.peak else 1.0
        else:
            start, stop, share = middle, last, (epoch - self.peak) / (end - self.peak)
        if self.anneal_strategy == "linear":
            return start + (stop - start) * share
        return stop + (start - stop) / 2 * (1 + math.cos(math.pi * share))


class ReduceLROnPlateau(Scheduler):
    """The rate times `factor` when a metric has not become better for more than `patience` steps: call step(metric).

    Parameters
    ----------
    optimizer : Optimizer
    mode : "min" or "max"
        Whether a smaller or a larger metric is better.
    factor : float
        Below 1.
    patience : int
    threshold : float
        By how much a metric must be better than the best so far to count.
    threshold_mode : "rel" or "abs"
        Whether threshold is a share of the best so far.
    cooldown : int
        Steps after a reduction that do not count.
    min_lr, eps : float
        The lowest rate; a change smaller than eps is not made.
    """

    def __init__(self, optimizer, mode="min", factor=0.1, patience=10, threshold=1e-4, threshold_mode="rel", cooldown=0, min_lr=0.0,
                 eps=1e-8):  # fmt: skip
        self.mode, self.threshold_mode = choice("mode", mode, "min", "max"), choice("threshold_mode", threshold_mode, "rel", "abs")
        self.factor = number("factor", factor, 0, 1)
        if self.factor == 1:
            raise ArgumentError("factor must be less than 1")
        self.patience, self.cooldown = integer("patience", patience, 0), integer("cooldown", cooldown, 0)
        self.threshold, self.min_lr, self.eps = number("threshold", threshold, 0), number("min_lr", min_lr, 0), number("eps", eps, 0)
        self.best = math.inf if mode == "min" else -math.inf
        self.bad_epochs = self.cooldown_left = 0
        super().__init__(optimizer)

    def set(self, epoch):
        """Nothing to do: the rate depends on the metrics, not on the number of steps."""

    def _better(self, metric):
        sign = 1 if self.mode == "min" else -1
        margin = self.threshold * (abs(self.best) if self.threshold_mode == "rel" else 1)
        return sign * metric < sign * self.best - (margin if math.isfinite(margin) else 0)

    def step(self, metric):
        """Take note of `metric`; reduce the rates when it is time to."""
        metric = float(metric)
        self.last_epoch += 1
        if self._better(metric):
            self.best, self.bad_epochs = metric, 0
        else:
            self.bad_epochs += 1
        if self.cooldown_left:
            self.cooldown_left, self.bad_epochs = self.cooldown_left - 1, 0
        if self.bad_epochs > self.patience:
            for group in self.optimizer.param_groups:
                new = max(group["lr"] * self.factor, self.min_lr)
                if group["lr"] - new > self.eps:
                    group["lr"] = new
            self.cooldown_left, self.bad_epochs = self.cooldown, 0

    def state_dict(self):
        own = {name: getattr(self, name) for name in ("best", "bad_epochs", "cooldown_left")}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.best = float(state_dict["best"])
        self.bad_epochs = integer("bad_epochs", state_dict["bad_epochs"], 0)
        self.cooldown_left = integer("cooldown_left", state_dict["cooldown_left"], 0)
