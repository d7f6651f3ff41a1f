"""Every operation against PyTorch, forward and, by its autograd, backward, over the tables of shapes."""

import numpy as np
import pytest
from cases import ADAPTIVE, AVG_POOL, CONV, CONV_TRANSPOSE, LINEAR, MAX_POOL, ids
from checks import assert_within, distinct, exact_sums, small_integers
from ops import OPS
from ops import ids as op_ids

from fastconv import functional as F
from fastconv import reference

torch = pytest.importorskip("torch")
TF = torch.nn.functional
nan, inf = np.nan, np.inf


@pytest.fixture(autouse=True)
def one_torch_thread():
    """Its pool of threads and fastconv's would take each other's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tensor(a):
    return torch.from_numpy(np.array(a, order="C")) if isinstance(a, np.ndarray) else a


def torch_conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """PyTorch's, whose padding knows no different sides: those are padded before."""
    if isinstance(padding, tuple) and isinstance(padding[0], tuple):
        (top, bottom), (left, right) = padding
        input, padding = TF.pad(input, (left, right, top, bottom)), 0
    return TF.conv2d(input, weight, bias, stride, padding, dilation, groups)


def gradients(function, arrays, grad_output, **options):
    """PyTorch's output for NumPy arrays, and the gradient of each."""
    leaves = [tensor(a).requires_grad_() for a in arrays]
    output = function(*leaves, **options)
    g = tensor(grad_output) if grad_output is not None else None
    return output.detach().numpy(), [x.numpy() for x in torch.autograd.grad(output, leaves, g)]


# --- whole numbers: equality ---------------------------------------------------------------------------------------------


@exact_sums()
def check_exact(function, forward, backward, case, dtype, rng):
    x, w, b = (small_integers(rng, shape, dtype) for shape in (case.input_shape, case.weight_shape, (case.OC,)))
    y = forward(x, w, b, **case.options)
    g = small_integers(rng, y.shape, dtype)
    output, expected = gradients(function, (x, w, b), g, **case.options)
    np.testing.assert_array_equal(y, output, err_msg="output")
    for name, actual, e in zip(("grad_input", "grad_weight", "grad_bias"), backward(g, x, w, **case.options), expected, strict=True):
        np.testing.assert_array_equal(actual, e, err_msg=name)


both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize("module", [F, reference], ids=["functional", "reference"])
@both_dtypes
@pytest.mark.parametrize("case", CONV, ids=ids(CONV))
def test_conv2d(case, dtype, module, rng):
    check_exact(torch_conv2d, module.conv2d, module.conv2d_backward, case, dtype, rng)


@pytest.mark.parametrize("module", [F, reference], ids=["functional", "reference"])
@both_dtypes
@pytest.mark.parametrize("case", CONV_TRANSPOSE, ids=ids(CONV_TRANSPOSE))
def test_conv_transpose2d(case, dtype, module, rng):
    check_exact(TF.conv_transpose2d, module.conv_transpose2d, module.conv_transpose2d_backward, case, dtype, rng)


@pytest.mark.parametrize("module", [F, reference], ids=["functional", "reference"])
@both_dtypes
@pytest.mark.parametrize("values", [distinct, small_integers], ids=["distinct", "ties"])
@pytest.mark.parametrize("case", MAX_POOL, ids=ids(MAX_POOL))
def test_max_pool2d(case, values, dtype, module, rng):
    x = values(rng, case.input_shape, dtype)
    output, indices = module.max_pool2d(x, **case.options, return_indices=True)
    _, torch_indices = TF.max_pool2d(tensor(x), **case.options, return_indices=True)
    np.testing.assert_array_equal(indices, torch_indices.numpy())
    g = small_integers(rng, output.shape, dtype)
    torch_output, (gradient,) = gradients(TF.max_pool2d, (x,), g, **case.options)
    np.testing.assert_array_equal(output, torch_output)
    np.testing.assert_array_equal(module.max_pool2d_backward(g, x, **case.options), gradient)


@pytest.mark.parametrize("module", [F, reference], ids=["functional", "reference"])
def test_max_pool2d_with_nan_and_infinities(module, rng):
    """Which of several NaN counts is PyTorch's choice, the last."""
    x = small_integers(rng, (2, 17, 14, 15), np.float32)
    for odd in (nan, inf, -inf):
        x[rng.random(x.shape) < 0.1] = odd
    for options in ({"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}, {"kernel_size": (3, 2), "dilation": (2, 3)}):
        output, indices = module.max_pool2d(x, **options, return_indices=True)
        expected, expected_indices = TF.max_pool2d(tensor(x), **options, return_indices=True)
        np.testing.assert_array_equal(output, expected.numpy())
        np.testing.assert_array_equal(indices, expected_indices.numpy())


# --- everything else: a few roundings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [F, reference], ids=["functional", "reference"])
@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("case", AVG_POOL, ids=ids(AVG_POOL))
def test_avg_pool2d(case, count_include_pad, module, rng):
    options = {**case.average_options, "count_include_pad": count_include_pad}
    x = distinct(rng, case.input_shape)
    output = module.avg_pool2d(x, **options)
    g = distinct(rng, output.shape)
    expected, (gradient,) = gradients(TF.avg_pool2d, (x,), g, **options)
    assert_within(output, expected, 1e-14)
    assert_within(module.avg_pool2d_backward(g, x.shape, **options), gradient, 1e-14)


@pytest.mark.parametrize("module", [F, reference], ids=["functional", "reference"])
@pytest.mark.parametrize("case", ADAPTIVE, ids=ids(ADAPTIVE))
def test_adaptive_avg_pool2d(case, module, rng):
    x = distinct(rng, case[1])
    output = module.adaptive_avg_pool2d(x, case[2])
    g = distinct(rng, output.shape)
    expected, (gradient,) = gradients(TF.adaptive_avg_pool2d, (x,), g, output_size=case[2])
    assert_within(output, expected, 1e-14)
    assert_within(module.adaptive_avg_pool2d_backward(g, x.shape), gradient, 1e-14)


@both_dtypes
@pytest.mark.parametrize("case", LINEAR, ids=ids(LINEAR))
def test_linear(case, dtype, rng):
    _, shape, outputs = case
    x, w, b = (small_integers(rng, s, dtype) for s in (shape, (outputs, shape[-1]), (outputs,)))
    g = small_integers(rng, (*shape[:-1], outputs), dtype)
    expected, expected_gradients = gradients(TF.linear, (x, w, b), g)
    np.testing.assert_array_equal(F.linear(x, w, b), expected)
    for actual, e in zip(F.linear_backward(g, x, w), expected_gradients, strict=True):
        np.testing.assert_array_equal(actual, e)


@pytest.mark.parametrize("module", [F, reference], ids=["functional", "reference"])
@both_dtypes
@pytest.mark.parametrize("op", OPS, ids=op_ids(OPS))
def test_every_op(op, dtype, module, rng):
    """The common table, called with the same words: arguments have PyTorch's names and meaning."""
    arguments = op.draw(rng, dtype)
    tensors = {name: tensor(a) for name, a in arguments.items()}
    names = [name for name, a in arguments.items() if a.dtype.kind == "f" and name not in op.unused]
    for name in names:
        tensors[name].requires_grad_()
    expected = op.forward(TF, **tensors)
    output = op.forward(module, **arguments)
    assert isinstance(output, float) if expected.ndim == 0 else output.dtype == dtype
    bound = 64 * np.finfo(dtype).eps
    wanted = expected.detach().numpy()
    assert_within(np.asarray(output), wanted, bound * (1 + np.abs(wanted).max()), "output")
    grad_output = distinct(rng, wanted.shape, dtype) if wanted.ndim else dtype(1)
    computed = op.backward(module, grad_output, **arguments)
    autograd = torch.autograd.grad(expected, [tensors[name] for name in names], tensor(np.asarray(grad_output)))
    for name, e in zip(names, autograd, strict=True):
        assert_within(computed[name], e.numpy(), bound * (1 + np.abs(e.numpy()).max()), name)


@pytest.mark.parametrize("module", [F, reference], ids=["functional", "reference"])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_running_statistics(training, module, rng):
    x, mean, var = distinct(rng, (3, 5, 4, 2)), distinct(rng, (5,)), 1 + rng.random(5)
    torch_mean, torch_var = tensor(mean.copy()), tensor(var.copy())
    expected = TF.batch_norm(tensor(x), torch_mean, torch_var, training=training, momentum=0.3, eps=0.01)
    assert_within(module.batch_norm(x, mean, var, training=training, momentum=0.3, eps=0.01), expected.numpy(), 1e-13)
    np.testing.assert_allclose(mean, torch_mean.numpy(), rtol=1e-13)
    np.testing.assert_allclose(var, torch_var.numpy(), rtol=1e-13)


# --- the corners ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 2, 3)], ids=["classes", "map"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "plain"])
@pytest.mark.parametrize("ignore_index", [-100, 1])
def test_cross_entropy(reduction, shape, label_smoothing, weighted, ignore_index, rng):
    """Every combination of options, some labels ignored."""
    x, target = distinct(rng, shape), rng.integers(0, 5, (4, *shape[2:]))
    target.flat[0] = ignore_index
    weight = 1 + rng.random(5) if weighted else None
    options = {"ignore_index": ignore_index, "reduction": reduction, "label_smoothing": label_smoothing}
    g = distinct(rng, target.shape) if reduction == "none" else None
    expected, (gradient,) = gradients(lambda x: TF.cross_entropy(x, tensor(target), tensor(weight), **options), (x,), g)
    assert_within(np.asarray(F.cross_entropy(x, target, weight, **options)), expected, 1e-13)
    given = {} if g is None else {"grad_output": g}
    assert_within(F.cross_entropy_backward(x, target, weight, **options, **given), gradient, 1e-14)


@both_dtypes
def test_binary_cross_entropy_at_the_ends(dtype):
    """log 0 is -100, and so is its gradient bounded."""
    a, y = np.array([0, 0, 1, 1, 1e-30, 0.5], dtype), np.array([0, 1, 0, 1, 1, 0.25], dtype)
    expected, (gradient,) = gradients(lambda a: TF.binary_cross_entropy(a, tensor(y), reduction="none"), (a,), np.ones_like(a))
    np.testing.assert_allclose(F.binary_cross_entropy(a, y, reduction="none"), expected, rtol=1e-6)
    np.testing.assert_allclose(F.binary_cross_entropy_backward(a, y, reduction="none"), gradient, rtol=1e-6)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "sigmoid", "tanh"])
def test_activations_of_nan_infinities_and_zeros(name):
    """Longer than a vector, and each odd number once in every lane."""
    x = np.resize(np.array([nan, inf, -inf, 0.0, -0.0, 1.0, -1.0], np.float32), 7 * 16)
    expected, (gradient,) = gradients(getattr(TF, name) if "relu" in name else getattr(torch, name), (x,), np.ones_like(x))
    np.testing.assert_allclose(getattr(F, name)(x), expected, rtol=1e-6)
    np.testing.assert_allclose(getattr(F, f"{name}_backward")(np.ones_like(x), x), gradient, rtol=1e-6)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_softmax_of_extremes(name, dim, rng):
    x = distinct(rng, (5, 6, 7)) * 400
    x[rng.random(x.shape) < 0.1] = -inf
    x[2] = -inf
    x[3, 4, 5] = nan
    expected, _ = gradients(lambda x: getattr(TF, name)(x, dim=dim), (x,), np.ones_like(x))
    np.testing.assert_allclose(getattr(F, name)(x, dim), expected, rtol=1e-12, atol=1e-300)


OPTIMIZERS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.2}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("Adam", {"lr": 0.1}),
    ("Adam", {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.1}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.3}),
    ("RMSprop", {"lr": 0.1}),
    ("RMSprop", {"lr": 0.1, "alpha": 0.9, "momentum": 0.8, "weight_decay": 0.1, "eps": 1e-4}),
    ("RMSprop", {"lr": 0.1, "alpha": 0.9, "momentum": 0.8, "centered": True}),
]


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=str)
def test_reference_optimizers(name, options, rng):
    w = rng.standard_normal((3, 4))
    parameter = torch.nn.Parameter(tensor(w.copy()))
    optimizer = getattr(torch.optim, name)([parameter], **options)
    own = {key: value for key, value in options.items() if key != "centered"}
    state = {"SGD": [None], "RMSprop": [np.zeros_like(w), np.zeros_like(w) if "centered" in options else None, None]}.get(
        name, [np.zeros_like(w), np.zeros_like(w)]
    )
    for step in range(1, 8):
        g = rng.standard_normal(w.shape)
        parameter.grad = tensor(g)
        optimizer.step()
        count = [step] if name.startswith("Adam") else []
        updated = getattr(reference, name.lower())(w, g, *state, *count, **own)
        w, state = updated[0], list(updated[1:])
        np.testing.assert_allclose(w, parameter.detach().numpy(), rtol=1e-12)
