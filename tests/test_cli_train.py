"""`fastconv train`: what it leaves, going on after an end, and everything that can go wrong with data and folders."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import fastconv
from fastconv import cli, nn
from fastconv.commands import saved
from fastconv.datasets import load_digits
from fastconv.trainer import History
from fastconv.trainer.fitting import Fitting

ROOT = Path(fastconv.__file__).parents[1]
PICTURES = ["confusion.png", "curves.png", "filters.png", "mistakes.png"]
QUICK = ["--dataset", "digits", "--limit", 200, "--epochs", 2, "--no-progress"]


def train(capsys, *words):
    """(exit code, standard output, standard error) of a training."""
    code = cli.main(["train", *map(str, words)])
    return (code, *capsys.readouterr())


def weights(folder):
    return {name: array.tobytes() for name, array in fastconv.load(folder / saved.MODEL).items()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_train_leaves_model_history_and_pictures(capsys, tmp_path):
    code, out, err = train(capsys, "--dataset", "digits", "--output", tmp_path / "run")
    assert code == 0
    assert names(tmp_path / "run") == sorted([saved.MODEL, saved.HISTORY, saved.STATE, *PICTURES])
    history = History.load(tmp_path / "run" / saved.HISTORY)
    assert len(history) == 20
    assert history.val_accuracy[-1] > 0.97
    accuracy, where = out.splitlines()
    assert accuracy == f"test accuracy {100 * history.val_accuracy[-1]:.2f} %, test loss {history.val_loss[-1]:.4f}"
    assert where.startswith(f"in {tmp_path / 'run'}: model.safetensors, history.json, curves.png")
    assert "digits_cnn, 1,898 parameters, on digits, 1,437 images; 2 threads" in err
    assert err.count("images/s") == 20
    for name in PICTURES:
        with Image.open(tmp_path / "run" / name) as image:
            assert min(image.size) > 200
    model, description = saved.load_model(tmp_path / "run" / saved.MODEL)
    data = load_digits()
    trainer = fastconv.Trainer(model, nn.CrossEntropyLoss(), fastconv.optim.SGD(model.parameters(), lr=1.0), progress=False)
    assert trainer.evaluate(data.x_test, data.y_test)["accuracy"] == history.val_accuracy[-1]
    assert description["classes"] == list("0123456789")
    assert cli.main(["train", "--dataset", "digits", "--output", str(tmp_path / "run")]) == 1
    assert "holds a model already: --overwrite replaces it, --resume goes on with it" in capsys.readouterr().err


def test_a_new_folder_for_every_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("digits_cnn-digits", "digits_cnn-digits-2", "digits_cnn-digits-3"):
        code, out, err = train(capsys, *QUICK)
        assert (code, err) == (0, "")
        assert f"in fastconv-output/{name}: " in out
    folders = [tmp_path / "fastconv-output" / name for name in ("digits_cnn-digits", "digits_cnn-digits-2")]
    assert weights(folders[0]) == weights(folders[1])  # same seed, same bits


def test_options_change_the_result(capsys, tmp_path):
    results = set()
    for n, words in enumerate(([], ["--seed", 1], ["--optimizer", "adam"], ["--optimizer", "rmsprop"], ["--schedule", "cosine"],
                               ["--schedule", "constant"], ["--lr", 0.01], ["--batch-size", 50])):  # fmt: skip
        assert train(capsys, *QUICK, *words, "--output", tmp_path / str(n))[0] == 0
        results.add(frozenset(weights(tmp_path / str(n)).items()))
    assert len(results) == 8
    assert train(capsys, *QUICK, "--threads", 1, "--output", tmp_path / "t")[0] == 0
    assert frozenset(weights(tmp_path / "t").items()) in results


def test_overwrite_replaces_all(capsys, tmp_path):
    assert train(capsys, *QUICK, "--output", tmp_path)[0] == 0
    before = weights(tmp_path)
    (tmp_path / "mine.txt").write_text("kept")
    (tmp_path / "mistakes.png").write_bytes(b"old")
    assert train(capsys, *QUICK, "--output", tmp_path, "--overwrite", "--seed", 5)[0] == 0
    assert weights(tmp_path) != before
    assert (tmp_path / "mine.txt").read_text() == "kept"
    assert (tmp_path / "mistakes.png").read_bytes() != b"old"


# --- going on


class StopAt:
    """Raises KeyboardInterrupt, as Ctrl-C does, in the given batch of an epoch."""

    def __init__(self, monkeypatch, epoch, batch):
        learn = Fitting._learn

        def stopping(fitting, indices, now, number):
            if (now, number) == (epoch, batch):
                fitting.interrupt.requested = True
            return learn(fitting, indices, now, number)

        monkeypatch.setattr(Fitting, "_learn", stopping)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_resumed_run_ends_in_the_bits_of_an_unbroken_one(capsys, tmp_path, monkeypatch, optimizer):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    words = ["--dataset", "digits", "--limit", 200, "--epochs", 4, "--no-progress", "--optimizer", optimizer]
    assert train(capsys, *words, "--output", whole)[0] == 0
    with monkeypatch.context() as patch:
        StopAt(patch, 3, 2)
        code, out, _ = train(capsys, *words, "--output", broken)
    assert code == 130
    assert f"interrupted in epoch 3; fastconv train --resume --output {broken} goes on" in out
    assert names(broken) == names(whole)
    history = History.load(broken / saved.HISTORY)
    assert (history.stopped, len(history), history.val_loss[2]) == ("interrupted", 3, None)
    assert weights(broken) != weights(whole)
    assert train(capsys, "--resume", "--output", broken, "--no-progress")[0] == 0
    assert weights(broken) == weights(whole)
    first, second = (History.load(folder / saved.HISTORY) for folder in (whole, broken))
    assert (first.loss, first.val_loss, first.lr, second.stopped) == (second.loss, second.val_loss, second.lr, None)


def test_more_epochs_for_a_run_that_is_done(capsys, tmp_path):
    assert train(capsys, *QUICK, "--output", tmp_path)[0] == 0
    code, _, err = train(capsys, "--resume", "--output", tmp_path)
    assert code == 1
    assert "has 2 epochs, which is all that were asked for; --epochs gives a new total" in err
    assert train(capsys, "--resume", "--output", tmp_path, "--epochs", 3, "--no-progress")[0] == 0
    assert len(History.load(tmp_path / saved.HISTORY)) == 3


def test_resume_refuses(capsys, tmp_path):
    assert "--resume needs --output" in train(capsys, "--resume")[2]
    assert "there is no training to go on with" in train(capsys, "--resume", "--output", tmp_path)[2]
    assert train(capsys, *QUICK, "--output", tmp_path)[0] == 0
    message = train(capsys, "--resume", "--output", tmp_path, "--batch-size", 7)[2]
    assert "--batch-size cannot be changed by --resume: the run has 64" in message
    state = tmp_path / saved.STATE
    whole = state.read_bytes()
    for data in (b"", whole[:200], (tmp_path / saved.MODEL).read_bytes()):
        state.write_bytes(data)
        code, _, err = train(capsys, "--resume", "--output", tmp_path, "--epochs", 3)
        assert code == 1
        assert f"{state} is not" in err


def command(*words):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return [sys.executable, "-u", "-m", "fastconv", "train", *map(str, words)], environment


def test_ctrl_c_saves_what_there_is(tmp_path):
    words, environment = command("--dataset", "digits", "--epochs", 100_000, "--schedule", "constant", "--output", tmp_path)
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("epoch 2/"):
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "interrupted in epoch" in out
    assert set(names(tmp_path)) >= {saved.MODEL, saved.HISTORY, saved.STATE, "curves.png", "confusion.png"}
    assert History.load(tmp_path / saved.HISTORY).stopped == "interrupted"
    assert saved.load_model(tmp_path / saved.MODEL)


# --- data


@pytest.fixture
def digits_npz(tmp_path):
    data = load_digits()
    path = tmp_path / "digits.npz"
    np.savez(path, x_train=data.x_train[:200], y_train=data.y_train[:200], x_test=data.x_test[:50], y_test=data.y_test[:50])
    return path


def test_train_on_npz(capsys, tmp_path, digits_npz):
    code, _, err = train(capsys, "--dataset", "npz", "--data", digits_npz, "--epochs", 2, "--output", tmp_path / "run")
    assert code == 0
    assert "digits_cnn" in err
    assert saved.load_model(tmp_path / "run" / saved.MODEL)[1]["values"] == "0 to 1"


def test_train_on_npz_without_a_test_part(capsys, tmp_path):
    x = np.random.default_rng(0).standard_normal((60, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(60) % 3)
    words = ["--dataset", "npz", "--data", tmp_path / "a.npz", "--epochs", 1, "--batch-size", 16, "--output", tmp_path / "run"]
    assert "--model must be given for images of shape (3, 8, 8)" in train(capsys, *words)[2]
    code, _, err = train(capsys, *words, "--model", "digits_cnn")
    assert code == 0
    assert "48 images" in err
    assert saved.load_model(tmp_path / "run" / saved.MODEL)[1] | {"classes": 0} == {
        "model": "digits_cnn", "dataset": "npz", "classes": 0, "shape": (3, 8, 8), "values": "as they are"}  # fmt: skip


def write_pictures(folder, count, rng):
    for name, level in (("dark", 0), ("light", 200)):
        (folder / name).mkdir(parents=True)
        for n in range(count):
            pixels = (level + rng.integers(0, 50, (9, 7, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{n}.png")


def test_train_on_a_folder_and_predict(capsys, tmp_path, rng):
    write_pictures(tmp_path / "pictures", 20, rng)
    words = ["--dataset", "folder", "--model", "digits_cnn", "--epochs", 10, "--batch-size", 8, "--no-progress"]
    code, out, _ = train(capsys, *words, "--data", tmp_path / "pictures", "--output", tmp_path / "run")
    assert code == 0
    assert out.startswith("test accuracy 100.00 %")
    assert "mistakes.png" not in out
    assert cli.main(["predict", "--json", str(tmp_path / "run" / saved.MODEL), str(tmp_path / "pictures" / "light" / "3.png")]) == 0
    assert json.loads(capsys.readouterr().out)[0]["class"] == "light"


def test_a_folder_with_its_own_test_part(capsys, tmp_path, rng):
    write_pictures(tmp_path / "train", 8, rng)
    write_pictures(tmp_path / "test", 4, rng)
    words = ["--dataset", "folder", "--model", "digits_cnn", "--epochs", 1, "--batch-size", 8, "--data", tmp_path]
    code, _, err = train(capsys, *words, "--output", tmp_path / "run")
    assert code == 0
    assert "16 images" in err
    (tmp_path / "test" / "dark").rename(tmp_path / "test" / "night")
    assert "train and test must hold the same classes" in train(capsys, *words, "--output", tmp_path / "again")[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "npz"], "--dataset npz needs --data"),
        (["--data", "a.npz"], "--data is for --dataset folder and npz, got --dataset mnist"),
        (["--dataset", "npz", "--data", "no.npz"], "there is no file no.npz"),
        (["--dataset", "folder", "--data", "no"], "there is no folder no"),
        (["--dataset", "digits", "--model", "lenet5"], "--model lenet5 takes images of 28 x 28 pixels, the data has 8 x 8"),
        (
            ["--dataset", "digits", "--batch-size", "5000"],
            "--batch-size must be at most the number of images to train with, 1437, got 5000",
        ),
        (["--threads", "4096"], "n must be from 1 to"),
    ],
)
def test_data_that_does_not_fit(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = train(capsys, *words)
    assert (code, out) == (1, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())  # not even an empty folder


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(30), "y_train must be class labels"),
        (np.arange(30) - 1, "y_train must be class labels"),
        (np.arange(30) * 1_000_000, "labels must be the classes' numbers"),
    ],
)
def test_labels_of_a_file_that_are_no_classes(capsys, tmp_path, y, message):
    np.savez(tmp_path / "a.npz", x=np.zeros((30, 1, 8, 8), np.float32), y=y)
    code, _, err = train(capsys, "--dataset", "npz", "--data", tmp_path / "a.npz", "--output", tmp_path / "run")
    assert code == 1
    assert message in err


def test_training_that_diverges(capsys, tmp_path):
    code, out, err = train(capsys, *QUICK, "--lr", 1e30, "--output", tmp_path)
    assert (code, out) == (1, "")
    assert err.startswith("fastconv: error: the loss is ")
    assert len(err.splitlines()) == 1
    assert names(tmp_path) == []


# --- folders that cannot be written


def test_an_output_folder_that_cannot_be(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        code, out, err = train(capsys, *QUICK, "--output", path)
        assert (code, out) == (1, "")
        assert f"the output folder {path} cannot be" in err
        assert len(err.splitlines()) == 1


def test_a_folder_without_permission(capsys, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied", "x")

    monkeypatch.setattr("fastconv.files.open", refuse, raising=False)  # also where tests run as root, who may write anywhere
    code, _, err = train(capsys, *QUICK, "--output", tmp_path)
    assert (code, err) == (1, f"fastconv: error: the output folder {tmp_path} cannot be written to: Permission denied\n")
    assert names(tmp_path) == []


def test_a_disk_that_is_nearly_full(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("fastconv.files.shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    code, _, err = train(capsys, *QUICK, "--output", tmp_path)
    assert code == 1
    assert f"the output folder {tmp_path} has 0.0 MB left, 2.0 MB are needed" in err
    assert names(tmp_path) == []


def test_a_disk_that_fills_up_leaves_nothing_half_written(tmp_path):
    resource = pytest.importorskip("resource")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))  # the model fits, the state of the training does not

    words, environment = command(*QUICK, "--output", tmp_path)
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=limit) as process:
        out, err = process.communicate(timeout=600)
    assert (process.returncode, out) == (1, "")
    assert err.splitlines()[-1] == f"fastconv: error: {tmp_path / saved.STATE}: File too large"
    assert names(tmp_path) == []
