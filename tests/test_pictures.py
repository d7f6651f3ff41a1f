"""The pictures of a run: they exist, are as large as they should be, and show what they are given."""

import numpy as np
import pytest
from PIL import Image

from fastconv import pictures
from fastconv.errors import ArgumentError
from fastconv.trainer import History

NAMES = tuple("0123456789")


def history(epochs, accuracy=True, validation=True):
    h = History()
    for epoch in range(epochs):
        values = {"loss": 1 / (epoch + 1)} | ({"accuracy": 1 - 0.5**epoch} if accuracy else {})
        h.append(**values, **({f"val_{name}": value for name, value in values.items()} if validation else {}))
    return h


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def share_of(picture, colour):
    """The share of pixels that have nearly this colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return (np.abs(picture - wanted).max(axis=2) < 12).mean()


@pytest.mark.parametrize("epochs", [1, 3, 60])
def test_curves_of_training_and_validation(tmp_path, epochs):
    pictures.draw_curves(history(epochs), tmp_path / "curves.png")
    picture = pixels(tmp_path / "curves.png")
    assert picture.shape[0] > 400
    assert picture.shape[1] > 2 * picture.shape[0]
    for half in np.array_split(picture, 2, axis=1):
        assert share_of(half, pictures.VALIDATION) > 1e-4
        assert share_of(half, pictures.TRAINING) > 1e-4
        assert share_of(half, "#ffffff") > 0.8


def test_curves_without_accuracy_or_validation_or_with_gaps(tmp_path):
    h = history(3, accuracy=False, validation=False)
    h.loss[1] = float("nan")
    pictures.draw_curves(h, tmp_path / "curves.png")
    picture = pixels(tmp_path / "curves.png")
    assert picture.shape[1] < 1.6 * picture.shape[0]
    assert share_of(picture, pictures.VALIDATION) == 0
    with pytest.raises(ArgumentError, match="an epoch at least"):
        pictures.draw_curves(History(), tmp_path / "none.png")
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]


def test_confusion_counts():
    counts = pictures.confusion_matrix(np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 0, 0]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [2, 0, 0]]


def test_the_diagonal_of_the_confusion_stands_out(tmp_path):
    labels = np.repeat(np.arange(10), 50)
    pictures.draw_confusion(labels, labels, NAMES, tmp_path / "right.png")
    pictures.draw_confusion(labels, (labels + 1) % 10, NAMES, tmp_path / "wrong.png")
    right, wrong = pixels(tmp_path / "right.png"), pixels(tmp_path / "wrong.png")
    assert right.shape == wrong.shape
    assert min(right.shape[:2]) > 800
    assert 0.05 < share_of(right, pictures.TRAINING) < 0.1
    orange = (wrong[..., 0] > 200) & (wrong[..., 1] < 170) & (wrong[..., 2] < 120)
    assert 0.03 < orange.mean() < 0.1


@pytest.mark.parametrize(
    "names", [("猫", "a$b$", "dog"), tuple(f"a rather long class name {i}" for i in range(40)), tuple(map(str, range(100)))]
)
def test_class_names_of_any_kind(tmp_path, names):
    labels = np.arange(len(names))
    pictures.draw_confusion(labels, labels, names, tmp_path / "confusion.png")
    assert max(pixels(tmp_path / "confusion.png").shape) < 2500


@pytest.mark.parametrize("shape", [(6, 1, 5, 5), (64, 3, 3, 3), (1, 1, 3, 3), (512, 16, 3, 3), (4, 3, 1, 1)])
def test_filters(tmp_path, rng, shape):
    pictures.draw_filters(rng.standard_normal(shape).astype(np.float32), tmp_path / "filters.png")
    picture = pixels(tmp_path / "filters.png")
    assert 200 < picture.shape[0] < 2500
    assert 400 < picture.shape[1] < 2500
    assert share_of(picture, "#ffffff") < 0.85


def test_filters_that_are_all_zero(tmp_path):
    pictures.draw_filters(np.zeros((2, 1, 3, 3), np.float32), tmp_path / "filters.png")
    assert pixels(tmp_path / "filters.png").size


def test_mistakes_are_the_confident_ones(tmp_path, rng):
    images = rng.random((50, 1, 8, 8), np.float32)
    probabilities = rng.dirichlet(np.ones(10), 50)
    labels = probabilities.argmax(axis=1)
    assert not pictures.draw_mistakes(images, labels, probabilities, NAMES, tmp_path / "none.png")
    assert not list(tmp_path.iterdir())
    labels[:9] = (labels[:9] + 1) % 10
    assert pictures.draw_mistakes(images, labels, probabilities, NAMES, tmp_path / "mistakes.png")
    assert pixels(tmp_path / "mistakes.png").shape[1] > 1200
    colours = rng.random((50, 3, 8, 8), np.float32)
    assert pictures.draw_mistakes(colours, labels, probabilities, NAMES, tmp_path / "mistakes.png", most=4)


def test_drawing_leaves_matplotlib_as_it_was(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    pictures.draw_curves(history(2), tmp_path / "curves.png")
    assert dict(matplotlib.rcParams) == before
