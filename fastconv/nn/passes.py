"""Both passes of a network as calls of kernels, which are noted while a twin of the network goes through them.

The twin has random numbers, and so have its input and the gradient of its output. Then it gets other ones, and what `kernels.replay` makes
of the notes has to give the bits that its passes give: so nothing but kernels lies between input and gradients.
"""

import copy
import zlib
from functools import partial
from operator import attrgetter
from types import ModuleType

import numpy as np

from fastconv.arena import joined
from fastconv.functional.arrays import nchw
from fastconv.kernels.replay import Launches, Space, Unfit, noted, notes_in, part_of, recorded, unnoted
from fastconv.memory import LARGE, claim, empty
from fastconv.nn.dropout import Dropout
from fastconv.nn.module import Module, own
from fastconv.nn.parameter import Parameter
from fastconv.shapes import Conv2d

KEPT_BYTES = 1 << 24
"""Memory between input and gradients that a small network keeps; a large one has it for the length of a step."""

MOST_PARAMETERS = 1 << 26
"""Bytes of parameters at most: the twin has as many."""

CHECKS = 2
"""How often other numbers are tried. For a large network, of which a pass takes long, it is once."""

DRAWN = 65521
"""Random numbers that are drawn for an array, at most; they are repeated in a large one. A prime, so that no two rows are the same."""

data_of = attrgetter("_data")
remembered_by = attrgetter("_saved")


def memory_of(array):
    """An array, or a channels-last one with its axes in the order of memory, as kernels take it; None for others."""
    if type(array) is not np.ndarray:
        return None
    if array.flags.carray:
        return array
    pixels = array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
    return pixels if pixels.flags.carray else None


def _form(array):
    """All that kernels see of an array but its numbers."""
    return array.shape, array.dtype, array.flags.carray


def _refuse(model):
    """Raise `Unfit` for a network that does something which its twin would not show, or that has too much of it."""
    if not own(model):
        raise Unfit("it has a class or a function that is not fastconv's")
    for module in model.modules():
        if type(module) is Dropout and module.training:
            raise Unfit("it has a dropout, which draws numbers")
        for name, value in module.__getstate__().items():
            if not _is_plain(value) and not (isinstance(value, np.ndarray) and name in module._buffers):
                raise Unfit(f"it has an attribute {name!r}, a {type(value).__name__}")
    if sum(parameter.data.nbytes for parameter in model.parameters()) > MOST_PARAMETERS:
        raise Unfit("it has too many parameters")


def _is_plain(value):
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str, Parameter, np.random.Generator) or isinstance(value, Module)


class _Twin:
    """A copy of a network, with random numbers in it, and an input and a gradient of its output."""

    def __init__(self, model, input):
        self.model = copy.deepcopy(model)
        self.model.zero_grad()
        self.modules = tuple(self.model.modules())
        self.parameters, self.buffers = tuple(self.model.parameters()), tuple(self.model.buffers())
        self.weights = tuple(map(data_of, self.parameters))
        self.rng = np.random.default_rng(0)
        self.input = np.empty_like(input)
        self.fill()

    def fill(self):
        """New numbers, that neither vanish nor grow from layer to layer."""
        self._draw(self.input)
        for weight in self.weights:
            self._draw(weight)
            weight /= weight[0].size ** 0.5
        for buffer in self.buffers:
            whole = buffer.dtype.kind != "f"
            buffer[...] = self.rng.integers(1000, size=buffer.shape) if whole else self.rng.uniform(0.5, 1.5, buffer.shape)

    def _draw(self, array):
        numbers, flat = self.rng.standard_normal(min(array.size, DRAWN), array.dtype), memory_of(array).reshape(-1)
        for start in range(0, array.size, DRAWN):
            flat[start : start + DRAWN] = numbers[: array.size - start]

    def forward(self):
        """The output, and what each module remembers."""
        output = self.model.forward(self.input)
        self.grad_output = np.empty_like(output)
        if memory_of(output) is None:
            raise Unfit("its output is not in the order of memory")
        self._draw(self.grad_output)
        return output, tuple(map(remembered_by, self.modules))

    def backward(self):
        """The gradient of each parameter that has one; it forgets them."""
        self.model.backward_parameters(self.grad_output)
        gradients = [parameter.grad for parameter in self.parameters]
        self.model.zero_grad()
        return gradients


class Passes:
    """Both passes of a network for one form of input.

    They work on `roots`, which are the caller's, each in the order of its memory: input, output, gradient of the output, and gradients of
    those parameters that have one. `makers` make the results among them, new ones.

    Attributes
    ----------
    trained : list of int
        Which of the network's parameters have a gradient.
    remembering : list of int
        Which of its modules remember something.
    needs_output : bool
        Whether the backward pass reads the output, or a module remembers it.
    """

    def __init__(self, model, input):
        _refuse(model)
        twin = _Twin(model, input)
        self.forms = [list(map(_form, arrays)) for arrays in (twin.weights, twin.buffers)]
        self.blocks, self.lost = None, False
        self._note(twin)
        for _ in range(CHECKS if self.keeps else 1):
            self._check(twin)

    # --- made from a twin

    def _note(self, twin):
        with recorded() as calls:
            output, remembered = twin.forward()
            count, remembered = len(calls), noted(remembered)
            gradients = twin.backward()
        self.trained = [i for i, gradient in enumerate(gradients) if gradient is not None]
        self.output_shape, self.output_dtype, self.channels_last = output.shape, output.dtype, memory_of(output) is not output
        roots = tuple(map(memory_of, (twin.input, output, twin.grad_output, *(gradients[i] for i in self.trained))))
        if any(root is None for root in roots) or any(memory_of(gradients[i]) is not gradients[i] for i in self.trained):
            raise Unfit("a result is not in the order of memory")
        self.makers = [_maker(root) for root in (roots[1], *roots[3:])]
        roots, fixed = noted(roots), noted((*twin.weights, *twin.buffers))
        if any(part_of(roots[:i], root) for i, root in enumerate(roots)):
            raise Unfit("a result is not an array of its own")
        self.forward_calls, self.backward_calls = Launches(calls[:count], roots, fixed), Launches(calls[count:], roots, fixed)
        self.remembering = [i for i, value in enumerate(remembered) if value is not None]
        remembered = tuple(remembered[i] for i in self.remembering)
        self.needs_output = any(part_of(roots[1:2], notes) for notes in (remembered, *(notes for _, _, notes in calls[count:])))
        self._place(remembered, roots[:2], fixed)

    def _place(self, remembered, ends, fixed):
        """Find out where in memory all that is remembered lies; `ends` are input and output."""
        if part_of(fixed, remembered):
            raise Unfit("a layer remembers a parameter")
        own = [note.region for note in notes_in(remembered) if note.region and not part_of(ends, note)]
        self.regions = joined([*self.forward_calls.regions, *self.backward_calls.regions, *own])
        self.keeps = sum(size for _, _, size in self.regions) <= KEPT_BYTES
        everything = (*ends, *map(Space, self.regions))
        self.remembered = list(unnoted(remembered))
        parts = [part_of(everything, value) for value in remembered]
        self.changing = [(i, part) for i, part in enumerate(parts) if part and part_of(ends, remembered[i])]
        self.staying = [(i, part) for i, part in enumerate(parts) if part and not part_of(ends, remembered[i])]

    def _check(self, twin):
        """See that other numbers give the same bits in both ways."""
        twin.fill()
        before = [buffer.copy() for buffer in twin.buffers]
        output, remembered = twin.forward()
        expected = _bits([output, *_arrays(remembered)])
        del output, remembered
        gradients = twin.backward()
        expected += _bits([*(gradients[i] for i in self.trained), *twin.buffers])
        del gradients
        for buffer, old in zip(twin.buffers, before, strict=True):
            buffer[...] = old
        if not self.claim():
            raise Unfit("another thread has its memory")
        self.bind(twin.weights, twin.buffers)
        output, *gradients = [make() for make in self.makers]
        for array in (output, *gradients):
            array.fill(np.nan)
        roots = [memory_of(twin.input), output, memory_of(twin.grad_output), *gradients]
        self.forward(roots)
        found = _bits([output, *_arrays(tuple(self.values(roots)))])
        self.backward(roots)
        self.leave()
        if found + _bits([*gradients, *twin.buffers]) != expected:
            raise Unfit("not all of it is done by kernels")

    # --- of a network that is like the twin

    def fit(self, weights, buffers):
        """Whether kernels see of these arrays what they saw of the twin's, but for the numbers."""
        return self.forms == [list(map(_form, arrays)) for arrays in (weights, buffers)]

    def bind(self, weights, buffers):
        """Let the kernels work on these."""
        for launches in (self.forward_calls, self.backward_calls):
            launches.bind((*weights, *buffers))

    def claim(self):
        """Whether the memory between input and gradients is nobody else's now."""
        if self.blocks is None:
            self.blocks = None if self.lost else claim(self.regions)
            if self.blocks is None:
                self.lost = self.lost or any(slab.released for slab, _, _ in self.regions)
                return False
            spaces = [None, None, *self.blocks]
            for i, part in self.staying:
                self.remembered[i] = part(spaces)
        return True

    def leave(self):
        """A step is over. The memory of a large network is its own only as long as a layer remembers something that lies there."""
        if not self.keeps:
            self.blocks = None
            for i, _ in self.staying:
                self.remembered[i] = None

    def lose(self):
        """Let the system have the memory of a large network. There is no replay any more."""
        if not self.keeps and self.blocks is None:
            self.lost, self.regions, self.forward_calls, self.backward_calls = True, [], None, None

    def output(self, memory):
        """The output with its axes in order."""
        return nchw(memory) if self.channels_last else memory

    def forward(self, roots):
        """Run it. Of the roots it needs the first two."""
        self.forward_calls.run(roots)

    def values(self, roots):
        """What each of the modules `remembering` remembers of a forward pass, as a list; `roots` are that pass's."""
        remembered, everything = list(self.remembered), [*roots[:2], *self.blocks]
        for i, part in self.changing:
            remembered[i] = part(everything)
        return remembered

    def backward(self, roots):
        self.backward_calls.run(roots)


def _maker(array):
    """A function that makes arrays of the same form."""
    return partial(empty if array.nbytes >= LARGE else np.empty, array.shape, array.dtype)


def _arrays(value):
    """All arrays in what layers remember, as a list."""
    if isinstance(value, tuple):
        return [array for element in value for array in _arrays(element)]
    if isinstance(value, np.ndarray):
        return [value]
    if value is None or isinstance(value, (bool, int, float, ModuleType, Conv2d)):
        return []
    raise Unfit(f"a layer remembers a {type(value).__name__}")


def _bits(arrays):
    """A number for each array that another array's bits would hardly give."""
    memories = (np.ascontiguousarray(array) if memory_of(array) is None else memory_of(array) for array in arrays)
    return [zlib.crc32(memory.data) for memory in memories]
