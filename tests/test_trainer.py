"""Training, evaluation and prediction: what is learned, and that it is the same bits whatever the way in."""

import os
import signal
import threading

import numpy as np
import pytest

from fastconv import nn, optim
from fastconv.datasets import load_digits
from fastconv.models import digits_cnn, lecture
from fastconv.serialization import load
from fastconv.trainer import History, Trainer

DIGITS = load_digits()
X, Y = DIGITS.x_train[:256], DIGITS.y_train[:256]


def trainer(model=None, loss=None, lr=0.1, **options):
    model = model or digits_cnn(seed=0)
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    scheduler = options.pop("scheduler", None)
    return Trainer(model, loss or nn.CrossEntropyLoss(), optimizer, scheduler=scheduler and scheduler(optimizer), progress=False, **options)


def bits(model):
    return b"".join(array.tobytes() for array in model.state_dict().values())


def trained_bits(x=X, y=Y, epochs=2, **options):
    t = trainer(**options)
    t.fit(x, y, epochs=epochs, batch_size=48)
    return bits(t.model)


def test_digits_are_learned():
    t = trainer()
    history = t.fit(DIGITS.x_train, DIGITS.y_train, epochs=8, batch_size=64, validation_data=(DIGITS.x_test, DIGITS.y_test))
    assert history.val_accuracy[-1] > 0.95
    assert history.loss[-1] < 0.2 * history.loss[0]
    assert len(history) == len(history.images_per_second) == 8
    assert all(0 < seconds < 600 for seconds in history.seconds)
    assert history.lr == [0.1] * 8
    assert history.stopped is None
    result = t.evaluate(DIGITS.x_test, DIGITS.y_test)
    assert result == {"loss": history.val_loss[-1], "accuracy": history.val_accuracy[-1]}
    assert (t.predict(DIGITS.x_test).argmax(axis=1) == DIGITS.y_test).mean() == result["accuracy"]


# --- the same bits


def test_same_seed_same_bits():
    assert trained_bits() == trained_bits()
    assert trained_bits() != trained_bits(seed=1)


def images_as(kind):
    images = (X * 255).round().astype(np.uint8)
    floats = images * np.float32(1 / 255)
    wide = np.zeros((256, 1, 8, 16), np.float32)
    wide[..., ::-2] = floats
    frozen = floats.copy()
    frozen.flags.writeable = False
    return {
        "float32": floats,
        "uint8": images,
        "float64": floats.astype(np.float64),
        "big-endian": floats.astype(">f4"),
        "fortran": np.asfortranarray(floats),
        "strided": wide[..., ::-2],
        "reversed": floats[::-1].copy()[::-1],
        "read-only": frozen,
    }[kind]


@pytest.mark.parametrize("kind", ["uint8", "float64", "big-endian", "fortran", "strided", "reversed", "read-only"])
def test_the_memory_of_the_images_does_not_matter(kind):
    expected = trained_bits(images_as("float32"))
    assert trained_bits(images_as(kind)) == expected


@pytest.mark.parametrize("layout", ["channels-last", "fortran", "uint8", "uint8 channels-last"])
def test_the_memory_of_coloured_images_does_not_matter(layout, rng):
    images = rng.integers(0, 256, (30, 3, 6, 5), np.uint8)
    x = images if layout.startswith("uint8") else images * np.float32(1 / 255)
    if layout.endswith("channels-last"):
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    elif layout == "fortran":
        x = np.asfortranarray(x)
    results = []
    for data in (images * np.float32(1 / 255), x):
        model = nn.Sequential(nn.Conv2d(3, 4, 3, seed=0), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2, seed=1))
        trainer(model).fit(data, np.arange(30) % 2, epochs=2, batch_size=8)
        results.append(bits(model))
    assert results[0] == results[1]


@pytest.mark.parametrize("labels", [np.uint8, np.int32, ">i8"])
def test_the_dtype_of_the_labels_does_not_matter(labels):
    assert trained_bits(y=Y.astype(labels)) == trained_bits()


def test_labels_may_be_a_list():
    assert trained_bits(y=Y.tolist()) == trained_bits()


def test_dropout_draws_from_the_trainers_seed():
    def run(seed):
        model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10, seed=0))
        trainer(model, seed=seed).fit(X, Y, batch_size=64, shuffle=False)
        assert model[1].rng is None
        return bits(model)

    assert run(0) == run(0)
    assert run(0) != run(1)


def test_a_resumed_history_continues_as_if_unbroken():
    whole, parts, apart = trainer(), trainer(), trainer()
    expected = whole.fit(X, Y, epochs=3, batch_size=48)
    history = parts.fit(X, Y, epochs=1, batch_size=48)
    assert parts.fit(X, Y, epochs=2, batch_size=48, history=history) is history
    assert history.loss == expected.loss
    assert bits(parts.model) == bits(whole.model)
    for _ in range(3):
        apart.fit(X, Y, batch_size=48)
    assert bits(apart.model) == bits(whole.model)


def test_float64_models_compute_in_float64():
    t = trainer(digits_cnn(seed=0, dtype=np.float64))
    t.fit(X, Y, batch_size=64)
    assert t.predict(X).dtype == np.float64


def test_training_in_another_thread():
    result = []
    thread = threading.Thread(target=lambda: result.append(trained_bits()))
    thread.start()
    thread.join()
    assert result == [trained_bits()]


# --- every kind of loss


def test_binary_targets_may_lack_an_axis():
    x, y = X[:, :, 1:7, 1:7], (Y == 0).astype(np.int64)
    results = []
    for target in (y, y[:, None], y.astype(bool), y.astype(np.float64)):
        t = trainer(lecture(seed=3), nn.BCELoss())
        t.fit(x, target, epochs=2, batch_size=32)
        results.append(bits(t.model))
        assert t.evaluate(x, target)["accuracy"] == ((t.predict(x)[:, 0] >= 0.5) == (y == 1)).mean()
    assert len(set(results)) == 1


def test_binary_accuracy_before_the_sigmoid():
    t = trainer(nn.Sequential(nn.Flatten(), nn.Linear(64, 1, seed=0)), nn.BCEWithLogitsLoss())
    y = Y >= 5
    history = t.fit(X, y, epochs=10, batch_size=32)
    assert history.accuracy[-1] > 0.8
    assert t.evaluate(X, y)["accuracy"] == ((t.predict(X)[:, 0] >= 0) == y).mean()


def test_regression_has_no_accuracy():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 1, seed=0))
    y = X.mean(axis=(1, 2, 3)).astype(np.float64)
    t = trainer(model, nn.MSELoss(), lr=0.01)
    history = t.fit(X, y, epochs=5, batch_size=32, validation_data=(X, y))
    assert history.loss[-1] < 0.1 * history.loss[0]
    assert history.accuracy == history.val_accuracy == [None] * 5
    assert t.evaluate(X, y)["loss"] == pytest.approx(np.mean((t.predict(X)[:, 0] - y) ** 2), rel=1e-5)


def test_summed_losses_are_recorded_as_means():
    y = X.mean(axis=(1, 2, 3))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 1, seed=0))
    mean, total = (trainer(model, nn.MSELoss(reduction=r)).evaluate(X, y, batch_size=100)["loss"] for r in ("mean", "sum"))
    assert total == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("ignored", [-100, 3, 99])
def test_ignored_labels_do_not_count(ignored):
    y = np.where(np.arange(256) % 4 == 0, ignored, Y)
    t = trainer(loss=nn.CrossEntropyLoss(ignore_index=ignored))
    t.fit(X, y, batch_size=64)
    counting = y != ignored
    assert t.evaluate(X, y)["accuracy"] == pytest.approx((t.predict(X).argmax(axis=1) == y)[counting].mean())


def test_pixelwise_labels():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, seed=0))
    y = (X[:, 0] > 0.5).astype(np.int64)
    t = trainer(model)
    history = t.fit(X, y, epochs=3, batch_size=32)
    assert history.accuracy[-1] > 0.9
    assert t.evaluate(X, y)["accuracy"] == (t.predict(X).argmax(axis=1) == y).mean()


# --- modes, batches, gradients


class Spy(nn.Module):
    """Passes images on and keeps what it saw."""

    def __init__(self):
        self.seen = []

    def forward(self, input):
        self.seen.append((self.training, input.shape, input.__array_interface__["data"][0]))
        return input

    def backward(self, grad_output):
        raise AssertionError("the gradient of the images is not needed")


def test_batches_modes_memory_and_the_gradient_that_nobody_needs():
    spy = Spy()
    model = nn.Sequential(spy, nn.Flatten(), nn.Linear(64, 10, seed=0))
    model[2].eval()
    t = trainer(model)
    t.fit(X[:100], Y[:100], batch_size=40, validation_data=(X[:30], Y[:30]))
    assert [(training, shape[0]) for training, shape, _ in spy.seen] == [(True, 40), (True, 40), (True, 20), (False, 30)]
    assert len({address for _, _, address in spy.seen[:3]}) == 1  # one buffer, no fresh memory for every batch
    assert spy.training is True
    model.eval()
    t.predict(X[:10])
    assert spy.training is False


def test_evaluation_leaves_gradients_and_memory_alone():
    t = trainer()
    t.fit(X, Y, batch_size=64)
    grads = [p.grad.copy() for p in t.model.parameters()]
    t.evaluate(X[:7], Y[:7])
    t.predict(X[:5])
    for p, grad in zip(t.model.parameters(), grads, strict=True):
        np.testing.assert_array_equal(p.grad, grad)


def test_every_image_is_used_once_an_epoch():
    class Labels(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter(np.zeros((1, 1), np.float32))
            self.seen = []

        def forward(self, input):
            self.seen += input[:, 0].tolist()
            return input * 0 + self.weight.data

        def backward(self, grad_output):
            self.weight.accumulate(grad_output.sum(keepdims=True))

    x = np.arange(50, dtype=np.float32)[:, None]
    for shuffle in (True, False):
        model = Labels()
        trainer(model, nn.MSELoss()).fit(x, x, epochs=2, batch_size=7, shuffle=shuffle)
        first, second = model.seen[:50], model.seen[50:]
        assert sorted(first) == sorted(second) == x[:, 0].tolist()
        assert (first != second) is shuffle


def test_predict_in_batches_and_of_nothing():
    t = trainer()
    whole = t.predict(X[:100], batch_size=1000)
    assert whole.shape == (100, 10)
    for size in (1, 7, 100):
        np.testing.assert_allclose(t.predict(X[:100], batch_size=size), whole, rtol=1e-5, atol=1e-6)
    assert t.predict(X[:0]).shape == (0, 10)


# --- schedules


def test_one_cycle_goes_on_after_every_batch():
    t = trainer(scheduler=lambda o: optim.OneCycleLR(o, 0.1, total_steps=12))
    history = t.fit(X, Y, epochs=3, batch_size=64)
    assert t.scheduler.last_epoch == 12
    assert history.lr[0] > history.lr[1] > history.lr[2]
    assert history.lr[2] == pytest.approx(0.1 / 25 / 1e4)


def test_other_schedules_go_on_after_every_epoch():
    t = trainer(scheduler=lambda o: optim.StepLR(o, 1, gamma=0.5))
    assert t.fit(X, Y, epochs=3, batch_size=64).lr == [0.1, 0.05, 0.025]
    t = trainer(scheduler=lambda o: optim.StepLR(o, 2, gamma=0.5), scheduler_step="batch")
    assert t.fit(X, Y, epochs=2, batch_size=64).lr == [0.05, 0.0125]


def test_plateau_looks_at_the_validation_loss():
    t = trainer(lr=1e-30, scheduler=lambda o: optim.ReduceLROnPlateau(o, factor=0.5, patience=0, eps=0))
    assert t.fit(X, Y, epochs=4, batch_size=64, validation_data=(X, Y)).lr == [1e-30, 1e-30, 5e-31, 2.5e-31]


# --- ends


def test_patience_puts_the_best_epoch_back(tmp_path):
    path = tmp_path / "best.safetensors"
    states = []
    t = trainer(patience=2, checkpoint=path, callbacks=[lambda report: states.append(report.trainer.model.state_dict()) and None])
    history = t.fit(X, Y, epochs=50, batch_size=64, validation_data=(X[:64], (Y[:64] + 1) % 10))  # learning makes this validation worse
    assert history.stopped == "patience"
    best = int(np.argmin(history.val_loss))
    assert len(history) == best + 3
    for name, array in states[best].items():
        np.testing.assert_array_equal(t.model.state_dict()[name], array)
        np.testing.assert_array_equal(load(path)[name], array)


def test_callbacks():
    epochs, batches = [], []

    class Both:
        def on_epoch(self, report):
            epochs.append((report.epoch, report.epochs, report.loss, report.history.loss[-1]))

        def on_batch(self, report):
            batches.append((report.epoch, report.batch, report.batches, report.accuracy))

    def stop(report):
        return report.epoch == 2

    history = trainer(callbacks=[Both(), stop]).fit(X, Y, epochs=9, batch_size=64)
    assert history.stopped == "callback"
    assert epochs == [(1, 9, history.loss[0], history.loss[0]), (2, 9, history.loss[1], history.loss[1])]
    assert [b[:3] for b in batches] == [(e, b, 4) for e in (1, 2) for b in (1, 2, 3, 4)]
    assert batches[-1][3] == history.accuracy[-1]


class AtBatch:
    def __init__(self, number, action):
        self.number, self.action, self.calls = number, action, 0

    def on_batch(self, report):
        self.calls += 1
        if self.calls == self.number:
            self.action()


def interrupt():
    raise KeyboardInterrupt


def send_signal():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("action", [interrupt, send_signal])
def test_ctrl_c_stops_after_the_batch(action):
    callback = AtBatch(6, action)
    t = trainer(callbacks=[callback])
    history = t.fit(X, Y, epochs=3, batch_size=64, validation_data=(X, Y))
    assert callback.calls == 6
    assert history.stopped == "interrupted"
    assert len(history) == 2
    assert history.val_loss[0] is not None
    assert history.val_loss[1] is None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert np.isfinite(t.predict(X)).all()


def test_a_second_ctrl_c_stops_at_once():
    def twice():
        send_signal()
        os.kill(os.getpid(), signal.SIGINT)

    class Impatient(nn.Flatten):
        def forward(self, input):
            twice()
            return super().forward(input)

    t = trainer(nn.Sequential(Impatient(), nn.Linear(64, 10, seed=0)))
    with pytest.raises(KeyboardInterrupt):
        t.fit(X, Y, batch_size=64)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_of_a_callback_after_the_epoch():
    calls = []

    def callback(report):
        calls.append(report.epoch)
        raise KeyboardInterrupt

    history = trainer(callbacks=[callback]).fit(X, Y, epochs=3, batch_size=64, history=History())
    assert calls == [1]
    assert (history.stopped, len(history)) == ("interrupted", 1)
