"""Sequential and Residual."""

import weakref

import numpy as np
import pytest
from checks import assert_same_bits

from fastconv import functional as F
from fastconv import gradcheck, nn
from fastconv.errors import ArgumentError, ArgumentTypeError


def small_net(**options):
    return nn.Sequential(nn.Conv2d(1, 2, 3, **options), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3, **options))


def test_sequential_is_its_layers_one_after_the_other(rng):
    net = small_net(dtype=np.float64)
    x = rng.standard_normal((2, 1, 4, 4))
    expected = x
    for layer in net:
        expected = layer(expected)
    np.testing.assert_array_equal(net(x), expected)
    assert gradcheck(net, x)


def test_empty_sequential_is_the_identity():
    x = np.ones((1, 2))
    net = nn.Sequential()
    assert net(x) is x and net.backward(x) is x
    assert net.backward_parameters(x) is None
    assert len(net) == 0


def test_names_from_a_dict():
    net = nn.Sequential({"conv": nn.Conv2d(1, 2, 3), "activation": nn.ReLU()})
    assert list(net.state_dict()) == ["conv.weight", "conv.bias"]
    assert net.conv is net[0]
    net.append(nn.Flatten())
    assert list(dict(net.named_children())) == ["conv", "activation", "2"]


def test_indexing():
    net = small_net()
    layers = list(net)
    assert len(net) == 4 and net[-1] is layers[3]
    part = net[1:3]
    assert isinstance(part, nn.Sequential) and list(part) == layers[1:3]
    net[1] = nn.ReLU()
    assert isinstance(net[1], nn.ReLU) and [name for name, _ in net.named_children()] == ["0", "1", "2", "3"]
    assert net.append(nn.Softmax()) is net and isinstance(net[4], nn.Softmax)
    with pytest.raises(IndexError, match="index 5 is out of range for 5 modules"):
        net[5]
    with pytest.raises(ArgumentTypeError, match="index must be an integer"):
        net["x"]


@pytest.mark.parametrize("thing", [np.ones(2), "ReLU", nn.ReLU, None, [nn.ReLU()]])
def test_only_modules_can_be_layers(thing):
    with pytest.raises(ArgumentTypeError, match="must be a Module"):
        nn.Sequential(nn.ReLU(), thing)
    with pytest.raises(ArgumentTypeError, match="must be a Module"):
        nn.Sequential().append(thing)
    with pytest.raises(ArgumentTypeError, match="main must be a Module"):
        nn.Residual(thing)


@pytest.mark.parametrize("name", ["", "a.b", "forward", "training"])
def test_names_that_cannot_be(name):
    with pytest.raises(ArgumentError, match="name must be a name without dots"):
        nn.Sequential({name: nn.ReLU()})


def test_names_must_be_strings():
    with pytest.raises(ArgumentTypeError, match="name must be a string"):
        nn.Sequential({1: nn.ReLU()})


def test_a_module_in_two_places_is_refused():
    relu = nn.ReLU()
    with pytest.raises(ArgumentError, match="2 is the same ReLU as 0"):
        nn.Sequential(relu, nn.Tanh(), relu)
    with pytest.raises(ArgumentError, match=r"1\.main is the same ReLU as 0"):
        nn.Sequential(relu, nn.Residual(relu))
    net = nn.Sequential(relu, nn.Tanh())
    with pytest.raises(ArgumentError, match="2 is the same ReLU as 0"):
        net.append(relu)
    with pytest.raises(ArgumentError, match="1 is the same ReLU as 0"):
        net[1] = relu
    assert len(net) == 2 and isinstance(net[1], nn.Tanh)


def test_errors_say_in_which_layer():
    net = nn.Sequential({"features": nn.Sequential(nn.Conv2d(1, 2, 3)), "head": nn.Flatten()})
    with pytest.raises(ArgumentError, match="input") as error:
        net(np.ones((1, 3, 8, 8), np.float32))
    inner, outer = error.value.__notes__
    assert inner == "in layer 0 of Sequential: Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1))"
    assert outer.startswith("in layer features of Sequential")
    net(np.ones((1, 1, 8, 8), np.float32))
    with pytest.raises(ArgumentError, match="grad_output must have shape") as error:
        net.backward(np.ones((1, 3), np.float32))
    assert error.value.__notes__[0].startswith("in layer head of Sequential")


class Watched(nn.Module):
    """Counts what is asked of it."""

    def __init__(self, layer):
        self.layer = layer
        self.asked = []

    def forward(self, input):
        return self.layer(input)

    def backward(self, grad_output):
        self.asked.append("backward")
        return self.layer.backward(grad_output)

    def backward_parameters(self, grad_output):
        self.asked.append("backward_parameters")
        self.layer.backward_parameters(grad_output)


def test_backward_parameters_stops_at_the_first_layer_that_has_any(rng):
    net = nn.Sequential(*[Watched(layer) for layer in (nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))])
    x, g = rng.standard_normal((3, 1, 2, 2)).astype(np.float32), rng.standard_normal((3, 2)).astype(np.float32)
    net(x)
    net.backward(g)
    expected = [parameter.grad for parameter in net.parameters()]
    net.zero_grad()
    for layer in net:
        layer.asked.clear()
    assert net.backward_parameters(g) is None
    assert [layer.asked for layer in net] == [[], ["backward_parameters"], ["backward"], ["backward"]]
    for parameter, grad in zip(net.parameters(), expected, strict=True):
        np.testing.assert_array_equal(parameter.grad, grad)


def test_backward_parameters_forgets_the_forward_pass_and_backward_does_not(rng):
    def block():
        return nn.Residual(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)), nn.Conv2d(3, 3, 1), nn.ReLU())

    net = nn.Sequential(
        nn.ReLU(), nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), block(), nn.Flatten(), nn.Linear(12, 2), nn.ReLU()
    )
    x, g = rng.standard_normal((3, 2, 4, 4)).astype(np.float32), rng.standard_normal((3, 2)).astype(np.float32)
    net(x)
    remembered = [weakref.ref(net[4].main[0].recall()[0]), weakref.ref(net[6].recall()[0])]
    net.backward(g)
    once = [parameter.grad.copy() for parameter in net.parameters()]
    net.backward(g)
    for parameter, grad in zip(net.parameters(), once, strict=True):
        np.testing.assert_array_equal(parameter.grad, 2 * grad)
    assert all(array() is not None for array in remembered)
    net.backward_parameters(g)
    assert all(array() is None for array in remembered)
    for module in net.modules():
        if not isinstance(module, nn.Sequential | nn.Residual):
            with pytest.raises(ArgumentError, match="needs a forward pass before it"):
                module.recall()
    with pytest.raises(ArgumentError, match="needs a forward pass before it"):
        net.backward(g)


def test_a_first_residual_forgets_too_and_plans_stay(rng):
    inner = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU())
    net = nn.Sequential(nn.Residual(inner, nn.Conv2d(2, 2, 1), nn.Tanh()), nn.Residual(nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU())))
    x = rng.standard_normal((3, 2, 4, 4)).astype(np.float32)
    y = net(x)
    plans = [vars(module)["_plan"] for module in (inner, net[1].main)]
    net.backward_parameters(y)
    for module in net.modules():
        assert module._saved is None
    for module, plan in zip((inner, net[1].main), plans, strict=True):
        assert vars(module)["_plan"] is plan


class Twice(nn.Module):
    """A user's module that asks for the gradients of one forward pass twice."""

    def __init__(self):
        self.inner = nn.Sequential(nn.Linear(2, 2, seed=2), nn.ReLU())

    def forward(self, input):
        return self.inner(input)

    def backward(self, grad_output):
        return self.inner.backward(grad_output) + self.inner.backward(grad_output)


class Louder(nn.Sequential):
    def backward(self, grad_output):
        return super().backward(2 * grad_output)


def test_users_modules_keep_what_they_remember_and_their_own_backward(rng):
    x, results = rng.standard_normal((3, 2)).astype(np.float32), []
    for name in ("backward", "backward_parameters"):
        net = nn.Sequential(nn.Linear(2, 2, seed=0), Twice(), Louder(nn.Linear(2, 2, seed=1)), nn.Residual(Louder(nn.ReLU())))
        getattr(net, name)(net(x))
        results.append([parameter.grad for parameter in net.parameters()])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
        assert one.any()


def test_residual_adds_paths_and_their_gradients(rng):
    def conv(channels, size):
        return nn.Conv2d(2, channels, size, padding=size // 2, dtype=np.float64, seed=int(rng.integers(100)))

    x = rng.standard_normal((2, 2, 4, 3))
    block = nn.Residual(conv(3, 3), conv(3, 1))
    np.testing.assert_allclose(block(x), block.main(x) + block.shortcut(x), rtol=0, atol=0)
    assert gradcheck(block, x)
    assert gradcheck(nn.Residual(conv(2, 3), activation=nn.Tanh()), x)
    assert list(nn.Residual(conv(3, 3), conv(3, 1)).state_dict()) == ["main.weight", "main.bias", "shortcut.weight", "shortcut.bias"]


def test_residual_without_layers_doubles_and_leaves_its_argument_alone():
    block, x, g = nn.Residual(nn.Sequential()), np.ones((1, 2)), np.full((1, 2), 3.0)
    np.testing.assert_array_equal(block(x), 2 * x)
    np.testing.assert_array_equal(block.backward(g), [[6, 6]])
    assert x.max() == 1 and g.max() == 3


def test_residual_backward_parameters_gives_the_same_gradients(rng):
    options = {"dtype": np.float64}
    block = nn.Residual(nn.Conv2d(2, 3, 3, padding=1, **options), nn.Conv2d(2, 3, 1, **options), nn.Tanh())
    x, g = rng.standard_normal((2, 2, 4, 3)), rng.standard_normal((2, 3, 4, 3))
    block(x)
    block.backward(g)
    expected = [parameter.grad for parameter in block.parameters()]
    block.zero_grad()
    assert block.backward_parameters(g) is None
    for parameter, grad in zip(block.parameters(), expected, strict=True):
        np.testing.assert_array_equal(parameter.grad, grad)


def test_residual_refuses_paths_of_different_shapes():
    block = nn.Residual(nn.Conv2d(2, 2, 3))
    with pytest.raises(ArgumentError, match=r"same shape, got \(1, 2, 2, 2\) and \(1, 2, 4, 4\)"):
        block(np.ones((1, 2, 4, 4), np.float32))
    broadcasting = nn.Residual(nn.Conv2d(2, 1, 1))
    with pytest.raises(ArgumentError, match="same shape"):
        broadcasting(np.ones((1, 2, 4, 4), np.float32))


class OtherReLU(nn.ReLU):
    """No ReLU that anything is fused with."""


def _block(activation, channels=5, shortcut=False):
    main = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, seed=1, dtype=np.float64), nn.BatchNorm2d(channels, dtype=np.float64))
    main[1].weight.data[:] = np.linspace(-1, 2, channels)
    return nn.Residual(main, nn.Conv2d(channels, channels, 1, seed=2, dtype=np.float64) if shortcut else None, activation)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shortcut", [True, False])
@pytest.mark.parametrize("channels", [1, 5, 64])
def test_residual_in_the_pass_of_batch_norm(channels, shortcut, training, rng):
    blocks = [_block(activation, channels, shortcut).train(training) for activation in (nn.ReLU(), OtherReLU())]
    x, g = rng.standard_normal((3, channels, 5, 7)), rng.standard_normal((3, channels, 5, 7))
    x[0, 0, 0, 0] = 0 if training else np.nan
    outputs, gradients = zip(*[(block(x), block.backward(g)) for block in blocks], strict=True)
    assert_same_bits(*outputs)
    assert_same_bits(*gradients)
    for one, other in zip(blocks[0].parameters(), blocks[1].parameters(), strict=True):
        assert_same_bits(one.grad, other.grad)
    for name, array in blocks[0].state_dict().items():
        assert_same_bits(array, blocks[1].state_dict()[name])
    if training and channels == 5:
        assert gradcheck(blocks[0], x + 0.1)


def test_residual_does_as_its_modules_were_told(rng):
    block, x = _block(nn.ReLU()), rng.standard_normal((2, 5, 4, 4))
    block.main[1].forward = lambda input: np.full_like(input, -1)
    assert_same_bits(block(x), F.relu(x - 1))
    single = _block(nn.ReLU())
    with pytest.raises(ArgumentError, match="more than one value per channel") as error:
        single(x[:1, :, :1, :1])
    assert any("in layer 1 of Sequential: BatchNorm2d" in note for note in error.value.__notes__)
