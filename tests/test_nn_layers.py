"""Every layer: numerical gradients in float64, initial weights, options, modes."""

import numpy as np
import pytest
from checks import distinct, numerical_gradient

from fastconv import gradcheck, nn
from fastconv.errors import ArgumentError, ArgumentTypeError
from fastconv.nn import init

D = {"dtype": np.float64}
# fmt: off
LAYERS = [
    # name                     layer                                                                    input shape
    ("conv",                   lambda: nn.Conv2d(2, 3, 3, **D),                                         (2, 2, 5, 4)),
    ("conv_options",           lambda: nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), (1, 2), 2, False, **D),  (2, 4, 6, 5)),
    ("conv_same",              lambda: nn.Conv2d(2, 3, (2, 3), padding="same", **D),                    (1, 2, 4, 5)),
    ("conv_asymmetric",        lambda: nn.Conv2d(1, 2, 3, padding=((1, 0), (0, 2)), **D),               (1, 1, 4, 3)),
    ("conv_loops",             lambda: nn.Conv2d(2, 3, 3, algorithm="loops", **D),                      (1, 2, 4, 4)),
    ("conv_im2col",            lambda: nn.Conv2d(2, 3, 3, algorithm="im2col", **D),                     (1, 2, 4, 4)),
    ("depthwise",              lambda: nn.Conv2d(3, 6, 3, groups=3, **D),                               (2, 3, 4, 5)),
    ("transposed",             lambda: nn.ConvTranspose2d(2, 3, 3, **D),                                (2, 2, 3, 4)),
    ("transposed_options",     lambda: nn.ConvTranspose2d(4, 6, (3, 2), 2, 1, 1, 2, False, **D),        (1, 4, 3, 4)),
    ("transposed_dilated",     lambda: nn.ConvTranspose2d(2, 2, 2, dilation=2, **D),                    (1, 2, 3, 2)),
    ("max_pool",               lambda: nn.MaxPool2d(2),                                                 (2, 3, 4, 6)),
    ("max_pool_options",       lambda: nn.MaxPool2d((3, 2), 2, 1, ceil_mode=True),                      (2, 3, 6, 5)),
    ("max_pool_dilated",       lambda: nn.MaxPool2d(2, 1, 0, (2, 3)),                                   (1, 2, 5, 6)),
    ("avg_pool",               lambda: nn.AvgPool2d(2),                                                 (2, 3, 4, 6)),
    ("avg_pool_options",       lambda: nn.AvgPool2d(3, 2, 1, True, False),                              (1, 2, 6, 5)),
    ("adaptive_pool",          lambda: nn.AdaptiveAvgPool2d((2, None)),                                 (2, 3, 5, 4)),
    ("global_pool",            lambda: nn.AdaptiveAvgPool2d(1),                                         (2, 3, 5, 4)),
    ("linear",                 lambda: nn.Linear(4, 3, **D),                                            (5, 4)),
    ("linear_no_bias",         lambda: nn.Linear(4, 3, bias=False, **D),                                (2, 3, 4)),
    ("flatten",                lambda: nn.Flatten(),                                                    (2, 3, 2, 4)),
    ("flatten_some",           lambda: nn.Flatten(2, 3),                                                (2, 3, 2, 4)),
    ("batch_norm",             lambda: nn.BatchNorm2d(3, **D),                                          (4, 3, 3, 2)),
    ("batch_norm_eval",        lambda: nn.BatchNorm2d(3, **D).eval(),                                   (4, 3, 3, 2)),
    ("batch_norm_plain",       lambda: nn.BatchNorm2d(3, affine=False, **D),                            (4, 3, 3, 2)),
    ("batch_norm_untracked",   lambda: nn.BatchNorm2d(3, track_running_stats=False, **D).eval(),        (4, 3, 3, 2)),
    ("dropout_eval",           lambda: nn.Dropout(0.3).eval(),                                          (3, 4)),
    ("relu",                   lambda: nn.ReLU(),                                                       (3, 2, 2, 3)),
    ("leaky_relu",             lambda: nn.LeakyReLU(0.2),                                               (3, 5)),
    ("leaky_relu_negative",    lambda: nn.LeakyReLU(-0.5),                                              (3, 5)),
    ("gelu",                   lambda: nn.GELU(),                                                       (3, 5)),
    ("gelu_tanh",              lambda: nn.GELU("tanh"),                                                 (3, 5)),
    ("silu",                   lambda: nn.SiLU(),                                                       (2, 3, 2, 2)),
    ("sigmoid",                lambda: nn.Sigmoid(),                                                    (3, 5)),
    ("tanh",                   lambda: nn.Tanh(),                                                       (2, 3, 2, 2)),
    ("softmax",                lambda: nn.Softmax(),                                                    (3, 5)),
    ("softmax_channels",       lambda: nn.Softmax(1),                                                   (2, 3, 2, 2)),
]
# fmt: on


@pytest.mark.parametrize(("name", "make", "shape"), LAYERS, ids=[case[0] for case in LAYERS])
def test_gradients_are_the_numerical_ones(rng, name, make, shape):
    assert gradcheck(make(), distinct(rng, shape), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("name", "make", "shape"), LAYERS, ids=[case[0] for case in LAYERS])
def test_backward_parameters_gives_the_gradients_of_backward(rng, name, make, shape):
    layer, x = make(), distinct(rng, shape)
    y = layer(x)
    g = rng.standard_normal(y.shape)
    layer.backward(g)
    expected = [parameter.grad for parameter in layer.parameters()]
    layer.zero_grad()
    assert layer.backward_parameters(g) is None
    for parameter, grad in zip(layer.parameters(), expected, strict=True):
        np.testing.assert_array_equal(parameter.grad, grad)


@pytest.mark.parametrize(("name", "make", "shape"), LAYERS, ids=[case[0] for case in LAYERS])
def test_a_gradient_of_another_shape_is_refused(rng, name, make, shape):
    layer = make()
    g = np.zeros(layer(distinct(rng, shape)).shape)
    for wrong in (g[..., :-1], g[None], np.concatenate([g, g])):
        with pytest.raises(ArgumentError, match="grad_output"):
            layer.backward(wrong)


@pytest.mark.parametrize(("name", "make", "shape"), [case for case in LAYERS if case[0] != "flatten_some"])
def test_what_is_no_array_of_floats_is_refused(name, make, shape):
    layer = make()
    for wrong in ([[1.0, 2.0]], None, np.ones(shape, np.int64), np.ones(shape, np.float16)):
        if name in ("flatten", "dropout_eval") and isinstance(wrong, np.ndarray):
            continue  # they move numbers without reading them
        with pytest.raises(ArgumentTypeError, match="input"):
            layer(wrong)


# --- initial weights


@pytest.mark.parametrize(
    ("make", "shape", "fan_in"),
    [
        (lambda: nn.Conv2d(8, 40, (3, 5), seed=1), (40, 8, 3, 5), 120),
        (lambda: nn.Conv2d(8, 40, 5, groups=4, seed=1), (40, 2, 5, 5), 50),
        (lambda: nn.ConvTranspose2d(40, 8, 5, groups=2, seed=1), (40, 4, 5, 5), 100),
        (lambda: nn.Linear(100, 40, seed=1), (40, 100), 100),
    ],
)
def test_initial_weights_fill_one_over_the_root_of_fan_in(make, shape, fan_in):
    layer, bound = make(), 1 / np.sqrt(fan_in)
    assert layer.weight.shape == shape and layer.weight.dtype == np.float32
    for values in (layer.weight.data, layer.bias.data):
        assert np.abs(values).max() <= np.float32(bound)
        assert np.abs(values).max() > 0.8 * bound and values.min() < 0 < values.max()
    np.testing.assert_allclose(layer.weight.data.std(), bound / np.sqrt(3), rtol=0.05)
    assert abs(layer.weight.data.mean()) < 0.1 * bound


def test_seeds_of_layers():
    np.testing.assert_array_equal(nn.Linear(3, 2, seed=1).weight.data, nn.Linear(3, 2, seed=1).weight.data)
    assert not np.array_equal(nn.Linear(3, 2, seed=1).weight.data, nn.Linear(3, 2, seed=2).weight.data)
    generator = np.random.default_rng(1)
    first, second = (nn.Linear(3, 2, seed=generator).weight.data for _ in range(2))
    assert not np.array_equal(first, second)
    nn.manual_seed(4)
    drawn = [nn.Linear(3, 2).weight.data, nn.Linear(3, 2).weight.data]
    nn.manual_seed(np.int64(4))
    np.testing.assert_array_equal(nn.Linear(3, 2).weight.data, drawn[0])
    assert not np.array_equal(*drawn)
    assert init.generator() is init.generator(None) and init.generator(generator) is generator


@pytest.mark.parametrize("seed", [1.5, "1", True, [1]])
def test_seeds_must_be_integers(seed):
    for use in (nn.manual_seed, lambda s: nn.Linear(2, 2, seed=s), lambda s: nn.Dropout(seed=s)):
        with pytest.raises(ArgumentTypeError, match="seed must be an integer"):
            use(seed)


def test_seeds_must_not_be_negative():
    with pytest.raises(ArgumentError, match="seed must be at least 0, got -1"):
        nn.manual_seed(-1)
    with pytest.raises(ArgumentTypeError, match="seed must be an integer, got None"):
        nn.manual_seed(None)


# --- batch normalization


def test_batch_norm_normalizes_and_follows_the_batches(rng):
    norm = nn.BatchNorm2d(2, momentum=0.25, dtype=np.float64)
    batches = [rng.standard_normal((5, 2, 3, 3)) * 3 + 1 for _ in range(3)]
    mean, var = np.zeros(2), np.ones(2)
    for i, x in enumerate(batches):
        y = norm(x)
        np.testing.assert_allclose(y.mean((0, 2, 3)), 0, atol=1e-12)
        np.testing.assert_allclose(y.var((0, 2, 3)), 1, atol=1e-4)
        mean = 0.75 * mean + 0.25 * x.mean((0, 2, 3))
        var = 0.75 * var + 0.25 * x.var((0, 2, 3), ddof=1)
        assert norm.num_batches_tracked == i + 1
    np.testing.assert_allclose(norm.running_mean, mean, rtol=1e-12)
    np.testing.assert_allclose(norm.running_var, var, rtol=1e-12)
    before = norm.state_dict()
    expected = (x - mean[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None]
    np.testing.assert_allclose(norm.eval()(x), expected, rtol=1e-9)
    for key, array in norm.state_dict().items():
        np.testing.assert_array_equal(array, before[key])


def test_batch_norm_without_momentum_averages_all_batches(rng):
    norm = nn.BatchNorm2d(2, momentum=None, dtype=np.float64)
    batches = [rng.standard_normal((4, 2, 2, 3)) for _ in range(4)]
    for x in batches:
        norm(x)
    np.testing.assert_allclose(norm.running_mean, np.mean([x.mean((0, 2, 3)) for x in batches], 0), rtol=1e-12)
    np.testing.assert_allclose(norm.running_var, np.mean([x.var((0, 2, 3), ddof=1) for x in batches], 0), rtol=1e-12)


def test_batch_norm_keys():
    assert list(nn.BatchNorm2d(2).state_dict()) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert list(nn.BatchNorm2d(2, affine=False).state_dict()) == ["running_mean", "running_var", "num_batches_tracked"]
    assert list(nn.BatchNorm2d(2, track_running_stats=False).state_dict()) == ["weight", "bias"]
    assert nn.BatchNorm2d(2).state_dict()["num_batches_tracked"].shape == ()


def test_batch_norm_that_raises_leaves_its_count():
    norm = nn.BatchNorm2d(2)
    with pytest.raises(ArgumentError):
        norm(np.ones((2, 3, 2, 2), np.float32))
    assert norm.num_batches_tracked == 0


@pytest.mark.parametrize("count", [3, np.array(0, ">i8"), np.array(0, np.float32), np.zeros(2, np.int64)])
def test_batch_norm_counts_in_an_array_of_one_integer(count):
    norm = nn.BatchNorm2d(2)
    norm.num_batches_tracked = count
    with pytest.raises(ArgumentTypeError, match="num_batches_tracked must be an int64 array"):
        norm(np.ones((2, 2, 2, 2), np.float32))


def test_batch_norm_counts_only_what_it_tracks(rng):
    norm, images = nn.BatchNorm2d(2), rng.standard_normal((3, 2, 4, 4), np.float32)
    norm(images)
    norm(np.empty((0, 2, 4, 4), np.float32))
    norm.eval()(images)
    assert norm.num_batches_tracked == 2
    norm.train().track_running_stats = False
    norm(images)
    assert norm.num_batches_tracked == 2


# --- dropout


def test_dropout_scales_what_it_keeps_and_its_gradient_alike():
    x = np.ones((50, 40), np.float32)
    layer = nn.Dropout(0.25, seed=3)
    y = layer(x)
    kept = y != 0
    np.testing.assert_allclose(y[kept], 1 / 0.75, rtol=1e-6)
    assert 0.7 < kept.mean() < 0.8
    np.testing.assert_array_equal(layer.backward(np.full_like(x, 3)), 3 * y)
    assert not np.array_equal(layer(x), y)


def test_dropout_seeds():
    x = np.ones((8, 8), np.float32)
    np.testing.assert_array_equal(nn.Dropout(seed=1)(x), nn.Dropout(seed=1)(x))
    nn.manual_seed(1)
    first = nn.Dropout()(x)
    nn.manual_seed(1)
    np.testing.assert_array_equal(nn.Dropout()(x), first)


def test_dropout_limits():
    x = np.arange(1.0, 5.0).reshape(1, 4)
    np.testing.assert_array_equal(nn.Dropout(0)(x), x)
    np.testing.assert_array_equal(nn.Dropout(1)(x), 0 * x)
    layer = nn.Dropout(1)
    layer(x)
    np.testing.assert_array_equal(layer.backward(x), 0 * x)
    np.testing.assert_array_equal(nn.Dropout(0.5).eval()(x), x)


# --- others


def test_flatten_is_in_order_of_channels_rows_columns(rng):
    x = rng.standard_normal((2, 4, 5, 3)).transpose(0, 3, 1, 2)
    layer = nn.Flatten()
    np.testing.assert_array_equal(layer(x), np.ascontiguousarray(x).reshape(2, 60))
    g = rng.standard_normal((2, 60))
    np.testing.assert_array_equal(layer.backward(g), g.reshape(2, 3, 4, 5))
    assert nn.Flatten()(np.zeros((0, 2, 3), np.float32)).shape == (0, 6)


def test_relu_keeps_nan_and_passes_its_gradient():
    layer = nn.ReLU()
    y = layer(np.array([[np.nan, -1.0, 0.0, 2.0, np.inf, -np.inf]]))
    np.testing.assert_array_equal(y, [[np.nan, 0, 0, 2, np.inf, 0]])
    np.testing.assert_array_equal(layer.backward(np.ones((1, 6)))[0, 1:], [0, 0, 1, 1, 0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Conv2d(0, 1, 3), "in_channels must be from 1"),
        (lambda: nn.Conv2d(1, -1, 3), "out_channels must be from 1"),
        (lambda: nn.Conv2d(4, 6, 3, groups=3), "groups must divide in_channels 4 and out_channels 6"),
        (lambda: nn.Conv2d(1, 1, 0), "kernel_size must be from 1"),
        (lambda: nn.Conv2d(1, 1, (1, 2, 3)), "kernel_size must be an integer or a pair"),
        (lambda: nn.Conv2d(1, 1, 3, stride=0), "stride must be from 1"),
        (lambda: nn.Conv2d(1, 1, 3, padding=-1), "padding must be from 0"),
        (lambda: nn.Conv2d(1, 1, 3, padding="full"), 'padding must be an integer, a pair, "valid" or "same"'),
        (lambda: nn.Conv2d(1, 1, 3, stride=2, padding="same"), 'padding="same" needs stride 1'),
        (lambda: nn.Conv2d(1, 1, 3, algorithm="fft"), "algorithm must be one of auto, loops"),
        (lambda: nn.ConvTranspose2d(4, 6, 3, groups=4), "groups must divide"),
        (lambda: nn.ConvTranspose2d(1, 1, 3, output_padding=-1), "output_padding must be from 0"),
        (lambda: nn.Linear(3, 0), "out_features must be from 1"),
        (lambda: nn.MaxPool2d(0), "kernel_size must be from 1"),
        (lambda: nn.AvgPool2d(2, 0), "stride must be from 1"),
        (lambda: nn.AdaptiveAvgPool2d(0), "output_size must be from 1"),
        (lambda: nn.BatchNorm2d(0), "num_features must be from 1"),
        (lambda: nn.BatchNorm2d(1, momentum=1.5), "momentum must be from 0 to 1, got 1.5"),
        (lambda: nn.BatchNorm2d(1, eps=-1), "eps must be at least 0, got -1"),
        (lambda: nn.Dropout(1.1), "p must be from 0 to 1"),
        (lambda: nn.Dropout(float("nan")), "p must be from 0 to 1"),
        (lambda: nn.LeakyReLU(float("inf")), "negative_slope must be finite"),
        (lambda: nn.GELU("fast"), "approximate must be 'none' or 'tanh'"),
        (lambda: nn.Flatten(2)(np.ones((1, 2))), "input must have axes 2 to -1"),
        (lambda: nn.Linear(3, 2)(np.ones((2, 4), np.float32)), "input must have shape"),
        (lambda: nn.Conv2d(2, 3, 3)(np.ones((1, 3, 5, 5), np.float32)), "input"),
    ],
)
def test_options_that_cannot_be(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Conv2d(1.5, 1, 3), "in_channels must be an integer, got 1.5"),
        (lambda: nn.Conv2d(1, 1, 3, groups=True), "groups must be an integer, got True"),
        (lambda: nn.Linear("3", 2), "in_features must be an integer, got '3'"),
        (lambda: nn.MaxPool2d(None), "kernel_size must be an integer, got None"),
        (lambda: nn.BatchNorm2d(2, momentum="x"), "momentum must be a number, got 'x'"),
        (lambda: nn.Dropout(None), "p must be a number, got None"),
        (lambda: nn.Softmax(0.5), "dim must be an integer"),
        (lambda: nn.Flatten()([1]), "input must be a NumPy array"),
        (lambda: nn.Linear(3, 2)(np.ones((2, 3))), "float"),
    ],
)
def test_options_of_wrong_types(make, message):
    with pytest.raises(ArgumentTypeError, match=message):
        make()


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (nn.Conv2d(2, 4, 3, 2, "valid", 2, 2, False), "Conv2d(2, 4, kernel_size=(3, 3), stride=(2, 2), padding='valid', dilation=(2, 2), "
                                                     "groups=2, bias=False)"),
        (nn.ConvTranspose2d(2, 4, 3, 2, 1, 1), "ConvTranspose2d(2, 4, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), "
                                               "output_padding=(1, 1))"),
        (nn.Conv2d(1, 1, 1, algorithm="loops"), "Conv2d(1, 1, kernel_size=(1, 1), stride=(1, 1), algorithm='loops')"),
        (nn.MaxPool2d(3, 2, dilation=2), "MaxPool2d(kernel_size=(3, 3), stride=(2, 2), padding=(0, 0), ceil_mode=False, dilation=(2, 2))"),
        (nn.AvgPool2d(2), "AvgPool2d(kernel_size=(2, 2), stride=(2, 2), padding=(0, 0), ceil_mode=False, count_include_pad=True)"),
        (nn.AdaptiveAvgPool2d([1, 2]), "AdaptiveAvgPool2d(output_size=(1, 2))"),
        (nn.Linear(3, 2), "Linear(in_features=3, out_features=2, bias=True)"),
        (nn.BatchNorm2d(3), "BatchNorm2d(3, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)"),
        (nn.Dropout(0.1), "Dropout(p=0.1)"),
        (nn.LeakyReLU(), "LeakyReLU(negative_slope=0.01)"),
        (nn.GELU(), "GELU(approximate='none')"),
        (nn.Softmax(1), "Softmax(dim=1)"),
        (nn.Flatten(), "Flatten(start_dim=1, end_dim=-1)"),
        (nn.MSELoss("sum"), "MSELoss(reduction='sum')"),
    ],
)  # fmt: skip
def test_repr_shows_the_options(module, text):
    assert repr(module) == text


# --- losses


def logits(rng, *shape):
    return rng.standard_normal(shape)


def probabilities(rng, *shape):
    return rng.uniform(0.05, 0.95, shape)


CLASS_WEIGHTS = np.arange(1.0, 6)
# fmt: off
LOSSES = [
    # name                loss                   options                                            prediction     shape         classes
    ("cross_entropy",     nn.CrossEntropyLoss,   {},                                                logits,        (4, 5),       5),
    ("cross_entropy_all", nn.CrossEntropyLoss,   {"weight": CLASS_WEIGHTS, "ignore_index": 2, "label_smoothing": 0.1}, logits, (6, 5), 5),
    ("cross_entropy_map", nn.CrossEntropyLoss,   {},                                                logits,        (2, 3, 2, 2), 3),
    ("bce",               nn.BCELoss,            {},                                                probabilities, (4, 3),       0),
    ("bce_weighted",      nn.BCELoss,            {"weight": CLASS_WEIGHTS[:3]},                     probabilities, (4, 3),       0),
    ("logits",            nn.BCEWithLogitsLoss,  {},                                                logits,        (4, 3),       0),
    ("logits_weighted",   nn.BCEWithLogitsLoss,  {"weight": CLASS_WEIGHTS[:3]},                     logits,        (4, 3),       0),
    ("logits_pos_weight", nn.BCEWithLogitsLoss,  {"pos_weight": CLASS_WEIGHTS[:3]},                 logits,        (4, 3),       0),
    ("mse",               nn.MSELoss,            {},                                                logits,        (2, 3, 2, 2), 0),
]
# fmt: on


def example(rng, prediction, shape, classes):
    """A prediction and its target: labels of `classes` classes, or as many numbers."""
    if classes:
        return prediction(rng, *shape), rng.integers(0, classes, (shape[0], *shape[2:]))
    return prediction(rng, *shape), rng.uniform(0, 1, shape)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("name", "make", "options", "prediction", "shape", "classes"), LOSSES, ids=[case[0] for case in LOSSES])
def test_gradients_of_losses(rng, name, make, options, prediction, shape, classes, reduction):
    loss = make(**options, reduction=reduction)
    x, target = example(rng, prediction, shape, classes)
    if reduction != "none":
        assert type(loss(x, target)) is float
    assert gradcheck(loss, x, target, rtol=1e-6, atol=1e-8)


def test_losses_by_hand():
    assert nn.MSELoss()(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]])) == 2.5
    assert nn.MSELoss("sum")(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]])) == 5
    np.testing.assert_allclose(nn.BCELoss()(np.array([0.25, 0.25]), np.array([1.0, 0.0])), -(np.log(0.25) + np.log(0.75)) / 2, rtol=1e-14)
    np.testing.assert_allclose(nn.BCEWithLogitsLoss()(np.zeros(2), np.array([1.0, 0.0])), np.log(2), rtol=1e-14)
    np.testing.assert_allclose(nn.CrossEntropyLoss()(np.zeros((3, 10)), np.array([1, 2, 3])), np.log(10), rtol=1e-14)


def test_cross_entropy_gradient_is_softmax_minus_one_hot(rng):
    loss, x, target = nn.CrossEntropyLoss(), rng.standard_normal((3, 4)), np.array([0, 3, 3])
    loss(x, target)
    softmax = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    np.testing.assert_allclose(loss.backward(), (softmax - np.eye(4)[target]) / 3, rtol=1e-12)


def test_loss_without_reduction_takes_the_gradient_of_its_array(rng):
    loss, x, target = nn.MSELoss("none"), rng.standard_normal((2, 3)), rng.standard_normal((2, 3))
    np.testing.assert_allclose(loss(x, target), (x - target) ** 2)
    np.testing.assert_allclose(loss.backward(), 2 * (x - target))
    g = rng.standard_normal((2, 3))
    np.testing.assert_allclose(loss.backward(g), 2 * (x - target) * g)


def test_losses_remember_nothing_under_no_grad():
    loss = nn.MSELoss()
    with nn.no_grad():
        assert loss(np.ones(2), np.zeros(2)) == 1
    with pytest.raises(ArgumentError, match=r"MSELoss\.backward needs a forward pass"):
        loss.backward()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.MSELoss("average"), "reduction must be 'mean' or 'sum' or 'none'"),
        (lambda: nn.CrossEntropyLoss(label_smoothing=2), "label_smoothing must be from 0 to 1"),
        (lambda: nn.CrossEntropyLoss(weight=[1.0]), "weight must be a NumPy array"),
        (lambda: nn.BCEWithLogitsLoss(pos_weight=1), "pos_weight must be a NumPy array"),
        (lambda: nn.CrossEntropyLoss(ignore_index=0.5), "ignore_index must be an integer"),
        (lambda: nn.CrossEntropyLoss()(np.zeros((2, 3)), np.array([0, 3])), "target"),
        (lambda: nn.CrossEntropyLoss()(np.zeros((2, 3)), np.array([0, -1])), "target"),
        (lambda: nn.CrossEntropyLoss()(np.zeros((2, 3)), np.array([0.0, 1.0])), "target"),
        (lambda: nn.MSELoss()(np.zeros((2, 3)), np.zeros((2, 1))), "target"),
        (lambda: nn.BCELoss()(np.zeros((2, 3)), np.zeros((2, 3), np.float32)), "target"),
    ],
)
def test_losses_refuse(call, message):
    with pytest.raises((ArgumentError, ArgumentTypeError), match=message):
        call()


def test_numerical_gradient_of_a_whole_network(rng):
    """The chain as a user calls it: loss(model(x), target), model.backward(loss.backward())."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3, **D), nn.BatchNorm2d(2, **D), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 3, **D))
    loss, x, target = nn.CrossEntropyLoss(), rng.standard_normal((4, 1, 6, 6)), np.array([0, 2, 1, 1])
    loss(model(x), target)
    grad_input = model.backward(loss.backward())
    np.testing.assert_allclose(grad_input, numerical_gradient(lambda: loss(model(x), target), x), rtol=1e-5, atol=1e-8)
    weight = model[0].weight
    np.testing.assert_allclose(weight.grad, numerical_gradient(lambda: loss(model(x), target), weight.data), rtol=1e-5, atol=1e-8)
