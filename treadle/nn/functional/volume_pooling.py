"""Pooling of volumes (N, C, D, H, W): over the images, then over their depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from treadle.base import dtypes
from treadle.base.shapes import prod
from treadle.ir.node import located
from treadle.nn.functional.common import check_rank, node_of, rounded_once
from treadle.nn.functional.further_pooling import lp_pool, put_back
from treadle.nn.functional.pooling import (
    adaptive_avg_pool2d,
    avg_pool2d,
    largest_of_parts,
    max_pool2d,
    parts_of,
)
from treadle.tensor import arithmetic as a
from treadle.tensor.autocast import in_float32
from treadle.tensor.creation import ones_like
from treadle.tensor.selection import gather
from treadle.tensor.tensor import Tensor

_VOLUMES = "(N, C, D, H, W) or (C, D, H, W)"


def _three(name: str, what: str, value: Any) -> tuple[Any, Any, Any]:
    items = (value,) * 3 if isinstance(value, int) or value is None else tuple(value)
    if len(items) != 3:
        raise located(TypeError(
            f"{name}: got {what} {value!r}; it takes an int or three (depth, height, width)"
        ))  # fmt: skip
    return items[0], items[1], items[2]


def _pooled(
    input: Tensor, over_images: Callable[..., Tensor], over_depth: Callable[..., Tensor]
) -> Tensor:
    *batch, depth, height, width = input.shape
    images = over_images(input.reshape(-1, depth, height, width))
    rows, columns = images.shape[-2:]
    flat = over_depth(images.reshape(-1, 1, depth, rows * columns))
    return flat.reshape(*batch, flat.shape[-2], rows, columns)


@in_float32
def max_pool3d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """The largest element of every window of (N, C, D, H, W).

    With ``return_indices`` also its place (z * H + y) * W + x.
    """
    name = "max_pool3d"
    check_rank(name, node_of(name, input), (5, 4), _VOLUMES)
    k, p, d = (_three(name, what, value) for what, value in (
        ("kernel_size", kernel_size), ("padding", padding), ("dilation", dilation)
    ))  # fmt: skip
    s = k if stride is None else _three(name, "stride", stride)
    if not return_indices:
        return _pooled(
            input, lambda x: max_pool2d(x, k[1:], s[1:], p[1:], d[1:], ceil_mode),
            lambda x: max_pool2d(x, (k[0], 1), (s[0], 1), (p[0], 0), (d[0], 1), ceil_mode),
        )  # fmt: skip
    *batch, depth, height, width = input.shape
    images, within = max_pool2d(
        input.reshape(-1, depth, height, width), k[1:], s[1:], p[1:], d[1:], ceil_mode, True
    )
    rows, columns = images.shape[-2:]
    flat, at = max_pool2d(
        images.reshape(-1, 1, depth, rows * columns), (k[0], 1), (s[0], 1), (p[0], 0), (d[0], 1),
        ceil_mode, True,
    )  # fmt: skip
    places = gather(within.reshape(-1, depth * rows * columns), 1, at.reshape(at.shape[0], -1))
    layers = a.floor_divide(at.reshape(at.shape[0], -1), rows * columns)
    shape = (*batch, flat.shape[-2], rows, columns)
    return flat.reshape(shape), a.add(a.mul(layers, height * width), places).reshape(shape)


@in_float32
def avg_pool3d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean of every window of (N, C, D, H, W): the mean over its depth of the images' means."""
    name = "avg_pool3d"
    check_rank(name, node_of(name, input), (5, 4), _VOLUMES)
    k, p = _three(name, "kernel_size", kernel_size), _three(name, "padding", padding)
    s = k if stride is None else _three(name, "stride", stride)
    modes = (ceil_mode, count_include_pad)
    if divisor_override == 0:
        raise located(ValueError(f"{name}: got divisor_override 0; it must not be 0"))
    if input.dtype.is_inexact or input.dtype is dtypes.bool_:
        return _averaged(input, k, s, p, modes, divisor_override)
    # Means of integers are cut to integers once, from whole sums.
    total = _averaged(input.double(), k, s, p, modes, 1)
    count: Any = divisor_override
    if count is None:
        ones = ones_like(input, dtype=dtypes.float64)
        shares = (_averaged(ones, k, s, p, modes, divisor) for divisor in (1, None))
        count = a.round(a.div(*shares))
    return a.trunc(a.div(total, count)).to(input.dtype)


@rounded_once
def _averaged(
    input: Tensor, k: Any, s: Any, p: Any, modes: tuple[bool, bool], divisor: int | None
) -> Tensor:
    sums = None if divisor is None else 1
    out = _pooled(
        input, lambda x: avg_pool2d(x, k[1:], s[1:], p[1:], *modes, sums),
        lambda x: avg_pool2d(x, (k[0], 1), (s[0], 1), (p[0], 0), *modes, sums),
    )  # fmt: skip
    return out if divisor is None else a.div(out, divisor)


@in_float32
def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """Means over windows that divide the volume into ``output_size`` parts (None keeps a size)."""
    name = "adaptive_avg_pool3d"
    check_rank(name, node_of(name, input), (5, 4), _VOLUMES)
    return _adapted(input, _three(name, "output_size", output_size))


@rounded_once
def _adapted(input: Tensor, size: tuple[Any, Any, Any]) -> Tensor:
    return _pooled(
        input, lambda x: adaptive_avg_pool2d(x, size[1:]),
        lambda x: adaptive_avg_pool2d(x, (size[0], None)),
    )  # fmt: skip


def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The largest elements of windows that divide the volume (None keeps a size)."""
    name = "adaptive_max_pool3d"
    check_rank(name, node_of(name, input), (5, 4), _VOLUMES)
    sizes = tuple(input.shape)[-3:]
    wanted = (o or n for o, n in zip(_three(name, "output_size", output_size), sizes, strict=True))
    values, places = largest_of_parts(
        input, [parts_of(n, out) for n, out in zip(sizes, wanted, strict=True)]
    )
    return (values, places) if return_indices else values


def lp_pool3d(
    input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """``(sum of x^p)^(1/p)`` of every window of (N, C, D, H, W); 0 where the sum is negative."""
    k = _three("lp_pool3d", "kernel_size", kernel_size)
    return lp_pool(input, norm_type, ceil_mode, avg_pool3d, k, stride, prod(k))


@in_float32
def max_unpool3d(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:  # fmt: skip
    """Zeros, with the maxima that ``max_pool3d`` found where its indices say."""
    name = "max_unpool3d"
    check_rank(name, node_of(name, input), (5, 4), _VOLUMES)
    k, around = _three(name, "kernel_size", kernel_size), _three(name, "padding", padding)
    s = k if stride is None else _three(name, "stride", stride)
    size = tuple(
        (n - 1) * step + window - 2 * pad
        for n, step, window, pad in zip(input.shape[-3:], s, k, around, strict=True)
    )
    return put_back(name, input, indices, size if output_size is None else tuple(output_size[-3:]))


__all__ = [
    "adaptive_avg_pool3d", "adaptive_max_pool3d", "avg_pool3d", "lp_pool3d", "max_pool3d",
    "max_unpool3d",
]  # fmt: skip
