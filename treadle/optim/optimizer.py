"""What all optimizers share: groups of parameters, state, and a step that is taken whole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import ShapeError
from treadle.base.flags import flags
from treadle.base.record import Record
from treadle.compiler.tier0 import force
from treadle.ir.call import call_template
from treadle.ir.node import (
    Leaf,
    Node,
    Recording,
    Replaced,
    Type,
    located,
    recorder,
    type_of,
    user_site,
)
from treadle.ops.elementwise import neg
from treadle.ops.movement import expand, zeros_of
from treadle.ops.source import number
from treadle.optim.hooks import HOOKS, HookedOptimizer
from treadle.tensor.arithmetic import cast
from treadle.tensor.composed import MISSING, Templates, capture
from treadle.tensor.grad_mode import enable_grad, no_grad
from treadle.tensor.handle import Handle, commit, commitment, wrap
from treadle.tensor.memory import register_owner
from treadle.tensor.tensor import Tensor

Group = dict[str, Any]
State = dict[str, Any]


def check(name: str, **limits: tuple[Any, bool, str]) -> None:
    """ValueError for the first setting that is not as it must be: (value, is fine, rule)."""
    for setting, (value, is_fine, rule) in limits.items():
        if not is_fine:
            raise located(ValueError(f"{name}: got {setting}={value}; it must {rule}"))


def not_negative(value: float) -> tuple[float, bool, str]:
    """For ``check``."""
    return value, value >= 0, "not be negative"


def refused(differentiable: bool) -> tuple[bool, bool, str]:
    """For ``check``: steps that are differentiated themselves are not there."""
    return (
        differentiable,
        not differentiable,
        ("be False: steps are not differentiated; write such an update as tensor operations"),
    )


def fraction(value: float) -> tuple[float, bool, str]:
    """For ``check``: at least 0 and less than 1."""
    return value, 0 <= value < 1, "be at least 0 and less than 1"


def wide(dtype: DType) -> DType:
    """The dtype that a step is computed in and its state is kept in: f32 for 16-bit floats."""
    return dtypes.float32 if dtype.bits == 16 else dtype


class _Job(Record):
    """One parameter's part of a step."""

    p: Tensor
    state: State
    names: tuple[str, ...]  # of its state's tensors
    group: int
    numbers: int  # which of the step's rows of numbers it takes


_templates = Templates()


class Step:
    """New values for parameters and state, recorded as one call but not yet taken over.

    ``take`` evaluates all of them first: an error, Ctrl-C or lack of memory changes nothing.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.groups = optimizer.param_groups
        self.jobs: list[_Job] = []
        self.inputs: list[Node] = []
        self.rows: dict[tuple[Any, ...], int] = {}  # (numbers, dtype) -> its number
        for position, group in enumerate(self.groups):
            self._add(position, group)

    def _add(self, position: int, group: Group) -> None:
        optimizer, inputs, rows = self.optimizer, self.inputs, self.rows
        numbers: dict[int, tuple[float, ...]] = {}  # by the number of a parameter's step
        for p in group["params"]:
            gradient = p._grad
            if gradient is None:
                continue
            state = optimizer.state[p]
            optimizer._begin(group, p, state)
            value = p._node if p._base is None else p.node
            inputs.append(value)
            inputs.append(gradient.node)
            names = []
            for name, x in state.items():
                if isinstance(x, Handle):
                    names.append(name)
                    inputs.append(x.node)
            count = state.get("step", 0) + 1
            known = numbers.get(count)
            if known is None:
                known = numbers[count] = optimizer._numbers(group, count)
            row = rows.setdefault((known, wide(value.type.dtype)), len(rows))
            self.jobs.append(_Job(p, state, tuple(names), position, row))

    def record(self, state: Recording) -> list[list[Node]]:
        """The nodes of every job's new values: the parameter's, then its state's."""
        inputs = self.inputs
        if state.tracer is not None:
            return self._record(inputs, state.tracer.step_numbers(self))[1]
        scalars = [number(x, dtype) for row, dtype in self.rows for x in row]
        if state.capturing or flags.PROGRAMS == "off":
            return self._record(inputs, scalars)[1]
        key: list[Any] = [type(self.optimizer)]
        key += [job[2:] for job in self.jobs]
        key += [_kind(group, self.optimizer.structural) for group in self.groups]
        key += [len(row) for row, _ in self.rows]
        key += [n.type for n in inputs]
        if len(set(inputs)) < len(inputs):
            key.append(tuple(map(inputs.index, inputs)))  # which are the same
        whole = tuple(key)
        known = _templates.find(whole)
        if known is None:
            return self._record(inputs, scalars)[1]
        if known is MISSING:
            scalars = [s.twin() for s in scalars]  # or they would look like constants
            (names, values), known = capture(
                state, lambda: self._record(inputs, scalars), [*inputs, *scalars],
                lambda result: [n for nodes in result[1] for n in nodes],
            )  # fmt: skip
            if known is not None:
                made = list(dict.fromkeys(n for nodes in values for n in nodes))
                places = {n: place for place, n in enumerate(made)}
                known = known._replace(extra=(names, [[places[n] for n in row] for row in values]))
            _templates.put(whole, known)
            if known is None:
                self.names = names
                return values
        template, constants, (self.names, rows) = known
        outs = call_template(template, constants, (*inputs, *scalars), state, state.site, None)
        return [[outs[i] for i in row] for row in rows]

    def _record(
        self, inputs: Sequence[Node], scalars: Sequence[Node]
    ) -> tuple[list[tuple[str, ...]], list[list[Node]]]:
        """Records the step node by node: the names of every job's state, and the new values."""
        rows: list[Sequence[Node]] = []
        for values, _ in self.rows:
            rows.append(scalars[: len(values)])
            scalars = scalars[len(values) :]
        spread: dict[tuple[int, Type], list[Node]] = {}
        self.names = []
        results = []
        sources = iter(inputs)
        for job in self.jobs:
            group = self.groups[job.group]
            value, g = next(sources), next(sources)
            kind = type_of(wide(value.dtype), value.shape)
            numbers = spread.get((job.numbers, kind))
            if numbers is None:
                numbers = list(rows[job.numbers])
                if self.optimizer.spreads_numbers:
                    numbers = [expand(n, shape=kind.shape) for n in numbers]
                spread[job.numbers, kind] = numbers
            old, slope = cast(value, kind.dtype), cast(g, kind.dtype)
            if group["maximize"]:
                slope = neg(slope)
            nodes = {name: next(sources) for name in job.names}
            new = cast(self.optimizer._update(group, old, slope, nodes, *numbers), value.dtype)
            self.names.append(tuple(nodes))
            results.append([new, *nodes.values()])
        return self.names, results

    def take(self, state: Recording) -> None:
        """Evaluates everything, then re-points all handles at once."""
        values = self.record(state)
        handles: list[Tensor] = []
        nodes: list[Node] = []
        views: list[tuple[Tensor, Node]] = []
        entries: list[tuple[State, str, Any]] = []
        for job, names, (value, *rest) in zip(self.jobs, self.names, values, strict=True):
            if job.p._base is None:
                handles.append(job.p)
                nodes.append(value)
            else:
                views.append((job.p, value))  # a view writes into what it shows
            for name, n in zip(names, rest, strict=True):
                known = job.state.get(name)
                if known is None:
                    entries.append((job.state, name, wrap(n)))
                else:
                    handles.append(known)
                    nodes.append(n)
            if self.optimizer.counts_steps:
                entries.append((job.state, "step", job.state.get("step", 0) + 1))
        self.inputs.clear()  # or they would count as held
        olds = frozenset([handle._node for handle in handles])
        if not views and all(type(n) is Leaf or not n.needs_grad for n in olds):
            moves = partial(commitment, handles, nodes, entries)
            state.replaced = Replaced(olds, nodes, moves)
        try:
            if state.tracer is None:
                force([n for nodes in values for n in nodes])
        finally:
            replaced, state.replaced = state.replaced, None
        if replaced is not None and replaced.is_done:
            return
        commit(handles, nodes, entries)
        for handle, n in views:
            handle._write(n)


def _kind(group: Group, structural: tuple[str, ...]) -> tuple[Any, ...]:
    """What the shape of a step depends on in a group's settings: of numbers, whether they are 0."""
    return tuple([
        (name, bool(x) if isinstance(x, (int, float, tuple)) and name not in structural else x)
        for name, x in group.items() if name != "params"
    ])  # fmt: skip


class Optimizer(HookedOptimizer):
    """Base of the optimizers; subclasses define ``_begin``, ``_numbers`` and ``_update``.

    ``params`` is an iterable of tensors, or of dictionaries ``{"params": [...], "lr": ...}`` whose
    settings differ from the defaults. ``param_groups`` holds the settings, which may be changed
    between steps, ``state`` what is remembered of each parameter.
    """

    counts_steps = False  # whether ``state["step"]`` counts a parameter's steps
    spreads_numbers = True  # whether ``_update`` gets its numbers in the shape of the parameter
    structural: tuple[str, ...] = ()  # settings whose values change what ``_update`` records

    def __init__(self, params: Iterable[Any], defaults: Group) -> None:
        self.defaults = defaults
        self.state: dict[Tensor, State] = defaultdict(dict)
        self.param_groups: list[Group] = []
        self._hooks: dict[str, dict[int, Any]] = {name: {} for name in HOOKS}
        if isinstance(params, Handle):
            raise located(TypeError(
                f"{type(self).__name__}: got a tensor for params; it takes an iterable of tensors "
                f"or of dictionaries; write [tensor]"
            ))  # fmt: skip
        groups = list(params)
        if not groups:
            raise located(ValueError(
                f"{type(self).__name__}: got no parameters; was model.parameters() used up, or is "
                f"a module missing its nn.Parameter?"
            ))  # fmt: skip
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def add_param_group(self, param_group: Group) -> None:
        """Adds a dictionary with ``params`` and the settings that differ from the defaults."""
        name = type(self).__name__
        if not isinstance(param_group, dict) or "params" not in param_group:
            raise located(TypeError(
                f"{name}: got {type(param_group).__name__} for a parameter group; it is a "
                f"dictionary with the key 'params'"
            ))  # fmt: skip
        given = param_group["params"]
        params = [given] if isinstance(given, Handle) else list(given)
        known = {id(p) for group in self.param_groups for p in group["params"]}
        for position, p in enumerate(params):
            if not isinstance(p, Tensor):
                raise located(TypeError(
                    f"{name}: got a {type(p).__name__} as parameter {position}; it takes tensors"
                ))  # fmt: skip
            if not p.is_leaf:
                raise located(ValueError(
                    f"{name}: got a tensor of shape {tuple(p.shape)} that was computed from others "
                    f"as parameter {position}; it takes leaves: nn.Parameter, or .detach()"
                ))  # fmt: skip
            if id(p) in known:
                raise located(ValueError(
                    f"{name}: got parameter {position} (shape {tuple(p.shape)}) twice; a parameter "
                    f"belongs to one group only"
                ))  # fmt: skip
            known.add(id(p))
        group = {**self.defaults, **param_group, "params": params}
        if isinstance(group.get("lr"), Tensor):
            group["lr"] = group["lr"].item()
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients of all parameters, or sets them to zero."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p._grad = None
                elif p._grad is not None:
                    p._grad.detach_().zero_()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Changes the parameters by their gradients; parameters without one stay.

        All new values are computed before the first parameter changes. ``closure`` computes the
        loss and its gradients anew; what it returns is returned.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        state = recorder.state
        site, grad_enabled = state.site, state.grad_enabled
        # Not `with no_grad()`: Ctrl-C on entering its __exit__ would leave gradients off.
        try:
            state.site = site or user_site()  # looked up once for the whole step
            state.grad_enabled = False
            step = Step(self)
            if step.jobs:
                step.take(state)
        finally:
            state.site, state.grad_enabled = site, grad_enabled
        return loss

    def _begin(self, group: Group, p: Tensor, state: State) -> None:
        """Adds what is missing in the state of a parameter before its step."""

    def _numbers(self, group: Group, step: int) -> tuple[float, ...]:
        """The numbers of step ``step`` (1 is the first), which ``_update`` gets as nodes."""
        raise NotImplementedError(f"{type(self).__name__} has no _numbers()")

    def _update(
        self, group: Group, value: Node, g: Node, state: dict[str, Node], *numbers: Node
    ) -> Node:
        """Records the new value of a parameter and puts that of its state into ``state``.

        What is recorded may depend on the settings only by whether they are 0 (or True), since it
        is recorded once and then repeated.
        """
        raise NotImplementedError(f"{type(self).__name__} has no _update()")

    def _zeros(self, p: Tensor) -> Tensor:
        """A state tensor of zeros for a parameter."""
        return wrap(zeros_of(type_of(wide(p.dtype), tuple(p.shape))))

    # --- state -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """State and settings, parameters being replaced by their numbers."""
        self._call_hooks("before_saving")
        numbers: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for p in group["params"]:
                numbers[id(p)] = len(numbers)
            packed = {key: value for key, value in group.items() if key != "params"}
            groups.append({**packed, "params": [numbers[id(p)] for p in group["params"]]})
        # Empty where Ctrl-C came before the parameter's first step.
        state = {numbers[id(p)]: dict(s) for p, s in self.state.items() if s and id(p) in numbers}
        return self._changed("after_saving", {"state": state, "param_groups": groups})

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over what ``state_dict`` gave, for as many parameters in as many groups."""
        state_dict = self._changed("before_loading", dict(state_dict))
        saved = state_dict["param_groups"]
        here = [len(group["params"]) for group in self.param_groups]
        there = [len(group["params"]) for group in saved]
        if here != there:
            raise located(ValueError(
                f"load_state_dict: got groups of {there} parameters; this optimizer has groups of "
                f"{here}"
            ))  # fmt: skip
        state: dict[Tensor, State] = defaultdict(dict)
        for group, old in zip(self.param_groups, saved, strict=True):
            for p, label in zip(group["params"], old["params"], strict=True):
                if label in state_dict["state"]:
                    state[p] = {
                        key: self._loaded(key, value, p)
                        for key, value in state_dict["state"][label].items()
                    }
        self.state = state
        self.param_groups = [
            {**group, **old, "params": group["params"]}
            for group, old in zip(self.param_groups, saved, strict=True)
        ]
        self._call_hooks("after_loading")

    def _loaded(self, key: str, value: Any, p: Tensor) -> Any:
        """A saved value as this optimizer keeps it; the tensor is its own from now on."""
        if not isinstance(value, Tensor):
            return value
        if key == "step":
            return int(value.item())
        wanted = self._state_shape(key, p)
        if tuple(value.shape) != wanted:
            raise located(ShapeError(
                f"load_state_dict: got {key} of shape {tuple(value.shape)} for a parameter of "
                f"shape {tuple(p.shape)}; it must be {wanted}"
            ))  # fmt: skip
        with no_grad():
            return wrap(cast(value.detach().node, wide(p.dtype)))

    def _state_shape(self, key: str, p: Tensor) -> tuple[int, ...]:
        """The shape of a parameter's state of that name."""
        return tuple(p.shape)

    def __repr__(self) -> str:
        lines = []
        for position, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {position}\n")
            for key in sorted(group):
                if key != "params":
                    lines.append(f"    {key}: {group[key]}\n")
        return f"{type(self).__name__} (\n{''.join(lines)})"


def _state_tensors(optimizer: Optimizer) -> list[Tensor]:
    states = list(optimizer.state.values())
    return [value for state in states for value in state.values() if isinstance(value, Tensor)]


register_owner("optimizer state", Optimizer, _state_tensors)


__all__ = ["Group", "Optimizer", "State", "check", "fraction", "not_negative", "wide"]
