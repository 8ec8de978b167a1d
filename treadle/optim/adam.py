"""Adam and AdamW."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from treadle.ir.node import Node
from treadle.ops.elementwise import add, div, maximum, mul, sqrt, sub
from treadle.optim.optimizer import Group, Optimizer, State, check, fraction, not_negative, refused
from treadle.tensor.tensor import Tensor


class Adam(Optimizer):
    """Adaptive moment estimation (Kingma and Ba, 2015).

    ::

        g = gradient + weight_decay * p
        m = m + (1 - beta1) * (g - m)
        v = beta2 * v + (1 - beta2) * g * g           (amsgrad: the largest v so far below)
        p = p - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)

    ``maximize`` goes uphill; ``decoupled_weight_decay`` makes it ``AdamW``. ``foreach``, ``fused``
    and ``capturable`` are PyTorch's and change nothing: a step is one program anyway. Source:
    PyTorch's ``torch.optim.Adam``.

    >>> import treadle
    >>> p = treadle.nn.Parameter([1.0])
    >>> optimizer = Adam([p], lr=0.5)
    >>> (p * p).sum().backward()
    >>> optimizer.step()
    >>> round(p.item(), 6)
    0.5
    """

    counts_steps = True

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, amsgrad: bool = False, *,
        foreach: bool | None = None, maximize: bool = False, capturable: bool = False,
        differentiable: bool = False, fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:  # fmt: skip
        check(
            type(self).__name__, lr=not_negative(lr), differentiable=refused(differentiable),
            eps=not_negative(eps),
            beta1=fraction(betas[0]), beta2=fraction(betas[1]),
            weight_decay=not_negative(weight_decay),
        )  # fmt: skip
        super().__init__(params, {
            "lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay,
            "amsgrad": amsgrad, "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
        })  # fmt: skip

    def _begin(self, group: Group, p: Tensor, state: State) -> None:
        if not state:
            state.update(step=0, exp_avg=self._zeros(p), exp_avg_sq=self._zeros(p))
        if group["amsgrad"] and "max_exp_avg_sq" not in state:
            state["max_exp_avg_sq"] = self._zeros(p)

    def _numbers(self, group: Group, step: int) -> tuple[float, ...]:
        lr, (beta1, beta2), decay = group["lr"], group["betas"], group["weight_decay"]
        return (
            1 - lr * decay if group["decoupled_weight_decay"] else decay,
            1 - beta1, beta2, 1 - beta2, group["eps"],
            math.sqrt(1 - beta2**step), -(lr / (1 - beta1**step)),
        )  # fmt: skip

    def _update(
        self, group: Group, value: Node, g: Node, state: dict[str, Node], *numbers: Node
    ) -> Node:
        shrink, fresh1, kept2, fresh2, eps, root, rate = numbers
        if group["weight_decay"] and group["decoupled_weight_decay"]:
            value = mul(value, shrink)
        elif group["weight_decay"]:
            g = add(g, mul(shrink, value))
        m, v = state["exp_avg"], state["exp_avg_sq"]
        m = state["exp_avg"] = add(m, mul(fresh1, sub(g, m)))
        v = state["exp_avg_sq"] = add(mul(v, kept2), mul(mul(fresh2, g), g))
        if group["amsgrad"]:
            v = state["max_exp_avg_sq"] = maximum(state["max_exp_avg_sq"], v)
        divisor = add(div(sqrt(v), root), eps)
        return add(value, div(mul(rate, m), divisor))


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019).

    As ``Adam``, but decay shrinks the parameters, ``p = p * (1 - lr * weight_decay)`` before the
    step, and leaves the gradient alone. Source: PyTorch's ``torch.optim.AdamW``.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 1e-2, amsgrad: bool = False, *,
        maximize: bool = False, foreach: bool | None = None, capturable: bool = False,
        differentiable: bool = False, fused: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize,
            differentiable=differentiable, decoupled_weight_decay=True,
        )  # fmt: skip


__all__ = ["Adam", "AdamW"]
