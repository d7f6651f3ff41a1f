"""Images and labels, a batch at a time: checked once, then gathered into memory that every batch uses again."""

import numpy as np

from fastconv.errors import ArgumentError, ArgumentTypeError


def check_images(name, x):
    """`x` as a plain array that `Batches` takes."""
    if not isinstance(x, np.ndarray) or isinstance(x, np.ma.MaskedArray):
        raise ArgumentTypeError(f"{name} must be a NumPy array, got {type(x).__name__}")
    if x.dtype.newbyteorder("=") not in (np.uint8, np.float32, np.float64):
        raise ArgumentTypeError(
            f"{name} must be uint8 (values 0 to 255, which are divided by 255), float32 or float64, got {x.dtype}: "
            f"convert it, for instance with {name}.astype(numpy.float32)"
        )
    if x.ndim < 2:
        raise ArgumentError(f"{name} must hold one image, or one row of features, for each entry of its first axis, got shape {x.shape}")
    if 0 in x.shape[1:]:
        raise ArgumentError(f"{name} must hold images with pixels, got shape {x.shape}")
    return np.asarray(x)


def check_pair(x_name, x, y_name, y):
    """`x` and `y` as plain arrays of the same length, which is not 0."""
    x = check_images(x_name, x)
    if isinstance(y, (list, tuple)):
        try:
            y = np.array(y)
        except ValueError as error:
            raise ArgumentError(f"{y_name} must be an array, or a list that is one: {error}") from None
    if not isinstance(y, np.ndarray) or isinstance(y, np.ma.MaskedArray):
        raise ArgumentTypeError(f"{y_name} must be a NumPy array, got {type(y).__name__}")
    if y.ndim == 0 or len(x) != len(y):
        raise ArgumentError(f"{x_name} and {y_name} must be equally long, got shapes {x.shape} and {y.shape}")
    if len(x) == 0:
        raise ArgumentError(f"{x_name} and {y_name} must not be empty")
    return x, np.asarray(y)


class Batches:
    """Gathers images into one buffer, channels-last, of the model's dtype.

    A fresh array for each batch would cost page faults. uint8 images are divided by 255.

    Parameters
    ----------
    x : ndarray of shape (N, C, H, W), or (N, ...)
    size : int
        Of the largest batch.
    dtype : float32 or float64
    """

    def __init__(self, x, size, dtype):
        self.x = x
        if x.ndim == 4:
            C, H, W = x.shape[1:]
            self.buffer = np.empty((size, H, W, C), dtype).transpose(0, 3, 1, 2)
        else:
            self.buffer = np.empty((size, *x.shape[1:]), dtype)
        self.memory = self._memory(x)
        self.axes = None if self.memory is x else (0, 2, 3, 1)
        # numpy.take would copy all of an x that is not dense; plain indexing copies the batch alone
        self.staging = None
        if self.memory.flags.c_contiguous and not self._fits():
            self.staging = np.empty((size, *self.memory.shape[1:]), x.dtype)
        self.scale = dtype.type(1 / 255) if x.dtype == np.uint8 else None

    @staticmethod
    def _memory(x):
        """`x`, or where its memory is channels-last, its (N, H, W, C) view."""
        if x.ndim == 4 and x.transpose(0, 2, 3, 1).flags.c_contiguous:
            return x.transpose(0, 2, 3, 1)
        return x

    def _fits(self):
        """Whether rows of memory can be taken straight into the buffer."""
        return self.x.dtype == self.buffer.dtype and (self.axes is not None or self.x.ndim != 4)

    def __call__(self, indices):
        """The images of an index array or slice, in the buffer: valid until the next call."""
        count = len(range(*indices.indices(len(self.x)))) if isinstance(indices, slice) else len(indices)
        out = self.buffer[:count]
        if isinstance(indices, slice) or not self.memory.flags.c_contiguous:
            self._convert(self.x[indices], out)
        elif self.staging is None:
            target = out if self.axes is None else out.transpose(self.axes)
            np.take(self.memory, indices, axis=0, out=target, mode="clip")  # "raise" would go through a buffer of NumPy's own
        else:
            rows = self.staging[:count]
            np.take(self.memory, indices, axis=0, out=rows, mode="clip")
            self._convert(rows if self.axes is None else rows.transpose(0, 3, 1, 2), out)
        return out

    def _convert(self, rows, out):
        if self.scale is None:
            np.copyto(out, rows, casting="same_kind")
        else:
            np.multiply(rows, self.scale, out=out)
