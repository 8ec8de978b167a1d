"""Sums, means and maxima of bags of embeddings, and bilinear forms."""

from __future__ import annotations

from treadle.base import dtypes
from treadle.base.errors import ShapeError
from treadle.ir.node import located
from treadle.nn.functional.common import node_of, real_node
from treadle.nn.functional.embedding import embedding
from treadle.tensor import arithmetic as a
from treadle.tensor import reduction as r
from treadle.tensor.counting import searchsorted
from treadle.tensor.creation import arange, zeros
from treadle.tensor.einsum import einsum
from treadle.tensor.joining import cat, stack
from treadle.tensor.selection import index_add
from treadle.tensor.tensor import Tensor

_MODES = ("sum", "mean", "max")


def embedding_bag(
    input: Tensor, weight: Tensor, offsets: Tensor | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, mode: str = "mean",
    sparse: bool = False, per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False, padding_idx: int | None = None,
) -> Tensor:  # fmt: skip
    """The sum, mean or maximum of the rows of ``weight`` (num, dim) of each bag: (bags, dim).

    ``input`` (bags, n) has bags of equal size; a vector is cut into bags that begin at ``offsets``
    (the last one is the end with ``include_last_offset``). ``per_sample_weights`` multiply the rows
    of a sum. Rows ``padding_idx`` do not count. An empty bag gives zeros. The other
    settings are those of ``embedding``.
    """
    name = "embedding_bag"
    index, table = node_of(name, input), real_node(name, weight, "a weight")
    if mode not in _MODES or (per_sample_weights is not None and mode != "sum"):
        raise located(ValueError(
            f"{name}: got mode {mode!r}{'' if per_sample_weights is None else ' and weights'}; it "
            f"is {', '.join(map(repr, _MODES))}, and only 'sum' takes per_sample_weights"
        ))  # fmt: skip
    if (len(index.shape), offsets is None) not in ((2, True), (1, False)):
        raise located(ShapeError(
            f"{name}: got an input of shape {index.shape} and offsets "
            f"{None if offsets is None else tuple(offsets.shape)}; it takes (bags, n) without "
            f"offsets, or a vector with them"
        ))  # fmt: skip
    if offsets is None:
        count, size = index.shape
        owners = a.floor_divide(arange(count * size), max(size, 1))
    else:
        count = offsets.shape[0] - include_last_offset
        owners = a.sub(searchsorted(offsets[:count], arange(index.shape[0]), right=True), 1)
    flat = input.reshape(-1)
    rows = embedding(flat, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq)
    counted = a.ne(flat, -1 if padding_idx is None else padding_idx % table.shape[0])
    if mode == "max":
        return _largest(rows, owners, counted, count)
    if per_sample_weights is not None:
        rows = a.mul(rows, per_sample_weights.reshape(-1, 1))
    rows = a.where(counted.unsqueeze(1), rows, a.mul(rows, 0))
    sums = index_add(zeros(count, table.shape[1], dtype=rows.dtype), 0, owners, rows)
    if mode == "sum":
        return sums
    counts = index_add(zeros(count, dtype=dtypes.int64), 0, owners, counted.long())
    return a.div(sums, a.clamp(counts, min=1).to(sums.dtype).unsqueeze(1))


def _largest(rows: Tensor, owners: Tensor, counted: Tensor, count: int) -> Tensor:
    """The maximum of the rows of each bag (evaluates which rows are in which)."""
    bags: list[list[int]] = [[] for _ in range(count)]
    for i, (owner, counts) in enumerate(zip(owners.tolist(), counted.tolist(), strict=True)):
        if counts:
            bags[owner].append(i)
    empty = zeros(rows.shape[1], dtype=rows.dtype)
    return stack([r.amax(cat([rows[i : i + 1] for i in bag]), 0) if bag else empty for bag in bags])


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``y[k] = input1 @ weight[k] @ input2 + bias[k]``.

    Shapes: (..., i), (..., j), (k, i, j), (k,) -> (..., k).
    """
    shapes = [node_of("bilinear", x).shape for x in (input1, input2, weight)]
    x, y, w = shapes
    if not x or not y or len(w) != 3 or x[:-1] != y[:-1] or (x[-1], y[-1]) != w[1:]:
        raise located(ShapeError(
            f"bilinear: got inputs of shapes {x} and {y} and a weight of shape {w}; they are "
            f"(..., i), (..., j) and (k, i, j)"
        ))  # fmt: skip
    out = einsum("...i,kij,...j->...k", input1, weight, input2)
    return out if bias is None else a.add(out, bias)


__all__ = ["bilinear", "embedding_bag"]
