"""Training steps whose kernels are called again without the layers' Python."""

import contextlib
import copy
import gc
import math
import os
import pickle
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
from checks import in_threads

import fastconv
from fastconv import errors, functional, memory, models, nn, optim
from fastconv.arena import Arena
from fastconv.kernels import jit
from fastconv.kernels import replay as launches
from fastconv.kernels.jit import Busy, intercepted
from fastconv.nn import passes, replay

STEPS = 3


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(replay, "STEPS", STEPS)


def images(shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def tape(model):
    """The tape of the model's last step, or None."""
    steps = vars(model).get("_steps")
    return steps and steps.last and steps.last.tape


def refused(model):
    return any(known.steps == -math.inf for known in vars(model)["_steps"].known.values())


def step(model, x, seed=0):
    """Forward and backward; the output."""
    output = model(x)
    model.backward_parameters(images(output.shape, seed, output.dtype))
    return output


def replayed(model, x):
    """The model after as many steps as it takes to replay them; its gradients are cleared."""
    for _ in range(STEPS + 1):
        step(model, x)
    assert tape(model)
    model.zero_grad()
    return model


def gradients(model):
    return [parameter.grad.copy() for parameter in model.parameters()]


def same(some, others):
    return len(some) == len(others) and all(a.tobytes() == b.tobytes() for a, b in zip(some, others, strict=True))


def small():
    return nn.Sequential(nn.Conv2d(2, 3, 3, seed=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 4, seed=2))


INPUT = (5, 2, 8, 8)

NETWORKS = {
    "lecture": (lambda: models.lecture(seed=0), (32, 1, 6, 6)),
    "digits_cnn": (lambda: models.digits_cnn(seed=0), (64, 1, 8, 8)),
    "lenet5": (lambda: models.lenet5(seed=0), (9, 1, 28, 28)),
    "perceptron": (lambda: nn.Sequential(nn.Linear(6, 7, seed=0), nn.ReLU(), nn.Linear(7, 3, bias=False, seed=1)), (1, 6)),
    "activations": (
        lambda: nn.Sequential(
            nn.Linear(6, 40, seed=0),
            nn.LeakyReLU(),
            nn.Linear(40, 40, seed=1),
            nn.GELU(),
            nn.Linear(40, 40, seed=2),
            nn.SiLU(),
            nn.Linear(40, 40, seed=3),
            nn.Tanh(),
            nn.Linear(40, 40, seed=4),
            nn.Sigmoid(),
            nn.Linear(40, 8, seed=5),
            nn.ReLU(),
        ),
        (33, 6),
    ),
    "no maxima": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, seed=0), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(8, 8, 3, groups=8, seed=1)),
        (4, 3, 12, 12),
    ),
    "winograd": (
        lambda: nn.Sequential(nn.Conv2d(32, 32, 3, padding=1, seed=0), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1, seed=1), nn.Flatten()),
        (2, 32, 16, 16),
    ),
    "strides that become channels": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 11, stride=4, padding=2, algorithm="winograd", seed=0),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 4, padding=1, algorithm="winograd", seed=1),
        ),
        (2, 3, 63, 59),
    ),
    "im2col and loops": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2, algorithm="im2col", seed=0), nn.ReLU(), nn.Conv2d(4, 5, 2, dilation=2, algorithm="loops", seed=1)
        ),
        (2, 3, 12, 12),
    ),
    "two paths": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, seed=0),
            nn.Residual(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, seed=1), nn.ReLU()), nn.Conv2d(4, 4, 1, seed=2), nn.ReLU()),
            nn.MaxPool2d(3, 2, padding=1),
            nn.Flatten(),
            nn.Linear(64, 2, seed=3),
        ),
        (4, 1, 8, 8),
    ),
    "normalized": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 8, 3, bias=False, seed=0),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Residual(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, seed=1), nn.BatchNorm2d(8, affine=False)), activation=nn.ReLU()),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        ),
        (4, 1, 8, 8),
    ),
    "transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(2, 3, 3, stride=2, seed=0), nn.Sigmoid(), nn.Conv2d(3, 8, 1, stride=2, seed=1)),
        (3, 2, 5, 5),
    ),
    "nested": (lambda: nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(16, 8, seed=0)), nn.Sequential(nn.ReLU())), (3, 1, 4, 4)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NETWORKS)
def test_training_gives_the_same_bits(name, dtype, monkeypatch):
    make, shape = NETWORKS[name]
    histories = []
    for steps in (STEPS, math.inf):
        monkeypatch.setattr(replay, "STEPS", steps)
        model, history = make().astype(dtype), []
        optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for i in range(STEPS + 5):
            optimizer.zero_grad()
            history.append(step(model, images(shape, i, dtype), seed=100 + i))
            history += [parameter.grad for parameter in model.parameters()]  # not copied: they must not change any more
            optimizer.step()
        histories.append(history + list(model.state_dict().values()))
        assert bool(tape(model)) is (steps == STEPS)
    assert same(*histories)


def test_channels_last_inputs_and_outputs():
    make = NETWORKS["no maxima"][0]
    model, plain = make(), make()
    for i in range(STEPS + 3):
        x = images((4, 12, 12, 3), i).transpose(0, 3, 1, 2)
        outputs = [model(x), plain.forward(x)]
        gradient = images(outputs[0].shape) if i % 2 else images((4, 4, 4, 8)).transpose(0, 3, 1, 2)
        for network in (model, plain):
            network.zero_grad()
        model.backward_parameters(gradient)
        plain.backward(gradient)
        assert same([outputs[0], *gradients(model)], [outputs[1], *gradients(plain)])
        assert outputs[0].strides == outputs[1].strides
    assert tape(model)


def test_layers_remember_what_they_would():
    model, plain = replayed(small(), images(INPUT)), small()
    x, gradient = images(INPUT, 5), images((5, 4), 6)
    assert same([model(x)], [plain(x)])
    assert model[3].recall() == plain[3].recall()
    assert model[0].recall()[0] is x
    assert same([model[4].recall()[0]], [plain[4].recall()[0]])
    assert same([model.backward(gradient)], [plain.backward(gradient)])
    assert same(gradients(model), gradients(plain))


def test_gradients_add_up():
    model, plain = replayed(small(), images(INPUT)), small()
    for i in range(3):
        step(model, images(INPUT, i), i)
        plain.forward(images(INPUT, i))
        plain.backward(images((5, 4), i))
    assert tape(model)
    assert same(gradients(model), gradients(plain))


def test_backward_needs_its_own_forward():
    model = replayed(small(), images(INPUT))
    step(model, images(INPUT))
    with pytest.raises(errors.FastconvError, match="needs a forward pass before it"):
        model.backward_parameters(images((5, 4)))


def test_a_wrong_gradient_is_refused_as_ever():
    model = replayed(small(), images(INPUT))
    model(images(INPUT))
    with pytest.raises(errors.FastconvError, match="grad_output must have shape"):
        model.backward_parameters(images((5, 3)))


def test_backward_is_of_the_last_forward():
    model, plain = replayed(small(), images(INPUT)), small()
    model(images(INPUT, 3))
    with nn.no_grad():
        model(images(INPUT, 4))
    first = model(images(INPUT, 5))
    kept = first.copy()
    with nn.no_grad():
        model(images(INPUT, 6))
    model.backward_parameters(images((5, 4)))
    assert same([first], [kept])
    plain.forward(images(INPUT, 5))
    plain.backward(images((5, 4)))
    assert same(gradients(model), gradients(plain))


def test_a_layer_that_has_seen_something_else_meanwhile():
    model, plain = replayed(small(), images(INPUT)), small()
    for network in (model, plain):
        network(images(INPUT, 3))
        network[4].forward(images((5, 27), 4))
        network.backward_parameters(images((5, 4)))
    assert same(gradients(model), gradients(plain))


def test_a_layer_that_has_seen_something_else_is_replayed_again():
    model, plain = replayed(small(), images(INPUT)), small()
    for i in range(2):
        for network in (model, plain):
            network.zero_grad()
            network[4].forward(images((5, 27), i))
            step(network, images(INPUT, i), i)
        assert same(gradients(model), gradients(plain))
        with pytest.raises(errors.FastconvError, match="needs a forward pass before it"):
            model[4].recall()
    assert tape(model).last.placed


def test_a_network_in_a_network_has_steps_of_its_own():
    make, shape = NETWORKS["nested"]
    model, plain = replayed(make(), images(shape)), make()
    replayed(model[0], images(shape))
    model[0](images(shape, 1))
    assert not tape(model).last.placed  # its modules remember what they have seen by themselves
    for i in range(3):
        for network in (model, plain):
            network.zero_grad()
            step(network, images(shape, i), i)
        assert same(gradients(model), gradients(plain))
    assert tape(model).last.placed


def test_a_layer_remembers_outside_of_the_network_it_was_in():
    model, plain = replayed(small(), images(INPUT)), small()
    x, gradient = images(INPUT, 5), images((5, 4), 6)
    layers = []
    for network in (model, plain):
        network(x)
        layers.append(network[4])
        network[4] = nn.Linear(27, 4, seed=3)
    layers.reverse()
    del model, network
    gc.collect()
    plain_layer, layer = layers
    assert same([layer.backward(gradient)], [plain_layer.backward(gradient)])


def test_an_input_of_another_form_leaves_what_was_remembered():
    model, plain = replayed(small(), images(INPUT)), small()
    for network in (model, plain):
        network(images(INPUT, 5))
        with pytest.raises(errors.FastconvError):
            network(images((5, 2, 3, 3)))  # too small for the maxima
    assert same([model[4].recall()[0]], [plain[4].recall()[0]])


def change_stride(model):
    model[0].padding = (1, 1)
    model[4] = nn.Linear(48, 4, seed=2)


def exchange_a_parameter(model):
    model[0].weight = nn.Parameter(images((3, 2, 3, 3), 9))


def remove_the_bias(model):
    model[0].bias = None


def put_another_layer(model):
    model[1] = nn.LeakyReLU()


def another_weight(model):
    model[0].weight.data = images((3, 2, 3, 3), 9)


def write_into_a_weight(model):
    model[0].weight.data *= 2


def load(model):
    model.load_state_dict({**model.state_dict(), "0.bias": images(3, 9)})


def another_forward(model):
    forward = model[1].forward
    model[1].forward = lambda input: 2 * forward(input)


OF_NUMBERS = [another_weight, write_into_a_weight, load]
CHANGES = [change_stride, exchange_a_parameter, remove_the_bias, put_another_layer, another_forward, *OF_NUMBERS]


@pytest.mark.parametrize(("change", "between"), [(change, False) for change in CHANGES] + [(change, True) for change in OF_NUMBERS])
def test_changes_are_seen(change, between):
    """Before a step, or between its passes."""
    model, plain = replayed(small(), images(INPUT)), small()
    x = images(INPUT, 7)
    if between:
        outputs = [network(x) for network in (model, plain)]
    for network in (model, plain):
        change(network)
    if not between:
        outputs = [network(x) for network in (model, plain)]
    for network in (model, plain):
        network.backward_parameters(images((5, 4), 8))
    assert same([outputs[0], *gradients(model)], [outputs[1], *gradients(plain)])


def test_a_weight_of_another_shape_is_refused_as_ever():
    model = replayed(small(), images(INPUT))
    model[4].weight.data = images((4, 26))
    with pytest.raises(errors.FastconvError, match="in layer 4"):
        model(images(INPUT))


def test_weights_exchanged_at_every_step():
    model, plain = replayed(small(), images(INPUT)), small()
    for i in range(3):
        for network in (model, plain):
            network.zero_grad()
            step(network, images(INPUT, i), i)
            for parameter in network.parameters():
                parameter.data = parameter.data - 0.1 * parameter.grad
    assert tape(model)
    assert same([p.data for p in model.parameters()], [p.data for p in plain.parameters()])


def test_modes_are_apart(monkeypatch):
    model = replayed(small(), images(INPUT))
    first = tape(model)
    model.eval()
    model(images(INPUT))
    assert tape(model) is None
    model.train()
    model(images(INPUT))
    assert tape(model) is first
    allowed = fastconv.get_winograd()
    fastconv.set_winograd(not allowed)
    model(images(INPUT))
    fastconv.set_winograd(allowed)
    assert tape(model) is None


def test_shapes_are_apart_and_few():
    model = small()
    for i in range(1, 2 * replay.FORMS):
        replayed(model, images((i, *INPUT[1:])))
    assert len(vars(model)["_steps"].known) <= replay.FORMS
    step(model, images((0, *INPUT[1:])))
    assert tape(model) is None


@pytest.mark.parametrize("case", ["strided", "read-only", "other type", "evaluation"])
def test_other_inputs_are_computed_as_ever(case):
    model, plain, x = replayed(small(), images(INPUT)), small(), images(INPUT, 3)
    if case == "strided":
        x = np.repeat(x, 2, 0)[::2]
    elif case == "read-only":
        x.flags.writeable = False
    elif case == "other type":
        x = x.view(np.matrix.__base__).view(type("Array", (np.ndarray,), {}))
    if case == "evaluation":
        with nn.no_grad():
            assert same([model(x)], [plain(x)])
    else:
        assert same([step(model, x)], [step(plain, x)])
        assert same(gradients(model), gradients(plain))


class Twice(nn.Module):
    def forward(self, input):
        return 2 * input

    def backward(self, grad_output):
        return 2 * grad_output


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), Twice()])
def test_what_is_not_kernels_alone_is_not_replayed(layer):
    model = small().append(layer)
    for _ in range(STEPS + 2):
        step(model, images(INPUT))
    assert refused(model)
    assert tape(model) is None


def test_a_dropout_that_is_off_is_nothing():
    model = small().append(nn.Dropout(0.5))
    model.eval()
    for _ in range(STEPS + 2):
        step(model, images(INPUT))
    assert not refused(model)


def test_a_copy_that_numpy_makes_is_found(monkeypatch, caplog):
    def forward(self, input):
        self.remember(input.shape, (len(input), 27))
        return np.array(input).reshape(len(input), 27)

    monkeypatch.setattr(nn.Flatten, "forward", forward)
    model = small()
    with caplog.at_level("INFO", "fastconv"):
        for _ in range(STEPS + 2):
            step(model, images(INPUT))
    assert refused(model)
    assert "are not replayed for inputs of shape (5, 2, 8, 8): not all of it is done by kernels" in caplog.text


@pytest.mark.parametrize(("module", "limit", "reason"), [(launches, "MOST_BYTES", "too large"), (passes, "MOST_PARAMETERS", "too many")])
def test_what_would_take_much_memory_is_not_replayed(module, limit, reason, monkeypatch, caplog):
    model = small()
    monkeypatch.setattr(module, limit, 1 << 8)
    with caplog.at_level("INFO", "fastconv"):
        for _ in range(STEPS + 1):
            step(model, images(INPUT))
    assert refused(model)
    assert reason in caplog.text


@pytest.fixture
def large(monkeypatch):
    """A network counts as large; its arrays lie in an arena of their own."""
    monkeypatch.setattr(passes, "KEPT_BYTES", 0)
    monkeypatch.setattr(memory, "_arena", Arena(memory.KEEP))
    return lambda: nn.Sequential(nn.Conv2d(4, 16, 3, padding=1, seed=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3, seed=2))


LARGE = (8, 4, 16, 16)


def test_a_large_network_has_its_memory_for_a_step_only(large):
    model = replayed(large(), images(LARGE))
    assert not tape(model).passes.keeps
    free = memory._arena.unused()
    x = images(LARGE)
    model(x)
    needed = sum(size for _, _, size in tape(model).passes.regions)
    assert needed > 3 * 8 * 16 * 16 * 16 * 4
    assert memory._arena.unused() <= free - needed
    model(x)  # without backward
    model.backward_parameters(images((8, 8, 14, 14)))
    model.zero_grad()
    assert memory._arena.unused() == free
    model(x)
    model(images((3, *LARGE[1:])))  # another shape, and the step before is over
    assert memory._arena.unused() >= free - needed // 2


def test_a_large_network_gives_the_same_bits(large, monkeypatch):
    states = []
    for steps in (STEPS, math.inf):
        monkeypatch.setattr(replay, "STEPS", steps)
        model = large()
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        for i in range(STEPS + 4):
            optimizer.zero_grad()
            step(model, images(LARGE, i), i)
            optimizer.step()
        states.append(list(model.state_dict().values()))
    assert same(*states)


def test_memory_that_others_have_is_left_to_them(large, monkeypatch):
    monkeypatch.setattr(replay, "MISSES", 2)
    model, plain = replayed(large(), images(LARGE)), large()
    first = tape(model)
    others = memory._arena.claim(first.passes.regions)
    for i in range(7 * STEPS):
        model.zero_grad()
        plain.zero_grad()
        assert same([step(model, images(LARGE, i))], [plain.forward(images(LARGE, i))])
        plain.backward(images((8, 8, 14, 14)))
        assert same(gradients(model), gradients(plain))
    assert tape(model) not in (None, first)  # in another place
    assert tape(model).misses == 0
    del others


def test_copies_are_independent():
    model = replayed(small(), images(INPUT))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        x = images(INPUT, 4)
        assert same([step(other, x)], [step(model, x)])
        assert same(gradients(other), gradients(model))
        for network in (model, other):
            network.zero_grad()


def test_memory_of_gradients_is_used_again_when_nobody_has_them():
    model, plain = replayed(small(), images(INPUT)), small()
    step(model, images(INPUT))
    weight, bias = model[0].weight, model[0].bias
    views, kept = [weight.grad[0], weight.grad.T], weight.grad.copy()
    before = id(weight.grad), id(bias.grad)
    model.zero_grad()
    step(model, images(INPUT, 1))
    assert id(weight.grad) != before[0]
    assert id(bias.grad) == before[1]
    assert same(views, [kept[0], kept.T])
    step(plain, images(INPUT, 1))
    assert same(gradients(model), gradients(plain))


def test_memory_of_gradients_goes_back_when_it_is_asked_for():
    model = replayed(small(), images(INPUT))
    step(model, images(INPUT))
    kept = [weakref.ref(parameter.grad) for parameter in model.parameters()]
    model.zero_grad()
    assert all(reference() is not None for reference in kept)
    memory.release()
    assert not any(reference() is not None for reference in kept)


def test_a_layer_keeps_nothing_of_the_network_it_was_in():
    model = replayed(small(), images(INPUT))
    step(model, images(INPUT))
    layer, others = model[0], [weakref.ref(array) for array in (model[4].weight.data, model[4].weight.grad)]
    del model
    gc.collect()
    assert [reference() for reference in others] == [None, None]
    assert layer.weight.grad is not None


def test_memory_of_large_gradients_is_not_kept(monkeypatch):
    monkeypatch.setattr(replay, "KEPT_GRADIENTS", 0)
    model = replayed(small(), images(INPUT))
    step(model, images(INPUT))
    kept = [weakref.ref(parameter.grad) for parameter in model.parameters()]
    model.zero_grad()
    assert not any(reference() is not None for reference in kept)


def test_nothing_of_the_callers_is_kept():
    model = replayed(small(), images(INPUT))
    x = images(INPUT)
    output = step(model, x)
    kept = [weakref.ref(array) for array in (x, output)]
    del x, output
    gc.collect()
    assert not any(reference() is not None for reference in kept)


def test_threads_that_share_a_network_get_their_own_outputs():
    model, plain = replayed(small(), images(INPUT)), small()
    expected = [plain.forward(images(INPUT, i)).tobytes() for i in range(4)]
    wrong = []

    def work(i):
        x = images(INPUT, i)
        for _ in range(200):
            if model(x).tobytes() != expected[i]:
                wrong.append(i)

    in_threads(work, 4)
    assert wrong == []


def test_a_recording_in_another_thread_is_waited_out():
    model = small()
    inside, done = threading.Event(), threading.Event()

    def hold():
        with intercepted(lambda run, kernel, work, *arguments: run(kernel, work, *arguments)):
            inside.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(60)
    for _ in range(STEPS + 2):
        step(model, images(INPUT))
    assert tape(model) is None
    assert not refused(model)
    done.set()
    thread.join()
    for _ in range(STEPS + 1):
        step(model, images(INPUT))
    assert tape(model)


def test_one_thread_or_two():
    make, shape = NETWORKS["lenet5"]
    model, threads = make(), fastconv.get_num_threads()
    x = images((64, *shape[1:]))
    replayed(model, x)
    results = []
    try:
        for count in (threads, 1):
            fastconv.set_num_threads(count)
            model.zero_grad()
            results.append([step(model, x), *gradients(model)])
    finally:
        fastconv.set_num_threads(threads)
    assert same(*results)


def test_kernels_that_need_a_lock_get_it(monkeypatch):
    make, shape = NETWORKS["lenet5"]
    model, plain, x = make(), make(), images((64, *shape[1:]))
    replayed(model, x)

    class Counted:
        entered = 0

        def __enter__(self):
            self.entered += 1

        def __exit__(self, *exception):
            pass

    lock = Counted()
    monkeypatch.setattr(jit, "_needs_lock", True)
    monkeypatch.setattr(jit, "_workqueue_lock", lock)
    assert same([step(model, x)], [model[:].forward(x)])
    plain.forward(x)
    plain.backward(images((64, 10)))
    assert tape(model)
    assert same(gradients(model), gradients(plain))
    assert lock.entered >= 9


FORK = """
import os, sys
import numpy as np
import fastconv
from fastconv import models
from fastconv.nn import passes, replay
replay.STEPS = 2
model, x = models.lenet5(seed=0), np.random.default_rng(0).standard_normal((64, 1, 28, 28)).astype(np.float32)
def step():
    model.zero_grad()
    y = model(x)
    model.backward_parameters(np.ones_like(y))
    return y.tobytes() + b"".join(p.grad.tobytes() for p in model.parameters())
for _ in range(4):
    expected = step()
assert vars(model)["_steps"].last.tape
child = os.fork()
if child == 0:
    os._exit(0 if step() == expected else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_replays_too():
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=True, timeout=120)


def test_threads_with_inputs_of_two_forms():
    """Also while a tape is made, which belongs to one of them."""
    model, stop, wrong = small(), threading.Event(), []
    inputs = [images(INPUT), images((2, *INPUT[1:]))]
    expected = [small().forward(x).tobytes() for x in inputs]

    def work(i):
        while not stop.is_set():
            if model(inputs[i]).tobytes() != expected[i]:
                wrong.append(i)

    thread = threading.Thread(target=work, args=(1,))
    thread.start()
    try:
        for _ in range(100):
            output = model(inputs[0])
            if output.tobytes() != expected[0]:
                wrong.append(0)
            with contextlib.suppress(errors.FastconvError):  # what layers remember may be the other thread's
                model.backward_parameters(np.ones_like(output))
    finally:
        stop.set()
        thread.join()
    assert wrong == []


def test_two_threads_in_a_large_network(large):
    model, wrong = large(), []
    inputs = [images(LARGE), images((4, *LARGE[1:]))]
    for x in inputs:
        replayed(model, x)
    expected = [large().forward(x).tobytes() for x in inputs]

    def work(i):
        kept = [model(inputs[i]) for _ in range(100)]
        wrong.extend(i for output in kept if output.tobytes() != expected[i])

    in_threads(work, 2)
    assert wrong == []


def test_a_gradient_that_does_not_fit_is_refused_before_anything_is_lost():
    model, plain = replayed(small(), images(INPUT)), small()
    for network in (model, plain):
        network(images(INPUT, 3))
        network[4].weight.grad = np.zeros(7, np.float32)
        with pytest.raises(ValueError, match="broadcast"):
            network.backward_parameters(images((5, 4)))
        network.zero_grad()
        network.backward_parameters(images((5, 4)))
    assert same(gradients(model), gradients(plain))


def test_who_tries_again_after_ctrl_c_gets_an_error(monkeypatch):
    model = replayed(small(), images(INPUT))
    model(images(INPUT))
    run = launches.Launches.run

    def interrupted(self, roots):
        run(self, roots)
        raise KeyboardInterrupt

    monkeypatch.setattr(launches.Launches, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.backward_parameters(images((5, 4)))
    monkeypatch.undo()
    with pytest.raises(errors.FastconvError, match="needs a forward pass before it"):
        model.backward_parameters(images((5, 4)))
    assert model[4].weight.grad is None


def test_a_signal_in_the_middle_has_a_step_of_its_own(monkeypatch):
    model, run, inner = replayed(small(), images(INPUT)), launches.Launches.run, []

    def interrupted(self, roots):
        if not inner:
            inner.append(None)
            inner.append(model(images(INPUT, 4)))
        run(self, roots)

    monkeypatch.setattr(launches.Launches, "run", interrupted)
    assert same([model(images(INPUT, 3)), inner[1]], [small().forward(images(INPUT, 3)), small().forward(images(INPUT, 4))])


@pytest.mark.parametrize("wrong", [[1, 2], np.zeros((2, 5, 8, 8), np.float32)])
@pytest.mark.parametrize("change", [False, True])
def test_a_forward_that_fails_leaves_the_one_before(change, wrong, large):
    model, plain = replayed(large(), images(LARGE)), large()
    for network in (model, plain):
        network(images(LARGE, 3))
        if change:
            network[2].note = "x"
        with pytest.raises(errors.FastconvError):
            network(wrong)
        others = [memory.empty((1 << 20,), np.dtype(np.float32)) for _ in range(3)]
        for other in others:
            other.fill(np.nan)
        network.backward_parameters(images((8, 8, 14, 14)))
    assert same(gradients(model), gradients(plain))


@pytest.mark.parametrize("count", [0, 100_000])
def test_an_average_of_all_batches_is_not_replayed(count):
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, momentum=None))
    model[1].num_batches_tracked[...] = count
    for _ in range(STEPS + 1):
        step(model, images(INPUT))
    assert refused(model)


def test_buffers_in_a_users_table_are_his():
    table = np.ones((4, 2), np.float32)
    model, plain = (nn.Sequential(nn.Conv2d(2, 4, 3, seed=0), nn.BatchNorm2d(4)) for _ in range(2))
    model[1].running_mean, model[1].running_var = table[:, 0], table[:, 1]
    plain[1].running_var[...] = plain[1].running_mean[...] = 1
    for i in range(STEPS + 3):
        for network in (model, plain):
            step(network, images(INPUT, i))
    assert refused(model)
    assert same([table[:, 0], table[:, 1]], [plain[1].running_mean, plain[1].running_var])


def test_statistics_that_may_not_be_written():
    model = replayed(nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)), images(INPUT))
    model[1].running_mean.flags.writeable = False
    with pytest.raises(errors.FastconvError, match="running_mean must be writable"):
        model(images(INPUT))


class Constant:
    """A weight that is not trained."""

    def __init__(self, data):
        self.data = data

    def accumulate(self, gradient):
        pass


def test_weights_of_a_users_own_kind_are_not_replayed():
    model = small()
    model[0].weight = Constant(images((3, 2, 3, 3)))
    for _ in range(STEPS + 1):
        step(model, images(INPUT))
    assert refused(model)


def test_winograd_forbidden_between_the_passes():
    make, shape = NETWORKS["winograd"]
    model, plain = replayed(make(), images(shape)), make()
    allowed = fastconv.get_winograd()
    for network in (model, plain):
        fastconv.set_winograd(True)
        output = network(images(shape, 3))
        fastconv.set_winograd(False)
        network.backward_parameters(images(output.shape))
    fastconv.set_winograd(allowed)
    assert same(gradients(model), gradients(plain))


@pytest.mark.parametrize("steps", [0, STEPS + 2])
def test_a_network_goes_with_its_last_user(steps):
    model = small()
    for _ in range(steps):
        step(model, images(INPUT))
    model(images(INPUT))
    gc.collect()
    gc.disable()
    try:
        weight, network = weakref.ref(model[0].weight.data), weakref.ref(model)
        del model
        assert network() is None
        assert weight() is None
    finally:
        gc.enable()


def test_a_plain_backward_ends_the_step_too(large):
    model, free = replayed(large(), images(LARGE)), memory._arena.unused()
    x = images(LARGE)
    output = model(x)
    model[2].note = "x"
    model.backward_parameters(np.ones_like(output))
    kept = weakref.ref(x), weakref.ref(output)
    del x, output
    assert [reference() for reference in kept] == [None, None]
    model.zero_grad()
    assert memory._arena.unused() == free


def test_memory_goes_back_to_the_system(large):
    model, plain = replayed(large(), images(LARGE)), large()
    slab = weakref.ref(tape(model).passes.regions[0][0])
    model.zero_grad()
    memory.release()
    assert slab() is None
    for i in range(3 * STEPS):
        for network in (model, plain):
            network.zero_grad()
            step(network, images(LARGE, i), i)
        assert same(gradients(model), gradients(plain))
    assert tape(model)


def test_memory_of_a_step_that_is_not_over_stays(large):
    model, plain = replayed(large(), images(LARGE)), large()
    for network in (model, plain):
        network(images(LARGE, 3))
        memory.release()
        network.backward_parameters(images((8, 8, 14, 14)))
    assert same(gradients(model), gradients(plain))


def test_a_gradient_refused_does_not_count():
    model = small()
    for _ in range(STEPS):
        model(images(INPUT))
        for _ in range(2):
            with pytest.raises(errors.FastconvError):
                model.backward_parameters(images((5, 3)))
        model.backward_parameters(images((5, 4)))
    model(images(INPUT))
    assert tape(model)


@pytest.mark.parametrize(("value", "expected"), [("0", "inf"), ("1", "16")])
def test_the_environment_forbids_it(value, expected):
    program = "from fastconv.nn import replay; print(replay.STEPS)"
    environment = {**os.environ, "FASTCONV_REPLAY": value}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.split() == [expected]


def part_of(roots, value):
    return launches.part_of(launches.noted(tuple(roots)), launches.noted(value))


@pytest.mark.parametrize("large", [False, True])
def test_part_of(large):
    with memory.planned():
        size = memory.LARGE if large else 4
        x, y = memory.empty((3, size), np.dtype(np.float64)), memory.empty((size,), np.dtype(np.float64))
    x[...] = np.arange(3 * size).reshape(3, size)
    new = [x + 100, np.arange(float(size))]
    assert part_of([x, y], np.zeros(3)) is None
    assert part_of([x, y], (1, "x", None, x[:0])) is None
    assert part_of([x, y], y)(new) is new[1]
    for view in (lambda x: x[1:, 1].reshape(2), lambda x: x.T, lambda x: x[::-1, 1::2], lambda x: x[1:2].reshape(-1, 1)):
        np.testing.assert_array_equal(part_of([x, y], view(x))(new), view(new[0]))
    first, (second, third) = part_of([x, y], (3, (y[1:2], x)))(new)
    assert first == 3
    assert second.tolist() == [1]
    assert third is new[0]
    with pytest.raises(launches.Unfit, match="only partly"):
        part_of([x[1:]], x)


def test_an_array_in_a_space_is_an_array_that_holds_it():
    with memory.planned():
        array = memory.empty((memory.LARGE,), np.dtype(np.uint8))
    region = array.base.region
    (note,) = launches.noted((array,))
    del array
    (block,) = memory.claim([region])
    array = launches.part_of([launches.Space(region)], note)([block])
    assert type(array) is np.ndarray
    assert array.base is block
    assert array.ctypes.data == region[1]


def test_who_had_the_memory_before_is_somebody_else():
    with memory.planned():
        x = memory.empty((memory.LARGE,), np.dtype(np.uint8))
        before, place = launches.noted(x), x.ctypes.data
        del x
        x = memory.empty((memory.LARGE,), np.dtype(np.uint8))
    assert x.ctypes.data == place == before.array.ctypes.data
    assert launches.part_of([launches.noted(x)], before) is None


def test_a_note_holds_no_region():
    with memory.planned():
        x = memory.empty((memory.LARGE,), np.dtype(np.uint8))
    base = x[1:].reshape(-1, 1).base
    while type(base) is np.ndarray:
        base = base.base
    block = weakref.ref(base)
    note = launches.noted(x[1:].reshape(-1, 1))
    del base, x
    assert block() is None
    assert note.array.shape == (memory.LARGE - 1, 1)


def test_a_result_that_python_uses_is_not_replayed():
    with launches.recorded() as calls, pytest.raises(launches.Unfit, match="result of cross_entropy"):
        functional.cross_entropy(np.zeros((2, 3)), np.array([0, 1]))
    assert calls == []


def test_an_attribute_may_be_set_while_children_are_visited():
    model = pickle.loads(pickle.dumps(small()))
    for name, _ in model.named_children():
        setattr(model, name, nn.Flatten())
    assert all(type(layer) is nn.Flatten for layer in model)


def test_a_recording_is_left_after_ctrl_c():
    with pytest.raises(KeyboardInterrupt), launches.recorded():
        raise KeyboardInterrupt
    try:
        with launches.recorded() as calls:
            nn.ReLU()(np.ones(3))
    except Busy:
        pytest.fail("the recording was not left")
    assert len(calls) == 1
