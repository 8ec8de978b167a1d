"""Gradients of a network clipped, taken together or one by one.

``foreach`` is PyTorch's and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from treadle.ir.node import Node, located
from treadle.ops import elementwise as e
from treadle.ops.movement import expand
from treadle.tensor import arithmetic as a
from treadle.tensor import reduction
from treadle.tensor.creation import zeros
from treadle.tensor.grad_mode import no_grad
from treadle.tensor.handle import Handle, wrap
from treadle.tensor.joining import stack
from treadle.tensor.tensor import Tensor

Tensors = Tensor | Iterable[Tensor]


def _gradients(parameters: Tensors) -> list[Tensor]:
    items = [parameters] if isinstance(parameters, Handle) else list(parameters)
    return [p.grad for p in items if p.grad is not None]


@no_grad()  # not a `with` block, at whose end Ctrl-C could leave gradients off
def clip_grad_norm_(
    parameters: Tensors, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:  # fmt: skip
    """Scales the gradients so that their norm, taken as one vector, is at most ``max_norm``.

    The factor is ``min(max_norm / (norm + 1e-6), 1)``. Returns the norm before; nothing waits for
    it unless ``error_if_nonfinite``.
    """
    items = [parameters] if isinstance(parameters, Handle) else list(parameters)
    total = get_total_norm(_gradients(items), norm_type)
    if error_if_nonfinite and not bool(a.isfinite(total).item()):
        raise located(RuntimeError(
            f"clip_grad_norm_: the norm of the gradients is {total.item()}; it must be finite; "
            f"look for the layer with treadle.isfinite(p.grad).all()"
        ))  # fmt: skip
    clip_grads_with_norm_(items, max_norm, total)
    return total


clip_grad_norm = clip_grad_norm_  # PyTorch's older name


def get_total_norm(
    tensors: Tensors, norm_type: float = 2.0, error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:  # fmt: skip
    """The norm of several tensors taken as one vector."""
    items = [tensors] if isinstance(tensors, Handle) else list(tensors)
    if not items:
        return zeros(())
    wide = [wrap(x.node) if x.node.dtype.bits > 16 else x.float() for x in items]
    total = reduction.norm(stack([reduction.norm(x, norm_type) for x in wide]), norm_type)
    if error_if_nonfinite and not bool(a.isfinite(total).item()):
        raise located(RuntimeError(
            f"get_total_norm: the norm is {total.item()}; it must be finite; look for the tensor "
            f"with treadle.isfinite(x).all()"
        ))  # fmt: skip
    return total


@no_grad()  # as above
def clip_grads_with_norm_(
    parameters: Tensors, max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Scales the gradients by ``min(max_norm / (total_norm + 1e-6), 1)``."""
    factor = a.clamp(a.div(max_norm, a.add(total_norm, 1e-6)), max=1.0)
    for g in _gradients(parameters):
        g._write(_scaled(g.node, factor.node))


def _scaled(node: Node, factor: Node) -> Node:
    wide = a.cast(node, factor.dtype)
    return a.cast(e.mul(wide, expand(factor, shape=node.shape)), node.dtype)


@no_grad()  # not a `with` block, at whose end Ctrl-C could leave gradients off
def clip_grad_value_(parameters: Tensors, clip_value: float, foreach: bool | None = None) -> None:
    """Clamps every element of the gradients to [-clip_value, clip_value]."""
    for g in _gradients(parameters):
        g._write(a.clamp(g, min=-clip_value, max=clip_value).node)


__all__ = [
    "clip_grad_norm", "clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_",
    "get_total_norm",
]  # fmt: skip
