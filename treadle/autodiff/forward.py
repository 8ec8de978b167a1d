"""Forward mode: tangents, pushed through a graph after it was recorded.

For y = f(x) and a direction v, the tangent of y is the derivative of f at x along v. ``tangents``
walks the nodes from the first recorded to the last and records the tangent of each by the op's
rule. As those are ops again, tangents can be differentiated, in either mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from treadle.autodiff.reverse import backward, reachable
from treadle.autodiff.variables import variable
from treadle.base.errors import GradientError
from treadle.ir.node import Leaf, Node, describe_site, recorder
from treadle.ir.op import DIAGONAL, LINEAR, MULTILINEAR, TRANSPOSED, Joint, NoGradient
from treadle.ops.elementwise import add
from treadle.ops.movement import zeros_of


def tangents(outputs: Sequence[Node], given: Mapping[Any, Node]) -> list[Node | None]:
    """The tangents of the outputs, from those of some leaves; None where it is zero."""
    found: dict[Node, Any] = dict(given)
    first = min((n.order for n in given), default=0)
    state = recorder.state
    site = state.site
    try:
        for n in reversed(reachable(outputs)):
            if n in found or n.order < first:
                continue
            if n.spent and type(n) is not Leaf:
                raise GradientError(
                    f"forward mode: the graph of {n.op.name} [{describe_site(n.site)}] was "
                    f"released by a backward(); pass retain_graph=True to that call"
                )
            moved = [found.get(i) for i in n.inputs]
            if any(t is not None for t in moved):
                state.site = n.site
                found[n] = tangent(n, moved)
    finally:
        state.site = site
    return [found.get(n) for n in outputs]


def tangent(n: Node, moved: Sequence[Any]) -> Any:
    """The tangent of a node from those of its inputs; a sequence for several results."""
    if "project" in n.op.traits:
        return moved[0][n.attrs["index"]]
    rule = n.op.jvp
    if isinstance(rule, NoGradient) or n.sig.gradients is None:
        return None
    if rule is DIAGONAL:
        rules = n.sig.gradients
        return _sum([
            rule(t, n) for rule, t in zip(rules, moved, strict=True)
            if t is not None and not isinstance(rule, NoGradient)
        ])  # fmt: skip
    if rule is LINEAR:
        inputs = [
            i if not i.dtype.is_inexact else zeros_of(i.type) if t is None else t
            for i, t in zip(n.inputs, moved, strict=True)
        ]
        return n.op(*inputs, **n.attrs)
    if rule is MULTILINEAR:
        return _sum([
            n.op(*n.inputs[:at], t, *n.inputs[at + 1 :], **n.attrs)
            for at, t in enumerate(moved) if t is not None
        ])  # fmt: skip
    made = NotImplemented if rule is TRANSPOSED else rule(moved, n)
    return _transposed(n, moved) if made is NotImplemented else made


def _sum(terms: Sequence[Node | None]) -> Node | None:
    total: Node | None = None
    for term in terms:
        if term is not None:
            total = term if total is None else add(total, term)
    return total


def _transposed(n: Node, moved: Sequence[Node | None]) -> Any:
    """By <u, J v> = <J^T u, v>: the gradient by u of what the rules give for u."""
    state = recorder.state
    enabled = state.grad_enabled
    state.grad_enabled = True
    try:
        seeds = [variable(zeros_of(t)) if t.dtype.is_inexact else None for t in n.sig.types]
        several = isinstance(n.type, tuple)
        g: Any = seeds if several else seeds[0]
        rules = n.sig.gradients
        if isinstance(rules, Joint):
            adjoints: Sequence[Node | None] = rules.rule(g, n)
        else:
            adjoints = [
                None if t is None or isinstance(rule, NoGradient) else rule(g, n)
                for rule, t in zip(rules, moved, strict=True)
            ]
        pairs = [
            (a, t) for a, t in zip(adjoints, moved, strict=True)
            if a is not None and t is not None
        ]  # fmt: skip
        found = backward(
            [a for a, _ in pairs], [t for _, t in pairs], retain_graph=True, create_graph=enabled,
            wanted=[s for s in seeds if s is not None],
        )  # fmt: skip
    finally:
        state.grad_enabled = enabled
    results = [None if s is None else found.get(s) for s in seeds]
    return results if several else results[0]


__all__ = ["tangent", "tangents"]
