"""Module and Parameter: registration, the tree, state, modes, copies, text."""

import copy
import threading

import numpy as np
import pytest

from fastconv import nn
from fastconv.errors import ArgumentError, ArgumentTypeError


class Scale(nn.Module):
    """A user's module as the documentation shows it: no super().__init__, no backward_parameters."""

    def __init__(self, channels=3):
        self.factor = nn.Parameter(np.full((channels, 1, 1), 2.0))
        self.register_buffer("calls", np.array(0))

    def forward(self, input):
        self.calls[...] += 1
        self.remember(input)
        return input * self.factor.data

    def backward(self, grad_output):
        (input,) = self.recall()
        self.factor.accumulate((grad_output * input).sum((0, 2, 3), keepdims=True)[0])
        return grad_output * self.factor.data


class Net(nn.Module):
    def __init__(self):
        self.first = nn.Conv2d(2, 3, 3, dtype=np.float64)
        self.scale = Scale()
        self.offset = nn.Parameter(np.zeros(4))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(12, 4, bias=False, dtype=np.float64))

    def forward(self, input):
        return self.head(self.scale(self.first(input))) + self.offset.data

    def backward(self, grad_output):
        self.offset.accumulate(grad_output.sum(0))
        return self.first.backward(self.scale.backward(self.head.backward(grad_output)))


def test_parameters_are_found_in_order_of_assignment_own_ones_first():
    net = Net()
    names = ["offset", "first.weight", "first.bias", "scale.factor", "head.1.weight"]
    assert [name for name, _ in net.named_parameters()] == names
    assert [id(p) for p in net.parameters()] == [id(p) for _, p in net.named_parameters()]
    assert list(net.state_dict()) == [*names[:4], "scale.calls", "head.1.weight"]
    assert [name for name, _ in net.named_parameters(prefix="net", recurse=False)] == ["net.offset"]
    assert net.num_parameters() == 4 + 3 * 2 * 9 + 3 + 3 + 48


def test_tree_of_modules():
    net = Net()
    assert [name for name, _ in net.named_modules()] == ["", "first", "scale", "head", "head.0", "head.1"]
    assert list(net.modules()) == [net, net.first, net.scale, net.head, net.head[0], net.head[1]]
    assert list(net.named_children()) == [("first", net.first), ("scale", net.scale), ("head", net.head)]
    assert list(net.children()) == [net.first, net.scale, net.head]
    assert [name for name, _ in net.named_buffers()] == ["scale.calls"]
    assert list(net.buffers()) == [net.scale.calls]


def test_shared_parameter_is_one_parameter_under_two_keys():
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    net[2].weight = net[0].weight
    assert len(list(net.parameters())) == 3
    assert {"0.weight", "2.weight"} <= set(net.state_dict())


def test_replacing_and_deleting_attributes_changes_registration():
    net = Net()
    net.head = nn.Linear(12, 2)
    assert net.num_parameters() == 4 + 57 + 3 + 26
    del net.scale
    net.offset = None
    assert [name for name, _ in net.named_parameters()] == ["first.weight", "first.bias", "head.weight", "head.bias"]


def test_users_module_trains_and_passes_gradcheck(rng):
    from fastconv import gradcheck

    assert gradcheck(Net(), rng.standard_normal((2, 2, 4, 4)))


def test_gradients_add_up_until_they_are_cleared(rng):
    layer = nn.Linear(3, 2, dtype=np.float64)
    assert layer.weight.grad is None and layer.bias.grad is None
    x, g = rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
    layer(x)
    layer.backward(g)
    once = layer.weight.grad.copy()
    layer.backward(g)
    np.testing.assert_array_equal(layer.weight.grad, 2 * once)
    layer.zero_grad(set_to_none=False)
    np.testing.assert_array_equal(layer.weight.grad, np.zeros((2, 3)))
    layer.backward(g)
    np.testing.assert_array_equal(layer.weight.grad, once)
    layer.zero_grad()
    assert layer.weight.grad is None and layer.bias.grad is None


def test_train_and_eval_reach_every_module_and_return_it():
    net = Net()
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    assert net.train() is net
    assert all(m.training for m in net.modules())


def test_backward_without_forward_says_so():
    for module in (nn.ReLU(), nn.Linear(2, 2), nn.MSELoss(), nn.Flatten()):
        with pytest.raises(ArgumentError, match="needs a forward pass before it"):
            module.backward(*[np.zeros((1, 2), np.float32)] * (not isinstance(module, nn.MSELoss)))


def test_base_class_has_no_passes():
    with pytest.raises(NotImplementedError, match="Module has no forward"):
        nn.Module()(1)
    with pytest.raises(NotImplementedError, match="Module has no backward"):
        nn.Module().backward(1)


# --- no_grad


def test_no_grad_remembers_nothing(rng):
    layer = nn.Linear(3, 2)
    x = rng.standard_normal((4, 3)).astype(np.float32)
    with nn.no_grad():
        with nn.no_grad():
            layer(x)
        layer(x)
    with pytest.raises(ArgumentError, match="outside of no_grad"):
        layer.backward(np.zeros((4, 2), np.float32))
    layer(x)
    layer.backward(np.zeros((4, 2), np.float32))


def test_no_grad_ends_with_an_error_and_decorates():
    layer = nn.ReLU()

    @nn.no_grad()
    def evaluate():
        layer(np.ones((1, 2), np.float32))
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        evaluate()
    with pytest.raises(ArgumentError):
        layer.backward(np.ones((1, 2), np.float32))
    layer(np.ones((1, 2), np.float32))
    assert layer.backward(np.ones((1, 2), np.float32)).shape == (1, 2)


def test_no_grad_is_of_its_thread_alone():
    layer = nn.ReLU()
    with nn.no_grad():
        thread = threading.Thread(target=layer, args=(np.ones((1, 2), np.float32),))
        thread.start()
        thread.join()
    assert layer.backward(np.ones((1, 2), np.float32)).shape == (1, 2)


# --- Parameter


def test_parameter_owns_its_array():
    array = np.ones((2, 3), np.float32)
    parameter = nn.Parameter(array)
    parameter.data[...] = 5
    assert array.max() == 1
    parameter.data = strided = np.arange(6, dtype=np.float32).reshape(3, 2).T
    assert parameter.data.flags.c_contiguous and parameter.data.flags.writeable
    np.testing.assert_array_equal(parameter.data, strided)
    assert (parameter.shape, parameter.dtype, parameter.ndim, parameter.size) == ((2, 3), np.float32, 2, 6)
    np.testing.assert_array_equal(np.asarray(parameter), strided)
    assert "Parameter containing" in repr(parameter)


def test_parameter_takes_any_byte_order_and_read_only_arrays():
    array = np.arange(3, dtype=">f8")
    array.flags.writeable = False
    parameter = nn.Parameter(array)
    assert parameter.dtype == np.float64 and parameter.dtype.isnative and parameter.data.flags.writeable


@pytest.mark.parametrize("data", [[1.0], np.ones(2, np.int64), np.ones(2, np.float16), 1.0, np.ma.ones(3), None])
def test_parameter_refuses_what_cannot_be_trained(data):
    with pytest.raises(ArgumentTypeError, match="data must be"):
        nn.Parameter(data)


def test_parameter_of_another_shape_or_dtype_drops_its_gradient():
    parameter = nn.Parameter(np.ones(3, np.float32))
    parameter.accumulate(np.ones(3, np.float32))
    parameter.data = np.zeros(3, np.float32)
    assert parameter.grad is not None
    parameter.data = np.zeros(3)
    assert parameter.grad is None


@pytest.mark.parametrize("gradient", [np.ones(2, np.float32), np.ones((1, 3), np.float32), np.ones(3)])
def test_gradient_must_fit_its_parameter(gradient):
    with pytest.raises(ArgumentError, match=r"gradient must be float32 of shape \(3,\)"):
        nn.Parameter(np.ones(3, np.float32)).accumulate(gradient)


# --- state


def test_state_dict_is_a_snapshot():
    net = Net()
    state = net.state_dict()
    kept = {key: array.copy() for key, array in state.items()}
    for parameter in net.parameters():
        parameter.data += 1
    for key, array in state.items():
        np.testing.assert_array_equal(array, kept[key])


def test_load_state_dict_restores_in_place(rng):
    net, other = Net(), Net()
    other.scale.calls[...] = 7
    arrays = [parameter.data for parameter in net.parameters()]
    assert net.load_state_dict(other.state_dict()) == ([], [])
    assert all(p.data is a for p, a in zip(net.parameters(), arrays, strict=True))
    x = rng.standard_normal((2, 2, 4, 4))
    np.testing.assert_array_equal(net(x), other(x))
    assert net.scale.calls == 8


def test_load_state_dict_converts_dtypes(rng):
    layer = nn.Linear(3, 2)
    weight = rng.standard_normal((2, 3))
    layer.load_state_dict({"weight": weight, "bias": [1, 2]})
    np.testing.assert_array_equal(layer.weight.data, weight.astype(np.float32))
    np.testing.assert_array_equal(layer.bias.data, np.array([1, 2], np.float32))


def test_load_state_dict_names_every_misfit_and_changes_nothing():
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm2d(2))
    before, state = net.state_dict(), net.state_dict()
    state["0.weight"] += 1
    state["0.bias"] = np.zeros(3)
    del state["1.running_mean"], state["1.weight"]
    state["2.weight"] = np.zeros(1)
    with pytest.raises(ArgumentError) as error:
        net.load_state_dict(state)
    assert str(error.value).splitlines() == [
        "state_dict does not fit Sequential:",
        "  missing keys: 1.weight, 1.running_mean",
        "  unexpected keys: 2.weight",
        "  0.bias must have shape (2,), got (3,)",
    ]
    with pytest.raises(ArgumentError, match=r"0\.bias must have shape") as error:
        net.load_state_dict(state, strict=False)
    assert "keys" not in str(error.value)
    for key, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[key])


def test_load_state_dict_not_strict_says_what_it_left_out():
    layer = nn.Linear(3, 2)
    result = layer.load_state_dict({"bias": np.ones(2), "scale": np.ones(2)}, strict=False)
    assert result.missing_keys == ["weight"] and result.unexpected_keys == ["scale"]
    np.testing.assert_array_equal(layer.bias.data, [1, 1])


@pytest.mark.parametrize("value", [np.array(["a", "b"]), np.ones(2, complex), None, object()])
def test_load_state_dict_refuses_what_is_no_number(value):
    with pytest.raises(ArgumentTypeError, match=r"state_dict\['bias'\] must hold numbers"):
        nn.Linear(3, 2).load_state_dict({"weight": np.ones((2, 3)), "bias": value})


def test_load_state_dict_refuses_fractions_for_counts_and_other_types():
    norm = nn.BatchNorm2d(2)
    with pytest.raises(ArgumentTypeError, match="numbers that fit int64"):
        norm.load_state_dict({**norm.state_dict(), "num_batches_tracked": np.array(1.5)})
    with pytest.raises(ArgumentTypeError, match="must be a dict of arrays, got list"):
        norm.load_state_dict([1])


def test_astype_converts_parameters_and_buffers():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    x = np.ones((1, 1, 4, 4), np.float32)
    net(x)
    assert net.double() is net
    kinds = {key: array.dtype for key, array in net.state_dict().items()}
    assert kinds.pop("1.num_batches_tracked") == np.int64
    assert set(kinds.values()) == {np.dtype(np.float64)}
    with pytest.raises(ArgumentError):
        net.backward(np.ones((1, 2, 2, 2)))
    assert net(x.astype(np.float64)).dtype == np.float64
    assert net.float()[0].weight.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, int, "text", None, "f2", object()])
def test_astype_and_layers_refuse_other_dtypes(dtype):
    with pytest.raises(ArgumentTypeError, match="dtype must be float32 or float64"):
        nn.Sequential().astype(dtype)
    with pytest.raises(ArgumentTypeError, match="dtype must be float32 or float64"):
        nn.Linear(2, 2, dtype=dtype)


def test_deepcopy_copies_state_but_no_activations(rng):
    net = Net()
    x = rng.standard_normal((2, 2, 4, 4))
    expected = net(x)
    twin = copy.deepcopy(net)
    np.testing.assert_array_equal(twin(x), expected)
    twin = copy.deepcopy(net)
    with pytest.raises(ArgumentError):
        twin.head.backward(np.ones((2, 4)))
    twin.offset.data += 1
    assert net.offset.data.max() == 0
    net.backward(np.ones((2, 4)))


# --- text


def test_repr_is_nested():
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Residual(nn.Sequential(nn.ReLU()), activation=nn.Tanh()))
    assert repr(net) == (
        "Sequential(\n"
        "  (0): Conv2d(1, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))\n"
        "  (1): Residual(\n"
        "    (main): Sequential(\n"
        "      (0): ReLU()\n"
        "    )\n"
        "    (activation): Tanh()\n"
        "  )\n"
        ")"
    )
    assert repr(nn.Sequential()) == "Sequential()"
