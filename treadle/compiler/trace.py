"""A pending graph as plain data: what makes two graphs the same, and what a program is made from.

The *key* of a graph is its structure: signatures, how nodes refer to each other and to values from
outside, how those lie in memory, and which results somebody still holds. Numbers (``Scalar``) and
the values from outside are no part of it, so a training step has the same key every time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from treadle.ir.launch import Layout
from treadle.ir.node import Node, Signature
from treadle.ops.source import Scalar

Key = tuple[Any, ...]


class Entry(NamedTuple):
    """One node: ``inputs`` are numbers of values; ``keep`` where somebody holds the result."""

    sig: Signature
    inputs: tuple[int, ...]
    keep: bool


class Trace(NamedTuple):
    """Values are numbered: first the externals, then the scalars, then the entries in order.

    ``externals`` are the layouts of values from outside (a tuple for one with several results),
    ``scalars`` those of numbers.
    """

    externals: tuple[Any, ...]
    scalars: tuple[Layout, ...]
    entries: tuple[Entry, ...]


class Keyed(NamedTuple):
    """The key of a graph, and the nodes that play the externals and the scalars."""

    key: Key
    externals: list[Node]
    scalars: list[Scalar]


def keyed(live: list[Node]) -> Keyed | None:
    """The key of a graph (last node first), or None where its inputs are not all at hand.

    Numbers the nodes in their ``uses``, as -1, -2, ...: the caller sets that to 0 or counts anew.
    """
    parts: list[Any] = []
    slots: dict[Node, int] = {}
    scalars: list[Scalar] = []
    add = parts.append
    for position, n in enumerate(reversed(live), 1):
        if n.value is not None or n.error is not None:
            return None
        n.uses = -position
        add(n.sig.key)
        for i in n.inputs:
            uses = i.uses
            if uses < 0:
                add(position + uses)
            elif type(i) is Scalar:
                scalars.append(i)
                add(i.sig)
            else:
                slot = slots.get(i)
                if slot is None:
                    slot = slots[i] = len(slots)
                    if not i.address:
                        value = i.value
                        if value is None:
                            return None
                        add(layout_of(value))
                add(~slot)
        if n.keep:
            add("kept")
    return Keyed(tuple(parts), list(slots), scalars)


def layout_of(value: Any) -> Any:
    """The layout of a value; a tuple of them for one with several results."""
    if isinstance(value[0], tuple):
        return tuple(layout for _, layout, _ in value)
    return value[1]


def make_trace(live: list[Node], keys: Keyed) -> Trace:
    """The graph that ``keyed`` has numbered."""
    slots = {n: slot for slot, n in enumerate(keys.externals)}
    first_scalar = len(slots)
    first = first_scalar + len(keys.scalars)
    scalars = 0
    entries = []
    for n in reversed(live):
        inputs = []
        for i in n.inputs:
            if i.uses < 0:
                inputs.append(first - i.uses - 1)
            elif type(i) is Scalar:
                inputs.append(first_scalar + scalars)
                scalars += 1
            else:
                inputs.append(slots[i])
        entries.append(Entry(n.sig, tuple(inputs), n.keep))
    return Trace(
        tuple(layout_of(n.value) for n in keys.externals),
        tuple(n.type.layout for n in keys.scalars),
        tuple(entries),
    )
