"""Views taken in place: ``squeeze_``, ``unsqueeze_``, ``t_``, ``transpose_``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.tensor import movement
from treadle.tensor.handle import Handle, turn


def _in_place(function: Callable[..., Any]) -> Any:
    """The method that makes the tensor itself what ``function`` would show of it."""
    name = f"{function.__name__}_"

    def method(self: Any, *args: Any, **options: Any) -> Any:
        return turn(self, function(self, *args, **options))

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"``{function.__name__}`` in place: the tensor itself gets the other shape."
    return method


class Methods(Handle):
    """The functions of ``movement.py`` that PyTorch has in place."""

    __slots__ = ()

    squeeze_, unsqueeze_ = _in_place(movement.squeeze), _in_place(movement.unsqueeze)
    t_, transpose_ = _in_place(movement.t), _in_place(movement.transpose)
    swapaxes_ = swapdims_ = transpose_
