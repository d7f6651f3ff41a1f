"""Training steps, replayed: a network's kernels are called again as they were, without the layers' Python between them.

After some steps with inputs of one form, the next ones are replayed, until something changes: an attribute of a module, a mode, whether
Winograd's algorithm and matrix registers are allowed. `nn.passes` finds out how, and whether that gives the same bits. Layers remember
what they would have remembered, and every result is a new array, as ever. Whatever is in the way of a replay, the step is done as it
always was.
"""

import logging
import math
import os
import threading
from operator import attrgetter
from sys import getrefcount

import numpy as np

from fastconv.functional.arrays import contiguous
from fastconv.functional.conv import get_allowed
from fastconv.kernels.jit import Busy
from fastconv.kernels.replay import Unfit
from fastconv.memory import holders
from fastconv.nn.module import Later
from fastconv.nn.parameter import changes
from fastconv.nn.passes import Passes, data_of, memory_of

STEPS = math.inf if os.environ.get("FASTCONV_REPLAY") == "0" else 16
"""Steps with inputs of one form before the next may be replayed, about as many as it takes to find out whether it can be."""

FORMS = 8
"""Forms of input, in as many modes of the modules, that a network's steps are known for at a time."""

MISSES = 8
"""Steps in a row in which somebody else has a large network's memory, before it gets another place."""

KEPT_GRADIENTS = 1 << 22
"""Bytes of all gradients of parameters up to which their memory is kept for the next step."""

FREE = max(map(getrefcount, [object()]))
"""References to what is in a list and nowhere else, as counted there."""

log = logging.getLogger("fastconv")

_changes, _training = attrgetter("_changes"), attrgetter("training")


def forward(model, input):
    """The output of a Sequential's forward pass, replayed, or None where that cannot be."""
    if math.isinf(STEPS):
        return None
    steps = vars(model).get("_steps")
    if steps is None or steps.are_outdated(model):
        if steps is not None and steps.lock.acquire(blocking=False):
            try:
                steps.settle(model)
            finally:
                steps.lock.release()
        steps = vars(model)["_steps"] = Steps(model)
    if not steps.lock.acquire(blocking=False):
        return None  # another thread is in here, or a signal has come
    try:
        return steps.forward(model, input)
    finally:
        steps.lock.release()


def backward_parameters(model, grad_output):
    """Add up the gradients of a Sequential's parameters by a replay and return True, or return False where that cannot be."""
    steps = vars(model).get("_steps")
    if steps is None or not steps.lock.acquire(blocking=False):
        return False
    try:
        return steps.backward(model, grad_output)
    finally:
        steps.lock.release()


def count(model):
    """Take note of a step of a Sequential that has been done with all its Python."""
    steps = vars(model).get("_steps")
    if steps is not None and steps.last is not None:
        steps.last.steps += 1


class Known:
    """What is known of steps with inputs of one form: how many there were, and how they are replayed."""

    def __init__(self, allowed):
        self.allowed = allowed
        self.steps, self.tape = 0, None  # steps may be -inf: these cannot be replayed


class Steps:
    """The training steps of a Sequential, which itself is not held: it goes when its last user does."""

    def __init__(self, model):
        self.lock = threading.Lock()  # whoever does not get it, does without
        self.modules = tuple(model.modules())[1:]
        self.count, self.changes = changes.count, self._sum_of_changes(model)
        self.known = {}  # by form and modes
        self.form, self.key, self.last = None, None, None  # of the last forward pass
        self.patience = STEPS

    def _sum_of_changes(self, model):
        return model._changes + sum(map(_changes, self.modules))

    def are_outdated(self, model):
        """Whether an attribute has been set since, other than a mode."""
        now = changes.count
        if self.count != now:
            if self.changes != self._sum_of_changes(model):
                return True
            self.count, self.form = now, None
        return False

    def forward(self, model, input):
        """The output, or None."""
        array = memory_of(input)
        form = None if array is None or not array.size else (array.shape, array is input, array.dtype, get_allowed())
        if form is None or form != self.form:
            self._turn_to(model, form)
        known = self.last
        if known is None:
            return None
        if known.tape is None and known.steps >= self.patience:
            self._make_tape(model, input)
        if known.tape is None:
            return None
        if not known.tape.is_ready():
            self.settle(model)
            if known.tape.misses > MISSES or known.tape.passes.lost:
                known.steps, known.tape = 0, None
                self.patience *= 2
            return None
        if not known.tape.last.placed:
            known.tape.place((model, *self.modules))
        return known.tape.forward(array)

    def _turn_to(self, model, form):
        """An input of another form has come, or modes may have changed."""
        key = None if form is None else (*form, model.training, *map(_training, self.modules))
        if key != self.key:
            self.settle(model)
            if key is not None and key not in self.known:
                if len(self.known) >= FORMS:
                    del self.known[next(iter(self.known))]
                self.known[key] = Known(form[-1])
            self.key, self.last = key, None if key is None else self.known[key]
        self.form = form

    def settle(self, model):
        """Leave what layers remember of the last step to them."""
        if self.last is not None and self.last.tape is not None:
            self.last.tape.settle((model, *self.modules))

    def _make_tape(self, model, input):
        try:
            self.last.tape = Tape(model, self.modules, self.lock, input)
            log.info("steps of %s are replayed for inputs of shape %s", type(model).__name__, input.shape)
        except Busy:
            self.last.steps = 0
        except Exception as error:  # whatever is wrong here, the network can be trained without
            log.info("steps of %s are not replayed for inputs of shape %s: %s", type(model).__name__, input.shape, error)
            self.last.steps = -math.inf

    def backward(self, model, grad_output):
        """Whether it could be done."""
        known = self.last
        if known is None or known.tape is None:
            return False
        if known.allowed == get_allowed() and not self.are_outdated(model) and known.tape.backward(grad_output):
            return True
        self.settle(model)
        return False


class Last:
    """The last forward pass of a tape, as long as a module may ask what it remembers of it. Modules refer to this, not to the tape.

    Attributes
    ----------
    placed : bool
        Whether in all modules that remember something there stands a `Seen` of this.
    """

    def __init__(self):
        self.placed, self.passes, self.roots, self.remembered = False, None, None, None

    def begin(self):
        """Nobody shall ask while a pass is under way, nor after one that was interrupted."""
        self.passes = self.roots = self.remembered = None

    def end(self, passes, roots):
        self.passes, self.roots = passes, roots

    def values(self, number):
        """What a module, of that number among those `remembering`, remembers; None after the backward pass."""
        if self.remembered is None and self.roots is not None:
            self.remembered = self.passes.values(self.roots)
        return None if self.remembered is None else self.remembered[number]


class Seen(Later):
    """What the module of that number remembers of a `Last` pass."""

    def __init__(self, last, number):
        self.last, self.number = last, number

    def values(self):
        return self.last.values(self.number)

    def leave(self):
        self.last.placed = False


class Tape:
    """A network's steps with inputs of one form, ready to be done again.

    In each module that remembers something stands a `Seen`, from one step to the next, so that a step touches no modules.
    """

    def __init__(self, model, modules, lock, input):
        self.passes, self.lock = Passes(model, input), lock
        self.parameters, self.buffers = tuple(model.parameters()), tuple(model.buffers())
        self.trained = [self.parameters[i] for i in self.passes.trained]
        self.last, self.misses, self.bound_at, self.gradients = Last(), 0, None, []
        self.keeps_gradients = sum(parameter.data.nbytes for parameter in self.trained) <= KEPT_GRADIENTS
        self.leave()
        if not self.is_ready():
            raise Unfit("its arrays are not in the order of memory")
        holders.add(self)

    def is_ready(self):
        """Whether a step can be done: its memory is nobody else's, and the network's arrays are of the form that they had."""
        if self.passes.claim() and self._is_bound():
            self.misses = 0
            return True
        self.misses += 1
        return False

    def _is_bound(self):
        """Whether the kernels work on the network's arrays as they are now; some may have been exchanged, for others that do not fit."""
        now = changes.count
        if self.bound_at != now:
            weights = tuple(map(data_of, self.parameters))
            if not self.passes.fit(weights, self.buffers):
                return False
            self.passes.bind(weights, self.buffers)
            self.bound_at = now
        return not self.buffers or all(buffer.flags.writeable for buffer in self.buffers)

    def leave(self):
        """A step is over, with both passes or without."""
        self.last.begin()
        self.passes.leave()

    def release(self):
        """Give up what can be given back to the system, when nobody is in the middle of a step."""
        if self.lock.acquire(blocking=False):
            try:
                self.gradients = []
                self.passes.lose()
            finally:
                self.lock.release()

    def place(self, modules):
        """Let each module that remembers something refer to here for it; `modules` are all of the network's."""
        seen = [Seen(self.last, number) for number in range(len(self.passes.remembering))]
        own = [modules[i] for i in self.passes.remembering]
        for module, its in zip(own, seen, strict=True):
            module.keep(its)
        self.last.placed = all(vars(module).get("_saved") is its for module, its in zip(own, seen, strict=True))

    def settle(self, modules):
        """Leave a step to the layers' own Python: what they remember, they shall hold themselves."""
        for i in self.passes.remembering:
            seen = vars(modules[i]).get("_saved")
            if type(seen) is Seen and seen.last is self.last:
                modules[i].keep(seen.values())
        self.leave()

    def forward(self, array):
        """The output for an input in the order of its memory."""
        passes = self.passes
        self.last.begin()
        roots = [array, passes.makers[0]()]
        passes.forward(roots)
        self.last.end(passes, roots if passes.needs_output else [array, None])
        return passes.output(roots[1])

    def _gradients(self):
        """New arrays for the gradients of parameters; of a small network those of the step before which nobody has, nor a view of them."""
        makers = self.passes.makers[1:]
        if not self.keeps_gradients:
            return [make() for make in makers]
        if not self.gradients:
            self.gradients = [make() for make in makers]
        for i, count in enumerate(map(getrefcount, self.gradients)):
            if count > FREE:
                self.gradients[i] = makers[i]()
        return list(self.gradients)

    def backward(self, grad_output):
        """Whether the gradients of the parameters could be added up."""
        passes, roots = self.passes, self.last.roots
        if roots is None or not self.last.placed:  # where one layer has seen something else since
            return False
        if type(grad_output) is not np.ndarray or grad_output.shape != passes.output_shape or grad_output.dtype != passes.output_dtype:
            return False
        adding = [parameter for parameter in self.trained if parameter.grad is not None]
        if not self._is_bound() or (adding and not all(map(_takes_gradient, adding))):
            return False
        gradient = contiguous(grad_output.transpose(0, 2, 3, 1) if passes.channels_last else grad_output)
        gradients = self._gradients()
        self.last.begin()
        passes.backward([*roots, gradient, *gradients])
        for parameter, gradient in zip(self.trained, gradients, strict=True):
            if parameter.grad is None:
                parameter.grad = gradient
            else:
                parameter.accumulate(gradient)
        self.leave()
        return True


def _takes_gradient(parameter):
    """Whether a parameter's gradient is one that another can be added to."""
    grad = parameter.grad
    return type(grad) is np.ndarray and grad.shape == parameter.shape and grad.dtype == parameter.dtype
