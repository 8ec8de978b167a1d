"""Products and extremes of elements that meet at one place, by NumPy, in index order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from treadle.base import dtypes
from treadle.base.errors import IndexRangeError
from treadle.base.lazy_numpy import np
from treadle.ir.node import Node, Type
from treadle.ir.op import NEXT_AXIS, Joint, Library, Op, Sample
from treadle.ops import elementwise as e
from treadle.ops.indexing import gather, scatter_add
from treadle.ops.movement import zeros_of
from treadle.ops.registry import NUMERIC, check_dtype, elements_cost, floats, no_errors, register

Array: TypeAlias = "np.ndarray[Any, Any]"


def _places(index: Array, axis: int) -> tuple[Array, ...]:
    grid: list[Array] = list(np.ogrid[tuple(slice(n) for n in index.shape)])
    grid[axis] = index
    return tuple(grid)


def _call(base: Array, index: Array, src: Array, axis: int, how: str) -> Array:
    if index.size and not 0 <= index.min() <= index.max() < base.shape[axis]:
        bad = index[(index < 0) | (index >= base.shape[axis])][0]
        raise IndexRangeError(
            f"scatter_reduce: got the index {bad}; indices must lie in [0, {base.shape[axis]}) "
            f"along dimension {axis}"
        )
    narrow = base.dtype.kind not in "biufc" or base.dtype == np.float16
    out = base.astype(np.float32 if narrow else base.dtype)
    cut = src[tuple(slice(n) for n in index.shape)].astype(out.dtype)
    function = {"prod": np.multiply, "amax": np.maximum, "amin": np.minimum}[how]
    function.at(out, _places(index, axis), cut)
    return out.astype(base.dtype)


def _infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    check_dtype("scatter_reduce", types[0], (*NUMERIC, dtypes.bool_))
    return types[0]


def _extreme_gradient(g: Node, n: Node) -> Sequence[Node | None]:
    """Shared by all that are the extreme."""
    base, index, src = n.inputs
    axis = n.attrs["axis"]
    kind = g.dtype
    mine = e.convert(e.eq(base, n), dtype=kind)
    theirs = e.convert(e.eq(src, gather(n, index, axis=axis)), dtype=kind)
    share = e.div(g, scatter_add(mine, index, theirs, axis=axis))
    at_mine = e.where(e.ne(mine, e.full_like(mine, 0)), share, e.full_like(share, 0))
    return at_mine, None, e.mul(theirs, gather(share, index, axis=axis))


def _product_gradient(g: Node, n: Node) -> Sequence[Node | None]:
    """The product of all others, also where there is one zero among them."""
    base, index, src = n.inputs
    axis = n.attrs["axis"]
    one = e.full_like(base, 1)
    at_base = e.mul(g, scatter_reduced(one, index, src, axis=axis, how="prod"))
    zero = e.eq(src, e.full_like(src, 0))
    count = scatter_add(zeros_of(base.type), index, e.convert(zero, dtype=g.dtype), axis=axis)
    without = e.where(zero, e.full_like(src, 1), src)
    others = scatter_reduced(base, index, without, axis=axis, how="prod")
    single = e.bitwise_and(zero, e.eq(gather(count, index, axis=axis), e.full_like(src, 1)))
    usual = gather(e.mul(g, n), index, axis=axis)
    usual = e.where(zero, e.full_like(src, 0), e.div(usual, without))
    at_src = e.where(single, gather(e.mul(g, others), index, axis=axis), usual)
    return at_base, None, at_src


def _gradient(g: Node, n: Node) -> Sequence[Node | None]:
    return (_product_gradient if n.attrs["how"] == "prod" else _extreme_gradient)(g, n)


scatter_reduced: Op = register(
    Op(
        name="scatter_reduced", family="indexing", traits=frozenset({"host"}), infer=_infer,
        gradient=Joint(_gradient), residuals=(0, 1, 2, "out"), lower=Library(_call),
        reference=_call,
        samples=lambda: (
            Sample(
                (floats(4, 3), np.array([[0, 1, 3], [0, 2, 3]]), floats(2, 3, seed=1)),
                {"axis": 0, "how": how},
            )
            for how in ("prod", "amax", "amin")
        ),
        errors=no_errors,
        cost=elements_cost(20), dtypes=NUMERIC, batch=NEXT_AXIS,
        doc="base with the elements of the patch multiplied in (or their extremes taken) where the "
        "index says",
    )
)  # fmt: skip

__all__ = ["scatter_reduced"]
