"""Layers, losses, optimizers and schedules beside PyTorch's, over tables of options."""

import inspect

import numpy as np
import pytest

from benchmarks.torch_models import twin
from fastconv import nn, optim

torch = pytest.importorskip("torch")

D = {"dtype": np.float64}
# fmt: off
LAYERS = [
    # layer                                                                              input shape
    (lambda: nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), (1, 2), 2, **D),                    (2, 4, 9, 8)),
    (lambda: nn.Conv2d(3, 5, (3, 1), padding="same", bias=False, **D),                   (2, 3, 6, 7)),
    (lambda: nn.Conv2d(3, 5, 3, padding="valid", **D),                                   (2, 3, 6, 7)),
    (lambda: nn.Conv2d(6, 6, 3, padding=1, groups=6, **D),                               (2, 6, 5, 7)),
    (lambda: nn.ConvTranspose2d(4, 6, (3, 2), 2, 1, 1, 2, **D),                          (2, 4, 5, 4)),
    (lambda: nn.ConvTranspose2d(3, 5, 3, (1, 2), 0, 0, 1, False, (2, 1), **D),           (2, 3, 5, 4)),
    (lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True),                                      (2, 3, 8, 7)),
    (lambda: nn.MaxPool2d((2, 3), (1, 2), 0, (2, 1)),                                    (2, 3, 8, 7)),
    (lambda: nn.AvgPool2d(3, 2, 1, True, True),                                          (2, 3, 8, 7)),
    (lambda: nn.AvgPool2d((2, 3), None, (1, 0), False, False),                           (2, 3, 8, 7)),
    (lambda: nn.AdaptiveAvgPool2d((3, None)),                                            (2, 3, 8, 7)),
    (lambda: nn.AdaptiveAvgPool2d(1),                                                    (2, 3, 8, 7)),
    (lambda: nn.Linear(6, 4, **D),                                                       (5, 6)),
    (lambda: nn.Linear(6, 4, bias=False, **D),                                           (2, 5, 6)),
    (lambda: nn.Flatten(),                                                               (2, 3, 4, 5)),
    (lambda: nn.Flatten(-3, -2),                                                         (2, 3, 4, 5)),
    (lambda: nn.BatchNorm2d(3, 1e-3, 0.3, **D),                                          (4, 3, 4, 5)),
    (lambda: nn.BatchNorm2d(3, momentum=None, **D),                                      (4, 3, 4, 5)),
    (lambda: nn.BatchNorm2d(3, affine=False, **D),                                       (4, 3, 4, 5)),
    (lambda: nn.BatchNorm2d(3, track_running_stats=False, **D),                          (4, 3, 4, 5)),
    (lambda: nn.Dropout(0.0),                                                            (2, 5)),
    (lambda: nn.ReLU(),                                                                  (2, 3, 4, 5)),
    (lambda: nn.LeakyReLU(0.2),                                                          (2, 3, 4, 5)),
    (lambda: nn.GELU(),                                                                  (2, 3, 4, 5)),
    (lambda: nn.GELU("tanh"),                                                            (2, 3, 4, 5)),
    (lambda: nn.SiLU(),                                                                  (2, 3, 4, 5)),
    (lambda: nn.Sigmoid(),                                                               (2, 3, 4, 5)),
    (lambda: nn.Tanh(),                                                                  (2, 3, 4, 5)),
    (lambda: nn.Softmax(1),                                                              (2, 3, 4, 5)),
    (lambda: nn.Residual(nn.Conv2d(3, 3, 3, padding=1, **D), activation=nn.ReLU()),      (2, 3, 4, 5)),
]
# fmt: on
IDS = [f"{i} {type(make()).__name__}" for i, (make, _) in enumerate(LAYERS)]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("make", "shape"), LAYERS, ids=IDS)
def test_layers_are_pytorchs(rng, make, shape, training):
    layer = make().train(training)
    other = twin(layer)
    for _ in range(2):  # twice, because running statistics move
        x = rng.standard_normal(shape)
        tensor = torch.from_numpy(x).requires_grad_()
        y, expected = layer(x), other(tensor)
        np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-10, atol=1e-12)
        g = rng.standard_normal(y.shape)
        expected.backward(torch.from_numpy(g))
        np.testing.assert_allclose(layer.backward(g), tensor.grad.numpy(), rtol=1e-9, atol=1e-11)
    for parameter, tensor in zip(layer.parameters(), other.parameters(), strict=True):
        np.testing.assert_allclose(parameter.grad, tensor.grad.numpy(), rtol=1e-9, atol=1e-11)
    for key, tensor in other.state_dict().items():
        np.testing.assert_allclose(layer.state_dict()[key], tensor.numpy(), rtol=1e-12, err_msg=key)


HOMES = (torch.nn, torch.optim, torch.optim.lr_scheduler)
COUNTERPARTS = [
    (getattr(module, name), getattr(home, name))
    for module in (nn, optim)
    for name in module.__all__
    for home in HOMES
    if hasattr(home, name) and name not in ("Module", "Parameter", "Sequential", "Optimizer")
]


@pytest.mark.parametrize(("ours", "theirs"), COUNTERPARTS, ids=[ours.__name__ for ours, _ in COUNTERPARTS])
def test_options_and_defaults_are_pytorchs(ours, theirs):
    own = [p for p in inspect.signature(ours).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    deprecated = ("size_average", "reduce")  # in the middle of PyTorch's losses
    known = [p for p in inspect.signature(theirs).parameters.values() if p.name not in deprecated]
    for mine, other in zip(own, known, strict=False):
        assert mine.name == other.name
        if mine.name != "dim":  # left out, PyTorch guesses it and warns
            assert mine.default == other.default, mine.name


LOSSES = [
    ("CrossEntropyLoss", {}, (5, 4), 4),
    ("CrossEntropyLoss", {"weight": np.arange(1.0, 5), "ignore_index": 1, "label_smoothing": 0.2}, (9, 4), 4),
    ("CrossEntropyLoss", {"weight": np.arange(1.0, 4), "ignore_index": 0}, (2, 3, 4, 5), 3),
    ("BCELoss", {}, (4, 3), 0),
    ("BCELoss", {"weight": np.arange(1.0, 4)}, (4, 3), 0),
    ("BCEWithLogitsLoss", {"weight": np.arange(1.0, 4), "pos_weight": np.arange(3.0)}, (4, 3), 0),
    ("MSELoss", {}, (4, 3, 2), 0),
]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("name", "options", "shape", "classes"), LOSSES)
def test_losses_are_pytorchs(rng, name, options, shape, classes, reduction):
    x = rng.uniform(0.01, 0.99, shape)
    target = rng.integers(0, classes, (shape[0], *shape[2:])) if classes else rng.uniform(0, 1, shape)
    loss = getattr(nn, name)(**options, reduction=reduction)
    torch_options = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    tensor = torch.from_numpy(x).requires_grad_()
    expected = getattr(torch.nn, name)(**torch_options, reduction=reduction)(tensor, torch.from_numpy(target))
    value = loss(x, target)
    np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-12)
    g = rng.standard_normal(np.shape(value))
    expected.backward(torch.from_numpy(np.asarray(g)) if reduction == "none" else None)
    np.testing.assert_allclose(loss.backward(g) if reduction == "none" else loss.backward(), tensor.grad.numpy(), rtol=1e-11, atol=1e-14)


# --- optimizers and schedules

OPTIMIZERS = [
    ("SGD", {}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("Adam", {}),
    ("Adam", {"lr": 0.1, "betas": (0.7, 0.9), "eps": 1e-2, "weight_decay": 0.1}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.2}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.1, "alpha": 0.8, "momentum": 0.5, "centered": True, "weight_decay": 0.1}),
]


def pairs_of_parameters(rng, shapes=((3, 4), (5,), (2, 3, 3, 3))):
    ours = [nn.Parameter(rng.standard_normal(shape)) for shape in shapes]
    return ours, [torch.nn.Parameter(torch.from_numpy(p.data.copy())) for p in ours]


def step_both(rng, ours, theirs, optimizer, other):
    for p, q in zip(ours, theirs, strict=True):
        p.grad = rng.standard_normal(p.shape)
        q.grad = torch.from_numpy(p.grad.copy())
    optimizer.step()
    other.step()


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS)
def test_optimizers_are_pytorchs(rng, name, options):
    ours, theirs = pairs_of_parameters(rng)
    optimizer, other = getattr(optim, name)(ours, **options), getattr(torch.optim, name)(theirs, **options)
    for _ in range(20):
        step_both(rng, ours, theirs, optimizer, other)
        for p, q in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-10, atol=1e-12)
    state, expected = optimizer.state_dict(), other.state_dict()
    assert {k for k in state["param_groups"][0] if k in expected["param_groups"][0]} == set(state["param_groups"][0])
    for number, entry in expected["state"].items():
        for key, value in entry.items():
            if value is not None:
                np.testing.assert_allclose(state["state"][number][key], value.numpy(), rtol=1e-10, err_msg=key)


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS)
def test_training_goes_on_from_pytorchs_state(rng, name, options):
    ours, theirs = pairs_of_parameters(rng)
    other = getattr(torch.optim, name)(theirs, **options)
    for q in theirs:
        q.grad = torch.from_numpy(rng.standard_normal(tuple(q.shape)))
    other.step()
    for p, q in zip(ours, theirs, strict=True):
        p.data = q.detach().numpy()
    optimizer = getattr(optim, name)(ours, lr=99)
    state = other.state_dict()
    state["state"] = {n: {k: v.numpy() if hasattr(v, "numpy") else v for k, v in entry.items()} for n, entry in state["state"].items()}
    optimizer.load_state_dict(state)
    step_both(rng, ours, theirs, optimizer, other)
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-10, atol=1e-12)


SCHEDULES = [
    ("StepLR", {"step_size": 3, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [2, 7, 7], "gamma": 0.3}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("CosineAnnealingLR", {"T_max": 5, "eta_min": 0.01}),
    ("CosineAnnealingLR", {"T_max": 30}),
    ("LinearLR", {}),
    ("LinearLR", {"start_factor": 0.1, "end_factor": 0.8, "total_iters": 7}),
    ("OneCycleLR", {"max_lr": 0.7, "total_steps": 21}),
    ("OneCycleLR", {"max_lr": 0.7, "epochs": 7, "steps_per_epoch": 4, "anneal_strategy": "linear", "pct_start": 0.5}),
]


def optimizers(momentum=0.9):
    ours, theirs = pairs_of_parameters(np.random.default_rng(0), [(2,)])
    return optim.SGD(ours, lr=0.4, momentum=momentum), torch.optim.SGD(theirs, lr=0.4, momentum=momentum)


def walk_both(scheduler, other, steps=20, arguments=None):
    for i in range(steps):
        for key in ("lr", "momentum"):
            ours, theirs = scheduler.optimizer.param_groups[0][key], other.optimizer.param_groups[0][key]
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-15, err_msg=f"{key} after {i} steps")
        metric = [] if arguments is None else [arguments[i]]
        scheduler.step(*metric)
        other.optimizer.step()  # PyTorch warns of a schedule without steps
        other.step(*metric)


@pytest.mark.parametrize(("name", "options"), SCHEDULES)
def test_schedules_are_pytorchs(name, options):
    optimizer, other = optimizers()
    walk_both(getattr(optim, name)(optimizer, **options), getattr(torch.optim.lr_scheduler, name)(other, **options))


def test_a_warm_up_before_another_schedule_is_pytorchs():
    optimizer, other = optimizers()
    t = torch.optim.lr_scheduler
    ours = optim.SequentialLR(optimizer, [optim.LinearLR(optimizer, 0.1, total_iters=4), optim.StepLR(optimizer, 3, 0.5)], [4])
    walk_both(ours, t.SequentialLR(other, [t.LinearLR(other, 0.1, total_iters=4), t.StepLR(other, 3, 0.5)], [4]))


@pytest.mark.parametrize("options", [{}, {"mode": "max", "cooldown": 2}, {"threshold_mode": "abs", "threshold": 0.1}, {"min_lr": 0.05}])
def test_plateau_is_pytorchs(rng, options):
    optimizer, other = optimizers()
    options = {"factor": 0.5, "patience": 1, **options}
    metrics = list(3 + rng.standard_normal(20) * 0.3)
    walk_both(
        optim.ReduceLROnPlateau(optimizer, **options), torch.optim.lr_scheduler.ReduceLROnPlateau(other, **options), arguments=metrics
    )
