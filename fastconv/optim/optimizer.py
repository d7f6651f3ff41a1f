"""What every optimizer is: groups of parameters with options, state for each parameter, and steps that kernels do."""

from collections.abc import Mapping

import numpy as np

from fastconv.errors import ArgumentError, ArgumentTypeError
from fastconv.nn.module import Module
from fastconv.nn.parameter import Parameter
from fastconv.optim.layout import Layout


class Optimizer:
    """Base class of the optimizers.

    A subclass writes `_check(options)`, which normalises the options of a group, `_arrays(group)`, the names of the arrays of a parameter's
    state in the order in which the kernel takes them, `_numbers(group, row)`, the kernel's numbers for one parameter, a `Row`, as a tuple,
    and `_launch(group, size, *arguments)`, which calls the kernel for parameters of `size` numbers in all. Where it `_counts`, "step" in
    the state is the number of steps before this one.

    Parameters
    ----------
    params : iterable of Parameter, or of dicts
        A dict is a group: {"params": [...], "lr": ...}; options it leaves out are those given to the optimizer.

    Attributes
    ----------
    param_groups : list of dict
        May be changed between steps: ``optimizer.param_groups[0]["lr"] = 0.01``.
    state : dict of Parameter to dict
        Flat arrays and the number of steps.
    """

    _counts = False

    def __init__(self, params, defaults):
        self.defaults = self._check(dict(defaults))
        self.param_groups = []
        self.state = {}
        self._layouts = []  # of each group, at the last step
        if isinstance(params, (Parameter, Module, Mapping, np.ndarray, str)):
            raise ArgumentTypeError(f"params must be an iterable of Parameters or of dicts, got {type(params).__name__}")
        params = list(params)
        if not params:
            raise ArgumentError("params must hold at least one Parameter, got none")
        for group in params if isinstance(params[0], Mapping) else [{"params": params}]:
            self.add_param_group(group)

    def _check(self, options):
        raise NotImplementedError

    def _arrays(self, group):
        raise NotImplementedError

    def _numbers(self, group, row):
        raise NotImplementedError

    def _launch(self, group, size, *arguments):
        raise NotImplementedError

    def add_param_group(self, group):
        """Let the optimizer change further parameters: {"params": [...], and options that differ}."""
        if not isinstance(group, Mapping) or "params" not in group:
            raise ArgumentTypeError(f'a parameter group must be a dict with "params", got {type(group).__name__}')
        params = [group["params"]] if isinstance(group["params"], Parameter) else list(group["params"])
        known = {id(p) for other in self.param_groups for p in other["params"]}
        for parameter in params:
            if not isinstance(parameter, Parameter):
                raise ArgumentTypeError(f"params must be Parameters, got {type(parameter).__name__}")
            if id(parameter) in known:
                raise ArgumentError(f"a Parameter of shape {parameter.shape} comes twice in params")
            known.add(id(parameter))
        options = {name: value for name, value in group.items() if name != "params"}
        unknown = [name for name in options if name not in self.defaults]
        if unknown:
            raise ArgumentError(f"{type(self).__name__} has no option {', '.join(unknown)}; it has {', '.join(self.defaults)}")
        self.param_groups.append({"params": params, **self._check({**self.defaults, **options})})

    @property
    def lr(self):
        """The learning rate of the first group; assigning sets all groups'."""
        return self.param_groups[0]["lr"]

    @lr.setter
    def lr(self, value):
        for group in self.param_groups:
            group["lr"] = self._check({**group, "lr": value})["lr"]

    def zero_grad(self, set_to_none=True):
        """Clear the gradients of all parameters."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.zero_grad(set_to_none)

    def step(self):
        """Change every parameter that has a gradient.

        Raises
        ------
        ValueError, TypeError
            When a gradient or the optimizer's state does not fit its parameter.
        """
        layouts, taken = [], []
        for number, group in enumerate(self.param_groups):  # all is checked before anything is changed
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            names, layout = self._arrays(group), self._layouts[number] if number < len(self._layouts) else None
            if layout is None or not layout.is_of(names, parameters, self.state):
                layout = Layout(names, parameters, self.state)
            layouts.append((layout, parameters))
            taken.append(layout.take([parameter.grad for parameter in parameters]))  # held until kernels are done with them
        for group, (layout, parameters) in zip(self.param_groups, layouts, strict=True):
            for table in layout.tables:
                numbers = table.numbers([self._numbers(group, row) for row in table.rows])
                self._launch(group, table.size, table.like, table.places, numbers, table.jobs)
            self._note(layout, parameters)
        self._layouts = [layout for layout, _ in layouts]

    def _note(self, layout, parameters):
        """Let the state be that after a step."""
        if layout.is_fresh:
            for parameter, row in zip(parameters, layout.rows, strict=True):
                row.state.update(row.named)
                self.state[parameter], row.new = row.state, False
            layout.is_fresh = False
        if self._counts:
            for row in layout.rows:
                row.state["step"] = row.state.get("step", 0) + 1

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "_layouts"}

    def __setstate__(self, state):
        vars(self).update(state, _layouts=[])  # a copy's arrays lie elsewhere

    def state_dict(self):
        """Return everything that `load_state_dict` needs to go on from here, in PyTorch's form.

        Returns
        -------
        dict
            "state": parameter number to dict of its number of steps and copies of its arrays; "param_groups": the groups' options,
            with parameter numbers in place of parameters.
        """
        numbers, groups = {}, []
        for group in self.param_groups:
            for parameter in group["params"]:
                numbers[parameter] = len(numbers)
            groups.append({**group, "params": [numbers[p] for p in group["params"]]})
        state = {
            numbers[parameter]: {name: v.reshape(parameter.shape).copy() if isinstance(v, np.ndarray) else v for name, v in entry.items()}
            for parameter, entry in self.state.items()
        }
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict):
        """Go on from where `state_dict` was taken; nothing is changed unless everything fits.

        Raises
        ------
        ValueError, TypeError
            When the groups, their sizes or the shapes of arrays differ.
        """
        if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
            raise ArgumentTypeError('state_dict must be a dict with "state" and "param_groups"')
        groups = state_dict["param_groups"]
        sizes, own_sizes = [len(g["params"]) for g in groups], [len(g["params"]) for g in self.param_groups]
        if sizes != own_sizes:
            raise ArgumentError(f"state_dict must have groups of {own_sizes} parameters, got {sizes}")
        options = [self._check({name: group.get(name, default) for name, default in self.defaults.items()}) for group in groups]
        parameters = {
            number: parameter
            for group, own in zip(groups, self.param_groups, strict=True)
            for number, parameter in zip(group["params"], own["params"], strict=True)
        }
        state = {}
        for number, entry in state_dict["state"].items():
            if number not in parameters:
                raise ArgumentError(f"state_dict has state of a parameter {number} that is in none of its groups")
            state[parameters[number]] = {name: _restored(name, value, parameters[number]) for name, value in entry.items()}
        for own, group, checked in zip(self.param_groups, groups, options, strict=True):
            own.update(checked, **{"initial_lr": group["initial_lr"]} if "initial_lr" in group else {})
        self.state = state

    def __repr__(self):
        groups = (
            f"{len(group['params'])} parameters" + "".join(f", {name}={value}" for name, value in group.items() if name != "params")
            for group in self.param_groups
        )
        return f"{type(self).__name__}({'; '.join(groups)})"


def _restored(name, value, parameter):
    """A number as it is; an array flat, of the parameter's dtype and as a copy."""
    if not isinstance(value, np.ndarray) or value.ndim == 0:
        return value if value is None else int(value)
    if value.shape != parameter.shape:
        raise ArgumentError(f"{name} must have its parameter's shape {parameter.shape}, got {value.shape}")
    return value.astype(parameter.dtype).reshape(-1)
