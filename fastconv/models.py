"""Eight networks, from the lecture's 15 parameters to ResNet-18's 11 million.

Every function returns a `Sequential` with new weights; nothing is ever downloaded. Keys of `state_dict` are those of the same layers in a
PyTorch ``Sequential``: positions ("0.weight") in the plain networks, names in the two residual ones.
"""

import numpy as np

from fastconv.errors import ArgumentError
from fastconv.nn import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
)
from fastconv.nn.init import generator

INPUT_SHAPES = {
    "lecture": (1, 6, 6),
    "digits_cnn": (1, 8, 8),
    "lenet5": (1, 28, 28),
    "mnist_cnn": (1, 28, 28),
    "vgg_cifar": (3, 32, 32),
    "resnet20": (3, 32, 32),
    "resnet18": (3, 32, 32),
    "mobilenet": (3, 32, 32),
}
"""(C, H, W) of the images that each network is made for; its keys are the names that `create` knows."""


def create(name, **options):
    """Make the network called `name`.

    Parameters
    ----------
    name : str
        A key of `INPUT_SHAPES`.
    **options
        Of that network's function.

    Raises
    ------
    ValueError
        When there is no such network.

    Examples
    --------
    >>> create("lenet5").num_parameters()
    61706
    """
    if name not in INPUT_SHAPES:
        raise ArgumentError(f"name must be one of {', '.join(INPUT_SHAPES)}, got {name!r}")
    return globals()[name](**options)


def lecture(*, seed=None, dtype=np.float32):
    """The lecture's network for one-channel images of 6 x 6: one 3x3 filter, ReLU, 2x2 maxima, a dense layer, sigmoid.

    Gives one probability, (N, 1); train it with `BCELoss`. 15 parameters.

    Parameters
    ----------
    seed : int or numpy.random.Generator, optional
        Of the weights; without it they come from the generator of `fastconv.manual_seed`.
    dtype : float32 or float64
    """
    options = {"seed": generator(seed), "dtype": dtype}
    return Sequential(
        Conv2d(1, 1, 3, **options),
        ReLU(),
        MaxPool2d(2),
        Flatten(),
        Linear(4, 1, **options),
        Sigmoid(),
    )


def digits_cnn(num_classes=10, in_channels=1, *, seed=None, dtype=np.float32):
    """A small network for images of 8 x 8: two 3x3 convolutions with 2x2 maxima, one dense layer. 1,898 parameters.

    Parameters
    ----------
    num_classes, in_channels : int
    seed, dtype
        As in `lecture`.
    """
    options = {"seed": generator(seed), "dtype": dtype}
    return Sequential(
        Conv2d(in_channels, 8, 3, padding=1, **options),
        ReLU(),
        MaxPool2d(2),
        Conv2d(8, 16, 3, padding=1, **options),
        ReLU(),
        MaxPool2d(2),
        Flatten(),
        Linear(64, num_classes, **options),
    )


def lenet5(num_classes=10, in_channels=1, *, seed=None, dtype=np.float32):
    """LeNet-5 for images of 28 x 28, with ReLU and maxima as it is trained today. 61,706 parameters.

    Parameters
    ----------
    num_classes, in_channels : int
    seed, dtype
        As in `lecture`.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition", 1998, section II.B.
    """
    options = {"seed": generator(seed), "dtype": dtype}
    return Sequential(
        Conv2d(in_channels, 6, 5, padding=2, **options),
        ReLU(),
        MaxPool2d(2),
        Conv2d(6, 16, 5, **options),
        ReLU(),
        MaxPool2d(2),
        Flatten(),
        Linear(400, 120, **options),
        ReLU(),
        Linear(120, 84, **options),
        ReLU(),
        Linear(84, num_classes, **options),
    )


def mnist_cnn(num_classes=10, in_channels=1, *, seed=None, dtype=np.float32):
    """Two 3x3 convolutions and two dense layers for images of 28 x 28. 1,199,882 parameters.

    Parameters
    ----------
    num_classes, in_channels : int
    seed, dtype
        As in `lecture`.
    """
    options = {"seed": generator(seed), "dtype": dtype}
    return Sequential(
        Conv2d(in_channels, 32, 3, **options),
        ReLU(),
        Conv2d(32, 64, 3, **options),
        ReLU(),
        MaxPool2d(2),
        Flatten(),
        Linear(9216, 128, **options),
        ReLU(),
        Linear(128, num_classes, **options),
    )


def vgg_cifar(num_classes=10, in_channels=3, *, seed=None, dtype=np.float32):
    """Six 3x3 convolutions in the manner of VGG, with batch normalization, for images of 32 x 32. 1,188,170 parameters.

    Parameters
    ----------
    num_classes, in_channels : int
    seed, dtype
        As in `lecture`.

    References
    ----------
    K. Simonyan, A. Zisserman, "Very deep convolutional networks for large-scale image recognition", 2015.
    """
    options = {"seed": generator(seed), "dtype": dtype}
    layers = []
    for width in (64, 128, 256):
        for _ in range(2):
            layers += [Conv2d(in_channels, width, 3, padding=1, **options), BatchNorm2d(width, dtype=dtype), ReLU()]
            in_channels = width
        layers.append(MaxPool2d(2))
    return Sequential(*layers, Flatten(), Linear(4096, num_classes, **options))


def basic_block(in_channels, out_channels, stride, options):
    """ResNet's block of two 3x3 convolutions; a 1x1 convolution makes the shortcut fit where the shape changes."""
    shortcut = None
    if stride != 1 or in_channels != out_channels:
        shortcut = Sequential(
            {
                "conv": Conv2d(in_channels, out_channels, 1, stride=stride, bias=False, **options),
                "bn": BatchNorm2d(out_channels, dtype=options["dtype"]),
            }
        )
    main = Sequential(
        {
            "conv1": Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False, **options),
            "bn1": BatchNorm2d(out_channels, dtype=options["dtype"]),
            "relu": ReLU(),
            "conv2": Conv2d(out_channels, out_channels, 3, padding=1, bias=False, **options),
            "bn2": BatchNorm2d(out_channels, dtype=options["dtype"]),
        }
    )
    return Residual(main, shortcut, activation=ReLU())


def _resnet(widths, blocks, num_classes, in_channels, seed, dtype):
    """A ResNet for small images: `blocks` basic blocks of each width, halving the image between widths."""
    options = {"seed": generator(seed), "dtype": dtype}
    channels = widths[0]
    layers = {
        "conv": Conv2d(in_channels, channels, 3, padding=1, bias=False, **options),
        "bn": BatchNorm2d(channels, dtype=dtype),
        "relu": ReLU(),
    }
    for stage, width in enumerate(widths):
        stack = []
        for block in range(blocks):
            stack.append(basic_block(channels, width, 2 if stage and not block else 1, options))
            channels = width
        layers[f"stage{stage + 1}"] = Sequential(*stack)
    layers |= {"pool": AdaptiveAvgPool2d(1), "flatten": Flatten(), "fc": Linear(channels, num_classes, **options)}
    return Sequential(layers)


def resnet20(num_classes=10, in_channels=3, *, seed=None, dtype=np.float32):
    """ResNet-20 for images of 32 x 32: three stages of three basic blocks, 16, 32 and 64 wide. 272,474 parameters.

    Keys: "conv.weight", "bn.weight", then for each block "stage1.0.main.conv1.weight", "stage1.0.main.bn1.weight", "...conv2", "...bn2",
    where the shape changes "stage2.0.shortcut.conv.weight" and "stage2.0.shortcut.bn.weight", and "fc.weight".

    Parameters
    ----------
    num_classes, in_channels : int
    seed, dtype
        As in `lecture`.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", 2016, section 4.2, with projection shortcuts.
    """
    return _resnet((16, 32, 64), 3, num_classes, in_channels, seed, dtype)


def resnet18(num_classes=10, in_channels=3, *, seed=None, dtype=np.float32):
    """ResNet-18 as it is used for images of 32 x 32: four stages of two basic blocks, 64 to 512 wide. 11,173,962 parameters.

    Keys are as in `resnet20`.

    Parameters
    ----------
    num_classes, in_channels : int
    seed, dtype
        As in `lecture`.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", 2016, section 4.1; the first layer is section 4.2's.
    """
    return _resnet((64, 128, 256, 512), 2, num_classes, in_channels, seed, dtype)


def mobilenet(num_classes=10, in_channels=3, *, seed=None, dtype=np.float32):
    """Depthwise separable convolutions in the manner of MobileNet, for images of 32 x 32. 543,050 parameters.

    Parameters
    ----------
    num_classes, in_channels : int
    seed, dtype
        As in `lecture`.

    References
    ----------
    A. Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision applications", 2017, section 3.1.
    """
    options = {"seed": generator(seed), "dtype": dtype}

    def normalized(conv):
        return [conv, BatchNorm2d(conv.out_channels, dtype=dtype), ReLU()]

    layers = normalized(Conv2d(in_channels, 32, 3, padding=1, bias=False, **options))
    channels = 32
    for width, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        layers += normalized(Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False, **options))
        layers += normalized(Conv2d(channels, width, 1, bias=False, **options))
        channels = width
    return Sequential(*layers, AdaptiveAvgPool2d(1), Flatten(), Linear(channels, num_classes, **options))
