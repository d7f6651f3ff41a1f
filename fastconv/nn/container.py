"""Modules made of modules: one after the other, and side by side."""

import contextlib
from collections.abc import Mapping

from fastconv.errors import ArgumentError, ArgumentTypeError, FastconvError
from fastconv.functional.activation import add
from fastconv.functional.arrays import check_shape
from fastconv.nn import fused, replay
from fastconv.nn.activation import ReLU
from fastconv.nn.module import Module
from fastconv.nn.normalization import BatchNorm2d
from fastconv.nn.parameter import Parameter
from fastconv.nn.recording import recording


def refuse_repeats(container):
    """Raise when one module stands in two places: it would remember only the later of its forward passes."""
    names = {}
    for name, module in container.named_modules(remove_duplicate=False):
        if id(module) in names:
            raise ArgumentError(
                f"{name} is the same {type(module).__name__} as {names[id(module)]}: a module remembers one forward pass, "
                "so every place in a network needs its own"
            )
        names[id(module)] = name


def _has_parameters(module):
    values = vars(module)
    if isinstance(values.get("weight"), Parameter):
        return True
    return any(isinstance(v, Parameter) or (isinstance(v, Module) and _has_parameters(v)) for v in values.values())


class Sequential(Module):
    """Modules applied one after the other.

    Parameters
    ----------
    *modules : Module
        Named "0", "1", ...; or a single dict of str to Module, which names them.

    Raises
    ------
    ValueError, TypeError
        When an argument is no Module, or the same module comes twice.

    Examples
    --------
    >>> from fastconv import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> list(model.state_dict())
    ['1.weight', '1.bias']
    """

    def __init__(self, *modules):
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named = modules[0].items()
        else:
            named = ((str(i), module) for i, module in enumerate(modules))
        for name, module in named:
            self.add_module(name, module)
        refuse_repeats(self)

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if name != "_saved":
            vars(self).pop("_plan", None)

    def __delattr__(self, name):
        super().__delattr__(name)
        vars(self).pop("_plan", None)

    def _planned(self):
        """(layers, the `fused.plan` of them), made again when one is exchanged."""
        if "_plan" not in vars(self):
            layers = tuple(self.children())
            vars(self)["_plan"] = layers, fused.plan(layers)
        return vars(self)["_plan"]

    def __getstate__(self):
        return {name: value for name, value in super().__getstate__().items() if name != "_plan"}

    def __call__(self, *inputs):
        if len(inputs) == 1 and recording():
            output = replay.forward(self, *inputs)
            if output is not None:
                return output
        return super().__call__(*inputs)

    def forward(self, input):
        return self._forward(input, *self._planned())

    def _forward(self, input, layers, candidates):
        i = 0
        try:
            while i < len(layers):
                input, count = fused.forward(layers[i], candidates[i], input)
                i += count
        except FastconvError as error:
            self._locate(error, layers[i])
            raise
        return input

    def backward(self, grad_output):
        return self._backward(grad_output, *self._planned())

    def backward_parameters(self, grad_output):
        if replay.backward_parameters(self, grad_output):
            return
        layers, candidates = self._planned()
        first = next((i for i, layer in enumerate(layers) if _has_parameters(layer)), len(layers))
        self._backward(grad_output, layers[first:], candidates[first:], input_gradient=False, last=True)
        for layer in layers[:first]:
            layer.forget()
        replay.count(self)

    def _backward(self, grad_output, layers, candidates, input_gradient=True, last=False):
        left, own = len(layers), False
        try:
            while left:
                given = grad_output
                if last and type(layers[left - 1]) in _CONTAINERS and (input_gradient or left > 1):
                    grad_output, count = _last_backward(layers[left - 1], grad_output), 1
                else:
                    grad_output, count = fused.backward(layers, candidates, left, grad_output, input_gradient, own)
                left -= count
                own = fused.is_own(layers[left], grad_output, given, own)
                if last:
                    for layer in layers[left : left + count]:
                        layer.forget()
        except FastconvError as error:
            self._locate(error, layers[left - 1])
            raise
        return grad_output

    def _before_last(self, input):
        """`forward` of all modules but the last."""
        layers, candidates = self._planned()
        return self._forward(input, layers[:-1], candidates[:-1])

    @contextlib.contextmanager
    def _locating(self, layer):
        """An error says that it happened in `layer`."""
        try:
            yield
        except FastconvError as error:
            self._locate(error, layer)
            raise

    def _locate(self, error, layer):
        name = next(name for name, child in self.named_children() if child is layer)
        error.add_note(f"in layer {name} of {type(self).__name__}: {type(layer).__name__}({layer.extra_repr()})")

    def append(self, module):
        """Add `module` at the end, named by its position; return self."""
        name = str(len(self))
        if hasattr(self, name):
            raise ArgumentError(f"cannot name a module {name}, by its position: there is one of that name already")
        self.add_module(name, module)
        try:
            refuse_repeats(self)
        except ArgumentError:
            delattr(self, name)
            raise
        return self

    def _name(self, index):
        names = [name for name, _ in self.named_children()]
        try:
            return names[index]
        except IndexError:
            raise IndexError(f"index {index} is out of range for {len(names)} modules") from None
        except TypeError:
            raise ArgumentTypeError(f"index must be an integer or a slice, got {index!r}") from None

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Sequential(dict(list(self.named_children())[index]))
        return getattr(self, self._name(index))

    def __setitem__(self, index, module):
        name = self._name(index)
        old = getattr(self, name)
        self.add_module(name, module)
        try:
            refuse_repeats(self)
        except ArgumentError:
            setattr(self, name, old)
            raise

    def __len__(self):
        return sum(1 for _ in self.children())

    def __iter__(self):
        return self.children()


class Residual(Module):
    """Two paths side by side, added: activation(main(input) + shortcut(input)).

    Parameters
    ----------
    main : Module
    shortcut : Module, optional
        Without it the input itself is added.
    activation : Module, optional
        Applied to the sum.

    Raises
    ------
    ValueError, TypeError
        When an argument is no Module or the same module comes twice; in forward, when the paths give different shapes.

    Notes
    -----
    The gradient of the input is the sum of both paths' gradients.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", 2016, section 3.2.
    """

    def __init__(self, main, shortcut=None, activation=None):
        for name, module in (("main", main), ("shortcut", shortcut), ("activation", activation)):
            if module is not None or name == "main":
                if not isinstance(module, Module):
                    raise ArgumentTypeError(f"{name} must be a Module, got {type(module).__name__}")
            setattr(self, name, module)
        refuse_repeats(self)

    def forward(self, input):
        norm = self._norm()
        main = self.main.forward(input) if norm is None else self.main._before_last(input)
        shortcut = input if self.shortcut is None else self.shortcut.forward(input)
        if main.shape != shortcut.shape:
            raise ArgumentError(f"main and shortcut must give the same shape, got {main.shape} and {shortcut.shape}")
        if norm is not None:
            with self.main._locating(norm):
                output = norm.forward_sum_relu(main, shortcut)
            self.activation.remember(output)
            return output
        if type(self.activation) is ReLU and fused.as_they_are((vars(self.activation),), "forward"):
            output = add(main, shortcut, relu=True)
            self.activation.remember(output)
            return output
        output = add(main, shortcut)
        return output if self.activation is None else self.activation.forward(output)

    def _norm(self):
        """The BatchNorm2d at the end of main whose pass takes the sum and ReLU along, or None."""
        if type(self.activation) is not ReLU or type(self.main) is not Sequential or not len(self.main):
            return None
        last = self.main._planned()[0][-1]
        attributes = vars(self.main), vars(last), vars(self.activation)
        return last if type(last) is BatchNorm2d and fused.as_they_are(attributes, "forward") else None

    def backward(self, grad_output):
        return self._backward(grad_output, lambda module, grad_output: module.backward(grad_output))

    def _backward(self, grad_output, backward):
        """Both paths' gradients added, each by backward(module, grad_output)."""
        if self.activation is not None:
            grad_output = backward(self.activation, grad_output)
        grad_main = backward(self.main, grad_output)
        grad_shortcut = grad_output if self.shortcut is None else backward(self.shortcut, grad_output)
        check_shape("grad_output", grad_shortcut, grad_main.shape)
        return add(grad_main, grad_shortcut)

    def backward_parameters(self, grad_output):
        if self.activation is not None:
            grad_output = _last_backward(self.activation, grad_output)
        for path in (self.main, self.shortcut):
            if path is not None and _has_parameters(path):
                path.backward_parameters(grad_output)
                path.forget()


_CONTAINERS = Sequential, Residual


def _last_backward(module, grad_output):
    """`backward` of a module that nobody will ask for gradients of this forward pass again: it gives up what it has remembered.

    What a module of the user's own, or a subclass, has inside keeps it: who knows how often it asks there.
    """
    if type(module) not in _CONTAINERS or not fused.as_they_are((vars(module),), "backward"):
        grad_input = module.backward(grad_output)
    elif type(module) is Sequential:
        grad_input = module._backward(grad_output, *module._planned(), last=True)
    else:
        grad_input = module._backward(grad_output, _last_backward)
    module.forget()
    return grad_input
