"""vmap: a function of one example, applied to a batch at once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from treadle.autodiff.batching import vectorized
from treadle.base.errors import ShapeError
from treadle.base.shapes import normalize_axis
from treadle.ir.node import Node, located
from treadle.ops.movement import concatenate, expand, permute, slice_
from treadle.tensor.handle import Handle, wrap
from treadle.tensor.trees import Structure, flatten, spread

_RANDOMNESS = ("error", "same", "different")


def vmap(
    func: Callable[..., Any],
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """``func`` of every example of its arguments, without a loop.

    The function runs once, on tensors that stand for one example of many; it cannot ask for their
    values. Tensors from outside are the same for all examples.

    Args:
        in_dims: The dimension of every positional argument that counts the examples, or None where
            it is the same for all: a number for all arguments, or a tuple with one for each, which
            may have the structure of the argument.
        out_dims: The dimension that counts the examples in every output.
        randomness: What random operations do: "error", or draw numbers that are "different" for
            every example or the "same".
        chunk_size: The most examples at a time (None: all), where memory is short.

    >>> import treadle
    >>> x = treadle.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> vmap(treadle.dot)(x, x)
    tensor([ 5., 25.])
    >>> vmap(treadle.dot, in_dims=(1, None))(x, treadle.tensor([1.0, 10.0]))
    tensor([31., 42.])
    """
    if randomness not in _RANDOMNESS:
        raise located(ValueError(
            f"vmap: got randomness={randomness!r}; it is 'error', 'same' or 'different'"
        ))  # fmt: skip
    if chunk_size is not None and chunk_size < 1:
        raise located(ValueError(f"vmap: got chunk_size={chunk_size}; it must be at least 1"))

    @functools.wraps(func)
    def batched(*args: Any, **kwargs: Any) -> Any:
        if isinstance(in_dims, list):
            dims = spread("vmap: in_dims", tuple(in_dims), args)
        else:
            dims = spread("vmap: in_dims", in_dims, args)
        leaves, structure = flatten(args)
        size = _size(leaves, dims)
        call = _Call(func, leaves, structure, dims, kwargs)
        step = max(size, 1) if chunk_size is None else chunk_size
        parts = [
            call.run(start, min(step, size - start), size, randomness)
            for start in range(0, max(size, 1), step)
        ]
        outputs = call.outputs.rebuild([n for n, _ in parts[0]])
        wanted = spread("vmap: out_dims", out_dims, outputs)
        results = [
            _joined(same, dim) for same, dim in zip(zip(*parts, strict=True), wanted, strict=True)
        ]
        return call.outputs.rebuild([wrap(n) for n in results])

    return batched


class _Call:
    """One call of a function under vmap."""

    outputs: Structure

    def __init__(
        self, func: Callable[..., Any], leaves: list[Any], structure: Structure, dims: list[Any],
        kwargs: dict[str, Any],
    ) -> None:  # fmt: skip
        self.func = func
        self.leaves = leaves
        self.structure = structure
        self.dims = dims
        self.kwargs = kwargs

    def run(
        self, start: int, count: int, size: int, randomness: str
    ) -> list[tuple[Node, int | None]]:
        """The outputs for some of the examples, each with their number if it has them."""
        inputs = [
            _examples(x.node, d, start, count, size)
            for x, d in zip(self.leaves, self.dims, strict=True) if d is not None
        ]  # fmt: skip
        made = vectorized(self._once, inputs, count, randomness)
        return [(n, None if has else count) for n, has in made]

    def _once(self, places: list[Node]) -> list[Node]:
        left = iter(places)
        leaves = [
            x if d is None else wrap(next(left))
            for x, d in zip(self.leaves, self.dims, strict=True)
        ]  # fmt: skip
        result = self.func(*self.structure.rebuild(leaves), **self.kwargs)
        outputs, self.outputs = flatten(result)
        for x in outputs:
            if not isinstance(x, Handle):
                raise located(TypeError(
                    f"vmap: the function returned a {type(x).__name__}; it must return tensors, or "
                    f"tuples, lists and dictionaries of tensors"
                ))  # fmt: skip
        return [x.node for x in outputs]


def _size(leaves: list[Any], dims: list[Any]) -> int:
    """The number of examples, which all arguments agree on."""
    sizes: dict[int, None] = {}
    for position, (x, d) in enumerate(zip(leaves, dims, strict=True)):
        if d is None:
            continue
        if not isinstance(d, int):
            raise located(TypeError(
                f"vmap: got in_dims {d!r} for argument {position}; it is a number or None"
            ))  # fmt: skip
        if not isinstance(x, Handle):
            raise located(TypeError(
                f"vmap: got in_dims={d} for argument {position}, which is a {type(x).__name__}; "
                f"only tensors have dimensions: say None for it in in_dims"
            ))  # fmt: skip
        shape = x.node.shape
        if not -len(shape) <= d < len(shape):
            raise located(ShapeError(
                f"vmap: got in_dims={d} for argument {position} of shape {shape}, which has "
                f"{len(shape)} dimensions"
            ))  # fmt: skip
        sizes[shape[d]] = None
    if not sizes:
        raise located(ValueError(
            "vmap: got no argument with examples: at least one must be a tensor whose in_dims is "
            "not None"
        ))  # fmt: skip
    if len(sizes) > 1:
        raise located(ShapeError(
            f"vmap: got {', '.join(map(str, sizes))} examples in the arguments; the sizes of the "
            f"dimensions named by in_dims must be equal"
        ))  # fmt: skip
    return next(iter(sizes))


def _examples(x: Node, dim: int, start: int, count: int, size: int) -> Node:
    """Some of the examples, along the first axis."""
    rank = len(x.shape)
    axis = dim % rank
    moved = permute(x, axes=(axis, *[a for a in range(rank) if a != axis])) if axis else x
    if count == size:
        return moved
    rest = moved.shape[1:]
    starts = (start, *(0,) * len(rest))
    return slice_(moved, starts=starts, sizes=(count, *rest), steps=(1,) * rank)


def _joined(parts: tuple[tuple[Node, int | None], ...], dim: Any) -> Node:
    """One output of all chunks, its examples along ``dim``."""
    first, count = parts[0]
    if dim is None:
        if count is None:
            raise located(ValueError(
                f"vmap: got out_dims=None for an output that differs from example to example "
                f"(shape {first.shape[1:]}); say where the examples go"
            ))  # fmt: skip
        return first
    rows = [n if c is None else expand(n, shape=(c, *n.shape)) for n, c in parts]
    whole = concatenate(*rows, axis=0) if len(rows) > 1 else rows[0]
    rank = len(whole.shape)
    try:
        to = normalize_axis(dim, rank)
    except (IndexError, ShapeError) as error:
        raise located(ShapeError(f"vmap: out_dims: {error}")) from None
    if not to:
        return whole
    others = list(range(1, rank))
    return permute(whole, axes=(*others[:to], 0, *others[to:]))


__all__ = ["vmap"]
