"""What all optimizers share: groups of parameters, state, and a step that is taken whole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import ShapeError
from treadle.compiler.tier0 import force
from treadle.ir.node import Node, Type, located, recorder, type_of, user_site
from treadle.ops.elementwise import neg
from treadle.ops.movement import expand, zeros_of
from treadle.ops.source import number
from treadle.tensor.arithmetic import cast
from treadle.tensor.grad_mode import enable_grad, no_grad
from treadle.tensor.handle import Handle, commit, wrap
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


def fraction(value: float) -> tuple[float, bool, str]:
    """For ``check``: at least 0 and less than 1."""
    return value, 0 <= value < 1, "be at least 0 and less than 1"


def wide(dtype: DType) -> DType:
    """The dtype that a step is computed in and its state is kept in: f32 for 16-bit floats."""
    return dtypes.float32 if dtype.bits == 16 else dtype


class Step:
    """New values for parameters and state, recorded but not yet taken over.

    ``take`` evaluates all of them first: an error, Ctrl-C or lack of memory changes nothing.
    """

    def __init__(self) -> None:
        self.handles: list[Tensor] = []
        self.nodes: list[Node] = []
        self.counted: list[State] = []
        self.created: list[tuple[State, str, Node]] = []
        self._spread: dict[tuple[Any, ...], tuple[Node, ...]] = {}

    def set(self, handle: Tensor, node: Node) -> None:
        """``handle`` is to have this value."""
        self.handles.append(handle)
        self.nodes.append(node)

    def create(self, state: State, key: str, node: Node) -> None:
        """``state[key]`` is to become a tensor with this value."""
        self.created.append((state, key, node))

    def count(self, state: State) -> int:
        """The number of this step for one parameter, 1 for the first."""
        self.counted.append(state)
        return int(state["step"]) + 1

    def spread(self, kind: Type, *values: float) -> tuple[Node, ...]:
        """Numbers in that shape and dtype, made once for all parameters that share it."""
        key = (kind, values)
        known = self._spread.get(key)
        if known is None:
            known = self._spread[key] = tuple(
                expand(number(value, kind.dtype), shape=kind.shape) for value in values
            )
        return known

    def take(self) -> None:
        """Evaluates everything, then re-points all handles at once."""
        nodes = [
            cast(node, handle.node.dtype)
            for handle, node in zip(self.handles, self.nodes, strict=True)
        ]
        force([*nodes, *(node for _, _, node in self.created)])
        plain = [(h, n) for h, n in zip(self.handles, nodes, strict=True) if h._base is None]
        entries = [(state, "step", state["step"] + 1) for state in self.counted]
        entries += [(state, key, wrap(node)) for state, key, node in self.created]
        commit([h for h, _ in plain], [n for _, n in plain], entries)
        for handle, node in zip(self.handles, nodes, strict=True):
            if handle._base is not None:
                handle._write(node)  # a view writes into what it shows


class Optimizer:
    """Base of the optimizers; subclasses define ``_record``.

    ``params`` is an iterable of tensors, or of dictionaries ``{"params": [...], "lr": ...}`` whose
    settings differ from the defaults. ``param_groups`` holds the settings, which may be changed
    between steps, ``state`` what is remembered of each parameter.
    """

    def __init__(self, params: Iterable[Any], defaults: Group) -> None:
        self.defaults = defaults
        self.state: dict[Tensor, State] = defaultdict(dict)
        self.param_groups: list[Group] = []
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
        self.param_groups.append({**self.defaults, **param_group, "params": params})

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
        step = Step()
        state = recorder.state
        site, grad_enabled = state.site, state.grad_enabled
        # Not `with no_grad()`: Ctrl-C on entering its __exit__ would leave gradients off.
        try:
            state.site = site or user_site()  # looked up once for the whole step
            state.grad_enabled = False
            for group in self.param_groups:
                with_gradient = [p for p in group["params"] if p._grad is not None]
                if with_gradient:
                    self._record(group, with_gradient, step)
            step.take()
        finally:
            state.site, state.grad_enabled = site, grad_enabled
        return loss

    def _record(self, group: Group, params: list[Tensor], step: Step) -> None:
        """Records the new values of these parameters and of their state in ``step``."""
        raise NotImplementedError(f"{type(self).__name__} has no _record()")

    def _zeros(self, p: Tensor) -> Tensor:
        """A state tensor of zeros for a parameter."""
        return wrap(zeros_of(type_of(wide(p.dtype), tuple(p.shape))))

    # --- state -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """State and settings, parameters being replaced by their numbers."""
        numbers: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for p in group["params"]:
                numbers[id(p)] = len(numbers)
            packed = {key: value for key, value in group.items() if key != "params"}
            groups.append({**packed, "params": [numbers[id(p)] for p in group["params"]]})
        # Empty where Ctrl-C came before the parameter's first step.
        state = {numbers[id(p)]: dict(s) for p, s in self.state.items() if s and id(p) in numbers}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over what ``state_dict`` gave, for as many parameters in as many groups."""
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
                        key: _loaded(key, value, p)
                        for key, value in state_dict["state"][label].items()
                    }
        self.state = state
        self.param_groups = [
            {**group, **old, "params": group["params"]}
            for group, old in zip(self.param_groups, saved, strict=True)
        ]

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


def _loaded(key: str, value: Any, p: Tensor) -> Any:
    """A saved value as this optimizer keeps it; the tensor is its own from now on."""
    if not isinstance(value, Tensor):
        return value
    if key == "step":
        return int(value.item())
    if tuple(value.shape) != tuple(p.shape):
        raise located(ShapeError(
            f"load_state_dict: got {key} of shape {tuple(value.shape)} for a parameter of shape "
            f"{tuple(p.shape)}; they must be equal"
        ))  # fmt: skip
    with no_grad():
        return wrap(cast(value.detach().node, wide(p.dtype)))


def operands(p: Tensor, maximize: bool) -> tuple[Node, Node]:
    """The values of a parameter and of its gradient, which is negated to maximize."""
    gradient: Any = p._grad
    kind = wide(p.dtype)
    value, slope = cast(p.node, kind), cast(gradient.node, kind)
    return value, neg(slope) if maximize else slope


__all__ = [
    "Group", "Optimizer", "State", "Step", "check", "fraction", "not_negative", "operands", "wide",
]  # fmt: skip
