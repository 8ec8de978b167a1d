"""Adadelta."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from treadle.ir.node import Node
from treadle.ops.elementwise import add, div, mul, sqrt
from treadle.optim.optimizer import Group, Optimizer, State, check, not_negative, refused
from treadle.tensor.tensor import Tensor


class Adadelta(Optimizer):
    """Steps in the proportion of past steps to past gradients (Zeiler, 2012).

    ::

        g = gradient + weight_decay * p
        v = rho * v + (1 - rho) * g * g
        d = sqrt(u + eps) / sqrt(v + eps) * g
        u = rho * u + (1 - rho) * d * d
        p = p - lr * d

    Source: PyTorch's ``torch.optim.Adadelta``.
    """

    counts_steps = True

    def __init__(
        self, params: Iterable[Any], lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6,
        weight_decay: float = 0.0, foreach: bool | None = None, *, capturable: bool = False,
        maximize: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        check(
            "Adadelta", lr=not_negative(lr), differentiable=refused(differentiable),
            eps=not_negative(eps),
            rho=(rho, 0 <= rho <= 1, "be from 0 to 1"), weight_decay=not_negative(weight_decay),
        )  # fmt: skip
        super().__init__(params, {
            "lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
        })  # fmt: skip

    def _begin(self, group: Group, p: Tensor, state: State) -> None:
        if not state:
            state.update(step=0, square_avg=self._zeros(p), acc_delta=self._zeros(p))

    def _numbers(self, group: Group, step: int) -> tuple[float, ...]:
        rho = group["rho"]
        return group["weight_decay"], rho, 1 - rho, group["eps"], -group["lr"]

    def _update(
        self, group: Group, value: Node, g: Node, state: dict[str, Node], *numbers: Node
    ) -> Node:
        decay, kept, fresh, eps, rate = numbers
        if group["weight_decay"]:
            g = add(g, mul(decay, value))
        v, u = state["square_avg"], state["acc_delta"]
        v = state["square_avg"] = add(mul(v, kept), mul(mul(fresh, g), g))
        delta = mul(div(sqrt(add(u, eps)), sqrt(add(v, eps))), g)
        state["acc_delta"] = add(mul(u, kept), mul(mul(fresh, delta), delta))
        return add(value, mul(rate, delta))


__all__ = ["Adadelta"]
