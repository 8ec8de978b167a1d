"""Modules that hold others: in a row, in a list, by name."""

from __future__ import annotations

import itertools
import operator
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from treadle.ir.node import located
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.tensor.tensor import Tensor


def _place(name: str, index: Any, count: int) -> int:
    """An index counted from the front."""
    place = operator.index(index)
    if not -count <= place < count:
        raise located(IndexError(
            f"{name}: got the index {place}, but there are {count}; use {-count} to {count - 1}"
        ))  # fmt: skip
    return place % count


class _Numbered(Module):
    """Modules under the names "0", "1", ..."""

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules.values())

    def __getitem__(self, index: Any) -> Any:
        items = list(self._modules.items())
        if isinstance(index, slice):
            return self._of(items[index])
        return items[_place(type(self).__name__, index, len(items))][1]

    def _of(self, items: list[tuple[str, Any]]) -> Self:
        raise NotImplementedError

    def __setitem__(self, index: int, module: Module) -> None:
        place = _place(type(self).__name__, index, len(self))
        setattr(self, list(self._modules)[place], module)

    def __delitem__(self, index: Any) -> None:
        if isinstance(index, slice):
            doomed = set(range(len(self))[index])
        else:
            doomed = {_place(type(self).__name__, index, len(self))}
        self._renumber([m for i, m in enumerate(self) if i not in doomed])

    def _renumber(self, modules: Iterable[Module]) -> None:
        kept = list(modules)
        self._modules.clear()
        for i, module in enumerate(kept):
            self.add_module(str(i), module)

    def append(self, module: Module) -> Self:
        """Adds a module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Adds modules at the end."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Self:
        """Puts a module before the one at ``index``."""
        modules = list(self)
        modules.insert(index, module)
        self._renumber(modules)
        return self

    def pop(self, index: int = -1) -> Module:
        """Takes a module out."""
        module: Module = self[index]
        del self[index]
        return module


class Sequential(_Numbered):
    """Modules applied one after the other: ``f3(f2(f1(x)))``.

    Takes modules, or one dictionary that names them.

    >>> from treadle import nn
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> len(net), net[1]
    (2, ReLU())
    """

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.add_module(name, module)
        else:
            self.extend(modules)

    def _of(self, items: list[tuple[str, Any]]) -> Self:
        return type(self)(OrderedDict(items))

    def forward(self, input: Any) -> Any:
        """The modules applied to ``input`` in order."""
        for module in self._modules.values():
            input = module(input)
        return input


class ModuleList(_Numbered):
    """A list whose modules belong to the network.

    >>> from treadle import nn
    >>> layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])
    >>> len(layers), len(list(layers.parameters()))
    (3, 6)
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        self.extend(() if modules is None else modules)

    def _of(self, items: list[tuple[str, Any]]) -> Self:
        return type(self)(module for _, module in items)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList(itertools.chain(self, other))

    def __iadd__(self, other: Iterable[Module]) -> Self:
        return self.extend(other)


class ModuleDict(Module):
    """A dictionary whose modules belong to the network, in the order of insertion.

    >>> from treadle import nn
    >>> heads = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Identity()})
    >>> list(heads), "a" in heads
    (['a', 'b'], True)
    """

    def __init__(self, modules: Any = None) -> None:
        super().__init__()
        self.update(() if modules is None else modules)

    def update(self, modules: Any) -> None:
        """Adds or replaces modules from a mapping or from pairs."""
        for name, module in modules.items() if hasattr(modules, "items") else modules:
            self.add_module(name, module)

    def __getitem__(self, name: str) -> Any:
        try:
            return self._modules[name]
        except KeyError:
            raise KeyError(
                f"ModuleDict: got the name {name!r}; there are {', '.join(self._modules) or 'none'}"
            ) from None

    def __setitem__(self, name: str, module: Module) -> None:
        self.add_module(name, module)

    def __delitem__(self, name: str) -> None:
        del self._modules[name]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._modules.keys()

    def values(self) -> Iterable[Any]:
        """The modules."""
        return self._modules.values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """Names and modules."""
        return self._modules.items()

    def pop(self, name: str) -> Any:
        """Takes a module out."""
        module = self[name]
        del self[name]
        return module

    def clear(self) -> None:
        """Takes all modules out."""
        self._modules.clear()


class ParameterList(Module):
    """A list of parameters that belong to the network; tensors become parameters.

    >>> import treadle
    >>> from treadle import nn
    >>> weights = nn.ParameterList([treadle.zeros(2), treadle.zeros(3)])
    >>> [tuple(p.shape) for p in weights]
    [(2,), (3,)]
    """

    def __init__(self, values: Iterable[Tensor] | None = None) -> None:
        super().__init__()
        self.extend(() if values is None else values)

    def append(self, value: Tensor) -> Self:
        """Adds a parameter at the end."""
        parameter = value if isinstance(value, Parameter) else Parameter(value)
        self.register_parameter(str(len(self)), parameter)
        return self

    def extend(self, values: Iterable[Tensor]) -> Self:
        """Adds parameters at the end."""
        for value in values:
            self.append(value)
        return self

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._parameters.values())

    def __getitem__(self, index: Any) -> Any:
        values = list(self._parameters.values())
        if isinstance(index, slice):
            return ParameterList(values[index])
        return values[_place("ParameterList", index, len(values))]

    def __setitem__(self, index: int, value: Tensor) -> None:
        name = str(_place("ParameterList", index, len(self)))
        setattr(self, name, value if isinstance(value, Parameter) else Parameter(value))

    def extra_repr(self) -> str:
        """One line for each parameter."""
        lines = (
            f"({i}): Parameter of {tuple(p.shape)}, {p.dtype.name}" for i, p in enumerate(self)
        )
        return "\n".join(lines)


class ParameterDict(Module):
    """A dictionary of parameters that belong to the network; tensors become parameters."""

    def __init__(self, parameters: Any = None) -> None:
        super().__init__()
        self.update(() if parameters is None else parameters)

    def update(self, values: Any) -> None:
        """Adds or replaces parameters from a mapping or from pairs."""
        for name, value in values.items() if hasattr(values, "items") else values:
            self[name] = value

    def __setitem__(self, name: str, value: Tensor) -> None:
        parameter = value if isinstance(value, Parameter) else Parameter(value)
        self.register_parameter(name, parameter)

    def __getitem__(self, name: str) -> Any:
        try:
            return self._parameters[name]
        except KeyError:
            names = ", ".join(self._parameters) or "none"
            raise KeyError(f"ParameterDict: got the name {name!r}; there are {names}") from None

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __contains__(self, name: object) -> bool:
        return name in self._parameters

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._parameters.keys()

    def values(self) -> Iterable[Any]:
        """The parameters."""
        return self._parameters.values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """Names and parameters."""
        return self._parameters.items()

    def __delitem__(self, name: str) -> None:
        del self._parameters[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The parameter of that name, or ``default``."""
        return self._parameters.get(name, default)

    def setdefault(self, name: str, default: Any = None) -> Any:
        """The parameter of that name, which is ``default`` if there was none."""
        if name not in self:
            self[name] = default
        return self[name]

    def pop(self, name: str) -> Any:
        """Takes a parameter out."""
        parameter = self[name]
        del self[name]
        return parameter

    def popitem(self) -> tuple[str, Any]:
        """Takes the last parameter out, with its name."""
        return self._parameters.popitem()

    def clear(self) -> None:
        """Takes all parameters out."""
        self._parameters.clear()

    def copy(self) -> ParameterDict:
        """Another dictionary with the same parameters."""
        return ParameterDict(self._parameters)

    def fromkeys(self, keys: Iterable[str], default: Any = None) -> ParameterDict:
        """A dictionary with ``default`` under every name."""
        return ParameterDict(dict.fromkeys(keys, default))


__all__ = ["ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential"]
