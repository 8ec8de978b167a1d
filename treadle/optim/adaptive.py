"""Optimizers that scale every number by the size of its past gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from treadle.ops.elementwise import add, div, mul, sqrt, sub
from treadle.optim.optimizer import Group, Optimizer, Step, check, not_negative, operands
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
        weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False, *,
        maximize: bool = False, foreach: bool | None = None,
    ) -> None:  # fmt: skip
        check(
            "RMSprop", lr=not_negative(lr), alpha=not_negative(alpha), eps=not_negative(eps),
            weight_decay=not_negative(weight_decay), momentum=not_negative(momentum),
        )  # fmt: skip
        super().__init__(params, {
            "lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay,
            "momentum": momentum, "centered": centered, "maximize": maximize,
        })  # fmt: skip

    def _record(self, group: Group, params: list[Tensor], step: Step) -> None:
        alpha, momentum = group["alpha"], group["momentum"]
        for p in params:
            state = self.state[p]
            for key, wanted in (
                ("square_avg", True), ("grad_avg", group["centered"]), ("momentum_buffer", momentum)
            ):  # fmt: skip
                if wanted and key not in state:
                    state[key] = self._zeros(p)
            value, g = operands(p, group["maximize"])
            decay, kept, fresh, eps, again, rate = step.spread(
                g.type, group["weight_decay"], alpha, 1 - alpha, group["eps"], momentum,
                -group["lr"],
            )  # fmt: skip
            if group["weight_decay"]:
                g = add(g, mul(decay, value))
            square = add(mul(state["square_avg"].node, kept), mul(mul(fresh, g), g))
            step.set(state["square_avg"], square)
            if group["centered"]:
                mean = state["grad_avg"].node
                mean = add(mean, mul(fresh, sub(g, mean)))
                step.set(state["grad_avg"], mean)
                square = sub(square, mul(mean, mean))
            divisor = add(sqrt(square), eps)
            if momentum:
                buffer = add(mul(state["momentum_buffer"].node, again), div(g, divisor))
                step.set(state["momentum_buffer"], buffer)
                step.set(p, add(value, mul(rate, buffer)))
            else:
                step.set(p, add(value, div(mul(rate, g), divisor)))


class Adagrad(Optimizer):
    """Gradients divided by the root of the sum of all past squares (Duchi et al., 2011).

    ::

        g = gradient + weight_decay * p
        s = s + g * g
        p = p - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)

    Source: PyTorch's ``torch.optim.Adagrad``.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, lr_decay: float = 0.0,
        weight_decay: float = 0.0, initial_accumulator_value: float = 0.0, eps: float = 1e-10, *,
        maximize: bool = False, foreach: bool | None = None, fused: bool | None = None,
    ) -> None:  # fmt: skip
        check(
            "Adagrad", lr=not_negative(lr), lr_decay=not_negative(lr_decay),
            weight_decay=not_negative(weight_decay), eps=not_negative(eps),
            initial_accumulator_value=not_negative(initial_accumulator_value),
        )  # fmt: skip
        super().__init__(params, {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "maximize": maximize,
        })  # fmt: skip

    def _record(self, group: Group, params: list[Tensor], step: Step) -> None:
        for p in params:
            state = self.state[p]
            value, g = operands(p, group["maximize"])
            if not state:
                start = group["initial_accumulator_value"]
                state.update(step=0, sum=full(tuple(p.shape), float(start), dtype=g.dtype))
            count = step.count(state)
            decay, eps, rate = step.spread(
                g.type, group["weight_decay"], group["eps"],
                -(group["lr"] / (1 + (count - 1) * group["lr_decay"])),
            )  # fmt: skip
            if group["weight_decay"]:
                g = add(g, mul(decay, value))
            total = add(state["sum"].node, mul(g, g))
            step.set(state["sum"], total)
            step.set(p, add(value, div(mul(rate, g), add(sqrt(total), eps))))


__all__ = ["Adagrad", "RMSprop"]
