"""Pooling of volumes (N, C, D, H, W): over the images, then over their depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.ir.node import located
from treadle.nn.functional.common import check_rank, node_of, rounded_once
from treadle.nn.functional.pooling import adaptive_avg_pool2d, avg_pool2d, max_pool2d
from treadle.tensor import arithmetic as a
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


def max_pool3d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False,
) -> Tensor:  # fmt: skip
    """The largest element of every window of (N, C, D, H, W)."""
    name = "max_pool3d"
    check_rank(name, node_of(name, input), (5, 4), _VOLUMES)
    k, p, d = (_three(name, what, value) for what, value in (
        ("kernel_size", kernel_size), ("padding", padding), ("dilation", dilation)
    ))  # fmt: skip
    s = k if stride is None else _three(name, "stride", stride)
    return _pooled(
        input, lambda x: max_pool2d(x, k[1:], s[1:], p[1:], d[1:], ceil_mode),
        lambda x: max_pool2d(x, (k[0], 1), (s[0], 1), (p[0], 0), (d[0], 1), ceil_mode),
    )  # fmt: skip


def avg_pool3d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean of every window of (N, C, D, H, W): the mean over its depth of the images' means."""
    name = "avg_pool3d"
    check_rank(name, node_of(name, input), (5, 4), _VOLUMES)
    k, p = _three(name, "kernel_size", kernel_size), _three(name, "padding", padding)
    s = k if stride is None else _three(name, "stride", stride)
    return _averaged(input, k, s, p, (ceil_mode, count_include_pad), divisor_override)


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


__all__ = ["adaptive_avg_pool3d", "avg_pool3d", "max_pool3d"]
