"""Linear layers, batch normalisation, activations, dropout and losses beyond the common table: exactness, ranges, options."""

import importlib
import itertools
from unittest import mock

import numpy as np
import pytest
from cases import LINEAR, ids
from checks import assert_same_bits, assert_within, distinct, small_integers
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv import functional as F
from fastconv import reference
from fastconv.kernels import dense, dense_weight
from fastconv.memory import empty

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)

# --- linear --------------------------------------------------------------------------------------------------------------


def check_linear(shape, outputs, dtype, rng):
    x, w, b = (small_integers(rng, s) for s in (shape, (outputs, shape[-1]), (outputs,)))
    g = small_integers(rng, (*shape[:-1], outputs))
    results = [F.linear(*(a.astype(dtype) for a in (x, w, b)))]
    results += F.linear_backward(*(a.astype(dtype) for a in (g, x, w)))
    expected = [reference.linear(x, w, b), *reference.linear_backward(g, x, w)]
    for name, actual, e in zip(("output", "grad_input", "grad_weight", "grad_bias"), results, expected, strict=True):
        assert actual.dtype == dtype
        np.testing.assert_array_equal(actual, e, err_msg=name)
    np.testing.assert_array_equal(F.linear(x.astype(dtype), w.astype(dtype)), expected[0] - b)


@both_dtypes
@pytest.mark.parametrize("case", LINEAR, ids=ids(LINEAR))
def test_linear_is_exact(case, dtype, rng):
    check_linear(*case[1:], dtype, rng)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 70), min_size=2, max_size=3), st.integers(1, 300), st.integers(0, 2**32))
def test_drawn_linear_layers_are_exact(shape, outputs, seed):
    check_linear(tuple(shape), outputs, np.float32, np.random.default_rng(seed))


@settings(max_examples=200)
@given(st.integers(1, 5), st.integers(1, 3000), st.sampled_from([32, 128, 256]), st.sampled_from([2, 4, 8, 16]))
def test_blocks_of_columns_are_even_and_nearly_alike(row_blocks, N, columns, lanes):
    """All vectors of columns in order, in blocks of `columns` at most, nearly alike."""
    vectors, blocks = -(-N // lanes), dense.column_blocks_of.py_func(row_blocks, N, columns)
    with mock.patch.object(dense, "part", dense.part.py_func):
        cuts = [dense.vectors_of.py_func(block, blocks, vectors) for block in range(blocks)]
    assert blocks == 1 or row_blocks * blocks % 2 == 0
    assert [v for first, last in cuts for v in range(first, last)] == list(range(vectors))
    sizes = [last - first for first, last in cuts]
    assert min(sizes) > 0
    assert max(sizes) * lanes <= max(columns, 2 * lanes)
    assert max(sizes) - min(sizes) <= 3


@both_dtypes
@pytest.mark.parametrize("outputs", [33, 65, 84, 100, 161])
def test_an_uneven_number_of_column_blocks_is_exact(outputs, dtype, rng):
    check_linear((64, 120), outputs, dtype, rng)


DENSE = importlib.import_module("fastconv.functional.linear")


CROWDED_PARTS = 2 if dense.CROWDED else 1
LONG = {  # (batch, inputs, outputs): parts of the sum of a float32 product
    (64, 1500, 10): 2,
    (3, 2051, 32): 4,
    (100, 10240, 32): 16,
    (300, 2048, 32): 1,  # rows enough for two threads
    (100, 1500, 33): 1,
    (5, 1024, 300): CROWDED_PARTS,
    (90, 1024, 40): CROWDED_PARTS,
    (5, 2048, 300): 4 if dense.CROWDED else 1,
    (90, 4096, 40): 8 if dense.CROWDED else 1,
    (2, 9216, 700): 4 if dense.CROWDED else 1,
    (600, 1024, 100): CROWDED_PARTS,
    (700, 1024, 100): 1,  # a result that is not small
}


@both_dtypes
@pytest.mark.parametrize(("batch", "inputs", "outputs"), LONG)
def test_a_long_sum_in_parts_is_exact(batch, inputs, outputs, dtype, rng):
    """Of the layer itself, and of the input's gradient of one turned round, which is a product of its own for batches of more than 96."""
    if dtype is np.float32:
        assert DENSE._splits(batch, outputs, inputs, 4) == LONG[batch, inputs, outputs]
    check_linear((batch, inputs), outputs, dtype, rng)
    check_linear((batch, outputs), inputs, dtype, rng)


@both_dtypes
@pytest.mark.parametrize(("batch", "inputs", "outputs"), LONG)
def test_a_rectified_long_sum_has_the_bits_of_one_after_the_other(batch, inputs, outputs, dtype, rng):
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in ((batch, inputs), (outputs, inputs), (outputs,)))
    x[0, 1], x[0, -1], x[-1, -1] = np.nan, np.inf, np.inf
    assert_same_bits(DENSE.linear_relu(x, w, b), F.relu(F.linear(x, w, b)))
    g, y, w = rng.standard_normal((batch, inputs)).astype(dtype), F.relu(rng.standard_normal((batch, outputs)).astype(dtype)), w.T.copy()
    for mask in ((True, True, True), (True, False, False)):
        expected = F.relu_backward(F.linear_backward(g, y, w, output_mask=mask)[0], y)
        assert_same_bits(DENSE.relu_linear_backward(g, y, w, mask)[0], expected)


@settings(max_examples=300)
@given(st.integers(1, 30000), st.integers(1, 3000), st.sampled_from([1, 2, 4, 8, 16]), st.booleans())
def test_blocks_of_a_product_are_even_and_high_enough(M, N, splits, crowded):
    columns = dense.column_blocks_of.py_func
    with mock.patch.object(dense, "is_crowded", return_value=crowded), mock.patch.object(dense, "column_blocks_of", columns):
        row_blocks, column_blocks = dense.blocks_of.py_func(None, M, N, 0, splits)
    jobs, rows = row_blocks * column_blocks, -(-M // row_blocks)
    assert jobs == 1 or jobs % 2 == 0
    assert rows <= dense.ROWS
    assert row_blocks == 1 or rows >= 0.7 * dense.FEW_ROWS
    assert M < 2 * dense.FEW_ROWS or splits * jobs >= dense.FEW_JOBS // 2 or rows < 2 * dense.FEW_ROWS


@pytest.fixture
def packing(monkeypatch):
    """Every sum over rows packs what it reads of one factor, CHUNK_ROWS rows at a time."""
    monkeypatch.setattr(DENSE, "COPYING_BLOCKS", 0)
    monkeypatch.setattr(DENSE, "CHUNK_BYTES", 1)
    DENSE._cut_over_rows.cache_clear()
    yield
    DENSE._cut_over_rows.cache_clear()


@both_dtypes
@pytest.mark.parametrize("inputs", [37, 101])
@pytest.mark.parametrize("batch", [1024, 1025, 1100, 2600])
def test_the_weight_gradient_of_a_long_batch_is_exact(batch, inputs, dtype, rng):
    """One part, two and four; and, of fewer inputs than outputs, the transposed product."""
    check_linear((batch, inputs), 110, dtype, rng)


@both_dtypes
@pytest.mark.parametrize("inputs", [37, 101])
@pytest.mark.parametrize("batch", [1025, 2600])
@pytest.mark.usefixtures("packing")
def test_the_weight_gradient_of_packed_chunks_is_exact(batch, inputs, dtype, rng):
    """Chunks that are packed one after the other, with a last one that is shorter than what is worth packing."""
    assert DENSE._cut_over_rows(inputs, 110, batch, np.dtype(dtype).itemsize)[:2] == (True, DENSE.CHUNK_ROWS)
    check_linear((batch, inputs), 110, dtype, rng)


@both_dtypes
@pytest.mark.parametrize(("inputs", "outputs"), [(8200, 40), (2100, 600), (300, 1100), (300, 1024), (120, 1024)])
def test_the_weight_gradient_of_a_wide_layer_is_exact(inputs, outputs, dtype, rng):
    """Parts of a sum that are several blocks of rows, whose columns are copied strip by strip, or packed; the last strip is not whole.

    Blocks of 2,100 and 300 inputs are LARGE where memory comes late, and rows of 1,024 outputs crowded.
    """
    check_linear((1100, inputs), outputs, dtype, rng)


@both_dtypes
@pytest.mark.parametrize(("inputs", "outputs"), [(3, 2), (601, 200), (301, 400), (1024, 400), (300, 1100)])
def test_the_weight_gradient_of_no_rows_is_zero(inputs, outputs, dtype):
    """Also of layers whose factors would be copied, or packed."""
    x, w, g = np.zeros((0, inputs), dtype), np.ones((outputs, inputs), dtype), np.zeros((0, outputs), dtype)
    empty(w.shape, w.dtype).fill(np.nan)  # what the result may lie in
    grad_input, grad_weight, grad_bias = F.linear_backward(g, x, w)
    assert grad_input.shape == x.shape
    assert grad_weight.shape == w.shape
    assert not grad_weight.any()
    assert not grad_bias.any()


@pytest.mark.parametrize("K", [1, 96, 97, 1024, 1025, 3136, 5000, 100_000])
@pytest.mark.parametrize(("M", "N"), [(1, 1), (64, 64), (256, 256), (300, 700), (512, 512), (1280, 1280), (4096, 4096)])
def test_a_sum_over_rows_is_cut_evenly(M, N, K):
    """Into 1, 2, 4, 8 or 16 parts, as few as leave SPLIT_ROWS rows or less to each, and no more than PARTS over all blocks."""
    pack, chunk, splits, row_blocks, column_blocks = DENSE._cut_over_rows(M, N, K, 4)
    rows, most = min(K, chunk), max(1, DENSE.PARTS // (row_blocks * column_blocks))
    assert splits in (1, 2, 4, 8, 16)
    assert splits <= most
    assert splits * DENSE.SPLIT_ROWS >= rows or 2 * splits > most
    assert splits == 1 or splits // 2 * DENSE.SPLIT_ROWS < rows
    assert pack == (row_blocks > DENSE.COPYING_BLOCKS and (K > dense_weight.SHORT or M * N > dense_weight.SHORT_RESULT))


@both_dtypes
@pytest.mark.parametrize("inputs", [300, 341, 512])
@pytest.mark.parametrize("batch", [1, 2, 3, 64, 96])
def test_the_weight_gradient_of_a_small_batch_is_exact(batch, inputs, dtype, rng):
    """Rows that are read where they are, for a small weight, and packed for a large one."""
    check_linear((batch, inputs), 310, dtype, rng)


@both_dtypes
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (3, 7), (16, 4), (33, 5), (2000, 110), (4500, 67)])
def test_one_row_is_exact(inputs, outputs, dtype, rng):
    """A few numbers, several parts of the weight's rows, and more of its columns than are added up at a time."""
    check_linear((1, inputs), outputs, dtype, rng)


@both_dtypes
@pytest.mark.parametrize("inputs", [32, 96, 512])
@pytest.mark.parametrize("batch", [97, 300, 1100])
def test_the_weight_gradient_of_short_rows_is_exact(batch, inputs, dtype, rng):
    """Rows of whole vectors, which are read where they are; one block of a sum and several, in one part and in two."""
    check_linear((batch, inputs), 20, dtype, rng)


@both_dtypes
@pytest.mark.parametrize("batch", [15, 40, 225])
def test_factors_whose_rows_are_a_multiple_of_pages_are_exact(batch, dtype, rng):
    """Strips of rows that are copied, of a small result and of large ones; several parts of the sum."""
    check_linear((batch, 1024), 1024, dtype, rng)


@pytest.mark.parametrize("size", [(3, 5, 4), (60, 20, 300), (60, 70, 90)], ids=["tiny", "one block of the input's", "several"])
@pytest.mark.parametrize("mask", [mask for mask in itertools.product((True, False), repeat=3) if any(mask)])
def test_linear_output_mask(mask, size, rng):
    rows, inputs, outputs = size
    g, x, w = distinct(rng, (rows, outputs)), distinct(rng, (rows, inputs)), distinct(rng, (outputs, inputs))
    computed, full = F.linear_backward(g, x, w, output_mask=mask), F.linear_backward(g, x, w)
    for wanted, actual, expected in zip(mask, computed, full, strict=True):
        assert actual is None if not wanted else np.array_equal(actual, expected)


# --- batch normalisation -------------------------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
@pytest.mark.parametrize(
    "shape", [(2, 3, 1, 1), (3, 1, 2, 5), (2, 17, 7, 6), (4, 33, 5, 3), (9, 16, 1, 2), (3, 5, 50, 61), (4, 24, 40, 41)], ids=str
)
def test_batch_norm_training(shape, affine, dtype, rng):
    """Output, running statistics, gradients; the input's mean is far from 0, where a one-pass variance loses digits."""
    x = (100 + distinct(rng, shape)).astype(dtype)
    C = shape[1]
    weight, bias = (distinct(rng, C).astype(dtype), distinct(rng, C).astype(dtype)) if affine else (None, None)
    running = distinct(rng, C).astype(dtype), 1 + rng.random(C).astype(dtype)
    naive_running = [a.astype(np.float64) for a in running]
    wide = [None if a is None else a.astype(np.float64) for a in (x, weight, bias)]
    output = F.batch_norm(x, *running, weight, bias, training=True, momentum=0.3)
    expected = reference.batch_norm(wide[0], *naive_running, *wide[1:], training=True, momentum=0.3)
    eps = np.finfo(dtype).eps
    assert output.dtype == dtype
    assert_within(output, expected, 200 * eps * (4 + np.abs(expected)), "output")  # 100 digits of x are shifted away
    assert_within(running[0], naive_running[0], 4 * eps * (30 + np.abs(naive_running[0])), "running_mean")
    assert_within(running[1], naive_running[1], 200 * eps * naive_running[1], "running_var")
    g = distinct(rng, shape).astype(dtype)
    gradients = F.batch_norm_backward(g, x, *running, weight, training=True)
    naive = reference.batch_norm_backward(g.astype(np.float64), wide[0], *naive_running, wide[1], training=True)
    count = x.size // C
    for name, actual, e in zip(("grad_input", "grad_weight", "grad_bias"), gradients, naive, strict=True):
        scale = np.abs(e).max() + (4 if name == "grad_input" else count)
        assert_within(actual, e, 400 * eps * scale, name)


@both_dtypes
def test_batch_norm_of_rows_that_start_far_from_their_mean(dtype, rng):
    """Distances are taken from the mean of a block's first rows."""
    x = (1000 + distinct(rng, (1, 16, 32, 60))).astype(dtype)
    x[:, :, 0, :40] = -1000
    expected, variance = x.astype(np.float64).var(axis=(0, 2, 3), ddof=1), np.zeros(16, dtype)
    F.batch_norm(x, None, variance, training=True, momentum=1.0)
    assert_within(variance, expected, 200 * np.finfo(dtype).eps * expected, "variance")


def test_batch_norm_moves_the_running_statistics_towards_the_batch():
    x = np.array([1.0, 3, 5, 7]).reshape(4, 1, 1, 1)
    mean, var = np.zeros(1), np.ones(1)
    F.batch_norm(x, mean, var, training=True, momentum=0.25)
    np.testing.assert_allclose([mean[0], var[0]], [1, 0.75 + 5 / 3], rtol=1e-15)
    F.batch_norm(x, mean, var, training=False)
    np.testing.assert_allclose([mean[0], var[0]], [1, 0.75 + 5 / 3], rtol=1e-15)


def test_batch_norm_without_running_statistics(rng):
    x = distinct(rng, (3, 4, 5, 2))
    np.testing.assert_array_equal(F.batch_norm(x, None, None, training=True), F.batch_norm(x, np.zeros(4), np.ones(4), training=True))


def test_batch_norm_of_a_constant_channel_is_its_bias():
    x = np.full((2, 3, 4, 5), 7.5, np.float32)
    bias = np.array([1.0, -2, 0.5], np.float32)
    output = F.batch_norm(x, None, None, np.ones(3, np.float32), bias, training=True)
    np.testing.assert_array_equal(output, np.broadcast_to(bias[:, None, None], x.shape))


@pytest.mark.parametrize("mask", [(True, False, False), (False, True, False), (False, False, True)])
def test_batch_norm_output_mask(mask, rng):
    x, g, mean, var = distinct(rng, (3, 4, 5, 2)), distinct(rng, (3, 4, 5, 2)), np.zeros(4), np.ones(4)
    full = F.batch_norm_backward(g, x, mean, var, None, True)
    computed = F.batch_norm_backward(g, x, mean, var, None, True, output_mask=mask)
    for wanted, actual, expected in zip(mask, computed, full, strict=True):
        assert actual is None if not wanted else np.array_equal(actual, expected)


# --- activations ---------------------------------------------------------------------------------------------------------

ACTIVATIONS = {
    "relu": {},
    "leaky_relu": {"negative_slope": 0.2},
    "gelu": {},
    "gelu-tanh": {"approximate": "tanh"},
    "silu": {},
    "sigmoid": {},
    "tanh": {},
}


def ladder(dtype):
    """Both signs of everything from the smallest normal number to far beyond where exp overflows, and 0; of an odd length."""
    steps = np.geomspace(np.finfo(dtype).tiny * 4, 1e4, 997)
    return np.concatenate([-steps[::-1], [0.0, -0.0], np.linspace(-12, 12, 1203), steps]).astype(dtype)


@both_dtypes
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_over_the_whole_range(name, dtype):
    """A few eps of the value itself. Derivatives are of order 1, but differences of larger numbers: x (1 - t^2) in GELU loses 40 eps."""
    function, options = name.partition("-")[0], ACTIVATIONS[name]
    x = ladder(dtype)
    wide, eps = x.astype(np.float64), np.finfo(dtype).eps
    expected = getattr(reference, function)(wide, **options)
    output = getattr(F, function)(x, **options)
    assert output.dtype == dtype
    assert_within(output, expected, 8 * eps * np.maximum(np.abs(expected), np.minimum(np.abs(wide), 1)), "output")
    g = np.linspace(0.5, 2, x.size).astype(dtype)
    gradient = getattr(F, f"{function}_backward")(g, x, **options)
    assert gradient.dtype == dtype
    assert_within(gradient, getattr(reference, f"{function}_backward")(g.astype(np.float64), wide, **options), 64 * eps, "gradient")


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_a_known_output_saves_the_activation(name, rng):
    x, g = distinct(rng, (3, 5, 2, 4), np.float32), distinct(rng, (3, 5, 2, 4), np.float32)
    backward = getattr(F, f"{name}_backward")
    assert_within(backward(g, x, output=getattr(F, name)(x)), backward(g, x).astype(np.float64), 1e-6)


@both_dtypes
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize(("shape", "dim"), [((1, 1), -1), ((3, 10), 1), ((2, 5, 3, 4), 1), ((2, 5, 3, 4), -2), ((2, 3, 17), 0), ((6,), 0)])
def test_softmax(name, shape, dim, dtype, rng):
    """Rows far from 0 and wide: nothing overflows, and the probabilities add up to 1."""
    x = (1000 + 40 * distinct(rng, shape)).astype(dtype)
    wide, eps = x.astype(np.float64), np.finfo(dtype).eps
    expected = getattr(reference, name)(wide, dim)
    output = getattr(F, name)(x, dim=dim)
    assert output.dtype == dtype
    assert_within(output, expected, eps * (8 + np.abs(expected)), "output")
    if name == "softmax":
        np.testing.assert_allclose(output.sum(axis=dim), 1, rtol=20 * eps)
    g = distinct(rng, shape).astype(dtype)
    gradient = getattr(F, f"{name}_backward")(g, output, dim=dim)
    naive = getattr(reference, f"{name}_backward")(g.astype(np.float64), output.astype(np.float64), dim)
    assert_within(gradient, naive, 8 * eps * (4 + x.shape[dim]), "gradient")


# --- dropout -------------------------------------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("p", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_dropout_agrees_with_the_reference_given_its_mask(p, dtype, rng):
    x = distinct(rng, (3, 5, 4, 7), dtype)
    output, mask = F.dropout(x, p, rng=rng, return_mask=True)
    assert output.dtype == dtype
    assert mask.shape == x.shape
    assert_within(output, reference.dropout(x.astype(np.float64), mask, p), 2 * np.finfo(dtype).eps * np.abs(output), "output")
    g = distinct(rng, x.shape, dtype)
    gradient = F.dropout_backward(g, mask, p)
    assert gradient.dtype == dtype
    assert_within(
        gradient, reference.dropout_backward(g.astype(np.float64), mask, p), 2 * np.finfo(dtype).eps * np.abs(gradient), "gradient"
    )


def test_dropout_keeps_the_mean_and_repeats_with_its_seed(rng):
    x = np.ones((50, 8, 25, 10), np.float32)
    output, mask = F.dropout(x, 0.3, rng=np.random.default_rng(5), return_mask=True)
    assert abs(np.mean(mask != 0) - 0.7) < 5 * np.sqrt(0.21 / x.size)
    assert abs(output.mean() - 1) < 5 * np.sqrt(0.3 / 0.7 / x.size)
    np.testing.assert_array_equal(output, F.dropout(x, 0.3, rng=np.random.default_rng(5)))
    assert not np.array_equal(output, F.dropout(x, 0.3, rng=np.random.default_rng(6)))


def test_dropout_does_nothing_in_evaluation(rng):
    x = distinct(rng, (3, 4, 2, 2), np.float32)
    np.testing.assert_array_equal(F.dropout(x, 0.5, training=False), x)
    np.testing.assert_array_equal(F.dropout(x, 0.0), x)


# --- losses --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_cross_entropy_takes_labels_of_any_integer_type(kind, rng):
    x, target = distinct(rng, (6, 5), np.float32), rng.integers(0, 5, 6)
    assert F.cross_entropy(x, target.astype(kind)) == F.cross_entropy(x, target)
    np.testing.assert_array_equal(F.cross_entropy_backward(x, target.astype(kind)), F.cross_entropy_backward(x, target))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_ignores_labels_wherever_they_lie(reduction, rng):
    """ignore_index may be no class at all, PyTorch's default -100 or any other."""
    x, target = distinct(rng, (6, 5)), rng.integers(0, 5, 6)
    target[[1, 4]] = -100
    plain = F.cross_entropy(x, target, reduction=reduction)
    np.testing.assert_array_equal(F.cross_entropy(x, np.where(target < 0, 77, target), ignore_index=77, reduction=reduction), plain)
    assert np.all(F.cross_entropy_backward(x, target, reduction=reduction)[[1, 4]] == 0)
    np.testing.assert_allclose(plain, reference.cross_entropy(x, target, reduction=reduction), rtol=1e-14)


def test_cross_entropy_of_hopeless_and_of_certain_logits():
    """The largest float32 differences of logits give finite losses and gradients."""
    x = np.array([[3e4, -3e4, 0], [-3e4, 3e4, 0]], np.float32)
    np.testing.assert_array_equal(F.cross_entropy(x, np.array([0, 0]), reduction="none"), np.array([0, 6e4], np.float32))
    np.testing.assert_array_equal(F.cross_entropy_backward(x, np.array([0, 0]), reduction="sum"), [[0, 0, 0], [-1, 1, 0]])


@both_dtypes
def test_binary_cross_entropy_at_and_near_0_and_1(dtype):
    """Logarithms stop at -100 and denominators at 1e-12, as in PyTorch."""
    a = np.array([0, 0, 1, 1, 1e-30, 0.5, 1 - np.finfo(dtype).eps], dtype)
    y = np.array([0, 1, 0, 1, 1, 0.25, 0], dtype)
    wide = a.astype(np.float64), y.astype(np.float64)
    eps = np.finfo(dtype).eps
    for name in ("binary_cross_entropy", "binary_cross_entropy_backward"):
        expected = getattr(reference, name)(*wide, reduction="none")
        assert_within(getattr(F, name)(a, y, reduction="none"), expected, 8 * eps * np.maximum(1, np.abs(expected)), name)


@both_dtypes
def test_binary_cross_entropy_with_logits_never_overflows(dtype):
    z = ladder(dtype)
    for y in (0.0, 1.0, 0.25):
        target = np.full_like(z, y)
        for name in ("binary_cross_entropy_with_logits", "binary_cross_entropy_with_logits_backward"):
            expected = getattr(reference, name)(z.astype(np.float64), target.astype(np.float64), reduction="none")
            actual = getattr(F, name)(z, target, reduction="none")
            assert_within(actual, expected, 8 * np.finfo(dtype).eps * np.maximum(1, np.abs(expected)), name)
