"""Sorting along one axis, the first k of a sort, and search in what is sorted.

The order is total: NaN is larger than all numbers, 0 and -0 are equal, and elements that are equal
(among them NaNs) stay in the order they had, ascending or descending. So values and indices are
the same whatever way they are found. ``topk`` is by definition the beginning of such a sort.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from treadle.base import dtypes
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.lazy_numpy import np
from treadle.base.shapes import Shape, prod
from treadle.ir.launch import Layout, Plan
from treadle.ir.node import Node, Type, type_of
from treadle.ir.op import ANY_LEADING, NEXT_AXIS, ErrorSample, Joint, Loops, Op, Sample
from treadle.ops.elementwise import DISCRETE
from treadle.ops.indexing import scatter
from treadle.ops.movement import zeros_of
from treadle.ops.project import project
from treadle.ops.registry import ALL, check_dtype, elements_cost, floats, register
from treadle.ops.scan import check_axis


def _plan(name: str) -> Callable[..., Plan]:
    def plan(
        inputs: Sequence[Layout], outputs: Sequence[Layout], attrs: dict[str, Any], threads: int
    ) -> Plan:
        from treadle.ops.sort_plans import PLANS

        return PLANS[name](inputs, attrs, threads)

    return plan


# --- sort and topk --------------------------------------------------------------------------------


def _sort_infer(types: Sequence[Type], attrs: dict[str, Any]) -> tuple[Type, Type]:
    kind = types[0]
    check_dtype("sort", kind, ALL)
    check_axis("sort", kind, attrs["axis"])
    return kind, type_of(dtypes.int64, kind.shape, kind.device)


def _topk_infer(types: Sequence[Type], attrs: dict[str, Any]) -> tuple[Type, Type]:
    kind, axis, count = types[0], attrs["axis"], attrs["k"]
    check_dtype("topk", kind, ALL)
    check_axis("topk", kind, axis)
    if not 0 <= count <= kind.shape[axis]:
        raise ShapeError(
            f"topk: got k={count} for axis {axis} of a tensor of shape {kind.shape}; k must lie "
            f"in [0, {kind.shape[axis]}], the size of the tensor there"
        )
    shape = (*kind.shape[:axis], count, *kind.shape[axis + 1 :])
    return tuple(type_of(d, shape, kind.device) for d in (kind.dtype, dtypes.int64))  # type: ignore[return-value]


def _gradient(g: Sequence[Node | None], n: Node) -> Sequence[Node | None]:
    """Back to where the elements came from."""
    if g[0] is None:
        return (None,)
    zeros = zeros_of(n.inputs[0].type)
    return (scatter(zeros, project(n, index=1), g[0], axis=n.attrs["axis"]),)


def _sort_reference(x: np.ndarray, axis: int, descending: bool) -> tuple[np.ndarray, np.ndarray]:
    """NumPy's stable sort of the elements' ranks."""
    _, ranks = np.unique(x, return_inverse=True, equal_nan=True)
    ranks = ranks.reshape(x.shape)
    places = np.argsort(-ranks if descending else ranks, axis=axis, kind="stable")
    return np.take_along_axis(x, places, axis), places


def _topk_reference(x: np.ndarray, axis: int, k: int, largest: bool) -> tuple[np.ndarray, ...]:
    first = (slice(None),) * axis + (slice(k),)
    return tuple(out[first] for out in _sort_reference(x, axis, largest))


_SHAPES: tuple[tuple[Shape, int], ...] = (
    ((1,), 0), ((7,), 0), ((70,), 0), ((3, 150), 1), ((5, 3), 0), ((2, 80, 3), 1), ((0,), 0),
    ((3, 0), 1), ((0, 3), 1),
)  # fmt: skip


def _sort_samples() -> Iterable[Sample]:
    for shape, axis in _SHAPES:
        for descending in (False, True):
            smooth = prod(shape) < 20
            yield Sample((floats(*shape),), {"axis": axis, "descending": descending}, smooth)


def _topk_samples() -> Iterable[Sample]:
    for shape, axis in _SHAPES:
        for largest in (False, True):
            for k in {0, shape[axis] // 2, shape[axis]}:
                attrs = {"axis": axis, "k": k, "largest": largest}
                yield Sample((floats(*shape),), attrs, prod(shape) < 20)


def _axis_errors(name: str, attrs: dict[str, Any]) -> Iterable[ErrorSample]:
    for axis in (2, -1):
        text = f"{name}: got axis {axis} for a tensor of shape (2, 3); it must be one of its 2"
        yield ErrorSample((floats(2, 3),), attrs | {"axis": axis}, ShapeError, text)


def _topk_errors() -> Iterable[ErrorSample]:
    yield from _axis_errors("topk", {"k": 1, "largest": True})
    for k in (4, -1):
        yield ErrorSample(
            (floats(2, 3),), {"axis": 1, "k": k, "largest": True}, ShapeError,
            f"topk: got k={k} for axis 1 of a tensor of shape (2, 3); k must lie in [0, 3]",
        )  # fmt: skip


def _define(
    name: str, infer: Callable[..., Any], reference: Callable[..., Any],
    samples: Callable[[], Iterable[Sample]], errors: Callable[[], Iterable[ErrorSample]], doc: str,
) -> Op:  # fmt: skip
    return register(
        Op(
            name=name, family="sort", traits=frozenset({"sort"}), infer=infer,
            gradient=Joint(_gradient), residuals=("out",), batch=NEXT_AXIS,
            lower=Loops(_plan(name), contiguous=frozenset({0})), reference=reference,
            samples=samples, errors=errors, cost=elements_cost(40), dtypes=ALL, doc=doc,
        )
    )  # fmt: skip


sort = _define(
    "sort", _sort_infer, _sort_reference, _sort_samples,
    lambda: _axis_errors("sort", {"descending": False}),
    "the elements along one axis in stable order, and where they were",
)  # fmt: skip
topk = _define(
    "topk", _topk_infer, _topk_reference, _topk_samples, _topk_errors,
    "the first k elements of a sort, descending where ``largest``, and where they were",
)  # fmt: skip

# --- search ---------------------------------------------------------------------------------------


def _search_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    row, values = types
    for kind in types:
        check_dtype("search_sorted", kind, ALL)
    if row.dtype is not values.dtype:
        raise DTypeError(
            f"search_sorted: got a sequence of dtype {row.dtype.name} and values of dtype "
            f"{values.dtype.name}; they must be equal (convert one of them first)"
        )
    if not row.ndim or row.ndim != values.ndim or row.shape[:-1] != values.shape[:-1]:
        raise ShapeError(
            f"search_sorted: got a sequence of shape {row.shape} and values of shape "
            f"{values.shape}; all dimensions but the last must be equal"
        )
    return type_of(dtypes.int64, values.shape, values.device)


def _search_reference(row: np.ndarray, values: np.ndarray, right: bool) -> np.ndarray:
    """How many elements of a sorted row are smaller (or not larger)."""
    pairs = row[..., None, :], values[..., :, None]
    return (pairs[0] <= pairs[1] if right else pairs[0] < pairs[1]).sum(-1)


def _search_samples() -> Iterable[Sample]:
    for row, values in (((7,), (9,)), ((3, 16), (3, 70)), ((2, 3, 5), (2, 3, 2)), ((0,), (2,))):
        for right in (False, True):
            # Not negative, so that they stay sorted in every dtype.
            ordered, found = (
                np.round(2 * floats(*s, low=0.0, seed=i)) / 2 for i, s in enumerate((row, values))
            )
            yield Sample((np.sort(ordered), found), {"right": right})


def _search_errors() -> Iterable[ErrorSample]:
    yield ErrorSample(
        (floats(3), np.ones(2, np.int32)), {"right": False}, DTypeError,
        "search_sorted: got a sequence of dtype float32 and values of dtype int32",
    )  # fmt: skip
    yield ErrorSample(
        (floats(2, 3), floats(4, 3)), {"right": False}, ShapeError,
        "search_sorted: got a sequence of shape (2, 3) and values of shape (4, 3)",
    )  # fmt: skip


search_sorted = register(
    Op(
        name="search_sorted", family="sort", traits=frozenset({"search"}), infer=_search_infer,
        gradient=DISCRETE, residuals=(), batch=ANY_LEADING,
        lower=Loops(_plan("search_sorted"), contiguous=frozenset({0, 1})),
        reference=_search_reference, samples=_search_samples, errors=_search_errors,
        cost=elements_cost(30), dtypes=ALL,
        doc="where values go in sorted rows: before the first element that is not smaller (or "
        "``right``, that is larger); NaN after all",
    )
)  # fmt: skip

__all__ = ["search_sorted", "sort", "topk"]
