"""PyTorch's ``autograd.forward_ad``: tangents that go along with tensors.

    with dual_level():
        x = make_dual(primal, tangent)
        y = f(x)
        value, derivative = unpack_dual(y)

Nothing is computed on the way: the tangent is recorded when a tensor is unpacked.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import NamedTuple

from treadle.autodiff.forward import tangents
from treadle.autodiff.variables import settle, variable
from treadle.autograd.recorded import matching
from treadle.base.errors import GradientError
from treadle.ir.node import Leaf, Node, located, recorder
from treadle.tensor.handle import wrap
from treadle.tensor.tensor import Tensor


class _Levels(threading.local):
    given: dict[Leaf, Node] | None = None  # the tangents of the level that is open


_levels = _Levels()


class UnpackedDualTensor(NamedTuple):
    """A tensor and its tangent (None where there is none)."""

    primal: Tensor
    tangent: Tensor | None


def enter_dual_level() -> int:
    """Opens a level; ``dual_level()`` also closes it."""
    if _levels.given is not None:
        raise located(RuntimeError(
            "enter_dual_level: got a level inside another; forward mode nests by treadle.func.jvp"
        ))  # fmt: skip
    _levels.given = {}
    return 0


def exit_dual_level(*, level: int | None = None) -> None:
    """Closes the level: its tensors have no tangents any more."""
    if _levels.given is None:
        raise located(RuntimeError("exit_dual_level: no level is open; call enter_dual_level()"))
    _levels.given = None


class dual_level:
    """The part of a program in which tensors have tangents.

    >>> import treadle
    >>> with dual_level():
    ...     x = make_dual(treadle.tensor(3.0), treadle.tensor(1.0))
    ...     value, derivative = unpack_dual(x * x)
    >>> value.item(), derivative.item()
    (9.0, 6.0)
    """

    def __enter__(self) -> int:
        return enter_dual_level()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        exit_dual_level()


def make_dual(tensor: Tensor, tangent: Tensor, *, level: int | None = None) -> Tensor:
    """The tensor with a tangent of the same shape and dtype."""
    if _levels.given is None:
        raise located(RuntimeError(
            "make_dual: no level is open; use it inside `with dual_level():`"
        ))  # fmt: skip
    if not recorder.state.grad_enabled:
        raise located(GradientError(
            "make_dual: got a call under no_grad(), where nothing is recorded that tangents could "
            "follow; leave it, or use treadle.func.jvp"
        ))  # fmt: skip
    matching("make_dual", "tangents", tangent, [tensor.node])
    leaf = variable(tensor.node)
    _levels.given[leaf] = tangent.node
    return wrap(leaf)


def unpack_dual(tensor: Tensor, *, level: int | None = None) -> UnpackedDualTensor:
    """The tensor without its tangent, and the tangent."""
    given = _levels.given
    if not given:
        return UnpackedDualTensor(tensor, None)
    node = tensor.node
    (moved,) = tangents([node], given)
    primal = wrap(settle([node], list(given), float("inf"))[0])
    return UnpackedDualTensor(primal, None if moved is None else wrap(moved))


__all__ = [
    "UnpackedDualTensor", "dual_level", "enter_dual_level", "exit_dual_level", "make_dual",
    "unpack_dual",
]  # fmt: skip
