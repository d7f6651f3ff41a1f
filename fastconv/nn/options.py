"""Checks of numeric options, with errors that name them."""

import math
import numbers

from fastconv.errors import ArgumentError, ArgumentTypeError


def number(name, value, minimum=-math.inf, maximum=math.inf):
    """`value` as a finite float from `minimum` to `maximum`, both included."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ArgumentTypeError(f"{name} must be a number, got {value!r}")
    value = float(value)
    if not math.isfinite(value) or not minimum <= value <= maximum:
        bounds = "finite" if minimum == -math.inf else f"at least {minimum}" if maximum == math.inf else f"from {minimum} to {maximum}"
        raise ArgumentError(f"{name} must be {bounds}, got {value}")
    return value
