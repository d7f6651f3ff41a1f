"""Arrays in files: the safetensors format, which holds numbers and names only, so that nothing in a file is ever executed."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fastconv.errors import ArgumentError, ArgumentTypeError, FileFormatError
from fastconv.files import write_atomically


def save(state_dict, path, metadata=None):
    """Write arrays to a safetensors file, which appears whole or not at all.

    Parameters
    ----------
    state_dict : dict of str to ndarray
        As `Module.state_dict` returns; bool, integer or floating-point arrays of any strides.
    path : str or path-like
        A file that exists is replaced.
    metadata : dict of str to str, optional
        Kept beside the arrays, see `load_metadata`.

    Raises
    ------
    ValueError, TypeError
        When a key or value cannot be stored; the message names it.
    OSError
        When the file cannot be written; one that existed before stays as it was.
    """
    from safetensors.numpy import save as serialize

    if not isinstance(state_dict, Mapping):
        raise ArgumentTypeError(f"state_dict must be a dict of arrays, got {type(state_dict).__name__}")
    _check_metadata(metadata)
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}")
    # safetensors writes the memory of strided and big-endian arrays as if it were in order
    data = serialize({key: _storable(key, value) for key, value in state_dict.items()}, metadata)
    write_atomically(path, data)


def _check_metadata(metadata):
    if metadata is not None and not (
        isinstance(metadata, Mapping) and all(isinstance(k, str) and isinstance(v, str) for k, v in metadata.items())
    ):
        raise ArgumentTypeError(f"metadata must be a dict of str to str, got {metadata!r}")


def _storable(key, value):
    """`value` C-contiguous, in this machine's byte order, with the axes it has (np.ascontiguousarray would add one to a scalar)."""
    if not isinstance(key, str):
        raise ArgumentTypeError(f"keys of state_dict must be strings, got {key!r}")
    if key == "__metadata__":
        raise ArgumentError('"__metadata__" is a name of the format itself and cannot be a key')
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        raise ArgumentTypeError(f"state_dict[{key!r}] must be a NumPy array, got {type(value).__name__}")
    if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
        raise ArgumentTypeError(f"state_dict[{key!r}] must hold bool, integers or floats of at most 64 bits, got {value.dtype}")
    return np.asarray(value, value.dtype.newbyteorder("="), order="C")


def load(path):
    """Read the arrays of a safetensors file.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    dict of str to ndarray
        Writable, C-contiguous arrays.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When the file is damaged, of another format, or holds a dtype that NumPy does not have.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as deserialize

    data = _existing(path).read_bytes()
    try:
        return {key: array.copy() for key, array in deserialize(data).items()}
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{os.fspath(path)} is not a safetensors file that can be read: {error}") from error


def load_metadata(path):
    """Read the metadata of a safetensors file, a dict of str to str, empty when there is none.

    Raises
    ------
    FileNotFoundError, ValueError
        As `load`.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(_existing(path), framework="numpy") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise FileFormatError(f"{os.fspath(path)} is not a safetensors file that can be read: {error}") from error


def _existing(path):
    path = Path(path)
    if path.is_dir():
        raise FileFormatError(f"{path} is a folder, not a file")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    return path
