"""The data sets that ship with fastconv. Credits and licences stand in README.md beside this file."""

import functools
import io
import zipfile
import zlib
from pathlib import Path

import numpy as np

from fastconv.datasets.arrays import Split, scaled
from fastconv.errors import ArgumentTypeError, FileFormatError

DIGITS_TEST_IMAGES = 360


def load_digits(*, dtype=np.float32, standardize=False):
    """Handwritten digits of 8 x 8 pixels: 1,437 to train with, 360 to test with.

    Parameters
    ----------
    dtype : dtype
        float32 or float64.
    standardize : bool
        Give the images mean 0 and deviation 1 (those of the training images) instead of values from 0 to 1.

    Returns
    -------
    Split
        ``x_train, y_train, x_test, y_test``: images (N, 1, 8, 8), labels int64 (N,). The arrays are shared by all callers and
        read-only.

    Raises
    ------
    ArgumentTypeError
        When `dtype` is another.

    Notes
    -----
    The test images are the first 360 of one fixed permutation, so they are the same everywhere, always.

    References
    ----------
    Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits (the test part), UCI Machine Learning Repository. CC BY 4.0.

    Examples
    --------
    >>> from fastconv.datasets import load_digits
    >>> load_digits().x_train.shape
    (1437, 1, 8, 8)
    """
    return _load("digits", np.dtype(dtype), bool(standardize))


def load_mnist(*, dtype=np.float32, standardize=False):
    """MNIST, handwritten digits of 28 x 28 pixels: 60,000 to train with, 10,000 to test with.

    Parameters
    ----------
    dtype : dtype
        float32, float64, or uint8 for the images as they are, from 0 to 255: a quarter of the memory, and `Trainer` takes them.
    standardize : bool
        Give the images mean 0 and deviation 1 (those of the training images: .1307 and .3081 of values from 0 to 1) instead of
        values from 0 to 1.

    Returns
    -------
    Split
        ``x_train, y_train, x_test, y_test``: images (N, 1, 28, 28), labels int64 (N,). The arrays are shared by all callers and
        read-only.

    Raises
    ------
    ArgumentTypeError
        When `dtype` is another, or uint8 and standardized.

    References
    ----------
    LeCun, Cortes and Burges, The MNIST database of handwritten digits. CC BY-SA 3.0.
    """
    return _load("mnist", np.dtype(dtype), bool(standardize))


@functools.lru_cache(maxsize=8)
def _load(name, dtype, standardize):
    stored, peak = _stored(name)
    if standardize and dtype.kind == "u":
        raise ArgumentTypeError(f"dtype must be float32 or float64 with standardize=True, got {dtype}")
    x_train, x_test = (scaled(x, peak, dtype) for x in (stored.x_train, stored.x_test))
    if standardize:
        mean, deviation = _moments(stored.x_train)
        for x in (x_train, x_test):
            np.subtract(x, dtype.type(mean / peak), out=x)
            np.multiply(x, dtype.type(peak / deviation), out=x)
    for x in (x_train, x_test):
        x.flags.writeable = False
    return Split(x_train, stored.y_train, x_test, stored.y_test)


def _moments(images):
    """Mean and deviation of uint8 images. Block by block: numpy.std would make a float64 copy of everything, 376 MB of MNIST."""
    total = squares = 0.0
    for start in range(0, len(images), 1000):
        block = images[start : start + 1000].astype(np.float64).ravel()
        total += block.sum()  # exact, as are the squares: integers below 2**53
        squares += np.dot(block, block)
    mean = total / images.size
    return mean, np.sqrt(squares / images.size - mean * mean)


@functools.cache
def _stored(name):
    """The images as stored, as a Split of uint8 images, and their largest value."""
    arrays = _read(Path(__file__).with_name(f"{name}.npz"))
    if name == "mnist":
        parts, peak = [arrays[k] for k in ("train_images", "train_labels", "test_images", "test_labels")], 255
    else:
        # RandomState's stream is frozen for ever (NEP 19), which default_rng's is not
        order = np.random.RandomState(0).permutation(len(arrays["labels"]))
        test, train = np.sort(order[:DIGITS_TEST_IMAGES]), np.sort(order[DIGITS_TEST_IMAGES:])
        parts, peak = [arrays[k][part] for part in (train, test) for k in ("images", "labels")], 16
    x_train, y_train, x_test, y_test = parts
    split = Split(x_train[:, None], y_train.astype(np.int64), x_test[:, None], y_test.astype(np.int64))
    for array in split:
        array.flags.writeable = False
    return split, peak


def _read(path):
    """Every array of an embedded file. One inflation a member: numpy.load, which inflates in pieces, takes 0.3 s for MNIST, this 0.2."""
    arrays = {}
    try:
        with zipfile.ZipFile(path) as file:
            for member in file.namelist():
                data = file.read(member)
                header = io.BytesIO(data)
                np.lib.format.read_magic(header)
                shape, _, dtype = np.lib.format.read_array_header_1_0(header)
                arrays[member.removesuffix(".npy")] = np.frombuffer(data, dtype, offset=header.tell()).reshape(shape)
    except FileNotFoundError:
        raise FileNotFoundError(f"fastconv's own data file {path} is missing: reinstall fastconv") from None
    except (zipfile.BadZipFile, zlib.error, ValueError) as error:
        raise FileFormatError(f"fastconv's own data file {path} is damaged ({error}): reinstall fastconv") from None
    return arrays
