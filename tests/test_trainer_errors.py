"""What the Trainer refuses, and what it says when numbers stop being finite."""

import re

import numpy as np
import pytest

from fastconv import nn, optim
from fastconv.errors import ArgumentError, ArgumentTypeError, NotFiniteError
from fastconv.trainer import Trainer
from fastconv.trainer.finite import first_broken_layer

X = np.linspace(0, 1, 20 * 16, dtype=np.float32).reshape(20, 1, 4, 4)
Y = np.arange(20) % 3


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3, seed=0))


def trainer(model=None, loss=None, lr=0.1, **options):
    model = model or network()
    return Trainer(model, loss or nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=lr), progress=False, **options)


@pytest.mark.parametrize(
    ("x", "y", "options", "error", "message"),
    [
        (X.tolist(), Y, {}, ArgumentTypeError, "x must be a NumPy array, got list"),
        (np.ma.masked_array(X), Y, {}, ArgumentTypeError, "x must be a NumPy array, got MaskedArray"),
        (X.astype(np.int64), Y, {}, ArgumentTypeError, r"x must be uint8 \(values 0 to 255.*got int64: convert it"),
        (X.astype(np.float16), Y, {}, ArgumentTypeError, "float16"),
        (X[:, 0, 0, 0], Y, {}, ArgumentError, r"x must hold one image.*got shape \(20,\)"),
        (X[:, :, :0], Y, {}, ArgumentError, "with pixels"),
        (X, Y[:19], {}, ArgumentError, r"x and y must be equally long, got shapes \(20, 1, 4, 4\) and \(19,\)"),
        (X, None, {}, ArgumentTypeError, "y must be a NumPy array, got NoneType"),
        (X, [[1], [1, 2]], {}, ArgumentError, "y must be an array, or a list that is one"),
        (X[:0], Y[:0], {}, ArgumentError, "must not be empty"),
        (X, Y.astype(np.float32), {}, ArgumentTypeError, "y must be integer class labels for CrossEntropyLoss, got float32"),
        (X, np.eye(3)[Y], {}, ArgumentTypeError, r"one-hot rows, pass y\.argmax\(axis=1\)"),
        (X, Y[:, None], {}, ArgumentError, r"y must have the shape \('N',\) of a label"),
        (X, np.where(Y == 2, 3, Y), {}, ArgumentError, "y must be labels from 0 to 2.*got 3 at index 2"),
        (X, np.where(Y == 1, -1, Y), {}, ArgumentError, "got -1 at index 1"),
        (X, Y, {"batch_size": 21}, ArgumentError, "batch_size must be at most the number of images, 20, got 21"),
        (X, Y, {"batch_size": 0}, ArgumentError, "batch_size must be from 1"),
        (X, Y, {"batch_size": 2.5}, ArgumentTypeError, "batch_size must be an integer"),
        (X, Y, {"epochs": 0}, ArgumentError, "epochs must be from 1"),
        (X, Y, {"epochs": True}, ArgumentTypeError, "epochs must be an integer"),
        (X, Y, {"validation_data": X}, ArgumentTypeError, r"validation_data must be a pair \(x, y\)"),
        (X, Y, {"validation_data": (X, Y[:3])}, ArgumentError, "validation_data x and validation_data y must be equally long"),
        (X, Y, {"validation_data": (X[:, :, 1:], Y)}, ArgumentError, "validation_data x must have the shape of x"),
        (X, Y, {"validation_data": (X, Y + 1)}, ArgumentError, "validation_data y must be labels from 0 to 2"),
        (X, Y, {"history": {}}, ArgumentTypeError, "history must be a History"),
        (X[:, :, 1:], Y, {}, ArgumentError, "input must have shape"),
    ],
)
def test_fit_refuses_and_changes_nothing(x, y, options, error, message):
    t = trainer()
    before = t.model.state_dict()
    with pytest.raises(error, match=message):
        t.fit(x, y, **{"batch_size": 5, **options})
    for name, array in t.model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize(
    ("loss", "y", "error", "message"),
    [
        (nn.BCELoss(), np.where(Y == 2, 2, Y), ArgumentError, "y must be from 0 to 1 for BCELoss, got values from 0.0 to 2.0"),
        (nn.BCELoss(), np.full(20, np.nan), ArgumentError, "y must be from 0 to 1"),
        (
            nn.MSELoss(),
            np.zeros((20, 2)),
            ArgumentError,
            r"shape of the model's output, \('N', 1\), for MSELoss, got \(20, 2\)",
        ),
        (nn.MSELoss(), np.array(["a"] * 20), ArgumentTypeError, "y must hold numbers"),
    ],
)
def test_targets_that_do_not_fit_the_loss(loss, y, error, message):
    t = trainer(nn.Sequential(nn.Flatten(), nn.Linear(16, 1, seed=0), nn.Sigmoid()), loss)
    with pytest.raises(error, match=message):
        t.fit(X, y, batch_size=5)
    with pytest.raises(error, match=message):
        t.evaluate(X, y)


def test_what_a_trainer_is_made_of():
    model, other = network(), network()
    sgd = optim.SGD(model.parameters(), lr=0.1)
    loss = nn.CrossEntropyLoss()
    with pytest.raises(ArgumentTypeError, match="model must be of type Module, got list"):
        Trainer([], loss, sgd)
    with pytest.raises(ArgumentTypeError, match="loss must be of type Module, got str"):
        Trainer(model, "mse", sgd)
    with pytest.raises(ArgumentTypeError, match="optimizer must be of type Optimizer, got float"):
        Trainer(model, loss, 0.1)
    with pytest.raises(ArgumentError, match="optimizer must be of the model's parameters"):
        Trainer(other, loss, sgd)
    with pytest.raises(ArgumentError, match='reduction "mean" or "sum"'):
        Trainer(model, nn.CrossEntropyLoss(reduction="none"), sgd)
    with pytest.raises(ArgumentTypeError, match="scheduler must be a Scheduler"):
        Trainer(model, loss, sgd, scheduler=0.1)
    with pytest.raises(ArgumentError, match="scheduler must be of this optimizer"):
        Trainer(model, loss, sgd, scheduler=optim.StepLR(optim.SGD(model.parameters(), lr=1.0), 1))
    with pytest.raises(TypeError, match="epoch"):
        Trainer(model, loss, sgd, epoch=3)
    for name, value in (("seed", -1), ("seed", 1.5), ("patience", 0), ("scheduler_step", "week"), ("callbacks", ["stop"])):
        with pytest.raises((ArgumentError, ArgumentTypeError), match=name):
            Trainer(model, loss, sgd, **{name: value})


def test_evaluate_and_predict_refuse():
    t = trainer()
    with pytest.raises(ArgumentError, match="must not be empty"):
        t.evaluate(X[:0], Y[:0])
    with pytest.raises(ArgumentError, match="batch_size"):
        t.predict(X, batch_size=0)
    with pytest.raises(ArgumentTypeError, match="x must be uint8"):
        t.predict(X.astype(np.int32))
    with pytest.raises(ArgumentError, match="y must be labels"):
        t.evaluate(X, Y + 5)


# --- not finite


def raises(t, x, y, *patterns, **options):
    before = t.model.state_dict()
    with pytest.raises(NotFiniteError) as caught:
        t.fit(x, y, **{"batch_size": 5, "epochs": 2, "shuffle": False, **options})
    for pattern in patterns:
        assert re.search(pattern, str(caught.value)), str(caught.value)
    return before


def test_an_image_that_is_not_finite():
    x = X.copy()
    x[13, 0, 2, 2] = np.nan
    t = trainer()
    before = raises(t, x, Y, r"the loss is nan in epoch 1, batch 3 of 4: x\[13\] holds NaN or infinity", "as it was before the training")
    for name, array in t.model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    with pytest.raises(NotFiniteError, match=r"training\.$"):  # no advice about the learning rate, which is not to blame
        t.fit(x, Y, batch_size=5)


def test_a_target_that_is_not_finite():
    y = np.where(np.arange(20) == 7, np.inf, 0.5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 1, seed=0))
    raises(trainer(model, nn.MSELoss(), lr=0.01), X, y, r"the loss is inf in epoch 1, batch 2 of 4: y\[7\] holds NaN or infinity")


def test_a_learning_rate_that_is_too_high():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8, seed=0), nn.ReLU(), nn.Linear(8, 1, seed=1))
    t = trainer(model, nn.MSELoss(), lr=1e12)
    raises(t, X, X.mean(axis=(1, 2, 3)), "the loss is (nan|inf) in epoch 1, batch [234] of 4", "a learning rate below 1e[+]12 may help")
    assert all(np.isfinite(p.data).all() for p in t.model.parameters())


class Explode(nn.Module):
    """The identity; its output, or its gradient, is infinite in one call."""

    def __init__(self, forward=None, backward=None):
        self.at = {"forward": forward, "backward": backward}
        self.calls = {"forward": 0, "backward": 0}

    def _pass(self, which, array):
        self.calls[which] += 1
        return array * np.float32(np.inf if self.calls[which] == self.at[which] else 1)

    def forward(self, input):
        return self._pass("forward", input)

    def backward(self, grad_output):
        return self._pass("backward", grad_output)


class Overflow(nn.Module):
    def forward(self, input):
        with np.errstate(over="ignore", invalid="ignore"):
            return np.exp(input * 1000) if input.max() > 0.8 else input

    def backward(self, grad_output):
        return grad_output


def test_the_first_layer_whose_output_is_not_finite_is_named():
    model = nn.Sequential(nn.Flatten(), Overflow(), nn.Linear(16, 3, seed=0))
    raises(trainer(model), X, Y, r"batch 4 of 4: the output of layer 1, Overflow\(\) is not finite first")


def test_the_gradient_that_broke_the_parameters_is_named():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4, seed=0), Explode(backward=2), nn.Linear(4, 3, seed=1))
    t = trainer(model)
    message = r"in epoch 1, batch 3 of 4: 1\.weight is not finite since batch 2: the gradient of 1\.(bias|weight) was not finite first"
    raises(t, X, Y, message)
    assert all(np.isfinite(p.data).all() for p in t.model.parameters())


def test_a_break_in_the_last_batch_is_found_at_the_end_of_the_epoch():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4, seed=0), Explode(backward=8), nn.Linear(4, 3, seed=1))
    states = []
    t = trainer(model, callbacks=[lambda report: states.append(report.trainer.model.state_dict()) and None])
    raises(t, X, Y, r"after epoch 2, 1\.weight is not finite: the gradient of 1\.", "as it was at the end of epoch 1")
    for name, array in t.model.state_dict().items():
        np.testing.assert_array_equal(array, states[0][name])


def test_running_means_stay_finite():
    model = nn.Sequential(Overflow(), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 3, seed=0))
    t = trainer(model)
    raises(t, X, Y, "layer 0, Overflow")
    assert all(np.isfinite(buffer).all() for buffer in t.model.buffers())


def test_statistics_that_overflow_are_found_at_the_end_of_the_epoch():
    class Largest(nn.Module):
        def __init__(self):
            self.register_buffer("largest", np.zeros(1, np.float32))

        def forward(self, input):
            self.largest[:] = np.inf if input.max() > 0.9 else input.max()
            return input

        def backward_parameters(self, grad_output):
            pass

    model = nn.Sequential(Largest(), nn.Flatten(), nn.Linear(16, 3, seed=0))
    raises(trainer(model), X, Y, r"after epoch 1, 0\.largest is not finite: the statistics of a batch were too large")
    assert model[0].largest == 0


def test_weights_that_were_not_finite_before():
    t = trainer()
    t.model[1].weight.data[0, 0] = np.nan
    raises(t, X, Y, r"batch 1 of 4: 1\.weight was not finite before")


def test_looking_for_the_layer_leaves_the_model_as_it_was():
    model = network()
    assert first_broken_layer(model, X) is None
    assert "forward" not in vars(model[0])
    assert first_broken_layer(model, np.full_like(X, np.inf)).startswith("the output of layer 0, Flatten")
