"""Batching: a function of one example, recorded once and applied to many.

The function runs on ``Placeholder``s, which have the type of one example and no value. What it
records from them goes to a recording of its own (``Recording.outer``), and is then recorded again,
by each op's batching rule, on values with a leading axis for the examples. Nodes that no
placeholder leads to are the same for all examples and stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from treadle.base.errors import EvaluationError
from treadle.base.record import Record
from treadle.ir import node as ir_node
from treadle.ir.call import write_out
from treadle.ir.node import (
    Node,
    Recording,
    Signature,
    Type,
    located,
    recorder,
    type_of,
    user_site,
)
from treadle.ir.op import NoBatching, Stacked
from treadle.ops.movement import expand
from treadle.ops.source import buffer

_UNLIMITED = -(1 << 62)  # bytes: this recording is not evaluated when it becomes large


class Placeholder(Node):
    """What a function is recorded for: one example of a batch, or an argument of a body."""

    __slots__ = ("words",)

    def __init__(self, kind: Type, needs_grad: bool, words: Words) -> None:
        super().__init__(Signature(buffer, {"type": kind}, ()), (), user_site(), needs_grad)
        self.words = words
        self.error = located(EvaluationError(words.escaped))


class Words(Record):
    """What is told to whom uses a placeholder for what it is not: takes it elsewhere, asks for its
    value, writes it into a tensor from outside (of a shape)."""

    escaped: str
    asked: str
    written: str


VMAP = Words(
    "vmap: a tensor made by a function under vmap was used outside of it: it is one of many "
    "examples; return it from the function, and do not write it into a tensor that comes from "
    "outside",
    "vmap: got a call for the value of a tensor that is one of many examples (by item(), bool(), "
    "numpy(), or an `if` or a loop that depends on it); under vmap one run stands for all of "
    "them: choose with treadle.where(condition, a, b), or compute the value outside of vmap",
    "vmap: got an in-place operation that writes what differs from example to example into a "
    "tensor of shape {shape} that comes from outside, which is one for all; write into a copy "
    "(.clone()), or return the value",
)


def recorded(
    function: Callable[[list[Node]], list[Node]], places: Sequence[Node], draws: int = 1
) -> tuple[Recording, list[Node]]:
    """What ``function`` records for its arguments in a recording of its own, and its results.

    ``draws``: every random number is drawn so many times.
    """
    outer = recorder.state
    inner = Recording()
    inner.outer = outer
    inner.grad_enabled, inner.autocast = outer.grad_enabled, outer.autocast
    inner.tracer = outer.tracer
    inner.capturing = True  # what is recorded is wanted node by node
    inner.draws = outer.draws * draws
    inner.nbytes = _UNLIMITED
    inner.began = ir_node._next_order()
    recorder.state = inner
    try:
        outputs = function(list(places))
    finally:
        recorder.state = outer
    write_out(inner)
    return inner, outputs


def vectorized(
    function: Callable[[list[Node]], list[Node]], inputs: Sequence[Node], size: int, randomness: str
) -> list[tuple[Node, bool]]:
    """``function`` of every example of the inputs, whose leading axis counts ``size`` examples.

    The results with whether they have such an axis. ``randomness`` is PyTorch's: random numbers
    are an "error", the "same" for all examples, or "different".
    """
    outer = recorder.state
    places = [
        Placeholder(type_of(x.dtype, x.shape[1:], x.type.device), x.needs_grad, VMAP)
        for x in inputs
    ]
    inner, outputs = recorded(function, places, size if randomness == "different" else 1)
    drawn = [n for n in inner.pending if "random" in n.op.traits]
    if drawn and randomness == "error":
        before, outer.site = outer.site, drawn[0].site
        try:
            raise located(RuntimeError(
                "vmap: a random operation was called; say randomness='different' to draw numbers "
                "for every example, or randomness='same' for one draw that all of them share"
            ))  # fmt: skip
        finally:
            outer.site = before
    varying = varying_of(inner.pending, [*places, *(drawn if randomness == "different" else ())])
    for n in inner.pending:
        if n not in varying:
            outer.pending.append(n)
            outer.nbytes += n.sig.nbytes
    needed = needed_for(outputs, varying)
    nodes = [n for n in inner.pending if n in needed and n in varying]
    values = _replayed(nodes, dict(zip(places, inputs, strict=True)), size, outer)
    return [(values[n], True) if n in values else (n, False) for n in outputs]


def varying_of(pending: Sequence[Node], sources: Collection[Node]) -> set[Node]:
    """The sources, and the nodes that one of them leads to."""
    varying = set(sources)
    for n in pending:
        if any(i in varying for i in n.inputs):
            varying.add(n)
    return varying


def needed_for(outputs: Sequence[Node], varying: set[Node]) -> set[Node]:
    """The outputs, and the varying nodes that they are computed from."""
    needed = set(outputs)
    todo = list(outputs)
    while todo:
        for i in todo.pop().inputs:
            if i in varying and i not in needed:
                needed.add(i)
                todo.append(i)
    return needed


def _replayed(
    nodes: Sequence[Node], values: Mapping[Node, Node], size: int, state: Recording
) -> dict[Node, Node]:
    """The nodes recorded again for all examples."""
    made = dict(values)
    before = state.grad_enabled, state.site
    try:
        for n in nodes:
            state.grad_enabled, state.site = n.needs_grad, n.site
            batched = [i in made for i in n.inputs]
            made[n] = batched_node(n, [made.get(i, i) for i in n.inputs], batched, size)
    finally:
        state.grad_enabled, state.site = before
    return made


def batched_node(n: Node, inputs: list[Node], batched: list[bool], size: int) -> Node:
    """The node for all examples: ``n`` is for one; the ``batched`` inputs have a leading axis."""
    rule: Any = n.op.batch
    if isinstance(rule, Stacked):
        stacked = [
            x if has else expand(x, shape=(size, *x.shape))
            for x, has in zip(inputs, batched, strict=True)
        ]
        return n.op(*stacked, **rule.attrs(size, n))
    if isinstance(rule, NoBatching):
        raise located(RuntimeError(
            f"vmap: {n.op.name} cannot be applied to a batch: {rule.reason}"
        ))  # fmt: skip
    made: Node = rule(inputs, batched, size, n)
    return made


def placeholder_before(wanted: Node) -> Placeholder | None:
    """A placeholder that leads to a value: it differs from example to example."""
    seen, todo = {wanted}, [wanted]
    while todo:
        n = todo.pop()
        if type(n) is Placeholder:
            return n
        if n.value is None:
            todo += [i for i in n.inputs if i not in seen]
            seen.update(n.inputs)
    return None


def value_under_vmap(wanted: Node, value_of: Callable[[Node], Any]) -> Any:
    """The value of a node that is asked for while a function under vmap is recorded.

    The outermost recording is evaluated, with all nodes that no placeholder leads to.
    EvaluationError where the value is not the same for all examples.
    """
    place = placeholder_before(wanted)
    if place is not None:
        raise located(EvaluationError(place.words.asked))
    levels = [recorder.state]
    while (outer := levels[0].outer) is not None:
        levels.insert(0, outer)
    varying: set[Node] = set()
    for state in levels[1:]:
        write_out(state)
        places = {i for n in state.pending for i in n.inputs if type(i) is Placeholder}
        varying |= varying_of(state.pending, varying | places)
        levels[0].pending += [n for n in state.pending if n not in varying]
        state.pending[:] = [n for n in state.pending if n in varying]
    recorder.state = levels[0]
    try:
        return value_of(wanted)
    finally:
        recorder.state = levels[-1]


def check_write(old: Node, new: Node) -> None:
    """RuntimeError where a tensor from outside would become one example of many."""
    place = placeholder_before(new) if old.order < recorder.state.began else None
    if place is not None:
        raise located(RuntimeError(place.words.written.format(shape=old.shape)))


__all__ = [
    "VMAP", "Placeholder", "Words", "batched_node", "check_write", "needed_for",
    "placeholder_before", "recorded", "value_under_vmap", "varying_of", "vectorized",
]  # fmt: skip
