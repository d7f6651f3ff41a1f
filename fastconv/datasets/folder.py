"""Pictures from files: one picture, or a folder with a folder of pictures for each class."""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastconv.datasets.arrays import scaled
from fastconv.errors import ArgumentTypeError, FastconvError, FileFormatError
from fastconv.shapes import pair

SUFFIXES = (".png", ".jpg", ".jpeg")


class ImageFolder(NamedTuple):
    """Images of a folder with their labels.

    Attributes
    ----------
    x : ndarray, shape (N, C, H, W)
        The images.
    y : ndarray of int64, shape (N,)
        Their classes: indices into `class_names`.
    class_names : tuple of str
        The names of the folders, sorted.
    """

    x: np.ndarray
    y: np.ndarray
    class_names: tuple[str, ...]


def load_image_folder(path, size=None, grayscale=False, *, dtype=np.float32):
    """Read PNG and JPEG pictures from a folder that has a folder for each class.

    Parameters
    ----------
    path : str or path-like
        A folder such as ``pets`` with ``pets/cat/1.jpg``, ``pets/dog/7.png``, ... Other files, and names that begin with a dot,
        are passed over.
    size : int or (height, width), optional
        Every picture is resized to it. Without it all must have one size.
    grayscale : bool
        One channel instead of red, green and blue.
    dtype : dtype
        float32 or float64: values from 0 to 1; or uint8: values from 0 to 255, which `Trainer` takes.

    Returns
    -------
    ImageFolder
        ``x, y, class_names``: images (N, C, H, W) in the order of their paths.

    Raises
    ------
    FileNotFoundError
        When there is no such folder.
    FileFormatError
        When it has no pictures, when one cannot be read, or when sizes differ and `size` is not given.
    """
    path = Path(path)
    dtype = np.dtype(dtype)
    size = None if size is None else pair("size", size, 1)
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    folders = sorted(f for f in path.iterdir() if f.is_dir() and not f.name.startswith("."))
    files = [(label, f) for label, folder in enumerate(folders) for f in sorted(folder.rglob("*")) if _is_picture(f)]
    if not files:
        raise FileFormatError(f"{path} must hold a folder for each class with PNG or JPEG pictures in it; it holds none")
    empty = set(range(len(folders))) - {label for label, _ in files}
    if empty:
        raise FileFormatError(f"{path}: no PNG or JPEG picture of the class {', '.join(folders[label].name for label in sorted(empty))}")
    first = read_image(files[0][1], size, grayscale, dtype=np.uint8)
    pixels = np.empty((len(files), *first.shape[1:], first.shape[0]), np.uint8)
    for position, (_, file) in enumerate(files):
        image = read_image(file, size, grayscale, dtype=np.uint8)
        if image.shape != first.shape:
            raise FileFormatError(
                f"{file} has {image.shape[1]} x {image.shape[2]} pixels, {files[0][1]} has {first.shape[1]} x {first.shape[2]}: "
                "give a size, to which all are resized"
            )
        pixels[position] = image.transpose(1, 2, 0)
    labels = np.array([label for label, _ in files], np.int64)
    return ImageFolder(scaled(pixels, 255, dtype).transpose(0, 3, 1, 2), labels, tuple(folder.name for folder in folders))


def _is_picture(file):
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()


def read_image(path, size=None, grayscale=False, *, dtype=np.float32):
    """Read one picture as an array (C, H, W).

    Parameters
    ----------
    path : str or path-like
        A PNG or JPEG file (or whatever else Pillow reads).
    size : int or (height, width), optional
        What the picture is resized to.
    grayscale : bool
        One channel instead of red, green and blue.
    dtype : dtype
        float32 or float64: values from 0 to 1; or uint8: values from 0 to 255.

    Returns
    -------
    ndarray, shape (C, H, W)

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    FileFormatError
        When it is no picture that can be read.

    Notes
    -----
    The camera's orientation is applied; what is transparent becomes white; 16 bits a pixel become 8.
    """
    size = None if size is None else pair("size", size, 1)
    pillow = _pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of large pictures; it raises for harmful ones
            with pillow.open(path) as picture:
                picture = _plain(pillow, picture, "L" if grayscale else "RGB")
                if size is not None and picture.size != (size[1], size[0]):
                    picture = picture.resize((size[1], size[0]), pillow.Resampling.BILINEAR)
                pixels = np.asarray(picture)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    except FastconvError:
        raise
    except PermissionError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, pillow.DecompressionBombError) as error:
        raise FileFormatError(f"{path} is no picture that can be read: {error}") from None
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return scaled(pixels, 255, dtype).transpose(2, 0, 1)


def _plain(pillow, picture, mode):
    """The picture upright, opaque, in `mode` ("L" or "RGB")."""
    from PIL import ImageOps

    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):  # 16 bits a pixel, which Pillow's own conversion would clip at 255
        picture = pillow.fromarray((np.asarray(picture).clip(0, 65535) >> 8).astype(np.uint8))
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = pillow.new("RGBA", picture.size, "white")
        picture = pillow.alpha_composite(white, picture)
    return picture.convert(mode)


def _pillow():
    try:
        from PIL import Image
    except ImportError:
        raise ArgumentTypeError("reading pictures needs Pillow: pip install pillow") from None
    return Image
