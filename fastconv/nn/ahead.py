"""A network's kernels, compiled by two processes: its first forward pass by this one, its backward pass by another meanwhile."""

import copy
import logging

import numpy as np

from fastconv.kernels import ahead, jit
from fastconv.nn.dropout import Dropout
from fastconv.nn.module import own
from fastconv.nn.recording import recording, running

log = logging.getLogger("fastconv")


def calls_of(module, input):
    """The kernels of both passes of `module`, without a number computed and with `module` left alone.

    Which these are depends on shapes. So a twin of nothing but memory goes through both passes, while no kernel runs.
    """
    numbers = {id(array): np.empty_like(array) for _, array in module._state() if array.dtype.kind == "f"}
    twin = copy.deepcopy(module, numbers)
    twin.zero_grad()
    for part in twin.modules():
        if isinstance(part, Dropout):
            part.rng = np.random.default_rng(0)
    with ahead.recorded() as calls, np.errstate(all="ignore"):
        twin.backward_parameters(np.empty_like(twin.forward(input)))
    return calls


def _hear(name):
    """A kernel is about to be compiled; while a network is trained, it is not the last. Whatever is wrong here, training goes on."""
    if not name.endswith((".serial", ".parallel")) or running() is None or not recording():
        return
    module, inputs = running()
    try:
        if module.training and len(inputs) == 1 and isinstance(inputs[0], np.ndarray) and ahead.can_help() and own(module):
            ahead.compile_elsewhere(calls_of(module, *inputs))
    except Exception as error:  # what is wrong with the network or its input, the pass that has only begun will say itself
        log.info("nobody helps to compile: %r", error)


jit.compile_listeners.append(_hear)
