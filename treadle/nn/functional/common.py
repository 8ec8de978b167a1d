"""What the functions of this package share: checks, and one rounding for 16-bit floats."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from treadle.base import dtypes
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.shapes import Shape
from treadle.ir.node import Node, located
from treadle.ops import elementwise as e
from treadle.ops.movement import expand, reshape
from treadle.ops.reduce import reduce_sum
from treadle.tensor.arithmetic import cast, refuse
from treadle.tensor.handle import Handle, wrap
from treadle.tensor.tensor import Tensor

F = TypeVar("F", bound=Callable[..., Tensor])
Pair = tuple[int, int]


def node_of(name: str, x: Any) -> Node:
    """The node of a tensor; TypeError for anything else."""
    if not isinstance(x, Handle):
        raise refuse(name, x)
    return x.node


def real_node(name: str, x: Any, what: str = "an input") -> Node:
    """The node of a floating-point tensor; DTypeError for another dtype."""
    node = node_of(name, x)
    if not node.dtype.is_floating_point:
        raise located(DTypeError(
            f"{name}: got {what} of dtype {node.dtype.name}; it must be floating-point; convert it "
            f"with .float() first"
        ))  # fmt: skip
    return node


def widened(node: Node) -> Node:
    """f32 for 16-bit floats."""
    narrow = node.dtype.is_floating_point and node.dtype.bits == 16
    return e.convert(node, dtype=dtypes.float32) if narrow else node


def number_node(name: str, x: Any) -> Node:
    """The node of a tensor of floating-point or complex numbers; integers as the default float."""
    node = node_of(name, x)
    return node if node.dtype.is_inexact else e.convert(node, dtype=dtypes.get_default_dtype())


def of_any_number(function: F) -> F:
    """Makes a function of a tensor take what ``number_node`` does, and round 16-bit floats once."""
    name = function.__name__

    @functools.wraps(function)
    def wrapped(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        node = number_node(name, input)
        out = function(wrap(widened(node)), *args, **kwargs)
        return wrap(cast(out.node, node.dtype))

    return wrapped  # type: ignore[return-value]


def rounded_once(function: F) -> F:
    """Makes a function of a floating-point tensor compute 16-bit floats in f32.

    The result is rounded once, at the end. Other dtypes are refused.
    """
    name = function.__name__

    @functools.wraps(function)
    def wrapped(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        node = real_node(name, input)
        if node.dtype.bits != 16:
            return function(input, *args, **kwargs)
        out = function(wrap(widened(node)), *args, **kwargs)
        return wrap(cast(out.node, node.dtype))

    return wrapped  # type: ignore[return-value]


def along_channels(vector: Node, shape: Shape) -> Node:
    """(C,) spread over (N, C, ...)."""
    column = reshape(vector, shape=(vector.shape[0], *(1,) * (len(shape) - 2)))
    return expand(column, shape=shape)


def pair(name: str, what: str, value: Any) -> Pair:
    """Two ints from one or two."""
    items = (value, value) if isinstance(value, int) else tuple(value)
    if len(items) == 1:
        items *= 2
    if len(items) != 2 or not all(isinstance(v, int) for v in items):
        raise located(TypeError(
            f"{name}: got {what} {value!r}; it takes an int or two ints (height, width)"
        ))  # fmt: skip
    return items[0], items[1]


def check_rank(name: str, node: Node, ranks: Sequence[int], meaning: str) -> None:
    """ShapeError unless the tensor has one of these numbers of dimensions."""
    if len(node.shape) not in ranks:
        raise located(ShapeError(
            f"{name}: got an input of shape {node.shape}; it must have "
            f"{' or '.join(map(str, ranks))} dimensions: {meaning}"
        ))  # fmt: skip


def total(node: Node) -> Node:
    """The sum of all elements."""
    return reduce_sum(node, axes=tuple(range(len(node.shape)))) if node.shape else node


def check_reduction(name: str, reduction: str, *more: str) -> None:
    """ValueError for a reduction that a loss does not know."""
    known = ("none", "mean", "sum", *more)
    if reduction not in known:
        raise located(ValueError(
            f"{name}: got reduction {reduction!r}; it is one of {', '.join(map(repr, known))}"
        ))  # fmt: skip


def old_reduction(reduction: str, size_average: bool | None, reduce: bool | None) -> str:
    """The reduction; PyTorch's older ``size_average`` and ``reduce`` go first where they are given.

    >>> old_reduction("mean", False, None), old_reduction("mean", None, False)
    ('sum', 'none')
    """
    if size_average is None and reduce is None:
        return reduction
    if reduce is False:
        return "none"
    return "sum" if size_average is False else "mean"


def reduced(node: Node, reduction: str, source: Node, count: int | None = None) -> Tensor:
    """The losses as they are, their sum, or the sum divided by ``count`` (of the losses).

    In the dtype of ``source`` if that is a float.
    """
    if reduction != "none":
        out = total(node)
        if reduction != "sum":
            out = e.div(out, e.full_like(out, node.type.size if count is None else count))
        node = out
    return wrap(cast(node, source.dtype) if source.dtype.is_floating_point else node)


__all__ = [
    "Pair", "along_channels", "check_rank", "check_reduction", "node_of", "number_node",
    "of_any_number", "old_reduction", "pair", "real_node", "reduced", "rounded_once", "total",
    "widened",
]  # fmt: skip
