"""Adamax, NAdam and RAdam: Adam with another second moment, with Nesterov's step, rectified."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from treadle.ir.node import Node
from treadle.ops.elementwise import abs_, add, div, full_like, gt, maximum, mul, sqrt, sub, where
from treadle.optim.optimizer import Group, Optimizer, State, check, fraction, not_negative, refused
from treadle.tensor.tensor import Tensor

Betas = tuple[float, float]


class _OfAdam(Optimizer):
    """What the three share: their settings, two moments, and weight decay of either kind."""

    counts_steps = True

    def __init__(
        self, params: Iterable[Any], lr: float, betas: Betas, eps: float, weight_decay: float,
        differentiable: bool, **more: Any,
    ) -> None:  # fmt: skip
        check(
            type(self).__name__, lr=not_negative(lr), differentiable=refused(differentiable),
            eps=not_negative(eps),
            beta1=fraction(betas[0]), beta2=fraction(betas[1]),
            weight_decay=not_negative(weight_decay),
        )  # fmt: skip
        super().__init__(params, {
            "lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, **more,
        })  # fmt: skip

    def _begin(self, group: Group, p: Tensor, state: State) -> None:
        if not state:
            state.update(step=0, exp_avg=self._zeros(p), exp_avg_sq=self._zeros(p))


def _shrink(group: Group) -> float:
    """The number by which weight decay works."""
    decoupled = group["decoupled_weight_decay"]
    return 1 - group["lr"] * group["weight_decay"] if decoupled else group["weight_decay"]


def _decayed(group: Group, value: Node, g: Node, shrink: Node) -> tuple[Node, Node]:
    """Parameter and gradient after weight decay."""
    if not group["weight_decay"]:
        return value, g
    if group["decoupled_weight_decay"]:
        return mul(value, shrink), g
    return value, add(g, mul(shrink, value))


def _moments(
    state: dict[str, Node], g: Node, fresh1: Node, kept2: Node, fresh2: Node
) -> tuple[Node, Node]:
    """The running means of gradient and square."""
    m, v = state["exp_avg"], state["exp_avg_sq"]
    m = state["exp_avg"] = add(m, mul(fresh1, sub(g, m)))
    v = state["exp_avg_sq"] = add(mul(v, kept2), mul(mul(fresh2, g), g))
    return m, v


class Adamax(_OfAdam):
    """Adam by the largest gradient instead of the root mean square (Kingma and Ba, 2015).

    ::

        g = gradient + weight_decay * p
        m = m + (1 - beta1) * (g - m)
        u = max(beta2 * u, |g| + eps)
        p = p - lr / (1 - beta1^t) * m / u

    Source: PyTorch's ``torch.optim.Adamax``.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 2e-3, betas: Betas = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, foreach: bool | None = None, *,
        maximize: bool = False, differentiable: bool = False, capturable: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr, betas, eps, weight_decay, maximize=maximize, differentiable=differentiable
        )

    def _begin(self, group: Group, p: Tensor, state: State) -> None:
        if not state:
            state.update(step=0, exp_avg=self._zeros(p), exp_inf=self._zeros(p))

    def _numbers(self, group: Group, step: int) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        rate = -(group["lr"] / (1 - beta1**step))
        return group["weight_decay"], 1 - beta1, beta2, group["eps"], rate

    def _update(
        self, group: Group, value: Node, g: Node, state: dict[str, Node], *numbers: Node
    ) -> Node:
        decay, fresh, kept, eps, rate = numbers
        if group["weight_decay"]:
            g = add(g, mul(decay, value))
        m = state["exp_avg"]
        m = state["exp_avg"] = add(m, mul(fresh, sub(g, m)))
        u = state["exp_inf"] = maximum(mul(state["exp_inf"], kept), add(abs_(g), eps))
        return add(value, div(mul(rate, m), u))


class NAdam(_OfAdam):
    """Adam with Nesterov momentum (Dozat, 2016).

    ::

        m_t = beta1 * (1 - 0.96^(t * momentum_decay) / 2)         M_t = m_1 * ... * m_t
        d = sqrt(v / (1 - beta2^t)) + eps                         (m and v as in Adam)
        p = p - lr * (1 - m_t) / (1 - M_t) * g / d - lr * m_(t+1) / (1 - M_(t+1)) * m / d

    Source: PyTorch's ``torch.optim.NAdam``.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 2e-3, betas: Betas = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False, *, foreach: bool | None = None,
        maximize: bool = False, capturable: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        check("NAdam", momentum_decay=not_negative(momentum_decay))
        self._products: dict[tuple[float, float], list[float]] = {}
        super().__init__(
            params, lr, betas, eps, weight_decay, momentum_decay=momentum_decay,
            decoupled_weight_decay=decoupled_weight_decay, maximize=maximize,
            differentiable=differentiable,
        )  # fmt: skip

    def _numbers(self, group: Group, step: int) -> tuple[float, ...]:
        lr, (beta1, beta2), decay = group["lr"], group["betas"], group["momentum_decay"]

        def momentum(t: int) -> float:
            return beta1 * (1 - 0.5 * 0.96 ** (t * decay))

        products = self._products.setdefault((beta1, decay), [1.0])
        while len(products) < step + 2:
            products.append(products[-1] * momentum(len(products)))
        now, following = momentum(step), momentum(step + 1)
        return (
            _shrink(group), 1 - beta1, beta2, 1 - beta2, 1 - beta2**step, group["eps"],
            -(lr * (1 - now) / (1 - products[step])), -(lr * following / (1 - products[step + 1])),
        )  # fmt: skip

    def _update(
        self, group: Group, value: Node, g: Node, state: dict[str, Node], *numbers: Node
    ) -> Node:
        shrink, fresh1, kept2, fresh2, correction, eps, by_gradient, by_momentum = numbers
        value, g = _decayed(group, value, g, shrink)
        m, v = _moments(state, g, fresh1, kept2, fresh2)
        divisor = add(sqrt(div(v, correction)), eps)
        value = add(value, div(mul(by_gradient, g), divisor))
        return add(value, div(mul(by_momentum, m), divisor))


class RAdam(_OfAdam):
    """Adam that waits with scaling until the variance of the scale is known (Liu et al., 2020).

    ::

        R = 2 / (1 - beta2) - 1,     r_t = R - 2 * t * beta2^t / (1 - beta2^t)
        p = p - lr * M                                            where r_t <= 5, else
        p = p - lr * M * sqrt((r_t - 4)(r_t - 2)R / ((R - 4)(R - 2)r_t)) * sqrt(1 - beta2^t) / d

    with M = m / (1 - beta1^t), d = sqrt(v) + eps, m and v as in Adam.
    Source: PyTorch's ``torch.optim.RAdam``.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: Betas = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, decoupled_weight_decay: bool = False, *,
        foreach: bool | None = None, maximize: bool = False, capturable: bool = False,
        differentiable: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr, betas, eps, weight_decay, decoupled_weight_decay=decoupled_weight_decay,
            maximize=maximize,
            differentiable=differentiable,
        )  # fmt: skip

    def _numbers(self, group: Group, step: int) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        limit = 2 / (1 - beta2) - 1
        length = limit - 2 * step * beta2**step / (1 - beta2**step)
        scale = 0.0  # not yet: a step without scaling
        if length > 5:
            grown = (length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)
            scale = math.sqrt(grown) * math.sqrt(1 - beta2**step)
        return (
            _shrink(group), 1 - beta1, beta2, 1 - beta2, group["eps"], 1 - beta1**step, scale,
            -group["lr"],
        )  # fmt: skip

    def _update(
        self, group: Group, value: Node, g: Node, state: dict[str, Node], *numbers: Node
    ) -> Node:
        shrink, fresh1, kept2, fresh2, eps, correction, scale, rate = numbers
        value, g = _decayed(group, value, g, shrink)
        m, v = _moments(state, g, fresh1, kept2, fresh2)
        step = mul(div(m, correction), rate)
        scaled = mul(step, div(scale, add(sqrt(v), eps)))
        return add(value, where(gt(scale, full_like(scale, 0)), scaled, step))


__all__ = ["Adamax", "NAdam", "RAdam"]
