"""The command line as a whole, and every command but train."""

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fastconv
from fastconv import cli, models
from fastconv.commands import saved
from fastconv.commands.console import CompileNotice, table
from fastconv.commands.data import DIGITS, Data
from fastconv.datasets import load_digits
from fastconv.kernels import jit

ROOT = Path(fastconv.__file__).parents[1]


def run(capsys, *words):
    """(exit code, standard output, standard error) of a command."""
    code = cli.main([str(word) for word in words])
    return (code, *capsys.readouterr())


# --- usage


@pytest.mark.parametrize("words", [["--help"], ["--version"], *([name, "--help"] for name in cli.COMMANDS)])
def test_help_and_version(capsys, words):
    code, out, err = run(capsys, *words)
    assert (code, err) == (0, "")
    assert out.strip()


def test_the_version_is_the_packages(capsys):
    assert run(capsys, "--version")[1] == f"fastconv {fastconv.__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "usage: fastconv"),
        (["fly"], "invalid choice: 'fly'"),
        (["info", "--loud"], "unrecognized arguments: --loud"),
        (["train", "--epoch", "3"], "unrecognized arguments"),  # no abbreviations: a later option must not change a script's meaning
        (["train", "--epochs", "0"], "--epochs: must be at least 1, got 0"),
        (["train", "--epochs", "many"], "--epochs: must be an integer, got 'many'"),
        (["train", "--lr", "nan"], "--lr: must be above 0, got nan"),
        (["train", "--seed", "-1"], "--seed: must be at least 0"),
        (["train", "--model", "lenet6"], "invalid choice: 'lenet6'"),
        (["train", "--dataset", "cifar"], "invalid choice: 'cifar'"),
        (["predict"], "MODEL.safetensors, IMAGE"),
        (["explain", "--target", "2"], "invalid choice: 2"),
        (["explain", "--eta", "0"], "--eta: must be above 0"),
        (["explain", "--seed", "-1"], "--seed: must be at least 0"),
        (["bench", "--seconds", "0"], "--seconds: must be above 0"),
        (["warm-up", "lenet6"], "invalid choice: 'lenet6'"),
    ],
)
def test_wrong_usage_is_2(capsys, words, message):
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert message in err


def test_an_error_is_one_line_unless_a_traceback_is_wanted(capsys):
    code, out, err = run(capsys, "predict", "no.safetensors", "no.png")
    assert (code, out, err) == (1, "", "fastconv: error: there is no file no.safetensors\n")
    code, out, err = run(capsys, "predict", "--traceback", "no.safetensors", "no.png")
    assert code == 1
    assert err.startswith("Traceback")
    assert err.endswith("FileNotFoundError: there is no file no.safetensors\n")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError("8 GB"), 1, "error: not enough memory: 8 GB"),
        (PermissionError(13, "Permission denied", "/somewhere/x"), 1, "error: /somewhere/x: Permission denied"),
        (ZeroDivisionError("by zero"), 1, "error: unexpected ZeroDivisionError: by zero (--traceback shows where)"),
    ],
)
def test_exit_codes(capsys, monkeypatch, error, code, message):
    def fail(options):
        raise error

    from fastconv.commands import info

    monkeypatch.setattr(info, "run", fail)
    assert run(capsys, "info") == (code, "", f"fastconv: {message}\n")


def test_a_warning_is_one_line(capsys, monkeypatch):
    def warn(options):
        warnings.simplefilter("always")
        warnings.warn("no cache", RuntimeWarning, stacklevel=1)
        return 0

    from fastconv.commands import info

    monkeypatch.setattr(info, "run", warn)
    assert run(capsys, "info") == (0, "", "fastconv: warning: no cache\n")


def process(*words, **options):
    """A finished `python -m fastconv`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run([sys.executable, "-m", "fastconv", *map(str, words)], env=environment, text=True, check=False, **options)


def test_the_module_is_the_command():
    result = process("--version", capture_output=True)
    assert (result.returncode, result.stdout) == (0, f"fastconv {fastconv.__version__}\n")
    assert process("info", "--loud", capture_output=True).returncode == 2


def test_a_reader_that_leaves_is_no_error():
    read, write = os.pipe()
    os.close(read)
    try:
        result = process("--traceback", stdout=write, stderr=subprocess.PIPE)
        assert result.returncode == 2
        result = process("explain", stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)
    assert (result.returncode, result.stderr) == (1, "")


# --- info, explain, bench, warm-up


def test_info(capsys):
    code, out, _ = run(capsys, "info")
    assert code == 0
    for word in (np.__version__, jit.threading_layer(), str(jit.cache_root()), "float32 numbers at once"):
        assert word in out
    assert ("AMX, for large convolutions" in out) == fastconv.get_amx()
    for name in models.INPUT_SHAPES:
        assert re.search(rf"^{name} .* {models.create(name, seed=0).num_parameters():,}$", out, re.MULTILINE)


def test_info_counts_the_cache(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("FASTCONV_CACHE_DIR", str(tmp_path))
    assert "0 kernels, 0.0 MB" in run(capsys, "info")[1]
    folder = tmp_path / "fastconv" / "abc"
    folder.mkdir(parents=True)
    (folder / "a.bin").write_bytes(bytes(1_500_000))
    assert "1 kernels, 1.5 MB" in run(capsys, "info")[1]


def test_explain(capsys, tmp_path):
    code, out, _ = run(capsys, "explain")
    assert code == 0
    assert "Y = 0" in out
    assert float(re.search(r"largest relative error is (\S+)\.", out)[1]) < 1e-7
    assert run(capsys, "explain")[1] == out
    assert run(capsys, "explain", "--seed", 1)[1] != out
    assert "eta = 0.25" in run(capsys, "explain", "--eta", 0.25)[1]
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "a.png")
    code, out, _ = run(capsys, "explain", "--image", tmp_path / "a.png", "--target", 1)
    assert code == 0
    assert f"X is {tmp_path / 'a.png'}; Y = 1" in out


@pytest.mark.parametrize(("image", "message"), [("360", "from 0 to 359"), ("no.png", "there is no file no.png")])
def test_explain_refuses(capsys, image, message):
    code, out, err = run(capsys, "explain", "--image", image)
    assert (code, out) == (1, "")
    assert message in err


def test_bench(capsys):
    code, out, _ = run(capsys, "bench", "--model", "digits_cnn", "--model", "lecture", "--seconds", 0.01, "--batch-size", 4)
    assert code == 0
    heading, *rows = out.splitlines()[1:]
    assert heading.split() == ["work", "ms", "GFLOP/s", "images/s"]
    assert [row.split(",")[0] for row in rows] == ["training step of digits_cnn", "training step of lecture"]
    code, out, _ = run(capsys, "bench", "--model", "digits_cnn", "--seconds", 0.01, "--batch-size", 4, "--threads", 1, "--json")
    (result,) = json.loads(out)["results"]
    assert result["images_per_second"] == pytest.approx(4 / result["ms"] * 1e3)


def test_bench_measures_convolutions(monkeypatch):
    from fastconv.commands import bench

    monkeypatch.setattr(bench, "CONVOLUTIONS", [("conv", (2, 4, 8, 8), (8, 4, 3, 3), {"padding": 1})])
    results = list(bench._convolutions(0.01))
    assert [r["work"] for r in results] == ["conv: forward", "conv: gradient of the input", "conv: gradient of the weight"]
    for r in results:
        assert r["gflops"] == pytest.approx(2 * 2 * 8 * 8 * 8 * 4 * 9 / r["ms"] / 1e6)


def test_warm_up(capsys):
    code, out, _ = run(capsys, "warm-up", "digits_cnn", "--batch-size", 8)
    assert code == 0
    assert out.startswith("digits_cnn: ready after ")
    assert str(jit.cache_folder()) in out
    assert fastconv.warm_up("digits_cnn", batch_size=8) > 0
    assert fastconv.warm_up(["lecture", "digits_cnn"], batch_size=8, optimizer="adam") > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lenet6",), "name must be one of"),
        ((3,), "models must be"),
        (([models.lecture],), "models must be"),
        (("lecture", 0), "batch_size"),
        (("lecture", 8, "adagrad"), "optimizer"),
    ],
)
def test_warm_up_refuses(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fastconv.warm_up(*arguments)


def test_the_notice_of_compilation(capsys):
    with CompileNotice():
        pass
    assert capsys.readouterr().err == ""
    with CompileNotice():
        for listener in jit.compile_listeners:
            listener("conv.forward")
            listener("conv.backward")
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("compiling kernels for this processor, once")
    assert second == "compiled 2 kernels"
    with CompileNotice(quiet=True):
        jit.compile_listeners[-1]("conv.forward")
    assert capsys.readouterr().err == ""
    assert not any(isinstance(getattr(listener, "__self__", None), CompileNotice) for listener in jit.compile_listeners)


def test_tables():
    assert list(table([("a", "number"), ("long", "1"), ("b", "22")], right=(1,))) == ["a     number", "long       1", "b         22"]


# --- predict


@pytest.fixture(scope="module")
def digits_model(tmp_path_factory):
    """A file with a network that tells digits apart a little, and what it says of ten images."""
    from fastconv import nn, optim

    data = load_digits()
    model = models.digits_cnn(seed=0)
    trainer = fastconv.Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=0.01), progress=False)
    trainer.fit(data.x_train, data.y_train, epochs=5, batch_size=64)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    saved.save_model(path, model, "digits_cnn", "digits", Data(data, DIGITS, True))
    scores = trainer.predict(data.x_test[:10])
    assert (scores.argmax(axis=1) == data.y_test[:10]).sum() >= 8
    return path, data.x_test[:10], scores


def write_digit(path, image, **options):
    Image.fromarray((image[0] * 255).round().astype(np.uint8)).save(path, **options)
    return path


def test_predict_pictures_and_arrays_alike(capsys, tmp_path, digits_model):
    path, images, scores = digits_model
    files = [write_digit(tmp_path / f"{n}.png", image) for n, image in enumerate(images)]
    np.save(tmp_path / "all.npy", images)
    np.save(tmp_path / "one.npy", images[0, 0])
    np.save(tmp_path / "three.npy", images[:3, 0])
    np.save(tmp_path / "bytes.npy", (images[:1] * 255).round().astype(np.uint8))
    names = [tmp_path / f"{name}.npy" for name in ("all", "one", "three", "bytes")]
    code, out, err = run(capsys, "predict", "--json", path, *files, *names)
    assert (code, err) == (0, "")
    results = json.loads(out)
    expected = [*range(10), *range(10), 0, 0, 1, 2, 0]
    assert [r["class"] for r in results] == [str(scores[i].argmax()) for i in expected]
    for result, index in zip(results, expected, strict=True):
        probabilities = np.exp(scores[index]) / np.exp(scores[index]).sum()
        np.testing.assert_allclose(list(result["probabilities"].values()), probabilities, atol=0.01)
        assert result["probability"] == max(result["probabilities"].values())
    assert results[10]["file"] == f"{tmp_path / 'all.npy'}[0]"
    assert results[20]["file"] == str(tmp_path / "one.npy")


def test_predict_prints_a_table(capsys, tmp_path, digits_model):
    path, images, scores = digits_model
    file = write_digit(tmp_path / "a.jpg", images[0], quality=100)
    _, out, _ = run(capsys, "predict", path, file, "--top", 2)
    heading, row = out.splitlines()
    assert heading.split() == ["image", "class", "probability", "then"]
    assert re.fullmatch(rf"{re.escape(str(file))}  {scores[0].argmax()} +\d+\.\d\d %  \d \d+\.\d\d %", row)


def test_predict_inverts_pictures(capsys, tmp_path, digits_model):
    path, images, _ = digits_model
    dark, light = write_digit(tmp_path / "dark.png", images[0]), write_digit(tmp_path / "light.png", 1 - images[0])
    first = json.loads(run(capsys, "predict", "--json", path, dark)[1])[0]["probabilities"]
    second = json.loads(run(capsys, "predict", "--json", "--invert", path, light)[1])[0]["probabilities"]
    assert first == pytest.approx(second, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", b"not a picture", "a.png is no picture that can be read"),
        ("a.npy", b"not an array", "a.npy is no readable .npy file"),
        ("a.npy", np.zeros((1, 1, 9, 9)), r"a.npy must hold images of shape (1, 8, 8), got (1, 9, 9)"),
        ("a.npy", np.zeros((8, 8), np.int64), "uint8, float32 or float64"),
        ("a.npy", np.zeros(8), "(H, W), (C, H, W) or (N, C, H, W)"),
        ("a.npy", np.array([{}], object), "no readable"),
        ("a.npy", np.zeros((0, 1, 8, 8)), "holds no image"),
        ("a.npy", None, "there is no file"),
    ],
)
def test_predict_refuses_images(capsys, tmp_path, digits_model, name, content, message):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    code, out, err = run(capsys, "predict", digits_model[0], path)
    assert (code, out) == (1, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_predict_refuses_models(capsys, tmp_path, digits_model):
    image = write_digit(tmp_path / "a.png", digits_model[1][0])
    whole = digits_model[0].read_bytes()
    broken = tmp_path / "broken.safetensors"
    for data in (b"", whole[:100], whole[:-1], b"\xff" * 64, whole.replace(b"digits_cnn", b"lenet5_cnn")):
        broken.write_bytes(data)
        code, out, err = run(capsys, "predict", broken, image)
        assert (code, out) == (1, "")
        assert err.startswith(f"fastconv: error: {broken} ")
        assert len(err.splitlines()) == 1
    fastconv.save(models.digits_cnn(seed=0).state_dict(), broken)
    assert "the description that fastconv train adds" in run(capsys, "predict", broken, image)[2]
    fastconv.save(models.lenet5(seed=0).state_dict(), broken, fastconv.load_metadata(digits_model[0]))
    assert "does not hold the network digits_cnn" in run(capsys, "predict", broken, image)[2]
    assert "is a folder" in run(capsys, "predict", tmp_path, image)[2]


def test_pictures_for_a_model_of_other_values(capsys, tmp_path, digits_model):
    image = write_digit(tmp_path / "a.png", digits_model[1][0])
    path = tmp_path / "m.safetensors"
    saved.save_model(path, models.digits_cnn(seed=0), "digits_cnn", "npz", Data(load_digits(), DIGITS, False))
    assert "trained on arrays of other values: give a .npy file" in run(capsys, "predict", path, image)[2]
