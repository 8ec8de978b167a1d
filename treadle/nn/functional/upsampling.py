"""Images and sequences in another size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from treadle.base.lazy_numpy import np
from treadle.ir.node import Node, located
from treadle.nn.functional.common import check_rank, real_node, widened
from treadle.ops import elementwise as e
from treadle.ops.indexing import take
from treadle.ops.movement import expand, reshape
from treadle.tensor.arithmetic import cast
from treadle.tensor.handle import wrap
from treadle.tensor.storage import node_from_array
from treadle.tensor.tensor import Tensor

_LINEAR = {3: "linear", 4: "bilinear"}  # by the number of dimensions


def interpolate(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:  # fmt: skip
    """(N, C, L) or (N, C, H, W) in the ``size``, or with every size times ``scale_factor``.

    "nearest" takes the element floor(i * old / new). "linear" (of sequences) and "bilinear" (of
    images) weigh the two neighbours of (i + 1/2) * old / new - 1/2, or with ``align_corners`` of
    i * (old - 1) / (new - 1).

    >>> import treadle
    >>> interpolate(treadle.tensor([[[1.0, 2.0]]]), scale_factor=2).tolist()
    [[[1.0, 1.0, 2.0, 2.0]]]
    """
    source = real_node("interpolate", input)
    check_rank("interpolate", source, (3, 4), "(N, C, L) or (N, C, H, W)")
    modes = ("nearest", _LINEAR[len(source.shape)])
    if mode not in modes or (align_corners is not None and mode == "nearest"):
        raise located(ValueError(
            f"interpolate: got mode {mode!r} and align_corners {align_corners} for an input of "
            f"shape {source.shape}; the mode is {' or '.join(map(repr, modes))}, and align_corners "
            f"is for the second"
        ))  # fmt: skip
    sizes, scales = _sizes(source.shape[2:], size, scale_factor)
    node = source if mode == "nearest" else widened(source)
    for axis, (new, scale) in enumerate(zip(sizes, scales, strict=True), 2):
        if mode == "nearest":
            places = np.floor(np.arange(new) * scale).astype(np.int64)
            node = take(node, _index(places, node, axis), axis=axis)
        else:
            node = _blended(node, axis, new, scale, bool(align_corners))
    return wrap(cast(node, source.dtype))


def _sizes(old: Sequence[int], size: Any, scale_factor: Any) -> tuple[list[int], list[float]]:
    """The new sizes, and how far apart new elements lie, counted in old ones."""
    given = scale_factor if size is None else size
    values = list(given) if isinstance(given, (tuple, list)) else [given] * len(old)
    fits = (size is None) != (scale_factor is None) and len(values) == len(old)
    if not fits or not all(isinstance(v, (int, float)) and v > 0 for v in values) or 0 in old:
        raise located(ValueError(
            f"interpolate: got size {size!r} and scale_factor {scale_factor!r} for an image of "
            f"{tuple(old)}; give one of them, a positive number or one for each dimension, and an "
            f"image that is not empty"
        ))  # fmt: skip
    if size is None:
        new = [math.floor(n * v) for n, v in zip(old, values, strict=True)]
        return new, [1 / v for v in values]
    return [int(v) for v in values], [n / v for n, v in zip(old, values, strict=True)]


def _index(places: np.ndarray[Any, Any], node: Node, axis: int) -> Node:
    return node_from_array(np.minimum(places, node.shape[axis] - 1))


def _blended(node: Node, axis: int, new: int, scale: float, align_corners: bool) -> Node:
    """The axis interpolated linearly."""
    at = np.arange(new, dtype=np.float64)
    if align_corners:
        at *= (node.shape[axis] - 1) / max(new - 1, 1)
    else:
        at = np.maximum((at + 0.5) * scale - 0.5, 0)
    first = np.minimum(np.floor(at), node.shape[axis] - 1)
    column = tuple(new if a == axis else 1 for a in range(len(node.shape)))
    total: Node | None = None
    for offset, share in ((0, 1 - (at - first)), (1, at - first)):
        part = take(node, _index(first.astype(np.int64) + offset, node, axis), axis=axis)
        weight = reshape(node_from_array(share, node.dtype), shape=column)
        part = e.mul(part, expand(weight, shape=part.shape))
        total = part if total is None else e.add(total, part)
    return total  # type: ignore[return-value]


__all__ = ["interpolate"]
