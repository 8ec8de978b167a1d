"""Averaged stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from treadle.ir.node import Node
from treadle.ops.elementwise import add, eq, full_like, mul, sub, where
from treadle.optim.optimizer import Group, Optimizer, State, check, not_negative, refused
from treadle.tensor.tensor import Tensor


class ASGD(Optimizer):
    """Stochastic gradient descent that also averages the parameters (Polyak and Juditsky, 1992).

    ::

        g = gradient + weight_decay * p
        r = lr / (1 + lambd * lr * (t - 1))^alpha
        p = p * (1 - lambd * r) - r * g
        a = a + (p - a) / max(1, t - 1 - t0)

    The average a is ``state[p]["ax"]``. Source: PyTorch's ``torch.optim.ASGD``.
    """

    counts_steps = True

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, lambd: float = 1e-4, alpha: float = 0.75,
        t0: float = 1e6, weight_decay: float = 0.0, foreach: bool | None = None,
        maximize: bool = False, differentiable: bool = False, capturable: bool = False,
    ) -> None:  # fmt: skip
        check(
            "ASGD",
            lr=not_negative(lr),
            differentiable=refused(differentiable),
            weight_decay=not_negative(weight_decay),
        )
        super().__init__(params, {
            "lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay,
            "maximize": maximize,
        })  # fmt: skip

    def _begin(self, group: Group, p: Tensor, state: State) -> None:
        if not state:
            state.update(step=0, ax=self._zeros(p))

    def _numbers(self, group: Group, step: int) -> tuple[float, ...]:
        lr, lambd = group["lr"], group["lambd"]
        rate = lr / (1 + lambd * lr * (step - 1)) ** group["alpha"]
        share = 1 / max(1, step - 1 - group["t0"])
        return group["weight_decay"], 1 - lambd * rate, -rate, share

    def _update(
        self, group: Group, value: Node, g: Node, state: dict[str, Node], *numbers: Node
    ) -> Node:
        decay, kept, rate, share = numbers
        if group["weight_decay"]:
            g = add(g, mul(decay, value))
        value = add(mul(value, kept), mul(rate, g))
        mean = state["ax"]
        all_of_it = eq(share, full_like(share, 1))  # then exactly the parameter
        state["ax"] = where(all_of_it, value, add(mean, mul(sub(value, mean), share)))
        return value


__all__ = ["ASGD"]
