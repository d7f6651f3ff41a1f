"""Arrays of images and labels: the tuple that every loader returns, and the reader of the user's own `.npz` files."""

import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastconv.errors import ArgumentError, ArgumentTypeError, FileFormatError


class Split(NamedTuple):
    """Images and labels to train with, and others to test with.

    Attributes
    ----------
    x_train, x_test : ndarray, shape (N, C, H, W)
        Images, float32 unless another dtype was asked for.
    y_train, y_test : ndarray of int64, shape (N,)
        Labels. Of a user's own file they may have any dtype and shape.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def scaled(images, peak, dtype):
    """Integer images of 0 to `peak` as `dtype`: of 0 to 1 when that is a float type, as they are when it is uint8."""
    dtype = np.dtype(dtype)
    if dtype == np.uint8 and peak == 255:
        return images
    if dtype not in (np.float32, np.float64):
        wanted = "float32, float64 or uint8" if peak == 255 else "float32 or float64"
        raise ArgumentTypeError(f"dtype must be {wanted}, got {dtype}")
    return np.multiply(images, dtype.type(1 / peak), dtype=dtype)


def load_npz(path):
    """Read images and labels of a `.npz` file that `numpy.savez` wrote.

    Parameters
    ----------
    path : str or path-like
        A file with the arrays ``x_train``, ``y_train``, ``x_test`` and ``y_test``; or with ``x`` and ``y`` alone, then the
        test part is empty. Images are (N, C, H, W), or (N, H, W) for one channel, of dtype uint8, float32 or float64.

    Returns
    -------
    Split
        Images (N, C, H, W) of the file's dtype and labels as they are, but integers as int64.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    FileFormatError
        When it is no such file, or lengths, ranks or dtypes do not fit. Pickled objects are refused.
    """
    path = Path(path)
    arrays = _read(path)
    if {"x", "y"} <= arrays.keys():
        x, y = np.atleast_1d(arrays["x"]), np.atleast_1d(arrays["y"])
        parts = {"x_train": x, "y_train": y, "x_test": x[:0], "y_test": y[:0]}
    else:
        missing = [name for name in Split._fields if name not in arrays]
        if missing:
            raise FileFormatError(
                f"{path} must hold the arrays x_train, y_train, x_test and y_test (or x and y); it lacks {', '.join(missing)} "
                f"and holds {', '.join(arrays) or 'nothing'}"
            )
        parts = {name: arrays[name] for name in Split._fields}
    for part in ("train", "test"):
        x, y = f"x_{part}", f"y_{part}"
        parts[x] = _images(f"{path}: {x}", parts[x])
        parts[y] = parts[y].astype(np.int64) if parts[y].dtype.kind in "iub" else parts[y]
        if parts[y].ndim == 0 or len(parts[x]) != len(parts[y]):
            raise FileFormatError(f"{path}: {x} and {y} must be equally long, got shapes {parts[x].shape} and {parts[y].shape}")
    if parts["x_train"].shape[1:] != parts["x_test"].shape[1:]:
        raise FileFormatError(
            f"{path}: x_train and x_test must hold images of one size, got shapes {parts['x_train'].shape} and {parts['x_test'].shape}"
        )
    return Split(**parts)


def _read(path):
    """Every array of a `.npz` file, by name."""
    try:
        with open(path, "rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise FileFormatError(f"{path} must be a .npz file, which holds several named arrays; it holds one array")
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{path} is no readable .npz file: {error}") from None
    return {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}  # members that are no arrays come as bytes


def _images(name, x):
    """`x` as (N, C, H, W) of a dtype that training takes."""
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim != 4:
        raise FileFormatError(f"{name} must be images (N, C, H, W) or (N, H, W), got shape {x.shape}")
    if x.dtype not in (np.uint8, np.float32, np.float64):
        raise FileFormatError(f"{name} must be uint8, float32 or float64, got {x.dtype}")
    return x


def held_out(x, y, share, seed):
    """Cut images and labels into a Split at random: `share` of them, at least one, are to test with.

    Parameters
    ----------
    x, y : ndarray
        Equally long.
    share : float
        Above 0 and below 1.
    seed : int
        The same seed gives the same cut.
    """
    if not 0 < share < 1:
        raise ArgumentError(f"share must be above 0 and below 1, got {share}")
    if len(x) < 2:
        raise ArgumentError(f"two images at least are needed to hold some out for testing, got {len(x)}")
    order = np.random.default_rng(seed).permutation(len(x))
    tests = min(max(1, round(share * len(x))), len(x) - 1)
    test, train = np.sort(order[:tests]), np.sort(order[tests:])
    return Split(x[train], y[train], x[test], y[test])
