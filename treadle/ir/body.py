"""Bodies: functions of values as data, which ops of control flow apply inside of a program.

A body lists what a function recorded, once, on placeholders for its arguments. It is an attribute
of the op that applies it (``ops/control.py``), so equal bodies are one object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

from treadle.ir.call import Reference, Spec
from treadle.ir.node import Node, Type


class Body:
    """``specs`` are its nodes in order, which refer to each other by number and to argument i by
    ~i; ``results`` are such references too. ``derived`` is what others have made of it."""

    __slots__ = ("__weakref__", "args", "derived", "results", "specs")

    def __init__(
        self, args: tuple[Type, ...], specs: tuple[Spec, ...], results: tuple[int, ...]
    ) -> None:
        self.args = args
        self.specs = specs
        self.results = results
        self.derived: dict[Any, Any] = {}

    def __repr__(self) -> str:
        names = dict.fromkeys(spec.sig.op.name for spec in self.specs)
        return f"<body of {len(self.specs)} operations: {', '.join(names)}>"

    @property
    def types(self) -> tuple[Type, ...]:
        """The types of its results."""
        kinds = [self.args[~r] if r < 0 else self.specs[r].sig.type for r in self.results]
        return tuple(kinds)


_known: WeakValueDictionary[Any, Body] = WeakValueDictionary()


def body_of(nodes: Sequence[Node], places: Sequence[Node], results: Sequence[Node]) -> Body:
    """The body that makes ``results`` of its arguments, the ``places``, by these nodes in order."""
    numbers: dict[Node, int] = {place: ~i for i, place in enumerate(places)}
    specs: list[Spec] = []
    for n in nodes:
        inputs: tuple[Reference, ...] = tuple([numbers[i] for i in n.inputs])
        numbers[n] = len(specs)
        specs.append(Spec(n.sig, inputs, False, 0))
    kinds: Any = tuple([p.type for p in places])
    return interned(kinds, tuple(specs), tuple([numbers[n] for n in results]))


def interned(args: tuple[Type, ...], specs: tuple[Spec, ...], results: tuple[int, ...]) -> Body:
    """The one body that is so."""
    key = (args, specs, results)
    found = _known.get(key)
    if found is None:
        found = _known[key] = Body(*key)
    return found


def applied(body: Body, inputs: Sequence[Node]) -> list[Node]:
    """Records what the body does to these."""
    made: list[Node] = []
    for spec in body.specs:
        operands = [made[r] if r >= 0 else inputs[~r] for r in spec.inputs]  # type: ignore[operator,index]
        made.append(spec.sig.op(*operands, **spec.sig.attrs))
    return [made[r] if r >= 0 else inputs[~r] for r in body.results]


__all__ = ["Body", "applied", "body_of", "interned"]
