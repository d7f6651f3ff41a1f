"""Training steps of a small network, replayed: its kernels are called again as they were, without the layers' Python between them.

After some steps with inputs of one shape, a twin of the network goes through both passes with random numbers while its kernels are noted.
It does so again with other numbers, and what `kernels.replay` makes of the notes has to give the same bits: then nothing but kernels lies
between inputs and gradients. From there on steps are replayed, until something changes: an attribute of a module, a mode, whether
Winograd's algorithm is allowed. Layers remember what they would have remembered, and every result is a new array, as ever.
"""

import copy
import logging
import math
import os
import threading
import zlib
from functools import partial
from operator import attrgetter, is_not
from types import ModuleType

import numpy as np

from fastconv.arena import joined
from fastconv.functional.arrays import contiguous, nchw
from fastconv.functional.conv import get_winograd
from fastconv.kernels.jit import Busy
from fastconv.kernels.replay import MOST_BYTES, Launches, Unfit, noted, notes_in, part_of, recorded, unnoted
from fastconv.memory import LARGE, claim, empty
from fastconv.nn.dropout import Dropout
from fastconv.nn.module import own
from fastconv.nn.parameter import changes
from fastconv.shapes import Conv2d

STEPS = math.inf if os.environ.get("FASTCONV_REPLAY") == "0" else 8
"""Steps of one shape before the next may be replayed: about as many as it takes to find that out."""

SHAPES = 8
"""Shapes of input, and modes, that a network's steps are known for at a time."""

MOST_PARAMETERS = 1 << 26
"""Bytes of parameters at most: the twin has as many."""

MISSES = 8
"""Times that a large network's memory may be somebody else's, before another place is looked for, but later each time."""

CHECKS = 2
"""Times that a replay has to give the bits of the twin's passes, each with other numbers; of a large network, once."""

log = logging.getLogger("fastconv")

_changes, _training, _saved, _data = map(attrgetter, ("_changes", "training", "_saved", "_data"))


def _differ(some, others):
    """Whether they are not the same objects."""
    return any(map(is_not, some, others))


def _arrays(value):
    """All arrays in what layers remember, as a list."""
    if isinstance(value, tuple):
        return [array for element in value for array in _arrays(element)]
    if isinstance(value, np.ndarray):
        return [value]
    if value is None or isinstance(value, (bool, int, float, ModuleType, Conv2d)):
        return []
    raise Unfit(f"a layer remembers a {type(value).__name__}")


def _memory(array):
    """An array, or a channels-last one with its axes in the order of memory, as kernels take it; None for others."""
    if type(array) is not np.ndarray:
        return None
    if array.flags.carray:
        return array
    pixels = array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
    return pixels if pixels.flags.carray else None


class Steps:
    """What is known of the training steps of a Sequential: how often inputs of a form came, or how their steps are replayed."""

    def __init__(self, model):
        self.modules = tuple(model.modules())
        self.changes, self.count = self._sum_of_changes(), changes.count
        self.known = {}  # by form and modes: a number of steps, a Tape, or None for what cannot be replayed
        self.form, self.key, self.found = None, None, None  # of the last forward pass
        self.patience = STEPS  # steps before a tape is made

    def _sum_of_changes(self):
        return sum(map(_changes, self.modules))

    def outdated(self):
        """Whether an attribute has been set since, other than a mode."""
        if self.count != changes.count:
            if self.changes != self._sum_of_changes():
                return True
            self.count, self.form = changes.count, None
        return False

    def tape(self, model, input):
        """The tape for an input, or None. It is made when the time has come."""
        memory = _memory(input)
        form = None if memory is None else (memory.shape, memory is input, input.dtype, get_winograd())
        if form is None or form != self.form:
            self._turn_to(form)
        if type(self.found) is Tape:
            if self.found.misses <= MISSES:
                return self.found
            self.patience *= 4
            self._find(0)
        if self.found != self.patience:
            return None
        try:
            self._find(Tape(model, self.modules, input))
            log.info("steps of %s are replayed for inputs of shape %s", type(model).__name__, input.shape)
            return self.found
        except Busy:
            self._find(0)
        except Exception as error:  # whatever is wrong here, the network can be trained without
            log.info("steps of %s are not replayed for inputs of shape %s: %s", type(model).__name__, input.shape, error)
            self._find(None)
        return None

    def _turn_to(self, form):
        """An input of another form has come, or modes may have changed."""
        key = None if form is None or 0 in form[0] else (*form, *map(_training, self.modules))
        if key != self.key:
            if type(self.found) is Tape:
                self.found.leave()
            if key not in self.known and len(self.known) >= SHAPES:
                self.known.clear()
            self.key, self.found = key, None if key is None else self.known.setdefault(key, 0)
        self.form = form

    def _find(self, found):
        self.found = self.known[self.key] = found

    def count_step(self):
        """A step has been done, with all its Python."""
        if type(self.found) is int:
            self._find(self.found + 1)


def forward(model, input):
    """The output of a Sequential's forward pass, replayed, or None where that cannot be."""
    steps = vars(model).get("_steps")
    if steps is None or steps.outdated():
        steps = vars(model)["_steps"] = Steps(model)
    tape = steps.tape(model, input)
    return None if tape is None else tape.forward(input)


def backward_parameters(model, grad_output):
    """Add up the gradients of a Sequential's parameters by a replay and return True, or return False where that cannot be."""
    steps = vars(model).get("_steps")
    if steps is None:
        return False
    if type(steps.found) is Tape and not steps.outdated() and steps.found.backward(grad_output):
        return True
    steps.count_step()
    return False


class _Twin:
    """A copy of a network, with random numbers in it, and an input and a gradient of its output."""

    def __init__(self, model, input):
        self.model = copy.deepcopy(model)
        self.model.zero_grad()
        self.modules = tuple(self.model.modules())
        self.parameters, self.buffers = tuple(self.model.parameters()), tuple(self.model.buffers())
        self.rng = np.random.default_rng(0)
        self.input = np.empty_like(input)
        self.fill()

    def fill(self):
        """New numbers, that neither vanish nor grow from layer to layer."""
        _draw(self.rng, self.input)
        for weight in map(_data, self.parameters):
            _draw(self.rng, weight)
            weight /= weight[0].size ** 0.5
        for buffer in self.buffers:
            if buffer.dtype.kind == "f":
                buffer[...] = self.rng.uniform(0.5, 1.5, buffer.shape)

    def forward(self):
        """The output, and what each module remembers."""
        output = self.model.forward(self.input)
        self.grad_output = np.empty_like(output)
        _draw(self.rng, self.grad_output)
        return output, tuple(map(_saved, self.modules))

    def backward(self):
        """The gradient of each parameter that has one; it forgets them."""
        self.model.backward_parameters(self.grad_output)
        gradients = [parameter.grad for parameter in self.parameters]
        self.model.zero_grad()
        return gradients


class Tape:
    """Both passes of a Sequential for one shape of input."""

    def __init__(self, model, modules, input):
        if not own(model) or any(type(module) is Dropout and module.training for module in modules):
            raise Unfit("not all of it is done by kernels")
        if sum(array.nbytes for array in map(_data, model.parameters())) > MOST_PARAMETERS:
            raise Unfit("it has too many parameters")
        self.lock, self.roots, self.seen, self.misses, self.count = threading.Lock(), None, (), 0, None
        twin = _Twin(model, input)
        self._note(twin)
        for _ in range(CHECKS if self.keeps else 1):
            self._check(twin)
        self.parameters, self.buffers = tuple(model.parameters()), tuple(model.buffers())
        self.trained = [self.parameters[i] for i in self.trained_places]
        self.attributes = [vars(modules[i]) for i in self.remembering]
        self._bind(list(map(_data, self.parameters)))

    def _note(self, twin):
        """Take down the twin's passes."""
        with recorded() as calls:
            output, remembered = twin.forward()
            count, remembered = len(calls), noted(remembered)
            gradients = twin.backward()
        self.trained_places = [i for i, gradient in enumerate(gradients) if gradient is not None]
        roots = [*map(_memory, (twin.input, output, twin.grad_output)), *(gradients[i] for i in self.trained_places)]
        if any(root is None or not root.flags.carray for root in roots):
            raise Unfit("a result is not an array of its own")
        self.output_shape, self.output_dtype, self.channels_last = output.shape, output.dtype, roots[1] is not output
        _, self.new_output, _, *self.new_gradients = map(_maker, roots)
        roots, fixed = noted(tuple(roots)), noted((*map(_data, twin.parameters), *twin.buffers))
        if any(part_of(roots[:i], root) for i, root in enumerate(roots)):
            raise Unfit("a result is not an array of its own")
        self.forward_calls, self.backward_calls = Launches(calls[:count], roots, fixed), Launches(calls[count:], roots, fixed)
        self.remembering = [i for i, value in enumerate(remembered) if value is not None]
        remembered = tuple(remembered[i] for i in self.remembering)
        if part_of(fixed, remembered):
            raise Unfit("a layer remembers a parameter")
        self.remembered, parts = unnoted(remembered), [part_of(roots, value) for value in remembered]
        self.changing = [(i, part) for i, part in enumerate(parts) if part]
        regions = [note.region for note in notes_in(remembered) if note.region and not part_of(roots, note)]
        self.regions = joined([*self.forward_calls.regions, *self.backward_calls.regions, *regions])
        self.keeps = sum(size for _, _, size in self.regions) <= MOST_BYTES
        self.blocks = None

    def _claim(self):
        """Whether the memory between input and gradients is this tape's: a large network's for a step, a small one's for ever."""
        if self.blocks is None:
            self.blocks = claim(self.regions)
        return self.blocks is not None

    def leave(self):
        """A step is over, with both passes or without."""
        self.roots, self.seen = None, ()
        if not self.keeps:
            self.blocks = None

    def _check(self, twin):
        """See that the replay of other numbers gives the bits that the twin's passes give."""
        twin.fill()
        before = [buffer.copy() for buffer in twin.buffers]
        output, remembered = twin.forward()
        expected = _bits([output, *_arrays(remembered)])
        del output, remembered
        gradients = twin.backward()
        expected += _bits([gradients[i] for i in self.trained_places] + list(twin.buffers))
        del gradients
        for buffer, old in zip(twin.buffers, before, strict=True):
            buffer[...] = old
        self.buffers = twin.buffers
        self._bind(list(map(_data, twin.parameters)))
        if not self._claim():
            raise Unfit("another thread takes its memory")
        roots = [_memory(twin.input), self.new_output(), _memory(twin.grad_output), *(new() for new in self.new_gradients)]
        for root in [roots[1], *roots[3:]]:
            root.fill(np.nan)
        self.forward_calls.run(roots)
        found = _bits([self._output(roots[1]), *_arrays(tuple(self._remembered(roots)))])
        self.backward_calls.run(roots)
        self.leave()
        if found + _bits([*roots[3:], *twin.buffers]) != expected:
            raise Unfit("not all of it is done by kernels")

    def _output(self, memory):
        return nchw(memory) if self.channels_last else memory

    def _remembered(self, roots):
        """What layers remember of the forward pass."""
        values = list(self.remembered)
        for i, part in self.changing:
            values[i] = part(roots)
        return values

    def _bind(self, weights):
        """Let the kernels work on the parameters' arrays."""
        self.weights = weights
        for launches in (self.forward_calls, self.backward_calls):
            launches.bind([*weights, *self.buffers])

    def _is_bound(self):
        """Whether the kernels work on the parameters' arrays as they are now; arrays that have been exchanged may have another form."""
        if self.count == changes.count:
            return True
        weights = list(map(_data, self.parameters))
        if _differ(weights, self.weights):
            if any((new.shape, new.dtype) != (old.shape, old.dtype) for new, old in zip(weights, self.weights, strict=True)):
                return False
            self._bind(weights)
        self.count = changes.count
        return True

    def forward(self, input):
        """The output, or None where there is no replay."""
        if not self.lock.acquire(blocking=False):
            return None  # another thread is in here
        try:
            self.roots = None
            if not self._is_bound():
                return None
            if not self._claim():
                self.misses += 1
                return None
            roots = [_memory(input), self.new_output()]
            self.forward_calls.run(roots)
            self.seen = self._remembered(roots)
            for attributes, value in zip(self.attributes, self.seen, strict=True):
                attributes["_saved"] = value
            self.roots = roots
            return self._output(roots[1])
        finally:
            self.lock.release()

    def backward(self, grad_output):
        """Add up the gradients of the parameters and return True, or return False where there is no replay."""
        if type(grad_output) is not np.ndarray or (grad_output.shape, grad_output.dtype) != (self.output_shape, self.output_dtype):
            return False
        if not self.lock.acquire(blocking=False):
            return False
        try:
            if self.roots is None or not self._is_bound() or _differ([attributes["_saved"] for attributes in self.attributes], self.seen):
                return False
            gradient = contiguous(grad_output.transpose(0, 2, 3, 1) if self.channels_last else grad_output)
            roots = [*self.roots, gradient, *[new() for new in self.new_gradients]]
            self.backward_calls.run(roots)
            for parameter, gradient in zip(self.trained, roots[3:], strict=True):
                parameter.accumulate(gradient)
            for attributes in self.attributes:
                attributes["_saved"] = None
            self.leave()
            return True
        finally:
            self.lock.release()


def _maker(array):
    """A function that makes arrays of the same form."""
    return partial(empty if array.nbytes >= LARGE else np.empty, array.shape, array.dtype)


def _draw(rng, array):
    """Fill an array with normal random numbers."""
    rng.standard_normal(dtype=array.dtype, out=_memory(array))


def _bits(arrays):
    """A number for each array that another array's bits would hardly give."""
    memories = (np.ascontiguousarray(array) if _memory(array) is None else _memory(array) for array in arrays)
    return [zlib.crc32(memory.data) for memory in memories]
