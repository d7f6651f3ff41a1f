"""Files that are either complete or not there: written beside their place, then renamed into it."""

import contextlib
import os
import shutil
import threading
from pathlib import Path


def write_atomically(path, data):
    """Write `data` (bytes or str, as UTF-8) to `path`: a reader, or a crash, sees the old file or the new one, never a part.

    Raises
    ------
    OSError
        With `path` as its filename.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with open(temporary, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def prepare_folder(path, needed):
    """Make the folder `path` and find out, now rather than after an hour's work, whether `needed` bytes can be written there.

    Raises
    ------
    OSError
        Saying what is wrong with which folder.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".fastconv-{os.getpid()}"
        write_atomically(probe, b"")
        probe.unlink()
        free = shutil.disk_usage(path).free
    except FileExistsError:
        raise NotADirectoryError(f"the output folder {path} cannot be made: a file of that name exists") from None
    except OSError as error:
        raise type(error)(f"the output folder {path} cannot be written to: {error.strerror or error}") from None
    if free < needed:
        raise OSError(f"the output folder {path} has {free / 1e6:.1f} MB left, {needed / 1e6:.1f} MB are needed")
    return path
