"""What every layer is: parameters and buffers by name, a memory of its last forward pass, a place in a tree of modules."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fastconv.errors import ArgumentError, ArgumentTypeError
from fastconv.functional.arrays import FLOAT32, FLOAT64
from fastconv.nn.parameter import Parameter, changes, float_dtype
from fastconv.nn.recording import recording, this_thread


def own(module):
    """Whether all of a module is fastconv's and as it was written: a user's code may do what it likes."""

    def as_written(part):
        cls = type(part)
        return cls.__module__.startswith("fastconv.") and not any(callable(getattr(cls, name, None)) for name in vars(part))

    return all(map(as_written, module.modules()))


_PASSING = {"_saved", "_changes", "_steps"}
"""Attributes that are no part of a module's state."""


class Later:
    """Stands for what a module remembers: `values` makes it, or None when there is nothing to be remembered any more."""

    def values(self):
        raise NotImplementedError

    def leave(self):
        """It stands there no longer."""


class IncompatibleKeys(NamedTuple):
    """What `Module.load_state_dict` did not find, and what it did not need."""

    missing_keys: list
    unexpected_keys: list


class Module:
    """Base class of layers, containers, losses and users' own modules.

    A subclass writes `forward(input)` and `backward(grad_output)`. An attribute that is a `Parameter` or a `Module` is found by
    `parameters`, `state_dict` and the rest, in the order of assignment; buffers (arrays that are state but not trained) are announced by
    `register_buffer`. What backward needs, forward gives to `remember` and backward takes from `recall`.

    A module remembers one forward pass, the last. Use it in one place of a network only, and call backward after its own forward.

    Examples
    --------
    >>> from fastconv import nn
    >>> class Scale(nn.Module):
    ...     def __init__(self):
    ...         self.factor = nn.Parameter(np.ones(1, np.float32))
    ...
    ...     def forward(self, input):
    ...         self.remember(input)
    ...         return input * self.factor.data
    ...
    ...     def backward(self, grad_output):
    ...         (input,) = self.recall()
    ...         self.factor.accumulate((grad_output * input).sum(keepdims=True).reshape(1))
    ...         return grad_output * self.factor.data
    >>> Scale().num_parameters()
    1
    """

    training = True
    _saved = None
    _changes = 0  # how often an attribute has been set since the module was made, but for modes
    _buffers = ()

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if name not in _PASSING:
            self._count(name)

    def __delattr__(self, name):
        super().__delattr__(name)
        self._count(name)

    def _count(self, name):
        if name != "training":
            vars(self)["_changes"] = self._changes + 1
        changes.count += 1  # after it: whoever sees that something has changed, sees what

    # --- passes

    def forward(self, input):
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, grad_output):
        """Add the gradients of the parameters to their .grad; return the gradient of forward's input."""
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def backward_parameters(self, grad_output):
        """As `backward`, for a whole network or its first module, when nobody needs the gradient of the input and it is the end of a step.

        That gradient is not computed where that saves time. A `Sequential` forgets the forward pass on the way, and gives its memory back.
        """
        self.backward(grad_output)

    def __call__(self, *inputs):
        this_thread.call = self, inputs
        try:
            return self.forward(*inputs)
        finally:
            this_thread.call = None

    def remember(self, *values):
        """Keep `values` for backward, unless under `no_grad`."""
        if recording():
            self.keep(values)

    def recall(self):
        """The values that the last forward pass has remembered, as a tuple. Its arrays are this pass's until the next one, or until
        `backward_parameters`, which may write to them."""
        saved = self._saved
        if isinstance(saved, Later):
            saved = saved.values()
        if saved is None:
            raise ArgumentError(
                f"{type(self).__name__}.backward needs a forward pass before it, outside of no_grad; backward_parameters forgets it"
            )
        return saved

    def forget(self):
        """Give up what the last forward pass has remembered."""
        self.keep(None)

    def keep(self, saved):
        """Let what is remembered be a tuple, None, or a `Later`."""
        before = self._saved
        if isinstance(before, Later):
            before.leave()
        vars(self)["_saved"] = saved

    def __getstate__(self):
        # a copy is of the state, not of the activations that happen to be remembered
        return {name: value for name, value in vars(self).items() if name not in _PASSING}

    # --- the tree

    def register_buffer(self, name, array):
        """Make `array` an attribute that `state_dict` holds and no optimizer changes."""
        setattr(self, name, array)
        if name not in self._buffers:
            self._buffers = (*self._buffers, name)

    def add_module(self, name, module):
        """Make `module` an attribute, under a name that may also be a number such as "0"."""
        if not isinstance(module, Module):
            raise ArgumentTypeError(f"module must be a Module, got {type(module).__name__}")
        if not isinstance(name, str):
            raise ArgumentTypeError(f"name must be a string, got {name!r}")
        if not name or "." in name or (hasattr(self, name) and not isinstance(getattr(self, name), Module)):
            raise ArgumentError(f"name must be a name without dots that {type(self).__name__} does not use itself, got {name!r}")
        setattr(self, name, module)

    def named_children(self):
        """Yield (name, module) of the modules directly below."""
        for name, value in list(vars(self).items()):
            if isinstance(value, Module):
                yield name, value

    def children(self):
        """Yield the modules directly below."""
        for _, module in self.named_children():
            yield module

    def named_modules(self, prefix="", remove_duplicate=True):
        """Yield (name, module) of this module and of all below, parents first."""
        seen = set()

        def walk(prefix, module):
            if remove_duplicate:
                if id(module) in seen:
                    return
                seen.add(id(module))
            yield prefix, module
            for name, child in module.named_children():
                yield from walk(f"{prefix}.{name}" if prefix else name, child)

        return walk(prefix, self)

    def modules(self):
        """Yield this module and all below."""
        for _, module in self.named_modules():
            yield module

    def named_parameters(self, prefix="", recurse=True):
        """Yield (name, Parameter), each parameter once."""
        seen = set()
        for path, module in self.named_modules(prefix) if recurse else [(prefix, self)]:
            for name, value in vars(module).items():
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield f"{path}.{name}" if path else name, value

    def parameters(self, recurse=True):
        """Yield every Parameter once."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(self, prefix="", recurse=True):
        """Yield (name, ndarray) of the buffers."""
        for path, module in self.named_modules(prefix) if recurse else [(prefix, self)]:
            for name in module._buffers:
                value = getattr(module, name)
                if value is not None:
                    yield f"{path}.{name}" if path else name, value

    def buffers(self, recurse=True):
        """Yield every buffer."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def num_parameters(self):
        """How many numbers training changes."""
        return sum(parameter.size for parameter in self.parameters())

    # --- modes

    def train(self, mode=True):
        """Set this module and all below to training mode (or evaluation mode); return it."""
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self):
        """Set this module and all below to evaluation mode; return it."""
        return self.train(False)

    def zero_grad(self, set_to_none=True):
        """Clear every parameter's gradient: to None, or to zeros."""
        for parameter in self.parameters():
            parameter.zero_grad(set_to_none)

    def astype(self, dtype):
        """Convert all parameters and floating-point buffers to float32 or float64; return the module.

        Gradients and what forward remembered are dropped. Make optimizers afterwards.
        """
        dtype = float_dtype(dtype)
        for module in self.modules():
            module.forget()
            for parameter in module.parameters(recurse=False):
                parameter.grad = None
                if parameter.dtype != dtype:
                    parameter.data = parameter.data.astype(dtype)
            for name, buffer in list(module.named_buffers(recurse=False)):
                if buffer.dtype.kind == "f":
                    setattr(module, name, buffer.astype(dtype))
        return self

    def float(self):
        """Convert to float32; see `astype`."""
        return self.astype(FLOAT32)

    def double(self):
        """Convert to float64; see `astype`."""
        return self.astype(FLOAT64)

    # --- state

    def _state(self, prefix=""):
        """Yield (key, array) of what state_dict holds, the arrays themselves."""
        for name, parameter in self.named_parameters(prefix, recurse=False):
            yield name, parameter.data
        yield from self.named_buffers(prefix, recurse=False)
        for name, child in self.named_children():
            yield from child._state(f"{prefix}.{name}" if prefix else name)

    def state_dict(self):
        """Return the parameters and buffers as a dict of arrays, under PyTorch's keys ("0.weight").

        The arrays are copies: what the dict holds stays as it is while training goes on.
        """
        return {key: array.copy() for key, array in self._state()}

    def load_state_dict(self, state_dict, strict=True):
        """Copy arrays into the parameters and buffers; nothing is changed unless everything fits.

        Parameters
        ----------
        state_dict : dict of str to array
            As `state_dict` or `fastconv.load` return; values may be anything that NumPy takes for an array of numbers, CPU tensors
            among them. They are converted to the dtypes that the module has.
        strict : bool
            Raise on missing and unexpected keys. Shapes must fit in any case.

        Returns
        -------
        (missing_keys, unexpected_keys)
            Two lists, empty when strict.

        Raises
        ------
        ValueError, TypeError
            With one line for each kind of misfit.
        """
        if not isinstance(state_dict, Mapping):
            raise ArgumentTypeError(f"state_dict must be a dict of arrays, got {type(state_dict).__name__}")
        own = dict(self._state())
        missing = [key for key in own if key not in state_dict]
        unexpected = [key for key in state_dict if key not in own]
        new = {key: _numbers(key, state_dict[key], own[key].dtype) for key in own if key in state_dict}
        problems = []
        if strict and missing:
            problems.append(f"missing keys: {', '.join(missing)}")
        if strict and unexpected:
            problems.append(f"unexpected keys: {', '.join(map(str, unexpected))}")
        problems += [
            f"{key} must have shape {own[key].shape}, got {value.shape}" for key, value in new.items() if value.shape != own[key].shape
        ]
        if problems:
            raise ArgumentError("\n  ".join([f"state_dict does not fit {type(self).__name__}:", *problems]))
        for key, value in new.items():
            own[key][...] = value
        return IncompatibleKeys(missing, unexpected)

    # --- text

    def extra_repr(self):
        """The options that `repr` shows in the parentheses."""
        return ""

    def __repr__(self):
        extra = self.extra_repr()
        children = [f"({name}): {module!r}".replace("\n", "\n  ") for name, module in self.named_children()]
        if not children:
            return f"{type(self).__name__}({extra})"
        return f"{type(self).__name__}(\n  " + "\n  ".join([extra] * bool(extra) + children) + "\n)"


def _numbers(key, value, dtype):
    """`value` as an array of numbers that converts to `dtype` and keeps its meaning."""
    try:
        array = np.asarray(value)
    except Exception as error:  # foreign array types raise what they like: a tensor that requires grad, a RuntimeError
        raise ArgumentTypeError(f"state_dict[{key!r}] cannot become a NumPy array: {error}") from error
    if array.dtype.kind not in ("iu" if dtype.kind == "i" else "iuf"):
        raise ArgumentTypeError(f"state_dict[{key!r}] must hold numbers that fit {dtype}, got {array.dtype}")
    return array
