"""Reverse mode: the whole backward pass on one screen.

A gradient is recorded, not computed: ``backward`` walks the nodes from the last recorded to the
first and appends, by each op's rule, the nodes of its adjoints to the same pending graph. Because
the rules are written in ops, a gradient can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from treadle.base.collector import without_collector
from treadle.base.errors import GradientError
from treadle.ir.node import Leaf, Node, describe_site, record_pair, recorder
from treadle.ir.op import NoGradient
from treadle.ops.bundle import Bundled
from treadle.ops.elementwise import add

_order = attrgetter("order")


class Hooks:
    """What is called with the adjoint of a value once it is known: a node in, a node out."""

    __slots__ = ("__weakref__", "calls")

    def __init__(self) -> None:
        self.calls: dict[int, Callable[[Node], Node]] = {}
        _alive.add(self)


class Anomaly:
    """Anomaly detection: ``check(node, position, adjoint)`` looks at what flows to an operand."""

    enabled = False
    check: Callable[[Node, int, Node], None] | None = None


_alive: WeakSet[Hooks] = WeakSet()
at_the_end: list[Callable[[], None]] = []  # called once, when the pass that runs is done
hooks_of_nodes: WeakKeyDictionary[Node, Hooks] = WeakKeyDictionary()  # a leaf's are its owner's


def has_hooks() -> bool:
    """Whether there is a hook anywhere."""
    return any(hooks.calls for hooks in _alive)


def hooks_of_leaves_only() -> bool:
    """Whether no hook is inside a graph: those of leaves may wait until the pass is done."""
    return not any(hooks.calls for hooks in list(hooks_of_nodes.values()))


def call_hooks_of_leaves(found: dict[Node, Node]) -> None:
    """Lets the hooks of leaves change their adjoints, after a pass that has left them out."""
    state = recorder.state
    grad_enabled, state.grad_enabled = state.grad_enabled, False
    try:
        for n in sorted(found, key=_order, reverse=True):
            found[n] = _hooked(n, found[n])
    finally:
        state.grad_enabled = grad_enabled
        ended = _taken_from_the_end()
    for call in ended:
        call()


def _taken_from_the_end() -> list[Callable[[], None]]:
    calls, at_the_end[:] = at_the_end[:], []
    return calls


def _hooked(n: Node, adjoint: Any) -> Any:
    """The adjoint after the hooks of the value."""
    owner = n.owner() if isinstance(n, Leaf) else None
    hooks = getattr(owner, "_hooks", None) if isinstance(n, Leaf) else hooks_of_nodes.get(n)
    for call in [] if hooks is None else list(hooks.calls.values()):
        adjoint = call(adjoint)
    return adjoint


def reachable(outputs: Iterable[Node]) -> list[Node]:
    """The nodes that a gradient flows through, last recorded first."""
    seen = {n for n in outputs if n.needs_grad}
    todo = list(seen)
    while todo:
        for i in todo.pop().inputs:
            if i.needs_grad and i not in seen:
                seen.add(i)
                todo.append(i)
    return sorted(seen, key=_order, reverse=True)


@without_collector
def backward(
    outputs: Sequence[Node],
    adjoints: Sequence[Node],
    *,
    wanted: Iterable[Node] | None = None,
    kept: Iterable[Node] = (),
    retain_graph: bool = False,
    create_graph: bool = False,
    with_hooks: bool = True,
) -> dict[Node, Node]:
    """The adjoints of all leaves (or of the ``wanted`` nodes only) and of the ``kept`` ones.

    For L = sum_i <outputs[i], adjoints[i]> the result maps a node x to dL/dx. Adjoints of one value
    are added in the reverse order of its recorded uses. Unless ``retain_graph``, the graph is
    released: a second walk raises GradientError.
    """
    order = reachable(outputs)
    targets = set(kept if wanted is None else wanted)
    leading = None if wanted is None else _leading_to(order, targets)
    found: dict[Node, Any] = {}
    for out, adjoint in zip(outputs, adjoints, strict=True):
        _accumulate(found, out, adjoint)
    hooked = with_hooks and has_hooks()
    state = recorder.state
    grad_enabled, site = state.grad_enabled, state.site
    state.grad_enabled = create_graph
    try:
        for n in order:
            if n not in found:
                continue
            if leading is not None and n not in leading and n not in targets:
                continue
            if hooked:
                found[n] = _hooked(n, found[n])
            if (type(n) is Leaf and n.spent) or (leading is not None and n not in leading):
                continue
            if n.spent:
                raise released_before(n)
            g = found[n] if n in targets else found.pop(n)
            state.site = n.site
            step(n, g, found)
    finally:
        state.grad_enabled, state.site = grad_enabled, site
        ended = _taken_from_the_end()
    for call in ended:
        call()
    if not retain_graph:
        release(order if leading is None else [n for n in order if n in leading])
    return found


def released_before(n: Node) -> GradientError:
    """The error for a second walk through a node."""
    return GradientError(
        f"backward: the graph of {n.op.name} [{describe_site(n.site)}] was "
        f"released by an earlier backward(); pass retain_graph=True to that call"
    )


def _leading_to(order: list[Node], targets: set[Node]) -> set[Node]:
    """The nodes with a target among their ancestors."""
    leading: set[Node] = set()
    for n in reversed(order):
        if any(i in targets or i in leading for i in n.inputs):
            leading.add(n)
    return leading


def step(n: Node, g: Any, found: dict[Node, Any]) -> None:
    """Adds what flows from ``n`` to its inputs, the last input first."""
    sig, inputs = n.sig, n.inputs
    rules = sig.gradients
    if type(rules) is tuple and rules:
        for position in range(len(inputs) - 1, -1, -1):
            i = inputs[position]
            if i.needs_grad:
                rule = rules[position]
                a = None if type(rule) is NoGradient else rule(g, n)
                if a is not None:
                    if Anomaly.check is not None:
                        Anomaly.check(n, position, a)
                    known = found.get(i)
                    found[i] = a if known is None else record_pair(add, known, a)
        return
    if "project" in sig.op.traits:
        source = inputs[0]
        slots = found.setdefault(source, [None] * len(source.type))
        index = sig.attrs["index"]
        slots[index] = g if slots[index] is None else add(slots[index], g)
        return
    adjoints = rules.rule(g, n)
    for position in range(len(inputs) - 1, -1, -1):
        a = adjoints[position]
        if a is not None:
            if Anomaly.check is not None:
                Anomaly.check(n, position, a)
            _accumulate(found, inputs[position], a)


def _accumulate(found: dict[Node, Any], n: Node, adjoint: Node) -> None:
    if n.needs_grad:
        known = found.get(n)
        found[n] = adjoint if known is None else add(known, adjoint)


def release(order: list[Node]) -> None:
    """Frees what only the gradient needed; values not yet computed keep their inputs."""
    for n in order:
        if not isinstance(n, Leaf):
            n.spent = True
            if type(n) is Bundled:
                n.call = None  # with what it saved
            if n.value is not None:
                n.inputs = ()
