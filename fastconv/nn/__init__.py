"""Layers, containers and losses. Layers remember: parameters, options, and what backward needs of the last forward pass."""

from fastconv.nn import ahead as _ahead  # noqa: F401, it listens
from fastconv.nn.activation import GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softmax, Tanh
from fastconv.nn.container import Residual, Sequential
from fastconv.nn.conv import Conv2d, ConvTranspose2d
from fastconv.nn.dropout import Dropout
from fastconv.nn.init import manual_seed
from fastconv.nn.linear import Flatten, Linear
from fastconv.nn.loss import BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, Loss, MSELoss
from fastconv.nn.module import Module
from fastconv.nn.normalization import BatchNorm2d
from fastconv.nn.parameter import Parameter
from fastconv.nn.pooling import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from fastconv.nn.recording import no_grad

__all__ = [
    "GELU",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BCELoss",
    "BCEWithLogitsLoss",
    "BatchNorm2d",
    "Conv2d",
    "ConvTranspose2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "LeakyReLU",
    "Linear",
    "Loss",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "Parameter",
    "ReLU",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "manual_seed",
    "no_grad",
]
