"""Optimizers against their formulas in NumPy, groups, state, and what they refuse."""

import copy
import pickle
import weakref

import numpy as np
import pytest

from fastconv import nn, optim
from fastconv.errors import ArgumentError, ArgumentTypeError

# --- the formulas, one step of one array each; `s` holds what they remember


def sgd(p, g, s, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    g = g + weight_decay * p
    if momentum:
        s["buf"] = momentum * s["buf"] + (1 - dampening) * g if "buf" in s else g
        g = g + momentum * s["buf"] if nesterov else s["buf"]
    return p - lr * g


def adam(p, g, s, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    g = g + weight_decay * p
    s["t"] = t = s.get("t", 0) + 1
    s["m"] = betas[0] * s.get("m", 0) + (1 - betas[0]) * g
    s["v"] = betas[1] * s.get("v", 0) + (1 - betas[1]) * g * g
    return p - lr * (s["m"] / (1 - betas[0] ** t)) / (np.sqrt(s["v"] / (1 - betas[1] ** t)) + eps)


def adamw(p, g, s, lr=1e-3, weight_decay=1e-2, **options):
    return adam(p * (1 - lr * weight_decay), g, s, lr, **options)


def rmsprop(p, g, s, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False):
    g = g + weight_decay * p
    s["square"] = alpha * s.get("square", 0) + (1 - alpha) * g * g
    s["mean"] = alpha * s.get("mean", 0) + (1 - alpha) * g
    g = g / (np.sqrt(s["square"] - s["mean"] ** 2 * centered) + eps)
    s["buf"] = momentum * s.get("buf", 0) + g
    return p - lr * s["buf"]


CASES = [
    (optim.SGD, sgd, {}),
    (optim.SGD, sgd, {"lr": 0.1, "weight_decay": 0.1}),
    (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9}),
    (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.05}),
    (optim.Adam, adam, {}),
    (optim.Adam, adam, {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    (optim.AdamW, adamw, {}),
    (optim.AdamW, adamw, {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.3}),
    (optim.RMSprop, rmsprop, {}),
    (optim.RMSprop, rmsprop, {"lr": 0.05, "alpha": 0.9, "momentum": 0.9, "weight_decay": 0.1}),
    (optim.RMSprop, rmsprop, {"alpha": 0.9, "centered": True, "eps": 1e-3}),
    (optim.RMSprop, rmsprop, {"alpha": 0.9, "centered": True, "momentum": 0.5, "eps": 1e-3}),
]
IDS = [f"{c[0].__name__}-{'-'.join(c[2]) or 'defaults'}" for c in CASES]
SHAPES = [(1,), (3, 5), (2, 3, 3, 3), (260_000,)]
OPTIMIZERS = (optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop)


def parameters(rng, shapes=SHAPES, dtype=np.float64):
    return [nn.Parameter(rng.standard_normal(shape).astype(dtype)) for shape in shapes]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("make", "formula", "options"), CASES, ids=IDS)
def test_steps_follow_the_formula(rng, make, formula, options, dtype):
    params = parameters(rng, dtype=dtype)
    expected, memory = [p.data.astype(np.float64) for p in params], [{} for _ in params]
    optimizer = make(params, **options)
    for _ in range(5):
        for i, p in enumerate(params):
            p.grad = rng.standard_normal(p.shape).astype(dtype)
            expected[i] = formula(expected[i], p.grad.astype(np.float64), memory[i], **options)
        assert optimizer.step() is None
    tolerance = 1e-12 if dtype == np.float64 else 1e-4
    for p, e in zip(params, expected, strict=True):
        assert p.dtype == dtype
        np.testing.assert_allclose(p.data, e, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_arrays_are_changed_in_place_and_gradients_are_not(rng, make):
    (p,) = parameters(rng, [(3, 4)])
    data, grad = p.data, rng.standard_normal((3, 4))
    p.grad, kept = grad, grad.copy()
    before = data.copy()
    make([p], lr=0.1).step()
    assert p.data is data and (data != before).all()
    np.testing.assert_array_equal(grad, kept)


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_parameters_without_gradient_stay(rng, make):
    a, b = parameters(rng, [(3,), (3,)])
    a.grad, kept = np.ones(3), b.data.copy()
    optimizer = make([a, b], lr=0.1)
    optimizer.step()
    np.testing.assert_array_equal(b.data, kept)
    assert list(optimizer.state_dict()["state"]) == [0]
    optimizer.zero_grad()
    assert a.grad is None
    a.grad = np.ones(3)
    optimizer.zero_grad(set_to_none=False)
    np.testing.assert_array_equal(a.grad, np.zeros(3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_momentum_fades_exactly_ends_at_zero_and_keeps_nan(dtype):
    """It never is a subnormal number, with which some processors are slow."""
    smallest = np.finfo(dtype).tiny
    p = nn.Parameter(np.ones(40, dtype))
    p.grad = smallest * np.array([4, -4, 1.3, -1.3, np.nan] * 8, dtype)
    optimizer = optim.SGD([p], lr=0.1, momentum=0.5)
    optimizer.step()
    p.grad = np.zeros(40, dtype)
    for expected in ([2, -2, 0, 0, np.nan], [1, -1, 0, 0, np.nan], [0, 0, 0, 0, np.nan]):
        optimizer.step()
        momentum = optimizer.state_dict()["state"][0]["momentum_buffer"]
        np.testing.assert_array_equal(momentum / smallest, expected * 8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("make", "options", "names"),
    [
        (optim.SGD, {"momentum": 0.5}, {"momentum_buffer"}),
        (optim.Adam, {"betas": (0.5, 0.5)}, {"exp_avg", "exp_avg_sq"}),
        (optim.RMSprop, {"alpha": 0.5, "momentum": 0.5}, {"square_avg", "momentum_buffer"}),
        (optim.RMSprop, {"alpha": 0.5, "momentum": 0.5, "centered": True}, {"grad_avg", "momentum_buffer"}),
    ],
)
def test_state_that_fades_ends_at_zero(make, options, names, dtype):
    smallest = np.finfo(dtype).tiny
    p = nn.Parameter(np.ones(40, dtype))
    p.grad = np.array([40, -40, 41.3, -1.3, 40 / np.sqrt(smallest)] * 8, dtype) * smallest
    optimizer = make([p], lr=0.1, **options)
    for _ in range(1200 if dtype == np.float64 else 200):
        optimizer.step()
        state = {name: value for name, value in optimizer.state_dict()["state"][0].items() if name in names}
        assert set(state) == names
        for value in state.values():
            assert not ((value != 0) & (np.abs(value) < smallest)).any()
        p.grad = np.zeros(40, dtype)
    for value in state.values():
        np.testing.assert_array_equal(value, 0)


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_gradients_of_any_strides(rng, make):
    shape = (4, 6)
    params = parameters(rng, [shape] * 4)
    grad = rng.standard_normal(shape)
    read_only = grad.copy()
    read_only.flags.writeable = False
    for p, g in zip(params, (grad, np.asfortranarray(grad), np.repeat(grad, 2, 1)[:, ::2], read_only), strict=True):
        p.data, p.grad = params[0].data, g
    make(params, lr=0.1).step()
    for p in params:
        np.testing.assert_array_equal(p.data, params[0].data)


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_same_bits_with_any_number_of_threads(make):
    import fastconv

    results = []
    for threads in (1, 2, 4):
        fastconv.set_num_threads(threads)
        rng = np.random.default_rng(0)
        (p,) = parameters(rng, [(300_001,)], np.float32)
        optimizer = make([p], lr=0.1)
        for _ in range(2):
            p.grad = rng.standard_normal(p.shape).astype(np.float32)
            optimizer.step()
        results.append(p.data)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


@pytest.mark.parametrize("options", [{"momentum": 0.9, "dampening": 0.5}, {}])
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_whatever_is_another_array_than_at_the_step_before(rng, make, options):
    """An optimizer knows from step to step where arrays lie; one that is made anew for each step, from a state, cannot."""
    if options and make is not optim.SGD:
        options = {"weight_decay": 0.1}
    shapes = [(3, 5), (7,), (2, 2, 3), (5000,), (4, 4)]
    params = [nn.Parameter(rng.standard_normal(shape).astype(t)) for shape, t in zip(shapes, ["f4", "f8", "f4", "f4", "f8"], strict=True)]
    twins = [nn.Parameter(p.data) for p in params]
    optimizer, state = make(params, lr=0.1, **options), None

    def new_data(i):
        for p in (params[i], twins[i]):
            p.data = 2 * p.data

    def in_place(i):
        for p in (params[i], twins[i]):
            p.data *= 0.5

    def no_gradient(i):
        params[i].grad = twins[i].grad = None

    def same_gradient(i):
        if params[i].grad is None:
            return
        params[i].grad *= 2
        twins[i].grad = params[i].grad.copy()

    def other_state(i):
        own = optimizer.state.get(params[i], {})
        for name, value in own.items():
            own[name] = value.copy() if isinstance(value, np.ndarray) else value

    events = (new_data, in_place, no_gradient, same_gradient, other_state)
    for step in range(40):
        if step % 3:
            for p, twin in zip(params, twins, strict=True):
                p.grad = rng.standard_normal(p.shape).astype(p.dtype)
                twin.grad = p.grad.copy()
        events[rng.integers(len(events))](rng.integers(len(params)))
        optimizer.lr = 0.1 / (1 + step // 2)
        other = make(twins, lr=optimizer.lr, **options)
        if state is not None:
            other.load_state_dict(state)
        other.lr = optimizer.lr
        other.step()
        state = other.state_dict()
        optimizer.step()
        if step == 20:
            optimizer, params = copy.deepcopy((optimizer, params))
        for p, twin in zip(params, twins, strict=True):
            np.testing.assert_array_equal(p.data, twin.data)
    np.testing.assert_equal(optimizer.state_dict(), state)


def test_momentum_that_comes_later(rng):
    (p,) = parameters(rng, [(6,)])
    optimizer = optim.SGD([p], lr=0.1)
    before, p.grad = p.data.copy(), np.ones(6)
    optimizer.step()
    optimizer.param_groups[0]["momentum"] = 0.5
    for _ in range(2):
        optimizer.step()
    np.testing.assert_allclose(p.data, before - 0.1 * (1 + 1 + 1.5))


def test_a_mean_that_comes_later(rng):
    (p,) = parameters(rng, [(6,)])
    optimizer = optim.RMSprop([p], lr=0.1)
    p.grad = np.ones(6)
    optimizer.step()
    optimizer.param_groups[0]["centered"] = True
    for _ in range(2):
        optimizer.step()
    np.testing.assert_allclose(optimizer.state[p]["grad_avg"], 0.01 + 0.99 * 0.01)
    assert optimizer.state[p]["step"] == 3


def test_the_first_step_after_one_that_failed_is_the_first(rng):
    a, b = parameters(rng, [(6,), (7,)])
    optimizer = optim.SGD([{"params": [a]}, {"params": [b]}], lr=0.5, momentum=0.9, dampening=0.5)
    kept, a.grad, b.grad = a.data.copy(), np.ones(6), np.ones(6)
    with pytest.raises(ArgumentError, match="grad must be float64 of shape"):
        optimizer.step()
    np.testing.assert_array_equal(a.data, kept)
    b.grad = np.ones(7)
    optimizer.step()
    np.testing.assert_allclose(a.data, kept - 0.5)


def test_an_optimizer_holds_no_arrays_of_groups_that_are_gone(rng):
    a, b = parameters(rng, [(6,), (7,)])
    optimizer = optim.Adam([{"params": [a]}, {"params": [b]}], lr=0.5)
    a.grad, b.grad = np.ones(6), np.ones(7)
    optimizer.step()
    gone = [weakref.ref(b.data), weakref.ref(optimizer.state[b]["exp_avg"])]
    optimizer.param_groups.pop()
    del optimizer.state[b], b
    optimizer.step()
    assert [reference() for reference in gone] == [None, None]


def test_a_gradient_whose_form_is_changed_in_place(rng):
    (p,) = parameters(rng, [(2, 3)])
    optimizer = optim.SGD([p], lr=0.1)
    p.grad = np.ones((2, 3))
    optimizer.step()
    p.grad.dtype = np.int64
    with pytest.raises(ArgumentTypeError, match="grad must be float32 or float64"):
        optimizer.step()


def test_data_that_is_read_only(rng):
    (p,) = parameters(rng, [(3,)])
    p.grad, p.data.flags.writeable = np.ones(3), False
    with pytest.raises(ArgumentError, match="data must be writable"):
        optim.SGD([p], lr=0.1).step()


def test_an_optimizer_goes_on_from_a_pickle(rng):
    (p,) = parameters(rng, [(3,)])
    optimizer = optim.Adam([p], lr=0.1)
    for _ in range(2):
        p.grad = np.ones(3)
        optimizer.step()
    (other, q) = pickle.loads(pickle.dumps((optimizer, p)))
    for parameter, own in ((p, optimizer), (q, other)):
        parameter.grad = np.ones(3)
        own.step()
    np.testing.assert_array_equal(p.data, q.data)


def test_nothing_is_changed_when_one_gradient_does_not_fit(rng):
    a, b = parameters(rng, [(6,), (7,)])
    optimizer = optim.Adam([a, b], lr=0.1)
    kept, a.grad, b.grad = a.data.copy(), np.ones(6), np.ones(6)
    with pytest.raises(ArgumentError, match="grad must be float64 of shape"):
        optimizer.step()
    np.testing.assert_array_equal(a.data, kept)
    assert optimizer.state_dict()["state"] == {}


# --- groups and the rate


def test_groups_have_their_own_options(rng):
    a, b, c = parameters(rng, [(2,), (2,), (2,)])
    before = [p.data.copy() for p in (a, b, c)]
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.1)
    optimizer.add_param_group({"params": [c], "weight_decay": 1.0})
    for p in (a, b, c):
        p.grad = np.ones(2)
    optimizer.step()
    np.testing.assert_allclose(a.data, before[0] - 0.1)
    np.testing.assert_allclose(b.data, before[1] - 0.5)
    np.testing.assert_allclose(c.data, before[2] - 0.1 * (1 + before[2]))
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.5, 0.1]


def test_learning_rate_can_be_read_and_set(rng):
    a, b = parameters(rng, [(2,), (2,)])
    optimizer = optim.SGD([{"params": [a], "lr": 0.3}, {"params": [b]}], lr=0.1)
    assert optimizer.lr == 0.3
    optimizer.lr = 0.25
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
    optimizer.param_groups[1]["lr"] = 0.0
    a.grad = b.grad = np.ones(2)
    kept = b.data.copy()
    optimizer.step()
    np.testing.assert_array_equal(b.data, kept)
    with pytest.raises(ArgumentError, match="lr must be at least 0"):
        optimizer.lr = -1
    assert optimizer.lr == 0.25


def test_repr_shows_options():
    text = repr(optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1))
    assert text.startswith("SGD(2 parameters, lr=0.1, momentum=0.0")


# --- state


@pytest.mark.parametrize(("make", "formula", "options"), CASES, ids=IDS)
def test_training_goes_on_from_a_state_dict(rng, make, formula, options):
    gradients = [[rng.standard_normal(shape) for shape in SHAPES[:3]] for _ in range(6)]

    def train(optimizer, params, steps):
        for grads in steps:
            for p, g in zip(params, grads, strict=True):
                p.grad = g
            optimizer.step()

    params = parameters(rng, SHAPES[:3])
    optimizer = make(params, **options)
    train(optimizer, params, gradients[:3])
    state, others = copy.deepcopy(optimizer.state_dict()), [nn.Parameter(p.data) for p in params]
    snapshot = optimizer.state_dict()
    train(optimizer, params, gradients[3:])
    np.testing.assert_equal(snapshot, state)  # a snapshot does not move with the optimizer
    other = make(others, lr=123)
    other.load_state_dict(state)
    train(other, others, gradients[3:])
    for p, o in zip(params, others, strict=True):
        np.testing.assert_array_equal(o.data, p.data)
    np.testing.assert_equal(other.state_dict(), optimizer.state_dict())


def test_state_dict_that_does_not_fit_changes_nothing(rng):
    a, b = parameters(rng, [(2,), (3,)])
    optimizer = optim.SGD([a, b], lr=0.1, momentum=0.9)
    a.grad, b.grad = np.ones(2), np.ones(3)
    optimizer.step()
    good = optimizer.state_dict()
    wrong = copy.deepcopy(good)
    wrong["state"][1]["momentum_buffer"] = np.zeros(4)
    swapped = {**good, "param_groups": [{**good["param_groups"][0], "params": [0]}]}
    foreign = {**good, "state": {5: {}}}
    invalid = {**good, "param_groups": [{**good["param_groups"][0], "lr": -1.0}]}
    for state, message in (
        (wrong, r"momentum_buffer must have its parameter's shape \(3,\), got \(4,\)"),
        (swapped, r"groups of \[2\] parameters, got \[1\]"),
        (foreign, "a parameter 5 that is in none of its groups"),
        (invalid, "lr must be at least 0"),
    ):
        with pytest.raises(ArgumentError, match=message):
            optimizer.load_state_dict(state)
        np.testing.assert_equal(optimizer.state_dict(), good)
    for state in ({}, None, {"state": {}}):
        with pytest.raises(ArgumentTypeError, match="state_dict must be a dict with"):
            optimizer.load_state_dict(state)


# --- errors


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_what_cannot_be_optimized(rng, make):
    (p,) = parameters(rng, [(2,)])
    for params in (p, nn.Linear(2, 2), {"params": [p]}, np.ones(2), "weights"):
        with pytest.raises(ArgumentTypeError, match="params must be an iterable of Parameters"):
            make(params, lr=0.1)
    for params in ([np.ones(2)], [p, None], [{"params": [1.0]}]):
        with pytest.raises(ArgumentTypeError, match="params must be Parameters"):
            make(params, lr=0.1)
    with pytest.raises(ArgumentTypeError, match='must be a dict with "params"'):
        make([{"lr": 1}], lr=0.1)
    with pytest.raises(ArgumentError, match="at least one Parameter"):
        make([], lr=0.1)
    with pytest.raises(ArgumentError, match="comes twice"):
        make([p, p], lr=0.1)
    with pytest.raises(ArgumentError, match="comes twice"):
        make([{"params": [p]}, {"params": [p]}], lr=0.1)
    with pytest.raises(ArgumentError, match=f"{make.__name__} has no option rate; it has lr"):
        make([{"params": [p], "rate": 1}], lr=0.1)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (optim.SGD, {"lr": -0.1}, "lr must be at least 0, got -0.1"),
        (optim.SGD, {"lr": float("nan")}, "lr must be at least 0, got nan"),
        (optim.SGD, {"lr": "0.1"}, "lr must be a number"),
        (optim.SGD, {"momentum": -1}, "momentum must be"),
        (optim.SGD, {"weight_decay": -1}, "weight_decay must be"),
        (optim.SGD, {"nesterov": True}, "nesterov needs a momentum above 0 and no dampening"),
        (optim.SGD, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov needs"),
        (optim.Adam, {"betas": (0.9, 1.0)}, "betas must be"),
        (optim.Adam, {"betas": 0.9}, "betas must be"),
        (optim.Adam, {"betas": (0.9, -0.1)}, "betas must be"),
        (optim.Adam, {"eps": -1}, "eps must be at least 0"),
        (optim.AdamW, {"weight_decay": None}, "weight_decay must be a number"),
        (optim.RMSprop, {"alpha": 1.5}, "alpha must be from 0 to 1"),
        (optim.RMSprop, {"momentum": -1}, "momentum must be"),
    ],
)
def test_options_that_cannot_be(make, options, message):
    with pytest.raises((ArgumentError, ArgumentTypeError), match=message):
        make(nn.Linear(2, 2).parameters(), **options)


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_gradients_and_state_that_do_not_fit_never_reach_a_kernel(rng, make):
    (p,) = parameters(rng, [(2, 3)])
    optimizer = make([p], lr=0.1)
    for grad in (np.ones((3, 2)), np.ones(6), np.ones((2, 3), np.float32)):
        p.grad = grad
        with pytest.raises(ArgumentError, match=r"grad must be float64 of shape \(2, 3\)"):
            optimizer.step()
    for grad in ([[1.0] * 3] * 2, np.ones((2, 3), int)):
        p.grad = grad
        with pytest.raises(ArgumentTypeError, match="grad must be"):
            optimizer.step()


@pytest.mark.parametrize("make", [optim.Adam, lambda p, lr: optim.SGD(p, lr, momentum=0.9)])
def test_parameters_that_change_their_dtype_or_size_want_a_new_optimizer(rng, make):
    layer = nn.Linear(3, 2)
    optimizer = make(layer.parameters(), lr=0.1)

    def step(dtype):
        layer(np.ones((1, 3), dtype))
        layer.backward(np.ones((1, 2), dtype))
        optimizer.step()

    step(np.float32)
    layer.double()
    with pytest.raises(ArgumentError, match="make a new optimizer"):
        step(np.float64)
