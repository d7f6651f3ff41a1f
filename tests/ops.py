"""One table of every operation: its arguments, its forward and its backward call, in words that any twin understands.

`forward(F, **arguments)` and `backward(F, grad_output, **arguments)` take the module to call: fastconv.functional, fastconv.reference
or, forward only, torch.nn.functional. A loss has no gradient of its output: its backward ignores `grad_output`.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from checks import distinct


class Op(NamedTuple):
    """One operation with shapes that are large enough to show mistakes and small enough for numerical differentiation."""

    name: str
    arguments: dict  # name: function of a generator and a shape's batch size that draws the argument in float64 or as integers
    forward: Callable
    backward: Callable  # gives {argument: gradient}
    unused: tuple = ()  # float arguments that have no gradient

    @property
    def function(self):
        return self.name.partition("-")[0]

    def draw(self, rng, dtype=np.float64, batch=2):
        """Fresh arguments; floats in `dtype`, labels as they are."""
        drawn = {name: draw(rng, batch) for name, draw in self.arguments.items()}
        return {name: a.astype(dtype) if a.dtype.kind == "f" else a for name, a in drawn.items()}


def values(*shape):
    """Distinct numbers, the batch in front."""
    return lambda rng, batch: distinct(rng, (batch, *shape))


def parameter(*shape):
    """Distinct numbers, without a batch."""
    return lambda rng, batch: distinct(rng, shape)


def positive(*shape):
    return lambda rng, batch: 1 + distinct(rng, shape) / 4


def probabilities(*shape):
    """Between 0.1 and 0.9."""
    return lambda rng, batch: 0.5 + distinct(rng, (batch, *shape)) / 5


def labels(classes, *shape):
    return lambda rng, batch: rng.integers(0, classes, (batch, *shape))


def conv(name, IC, H, W, OC, kernel, groups=1, **options):
    options["groups"] = groups
    return Op(
        f"conv2d-{name}",
        {"input": values(IC, H, W), "weight": parameter(OC, IC // groups, *kernel), "bias": parameter(OC)},
        lambda F, input, weight, bias: F.conv2d(input, weight, bias, **options),
        lambda F, g, input, weight, bias: _named(F.conv2d_backward(g, input, weight, **options), "input", "weight", "bias"),
    )


def conv_transpose(name, IC, H, W, OC, kernel, groups=1, **options):
    options["groups"] = groups
    return Op(
        f"conv_transpose2d-{name}",
        {"input": values(IC, H, W), "weight": parameter(IC, OC // groups, *kernel), "bias": parameter(OC)},
        lambda F, input, weight, bias: F.conv_transpose2d(input, weight, bias, **options),
        lambda F, g, input, weight, bias: _named(F.conv_transpose2d_backward(g, input, weight, **options), "input", "weight", "bias"),
    )


def _named(gradients, *names):
    return dict(zip(names, gradients, strict=True))


def max_pool(name, C, H, W, **options):
    return Op(
        f"max_pool2d-{name}",
        {"input": values(C, H, W)},
        lambda F, input: F.max_pool2d(input, **options),
        lambda F, g, input: {"input": F.max_pool2d_backward(g, input, **options)},
    )


def avg_pool(name, C, H, W, **options):
    return Op(
        f"avg_pool2d-{name}",
        {"input": values(C, H, W)},
        lambda F, input: F.avg_pool2d(input, **options),
        lambda F, g, input: {"input": F.avg_pool2d_backward(g, input.shape, **options)},
    )


def adaptive_pool(name, C, H, W, output_size):
    return Op(
        f"adaptive_avg_pool2d-{name}",
        {"input": values(C, H, W)},
        lambda F, input: F.adaptive_avg_pool2d(input, output_size),
        lambda F, g, input: {"input": F.adaptive_avg_pool2d_backward(g, input.shape)},
    )


def linear(name, *shape, outputs):
    return Op(
        f"linear-{name}",
        {"input": values(*shape), "weight": parameter(outputs, shape[-1]), "bias": parameter(outputs)},
        lambda F, input, weight, bias: F.linear(input, weight, bias),
        lambda F, g, input, weight, bias: _named(F.linear_backward(g, input, weight), "input", "weight", "bias"),
    )


def batch_norm(name, C, *plane, training, eps=1e-5):
    def forward(F, input, running_mean, running_var, weight, bias):
        running = copy.deepcopy(running_mean), copy.deepcopy(running_var)  # training moves them: each call its own
        return F.batch_norm(input, *running, weight, bias, training=training, momentum=0.2, eps=eps)

    def backward(F, g, input, running_mean, running_var, weight, bias):
        gradients = F.batch_norm_backward(g, input, running_mean, running_var, weight, training=training, eps=eps)
        return _named(gradients, "input", "weight", "bias")

    vectors = {"running_mean": parameter(C), "running_var": positive(C), "weight": parameter(C), "bias": parameter(C)}
    return Op(f"batch_norm-{name}", {"input": values(C, *plane), **vectors}, forward, backward, unused=("running_mean", "running_var"))


def activation(name, *shape, **options):
    function = name.partition("-")[0]
    return Op(
        name,
        {"input": values(*shape)},
        lambda F, input: getattr(F, function)(input, **options),
        lambda F, g, input: {"input": getattr(F, f"{function}_backward")(g, input, **options)},
    )


def softmax(name, *shape, dim):
    function = name.partition("-")[0]

    def backward(F, g, input):
        output = getattr(F, function)(input, dim=dim)
        return {"input": getattr(F, f"{function}_backward")(g, output, dim=dim)}

    return Op(name, {"input": values(*shape)}, lambda F, input: getattr(F, function)(input, dim=dim), backward)


def loss(name, arguments, **options):
    """`arguments` beyond input and target are array options, such as class weights."""
    function = name.partition("-")[0]

    def backward(F, g, input, target, **arrays):
        given = {"grad_output": g} if options.get("reduction") == "none" else {}
        return {"input": getattr(F, f"{function}_backward")(input, target, **arrays, **options, **given)}

    return Op(
        name,
        arguments,
        lambda F, input, target, **arrays: getattr(F, function)(input, target, **arrays, **options),
        backward,
        unused=tuple(a for a in arguments if a != "input"),
    )


CONVOLUTIONS = [
    conv("plain", 3, 6, 5, 4, (3, 3)),
    conv("strided", 5, 7, 9, 17, (3, 2), stride=(2, 3), padding=(1, 0)),
    conv("dilated", 4, 7, 8, 3, (2, 3), dilation=(2, 3), padding=2),
    conv("grouped", 6, 5, 4, 9, (3, 3), groups=3, padding=1),
    conv("depthwise", 5, 6, 7, 10, (3, 3), groups=5, padding=1),
    conv("pointwise", 6, 3, 4, 5, (1, 1)),
]
TRANSPOSED = [
    conv_transpose("plain", 3, 4, 5, 4, (3, 2)),
    conv_transpose("strided", 4, 3, 4, 6, (3, 3), stride=(2, 3), padding=1, output_padding=(1, 0), groups=2),
]
POOLS = [
    max_pool("halving", 5, 6, 8, kernel_size=2),
    max_pool("overlapping", 3, 7, 6, kernel_size=(3, 2), stride=(2, 1), padding=1),
    max_pool("dilated", 3, 9, 8, kernel_size=2, stride=2, dilation=(3, 2), ceil_mode=True),
    avg_pool("halving", 5, 6, 8, kernel_size=2),
    avg_pool("overlapping", 3, 7, 6, kernel_size=(3, 2), stride=(2, 1), padding=1, count_include_pad=False),
    avg_pool("ceil", 3, 7, 8, kernel_size=3, stride=2, padding=1, ceil_mode=True),
    adaptive_pool("global", 5, 4, 6, 1),
    adaptive_pool("overlapping", 3, 7, 5, (3, 2)),
]
DENSE = [linear("plain", 7, outputs=5), linear("sequence", 3, 6, outputs=4)]
NORMS = [
    batch_norm("training", 5, 4, 3, training=True),
    batch_norm("evaluation", 5, 4, 3, training=False, eps=0.1),
]
ACTIVATIONS = [
    activation("relu", 5, 4, 3),
    activation("leaky_relu", 5, 4, 3),
    activation("leaky_relu-steep", 5, 4, 3, negative_slope=-0.5),
    activation("gelu", 5, 4, 3),
    activation("gelu-tanh", 5, 4, 3, approximate="tanh"),
    activation("silu", 5, 4, 3),
    activation("sigmoid", 5, 4, 3),
    activation("tanh", 5, 4, 3),
]
SOFTMAXES = [
    softmax("softmax-last", 9, dim=-1),
    softmax("softmax-channels", 5, 3, 4, dim=1),
    softmax("log_softmax-last", 9, dim=-1),
    softmax("log_softmax-channels", 5, 3, 4, dim=1),
]
_LOGITS, _PROBABILITIES = (
    {"input": values(6, 3), "target": probabilities(6, 3)},
    {"input": probabilities(6, 3), "target": probabilities(6, 3)},
)
_CLASSES, _CLASS_MAP = {"input": values(7), "target": labels(7)}, {"input": values(4, 3, 2), "target": labels(4, 3, 2)}
LOSSES = [
    loss("cross_entropy", _CLASSES),
    loss("cross_entropy-sum", _CLASSES, reduction="sum"),
    loss("cross_entropy-none", _CLASSES, reduction="none"),
    loss("cross_entropy-weighted", {**_CLASSES, "weight": positive(7)}, label_smoothing=0.3, ignore_index=2),
    loss("cross_entropy-map", {**_CLASS_MAP, "weight": positive(4)}, ignore_index=1),
    loss("cross_entropy-map_none", _CLASS_MAP, reduction="none", label_smoothing=0.1),
    loss("binary_cross_entropy", _PROBABILITIES),
    loss("binary_cross_entropy-sum", {**_PROBABILITIES, "weight": positive(6, 3)}, reduction="sum"),
    loss("binary_cross_entropy-none", _PROBABILITIES, reduction="none"),
    loss("binary_cross_entropy_with_logits", _LOGITS),
    loss("binary_cross_entropy_with_logits-sum", {**_LOGITS, "weight": positive(6, 3), "pos_weight": positive(3)}, reduction="sum"),
    loss("binary_cross_entropy_with_logits-none", {**_LOGITS, "pos_weight": positive(6, 3)}, reduction="none"),
    loss("mse_loss", _LOGITS),
    loss("mse_loss-sum", _LOGITS, reduction="sum"),
    loss("mse_loss-none", _LOGITS, reduction="none"),
]
OPS = CONVOLUTIONS + TRANSPOSED + POOLS + DENSE + NORMS + ACTIVATIONS + SOFTMAXES + LOSSES


def ids(ops):
    return [op.name for op in ops]
