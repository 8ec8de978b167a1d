"""Several values as the results of one op: how a user's own gradient enters the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.ir.node import Node, Signature, Type, recorder, user_site
from treadle.ir.op import Bundle, Joint, Op
from treadle.ops.registry import ALL, no_cost, no_errors, register


def _infer(types: Sequence[Type], attrs: dict[str, Any]) -> tuple[Type, ...]:
    return tuple(types[: attrs["call"].count])


def _gradient(g: Any, n: Node) -> Sequence[Node | None]:
    call = n.attrs["call"]
    return [None] * call.count + list(call.gradient(g, n))


bundle = register(
    Op(
        name="bundle", family="movement", traits=frozenset({"movement"}), infer=_infer,
        gradient=Joint(_gradient), residuals=(), lower=Bundle(),
        reference=lambda *x, call: x[: call.count], samples=lambda: (), errors=no_errors,
        cost=no_cost, dtypes=ALL,
        doc="the first ``call.count`` inputs as results; ``call.gradient(g, node)``, a user's "
        "function, gives the adjoints of the others",
    )
)  # fmt: skip


def record_call(call: Any, results: Sequence[Node], inputs: Sequence[Node]) -> Node:
    """A bundle for one call of a user's function (no signature is shared between calls)."""
    operands = (*results, *inputs)
    sig = Signature(bundle, {"call": call}, tuple(n.type for n in operands))
    node = Node(sig, operands, user_site(), True)
    recorder.state.pending.append(node)
    return node
