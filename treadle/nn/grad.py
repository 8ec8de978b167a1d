"""Gradients of convolutions with respect to their inputs and weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from treadle.nn import functional as F
from treadle.tensor.creation import zeros
from treadle.tensor.grad_mode import enable_grad
from treadle.tensor.gradients import grad
from treadle.tensor.tensor import Tensor


def _of_input(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    name = function.__name__

    def input_gradient(
        input_size: Sequence[int], weight: Tensor, grad_output: Tensor, stride: Any = 1,
        padding: Any = 0, dilation: Any = 1, groups: int = 1,
    ) -> Tensor:  # fmt: skip
        with enable_grad():
            x = zeros(*input_size, dtype=weight.dtype).requires_grad_()
            out = function(x, weight.detach(), None, stride, padding, dilation, groups)
        return grad(out, x, grad_output)[0]  # type: ignore[return-value]

    input_gradient.__name__ = f"{name}_input"
    input_gradient.__doc__ = f"The gradient of ``{name}`` with respect to its input."
    return input_gradient


def _of_weight(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    name = function.__name__

    def weight_gradient(
        input: Tensor, weight_size: Sequence[int], grad_output: Tensor, stride: Any = 1,
        padding: Any = 0, dilation: Any = 1, groups: int = 1,
    ) -> Tensor:  # fmt: skip
        with enable_grad():
            w = zeros(*weight_size, dtype=input.dtype).requires_grad_()
            out = function(input.detach(), w, None, stride, padding, dilation, groups)
        return grad(out, w, grad_output)[0]  # type: ignore[return-value]

    weight_gradient.__name__ = f"{name}_weight"
    weight_gradient.__doc__ = f"The gradient of ``{name}`` with respect to its weight."
    return weight_gradient


conv1d_input, conv1d_weight = _of_input(F.conv1d), _of_weight(F.conv1d)
conv2d_input, conv2d_weight = _of_input(F.conv2d), _of_weight(F.conv2d)
conv3d_input, conv3d_weight = _of_input(F.conv3d), _of_weight(F.conv3d)

__all__ = [
    "conv1d_input", "conv1d_weight", "conv2d_input", "conv2d_weight", "conv3d_input",
    "conv3d_weight",
]  # fmt: skip
