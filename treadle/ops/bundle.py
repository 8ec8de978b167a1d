"""Several values as the results of one op: how a user's own gradient enters the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.ir.node import Node, Type, recorder, signature_of, user_site
from treadle.ir.op import Bundle, Joint, Op
from treadle.ops.registry import ALL, no_cost, no_errors, register


class Bundled(Node):
    """One call of a user's function; ``call`` is None once its gradient cannot be asked for."""

    __slots__ = ("call",)

    call: Any


def _infer(types: Sequence[Type], attrs: dict[str, Any]) -> tuple[Type, ...]:
    return tuple(types[: attrs["count"]])


def _gradient(g: Any, n: Node) -> Sequence[Node | None]:
    call = n.call  # type: ignore[attr-defined]
    return [None] * call.count + list(call.gradient(g, n))


def _tangent(moved: Sequence[Node | None], n: Node) -> Any:
    return n.call.tangent(moved, n)  # type: ignore[attr-defined]


def _batch(inputs: list[Node], batched: list[bool], size: int, n: Node) -> Node:
    made: Node = n.call.batched(inputs, batched, size, n)  # type: ignore[attr-defined]
    return made


bundle = register(
    Op(
        name="bundle", family="movement", traits=frozenset({"movement"}), infer=_infer,
        gradient=Joint(_gradient), residuals=(), lower=Bundle(), jvp=_tangent, batch=_batch,
        reference=lambda *x, count: x[:count], samples=lambda: (), errors=no_errors,
        cost=no_cost, dtypes=ALL,
        doc="the first ``count`` inputs as results; ``call.gradient(g, node)`` of the node's "
        "``call``, a user's function, gives the adjoints of the others; its ``tangent`` and "
        "``batched`` are its rules for forward mode and batching",
    )
)  # fmt: skip


def record_call(call: Any, results: Sequence[Node], inputs: Sequence[Node]) -> Node:
    """A bundle for one call of a user's function.

    ``call.gradient`` is a user's; it is ``call.is_pure`` if what it records follows from the graph.
    """
    operands = (*results, *inputs)
    sig = signature_of(bundle, tuple([n.type for n in operands]), {"count": call.count})
    node = Bundled(sig, operands, user_site(), True)
    node.call = call
    recorder.state.pending.append(node)
    return node


__all__ = ["Bundled", "bundle", "record_call"]
