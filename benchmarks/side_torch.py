"""PyTorch's side of the comparison: the same workloads, in either of its memory layouts; asv imports this file without torch."""

import functools

from benchmarks.workloads import CONVOLUTIONS, LINEARS, MODELS, Conv, batch, conv_data, linear_data

LAYOUTS = ("nchw", "channels_last")
cached_data = functools.lru_cache(maxsize=1)(conv_data)


def configure(threads):
    import torch

    torch.set_num_threads(threads)


def _layout(name):
    import torch

    return {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}[name]


def prepare_conv(name, direction, variant):
    """A function that computes one pass, all arrays in the layout `variant`, and returns its result."""
    return prepare_pass(direction, variant, **CONVOLUTIONS[name]._asdict())


def prepare_pass(direction, variant, **conv):
    """The same for a convolution that is in no table, by the fields of a `Conv`."""
    import torch

    conv = Conv.of(conv)
    x, weight, grad_output = (torch.from_numpy(a).contiguous(memory_format=_layout(variant)) for a in cached_data(conv))
    pairs = [[conv.stride] * 2, [conv.padding] * 2, [conv.dilation] * 2]

    def forward():
        with torch.no_grad():
            return torch.nn.functional.conv2d(x, weight, None, *pairs, conv.groups)

    mask = [direction == "backward_input", direction == "backward_weight", False]

    def backward():
        return torch.ops.aten.convolution_backward(grad_output, x, weight, None, *pairs, False, [0, 0], conv.groups, mask)[mask.index(True)]

    return forward if direction == "forward" else backward


def prepare_dense(name, direction, variant):
    """As `prepare_conv`, for a dense layer, which has one layout; the gradients are the products that autograd computes."""
    import torch

    x, weight, grad_output = map(torch.from_numpy, linear_data(LINEARS[name]))
    return {
        "forward": lambda: torch.nn.functional.linear(x, weight),
        "backward_input": lambda: grad_output.mm(weight),
        "backward_weight": lambda: grad_output.t().mm(x),
    }[direction]


def prepare_step(name, variant="nchw", size=None):
    """A function that does one training step of the twin of a model, with equal weights, in the layout `variant`, and returns the loss."""
    import torch

    from benchmarks.torch_models import twin
    from fastconv import models

    images, targets = (torch.from_numpy(a) for a in batch(MODELS[name], size))
    images = images.contiguous(memory_format=_layout(variant))
    model = twin(getattr(models, name)(seed=0)).to(memory_format=_layout(variant)).train()
    loss = torch.nn.BCELoss() if MODELS[name].classes == 1 else torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step():
        optimizer.zero_grad()
        value = loss(model(images), targets)
        value.backward()
        optimizer.step()
        return value.item()

    return step


def as_numpy(result):
    import numpy as np

    return np.asarray(result) if isinstance(result, float) else result.numpy()
