"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from treadle.ir.node import Node, located
from treadle.ops.elementwise import add, mul
from treadle.optim.optimizer import Group, Optimizer, check, not_negative, refused


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    ::

        g = gradient + weight_decay * p
        b = momentum * b + (1 - dampening) * g        (b = g in the first step)
        p = p - lr * (g + momentum * b if nesterov else b if momentum else g)

    ``maximize`` goes uphill. ``foreach`` and ``fused`` are PyTorch's and change nothing: a step is
    one program anyway. Source: PyTorch's ``torch.optim.SGD``.

    >>> import treadle
    >>> p = treadle.nn.Parameter([1.0])
    >>> optimizer = SGD([p], lr=0.25)
    >>> (p * p).sum().backward()
    >>> optimizer.step()
    >>> p.tolist()
    [0.5]
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0.0,
        dampening: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False, *,
        maximize: bool = False, foreach: bool | None = None, differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:  # fmt: skip
        check(
            "SGD", lr=not_negative(lr), differentiable=refused(differentiable),
            momentum=not_negative(momentum),
            weight_decay=not_negative(weight_decay),
        )  # fmt: skip
        if nesterov and (momentum <= 0 or dampening != 0):
            raise located(ValueError(
                f"SGD: got nesterov=True, momentum={momentum} and dampening={dampening}; Nesterov "
                f"needs a positive momentum and no dampening"
            ))  # fmt: skip
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
            "nesterov": nesterov, "maximize": maximize,
        })  # fmt: skip

    def _numbers(self, group: Group, step: int) -> tuple[float, ...]:
        return -group["lr"], group["momentum"], 1 - group["dampening"], group["weight_decay"]

    def _update(
        self, group: Group, value: Node, g: Node, state: dict[str, Node], *numbers: Node
    ) -> Node:
        rate, kept, share, shrink = numbers
        if group["weight_decay"]:
            g = add(g, mul(shrink, value))
        if group["momentum"]:
            buffer = state.get("momentum_buffer")
            b = g if buffer is None else add(mul(buffer, kept), mul(share, g))
            state["momentum_buffer"] = b
            g = add(g, mul(kept, b)) if group["nesterov"] else b
        return add(value, mul(rate, g))


__all__ = ["SGD"]
