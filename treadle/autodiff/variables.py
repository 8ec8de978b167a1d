"""Variables of a derivative: leaves that stand for a value while a function of it is recorded.

A transformation (``func.grad``, ``jvp``, ...) gives its function leaves in place of its arguments,
so that everything computed from them is there to be differentiated. Derivatives are taken of nodes,
so transformations nest without being mistaken for one another: the gradient flows on from a
variable to the value it stands for, where somebody further out wants it.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.autodiff.reverse import reachable
from treadle.ir.node import Leaf, Node, recorder, signature_of, user_site
from treadle.ops.movement import alias, detach


def _nobody() -> None:
    return None


def variable(value: Node) -> Leaf:
    """A leaf with that value, of no tensor's ``grad``."""
    sig = signature_of(alias, (value.type,), {})
    leaf = Leaf(sig, (value,), user_site(), True)
    leaf.owner = _nobody
    leaf.spent = not value.needs_grad  # else a gradient flows further
    recorder.state.pending.append(leaf)
    return leaf


def settle(results: Sequence[Node], variables: Sequence[Leaf], since: float) -> list[Node]:
    """The results of a transformation, which need a gradient only where an outer one can come.

    All that was recorded from the ``variables`` had to need one. Of that, what has an order from
    ``since`` on will not be differentiated by this transformation any more, and is told so.
    """
    state = recorder.state
    first = min((v.order for v in variables), default=0)
    needing: set[Node] = set()
    for n in reversed(reachable(results)):
        foreign = n.order < first or (type(n) is Leaf and n.owner is not _nobody)
        if foreign or any(i in needing for i in n.inputs):
            needing.add(n)
        needs_grad = n in needing and (foreign or state.grad_enabled)
        if n.order >= since:
            n.needs_grad = needs_grad
    state.scan = None  # it has what was
    return [_own(n, variables, n in needing and state.grad_enabled) for n in results]


def _own(n: Node, variables: Sequence[Leaf], needs_grad: bool) -> Node:
    """A result under its own name: not a variable, and open to gradients only if they can come."""
    if n in variables:
        return n.inputs[0] if n.inputs else detach(n)
    return n if n.needs_grad <= needs_grad else detach(n)


__all__ = ["settle", "variable"]
