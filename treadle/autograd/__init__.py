"""PyTorch's ``autograd``: gradients on request, functions with gradients of their own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from treadle.tensor.function import Function
from treadle.tensor.grad_mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
)
from treadle.tensor.gradients import backward, grad

if TYPE_CHECKING:
    from treadle.autograd import anomaly_mode, forward_ad, function, functional, graph
    from treadle.autograd.anomaly_mode import detect_anomaly, set_detect_anomaly
    from treadle.autograd.checking import GradcheckError, gradcheck, gradgradcheck

_MODULES = frozenset({"anomaly_mode", "forward_ad", "function", "functional", "graph"})
_WHERE = {
    "anomaly_mode": "detect_anomaly set_detect_anomaly",
    "checking": "GradcheckError gradcheck gradgradcheck",
}


def __getattr__(name: str) -> Any:
    """What a program may not need is imported when it is first named."""
    if name in _MODULES:
        return importlib.import_module(f"treadle.autograd.{name}")
    for module, names in _WHERE.items():
        if name in names.split():
            return getattr(importlib.import_module(f"treadle.autograd.{module}"), name)
    raise AttributeError(f"module 'treadle.autograd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def Variable(data, requires_grad=False, volatile=None):  # type: ignore[no-untyped-def]
    """A tensor: variables and tensors have been one since PyTorch 0.4."""
    if volatile:
        raise TypeError("Variable: volatile=True is gone; use `with treadle.no_grad():`")
    tensor = data.detach() if data.requires_grad and not requires_grad else data
    return tensor.requires_grad_() if requires_grad else tensor


__all__ = [
    "Function", "GradcheckError", "Variable", "anomaly_mode", "backward", "detect_anomaly",
    "enable_grad", "forward_ad", "function", "functional", "grad", "gradcheck", "gradgradcheck",
    "graph", "inference_mode", "is_grad_enabled", "no_grad", "set_detect_anomaly",
    "set_grad_enabled",
]  # fmt: skip
