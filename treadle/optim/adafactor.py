"""Adafactor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from treadle.ir.node import Node, type_of
from treadle.ops.movement import zeros_of
from treadle.optim.optimizer import Group, Optimizer, State, check, not_negative, wide
from treadle.tensor import arithmetic as a
from treadle.tensor.handle import wrap
from treadle.tensor.selection import where
from treadle.tensor.tensor import Tensor

_EPS = {32: 2.0**-23, 64: 2.0**-52}  # of the dtype, by its bits


class Adafactor(Optimizer):
    """Adam whose second moments of matrices are kept as one row and one column each.

    Shazeer and Stern, 2018. With the share b = t^beta2_decay of the new gradient g::

        matrices:  R = (1-b) R + b mean_rows(g^2), C = (1-b) C + b mean_columns(g^2)
                   V = R C / max(mean(R), eps1)
        others:    V = (1-b) V + b g^2
        u = g / sqrt(max(V, eps1^2));  p = p (1 - lr weight_decay)
        p = p - max(eps2, rms(p)) min(lr, 1/sqrt(t)) u / max(1, rms(u) / d)

    eps1 is the spacing of the dtype unless given; rms(p) is taken before the decay. Source:
    PyTorch's ``torch.optim.Adafactor``.
    """

    counts_steps = True
    spreads_numbers = False

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3), d: float = 1.0, weight_decay: float = 0.0,
        *, foreach: bool | None = None, maximize: bool = False,
    ) -> None:  # fmt: skip
        check(
            "Adafactor", lr=not_negative(lr),
            beta2_decay=(beta2_decay, beta2_decay <= 0, "not be positive"),
            eps1=not_negative(eps[0] or 0.0), eps2=not_negative(eps[1]),
            d=(d, d >= 1, "be at least 1"), weight_decay=not_negative(weight_decay),
        )  # fmt: skip
        super().__init__(params, {
            "lr": lr, "beta2_decay": beta2_decay, "eps": tuple(eps), "d": d,
            "weight_decay": weight_decay, "maximize": maximize,
        })  # fmt: skip

    def _state_shape(self, key: str, p: Tensor) -> tuple[int, ...]:
        shape = tuple(p.shape)
        if key == "row_var":
            return (*shape[:-1], 1)
        return (*shape[:-2], 1, shape[-1]) if key == "col_var" else shape

    def _begin(self, group: Group, p: Tensor, state: State) -> None:
        if not state:
            names = ("row_var", "col_var") if p.ndim > 1 else ("variance",)
            state["step"] = 0
            for name in names:
                kind = type_of(wide(p.dtype), self._state_shape(name, p))
                state[name] = wrap(zeros_of(kind))

    def _numbers(self, group: Group, step: int) -> tuple[float, ...]:
        eps1, eps2 = group["eps"]
        return (
            step ** group["beta2_decay"], min(group["lr"], step**-0.5),
            1 - group["lr"] * group["weight_decay"], -1.0 if eps1 is None else eps1, eps2,
            group["d"],
        )  # fmt: skip

    def _update(
        self, group: Group, value: Node, g: Node, state: dict[str, Node], *numbers: Node
    ) -> Node:
        share, rate, shrink, eps1, eps2, d = (wrap(n) for n in numbers)
        p, gradient = wrap(value), wrap(g)
        eps1 = where(eps1 < 0, _EPS[value.dtype.bits], eps1)
        step = a.maximum(eps2, _rms(p)) * rate
        if group["weight_decay"]:
            p = p * shrink
        moved = {}
        squares = gradient * gradient
        for name, seen in (
            ("row_var", lambda: squares.mean(-1, keepdim=True)),
            ("col_var", lambda: squares.mean(-2, keepdim=True)),
            ("variance", lambda: squares),
        ):  # fmt: skip
            if name in state:
                old = wrap(state[name])
                moved[name] = old + share * (seen() - old)
                state[name] = moved[name].node
        if "variance" in moved:
            estimate = moved["variance"]
        else:
            rows, columns = moved["row_var"], moved["col_var"]
            estimate = rows * columns / a.maximum(rows.mean(-2, keepdim=True), eps1)
        update = gradient * a.maximum(estimate, eps1 * eps1).rsqrt()
        return (p - step / (_rms(update) / d).clamp(min=1.0) * update).node


def _rms(x: Tensor) -> Tensor:
    """The root of the mean square."""
    return (x * x).mean().sqrt()


__all__ = ["Adafactor"]
