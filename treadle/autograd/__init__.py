"""PyTorch's ``autograd``: gradients on request, functions with gradients of their own."""

from treadle.tensor.grad_mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
)
from treadle.tensor.gradients import Function, backward, grad


def Variable(data, requires_grad=False, volatile=None):  # type: ignore[no-untyped-def]
    """A tensor: variables and tensors have been one since PyTorch 0.4."""
    if volatile:
        raise TypeError("Variable: volatile=True is gone; use `with treadle.no_grad():`")
    tensor = data.detach() if data.requires_grad and not requires_grad else data
    return tensor.requires_grad_() if requires_grad else tensor


__all__ = [
    "Function", "Variable", "backward", "enable_grad", "grad", "inference_mode",
    "is_grad_enabled", "no_grad", "set_grad_enabled",
]  # fmt: skip
