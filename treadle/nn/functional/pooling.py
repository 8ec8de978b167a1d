"""Pooling of images (N, C, H, W), without a batch (C, H, W), and of sequences (N, C, L)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from treadle.base import dtypes
from treadle.base.lazy_numpy import np
from treadle.base.shapes import prod
from treadle.ir.node import Node, located
from treadle.nn.functional.common import Pair, check_rank, node_of, pair, real_node, widened
from treadle.ops import elementwise as e
from treadle.ops.movement import concatenate, expand, slice_
from treadle.ops.project import project
from treadle.ops.reduce import reduce_sum
from treadle.ops.window import max_pool, window_sum
from treadle.tensor.arithmetic import cast
from treadle.tensor.composed import composed
from treadle.tensor.creation import from_numpy
from treadle.tensor.handle import wrap
from treadle.tensor.reduction import keep
from treadle.tensor.selection import gather
from treadle.tensor.storage import node_from_array
from treadle.tensor.tensor import Tensor

_IMAGES = "(N, C, H, W) or (C, H, W)"


def _end_padding(size: int, window: int, stride: int, padding: int, dilation: int) -> int:
    """Padding at the end that makes the number of windows round up (PyTorch's ``ceil_mode``).

    A window that would start in the padding at the end does not count.
    """
    reach = dilation * (window - 1) + 1
    windows = -(-(size + 2 * padding - reach) // stride) + 1
    if (windows - 1) * stride >= size + padding:
        windows -= 1
    return max(padding, (windows - 1) * stride + reach - size - padding)


class _Windows:
    """Where the windows of a pooling function lie."""

    def __init__(
        self, name: str, node: Node, kernel_size: Any, stride: Any, padding: Any,
        dilation: Any = 1, ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        self.window = pair(name, "kernel_size", kernel_size)
        empty = stride is None or stride == ()
        self.stride = self.window if empty else pair(name, "stride", stride)
        self.dilation = pair(name, "dilation", dilation)
        self.before = pair(name, "padding", padding)
        if any(2 * p > w for p, w in zip(self.before, self.window, strict=True)):
            raise located(ValueError(
                f"{name}: got padding {self.before} and kernel_size {self.window}; the padding "
                f"must be at most half the kernel size"
            ))  # fmt: skip
        self.size: Pair = node.shape[-2], node.shape[-1]
        self.sides: Any = tuple((p, p) for p in self.before)
        if ceil_mode:
            self.sides = tuple(
                (self.before[i], _end_padding(self.size[i], self.window[i], self.stride[i],
                                              self.before[i], self.dilation[i]))
                for i in range(2)
            )  # fmt: skip


@composed
def max_pool2d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """The largest element of every window; with ``return_indices`` also its place y * W + x."""
    node = node_of("max_pool2d", input)
    check_rank("max_pool2d", node, (4, 3), _IMAGES)
    w = _Windows("max_pool2d", node, kernel_size, stride, padding, dilation, ceil_mode)
    both = max_pool(node, window=w.window, stride=w.stride, padding=w.sides, dilation=w.dilation)
    values = wrap(project(both, index=0))
    return (values, wrap(project(both, index=1))) if return_indices else values


@lru_cache(maxsize=256)
def _counts(
    size: int, window: int, stride: int, before: int, after: int, with_padding: bool
) -> np.ndarray[Any, Any]:
    """How many elements each window along one axis counts."""
    windows = (size + before + after - window) // stride + 1
    start = np.arange(windows) * stride - before
    end = np.minimum(start + window, size + before)  # what ceil_mode adds never counts
    if not with_padding:
        start, end = np.maximum(start, 0), np.minimum(end, size)
    return end - start


@composed
def avg_pool2d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean of every window: its sum divided by how many elements count, padding among them
    unless ``count_include_pad`` is False, or by ``divisor_override``. Of integers it is cut to one.
    """
    source = node_of("avg_pool2d", input)
    if source.dtype.kind not in "iu":
        real_node("avg_pool2d", input)
    check_rank("avg_pool2d", source, (4, 3), _IMAGES)
    w = _Windows("avg_pool2d", source, kernel_size, stride, padding, 1, ceil_mode)
    if divisor_override == 0:
        raise located(ValueError("avg_pool2d: got divisor_override 0; it must not be 0"))
    wide = widened(source) if source.dtype.is_floating_point else cast(source, dtypes.float64)
    total = window_sum(wide, window=w.window, stride=w.stride, padding=w.sides)
    rows, columns = (
        _counts(w.size[i], w.window[i], w.stride[i], *w.sides[i], count_include_pad)
        for i in range(2)
    )
    if divisor_override is not None:
        divisor = e.full_like(total, divisor_override)
    elif (rows == rows[0]).all() and (columns == columns[0]).all():
        divisor = e.full_like(total, int(rows[0] * columns[0]))
    else:
        counts = node_from_array(np.multiply.outer(rows, columns), total.dtype)
        divisor = expand(counts, shape=total.shape)
    return wrap(cast(e.div(total, divisor), source.dtype))


# --- adaptive -----------------------------------------------------------------------------------


def _target(name: str, output_size: Any, size: Pair) -> Pair:
    """The output size, None standing for the input's."""
    single = output_size is None or isinstance(output_size, int)
    items = (output_size,) * 2 if single else output_size
    wanted = tuple(s if o is None else o for o, s in zip(items, size, strict=True))
    if not all(isinstance(n, int) and n > 0 for n in wanted):
        raise located(ValueError(
            f"{name}: got output_size {output_size!r}; it takes positive ints (height, width), or "
            f"None to keep a size"
        ))  # fmt: skip
    return wanted[0], wanted[1]


def parts_of(size: int, count: int) -> list[Pair]:
    """Part i is the elements from floor(i * size / count) to ceil((i + 1) * size / count)."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def _sum_parts(node: Node, axis: int, parts: list[Pair]) -> Node:
    """The sum of every part of an axis."""
    shape, steps = node.shape, (1,) * len(node.shape)
    sums = []
    for start, end in parts:
        starts = tuple(start if a == axis else 0 for a in range(len(shape)))
        sizes = tuple(end - start if a == axis else n for a, n in enumerate(shape))
        total = reduce_sum(slice_(node, starts=starts, sizes=sizes, steps=steps), axes=(axis,))
        sums.append(keep(total, (axis,), node))
    return concatenate(*sums, axis=axis)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Means over windows that divide the image into ``output_size`` parts.

    Where the sizes do not divide, windows overlap and differ in size: rows are added up, then
    columns.
    """
    source = real_node("adaptive_avg_pool2d", input)
    check_rank("adaptive_avg_pool2d", source, (4, 3), _IMAGES)
    height, width = source.shape[-2:]
    rows, columns = _target("adaptive_avg_pool2d", output_size, (height, width))
    node = widened(source)
    if height % rows == 0 and width % columns == 0 and height and width:
        window = height // rows, width // columns
        total = window_sum(node, window=window, stride=window, padding=((0, 0), (0, 0)))
        out = e.div(total, e.full_like(total, window[0] * window[1]))
    else:
        down, across = parts_of(height, rows), parts_of(width, columns)
        axis = len(node.shape) - 2
        total = _sum_parts(_sum_parts(node, axis, down), axis + 1, across)
        sizes = np.multiply.outer(*([end - start for start, end in p] for p in (down, across)))
        out = e.div(total, expand(node_from_array(sizes, node.dtype), shape=total.shape))
    return wrap(cast(out, source.dtype))


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The largest elements of windows that divide the image; with ``return_indices`` their places.

    Where the sizes do not divide, windows overlap and differ in size.
    """
    node = node_of("adaptive_max_pool2d", input)
    check_rank("adaptive_max_pool2d", node, (4, 3), _IMAGES)
    size = node.shape[-2], node.shape[-1]
    wanted = _target("adaptive_max_pool2d", output_size, size)
    if size[0] % wanted[0] == 0 and size[1] % wanted[1] == 0:
        window = size[0] // wanted[0], size[1] // wanted[1]
        return max_pool2d(input, window, return_indices=return_indices)
    parts = [parts_of(n, out) for n, out in zip(size, wanted, strict=True)]
    values, places = largest_of_parts(input, parts)
    return (values, places) if return_indices else values


def largest_of_parts(input: Tensor, parts: Sequence[list[Pair]]) -> tuple[Tensor, Tensor]:
    """The largest element of every box of parts of the last dimensions, and its flat place.

    Parts are (start, end); shorter ones repeat their last element, which changes no maximum.
    """
    sizes = tuple(input.shape)[input.ndim - len(parts) :]
    index = np.zeros((1,), np.int64)
    for size, spans in zip(sizes, parts, strict=True):
        longest = max(end - start for start, end in spans)
        starts, ends = (np.array(side)[:, None] for side in zip(*spans, strict=True))
        along = np.minimum(starts + np.arange(longest), ends - 1)
        index = (index[..., None, None] * size + along) if index.ndim > 1 else along
    count = len(parts)
    if count > 1:  # (o1, k1, o2, k2, ...) -> (o1, o2, ..., k1 * k2 * ...)
        index = index.transpose(*range(0, 2 * count, 2), *range(1, 2 * count, 2))
    outs = index.shape[:count]
    flat = input.flatten(input.ndim - count)
    table = from_numpy(np.ascontiguousarray(index.reshape(prod(outs), -1)))
    boxes = flat.index_select(-1, table.reshape(-1)).reshape(*flat.shape[:-1], *table.shape)
    best = boxes.argmax(-1, keepdim=True)
    values = gather(boxes, -1, best).squeeze(-1)
    places = gather(table.expand(boxes.shape), -1, best).squeeze(-1)
    shape = (*flat.shape[:-1], *outs)
    return values.reshape(shape), places.reshape(shape)


# --- sequences ----------------------------------------------------------------------------------


def _as_rows(name: str, input: Tensor) -> Tensor:
    check_rank(name, node_of(name, input), (3, 2), "(N, C, L) or (C, L)")
    return input.unsqueeze(-2)


def _single(value: Any) -> Any:
    return value[0] if isinstance(value, (tuple, list)) and len(value) == 1 else value


@composed
def max_pool1d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """The largest element of every window of (N, C, L)."""
    rows = _as_rows("max_pool1d", input)
    step = kernel_size if stride is None else stride
    out = max_pool2d(
        rows, (1, _single(kernel_size)), (1, _single(step)), (0, _single(padding)),
        (1, _single(dilation)), ceil_mode, return_indices,
    )  # fmt: skip
    return tuple(x.squeeze(-2) for x in out) if return_indices else out.squeeze(-2)


@composed
def avg_pool1d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:  # fmt: skip
    """The mean of every window of (N, C, L)."""
    rows = _as_rows("avg_pool1d", input)
    step = kernel_size if stride is None else stride
    out = avg_pool2d(
        rows, (1, _single(kernel_size)), (1, _single(step)), (0, _single(padding)), ceil_mode,
        count_include_pad,
    )  # fmt: skip
    return out.squeeze(-2)


__all__ = [
    "adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool1d", "avg_pool2d", "max_pool1d",
    "max_pool2d",
]  # fmt: skip
