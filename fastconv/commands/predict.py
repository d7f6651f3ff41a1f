"""`fastconv predict`: what pictures show."""

import json
from pathlib import Path

import numpy as np

from fastconv import functional as F
from fastconv.commands.console import positive_int, table
from fastconv.commands.saved import load_model
from fastconv.datasets import read_image
from fastconv.errors import FileFormatError
from fastconv.nn import no_grad


def add_arguments(parser):
    parser.add_argument("model", type=Path, metavar="MODEL.safetensors", help="what fastconv train has left")
    parser.add_argument(
        "images",
        nargs="+",
        type=Path,
        metavar="IMAGE",
        help="PNG or JPEG pictures, resized to what the network takes; or .npy "
        "arrays (H, W), (C, H, W) or (N, C, H, W), uint8 from 0 to 255 or floats as trained on",
    )
    parser.add_argument("--invert", action="store_true", help="of pictures, swap light and dark: MNIST's digits are white on black")
    parser.add_argument("--top", type=positive_int, default=3, metavar="N", help="how many classes to show (default: 3)")
    parser.add_argument("--json", action="store_true", help="print JSON, with the probabilities of all classes")


def run(options):
    model, description = load_model(options.model)
    named = [pair for path in options.images for pair in _images(path, description, options.invert)]
    images = np.stack([image for _, image in named])
    with no_grad():
        probabilities = np.concatenate([F.softmax(model(images[start : start + 256])) for start in range(0, len(images), 256)])
    classes = description["classes"]
    if options.json:
        print(json.dumps([_entry(name, classes, row) for (name, _), row in zip(named, probabilities, strict=True)], indent=1))
    else:
        for line in _table([name for name, _ in named], classes, probabilities, options.top):
            print(line)
    return 0


def _images(path, description, invert):
    """(name, image) for each image in a file; images are (C, H, W) as the network takes them."""
    channels, *size = description["shape"]
    if path.suffix.lower() != ".npy":
        if description["values"] != "0 to 1":
            raise FileFormatError(
                f"{path} is a picture, of values from 0 to 1, but the model was trained on arrays of other values: give a .npy file"
            )
        image = read_image(path, tuple(size), grayscale=channels == 1)
        if image.shape[0] != channels:
            raise FileFormatError(f"{path} is a picture of {image.shape[0]} channels, the model takes {channels}: give a .npy file")
        return [(str(path), 1 - image if invert else image)]
    images = _array(path, channels)
    if not len(images):
        raise FileFormatError(f"{path} holds no image")
    if images.shape[1:] != (channels, *size):
        raise FileFormatError(f"{path} must hold images of shape {(channels, *size)}, got {images.shape[1:]}")
    return [(f"{path}[{n}]" if len(images) > 1 else str(path), image) for n, image in enumerate(images)]


def _array(path, channels):
    """The float32 images (N, C, H, W) of a .npy file."""
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    except (ValueError, EOFError) as error:
        raise FileFormatError(f"{path} is no readable .npy file: {error}") from None
    if not isinstance(array, np.ndarray) or array.dtype not in (np.uint8, np.float32, np.float64) or not 2 <= array.ndim <= 4:
        raise FileFormatError(f"{path} must hold an array (H, W), (C, H, W) or (N, C, H, W) of uint8, float32 or float64")
    if array.ndim == 2:
        array = array[None, None]
    elif array.ndim == 3:
        array = array[None] if array.shape[0] == channels else array[:, None]
    scale = 255 if array.dtype == np.uint8 else 1
    return array.astype(np.float32) / np.float32(scale)


def _entry(name, classes, row):
    best = int(row.argmax())
    return {
        "file": name,
        "class": classes[best],
        "probability": float(row[best]),
        "probabilities": dict(zip(classes, map(float, row), strict=True)),
    }


def _table(names, classes, probabilities, top):
    rows = [("image", "class", "probability", "then")]
    for name, row in zip(names, probabilities, strict=True):
        order = np.argsort(-row, kind="stable")[:top]
        others = ", ".join(f"{classes[i]} {100 * row[i]:.2f} %" for i in order[1:])
        rows.append((name, classes[order[0]], f"{100 * row[order[0]]:.2f} %", others))
    return table(rows, right=(2,))
