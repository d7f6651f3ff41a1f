"""PyTorch twins of fastconv's modules: the same layers in the same order, the same keys, the same weights."""

from fastconv import nn


def twin(module, weights=True):
    """The PyTorch module that `module` is: a new one of the same dtype and mode, with a copy of its weights unless told otherwise."""
    import torch

    made = _residual_class()(module) if isinstance(module, nn.Residual) else _LAYERS[type(module)](torch.nn, module)
    if weights:
        state = module.state_dict()
        made = made.to(torch.float64 if any(array.dtype == "float64" for array in state.values()) else torch.float32)
        made.load_state_dict({key: torch.from_numpy(array) for key, array in state.items()})
    return made.train(module.training)


def _conv(torch_nn, m):
    return torch_nn.Conv2d(m.in_channels, m.out_channels, m.kernel_size, m.stride, m.padding, m.dilation, m.groups, m.bias is not None)


def _conv_transpose(torch_nn, m):
    return torch_nn.ConvTranspose2d(
        m.in_channels, m.out_channels, m.kernel_size, m.stride, m.padding, m.output_padding, m.groups, m.bias is not None, m.dilation
    )


def _sequential(torch_nn, m):
    made = torch_nn.Sequential()
    for name, child in m.named_children():
        made.add_module(name, twin(child, weights=False))
    return made


def _residual_class():
    """torch is imported only when a twin is wanted, so the class cannot stand at the top."""
    from torch import nn as torch_nn

    class Residual(torch_nn.Module):
        def __init__(self, m):
            super().__init__()
            self.main, self.shortcut, self.activation = (
                torch_nn.Identity() if part is None else twin(part, weights=False) for part in (m.main, m.shortcut, m.activation)
            )

        def forward(self, input):
            return self.activation(self.main(input) + self.shortcut(input))

    return Residual


_LAYERS = {
    nn.Sequential: _sequential,
    nn.Conv2d: _conv,
    nn.ConvTranspose2d: _conv_transpose,
    nn.Linear: lambda t, m: t.Linear(m.in_features, m.out_features, m.bias is not None),
    nn.Flatten: lambda t, m: t.Flatten(m.start_dim, m.end_dim),
    nn.BatchNorm2d: lambda t, m: t.BatchNorm2d(m.num_features, m.eps, m.momentum, m.affine, m.track_running_stats),
    nn.MaxPool2d: lambda t, m: t.MaxPool2d(m.kernel_size, m.stride, m.padding, m.dilation, ceil_mode=m.ceil_mode),
    nn.AvgPool2d: lambda t, m: t.AvgPool2d(m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad),
    nn.AdaptiveAvgPool2d: lambda t, m: t.AdaptiveAvgPool2d(m.output_size),
    nn.Dropout: lambda t, m: t.Dropout(m.p),
    nn.ReLU: lambda t, m: t.ReLU(),
    nn.LeakyReLU: lambda t, m: t.LeakyReLU(m.negative_slope),
    nn.GELU: lambda t, m: t.GELU(m.approximate),
    nn.SiLU: lambda t, m: t.SiLU(),
    nn.Sigmoid: lambda t, m: t.Sigmoid(),
    nn.Tanh: lambda t, m: t.Tanh(),
    nn.Softmax: lambda t, m: t.Softmax(m.dim),
}
