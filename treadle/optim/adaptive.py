"""Optimizers that scale every number by the size of its past gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from treadle.ir.node import Node
from treadle.ops.elementwise import add, div, mul, sqrt, sub
from treadle.optim.optimizer import Group, Optimizer, State, check, not_negative, refused, wide
from treadle.tensor.creation import full
from treadle.tensor.tensor import Tensor


class RMSprop(Optimizer):
    """Gradients divided by a running root mean square (Hinton, 2012).

    ::

        g = gradient + weight_decay * p
        v = alpha * v + (1 - alpha) * g * g
        a = sqrt(v) + eps            (centered: sqrt(v - mean^2) + eps with a running mean of g)
        b = momentum * b + g / a
        p = p - lr * b               (without momentum: p - lr * g / a)

    Source: PyTorch's ``torch.optim.RMSprop``.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
        weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False,
        capturable: bool = False, foreach: bool | None = None, maximize: bool = False,
        differentiable: bool = False,
    ) -> None:  # fmt: skip
        check(
            "RMSprop", lr=not_negative(lr), differentiable=refused(differentiable),
            alpha=not_negative(alpha), eps=not_negative(eps),
            weight_decay=not_negative(weight_decay), momentum=not_negative(momentum),
        )  # fmt: skip
        super().__init__(params, {
            "lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay,
            "momentum": momentum, "centered": centered, "maximize": maximize,
        })  # fmt: skip

    def _begin(self, group: Group, p: Tensor, state: State) -> None:
        for key, is_wanted in (
            ("square_avg", True), ("grad_avg", group["centered"]),
            ("momentum_buffer", group["momentum"]),
        ):  # fmt: skip
            if is_wanted and key not in state:
                state[key] = self._zeros(p)

    def _numbers(self, group: Group, step: int) -> tuple[float, ...]:
        alpha = group["alpha"]
        return (
            group["weight_decay"], alpha, 1 - alpha, group["eps"], group["momentum"], -group["lr"]
        )  # fmt: skip

    def _update(
        self, group: Group, value: Node, g: Node, state: dict[str, Node], *numbers: Node
    ) -> Node:
        decay, kept, fresh, eps, again, rate = numbers
        if group["weight_decay"]:
            g = add(g, mul(decay, value))
        square = state["square_avg"] = add(mul(state["square_avg"], kept), mul(mul(fresh, g), g))
        if group["centered"]:
            mean = state["grad_avg"]
            mean = state["grad_avg"] = add(mean, mul(fresh, sub(g, mean)))
            square = sub(square, mul(mean, mean))
        divisor = add(sqrt(square), eps)
        if not group["momentum"]:
            return add(value, div(mul(rate, g), divisor))
        buffer = add(mul(state["momentum_buffer"], again), div(g, divisor))
        state["momentum_buffer"] = buffer
        return add(value, mul(rate, buffer))


class Adagrad(Optimizer):
    """Gradients divided by the root of the sum of all past squares (Duchi et al., 2011).

    ::

        g = gradient + weight_decay * p
        s = s + g * g
        p = p - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)

    Source: PyTorch's ``torch.optim.Adagrad``.
    """

    counts_steps = True

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, lr_decay: float = 0.0,
        weight_decay: float = 0.0, initial_accumulator_value: float = 0.0, eps: float = 1e-10,
        foreach: bool | None = None, *, maximize: bool = False, differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:  # fmt: skip
        check(
            "Adagrad", lr=not_negative(lr), differentiable=refused(differentiable),
            lr_decay=not_negative(lr_decay),
            weight_decay=not_negative(weight_decay), eps=not_negative(eps),
            initial_accumulator_value=not_negative(initial_accumulator_value),
        )  # fmt: skip
        super().__init__(params, {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "maximize": maximize,
        })  # fmt: skip

    def _begin(self, group: Group, p: Tensor, state: State) -> None:
        if not state:
            start = float(group["initial_accumulator_value"])
            state.update(step=0, sum=full(tuple(p.shape), start, dtype=wide(p.dtype)))

    def _numbers(self, group: Group, step: int) -> tuple[float, ...]:
        rate = -(group["lr"] / (1 + (step - 1) * group["lr_decay"]))
        return group["weight_decay"], group["eps"], rate

    def _update(
        self, group: Group, value: Node, g: Node, state: dict[str, Node], *numbers: Node
    ) -> Node:
        decay, eps, rate = numbers
        if group["weight_decay"]:
            g = add(g, mul(decay, value))
        total = state["sum"] = add(state["sum"], mul(g, g))
        return add(value, div(mul(rate, g), add(sqrt(total), eps)))


__all__ = ["Adagrad", "RMSprop"]
