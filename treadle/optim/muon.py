"""Muon; and what stands for PyTorch's optimizer of sparse gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from treadle.ir.node import Node, located
from treadle.optim.optimizer import Group, Optimizer, State, check, not_negative
from treadle.tensor.arithmetic import cast
from treadle.tensor.contraction import matmul
from treadle.tensor.handle import wrap
from treadle.tensor.tensor import Tensor


class Muon(Optimizer):
    """Momentum whose matrices are made orthogonal (Jordan et al., 2024); of matrices only.

    ::

        m = momentum m + (1 - momentum) g;  u = (1 - momentum) g + momentum m   (nesterov; else m)
        p = p (1 - lr weight_decay) - lr' orthogonal(u)

    ``orthogonal`` takes ``ns_steps`` steps of Newton and Schulz,
    ``X (a + b X^T X + c (X^T X)^2)``, in bfloat16. With ``adjust_lr_fn`` None or "original" lr' is
    ``lr sqrt(max(1, rows / columns))``, with "match_rms_adamw" ``0.2 lr sqrt(max(rows, columns))``.
    Source: PyTorch's ``torch.optim.Muon``.
    """

    spreads_numbers = False
    structural = ("ns_steps",)

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, weight_decay: float = 0.1,
        momentum: float = 0.95, nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315), eps: float = 1e-7,
        ns_steps: int = 5, adjust_lr_fn: str | None = None,
    ) -> None:  # fmt: skip
        check(
            "Muon", lr=not_negative(lr), momentum=not_negative(momentum),
            weight_decay=not_negative(weight_decay),
        )  # fmt: skip
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise located(ValueError(
                f"Muon: got adjust_lr_fn={adjust_lr_fn!r}; it is None, 'original' or "
                f"'match_rms_adamw'"
            ))  # fmt: skip
        super().__init__(params, {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
            "ns_coefficients": tuple(ns_coefficients), "eps": eps, "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn, "maximize": False,
        })  # fmt: skip

    def add_param_group(self, param_group: Group) -> None:
        """Adds a dictionary with ``params``, which must be matrices, and its settings."""
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            if p.ndim != 2:
                self.param_groups.pop()
                raise located(ValueError(
                    f"Muon: got a parameter of shape {tuple(p.shape)}; it takes matrices: give the "
                    f"others to AdamW"
                ))  # fmt: skip

    def _begin(self, group: Group, p: Tensor, state: State) -> None:
        if not state:
            state["momentum_buffer"] = self._zeros(p)

    def _numbers(self, group: Group, step: int) -> tuple[float, ...]:
        lr, momentum = group["lr"], group["momentum"]
        return (
            1 - lr * group["weight_decay"], 1 - momentum, momentum, group["eps"], lr,
            *group["ns_coefficients"],
        )  # fmt: skip

    def _update(
        self, group: Group, value: Node, g: Node, state: dict[str, Node], *numbers: Node
    ) -> Node:
        shrink, fresh, momentum, eps, lr, *coefficients = (wrap(n) for n in numbers)
        gradient, old = wrap(g), wrap(state["momentum_buffer"])
        buffer = old + fresh * (gradient - old)
        state["momentum_buffer"] = buffer.node
        update = gradient + momentum * (buffer - gradient) if group["nesterov"] else buffer
        rows, columns = value.shape
        factor = math.sqrt(max(1, rows / columns))
        if group["adjust_lr_fn"] == "match_rms_adamw":
            factor = 0.2 * math.sqrt(max(rows, columns))
        turned = _orthogonal(update, coefficients, group["ns_steps"], eps)
        return (wrap(value) * shrink - lr * factor * turned).node


def _orthogonal(x: Tensor, coefficients: list[Tensor], steps: int, eps: Tensor) -> Tensor:
    """Near the closest orthogonal matrix."""
    wide = x.shape[0] <= x.shape[1]
    out = x.bfloat16() if wide else x.bfloat16().T
    a, b, c = (k.float() for k in coefficients)
    norm = (out.float() * out.float()).sum().sqrt()
    out = (out.float() / norm.maximum(eps.float())).bfloat16()
    for _ in range(steps):
        gram = matmul(out, out.T)
        update = (b * gram.float() + c * matmul(gram, gram).float()).bfloat16()
        out = (a * out.float() + matmul(update, out).float()).bfloat16()
    return wrap(cast((out if wide else out.T).node, x.dtype))


class SparseAdam(Optimizer):
    """PyTorch's Adam for sparse gradients, which there are none of here: it is refused."""

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, maximize: bool = False,
    ) -> None:  # fmt: skip
        raise located(NotImplementedError(
            "SparseAdam: there are no sparse gradients here; use Adam, with Embedding(sparse=False)"
        ))  # fmt: skip


__all__ = ["Muon", "SparseAdam"]
