"""Compiling ahead: what training a network needs, made by training it for a moment."""

import time

import numpy as np

from fastconv import models as networks
from fastconv import nn, optim
from fastconv.errors import ArgumentError, ArgumentTypeError
from fastconv.shapes import integer
from fastconv.trainer import Trainer

OPTIMIZERS = {
    "sgd": lambda parameters, lr: optim.SGD(parameters, lr=lr, momentum=0.9),
    "adam": lambda parameters, lr: optim.Adam(parameters, lr=lr),
    "adamw": lambda parameters, lr: optim.AdamW(parameters, lr=lr),
    "rmsprop": lambda parameters, lr: optim.RMSprop(parameters, lr=lr),
}
"""The optimizers that have a name, made of parameters and a learning rate."""


def warm_up(models=("lenet5",), batch_size=64, optimizer="sgd"):
    """Compile, or load from the cache, every kernel that training networks needs, so that the first real step is as fast as any.

    Parameters
    ----------
    models : str or sequence of str
        Names of functions in `fastconv.models`.
    batch_size : int
        A kernel has two forms, for little and for much work; which one runs depends on the batch.
    optimizer : "sgd" (with momentum), "adam", "adamw" or "rmsprop"

    Returns
    -------
    float
        How long it took, in seconds.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        When there is no such network or optimizer.
    """
    began = time.perf_counter()
    names = [models] if isinstance(models, str) else models
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ArgumentTypeError(f"models must be a network's name or a sequence of names, got {models!r}")
    batch_size = integer("batch_size", batch_size, 1)
    for model, name in [(networks.create(name, seed=0), name) for name in names]:
        exercise(model, optimizer, networks.INPUT_SHAPES[name], [batch_size], [256, 1])
    return time.perf_counter() - began


def exercise(model, optimizer, shape, training, evaluation):
    """Train `model` on one batch of each size in `training`, and use it on one of each size in `evaluation`, all of noise.

    `shape` is (C, H, W). The model's parameters change.
    """
    if optimizer not in OPTIMIZERS:
        raise ArgumentError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {optimizer!r}")
    binary = isinstance(model[-1], nn.Sigmoid)
    trainer = Trainer(
        model, nn.BCELoss() if binary else nn.CrossEntropyLoss(), OPTIMIZERS[optimizer](model.parameters(), 1e-6), progress=False
    )
    noise = np.random.default_rng(0).integers(0, 256, (max([*training, *evaluation]), *shape), np.uint8)
    labels = np.zeros(len(noise), np.int64)
    for size in dict.fromkeys(training):
        if trainer.fit(noise[:size], labels[:size], batch_size=size).stopped:
            raise KeyboardInterrupt  # fit takes a Ctrl-C for a wish to keep what was learned
    for size in dict.fromkeys(evaluation):
        trainer.evaluate(noise[:size], labels[:size], batch_size=size)
