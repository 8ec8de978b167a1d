"""Elements that meet at one place: ``scatter_reduce``, ``index_reduce``, ``segment_reduce``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.base import dtypes
from treadle.base.errors import ShapeError
from treadle.base.lazy_numpy import np
from treadle.ir.node import Node, located, type_of
from treadle.ops import elementwise as e
from treadle.ops import indexing as pick
from treadle.ops import movement as op
from treadle.ops.movement import zeros_of
from treadle.ops.scattering import scatter_reduced
from treadle.tensor import arithmetic as a
from treadle.tensor.creation import tensor
from treadle.tensor.handle import Handle, wrap
from treadle.tensor.indexing import adding
from treadle.tensor.methods import in_place
from treadle.tensor.movement import axis_of, node_of
from treadle.tensor.selection import nonzero

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor

_KINDS = ("sum", "prod", "mean", "amax", "amin")


def _identity(how: str, dtype: dtypes.DType) -> Any:
    """What leaves an element as it is."""
    if how in ("sum", "mean", "prod"):
        return int(how == "prod")
    if dtype.kind == "f":
        return float("-inf" if how == "amax" else "inf")
    if dtype.kind == "b":
        return how == "amin"
    info = np.iinfo(dtype.numpy)
    return int(info.min if how == "amax" else info.max)


def _reduced(base: Node, index: Node, src: Node, axis: int, how: str, include_self: bool) -> Node:
    """Elements of ``src``, as many as of ``index``, reduced into ``base``."""
    start = base
    if not include_self:
        neutral = e.full_like(src, _identity(how, base.dtype))
        start = pick.scatter(base, index, neutral, axis=axis, wraps=False)
    if how not in ("sum", "mean"):
        return scatter_reduced(start, index, src, axis=axis, how=how)
    total = adding(pick.scatter_add)(start, index, src, axis=axis, wraps=False)
    if how == "sum":
        return total
    own = e.full_like(zeros_of(base.type), int(include_self))
    count = pick.scatter_add(own, index, e.full_like(src, 1), axis=axis, wraps=False)
    count = e.maximum(count, e.full_like(count, 1)) if base.dtype.kind != "c" else count
    return (e.div if base.dtype.is_inexact else e.floor_divide)(total, count)


def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """``input`` with the elements of ``src`` reduced into those that ``index`` names along ``dim``.

    ``reduce`` is "sum", "prod", "mean", "amax" or "amin", in index order; without ``include_self``
    the elements of ``input`` that are named do not count.

    >>> import treadle
    >>> x, index = treadle.zeros(3), treadle.tensor([0, 0, 2])
    >>> scatter_reduce(x, 0, index, treadle.tensor([1.0, 5.0, 2.0]), "amax")
    tensor([5., 0., 2.])
    """
    if reduce not in _KINDS:
        raise located(ValueError(
            f"scatter_reduce: got reduce={reduce!r}; it is one of {', '.join(map(repr, _KINDS))}"
        ))  # fmt: skip
    base, at, values = (node_of("scatter_reduce", x) for x in (input, index, src))
    is_number = not base.shape
    base, at, values = (x if x.shape else op.reshape(x, shape=(1,)) for x in (base, at, values))
    axis = axis_of("scatter_reduce", dim, len(base.shape))
    small = all(n <= m for n, m in zip(at.shape, values.shape, strict=False))
    if len(at.shape) != len(values.shape) or len(at.shape) != len(base.shape) or not small:
        raise located(ShapeError(
            f"scatter_reduce: got a tensor of shape {base.shape}, an index of shape {at.shape} and "
            f"a source of shape {values.shape}; they must have equally many dimensions, and the "
            f"index no more elements than the source along any"
        ))  # fmt: skip
    if at.shape != values.shape:
        rank = len(at.shape)
        values = op.slice_(values, starts=(0,) * rank, sizes=at.shape, steps=(1,) * rank)
    at = e.cast(at, dtypes.int64)
    out = _reduced(base, at, e.cast(values, base.dtype), axis, reduce, include_self)
    return wrap(op.reshape(out, shape=()) if is_number else out)


def index_reduce(
    input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *,
    include_self: bool = True,
) -> Tensor:  # fmt: skip
    """``input`` with slices of ``source`` reduced into those that ``index`` names along ``dim``.

    ``reduce`` is "prod", "mean", "amax" or "amin".
    """
    base, at = node_of("index_reduce", input), node_of("index_reduce", index)
    if not base.shape:
        return scatter_reduce(input, 0, index.reshape(1), source.reshape(1), reduce,
                              include_self=include_self)  # fmt: skip
    axis = axis_of("index_reduce", dim, len(base.shape))
    shape = tuple(source.shape)
    column = (1,) * axis + (at.type.size,) + (1,) * (len(shape) - axis - 1)
    spread = wrap(a.stretch(op.reshape(at, shape=column), shape))
    return scatter_reduce(input, axis, spread, source, reduce, include_self=include_self)


_SEGMENT = {"sum": "sum", "mean": "mean", "max": "amax", "min": "amin", "prod": "prod"}


def segment_reduce(
    data: Tensor, reduce: str, *, lengths: Tensor | None = None, indices: Tensor | None = None,
    offsets: Tensor | None = None, axis: int = 0, unsafe: bool = False, initial: Any = None,
) -> Tensor:  # fmt: skip
    """Runs of elements along ``axis``, of these ``lengths`` or between ``offsets``, each reduced.

    ``reduce`` is "sum", "mean", "max", "min" or "prod". An empty run gives ``initial``, or what
    the reduction begins with.

    >>> import treadle
    >>> segment_reduce(treadle.tensor([1.0, 2.0, 4.0]), "sum", lengths=treadle.tensor([1, 2]))
    tensor([1., 6.])
    """
    if reduce not in _SEGMENT or (lengths is None) == (offsets is None):
        raise located(ValueError(
            f"segment_reduce: got reduce={reduce!r}; it is one of {', '.join(_SEGMENT)}, and "
            f"either lengths or offsets are given"
        ))  # fmt: skip
    if indices is not None:
        raise located(ValueError("segment_reduce: got indices; take index_select(data, ...) first"))
    node = node_of("segment_reduce", data)
    place = axis_of("segment_reduce", axis, len(node.shape))
    runs = np.asarray(lengths.numpy() if lengths is not None else np.diff(offsets.numpy()))  # type: ignore[union-attr]
    begin = 0 if offsets is None else int(offsets.numpy().min())
    how = _SEGMENT[reduce]
    count = runs.shape[-1]
    rows = runs.reshape(-1, count)
    if not unsafe and ((runs < 0).any() or (rows.sum(-1) + begin > node.shape[place]).any()):
        raise located(ValueError(
            f"segment_reduce: got lengths {runs.tolist()} for {node.shape[place]} elements along "
            f"dimension {place}; they must not be negative nor add up to more"
        ))  # fmt: skip
    shape = node.shape[: place + 1]
    # What lies outside all runs goes to one more of them, which is cut off.
    where = np.full((len(rows), shape[-1]), count)
    for row, ends in zip(where, rows, strict=True):
        row[begin : begin + ends.sum()] = np.repeat(np.arange(count), ends)
    rest = node.shape[place + 1 :]
    at = tensor(where.reshape(*shape, *(1,) * len(rest))).node
    start = _identity(how, node.dtype) if initial is None else initial
    if how == "mean" and initial is None:
        start = float("nan")
    shape_out = (*node.shape[:place], count + 1, *rest)
    base = e.full_like(zeros_of(type_of(node.dtype, shape_out)), start)
    full = a.stretch(at, node.shape)
    out = _reduced(base, full, node, place, how, how != "mean")
    return wrap(out).narrow(place, 0, count)


def index_put(
    input: Tensor, indices: Sequence[Any], values: Tensor, accumulate: bool = False
) -> Tensor:
    """A copy of ``input`` with ``values`` at the places that ``indices`` name (or added there)."""
    return input.index_put(indices, values, accumulate)


def nonzero_static(input: Tensor, *, size: int, fill_value: int = -1) -> Tensor:
    """The first ``size`` coordinates of what is not zero; rows of ``fill_value`` after them."""
    if size < 0:
        raise located(ValueError(f"nonzero_static: got size={size}; it must not be negative"))
    found = nonzero(input).numpy()[:size]
    out = np.full((size, input.ndim), fill_value, np.int64)
    out[: len(found)] = found
    return tensor(out)


class Methods(Handle):
    """The functions of this module as methods of tensors."""

    __slots__ = ()

    scatter_reduce, index_reduce, nonzero_static = scatter_reduce, index_reduce, nonzero_static
    scatter_reduce_, index_reduce_ = map(in_place, (scatter_reduce, index_reduce))


__all__ = ["index_put", "index_reduce", "nonzero_static", "scatter_reduce", "segment_reduce"]
