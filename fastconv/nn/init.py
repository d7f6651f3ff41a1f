"""Where initial weights come from: one generator, and the two bounds that PyTorch's layers use."""

import math

import numpy as np

from fastconv.errors import ArgumentError, ArgumentTypeError

_default = np.random.default_rng()


def manual_seed(seed):
    """Seed the generator that layers draw from when they are given no seed of their own: initial weights and dropout.

    Parameters
    ----------
    seed : int
        At least 0.

    Raises
    ------
    TypeError, ValueError
        When seed is no integer, or negative.
    """
    _default.bit_generator.state = generator(_integer(seed)).bit_generator.state


def _integer(seed):
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise ArgumentTypeError(f"seed must be an integer, got {seed!r}")
    if seed < 0:
        raise ArgumentError(f"seed must be at least 0, got {seed}")
    return int(seed)


def generator(seed=None):
    """The generator that `seed` means: None the one of `manual_seed`, an integer a new one, a numpy Generator itself."""
    if seed is None:
        return _default
    if isinstance(seed, np.random.Generator):
        return seed
    return np.random.Generator(np.random.PCG64(_integer(seed)))


def fan_in(weight_shape):
    """How many inputs one output sums over: the product of all but the first axis.

    For a transposed convolution, whose weight is (in, out // groups, KH, KW), this is PyTorch's number and not the literal truth.
    """
    return math.prod(weight_shape[1:])


def uniform(shape, fan_in, seed=None, dtype=np.float32):
    """Array of `shape`, uniform in +-1/sqrt(fan_in); float32 and float64 draw the same numbers.

    This is PyTorch's ``kaiming_uniform_(a=sqrt(5))``: the bound gain*sqrt(3/fan_in) with gain sqrt(2/(1 + 5)).
    """
    bound = 1 / math.sqrt(fan_in)
    return generator(seed).uniform(-bound, bound, shape).astype(dtype)
