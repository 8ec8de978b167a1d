"""Batch norms folded into the layer before them, for evaluation."""

from __future__ import annotations

import copy
from typing import Any

from treadle.ir.node import located
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.tensor.creation import ones_like, zeros_like
from treadle.tensor.grad_mode import no_grad
from treadle.tensor.tensor import Tensor


def fuse_conv_bn_weights(
    conv_w: Tensor, conv_b: Any, bn_rm: Tensor, bn_rv: Tensor, bn_eps: float, bn_w: Any,
    bn_b: Any, transpose: bool = False,
) -> tuple[Parameter, Parameter]:  # fmt: skip
    """The weight and bias of a convolution followed by a batch norm in evaluation."""
    bias = zeros_like(bn_rm) if conv_b is None else conv_b
    scale = ones_like(bn_rm) if bn_w is None else bn_w
    shift = zeros_like(bn_rm) if bn_b is None else bn_b
    with no_grad():
        factor = scale * (bn_rv + bn_eps).rsqrt()
        shape = (1, -1) if transpose else (-1, 1)
        weight = conv_w * factor.reshape(*shape, *(1,) * (conv_w.ndim - 2)).to(conv_w.dtype)
        moved = ((bias - bn_rm) * factor + shift).to(bias.dtype)
    needs = conv_w.requires_grad
    return Parameter(weight, needs), Parameter(moved, needs)


def fuse_linear_bn_weights(
    linear_w: Tensor, linear_b: Any, bn_rm: Tensor, bn_rv: Tensor, bn_eps: float, bn_w: Any,
    bn_b: Any,
) -> tuple[Parameter, Parameter]:  # fmt: skip
    """The weight and bias of a linear layer followed by a batch norm in evaluation."""
    return fuse_conv_bn_weights(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b)


def _fused(name: str, layer: Any, bn: Any, transpose: bool) -> Any:
    if layer.training or bn.training:
        raise located(AssertionError(
            f"{name}: got a layer in training mode; call eval() on both first"
        ))  # fmt: skip
    if bn.running_mean is None:
        raise located(AssertionError(
            f"{name}: got a batch norm without running statistics; it needs them"
        ))  # fmt: skip
    made = copy.deepcopy(layer)
    made.weight, made.bias = fuse_conv_bn_weights(
        made.weight, made.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias,
        transpose,
    )  # fmt: skip
    return made


def fuse_conv_bn_eval(conv: Module, bn: Module, transpose: bool = False) -> Module:
    """A convolution that does what it and the batch norm after it do in evaluation.

    The bits differ from those of the two: it is another computation.
    """
    return _fused("fuse_conv_bn_eval", conv, bn, transpose)


def fuse_linear_bn_eval(linear: Module, bn: Module) -> Module:
    """A linear layer that does what it and the batch norm after it do in evaluation."""
    return _fused("fuse_linear_bn_eval", linear, bn, False)


__all__ = [
    "fuse_conv_bn_eval", "fuse_conv_bn_weights", "fuse_linear_bn_eval", "fuse_linear_bn_weights",
]  # fmt: skip
