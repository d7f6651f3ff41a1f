"""A network's kernels, compiled by two processes: its first forward pass by this one, its backward pass by another meanwhile."""

import contextlib
import copy

import numpy as np

from fastconv.errors import FastconvError
from fastconv.kernels import ahead, jit
from fastconv.nn.dropout import Dropout
from fastconv.nn.module import recording, running


def calls_of(module, input):
    """The kernels of both passes of `module`, without a number computed and with `module` left alone.

    Which these are depends on shapes. So a twin of nothing but memory goes through both passes, while no kernel runs.
    """
    twin = copy.deepcopy(module, {id(array): np.empty_like(array) for _, array in module._state()})
    twin.zero_grad()
    for part in twin.modules():
        if isinstance(part, Dropout):
            part.rng = np.random.default_rng(0)
    with ahead.recorded() as calls, np.errstate(all="ignore"):
        twin.backward_parameters(np.empty_like(twin.forward(input)))
    return calls


def _own(module):
    """Whether all of it is fastconv's: a user's code may do what it likes, and would be surprised by a pass in which no kernel runs."""
    return all(type(part).__module__.startswith("fastconv.") and not {"forward", "backward"} & set(vars(part)) for part in module.modules())


def _hear(name):
    """A kernel is about to be compiled; while a network is trained, it is not the last."""
    if name.endswith((".serial", ".parallel")) and running() is not None and recording() and ahead.can_help():
        module, inputs = running()
        if module.training and len(inputs) == 1 and isinstance(inputs[0], np.ndarray) and _own(module):
            with contextlib.suppress(FastconvError, MemoryError):  # the pass that has only begun will say so itself
                ahead.compile_elsewhere(calls_of(module, *inputs))


jit.compile_listeners.append(_hear)
