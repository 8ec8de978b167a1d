"""PyTorch's layouts of convolution weights, without a meaning here."""

from __future__ import annotations

from typing import Any

from treadle.nn.module import Module


def convert_conv2d_weight_memory_format(module: Module, memory_format: Any) -> Module:
    """Accepted for PyTorch's sake: the compiler lays weights out as its kernels want them."""
    return module


convert_conv3d_weight_memory_format = convert_conv2d_weight_memory_format

__all__ = ["convert_conv2d_weight_memory_format", "convert_conv3d_weight_memory_format"]
