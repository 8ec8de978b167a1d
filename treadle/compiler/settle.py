"""What nodes and calls that have run let go of: whatever no gradient can ask for any more."""

from __future__ import annotations

from collections.abc import Sequence
from sys import getrefcount
from typing import Any
from weakref import ref

from treadle.ir.call import Call
from treadle.ir.node import Leaf, Node
from treadle.ir.scan import HELD_PART


def settle(items: list[Any]) -> None:
    """Nodes and calls that a program has run let go of what no gradient can ask for any more."""
    for item in items:
        if type(item) is not Call:
            forget_inputs((item,))
            continue
        item.scan = None  # which holds the whole graph, this call included
        if item.nodes is not None:
            for n in item.nodes:
                n.call = None  # type: ignore[attr-defined]
            forget_inputs(item.nodes)
        else:
            _settle_call(item)


def _settle_call(call: Call) -> None:
    """As ``forget_inputs``, for a call whose nodes were never written out."""
    template = call.template
    outs = call.outs
    if template.needs_grad and not call.spent and not _leads_on(call.inputs):
        call.spent = True
        for n in outs:
            n.spent = n.needs_grad
    if call.spent or (not template.needs_grad and not _is_wanted(outs)):
        for n in outs:
            n.call = None
            n.inputs = ()
        call.outs = []
    else:
        call.outs = [ref(n) for n in outs]


def _is_wanted(outs: Sequence[Node]) -> bool:
    """Whether somebody holds a result that was dropped, and may want it after all."""
    return any(n.value is None and getrefcount(n) > HELD_PART for n in outs)


def _leads_on(inputs: Sequence[Node]) -> bool:
    """True where a gradient gets further through one of these."""
    return any(i.needs_grad and (not i.spent or type(i) is Leaf) for i in inputs)


def forget_inputs(done: Sequence[Node]) -> None:
    """Nodes that have run let go of inputs that no gradient can ask for any more.

    A node all of whose inputs are released counts as released itself, since no gradient gets
    further: so ``total = total + loss`` does not keep every step of a training alive.
    """
    for n in done:
        if n.needs_grad and not n.spent:
            n.spent = not _leads_on(n.inputs)
        if n.spent or (n.value is not None and not n.needs_grad):
            n.inputs = ()  # a value that was dropped may have to be computed again


__all__ = ["forget_inputs", "settle"]
