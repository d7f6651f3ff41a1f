"""How the tests make data and compare: small integers for equality, distinct values for differentiation, bounds from magnitudes."""

import contextlib
import threading

import numpy as np

from fastconv import get_winograd, set_winograd


def small_integers(rng, shape, dtype=np.float64):
    """Whole numbers from -3 to 3: sums of their products are exact in any order, so results can be compared for equality."""
    return rng.integers(-3, 4, shape).astype(dtype)


@contextlib.contextmanager
def exact_sums():
    """Within, "auto" does without Winograd's algorithm, which makes no whole number of whole numbers."""
    allowed = get_winograd()
    set_winograd(False)
    try:
        yield
    finally:
        set_winograd(allowed)


def distinct(rng, shape, dtype=np.float64):
    """Different numbers between -2 and 2, evenly spread and none of them 0: no ties, no kinks near by."""
    size = int(np.prod(shape))
    return ((rng.permutation(size) + 0.5 - size // 2) * (4 / max(size, 2))).reshape(shape).astype(dtype)


def numerical_gradient(function, array, step=1e-6):
    """Central differences of a scalar `function` of nothing, by every element of `array`, which it reads."""
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + step
        above = function()
        array[index] = kept - step
        below = function()
        array[index] = kept
        gradient[index] = (above - below) / (2 * step)
    return gradient


def assert_within(actual, expected, bound, what=""):
    """|actual - expected| <= bound, element by element; `bound` is a number or an array."""
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    error = np.abs(actual.astype(np.float64) - expected)
    bad = ~(error <= bound)
    assert not bad.any(), f"{what}: {bad.sum()} of {bad.size} out of bounds, worst {np.nanmax(error)} against {np.max(bound)}"


def assert_same_bits(actual, expected, what=""):
    """The same shape, dtype and bits, NaN included."""
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    assert actual.dtype == expected.dtype, f"{what}: {actual.dtype}, expected {expected.dtype}"
    assert actual.tobytes() == expected.tobytes(), f"{what}: {np.sum(actual != expected)} of {actual.size} differ"


def in_threads(work, count):
    """work(0), work(1), ... at the same time; it returns when all of them have."""
    threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
