"""Calls: what a function records, kept as a template and written down again in one go.

Most of what is recorded was recorded before: a linear layer, a loss, a whole backward pass, the
update of all parameters. The first time, the nodes that such a function records become a
``Template``. After that a ``Call`` of the template takes their place in the pending graph, and of
its nodes only those exist that somebody may hold (its ``outs``). Whoever asks one of these for its
``inputs`` gets all nodes of the call, as if they had been recorded one by one; the evaluator does
not ask where a program is known for the graph.

A *closed* template says which values it takes from its call's ``inputs``. An *open* one, of a
backward pass, refers to values of the pending graph by their numbers (``ir/scan.py``), and may only
be called where the graph before it is the same as when it was made.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

from treadle.base.record import Record
from treadle.ir import node as ir_node
from treadle.ir.node import (
    ORDERS_APART,
    Limits,
    Node,
    Recording,
    Scalar,
    Signature,
    Site,
    describe_site,
)
from treadle.ir.op import Bundle

Reference = int | tuple[int]  # a node of the template, ~ an argument, or (a number,)


class Spec(Record):
    """One node of a template. ``origin``: the number of the value whose line is its line."""

    sig: Signature
    inputs: tuple[Reference, ...]
    needs_grad: bool
    origin: int


class Template:
    """Nodes by number. ``args`` are the numbers of the values it takes where it is open.

    Its numbers (``Scalar``) are no part of it: every call brings its own.
    """

    __slots__ = ("__weakref__", "args", "made", "nbytes", "needs_grad", "outs", "specs")

    def __init__(
        self, specs: tuple[Spec, ...], outs: tuple[int, ...], args: tuple[Any, ...] | None
    ) -> None:
        self.specs = specs
        self.outs = outs
        self.args = args
        self.made = tuple((i, self.specs[i].sig, self.specs[i].needs_grad) for i in self.outs)
        self.nbytes = sum(spec.sig.nbytes for spec in specs)
        self.needs_grad = any(spec.needs_grad for spec in specs)


_closed: WeakValueDictionary[Any, Template] = WeakValueDictionary()


class Call:
    """One use of a template in a pending graph.

    ``nodes`` is None as long as nobody has asked for them. ``values`` are those of nodes that do
    not exist, kept for the gradient. ``scan`` is where an open call finds what it refers to.
    """

    __slots__ = (
        "__weakref__", "constants", "inputs", "nodes", "order", "outs", "scan", "site", "spent",
        "template", "values",
    )  # fmt: skip

    template: Template
    constants: tuple[Scalar, ...]
    inputs: tuple[Node, ...]
    outs: list[Any]  # weak references once the call has been evaluated
    nodes: list[Node] | None
    site: Site | None
    order: int
    spent: bool
    values: dict[int, Any] | None
    scan: Any

    def __repr__(self) -> str:
        return f"<call of {len(self.template.specs)} nodes [{describe_site(self.site)}]>"


_inputs: Any = vars(Node)["inputs"].__get__


class Part(Node):
    """A node of a call; without ``inputs`` until somebody asks for them."""

    __slots__ = ("call", "index")

    call: Call | None
    index: int

    def __getattr__(self, name: str) -> Any:
        if name != "inputs":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        call = self.call
        if call is not None:
            nodes_of(call)
        return _inputs(self)


_bare = object.__new__
_expanding = threading.RLock()


class Expansions:
    """How often nodes were made for a call; a scan from before no longer holds."""

    count = 0


def call_template(
    template: Template,
    constants: tuple[Scalar, ...],
    inputs: tuple[Node, ...],
    state: Recording,
    site: Site | None,
    scan: Any,
) -> list[Part]:
    """Records a call and returns its outs."""
    order = ir_node._next_order()
    call = _bare(Call)
    call.template = template
    call.constants = constants
    call.inputs = inputs
    call.nodes = call.values = None
    call.site = site
    call.order = order
    call.spent = False
    call.scan = scan
    outs: list[Part] = []
    for index, sig, needs_grad in template.made:
        n = _bare(Part)  # Node.__init__ written out, but for ``inputs``
        n.sig = sig
        n.type = sig.type
        n.site = site
        n.needs_grad = needs_grad
        n.order = order + 1 + index
        n.value = n.error = None
        n.address = n.uses = 0
        n.keep = n.spent = False
        n.call = call
        n.index = index
        outs.append(n)
    call.outs = outs
    pending = state.pending
    pending.append(call)
    state.nbytes = nbytes = state.nbytes + template.nbytes
    if len(pending) >= Limits.nodes or nbytes >= Limits.nbytes:
        outs = outs.copy()  # the call lets go of its own
        Limits.evaluate()
    return outs


def nodes_of(call: Call) -> list[Node]:
    """All nodes of a call, made now unless they were before."""
    with _expanding:  # two threads may hold outs of the same call
        if call.nodes is not None:
            return call.nodes
        template = call.template
        scan = call.scan
        done = not isinstance(call.outs[0], Part)
        outs = [o() for o in call.outs] if done else call.outs
        known = {o.index: o for o in outs if o is not None}
        args: Sequence[Node]
        args = call.inputs if template.args is None else [scan.node_at(a) for a in template.args]
        nodes: list[Node] = []
        for index, spec in enumerate(template.specs):
            n = known.get(index)
            if n is None:
                n = Part(spec.sig, (), call.site, spec.needs_grad)
                n.order = call.order + 1 + index
                n.call = call
                n.index = index
                n.spent = call.spent
            if scan is not None:
                n.site = scan.site_at(spec.origin)
            n.inputs = tuple([
                call.constants[i[0]] if isinstance(i, tuple) else nodes[i] if i >= 0 else args[~i]
                for i in spec.inputs
            ])  # fmt: skip
            nodes.append(n)
        if done:
            for index, value in (call.values or {}).items():
                nodes[index].set_value(value)
                nodes[index].keep = True
            for n in nodes:
                n.call = None  # type: ignore[attr-defined]
        else:
            call.nodes = nodes
            Expansions.count += 1
        return nodes


def parts_of(call: Call) -> list[Any]:
    """Those nodes of a pending call that exist."""
    return call.outs if call.nodes is None else call.nodes


def part_of(call: Call, index: int) -> Node:
    """One node of a pending call; it exists from now on, and the others need not."""
    if call.nodes is not None:
        return call.nodes[index]
    for known in call.outs:
        if known.index == index:
            return known
    spec = call.template.specs[index]
    n = Part(spec.sig, (), call.site, spec.needs_grad)
    del n.inputs  # as those of any part, until somebody asks for them
    n.order = call.order + 1 + index
    n.call = call
    n.index = index
    n.spent = call.spent
    call.outs.append(n)
    return n


def write_out(state: Recording) -> None:
    """Puts the nodes of calls in their place among the pending ones."""
    pending = state.pending
    calls = [item for item in pending if type(item) is Call]
    for call in calls:
        nodes_of(call)
    if calls:
        pending[:] = [n for i in pending for n in (nodes_of(i) if type(i) is Call else (i,))]
    for call in calls:
        for n in nodes_of(call):
            n.call = None  # type: ignore[attr-defined]
        call.outs = []
        call.scan = None  # which holds the whole graph, this call included
    state.scan = None


def collapse(call: Call) -> None:
    """Takes back what ``nodes_of`` has made, where nobody else has got hold of it."""
    for n in call.outs:
        del n.inputs
    call.nodes = None
    Expansions.count += 1


def _new_lock() -> None:
    global _expanding
    _expanding = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)  # another thread may have held it


def template_of(
    nodes: Sequence[Any], args: Mapping[Node, int], outs: Sequence[Node],
    taken: tuple[Any, ...] | None = None, origins: Mapping[Node, int] | None = None,
) -> tuple[Template, tuple[Scalar, ...]] | None:  # fmt: skip
    """The template of what was recorded and its numbers, or None where a call could differ from it.

    That is so where random numbers were drawn, where a user's function stands in the graph, and
    where a node came from elsewhere than ``args`` (which are numbered).
    """
    numbers: dict[Node, int] = {}
    constants: dict[Scalar, int] = {}
    specs: list[Spec] = []
    for n in nodes:
        if type(n) is not Node or n.value is not None or n.error is not None:
            return None
        if isinstance(n.sig.op.lower, Bundle) or "random" in n.sig.op.traits:
            return None
        inputs: list[Reference] = []
        for i in n.inputs:
            number = numbers.get(i)
            if number is None:
                if i in args:
                    number = ~args[i]
                elif isinstance(i, Scalar):
                    inputs.append((constants.setdefault(i, len(constants)),))
                    continue
                else:
                    return None
            inputs.append(number)
        numbers[n] = len(specs)
        origin = 0 if origins is None else origins.get(n, 0)
        specs.append(Spec(n.sig, tuple(inputs), n.needs_grad, origin))
    if not specs or len(specs) >= ORDERS_APART or any(n not in numbers for n in outs):
        return None
    places = tuple(dict.fromkeys(numbers[n] for n in outs))
    if taken is not None:  # it stands for what came before it: for each such graph another one
        return Template(tuple(specs), places, taken), tuple(constants)
    key = (tuple(specs), places)
    known = _closed.get(key)
    if known is None:
        known = _closed[key] = Template(*key, None)
    return known, tuple(constants)


__all__ = [
    "Call", "Expansions", "Part", "Spec", "Template", "call_template", "collapse", "nodes_of",
    "part_of", "parts_of", "template_of", "write_out",
]  # fmt: skip
