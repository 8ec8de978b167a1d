"""Images and sequences in another size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from treadle.base.lazy_numpy import np
from treadle.ir.node import Node, located
from treadle.nn.functional.common import check_rank, real_node, widened
from treadle.nn.functional.further_pooling import adaptive_avg_pool1d
from treadle.nn.functional.pooling import adaptive_avg_pool2d
from treadle.nn.functional.volume_pooling import adaptive_avg_pool3d
from treadle.ops import elementwise as e
from treadle.ops.indexing import take
from treadle.ops.movement import expand, reshape
from treadle.tensor.arithmetic import cast
from treadle.tensor.contraction import matmul
from treadle.tensor.handle import wrap
from treadle.tensor.storage import node_from_array
from treadle.tensor.tensor import Tensor

# By the number of dimensions; the first two take the nearest element, "area" means.
_SIMPLE = ("nearest", "nearest-exact", "area")
_MODES = {
    3: (*_SIMPLE, "linear"), 4: (*_SIMPLE, "bilinear", "bicubic"), 5: (*_SIMPLE, "trilinear"),
}  # fmt: skip
_AREA = {3: adaptive_avg_pool1d, 4: adaptive_avg_pool2d, 5: adaptive_avg_pool3d}
_CUBIC = -0.75  # the slope of Keys' kernel at 1, as PyTorch has it


def interpolate(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:  # fmt: skip
    """(N, C, L), (N, C, H, W) or (N, C, D, H, W) in the ``size``, or larger by ``scale_factor``.

    "nearest" takes the element floor(i * old / new), "nearest-exact" floor((i + 1/2) * old / new),
    "area" the mean of the part. "linear" (of sequences), "bilinear" (of images) and "trilinear" (of
    volumes) weigh the two neighbours of (i + 1/2) * old / new - 1/2, or with ``align_corners`` of
    i * (old - 1) / (new - 1); "bicubic" (of images) weighs four, by Keys' kernel.

    ``recompute_scale_factor`` takes the scale from the sizes, which are whole. With ``antialias``
    ("bilinear" and "bicubic") the kernel is as much wider as the result is smaller.

    >>> import treadle
    >>> interpolate(treadle.tensor([[[1.0, 2.0]]]), scale_factor=2).tolist()
    [[[1.0, 1.0, 2.0, 2.0]]]
    """
    source = real_node("interpolate", input)
    check_rank("interpolate", source, (3, 4, 5), "(N, C, L), (N, C, H, W) or (N, C, D, H, W)")
    modes = _MODES[len(source.shape)]
    if mode not in modes or (align_corners is not None and mode in _SIMPLE):
        raise located(ValueError(
            f"interpolate: got mode {mode!r} and align_corners {align_corners} for an input of "
            f"shape {source.shape}; the mode is {' or '.join(map(repr, modes))}, and align_corners "
            f"is not for {', '.join(map(repr, _SIMPLE))}"
        ))  # fmt: skip
    if antialias and mode not in ("bilinear", "bicubic"):
        raise located(ValueError(
            f"interpolate: got antialias=True and mode {mode!r}; it is for 'bilinear' and 'bicubic'"
        ))  # fmt: skip
    sizes, scales = _sizes(source.shape[2:], size, scale_factor)
    if recompute_scale_factor:
        scales = [n / new for n, new in zip(source.shape[2:], sizes, strict=True)]
    if mode == "area":
        return _AREA[len(source.shape)](input, sizes)
    nearest = mode.startswith("nearest")
    node = source if nearest else widened(source)
    for axis, (new, scale) in enumerate(zip(sizes, scales, strict=True), 2):
        if nearest:
            at = np.arange(new) + (0.5 if mode == "nearest-exact" else 0)
            places = np.floor(at * scale).astype(np.int64)
            node = take(node, _index(places, node, axis), axis=axis)
        elif antialias:
            node = _smoothed(node, axis, new, scale, bool(align_corners), mode == "bicubic")
        else:
            node = _blended(node, axis, new, scale, bool(align_corners), mode == "bicubic")
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
    return node_from_array(np.clip(places, 0, node.shape[axis] - 1))


def _keys(t: np.ndarray[Any, Any]) -> list[tuple[int, np.ndarray[Any, Any]]]:
    """The four neighbours of a place t behind the second, and their weights."""

    def near(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1

    def far(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return ((x - 5) * x + 8) * x * _CUBIC - 4 * _CUBIC

    return [(-1, far(t + 1)), (0, near(t)), (1, near(1 - t)), (2, far(2 - t))]


def _blended(
    node: Node, axis: int, new: int, scale: float, align_corners: bool, is_cubic: bool
) -> Node:
    """The axis interpolated linearly, or by cubic polynomials."""
    at = np.arange(new, dtype=np.float64)
    if align_corners:
        at *= (node.shape[axis] - 1) / max(new - 1, 1)
    else:
        at = (at + 0.5) * scale - 0.5
        at = at if is_cubic else np.maximum(at, 0)
    first = np.floor(at) if is_cubic else np.minimum(np.floor(at), node.shape[axis] - 1)
    rest = at - first
    column = tuple(new if a == axis else 1 for a in range(len(node.shape)))
    total: Node | None = None
    for offset, share in _keys(rest) if is_cubic else ((0, 1 - rest), (1, rest)):
        part = take(node, _index(first.astype(np.int64) + offset, node, axis), axis=axis)
        weight = reshape(node_from_array(share, node.dtype), shape=column)
        part = e.mul(part, expand(weight, shape=part.shape))
        total = part if total is None else e.add(total, part)
    return total  # type: ignore[return-value]


def _smoothed(
    node: Node, axis: int, new: int, scale: float, align_corners: bool, is_cubic: bool
) -> Node:
    """The axis as a product with a matrix of weights: a kernel as wide as a new element is."""
    old = node.shape[axis]
    if align_corners:
        scale = (old - 1) / max(new - 1, 1)
    width = max(scale, 1.0)
    middle = (np.arange(new) + 0.5) * scale
    reach = (2.0 if is_cubic else 1.0) * width
    t = np.abs((np.arange(old) - middle[:, None] + 0.5) / width)
    inside = (np.arange(old) >= np.maximum(np.floor(middle - reach + 0.5), 0)[:, None]) & (
        np.arange(old) < np.minimum(np.floor(middle + reach + 0.5), old)[:, None]
    )
    weights = np.where(inside, _keys_at(t) if is_cubic else np.maximum(1 - t, 0), 0)
    weights /= weights.sum(1, keepdims=True)
    matrix = wrap(node_from_array(weights, node.dtype))
    moved = wrap(node).movedim(axis, -1)
    return matmul(moved, matrix.t()).movedim(-1, axis).node


def _keys_at(t: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Keys' kernel with the slope -1/2, as PyTorch has it for antialiasing."""
    slope = -0.5
    near = ((slope + 2) * t - (slope + 3)) * t * t + 1
    far = ((t - 5) * t + 8) * t * slope - 4 * slope
    return np.where(t < 1, near, np.where(t < 2, far, 0))


def upsample(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:  # fmt: skip
    """PyTorch's older name of ``interpolate``."""
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """``interpolate`` with mode "nearest"."""
    return interpolate(input, size, scale_factor, "nearest")


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """``interpolate`` with mode "bilinear" and ``align_corners``."""
    return interpolate(input, size, scale_factor, "bilinear", True)


__all__ = ["interpolate", "upsample", "upsample_bilinear", "upsample_nearest"]
