"""The data sets that `fastconv train` offers, in one form."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastconv import models
from fastconv.datasets import Split, load_digits, load_image_folder, load_mnist, load_npz
from fastconv.datasets.arrays import held_out
from fastconv.errors import ArgumentError, FileFormatError

DATASETS = ("mnist", "digits", "folder", "npz")
NETWORKS = tuple(name for name in models.INPUT_SHAPES if name != "lecture")
ANY_SIZE = ("resnet20", "resnet18", "mobilenet")  # they end in an average over the image
DEFAULT_NETWORK = {"mnist": "lenet5", "digits": "digits_cnn", "folder": "resnet20"}
TEST_SHARE = 0.2
DIGITS = tuple("0123456789")


class Data(NamedTuple):
    """Images to train and to test with.

    Attributes
    ----------
    split : Split
    class_names : tuple of str
    unit : bool
        Whether the network is given values from 0 to 1 (uint8 images count, the Trainer divides them).
    """

    split: Split
    class_names: tuple
    unit: bool


def load(dataset, path, network, seed, limit=None):
    """The Data that the options of `fastconv train` ask for, and the name of the network to train on it."""
    if (path is not None) != (dataset in ("folder", "npz")):
        raise ArgumentError(
            f"--data is for --dataset folder and npz, got --dataset {dataset}" if path else f"--dataset {dataset} needs --data"
        )
    network = network or DEFAULT_NETWORK.get(dataset)
    if dataset == "mnist":
        data = Data(load_mnist(dtype=np.uint8), DIGITS, True)
    elif dataset == "digits":
        data = Data(load_digits(), DIGITS, True)
    elif dataset == "folder":
        data = _folder(Path(path), network, seed)
    else:
        data = _npz(path, seed)
        network = network or _network_for(data.split.x_train.shape)
    _check_size(network, data.split.x_train.shape)
    if limit is not None:
        x_train, y_train, x_test, y_test = data.split
        data = data._replace(split=Split(x_train[:limit], y_train[:limit], x_test[:limit], y_test[:limit]))
    return data, network


def _folder(path, network, seed):
    """A folder of classes, or one with the two folders train and test of classes."""
    channels, *size = models.INPUT_SHAPES[network]
    options = {"size": tuple(size), "grayscale": channels == 1, "dtype": np.uint8}
    if (path / "train").is_dir() and (path / "test").is_dir():
        train, test = (load_image_folder(path / part, **options) for part in ("train", "test"))
        if train.class_names != test.class_names:
            raise FileFormatError(
                f"{path}: train and test must hold the same classes, got {', '.join(train.class_names)} and {', '.join(test.class_names)}"
            )
        return Data(Split(train.x, train.y, test.x, test.y), train.class_names, True)
    everything = load_image_folder(path, **options)
    return Data(held_out(everything.x, everything.y, TEST_SHARE, seed), everything.class_names, True)


def _npz(path, seed):
    split = load_npz(path)
    for name in ("y_train", "y_test"):
        labels = getattr(split, name)
        if labels.ndim != 1 or labels.dtype.kind != "i" or labels.min(initial=0) < 0:
            raise FileFormatError(
                f"{path}: {name} must be class labels, integers from 0, of shape (N,), got {labels.dtype} of shape {labels.shape}"
            )
    if not len(split.x_test):
        split = held_out(split.x_train, split.y_train, TEST_SHARE, seed)
    classes = int(max(split.y_train.max(initial=0), split.y_test.max(initial=0))) + 1
    if classes > 100_000:
        raise FileFormatError(f"{path}: labels must be the classes' numbers, got one of {classes - 1}")
    unit = split.x_train.dtype == np.uint8 or bool(split.x_train.min() >= 0 and split.x_train.max() <= 1)
    return Data(split, tuple(map(str, range(classes))), unit)


def _network_for(shape):
    """The first network made for images of this shape (N, C, H, W)."""
    for name in NETWORKS:
        if models.INPUT_SHAPES[name] == shape[1:]:
            return name
    raise ArgumentError(f"--model must be given for images of shape {shape[1:]}: one of {', '.join(ANY_SIZE)} takes any size")


def _check_size(network, shape):
    wanted = models.INPUT_SHAPES[network][1:]
    if shape[2:] != wanted and network not in ANY_SIZE:
        raise ArgumentError(
            f"--model {network} takes images of {wanted[0]} x {wanted[1]} pixels, the data has {shape[2]} x {shape[3]}; "
            f"{', '.join(ANY_SIZE)} take any size"
        )
