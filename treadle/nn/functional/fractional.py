"""Pooling of windows at random places."""

from __future__ import annotations

from typing import Any

from treadle.base import dtypes
from treadle.ir.node import located
from treadle.nn.functional.common import check_rank, node_of
from treadle.nn.functional.pooling import largest_of_parts
from treadle.random.sampling import rand
from treadle.tensor.creation import zeros
from treadle.tensor.joining import stack
from treadle.tensor.tensor import Tensor


def fractional_max_pool2d(
    input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
    return_indices: bool = False, _random_samples: Tensor | None = None,
) -> Any:  # fmt: skip
    """The largest elements of windows whose starts are drawn (Graham, 2015).

    The result has ``output_size``, or that share ``output_ratio`` of the image's.
    """
    return _fractional(
        "fractional_max_pool2d", 2, input, kernel_size, output_size, output_ratio, return_indices,
        _random_samples,
    )  # fmt: skip


def fractional_max_pool3d(
    input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
    return_indices: bool = False, _random_samples: Tensor | None = None,
) -> Any:  # fmt: skip
    """As ``fractional_max_pool2d``, of volumes."""
    return _fractional(
        "fractional_max_pool3d", 3, input, kernel_size, output_size, output_ratio, return_indices,
        _random_samples,
    )  # fmt: skip


def _fractional(
    name: str, rank: int, input: Tensor, kernel: Any, output_size: Any, ratio: Any,
    return_indices: bool, samples: Tensor | None,
) -> Any:  # fmt: skip
    check_rank(name, node_of(name, input), (rank + 2, rank + 1), "(N, C, ...) or (C, ...)")
    if (output_size is None) == (ratio is None):
        raise located(ValueError(
            f"{name}: got output_size {output_size!r} and output_ratio {ratio!r}; give one of them"
        ))  # fmt: skip
    sizes = tuple(input.shape)[-rank:]
    windows = (kernel,) * rank if isinstance(kernel, int) else tuple(kernel)
    if output_size is None:
        ratios = (ratio,) * rank if isinstance(ratio, float) else tuple(ratio)
        outs = tuple(int(n * r) for n, r in zip(sizes, ratios, strict=True))
    else:
        outs = (output_size,) * rank if isinstance(output_size, int) else tuple(output_size)
    if any(not 0 < o <= n - k + 1 for o, n, k in zip(outs, sizes, windows, strict=True)):
        raise located(ValueError(
            f"{name}: got an input of {sizes}, kernel_size {windows} and a result of {outs}; the "
            f"windows must fit, at most size - kernel + 1 of them"
        ))  # fmt: skip
    x = input if input.ndim == rank + 2 else input.unsqueeze(0)
    count = x.shape[0] * x.shape[1]
    drawn = rand(*x.shape[:2], rank, dtype=dtypes.float32) if samples is None else samples
    numbers = drawn.reshape(-1, rank)[:count].tolist()
    found = []
    for plane, row in zip(x.reshape(count, *sizes).unbind(0), numbers, strict=True):
        if rank == 2:
            row = row[::-1]  # PyTorch's samples of images are for (width, height)
        parts = [
            [(at, at + k) for at in _starts(n, out, k, u)]
            for n, out, k, u in zip(sizes, outs, windows, row, strict=True)
        ]
        found.append(largest_of_parts(plane, parts))
    shape = (*input.shape[: input.ndim - rank], *outs)
    if not found:
        empty = zeros(shape, dtype=input.dtype)
        return (empty, empty.long()) if return_indices else empty
    values, places = (stack(list(items)).reshape(shape) for items in zip(*found, strict=True))
    return (values, places) if return_indices else values


def _starts(size: int, out: int, window: int, u: float) -> list[int]:
    """Where the windows start: pseudo-random steps, the last window at the end."""
    if out == 1:
        return [size - window]
    alpha = (size - window) / (out - 1)
    starts = [int((i + u) * alpha) - int(u * alpha) for i in range(out - 1)]
    return [*starts, size - window]


__all__ = ["fractional_max_pool2d", "fractional_max_pool3d"]
