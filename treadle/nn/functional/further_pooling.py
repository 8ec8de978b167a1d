"""Pooling by other means and on other shapes: p-norms, adaptive sequences, maxima put back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.base.errors import ShapeError
from treadle.base.shapes import prod
from treadle.ir.node import located
from treadle.nn.functional.common import check_rank, node_of, pair, rounded_once
from treadle.nn.functional.pooling import (
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    avg_pool1d,
    avg_pool2d,
)
from treadle.tensor import arithmetic as a
from treadle.tensor.autocast import in_float32
from treadle.tensor.creation import zeros
from treadle.tensor.selection import scatter
from treadle.tensor.tensor import Tensor

_SEQUENCES = "(N, C, L) or (C, L)"


def _one(value: Any) -> Any:
    return value[0] if isinstance(value, (tuple, list)) else value


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """Means over windows that divide the sequence into ``output_size`` parts."""
    check_rank("adaptive_avg_pool1d", node_of("adaptive_avg_pool1d", input), (3, 2), _SEQUENCES)
    return adaptive_avg_pool2d(input.unsqueeze(-2), (1, _one(output_size))).squeeze(-2)


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The largest elements of windows that divide the sequence."""
    check_rank("adaptive_max_pool1d", node_of("adaptive_max_pool1d", input), (3, 2), _SEQUENCES)
    out = adaptive_max_pool2d(input.unsqueeze(-2), (1, _one(output_size)), return_indices)
    return tuple(x.squeeze(-2) for x in out) if return_indices else out.squeeze(-2)


# --- p-norms --------------------------------------------------------------------------------------


def lp_pool1d(
    input: Tensor, norm_type: float, kernel_size: int, stride: int | None = None,
    ceil_mode: bool = False,
) -> Tensor:  # fmt: skip
    """``(sum of x^p)^(1/p)`` of every window of (N, C, L); 0 where the sum is negative."""
    return lp_pool(input, norm_type, ceil_mode, avg_pool1d, kernel_size, stride, kernel_size)


def lp_pool2d(
    input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """``(sum of x^p)^(1/p)`` of every window of (N, C, H, W); 0 where the sum is negative."""
    count = prod(pair("lp_pool2d", "kernel_size", kernel_size))
    return lp_pool(input, norm_type, ceil_mode, avg_pool2d, kernel_size, stride, count)


@rounded_once
def lp_pool(
    input: Tensor, p: float, ceil_mode: bool, average: Any, kernel: Any, stride: Any, count: int
) -> Tensor:
    """The p-norm of every window, by the means that ``average`` takes."""
    means = average(a.pow(input, p), kernel, stride, 0, ceil_mode)
    positive = a.clamp(means, min=0)
    is_zero = a.eq(positive, 0)  # there the gradient is 0 too
    root = a.pow(a.mul(a.where(is_zero, 1.0, positive), count), 1.0 / p)
    return a.where(is_zero, a.mul(means, 0), root)


# --- maxima put back ------------------------------------------------------------------------------


@in_float32
def max_unpool1d(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:  # fmt: skip
    """Zeros, with the maxima that ``max_pool1d`` found where its indices say."""
    check_rank("max_unpool1d", node_of("max_unpool1d", input), (3, 2), _SEQUENCES)
    kernel, around = _one(kernel_size), _one(padding)
    step = kernel if stride is None else _one(stride)
    size = (1, (input.shape[-1] - 1) * step + kernel - 2 * around)
    if output_size is not None:
        size = (1, output_size[-1])
    put = put_back("max_unpool1d", input.unsqueeze(-2), indices.unsqueeze(-2), size)
    return put.squeeze(-2)


@in_float32
def max_unpool2d(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:  # fmt: skip
    """Zeros, with the maxima that ``max_pool2d`` found where its indices say.

    Images get the smallest size that pools to the input's, or ``output_size`` (its last two).
    """
    name = "max_unpool2d"
    check_rank(name, node_of(name, input), (4, 3), "(N, C, H, W) or (C, H, W)")
    kernel, around = pair(name, "kernel_size", kernel_size), pair(name, "padding", padding)
    step = kernel if stride is None else pair(name, "stride", stride)
    height, width = (
        (n - 1) * s + k - 2 * p
        for n, s, k, p in zip(input.shape[-2:], step, kernel, around, strict=True)
    )
    if output_size is not None:
        height, width = output_size[-2:]
    return put_back(name, input, indices, (height, width))


def put_back(name: str, input: Tensor, indices: Tensor, size: tuple[int, ...]) -> Tensor:
    """Zeros of a size, with the input's elements at flat places."""
    shape = tuple(input.shape)
    if tuple(indices.shape) != shape:
        raise located(ShapeError(
            f"{name}: got an input of shape {shape} and indices of shape {tuple(indices.shape)}; "
            f"they must be equal"
        ))  # fmt: skip
    outer = shape[: len(shape) - len(size)]
    rows = prod(outer)
    empty = zeros(rows, prod(size), dtype=input.dtype)
    put = scatter(empty, 1, indices.reshape(rows, -1), input.reshape(rows, -1))
    return put.reshape(*outer, *size)


__all__ = [
    "adaptive_avg_pool1d", "adaptive_max_pool1d", "lp_pool1d", "lp_pool2d", "max_unpool1d",
    "max_unpool2d",
]  # fmt: skip
