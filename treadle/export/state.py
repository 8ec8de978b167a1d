"""What a function keeps between its calls: found by looking at it, remembered, put back.

A step trains a model that it gets from its surroundings. ``find_state`` finds modules, optimizers
and tensors where a Python function can reach them: the module it is a method of, the variables of
enclosing functions, the global variables that it and the functions of the same user name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any

from treadle.base.record import Record
from treadle.ir.node import Node, is_internal
from treadle.nn.module import Module
from treadle.optim.optimizer import Optimizer
from treadle.optim.scheduler import LRScheduler
from treadle.random.generator import default_generator
from treadle.tensor.handle import Handle

_DEPTH = 6  # of containers and objects in each other
_FIELDS = ("_node", "_base", "_chain", "_version", "_grad")


class Place(Record):
    """Where a tensor of the state is found: its name, and how to get it now."""

    name: str
    get: Callable[[], Any]


class State:
    """Modules, optimizers and tensors by the names under which a function knows them."""

    def __init__(self) -> None:
        self.modules: dict[str, Module] = {}
        self.optimizers: dict[str, Optimizer] = {}
        self.tensors: dict[str, Handle] = {}

    def places(self) -> Iterator[Place]:
        """All tensors: of modules, then those that stand alone, then the optimizers' state."""
        for name, module in self.modules.items():
            for path, part in module.named_modules(prefix=name):
                for registry in (part._parameters, part._buffers):
                    for key, tensor in registry.items():
                        if tensor is not None:
                            yield Place(_join(path, key), _getter(registry, key))
        for name, handle in self.tensors.items():
            yield Place(name, lambda handle=handle: handle)  # type: ignore[misc]
        for name, optimizer in self.optimizers.items():
            for number, p in enumerate(self.parameters(optimizer)):
                for key, value in optimizer.state.get(p, {}).items():
                    if isinstance(value, Handle):
                        yield Place(f"{name}.{number}.{key}", _getter(optimizer.state[p], key))

    @staticmethod
    def parameters(optimizer: Optimizer) -> list[Any]:
        """The optimizer's parameters, in the order of its groups."""
        return [p for group in optimizer.param_groups for p in group["params"]]

    def trained(self) -> list[Any]:
        """All that may get a gradient: the parameters of modules and optimizers."""
        found: dict[int, Any] = {}
        for module in self.modules.values():
            found |= {id(p): p for p in module.parameters()}
        for optimizer in self.optimizers.values():
            found |= {id(p): p for p in self.parameters(optimizer)}
        return list(found.values())


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _getter(registry: Any, key: str) -> Callable[[], Any]:
    return lambda: registry.get(key)


def find_state(function: Any) -> State:
    """What ``function`` (a module, or a function) can reach."""
    state = State()
    seen: set[int] = set()
    if isinstance(function, Module):
        state.modules[""] = function
        return state
    if isinstance(function, MethodType):
        _look(state, "", function.__self__, seen, 0)
        function = function.__func__
    _look(state, "", function, seen, 0)
    return state


def _look(state: State, name: str, found: Any, seen: set[int], depth: int) -> None:
    if id(found) in seen or depth > _DEPTH:
        return
    seen.add(id(found))
    if isinstance(found, Module):
        if not any(found is m for root in state.modules.values() for m in root.modules()):
            state.modules[name] = found
    elif isinstance(found, Optimizer):
        state.optimizers[name or "optimizer"] = found
    elif isinstance(found, Handle):
        state.tensors[name] = found
    elif isinstance(found, LRScheduler):
        _look(state, _join(name, "optimizer"), found.optimizer, seen, depth + 1)
    elif isinstance(found, FunctionType):
        if _is_users_code(found.__code__):
            for key, value in _surroundings(found).items():
                _look(state, key, value, seen, depth + 1)
    elif isinstance(found, dict):
        for key, value in found.items():
            if isinstance(key, str):
                _look(state, _join(name, key), value, seen, depth + 1)
    elif isinstance(found, (list, tuple)):
        for number, value in enumerate(found):
            _look(state, _join(name, str(number)), value, seen, depth + 1)
    elif _is_users(found):
        for key, value in vars(found).items():
            _look(state, _join(name, key), value, seen, depth + 1)


def _is_users(found: Any) -> bool:
    """True for an instance of a class that a user's file defines."""
    if not hasattr(found, "__dict__") or isinstance(found, type) or inspect.ismodule(found):
        return False
    call = getattr(type(found), "__init__", None)
    code = getattr(call, "__code__", None)
    return code is not None and _is_users_code(code)


def _is_users_code(code: CodeType) -> bool:
    """False for Treadle, the standard library and installed packages; True for ``python -c``."""
    name = code.co_filename
    if is_internal(name) and name != "<string>":
        return False
    return "site-packages" not in name and not name.startswith((_STANDARD, "<frozen"))


_STANDARD = inspect.__file__.rpartition("inspect")[0]


def _surroundings(function: FunctionType) -> dict[str, Any]:
    """The variables that a function reads from outside, by name."""
    code = function.__code__
    found: dict[str, Any] = {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    for name in _global_names(code):
        if name in function.__globals__ and not inspect.ismodule(function.__globals__[name]):
            found.setdefault(name, function.__globals__[name])
    for number, value in enumerate(function.__defaults__ or ()):
        if isinstance(value, (Module, Optimizer, Handle)):
            found[
                code.co_varnames[code.co_argcount - len(function.__defaults__ or ()) + number]
            ] = value
    return found


def _global_names(code: CodeType) -> set[str]:
    """Names that a function's code, and that of functions written inside it, may look up."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _global_names(constant)
    return names


class Snapshot:
    """What the state is now; ``restore`` makes it so again."""

    def __init__(self, state: State) -> None:
        self.registries = [
            (registry, dict(registry))
            for module in state.modules.values()
            for part in module.modules()
            for registry in (part._parameters, part._buffers)
        ]
        handles = {id(h): h for p in state.places() if (h := p.get()) is not None}
        handles |= {id(p): p for p in state.trained()}
        handles |= {id(h._base): h._base for h in handles.values() if h._base is not None}
        self.handles = [(h, [getattr(h, f) for f in _FIELDS]) for h in handles.values()]
        self.optimizers = [
            (o, {p: dict(s) for p, s in o.state.items()}, [dict(g) for g in o.param_groups])
            for o in state.optimizers.values()
        ]
        self.random = default_generator._state

    def restore(self) -> None:
        """Puts everything back."""
        for registry, content in self.registries:
            registry.clear()
            registry.update(content)
        for handle, fields in self.handles:
            for name, value in zip(_FIELDS, fields, strict=True):
                setattr(handle, name, value)
        for optimizer, state, groups in self.optimizers:
            for p, entries in state.items():
                optimizer.state[p].clear()
                optimizer.state[p].update(entries)
            for p in [p for p in optimizer.state if p not in state]:
                del optimizer.state[p]
            for group, settings in zip(optimizer.param_groups, groups, strict=True):
                group.clear()
                group.update(settings)
        default_generator._state = self.random


def nodes_by_identity(state: State) -> dict[Node, str]:
    """The names of the nodes that the state's tensors stand for now; the first where several do."""
    found: dict[Node, str] = {}
    for place in state.places():
        found.setdefault(place.get().node, place.name)
    return found


__all__ = ["Place", "Snapshot", "State", "find_state", "nodes_by_identity"]
