"""Checks of options that are numbers or names, with errors that name them."""

import math
import numbers

import numpy as np

from fastconv.errors import ArgumentError, ArgumentTypeError


def number(name, value, minimum=-math.inf, maximum=math.inf):
    """`value` as a finite float from `minimum` to `maximum`, both included."""
    if type(value) is not float:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise ArgumentTypeError(f"{name} must be a number, got {value!r}")
        value = float(value)
    if not (math.isfinite(value) and minimum <= value <= maximum):
        bounds = "finite" if minimum == -math.inf else f"at least {minimum}" if maximum == math.inf else f"from {minimum} to {maximum}"
        raise ArgumentError(f"{name} must be {bounds}, got {value}")
    return value


def choice(name, value, *choices):
    """`value`, or an error unless it is one of `choices`."""
    if not (isinstance(value, str) and value in choices):
        raise ArgumentError(f"{name} must be {' or '.join(repr(c) for c in choices)}, got {value!r}")
    return value


def flag(name, value):
    """`value`, which must be True or False, NumPy's or Python's, as a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise ArgumentTypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def three(name, value):
    """`value`, which must hold three truth values, as three bools."""
    if not isinstance(value, (tuple, list)) or len(value) != 3:
        raise ArgumentError(f"{name} must hold three truth values, got {value!r}")
    return tuple(map(bool, value))
