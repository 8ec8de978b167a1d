"""Padding layers: ``functional.pad`` around sequences, images and volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.base.errors import ShapeError
from treadle.ir.node import located
from treadle.nn import functional as F
from treadle.nn.module import Module
from treadle.tensor.tensor import Tensor


class _Pad(Module):
    """``padding`` is one number for all sides, or (left, right, top, bottom, front, back)."""

    dims = 1  # how many dimensions are padded: the last ones of (N, C, ...) or (C, ...)
    mode = "constant"
    value: float | None = None

    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__()
        widths = (padding,) * (2 * self.dims) if isinstance(padding, int) else tuple(padding)
        if len(widths) != 2 * self.dims:
            raise located(ValueError(
                f"{type(self).__name__}: got padding {padding!r}; it takes an int, or "
                f"{2 * self.dims} of them: before and after, the last dimension first"
            ))  # fmt: skip
        self.padding = widths

    def forward(self, input: Tensor) -> Tensor:
        """The padded tensor."""
        if self.mode != "constant" and input.ndim not in (self.dims + 1, self.dims + 2):
            raise located(ShapeError(
                f"{type(self).__name__}: got an input of shape {tuple(input.shape)}; it takes "
                f"{self.dims + 1} or {self.dims + 2} dimensions"
            ))  # fmt: skip
        return F.pad(input, self.padding, self.mode, self.value)

    def extra_repr(self) -> str:
        """The widths."""
        return f"{self.padding}"


class ConstantPad1d(_Pad):
    """One number beside (N, C, L)."""

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def extra_repr(self) -> str:
        """The widths and the number."""
        return f"padding={self.padding}, value={self.value}"


class ConstantPad2d(ConstantPad1d):
    """One number around (N, C, H, W).

    >>> import treadle
    >>> ConstantPad2d((1, 0, 0, 0), 5.0)(treadle.zeros(1, 1, 1, 2)).tolist()
    [[[[5.0, 0.0, 0.0]]]]
    """

    dims = 2


class ConstantPad3d(ConstantPad1d):
    """One number around (N, C, D, H, W)."""

    dims = 3


class ZeroPad1d(_Pad):
    """Zeros beside (N, C, L)."""

    value = 0.0


class ZeroPad2d(ZeroPad1d):
    """Zeros around (N, C, H, W)."""

    dims = 2


class ZeroPad3d(ZeroPad1d):
    """Zeros around (N, C, D, H, W)."""

    dims = 3


class ReflectionPad1d(_Pad):
    """(N, C, L) mirrored at its ends, which are not repeated."""

    mode = "reflect"


class ReflectionPad2d(ReflectionPad1d):
    """(N, C, H, W) mirrored at its edges, which are not repeated."""

    dims = 2


class ReflectionPad3d(ReflectionPad1d):
    """(N, C, D, H, W) mirrored at its faces, which are not repeated."""

    dims = 3


class ReplicationPad1d(_Pad):
    """(N, C, L) continued with its ends."""

    mode = "replicate"


class ReplicationPad2d(ReplicationPad1d):
    """(N, C, H, W) continued with its edges."""

    dims = 2


class ReplicationPad3d(ReplicationPad1d):
    """(N, C, D, H, W) continued with its faces."""

    dims = 3


class CircularPad1d(_Pad):
    """(N, C, L) continued with its other end."""

    mode = "circular"


class CircularPad2d(CircularPad1d):
    """(N, C, H, W) continued with its other edges."""

    dims = 2


class CircularPad3d(CircularPad1d):
    """(N, C, D, H, W) continued with its other faces."""

    dims = 3


__all__ = [
    "CircularPad1d", "CircularPad2d", "CircularPad3d", "ConstantPad1d", "ConstantPad2d",
    "ConstantPad3d", "ReflectionPad1d", "ReflectionPad2d", "ReflectionPad3d", "ReplicationPad1d",
    "ReplicationPad2d", "ReplicationPad3d", "ZeroPad1d", "ZeroPad2d", "ZeroPad3d",
]  # fmt: skip
