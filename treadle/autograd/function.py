"""PyTorch's path to ``Function`` and ``once_differentiable``."""

from treadle.tensor.function import Function, once_differentiable

__all__ = ["Function", "once_differentiable"]
