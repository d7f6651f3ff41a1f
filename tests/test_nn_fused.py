"""Layers that a Sequential computes together: as if they were called one after the other."""

import copy

import numpy as np
import pytest
from checks import assert_same_bits, exact_sums, small_integers

import fastconv
from fastconv import nn
from fastconv.errors import ArgumentError
from fastconv.functional import conv as conv_functions
from fastconv.functional import norm_conv
from fastconv.kernels import ahead
from fastconv.nn import fused


def conv_relu_pool(IC, OC, kernel, *, pool=None, dtype=np.float32, **options):
    return nn.Sequential(nn.Conv2d(IC, OC, kernel, seed=0, dtype=dtype, **options), nn.ReLU(), nn.MaxPool2d(**(pool or {"kernel_size": 2})))


def one_by_one(net, input):
    for layer in net:
        input = layer.forward(input)
    return input


def backward_one_by_one(net, grad_output):
    for layer in reversed(list(net)):
        grad_output = layer.backward(grad_output)
    return grad_output


def whole_numbers(net, rng):
    """Weights for which sums are exact in any order."""
    for parameter in net.parameters():
        parameter.data[...] = small_integers(rng, parameter.shape, parameter.dtype)
    return net


# (N, IC, H, W), OC, kernel, options of the convolution
SHAPES = {
    "lenet conv1": ((9, 1, 28, 28), 6, 5, {"padding": 2}),
    "lenet conv2": ((9, 6, 14, 14), 16, 5, {}),
    "small images": ((19, 5, 8, 8), 17, 3, {"padding": 1}),
    "one image": ((1, 3, 9, 9), 4, 3, {}),
    "odd": ((3, 2, 5, 7), 3, 2, {}),
    "many channels": ((3, 33, 10, 9), 40, 3, {"padding": "same"}),
    "asymmetric": ((2, 3, 8, 9), 5, (3, 2), {"padding": ((1, 0), (2, 1))}),
    "strided": ((4, 3, 17, 16), 6, 3, {"stride": 2, "padding": 1}),
    "dilated": ((2, 3, 12, 12), 6, 3, {"dilation": 2}),
    "rows dilated": ((2, 3, 12, 12), 6, 3, {"dilation": (2, 1)}),
    "groups": ((2, 6, 8, 8), 9, 3, {"groups": 3}),
    "depthwise": ((2, 6, 8, 8), 6, 3, {"groups": 6, "padding": 1}),
    "pointwise": ((2, 6, 8, 8), 9, 1, {}),
    "images as lanes": ((37, 1, 13, 12), 6, 5, {"padding": 2}),
    "images as lanes, odd": ((19, 2, 11, 9), 7, (3, 2), {"padding": ((1, 0), (0, 3)), "stride": (2, 1)}),
    "images as lanes, rows dilated": ((16, 2, 12, 12), 3, (3, 1), {"dilation": (2, 1), "stride": (1, 2)}),
    "images as lanes, padding beyond the image": ((17, 1, 3, 4), 2, 2, {"padding": ((7, 5), (6, 9))}),
    "images as lanes, many rows": ((16, 3, 70, 9), 33, 2, {}),
    "no bias": ((2, 3, 8, 8), 9, 3, {"bias": False}),
    "empty batch": ((0, 3, 8, 8), 9, 3, {}),
    "one output": ((2, 3, 4, 4), 9, 3, {}),
    "loops": ((2, 3, 8, 8), 4, 3, {"algorithm": "loops"}),
    "im2col": ((2, 3, 8, 8), 4, 3, {"algorithm": "im2col"}),
    "direct": ((2, 3, 8, 8), 4, 3, {"algorithm": "direct"}),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", SHAPES)
@exact_sums()
def test_conv_relu_pool(name, dtype, rng):
    shape, OC, kernel, options = SHAPES[name]
    net = whole_numbers(conv_relu_pool(shape[1], OC, kernel, dtype=dtype, **options), rng)
    x = small_integers(rng, shape, dtype)
    expected = one_by_one(net, x)
    grad_output = small_integers(rng, expected.shape, dtype)
    expected_input = backward_one_by_one(net, grad_output)
    expected_parameters = [parameter.grad.copy() for parameter in net.parameters()]

    assert_same_bits(net(x), expected, "output")
    net.zero_grad()
    assert np.array_equal(net.backward(grad_output), expected_input)
    for parameter, gradient in zip(net.parameters(), expected_parameters, strict=True):
        assert np.array_equal(parameter.grad, gradient)
    net.backward_parameters(grad_output)  # adds the same again
    for parameter, gradient in zip(net.parameters(), expected_parameters, strict=True):
        assert np.array_equal(parameter.grad, 2 * gradient)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("name", ["lenet conv1", "lenet conv2", "small images", "many channels", "images as lanes, odd"])
def test_gradients_are_the_same_bits_on_any_number_of_threads(name, threads, rng):
    shape, OC, kernel, options = SHAPES[name]
    net = conv_relu_pool(shape[1], OC, kernel, **options)
    x = rng.standard_normal((37, *shape[1:]), dtype=np.float32)
    grad_output = rng.standard_normal(net(x).shape, dtype=np.float32)
    results = []
    for n in (2, threads):
        fastconv.set_num_threads(n)
        net.zero_grad()
        results.append([net(x), net.backward(grad_output), *(parameter.grad for parameter in net.parameters())])
    for one, other in zip(*results, strict=True):
        assert_same_bits(one, other)


def test_special_values(rng):
    net = conv_relu_pool(2, 5, 3, padding=1)
    x = rng.standard_normal((9, 2, 12, 12), dtype=np.float32)
    x[0, 0, 3, 4], x[1, 1, 0, 0], x[2, 0, 11, 5], x[3] = np.nan, np.inf, -np.inf, 0
    assert_same_bits(net(x), one_by_one(net, x))


@pytest.mark.parametrize(
    "pool",
    [
        {"kernel_size": 3},
        {"kernel_size": 2, "stride": 1},
        {"kernel_size": 2, "padding": 1},
        {"kernel_size": 2, "ceil_mode": True},
        {"kernel_size": 2, "dilation": 2},
        {"kernel_size": (2, 1)},
    ],
)
def test_other_poolings(pool, rng):
    net = whole_numbers(conv_relu_pool(3, 4, 3, pool=pool), rng)
    x = small_integers(rng, (5, 3, 9, 11), np.float32)
    expected = one_by_one(net, x)
    grad_output = small_integers(rng, expected.shape, np.float32)
    expected_input = backward_one_by_one(net, grad_output)
    assert_same_bits(net(x), expected)
    assert np.array_equal(net.backward(grad_output), expected_input)


# C, (N, H, W), options of a depthwise convolution of 3 x 3 behind BatchNorm and ReLU
DEPTHWISE = {
    "mobilenet": (32, (17, 8, 8), {"padding": 1}),
    "mobilenet, strided": (64, (3, 16, 16), {"padding": 1, "stride": 2}),
    "half a vector": (24, (5, 9, 7), {"padding": 1}),
    "half a vector, strided": (40, (5, 9, 7), {"padding": 1, "stride": 2}),
    "three channels": (3, (2, 6, 11), {"padding": 1}),
    "many channels": (257, (2, 5, 5), {"padding": 1}),
    "strided, even": (17, (3, 12, 10), {"padding": 1, "stride": 2}),
    "strided, much above": (17, (3, 6, 9), {"padding": ((2, 0), (1, 3)), "stride": 2}),
    "strided, nothing above": (17, (3, 7, 8), {"padding": ((0, 1), (1, 0)), "stride": 2}),
    "no padding": (19, (4, 7, 10), {}),
    "much padding": (19, (4, 5, 6), {"padding": 2}),
    "asymmetric": (19, (4, 5, 6), {"padding": ((2, 0), (0, 1))}),
    "same": (16, (4, 5, 6), {"padding": "same"}),
    "one pixel": (33, (6, 1, 1), {"padding": 1}),
    "one image in bands": (32, (1, 37, 40), {"padding": 1}),
    "one image in bands, strided": (32, (1, 38, 41), {"padding": 1, "stride": 2}),
    "large image": (64, (2, 50, 30), {"padding": 1}),
    "large image, strided": (64, (2, 51, 30), {"padding": 1, "stride": 2}),
    "no bias": (16, (2, 8, 8), {"padding": 1, "bias": False}),
}
NOT_TOGETHER = {
    "one column, strided": (33, (3, 9, 1), {"padding": 1, "stride": 2}),
    "other columns": (16, (2, 8, 8), {"padding": 1, "stride": (1, 2)}),
    "strided without padding": (16, (2, 9, 9), {"stride": 2}),
    "dilated": (16, (2, 8, 8), {"padding": 1, "dilation": 2}),
    "padding beyond the filter": (16, (2, 8, 8), {"padding": 3}),
    "im2col": (16, (2, 8, 8), {"algorithm": "im2col"}),
    "loops": (16, (2, 8, 8), {"algorithm": "loops"}),
    "empty batch": (16, (0, 8, 8), {"padding": 1}),
}


def norm_relu_depthwise(C, rng, dtype=np.float32, affine=True, **options):
    net = nn.Sequential(
        nn.BatchNorm2d(C, affine=affine, dtype=dtype), nn.ReLU(), nn.Conv2d(C, C, 3, groups=C, seed=0, dtype=dtype, **options)
    )
    if affine:
        net[0].weight.data[...], net[0].bias.data[...] = rng.uniform(-1, 2, C), rng.uniform(-1, 1, C)
    net[0].running_mean[...], net[0].running_var[...] = rng.uniform(-1, 1, C), rng.uniform(0.5, 2, C)
    return net


def assert_near(found, expected, name=""):
    tolerance = 2e-5 if expected.dtype == np.float32 else 1e-12
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * max(1, abs(expected).max(initial=0)), err_msg=name)


def assert_alike(net, twin, x, rng):
    """Both passes of net, and those of the layers of its twin one by one."""
    output = net(x)
    assert_same_bits(output, one_by_one(twin, x), "output")
    grad_output = rng.standard_normal(output.shape).astype(x.dtype)
    expected = backward_one_by_one(twin, grad_output)
    assert_near(net.backward(grad_output), expected, "input")
    for (name, own), other in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert_near(own.grad, other.grad, name)
    for own, other in zip(net.buffers(), twin.buffers(), strict=True):
        assert_same_bits(own, other)
    net.zero_grad()
    net.backward_parameters(grad_output)
    for (name, own), other in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert_near(own.grad, other.grad, name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", {**DEPTHWISE, **NOT_TOGETHER})
def test_norm_relu_depthwise(name, training, dtype, rng):
    C, (N, H, W), options = {**DEPTHWISE, **NOT_TOGETHER}[name]
    net = norm_relu_depthwise(C, rng, dtype, **options).train(training)
    twin = copy.deepcopy(net)
    assert_alike(net, twin, (rng.standard_normal((N, C, H, W)) * 2 + 1).astype(dtype), rng)


@pytest.mark.parametrize("name", DEPTHWISE)
def test_norm_relu_depthwise_of_whole_numbers(name, rng):
    """Weight gradients and the gradients of BatchNorm's bias are sums of whole numbers here: exact."""
    C, (N, H, W), options = DEPTHWISE[name]
    net = norm_relu_depthwise(C, rng, **options).eval()
    whole_numbers(net, rng)
    net[0].running_mean[...], net[0].running_var[...], net[0].eps = 0, 1, 0.0
    twin, x = copy.deepcopy(net), small_integers(rng, (N, C, H, W), np.float32)
    output = net(x)
    assert_same_bits(output, one_by_one(twin, x))
    grad_output = small_integers(rng, output.shape, np.float32)
    expected = backward_one_by_one(twin, grad_output)
    assert np.array_equal(net.backward(grad_output), expected)
    for own, other in zip(net.parameters(), twin.parameters(), strict=True):
        assert np.array_equal(own.grad, other.grad)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.3, None])
def test_norm_relu_depthwise_with_other_options(affine, momentum, rng):
    net = norm_relu_depthwise(20, rng, affine=affine, padding=1)
    net[0].momentum = momentum
    twin = copy.deepcopy(net)
    for _ in range(2):
        net.zero_grad()
        twin.zero_grad()
        assert_alike(net, twin, rng.standard_normal((4, 20, 9, 8), dtype=np.float32), rng)
    assert int(net[0].num_batches_tracked) == 2


@pytest.mark.parametrize("options", [{"padding": 1}, {}, {"padding": 1, "stride": 2}], ids=str)
def test_special_values_in_front_of_a_depthwise_convolution(options, rng):
    """What is not finite stays where the filters see it, and columns that none sees stay away."""
    net = norm_relu_depthwise(20, rng, **options).eval()
    twin, x = copy.deepcopy(net), rng.standard_normal((4, 20, 9, 10), dtype=np.float32)
    x[0, 0, 3, 4], x[1, 1, 0, 0], x[2, 2, 8, 9], x[3, 3, 5, 9], x[3, 4] = np.nan, np.inf, -np.inf, np.inf, 0
    output = net(x)
    assert_same_bits(output, one_by_one(twin, x))
    grad_output = rng.standard_normal(output.shape, dtype=np.float32)
    grad_output[0, 5, 2, 2] = np.inf
    expected = backward_one_by_one(twin, grad_output)
    found = net.backward(grad_output)
    assert np.array_equal(np.isfinite(found), np.isfinite(expected))
    assert_near(np.nan_to_num(found, posinf=0, neginf=0), np.nan_to_num(expected, posinf=0, neginf=0))
    for own, other in zip(net.parameters(), twin.parameters(), strict=True):
        assert np.array_equal(np.isfinite(own.grad), np.isfinite(other.grad))


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("name", ["mobilenet", "mobilenet, strided", "half a vector", "one image in bands", "large image, strided"])
def test_depthwise_gradients_are_the_same_bits_on_any_number_of_threads(name, threads, rng):
    C, (N, H, W), options = DEPTHWISE[name]
    net, x = norm_relu_depthwise(C, rng, **options), rng.standard_normal((N, C, H, W), dtype=np.float32)
    grad_output = rng.standard_normal(net(x).shape, dtype=np.float32)
    results = []
    for n in (2, threads):
        fastconv.set_num_threads(n)
        net.zero_grad()
        results.append([net(x), net.backward(grad_output), *(parameter.grad for parameter in net.parameters())])
    for one, other in zip(*results, strict=True):
        assert_same_bits(one, other)


OTHER_GROUPS = {
    "conv relu": lambda: (nn.Conv2d(3, 17, 3, seed=0), nn.ReLU()),
    "linear relu": lambda: (nn.Flatten(), nn.Linear(300, 33, seed=0), nn.ReLU()),
    "linear relu linear": lambda: (nn.Flatten(), nn.Linear(300, 33, seed=0), nn.ReLU(), nn.Linear(33, 7, bias=False, seed=1)),
    "large linear": lambda: (nn.Flatten(), nn.Linear(300, 400, seed=0), nn.ReLU(), nn.Linear(400, 257, seed=1), nn.ReLU(), nn.ReLU()),
    "linear on axes": lambda: (nn.Linear(10, 33, seed=0), nn.ReLU(), nn.Linear(33, 17, seed=1)),
    "norm relu": lambda: (nn.BatchNorm2d(3), nn.ReLU()),
    "relu pool": lambda: (nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)),
    "pool first": lambda: (nn.MaxPool2d(2), nn.ReLU(), nn.MaxPool2d(2)),
    "relu twice": lambda: (nn.Conv2d(3, 17, 3, seed=0), nn.ReLU(), nn.ReLU(), nn.MaxPool2d(2)),
}


@pytest.mark.parametrize("N", [1, 4, 130])
@pytest.mark.parametrize("name", OTHER_GROUPS)
def test_other_groups(name, N, rng):
    net, twin = nn.Sequential(*OTHER_GROUPS[name]()), nn.Sequential(*OTHER_GROUPS[name]())
    x = rng.standard_normal((N, 3, 10, 10), dtype=np.float32)
    x[0, 0, 0, 0], x[1:2] = np.nan, 0
    output = net(x)
    assert_same_bits(output, one_by_one(twin, x))
    grad_output = rng.standard_normal(output.shape, dtype=np.float32)
    assert_same_bits(net.backward(grad_output), backward_one_by_one(twin, grad_output))
    for own, other in zip(net.parameters(), twin.parameters(), strict=True):
        assert_same_bits(own.grad, other.grad)


def test_the_input_is_not_written_to(rng):
    for layers in ((nn.ReLU(),), (nn.Flatten(), nn.ReLU()), (nn.ReLU(), nn.MaxPool2d(2)), (nn.BatchNorm2d(3), nn.ReLU())):
        x = rng.standard_normal((4, 3, 10, 10), dtype=np.float32)
        kept = x.copy()
        nn.Sequential(*layers)(x)
        assert_same_bits(x, kept)


def conv_norm_relu_conv():
    return nn.Sequential(
        nn.BatchNorm2d(3), nn.Conv2d(3, 17, 3, seed=0),
        nn.BatchNorm2d(17), nn.ReLU(), nn.Conv2d(17, 17, 3, padding=1, seed=1), nn.BatchNorm2d(17),
    )  # fmt: skip


def test_gradients_in_each_others_memory(rng, monkeypatch):
    net, twin, seen = conv_norm_relu_conv(), conv_norm_relu_conv(), []
    in_place = nn.BatchNorm2d.backward_in_place
    monkeypatch.setattr(nn.BatchNorm2d, "backward_in_place", lambda layer, g: (seen.append((layer, g)), in_place(layer, g))[1])
    x = rng.standard_normal((5, 3, 9, 8), dtype=np.float32)
    grad_output = rng.standard_normal(net(x).shape, dtype=np.float32)
    one_by_one(twin, x)
    given = grad_output.copy()
    gradient = net.backward(grad_output)
    assert_same_bits(gradient, backward_one_by_one(twin, grad_output))
    for own, other in zip(net.parameters(), twin.parameters(), strict=True):
        assert_same_bits(own.grad, other.grad)
    assert_same_bits(grad_output, given, "what the caller has is left alone")
    assert [layer for layer, _ in seen] == [net[2], net[0]]
    assert np.shares_memory(gradient, seen[1][1])


@pytest.mark.parametrize("position", [1, 2, 3, 4])
def test_gradients_that_a_user_keeps_are_left_alone(position, rng):
    net, kept = conv_norm_relu_conv(), []
    backward = net[position].backward

    def keeping(grad_output):
        gradient = backward(grad_output)
        kept.append((gradient, gradient.copy()))
        return gradient

    net[position].backward = keeping
    x = rng.standard_normal((5, 3, 9, 8), dtype=np.float32)
    net.backward(rng.standard_normal(net(x).shape, dtype=np.float32))
    net.backward_parameters(rng.standard_normal(net(x).shape, dtype=np.float32))
    for gradient, copied in kept:
        assert_same_bits(gradient, copied)
    assert len(kept) == 2


@pytest.fixture
def computed_together(monkeypatch):
    """How often three layers were computed together, forward and backward."""
    calls = {"forward": 0, "backward": 0}
    monkeypatch.setattr(ahead, "can_help", lambda: False)  # else kernels that are not in the cache are found out by a pass of its own

    def counted(direction, function):
        def call(*arguments, **options):
            result = function(*arguments, **options)
            calls[direction] += result is not None
            return result

        return call

    for module, name in ((conv_functions, "conv2d_relu_max_pool2d"), (norm_conv, "batch_norm_relu_conv2d")):
        monkeypatch.setattr(fused, name, counted("forward", getattr(module, name)))
        monkeypatch.setattr(fused, f"{name}_backward", counted("backward", getattr(module, f"{name}_backward")))
    return calls


@pytest.mark.parametrize("name", {**DEPTHWISE, **NOT_TOGETHER})
def test_which_depthwise_convolutions_are_computed_together(name, computed_together, rng):
    C, (N, H, W), options = {**DEPTHWISE, **NOT_TOGETHER}[name]
    net = norm_relu_depthwise(C, rng, **options)
    net.backward(net(np.ones((N, C, H, W), np.float32)))
    together = int(name in DEPTHWISE)
    assert computed_together == {"forward": together, "backward": together}


@pytest.mark.parametrize("position", [0, 1, 2])
def test_what_a_user_replaced_around_a_depthwise_convolution_is_called(position, computed_together, rng):
    net, seen = norm_relu_depthwise(16, rng, padding=1), []
    x = rng.standard_normal((3, 16, 8, 8), dtype=np.float32)
    twin, backward = copy.deepcopy(net), net[position].backward
    net[position].backward = lambda grad_output: (seen.append(position), backward(grad_output))[1]
    grad_output = rng.standard_normal(net(x).shape, dtype=np.float32)
    one_by_one(twin, x)
    assert_near(net.backward(grad_output), backward_one_by_one(twin, grad_output))
    for own, other in zip(net.parameters(), twin.parameters(), strict=True):
        assert_near(own.grad, other.grad)
    assert seen == [position]
    assert computed_together == {"forward": 1, "backward": 0}


def test_a_norm_without_parameters_is_not_computed_with_a_convolution(computed_together, rng):
    """`backward_parameters` begins at the first layer that has some."""
    net, x = norm_relu_depthwise(16, rng, padding=1, affine=False), rng.standard_normal((3, 16, 8, 8), dtype=np.float32)
    net.backward_parameters(net(x))
    assert computed_together == {"forward": 0, "backward": 0}


def test_gradients_are_those_of_the_weights_in_the_forward_pass(rng):
    net, x = norm_relu_depthwise(16, rng, padding=1), rng.standard_normal((3, 16, 8, 8), dtype=np.float32)
    grad_output = rng.standard_normal(net(x).shape, dtype=np.float32)
    net.backward(grad_output)
    expected = net[2].weight.grad.copy()
    net.zero_grad()
    net[0].weight.data *= 2
    net.backward(grad_output)
    assert_same_bits(net[2].weight.grad, expected)


def test_a_depthwise_convolution_of_another_pass(computed_together, rng):
    """A layer that has seen other images since does not take part; what was computed together is still right one by one."""
    net, x = norm_relu_depthwise(16, rng, padding=1), rng.standard_normal((3, 16, 8, 8), dtype=np.float32)
    grad_output = rng.standard_normal(net(x).shape, dtype=np.float32)
    expected = net.backward(grad_output)
    assert_near(backward_one_by_one(net, grad_output), expected)
    net(x)
    net[0].forward(rng.standard_normal((3, 16, 8, 8), dtype=np.float32))
    net.backward(grad_output)
    net(x)
    net[2].forward(rng.standard_normal((5, 16, 9, 9), dtype=np.float32))
    with pytest.raises(ValueError, match="grad_output must have shape"):
        net.backward(grad_output)
    assert computed_together == {"forward": 3, "backward": 1}
    net(x)
    assert_near(net.backward(grad_output), expected)


@pytest.mark.parametrize("change", ["channels", "axes", "size", "dtype", "one value", "weight", "bias"])
def test_errors_in_front_of_a_depthwise_convolution_are_those_of_the_layers(change, rng):
    net, x = norm_relu_depthwise(16, rng), rng.standard_normal((3, 16, 8, 8), dtype=np.float32)
    if change == "weight":
        net[2].weight.data = net[2].weight.data.astype(np.float64)
    if change == "bias":
        net[2].bias.data = net[2].bias.data[:3]
    x = {"channels": x[:, :3], "axes": x[0], "size": x[..., :2], "dtype": x.astype(np.float16), "one value": x[:1, :, :1, :1]}.get(
        change, x
    )
    twin = copy.deepcopy(net)
    with pytest.raises((ValueError, TypeError)) as expected:
        twin(x) if change == "one value" else one_by_one(twin, x)
    with pytest.raises((ValueError, TypeError)) as raised:
        net(x)
    assert type(raised.value) is type(expected.value)
    assert str(raised.value) == str(expected.value)
    where = "2 of Sequential: Conv2d" if change in ("size", "weight", "bias") else "0 of Sequential: BatchNorm2d"
    assert where in raised.value.__notes__[0]


def test_a_wrong_gradient_behind_a_depthwise_convolution(rng):
    net = norm_relu_depthwise(16, rng, padding=1)
    net(np.ones((2, 16, 8, 8), np.float32))
    for wrong, error in ((np.ones((2, 16, 6, 6), np.float32), ValueError), (np.ones((2, 16, 8, 8)), TypeError)):
        with pytest.raises(error, match="grad_output") as raised:
            net.backward(wrong)
        assert "in layer 2 of Sequential: Conv2d" in raised.value.__notes__[0]
    assert all(parameter.grad is None for parameter in net.parameters())


def test_they_are_computed_together(computed_together):
    net, x = conv_relu_pool(1, 4, 3), np.ones((2, 1, 8, 8), np.float32)
    net.backward(net(x))
    assert computed_together == {"forward": 1, "backward": 1}


@pytest.mark.parametrize("position", [0, 1, 2])
def test_what_a_user_replaced_is_called(position, computed_together):
    net, x, seen = conv_relu_pool(1, 4, 3), np.ones((2, 1, 8, 8), np.float32), []
    layer = net[position]
    original_forward, original_backward = layer.forward, layer.backward
    layer.forward = lambda input: (seen.append("forward"), original_forward(input))[1]
    layer.backward = lambda grad_output: (seen.append("backward"), original_backward(grad_output))[1]
    net.backward(net(x))
    assert seen == ["forward", "backward"]
    assert computed_together == {"forward": 0, "backward": 0}


@pytest.mark.parametrize("position", [1, 2])
def test_what_a_user_replaced_in_front_of_a_dense_layer_is_called(position, rng):
    net, seen = nn.Sequential(nn.Linear(5, 4, seed=0), nn.ReLU(), nn.Linear(4, 3, seed=1)), []
    output = net(rng.standard_normal((6, 5), dtype=np.float32))
    expected = net.backward(output)
    backward = net[position].backward
    net[position].backward = lambda grad_output: (seen.append(grad_output.shape), backward(grad_output))[1]
    assert_same_bits(net.backward(output), expected)
    assert seen == [(6, (None, 4, 3)[position])]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_derived_classes_are_left_alone(position, computed_together):
    net, x = conv_relu_pool(1, 4, 3), np.ones((2, 1, 8, 8), np.float32)
    layer = net[position]
    layer.__class__ = type("Own", (type(layer),), {})
    net.backward(net(x))
    assert computed_together == {"forward": 0, "backward": 0}


def test_forward_together_and_backward_one_by_one(rng):
    net = whole_numbers(conv_relu_pool(2, 5, 3, padding=1), rng)
    x = small_integers(rng, (9, 2, 8, 8), np.float32)
    grad_output = small_integers(rng, net(x).shape, np.float32)
    assert np.array_equal(backward_one_by_one(net, grad_output), net.backward(grad_output))
    net(x)
    expected = net.backward(grad_output)
    one_by_one(net, x)
    assert np.array_equal(net.backward(grad_output), expected)


def test_backward_is_that_of_the_last_forward(rng):
    net = conv_relu_pool(2, 5, 3)
    x, other = rng.standard_normal((2, 3, 2, 8, 8), dtype=np.float32)
    grad_output = np.ones_like(net(x))
    expected = net.backward(grad_output)
    net(other)
    assert not np.array_equal(net.backward(grad_output), expected)
    net(x)
    with nn.no_grad():
        net(other)
    assert_same_bits(net.backward(grad_output), expected)


def test_nothing_is_remembered_under_no_grad():
    net, x = conv_relu_pool(1, 4, 3), np.ones((2, 1, 8, 8), np.float32)
    with nn.no_grad():
        output = net(x)
    with pytest.raises(ValueError, match="needs a forward pass before it"):
        net.backward(output)


@pytest.mark.parametrize("shape", [(2, 1, 3, 3), (2, 1, 3, 9), (2, 1, 2, 2), (2, 2, 9, 9), (1, 9, 9)])
def test_errors_are_those_of_the_layers(shape):
    net, x = conv_relu_pool(1, 4, 3), np.ones(shape, np.float32)
    with pytest.raises(ArgumentError, match=" ") as expected:
        one_by_one(net, x)
    with pytest.raises(ArgumentError, match=" ") as raised:
        net(x)
    assert str(raised.value) == str(expected.value)
    assert any("in layer" in note for note in raised.value.__notes__)


def test_a_gradient_of_the_wrong_shape():
    net = conv_relu_pool(1, 4, 3)
    net(np.ones((2, 1, 8, 8), np.float32))
    with pytest.raises(ValueError, match="grad_output must have shape") as raised:
        net.backward(np.ones((2, 4, 6, 6), np.float32))
    assert "in layer 2 of Sequential: MaxPool2d" in raised.value.__notes__[0]
    with pytest.raises(TypeError, match="grad_output"):
        net.backward(np.ones((2, 4, 3, 3), np.float64))


def test_layers_of_different_passes(rng):
    """The convolution has seen other images since: gradients are of what was computed together, and of nothing beyond an array's end."""
    net, x = conv_relu_pool(1, 4, 3), rng.standard_normal((2, 1, 8, 8), np.float32)
    grad_output = rng.standard_normal(net(x).shape, np.float32)
    expected = net.backward(grad_output)
    net(x)
    net[0].forward(np.ones((9, 1, 30, 30), np.float32))
    with pytest.raises(ValueError, match="grad_output must have shape"):
        net.backward(np.ones((9, 4, 14, 14), np.float32))
    assert np.array_equal(net.backward(grad_output), expected)


def test_a_weight_of_another_shape_since_forward():
    net = conv_relu_pool(1, 4, 3)
    output = net(np.ones((2, 1, 8, 8), np.float32))
    net[0].weight.data = np.ones((4, 1, 5, 5), np.float32)
    with pytest.raises(ValueError, match="weight must have shape"):
        net.backward(output)


def test_gradcheck(rng):
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, seed=1, padding=1, dtype=np.float64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 2, seed=2, dtype=np.float64), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 2, seed=3, dtype=np.float64),
    )  # fmt: skip
    assert fastconv.gradcheck(net, rng.standard_normal((3, 2, 8, 8)))


@pytest.mark.parametrize("stride", [1, 2])
def test_gradcheck_depthwise(stride, rng):
    net = norm_relu_depthwise(5, rng, np.float64, padding=1, stride=stride)
    assert fastconv.gradcheck(nn.Sequential(*net, nn.Flatten()), rng.standard_normal((3, 5, 6, 5)))
