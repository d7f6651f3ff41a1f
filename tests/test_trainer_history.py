"""The record of a run and what is shown while it lasts."""

import io
import json

import numpy as np
import pytest

from fastconv import nn, optim
from fastconv.errors import FileFormatError
from fastconv.trainer import History, Trainer
from fastconv.trainer import progress as displays
from fastconv.trainer.history import LISTS

X = np.linspace(0, 1, 20 * 16, dtype=np.float32).reshape(20, 1, 4, 4)
Y = np.arange(20) % 3


def train(**options):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3, seed=0))
    t = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), **options)
    return t.fit(X, Y, epochs=2, batch_size=8, validation_data=(X, Y))


def two_epochs():
    history = History()
    history.append(loss=2.0, accuracy=0.25, val_loss=1.5, val_accuracy=0.5, images_per_second=1e5, seconds=0.5, lr=0.1)
    history.append(loss=1.0, accuracy=0.75, images_per_second=1e5, seconds=0.25, lr=0.01)
    history.stopped = "interrupted"
    return history


def test_a_history_survives_its_file(tmp_path):
    history = two_epochs()
    history.save(tmp_path / "history.json")
    again = History.load(tmp_path / "history.json")
    assert again == history
    assert again.to_dict()["val_loss"] == [1.5, None]
    assert again.monitored() == [1.5, 1.0]
    assert [path.name for path in tmp_path.iterdir()] == ["history.json"]


def test_numbers_that_json_does_not_know_become_null(tmp_path):
    history = History()
    history.append(loss=float("nan"), val_loss=float("inf"), seconds=1.0)
    history.save(tmp_path / "history.json")
    values = json.loads((tmp_path / "history.json").read_text(), parse_constant=pytest.fail)
    assert (values["loss"], values["val_loss"], values["seconds"]) == ([None], [None], [1.0])


def test_an_epoch_has_known_names_only():
    with pytest.raises(TypeError, match="unknown: error"):
        History().append(error=1)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "history.json"
    two_epochs().save(path)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fastconv.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        History().save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["history.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"loss": []}',
        json.dumps({**{name: [] for name in LISTS}, "loss": [1], "stopped": None}),
        json.dumps({**{name: ["x"] for name in LISTS}, "stopped": None}),
    ],
)
def test_files_that_are_no_history(tmp_path, text):
    path = tmp_path / "history.json"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=r"history\.json is no history"):
        History.load(path)


def test_a_missing_history(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        History.load(tmp_path / "history.json")


# --- what is shown


def test_nothing_is_printed_without_progress(capfd):
    train(progress=False)
    assert capfd.readouterr() == ("", "")


def test_a_line_for_each_epoch_where_there_is_no_terminal(capfd):
    history = train()
    out, err = capfd.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first.startswith(f"epoch 1/2  loss {history.loss[0]:.4f}  accuracy {100 * history.accuracy[0]:.2f} %  val loss ")
    assert second.startswith("epoch 2/2")
    assert "images/s" in first


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def test_a_bar_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(displays, "REFRESH", 0)
    monkeypatch.setattr(displays.sys, "stderr", terminal)
    train()
    shown = terminal.getvalue()
    bars = [line for line in shown.replace("\n", "\r").split("\r") if "%|" in line]
    assert any("loss " in bar and "accuracy " in bar and " images/s" in bar for bar in bars)
    assert shown.count("\n") == 2  # the bars are wiped, a line for each epoch stays
