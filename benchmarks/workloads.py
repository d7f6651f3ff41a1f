"""The named workloads: what the asv suite times, what `compare.py` measures against PyTorch, what tests may run through.

Batch sizes make one pass take about 1 to 50 ms on two cores. Nothing here computes: it is tables, and seeded data on request.
"""

from typing import NamedTuple

import numpy as np


class Conv(NamedTuple):
    """One convolution: (N, IC, H, W) by (OC, IC // groups, KH, KW)."""

    input: tuple
    weight: tuple
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1

    @property
    def output(self):
        N, _, H, W = self.input
        OC, _, KH, KW = self.weight
        OH, OW = ((s + 2 * self.padding - self.dilation * (k - 1) - 1) // self.stride + 1 for s, k in ((H, KH), (W, KW)))
        return N, OC, OH, OW

    @property
    def flops(self):
        """Floating-point operations of one pass: a multiplication and an addition per tap."""
        return 2 * int(np.prod(self.output)) * int(np.prod(self.weight[1:]))

    @classmethod
    def of(cls, fields):
        """From a dict of its fields, in which shapes may be lists."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})

    @property
    def options(self):
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}


CONVOLUTIONS = {
    # LeNet-5 and the two layers of mnist_cnn
    "lenet conv1 5x5": Conv((256, 1, 28, 28), (6, 1, 5, 5), padding=2),
    "lenet conv2 5x5": Conv((256, 6, 14, 14), (16, 6, 5, 5)),
    "mnist conv1 3x3": Conv((64, 1, 28, 28), (32, 1, 3, 3)),
    "mnist conv2 3x3": Conv((64, 32, 26, 26), (64, 32, 3, 3)),
    # AlexNet, the second layer also in two groups as in the paper
    "alexnet conv1 11x11 s4": Conv((16, 3, 224, 224), (64, 3, 11, 11), stride=4, padding=2),
    "alexnet conv2 5x5": Conv((8, 64, 27, 27), (192, 64, 5, 5), padding=2),
    "alexnet conv2 5x5 g2": Conv((8, 96, 27, 27), (256, 48, 5, 5), padding=2, groups=2),
    "alexnet conv3 3x3": Conv((16, 192, 13, 13), (384, 192, 3, 3), padding=1),
    # VGG-16
    "vgg 224 3x3": Conv((1, 64, 224, 224), (64, 64, 3, 3), padding=1),
    "vgg 56 3x3": Conv((2, 256, 56, 56), (256, 256, 3, 3), padding=1),
    "vgg 14 3x3": Conv((8, 512, 14, 14), (512, 512, 3, 3), padding=1),
    # vgg_cifar, and the shape on which images are 32 wide and channels few
    "cifar 32 3x3 first": Conv((64, 3, 32, 32), (64, 3, 3, 3), padding=1),
    "cifar 32 3x3": Conv((32, 64, 32, 32), (64, 64, 3, 3), padding=1),
    "cifar 16 3x3": Conv((64, 128, 16, 16), (128, 128, 3, 3), padding=1),
    "cifar 8 3x3": Conv((64, 256, 8, 8), (256, 256, 3, 3), padding=1),
    "resnet20 32 3x3": Conv((64, 16, 32, 32), (16, 16, 3, 3), padding=1),
    "resnet20 16 3x3 s2": Conv((64, 16, 32, 32), (32, 16, 3, 3), stride=2, padding=1),
    # ResNet-18 and ResNet-50
    "resnet conv1 7x7 s2": Conv((8, 3, 224, 224), (64, 3, 7, 7), stride=2, padding=3),
    "resnet 56 3x3": Conv((16, 64, 56, 56), (64, 64, 3, 3), padding=1),
    "resnet 28 3x3 s2": Conv((16, 128, 56, 56), (128, 128, 3, 3), stride=2, padding=1),
    "resnet 7 3x3": Conv((16, 512, 7, 7), (512, 512, 3, 3), padding=1),
    "resnet 56 1x1": Conv((16, 256, 56, 56), (64, 256, 1, 1)),
    "resnet 28 1x1 s2": Conv((16, 256, 56, 56), (512, 256, 1, 1), stride=2),
    "resnet 7 1x1": Conv((32, 512, 7, 7), (2048, 512, 1, 1)),
    # MobileNet: depthwise and pointwise
    "mobilenet 56 depthwise": Conv((16, 128, 56, 56), (128, 1, 3, 3), padding=1, groups=128),
    "mobilenet 28 depthwise s2": Conv((16, 128, 56, 56), (128, 1, 3, 3), stride=2, padding=1, groups=128),
    "mobilenet 14 depthwise": Conv((32, 512, 14, 14), (512, 1, 3, 3), padding=1, groups=512),
    "mobilenet 14 1x1": Conv((16, 512, 14, 14), (512, 512, 1, 1)),
    # ResNeXt's groups of four channels, DeepLab's dilation
    "resnext 56 3x3 g32": Conv((8, 128, 56, 56), (128, 4, 3, 3), padding=1, groups=32),
    "deeplab 28 3x3 d2": Conv((4, 256, 28, 28), (256, 256, 3, 3), padding=2, dilation=2),
}
"""The grid of DESIGN's goals: 30 shapes."""

REPRESENTATIVE = (
    "lenet conv2 5x5",
    "alexnet conv1 11x11 s4",
    "cifar 32 3x3",
    "cifar 8 3x3",
    "resnet 28 3x3 s2",
    "resnet 56 1x1",
    "mobilenet 14 depthwise",
    "deeplab 28 3x3 d2",
)
"""One of each kind, for what is too slow to do on all."""

ALGORITHMS = ("loops", "direct", "im2col", "winograd")
PASSES = ("forward", "backward_input", "backward_weight")


class ConvTranspose(NamedTuple):
    """One transposed convolution: (N, IC, H, W) by (IC, OC // groups, KH, KW)."""

    input: tuple
    weight: tuple
    stride: int = 1
    padding: int = 0

    @classmethod
    def of(cls, fields):
        """From a dict of its fields, in which shapes may be lists."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})

    @property
    def options(self):
        return {"stride": self.stride, "padding": self.padding}


TRANSPOSED = {
    "dcgan 8 4x4 s2": ConvTranspose((32, 256, 8, 8), (256, 128, 4, 4), stride=2, padding=1),
    "unet 28 2x2 s2": ConvTranspose((8, 128, 28, 28), (128, 64, 2, 2), stride=2),
}


class Pool(NamedTuple):
    """One pooling of (N, C, H, W) by the op named `op`."""

    op: str
    input: tuple
    options: dict


POOLS = {
    "max 2x2 lenet": Pool("max_pool2d", (256, 6, 28, 28), {"kernel_size": 2}),
    "max 2x2 cifar": Pool("max_pool2d", (64, 64, 32, 32), {"kernel_size": 2}),
    "max 3x3 s2 resnet": Pool("max_pool2d", (16, 64, 112, 112), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "avg 2x2 cifar": Pool("avg_pool2d", (64, 64, 32, 32), {"kernel_size": 2}),
    "global average resnet": Pool("adaptive_avg_pool2d", (64, 512, 8, 8), {"output_size": 1}),
}

ACTIVATIONS = ("relu", "leaky_relu", "gelu", "silu", "sigmoid", "tanh")
ACTIVATION_INPUT = (64, 64, 32, 32)

BATCH_NORMS = {
    "vgg_cifar 32": (64, 64, 32, 32),
    "vgg_cifar 8": (64, 256, 8, 8),
    "resnet20 32": (64, 16, 32, 32),
}


class Linear(NamedTuple):
    """One dense layer: (batch, inputs) to (batch, outputs)."""

    batch: int
    inputs: int
    outputs: int

    @property
    def flops(self):
        """As Conv.flops."""
        return 2 * self.batch * self.inputs * self.outputs


LINEARS = {
    "digits 64-10": Linear(64, 64, 10),
    "lenet 400-120": Linear(64, 400, 120),
    "lenet 120-84": Linear(64, 120, 84),
    "mnist 9216-128": Linear(64, 9216, 128),
    "perceptron 784-512": Linear(128, 784, 512),
    "alexnet 4096-4096": Linear(32, 4096, 4096),
    "one image 400-120": Linear(1, 400, 120),
    "one image 4096-4096": Linear(1, 4096, 4096),
}

SOFTMAXES = {"mnist 10": (64, 10), "imagenet 1000": (256, 1000)}

LOSSES = {  # name: shape of the prediction
    "cross_entropy": (256, 1000),
    "binary_cross_entropy": (4096, 64),
    "binary_cross_entropy_with_logits": (4096, 64),
    "mse_loss": (4096, 64),
}


class Model(NamedTuple):
    """One training step of `fastconv.models.<name>`; `classes` 1 means one probability, trained by BCELoss."""

    input: tuple
    classes: int = 10


STEADY = 20
"""Training steps after which the next ones take the time and the memory of all that follow: fastconv replays from the seventeenth on."""

MODELS = {
    "lecture": Model((32, 1, 6, 6), 1),
    "digits_cnn": Model((64, 1, 8, 8)),
    "lenet5": Model((64, 1, 28, 28)),
    "mnist_cnn": Model((64, 1, 28, 28)),
    "vgg_cifar": Model((64, 3, 32, 32)),
    "resnet20": Model((64, 3, 32, 32)),
    "resnet18": Model((32, 3, 32, 32)),
    "mobilenet": Model((64, 3, 32, 32)),
}
"""The eight models of the goals, with the batches of their training steps."""


LINE = 64
"""Bytes of a cache line."""


def draw(shape, seed=0, dtype=np.float32):
    """Seeded standard normal numbers of `shape`; four axes are (N, C, H, W) in channels-last memory.

    They start at a line of the cache, as what layers of both libraries give each other does; NumPy's arrays start anywhere in one.
    """
    rng = np.random.default_rng(seed)
    count, itemsize = int(np.prod(shape)), np.dtype(dtype).itemsize
    memory = np.empty(count * itemsize + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    numbers = memory[start : start + count * itemsize].view(dtype)
    rng.standard_normal(dtype=dtype, out=numbers)
    if len(shape) != 4:
        return numbers.reshape(shape)
    N, C, H, W = shape
    return numbers.reshape(N, H, W, C).transpose(0, 3, 1, 2)


def conv_data(conv):
    """(input, weight, grad_output) of a workload of CONVOLUTIONS; the weight is C-contiguous, as parameters are."""
    weight = np.random.default_rng(1).standard_normal(conv.weight, dtype=np.float32)
    return draw(conv.input), weight, draw(conv.output, seed=2)


def linear_data(linear):
    """(input, weight, grad_output) of a workload of LINEARS."""
    N, inputs, outputs = linear
    return draw((N, inputs)), draw((outputs, inputs), seed=1), draw((N, outputs), seed=2)


def batch(model, size=None):
    """(images, targets) of a workload of MODELS, or `size` of its kind: int64 class labels, or (N, 1) zeros and ones."""
    images = draw((size or model.input[0], *model.input[1:]))
    rng = np.random.default_rng(3)
    if model.classes == 1:
        return images, rng.integers(0, 2, (len(images), 1)).astype(np.float32)
    return images, rng.integers(0, model.classes, len(images))
