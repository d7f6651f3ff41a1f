"""Every operation and every kind of array: equal numbers in any memory give equal bits; what is no plain float array is refused."""

import numpy as np
import pytest
from checks import assert_same_bits, distinct
from ops import ACTIVATIONS, LOSSES, OPS, SOFTMAXES, ids

from fastconv import functional as F

every_op = pytest.mark.parametrize("op", OPS, ids=ids(OPS))


# --- memory --------------------------------------------------------------------------------------------------------------


def fortran(a):
    return np.asfortranarray(a)


def channels_last(a):
    """The channel axis innermost in memory, whatever the number of axes."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1) if a.ndim > 1 else a


def strided(a):
    """Every second element of a larger array, along every axis."""
    larger = np.full([2 * n for n in a.shape], 99, a.dtype)
    view = larger[tuple(slice(1, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def reversed_memory(a):
    """Negative strides along every axis."""
    back = tuple(slice(None, None, -1) for _ in a.shape)
    return np.ascontiguousarray(a[back])[back]


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def read_only_channels_last(a):
    view = channels_last(a).view()
    view.flags.writeable = False
    return view


def broadcast(a):
    """A stride of 0 along a new axis, then cut away: read-only as well."""
    return np.broadcast_to(a, (2, *a.shape))[1]


def big_endian(a):
    return a.astype(a.dtype.newbyteorder(">"))


def unaligned(a):
    """One byte behind an aligned address."""
    buffer = np.empty(a.nbytes + 1, np.uint8)[1:]
    view = buffer.view(a.dtype).reshape(a.shape)
    view[...] = a
    assert not view.flags.aligned or not view.size
    return view


class Subclass(np.ndarray):
    """An array with a name of its own."""


def subclass(a):
    return a.view(Subclass)


FORMS = [fortran, channels_last, strided, reversed_memory, read_only, read_only_channels_last, broadcast, big_endian, unaligned, subclass]


def results(op, arguments, grad_output=None):
    """Output and gradients by name."""
    output = op.forward(F, **arguments)
    if grad_output is None:
        grad_output = distinct(np.random.default_rng(0), np.shape(output)).astype(np.float32)
    return {"output": np.asarray(output), **op.backward(F, grad_output, **arguments)}, grad_output


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
@every_op
def test_memory_makes_no_difference(op, form, rng):
    arguments = op.draw(rng, np.float32)
    expected, grad_output = results(op, {name: np.ascontiguousarray(a) for name, a in arguments.items()})
    changed = {name: form(a) for name, a in arguments.items()}
    for name, a in changed.items():
        np.testing.assert_array_equal(a, arguments[name])
    actual, _ = results(op, changed, form(grad_output) if np.ndim(grad_output) else grad_output)
    for name, value in expected.items():
        assert type(actual[name]) is np.ndarray, name
        assert_same_bits(actual[name], value, name)


@every_op
def test_arguments_are_left_alone(op, rng):
    arguments = op.draw(rng, np.float32)
    kept = {name: a.copy() for name, a in arguments.items()}
    _, grad_output = results(op, arguments)
    kept_gradient = grad_output.copy()
    computed, _ = results(op, arguments, grad_output)
    for name, a in kept.items():
        assert_same_bits(arguments[name], a, name)
    assert_same_bits(grad_output, kept_gradient, "grad_output")
    for what, result in computed.items():
        assert not any(np.shares_memory(result, a) for a in (*arguments.values(), grad_output)), what
        assert result.flags.writeable, what


# --- what is refused -----------------------------------------------------------------------------------------------------


def assert_refused(error, call, *names):
    """`call` raises `error` and says which argument it means: one of `names`."""
    with pytest.raises(error) as raised:
        call()
    assert any(name in str(raised.value) for name in names), f"{raised.value!r} names none of {names}"


def floats(arguments):
    return [name for name, a in arguments.items() if a.dtype.kind == "f"]


def averages(op):
    """Their backward functions take the shape of the input alone."""
    return op.function in ("avg_pool2d", "adaptive_avg_pool2d")


def used_backward(op, name):
    return not averages(op) and name != "bias"


def optional(op, name):
    needed = op.function in ("conv2d", "conv_transpose2d", "linear")
    return name in ("bias", "pos_weight") or (name == "weight" and not needed) or ("running" in name and op.name.endswith("training"))


def check_refused(op, error, arguments, grad_output, name, wrong):
    """Forward and backward, with argument `name` replaced."""
    changed = {**arguments, name: wrong}
    assert_refused(error, lambda: op.forward(F, **changed), name)
    if used_backward(op, name):
        assert_refused(error, lambda: op.backward(F, grad_output, **changed), name)


@every_op
def test_masked_arrays_are_refused_before_and_after_a_plain_call(op, rng):
    """Numba itself accepts them, and ignores the mask, once a plain array has compiled."""
    arguments = op.draw(rng, np.float32)
    for name in arguments:
        masked = {**arguments, name: np.ma.masked_array(arguments[name], mask=False)}
        assert_refused(TypeError, lambda masked=masked: op.forward(F, **masked), name)
    _, grad_output = results(op, arguments)
    for name in arguments:
        check_refused(op, TypeError, arguments, grad_output, name, np.ma.masked_array(arguments[name], mask=False))
    if np.ndim(grad_output):
        masked = np.ma.masked_array(grad_output, mask=False)
        assert_refused(TypeError, lambda: op.backward(F, masked, **arguments), "grad_output")


WRONG_TYPES = {
    "float16": lambda a: a.astype(np.float16),
    "longdouble": lambda a: a.astype(np.longdouble),
    "integers": lambda a: a.astype(np.int64),
    "bytes": lambda a: a.astype(np.int8).view(np.uint8),
    "booleans": lambda a: a > 0,
    "complex": lambda a: a.astype(np.complex64),
    "objects": lambda a: a.astype(object),
    "text": lambda a: a.astype(str),
    "list": lambda a: a.tolist(),
    "nothing": lambda a: None,
}


@pytest.mark.parametrize("kind", WRONG_TYPES)
@every_op
def test_other_types_are_refused(op, kind, rng):
    arguments = op.draw(rng, np.float32)
    _, grad_output = results(op, arguments)
    for name in floats(arguments):
        if not (kind == "nothing" and optional(op, name)):
            check_refused(op, TypeError, arguments, grad_output, name, WRONG_TYPES[kind](arguments[name]))
    if np.ndim(grad_output) and not (kind == "nothing" and op in LOSSES):
        wrong = WRONG_TYPES[kind](grad_output)
        assert_refused(TypeError, lambda: op.backward(F, wrong, **arguments), "grad_output")


@every_op
def test_mixed_precision_is_refused(op, rng):
    arguments = op.draw(rng, np.float32)
    _, grad_output = results(op, arguments)
    names = floats(arguments)
    for name in names if len(names) > 1 else ():
        mixed = {**arguments, name: arguments[name].astype(np.float64)}
        assert_refused(TypeError, lambda mixed=mixed: op.forward(F, **mixed), *names)
        if used_backward(op, name):
            assert_refused(TypeError, lambda mixed=mixed: op.backward(F, grad_output, **mixed), *names, "grad_output")
    if np.ndim(grad_output) and not averages(op):
        assert_refused(TypeError, lambda: op.backward(F, grad_output.astype(np.float64), **arguments), "grad_output")


ANY_RANK = ACTIVATIONS + SOFTMAXES + [op for op in LOSSES if op.function != "cross_entropy"]


@pytest.mark.parametrize("op", [op for op in OPS if op not in ACTIVATIONS + SOFTMAXES], ids=lambda op: op.name)
def test_wrong_ranks_are_refused(op, rng):
    arguments = op.draw(rng, np.float32)
    _, grad_output = results(op, arguments)
    for name, a in arguments.items():
        if op in ANY_RANK:
            wrong_arrays = [a[..., None]]  # does not broadcast
        elif name == "input" and op.function in ("linear", "batch_norm", "cross_entropy"):
            wrong_arrays = [np.zeros((), np.float32), a[..., None, :-1]]
        else:
            wrong_arrays = [a[None], np.asarray(a[0])]
        for wrong in wrong_arrays:
            changed = {**arguments, name: wrong}
            assert_refused(ValueError, lambda changed=changed: op.forward(F, **changed), *arguments)
            if used_backward(op, name):
                assert_refused(ValueError, lambda changed=changed: op.backward(F, grad_output, **changed), *arguments, "grad_output")


@every_op
def test_gradients_of_another_shape_are_refused(op, rng):
    arguments = op.draw(rng, np.float32)
    _, grad_output = results(op, arguments)
    shape = np.shape(grad_output)
    wrong_shapes = [(shape[0] + 1, *shape[1:]), shape[1:], (1, *shape), (1,) * len(shape), (0, *shape[1:])] if shape else []
    if shape and op.function != "adaptive_avg_pool2d":  # which takes the output's size from this very array
        wrong_shapes.append((*shape[:-1], shape[-1] + 1))
    for wrong in wrong_shapes:
        assert_refused(ValueError, lambda wrong=wrong: op.backward(F, np.ones(wrong, np.float32), **arguments), "grad_output")


# --- nothing to do -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@every_op
def test_empty_batch(op, dtype, rng):
    """Shapes as ever; parameters get gradients of 0."""
    arguments = op.draw(rng, dtype, batch=0)
    full = np.shape(op.forward(F, **op.draw(rng, dtype, batch=2)))
    output = op.forward(F, **arguments)
    assert np.shape(output) == ((0, *full[1:]) if full else ())
    gradients = op.backward(F, np.zeros(np.shape(output), dtype), **arguments)
    for name, gradient in gradients.items():
        assert gradient.shape == arguments[name].shape, name
        assert gradient.dtype == dtype, name
        assert not gradient.any(), name


def test_batch_norm_of_an_empty_batch_leaves_the_running_statistics():
    mean, var = np.array([1.0, 2]), np.array([3.0, 4])
    F.batch_norm(np.zeros((0, 2, 3, 3)), mean, var, training=True)
    np.testing.assert_array_equal([mean, var], [[1, 2], [3, 4]])


# --- running statistics, the one argument that is written ----------------------------------------------------------------


@pytest.mark.parametrize("form", [strided, reversed_memory, big_endian, unaligned], ids=lambda f: f.__name__)
def test_running_statistics_are_moved_in_place_in_any_memory(form, rng):
    x, start = distinct(rng, (3, 5, 2, 4), np.float32), distinct(rng, (5,), np.float32)
    mean, var = start.copy(), start**2
    F.batch_norm(x, mean, var, training=True)
    assert not np.array_equal(mean, start)
    other_mean, other_var = form(start), form(start**2)
    F.batch_norm(x, other_mean, other_var, training=True)
    np.testing.assert_array_equal(other_mean, mean)
    np.testing.assert_array_equal(other_var, var)


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
def test_running_statistics_that_cannot_be_written_are_refused(name, rng):
    x = distinct(rng, (3, 5, 2, 4), np.float32)
    running = {"running_mean": np.zeros(5, np.float32), "running_var": np.ones(5, np.float32)}
    kept = {key: a.copy() for key, a in running.items()}
    running[name].flags.writeable = False
    assert_refused(ValueError, lambda: F.batch_norm(x, **running, training=True), name)
    for key, a in running.items():
        np.testing.assert_array_equal(a, kept[key])  # neither of them
    assert F.batch_norm(x, **running).shape == x.shape


# --- operations that the table's calls reach only in part ----------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
def test_dropout_draws_the_same_in_any_memory(form, rng):
    x, g = distinct(rng, (3, 17, 4, 5), np.float32), distinct(rng, (3, 17, 4, 5), np.float32)
    output, mask = F.dropout(x, 0.4, rng=np.random.default_rng(3), return_mask=True)
    actual, actual_mask = F.dropout(form(x), 0.4, rng=np.random.default_rng(3), return_mask=True)
    assert_same_bits(actual, output, "output")
    assert_same_bits(actual_mask, mask, "mask")
    expected = F.dropout_backward(g, mask, 0.4)
    assert_same_bits(F.dropout_backward(form(g), mask, 0.4), expected, "gradient")
    if form not in (big_endian, unaligned):  # a byte is always aligned and has one order
        assert_same_bits(F.dropout_backward(g, form(mask), 0.4), expected, "gradient by the mask's memory")


def test_dropout_of_an_empty_batch():
    output, mask = F.dropout(np.zeros((0, 3, 4, 5), np.float32), return_mask=True)
    assert output.shape == mask.shape == (0, 3, 4, 5)
    assert F.dropout_backward(output, mask).shape == (0, 3, 4, 5)


@pytest.mark.parametrize("backward", [F.softmax_backward, F.log_softmax_backward], ids=["softmax", "log_softmax"])
def test_outputs_of_softmax_in_any_memory(backward, rng):
    g, s = distinct(rng, (3, 17, 4, 5), np.float32), distinct(rng, (3, 17, 4, 5), np.float32)
    expected = backward(g, s, 1)
    for form in FORMS:
        assert_same_bits(backward(form(g), form(s), 1), expected, form.__name__)
    for kind in ("integers", "float16", "list", "nothing"):
        assert_refused(TypeError, lambda kind=kind: backward(g, WRONG_TYPES[kind](s), 1), "output")
    assert_refused(TypeError, lambda: backward(g, np.ma.masked_array(s), 1), "output")
    assert_refused(TypeError, lambda: backward(g.astype(np.float64), s, 1), "grad_output")
