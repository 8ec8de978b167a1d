"""Rprop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from treadle.ir.node import Node
from treadle.ops.elementwise import full_like, gt, lt, maximum, minimum, mul, sign, sub, where
from treadle.optim.optimizer import Group, Optimizer, State, check, not_negative, refused, wide
from treadle.tensor.creation import full
from treadle.tensor.tensor import Tensor


class Rprop(Optimizer):
    """A step size of its own for every number, by the signs of its gradients (Riedmiller, 1993).

    ::

        s = clamp(s * (etaplus if g * g_before > 0 else etaminus if g * g_before < 0 else 1))
        g = 0 where g * g_before < 0
        p = p - sign(g) * s,     g_before = g

    with ``etas = (etaminus, etaplus)`` and s between ``step_sizes``, lr at first. For the gradient
    of all data, not of batches. Source: PyTorch's ``torch.optim.Rprop``.
    """

    counts_steps = True

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0), *, capturable: bool = False,
        foreach: bool | None = None, maximize: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        check(
            "Rprop", lr=not_negative(lr), differentiable=refused(differentiable),
            etas=(etas, 0 < etas[0] < 1 < etas[1], "be below 1 and above 1"),
        )  # fmt: skip
        super().__init__(params, {
            "lr": lr, "etas": tuple(etas), "step_sizes": tuple(step_sizes), "maximize": maximize,
        })  # fmt: skip

    def _begin(self, group: Group, p: Tensor, state: State) -> None:
        if not state:
            sizes = full(tuple(p.shape), float(group["lr"]), dtype=wide(p.dtype))
            state.update(step=0, prev=self._zeros(p), step_size=sizes)

    def _numbers(self, group: Group, step: int) -> tuple[float, ...]:
        return (*group["etas"], *group["step_sizes"])

    def _update(
        self, group: Group, value: Node, g: Node, state: dict[str, Node], *numbers: Node
    ) -> Node:
        slower, faster, least, most = numbers
        agreement, zero = mul(g, state["prev"]), full_like(g, 0)
        apart = lt(agreement, zero)
        factor = where(gt(agreement, zero), faster, where(apart, slower, full_like(g, 1)))
        size = minimum(maximum(mul(state["step_size"], factor), least), most)
        g = where(apart, zero, g)
        state["prev"], state["step_size"] = g, size
        return sub(value, mul(sign(g), size))


__all__ = ["Rprop"]
