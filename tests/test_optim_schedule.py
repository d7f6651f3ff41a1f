"""Schedules against their formulas, restoring, and what they refuse. tests/test_torch_optim.py compares them with PyTorch."""

import math

import numpy as np
import pytest

from fastconv import nn, optim
from fastconv.errors import ArgumentError, ArgumentTypeError


def sgd(lr=1.0, **options):
    return optim.SGD(nn.Linear(2, 2, seed=0).parameters(), lr=lr, **options)


def rates(scheduler, steps):
    """The rate at the start and after each step."""
    seen = [scheduler.optimizer.lr]
    for _ in range(steps):
        scheduler.step()
        seen.append(scheduler.optimizer.lr)
        assert scheduler.get_last_lr() == [scheduler.optimizer.lr]
    return seen


CASES = [
    ("step", lambda o: optim.StepLR(o, 2, 0.5), [1, 1, 0.5, 0.5, 0.25]),
    ("milestones", lambda o: optim.MultiStepLR(o, [3, 1, 3], 0.5), [1, 0.5, 0.5, 0.125, 0.125]),
    ("exponential", lambda o: optim.ExponentialLR(o, 0.5), [1, 0.5, 0.25, 0.125, 0.0625]),
    ("linear", lambda o: optim.LinearLR(o, 0.25, 1.0, 3), [0.25, 0.5, 0.75, 1, 1]),
    ("cosine", lambda o: optim.CosineAnnealingLR(o, 4, 0.5), [1, 0.75 + 0.25 * math.sqrt(0.5), 0.75, 0.75 - 0.25 * math.sqrt(0.5), 0.5]),
    (
        "warm-up, then cosine",
        lambda o: optim.SequentialLR(o, [optim.LinearLR(o, 0.5, 1.0, 2), optim.CosineAnnealingLR(o, 2)], [2]),
        [0.5, 0.75, 1, 0.5, 0],
    ),
    (
        "one cycle",
        lambda o: optim.OneCycleLR(
            o, 1.0, 5, pct_start=0.6, anneal_strategy="linear", cycle_momentum=False, div_factor=5, final_div_factor=2
        ),
        [0.2, 0.6, 1, 0.55, 0.1],
    ),
]


@pytest.mark.parametrize(("name", "make", "expected"), CASES, ids=[case[0] for case in CASES])
def test_rates(name, make, expected):
    np.testing.assert_allclose(rates(make(sgd()), 4), expected, rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize(("name", "make", "expected"), CASES, ids=[case[0] for case in CASES])
def test_schedule_goes_on_from_a_state_dict(name, make, expected):
    scheduler = make(sgd())
    rates(scheduler, 2)
    other = make(sgd())
    other.load_state_dict(scheduler.state_dict())
    assert rates(other, 2) == rates(scheduler, 2)[:1] + rates(make(sgd()), 4)[3:]


def test_groups_keep_their_proportions():
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = optim.SGD([{"params": a.parameters(), "lr": 1.0}, {"params": b.parameters(), "lr": 0.1}])
    scheduler = optim.StepLR(optimizer, 1, 0.5)
    scheduler.step()
    np.testing.assert_allclose(scheduler.get_last_lr(), [0.5, 0.05])


def test_one_cycle_moves_momentum_the_other_way():
    for optimizer, read in (
        (sgd(momentum=0.9), lambda o: o.param_groups[0]["momentum"]),
        (optim.Adam(nn.Linear(2, 2).parameters()), lambda o: o.param_groups[0]["betas"][0]),
    ):
        scheduler = optim.OneCycleLR(optimizer, 0.1, 10)
        seen = [read(optimizer)]
        for _ in range(10):
            scheduler.step()
            seen.append(read(optimizer))
        assert seen[0] == seen[-2] == seen[-1] == 0.95 and min(seen) == seen[2] == 0.85
        with pytest.raises(ArgumentError, match="the schedule has 10 steps, and all are done"):
            scheduler.step()
        assert scheduler.last_epoch == 10


def plateau(metrics, **options):
    scheduler = optim.ReduceLROnPlateau(sgd(), factor=0.5, **options)
    seen = []
    for metric in metrics:
        scheduler.step(metric)
        seen.append(scheduler.optimizer.lr)
    return seen


def test_plateau():
    assert plateau([3, 2, 2, 2, 2, 1, 1, 1], patience=1) == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25]
    assert plateau([3, 2, 2, 2, 2], patience=0, cooldown=1) == [1, 1, 0.5, 0.5, 0.25]
    assert plateau([1, 2, 2, 2], patience=1, mode="max") == [1, 1, 1, 0.5]
    assert plateau([1, 0.95, 0.9], patience=0, threshold=0.1) == [1, 0.5, 0.5 if 0.9 < 0.9 else 0.25]
    assert plateau([1, 0.95], patience=0, threshold=0.01, threshold_mode="abs") == [1, 1]
    assert plateau([1, 1, 1, 1], patience=0, min_lr=0.4) == [1, 0.5, 0.4, 0.4]
    assert plateau([1, math.nan, math.nan], patience=1) == [1, 1, 0.5]


def test_plateau_goes_on_from_a_state_dict():
    first, second = (optim.ReduceLROnPlateau(sgd(), factor=0.5, patience=2) for _ in range(2))
    for metric in (1, 2, 2):
        first.step(metric)
    second.load_state_dict(first.state_dict())
    for scheduler in (first, second):
        scheduler.step(2)
        assert scheduler.optimizer.lr == 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.StepLR(sgd(), 0), "step_size must be from 1"),
        (lambda: optim.StepLR(sgd(), 1, -1), "gamma must be at least 0"),
        (lambda: optim.MultiStepLR(sgd(), [1, -2]), "milestones must be from 0"),
        (lambda: optim.LinearLR(sgd(), 0), "start_factor must be greater than 0"),
        (lambda: optim.LinearLR(sgd(), 2), "start_factor must be from 0 to 1"),
        (lambda: optim.CosineAnnealingLR(sgd(), 0), "T_max must be from 1"),
        (lambda: optim.OneCycleLR(sgd(), 1.0), "total_steps must be given, or both epochs and steps_per_epoch"),
        (lambda: optim.OneCycleLR(sgd(), [1.0, 2.0], 5), "max_lr must be a number or 1 numbers"),
        (lambda: optim.OneCycleLR(sgd(), 1.0, 5, anneal_strategy="sine"), "anneal_strategy must be"),
        (lambda: optim.OneCycleLR(sgd(), 1.0, epochs=0, steps_per_epoch=2), "epochs must be from 1"),
        (lambda: optim.ReduceLROnPlateau(sgd(), "lower"), "mode must be"),
        (lambda: optim.ReduceLROnPlateau(sgd(), factor=1), "factor must be less than 1"),
        (lambda: optim.ReduceLROnPlateau(sgd(), threshold_mode="x"), "threshold_mode must be"),
    ],
)
def test_options_that_cannot_be(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_sequences_must_fit_together():
    optimizer = sgd()
    parts = [optim.LinearLR(optimizer), optim.ExponentialLR(optimizer, 0.9), optim.StepLR(optimizer, 2)]
    for milestones in ([1], [3, 2], [2, 2]):
        with pytest.raises(ArgumentError, match="milestones must be 2 rising step numbers"):
            optim.SequentialLR(optimizer, parts, milestones)
    with pytest.raises(ArgumentError, match="schedulers of the optimizer"):
        optim.SequentialLR(sgd(), parts, [1, 2])


def test_schedules_want_an_optimizer():
    for make in (lambda o: optim.StepLR(o, 1), lambda o: optim.OneCycleLR(o, 1.0, 5), optim.ReduceLROnPlateau):
        with pytest.raises(ArgumentTypeError, match="optimizer must be an Optimizer, got list"):
            make([])


def test_state_of_other_groups_is_refused():
    scheduler = optim.StepLR(sgd(), 1)
    with pytest.raises(ArgumentError, match="state_dict must be of 1 parameter groups, got 2"):
        scheduler.load_state_dict({"last_epoch": 1, "base_lrs": [1.0, 2.0]})
