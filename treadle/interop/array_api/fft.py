"""The standard's extension ``fft``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle import fft as ours
from treadle.tensor.tensor import Tensor


def _one(name: str) -> Callable[..., Tensor]:
    def function(
        x: Tensor, /, *, n: int | None = None, axis: int = -1, norm: str = "backward"
    ) -> Tensor:
        return getattr(ours, name)(x, n, axis, norm)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"``{name}`` of the array API standard, along one axis."
    return function


def _many(name: str) -> Callable[..., Tensor]:
    def function(
        x: Tensor, /, *, s: Any = None, axes: Any = None, norm: str = "backward"
    ) -> Tensor:
        return getattr(ours, name)(x, s, axes, norm)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"``{name}`` of the array API standard, along several axes."
    return function


_LINES = ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")
_GRIDS = ("fftn", "ifftn", "rfftn", "irfftn")
globals().update({name: _one(name) for name in _LINES})
globals().update({name: _many(name) for name in _GRIDS})


def fftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Tensor:
    """The frequencies of ``fft``."""
    return ours.fftfreq(n, d, dtype=dtype, device=device)


def rfftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Tensor:
    """The frequencies of ``rfft``."""
    return ours.rfftfreq(n, d, dtype=dtype, device=device)


def fftshift(x: Tensor, /, *, axes: Any = None) -> Tensor:
    """With the frequency 0 in the middle."""
    return ours.fftshift(x, axes)


def ifftshift(x: Tensor, /, *, axes: Any = None) -> Tensor:
    """What undoes ``fftshift``."""
    return ours.ifftshift(x, axes)


__all__ = [*_LINES, *_GRIDS, "fftfreq", "fftshift", "ifftshift", "rfftfreq"]
