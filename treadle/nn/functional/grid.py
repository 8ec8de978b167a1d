"""Images read at computed places."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce
from itertools import product

from treadle.base.errors import ShapeError
from treadle.base.shapes import prod
from treadle.ir.node import located
from treadle.nn.functional.common import check_rank, node_of, real_node, rounded_once
from treadle.tensor import arithmetic as a
from treadle.tensor.autocast import in_float32
from treadle.tensor.contraction import matmul
from treadle.tensor.creation import arange, ones
from treadle.tensor.joining import stack
from treadle.tensor.selection import gather
from treadle.tensor.tensor import Tensor

_MODES = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """The places (N, H, W, 2) that ``theta`` (N, 2, 3) maps the pixels of (N, C, H, W) images to.

    Places are (x, y), from -1 to 1: the outermost pixels' centres with ``align_corners``, else
    their outer edges.
    """
    node = real_node("affine_grid", theta)
    if node.shape[1:] != (2, 3) or len(size) != 4 or size[0] != node.shape[0]:
        raise located(ShapeError(
            f"affine_grid: got theta of shape {node.shape} and the size {tuple(size)}; they are "
            f"(N, 2, 3) and (N, C, H, W)"
        ))  # fmt: skip
    n, _, height, width = size

    def steps(count: int) -> Tensor:
        last = max(count - 1, 1) if align_corners else count
        centres = a.mul(arange(count).to(theta.dtype), 2)
        return a.sub(a.div(centres if align_corners else a.add(centres, 1), last), 1)

    x = steps(width).reshape(1, width).expand(height, width)
    y = steps(height).reshape(height, 1).expand(height, width)
    points = stack([x, y, ones(height, width, dtype=theta.dtype)], -1).reshape(-1, 3)
    return matmul(points, theta.mT).reshape(n, height, width, 2)


@in_float32
def grid_sample(
    input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros",
    align_corners: bool = False,
) -> Tensor:  # fmt: skip
    """The images (N, C, H, W) read at the places ``grid`` (N, OH, OW, 2): (N, C, OH, OW).

    Or volumes (N, C, D, H, W) at (N, OD, OH, OW, 3), whose places are (x, y, z).
    Places are (x, y) as in ``affine_grid``. ``mode`` "bilinear" weighs the four pixels around a
    place, "bicubic" the sixteen, "nearest" takes the nearest. Outside the image there are zeros,
    its border, or its reflection, by ``padding_mode``.

    >>> import treadle
    >>> image = treadle.arange(4.0).reshape(1, 1, 2, 2)
    >>> grid_sample(image, treadle.zeros(1, 1, 1, 2), align_corners=True).item()
    1.5
    """
    node, places = real_node("grid_sample", input), node_of("grid_sample", grid)
    rank = len(node.shape) - 2
    check_rank("grid_sample", node, (4, 5), "(N, C, H, W) or (N, C, D, H, W)")
    if len(places.shape) != rank + 2 or (places.shape[0], places.shape[-1]) != (
        node.shape[0], rank,
    ):  # fmt: skip
        raise located(ShapeError(
            f"grid_sample: got an input of shape {node.shape} and a grid of shape {places.shape}; "
            f"they are (N, C, H, W) and (N, OH, OW, 2), or (N, C, D, H, W) and (N, OD, OH, OW, 3)"
        ))  # fmt: skip
    if mode == "bicubic" and rank == 3:
        raise located(ValueError(
            f"grid_sample: got mode 'bicubic' for volumes of shape {node.shape}; it is for images"
        ))  # fmt: skip
    if mode not in _MODES or padding_mode not in _PADDINGS:
        raise located(ValueError(
            f"grid_sample: got mode {mode!r} and padding_mode {padding_mode!r}; the mode is one of "
            f"{', '.join(map(repr, _MODES))}, the padding {', '.join(map(repr, _PADDINGS))}"
        ))  # fmt: skip
    return _sampled(input, grid, mode, padding_mode, align_corners)


@rounded_once
def _sampled(input: Tensor, grid: Tensor, mode: str, padding: str, align: bool) -> Tensor:
    sizes = tuple(input.shape[2:])
    # The grid names x first, which is the last dimension.
    at = [
        _in_pixels(place, size, align)
        for place, size in zip(grid.to(input.dtype).unbind(-1)[::-1], sizes, strict=True)
    ]
    inside = [partial(_inside, size=size, padding=padding, align=align) for size in sizes]
    if mode != "bicubic":
        at = [bounded(place) for bounded, place in zip(inside, at, strict=True)]
    if mode == "nearest":
        return _pixels(input, [a.round(place) for place in at])
    first = [a.floor(place) for place in at]
    shares = _cubic if mode == "bicubic" else _linear
    weights = [shares(a.sub(place, low)) for place, low in zip(at, first, strict=True)]
    total: Tensor | None = None
    for corner in product(*weights):
        places = [a.add(low, step) for low, (step, _) in zip(first, corner, strict=True)]
        if mode == "bicubic":
            places = [bounded(place) for bounded, place in zip(inside, places, strict=True)]
        share = reduce(a.mul, [part for _, part in reversed(corner)])
        part = a.mul(_pixels(input, places), share.unsqueeze(1))
        total = part if total is None else a.add(total, part)
    return total  # type: ignore[return-value]


def _linear(off: Tensor) -> list[tuple[int, Tensor]]:
    """The neighbours of a place and how much each counts."""
    return [(0, a.sub(1, off)), (1, off)]


def _cubic(off: Tensor) -> list[tuple[int, Tensor]]:
    """As ``_linear``, by Keys' cubic convolution with PyTorch's A = -0.75."""
    steepness = -0.75

    def near(t: Tensor) -> Tensor:
        """((A + 2) t - (A + 3)) t^2 + 1, up to a distance of 1."""
        cubes = a.mul(a.mul(a.sub(a.mul(t, steepness + 2), steepness + 3), t), t)
        return a.add(cubes, 1)

    def far(t: Tensor) -> Tensor:
        """((A t - 5 A) t + 8 A) t - 4 A, from 1 to 2."""
        squares = a.mul(a.sub(a.mul(t, steepness), 5 * steepness), t)
        return a.sub(a.mul(a.add(squares, 8 * steepness), t), 4 * steepness)

    rest = a.sub(1, off)
    return [(-1, far(a.add(off, 1))), (0, near(off)), (1, near(rest)), (2, far(a.add(rest, 1)))]


def _in_pixels(at: Tensor, size: int, align: bool) -> Tensor:
    """From -1 .. 1 to pixels."""
    if align:
        return a.mul(a.div(a.add(at, 1), 2), size - 1)
    return a.div(a.sub(a.mul(a.add(at, 1), size), 1), 2)


def _inside(place: Tensor, size: int, padding: str, align: bool) -> Tensor:
    """The place inside the image where the padding says so."""
    if padding == "reflection":
        low, high = (0.0, size - 1.0) if align else (-0.5, size - 0.5)
        span = high - low
        if span == 0:
            place = a.mul(place, 0)
        else:
            off = a.abs(a.sub(place, low))
            rest = a.fmod(off, span)
            is_even = a.eq(a.remainder(a.floor(a.div(off, span)), 2), 0)
            place = a.where(is_even, a.add(rest, low), a.sub(high, rest))
    return place if padding == "zeros" else a.clamp(place, 0, size - 1)


def _pixels(input: Tensor, places: Sequence[Tensor]) -> Tensor:
    """The pixels at whole places (N, ...) along each dimension, zeros outside: (N, C, ...)."""
    n, channels, *sizes = input.shape
    inside = reduce(a.logical_and, (
        a.logical_and(a.ge(place, 0), a.lt(place, size))
        for place, size in zip(places, sizes, strict=True)
    ))  # fmt: skip
    flat: Tensor | int = 0
    for place, size in zip(places, sizes, strict=True):
        flat = a.add(a.mul(flat, size), a.where(inside, place, 0.0).detach().long())
    flat = flat.reshape(n, 1, -1).expand(n, channels, -1)  # type: ignore[union-attr]
    found = gather(input.reshape(n, channels, prod(sizes)), 2, flat)
    found = found.reshape(n, channels, *inside.shape[1:])
    return a.where(inside.unsqueeze(1), found, a.mul(found, 0))


__all__ = ["affine_grid", "grid_sample"]
