"""Dropout: elements set to zero at random."""

import numpy as np

from fastconv.errors import ArgumentTypeError
from fastconv.functional.arrays import check_shape, contiguous, plain
from fastconv.functional.flat import Flat
from fastconv.functional.options import number
from fastconv.kernels import dropout as kernels
from fastconv.memory import empty


def _scale(p):
    """What the kept elements are multiplied by."""
    return 1 / (1 - p) if p < 1 else 0.0


def dropout(input, p=0.5, training=True, *, rng=None, return_mask=False):
    """Set each element to 0 with probability `p`, and multiply the others by 1 / (1 - p).

    Parameters
    ----------
    input : ndarray of any shape, float32 or float64
    p : float
        From 0 to 1.
    training : bool
        Otherwise the output is the input itself.
    rng : numpy.random.Generator, optional
        Where the choice comes from; without it, from a fresh generator.
    return_mask : bool
        Also return which elements were kept.

    Returns
    -------
    output : ndarray of the same shape and dtype; (N, C, H, W) in channels-last memory
    mask : bool ndarray of the same shape, when `return_mask`

    Raises
    ------
    ValueError, TypeError
        When an argument does not fit.

    Notes
    -----
    The mask depends on the state of the generator and the shape of the input alone: not on its values, its memory or the number of threads.

    References
    ----------
    N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014.
    """
    p = number("p", p, 0, 1)
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise ArgumentTypeError(f"rng must be a numpy.random.Generator, got {rng!r}")
    if not training:
        output = plain("input", input)
        return (output, np.ones(output.shape, bool)) if return_mask else output
    x = Flat("input", input, fixed=True)
    y, mask = empty(x.values.shape, x.values.dtype), np.zeros(x.values.size, bool)
    threshold = round(p * 2**32) - 2**31
    if threshold < 2**31:
        draws = (rng or np.random.default_rng()).integers(-(2**31), 2**31, y.size, np.int32)
        kernels.forward(3 * y.size, x.values, draws, y, mask.view(np.uint8), threshold, _scale(p))
    else:
        kernels.backward(2 * y.size, x.values, mask.view(np.uint8), y, 0.0)
    return (x.restore(y), x.restore(mask)) if return_mask else x.restore(y)


def dropout_backward(grad_output, mask, p=0.5):
    """Gradient of `dropout`: grad_output / (1 - p) where `mask`, else 0.

    Parameters
    ----------
    grad_output : ndarray of any shape, float32 or float64
    mask : bool ndarray of the same shape
        As `dropout` returned it.
    p : float
        As in `dropout`; 0 when it was not in training.

    Returns
    -------
    ndarray of the same shape, dtype and memory order

    Raises
    ------
    ValueError, TypeError
        When an argument does not fit.
    """
    p = number("p", p, 0, 1)
    if not isinstance(mask, np.ndarray) or isinstance(mask, np.ma.MaskedArray) or mask.dtype != bool:
        raise ArgumentTypeError(f"mask must be a NumPy array of bool, got {getattr(mask, 'dtype', type(mask).__name__)}")
    g = Flat("grad_output", grad_output)
    check_shape("grad_output", plain("grad_output", grad_output), mask.shape)
    kept = mask.transpose(0, 2, 3, 1) if g.channels_last else mask
    d = empty(g.values.shape, g.values.dtype)
    kernels.backward(2 * d.size, g.values, contiguous(kept).reshape(-1).view(np.uint8), d, _scale(p))
    return g.restore(d)
