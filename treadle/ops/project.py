"""Taking one result of an op that has several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.ir.node import Node, Type
from treadle.ir.op import ANY_LEADING, NoGradient, Op, View
from treadle.ops.registry import ALL, no_cost, no_errors, register


def _infer(types: Sequence[Any], attrs: dict[str, Any]) -> Type:
    return types[0][attrs["index"]]


project = register(
    Op(
        name="project", family="movement", traits=frozenset({"movement", "project"}),
        infer=_infer,
        # backward() hands the adjoint of a projection to the op itself, in its place.
        # And the forward mode takes the tangent of that result.
        gradient=NoGradient("backward() treats projections itself"), residuals=(),
        lower=View(lambda layout, out, index: (layout.strides, 0)), batch=ANY_LEADING,
        reference=lambda *x, index: x[index], samples=lambda: (), errors=no_errors,
        cost=no_cost, dtypes=ALL, doc="result number ``index`` of an op with several results",
    )
)  # fmt: skip


def results(node: Node) -> tuple[Node, ...]:
    """All results of an op with several."""
    return tuple(project(node, index=i) for i in range(len(node.type)))
