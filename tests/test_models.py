"""The eight networks: sizes, keys, seeds, options, and that each of them learns."""

import numpy as np
import pytest

from fastconv import models, nn
from fastconv.errors import ArgumentError

PARAMETERS = {
    "lecture": 15,
    "digits_cnn": 1_898,
    "lenet5": 61_706,
    "mnist_cnn": 1_199_882,
    "vgg_cifar": 1_188_170,
    "resnet20": 272_474,
    "resnet18": 11_173_962,
    "mobilenet": 543_050,
}


def images(rng, name, count=2, dtype=np.float32):
    return rng.standard_normal((count, *models.INPUT_SHAPES[name])).astype(dtype)


@pytest.mark.parametrize("name", PARAMETERS)
def test_number_of_parameters(name):
    assert models.create(name).num_parameters() == PARAMETERS[name]


def test_every_network_is_in_the_table():
    assert list(models.INPUT_SHAPES) == list(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_output_and_gradient_shapes(rng, name):
    model, x = models.create(name, seed=0), images(rng, name)
    y = model(x)
    assert y.shape == (2, 1 if name == "lecture" else 10) and y.dtype == np.float32
    assert model.backward(np.ones_like(y)).shape == x.shape
    for key, parameter in model.named_parameters():
        assert parameter.grad.shape == parameter.shape and np.isfinite(parameter.grad).all(), key


def test_seeds():
    same = [
        models.lenet5(seed=3).state_dict(),
        models.lenet5(seed=3).state_dict(),
        models.lenet5(seed=np.random.default_rng(3)).state_dict(),
    ]
    other = models.lenet5(seed=4).state_dict()
    for key, array in same[0].items():
        np.testing.assert_array_equal(array, same[1][key])
        np.testing.assert_array_equal(array, same[2][key])
        assert not np.array_equal(array, other[key])
    drawn = []
    for _ in range(2):
        nn.manual_seed(5)
        drawn.append(models.lenet5().state_dict()["0.weight"])
    np.testing.assert_array_equal(*drawn)
    assert not np.array_equal(drawn[0], models.lenet5().state_dict()["0.weight"])


@pytest.mark.parametrize("name", PARAMETERS)
def test_both_dtypes_have_the_same_weights(name):
    single, double = (models.create(name, seed=1, dtype=dtype).state_dict() for dtype in (np.float32, np.float64))
    for key, array in double.items():
        assert single[key].dtype == (np.int64 if array.dtype == np.int64 else np.float32)
        np.testing.assert_array_equal(single[key], array.astype(single[key].dtype))


@pytest.mark.parametrize("name", [n for n in PARAMETERS if n != "lecture"])
def test_other_classes_and_channels(rng, name):
    _, H, W = models.INPUT_SHAPES[name]
    model = models.create(name, num_classes=3, in_channels=2, seed=0).eval()
    with nn.no_grad():
        assert model(rng.standard_normal((1, 2, H, W)).astype(np.float32)).shape == (1, 3)


def test_keys():
    assert list(models.lenet5().state_dict()) == [f"{i}.{kind}" for i in (0, 3, 7, 9, 11) for kind in ("weight", "bias")]
    keys = list(models.resnet20().state_dict())
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert keys[:8] == ["conv.weight", *(f"bn.{k}" for k in norm), "stage1.0.main.conv1.weight", "stage1.0.main.bn1.weight"]
    assert {"stage2.0.shortcut.conv.weight", "stage3.0.shortcut.bn.bias", "fc.bias"} <= set(keys)
    assert not any(key.startswith(("stage1.0.shortcut", "stage2.1.shortcut")) for key in keys)


def test_unknown_network_is_named():
    for name in ("alexnet", "basic_block", "np", None):
        with pytest.raises(ArgumentError, match="name must be one of lecture, digits_cnn"):
            models.create(name)


@pytest.mark.parametrize("name", ["lecture", "digits_cnn", "lenet5", "resnet20"])
def test_a_few_steps_lower_the_loss(rng, name):
    from fastconv import optim

    model, x = models.create(name, seed=2), images(rng, name, 8)
    binary = name == "lecture"
    target = rng.integers(0, 2, (8, 1)).astype(np.float32) if binary else rng.integers(0, 10, 8)
    loss = nn.BCELoss() if binary else nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(12):
        losses.append(loss(model(x), target))
        optimizer.zero_grad()
        model.backward_parameters(loss.backward())
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]
