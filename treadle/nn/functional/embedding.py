"""Rows of a table by index, and random removal."""

from __future__ import annotations

from typing import Any

from treadle.base import dtypes
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.shapes import Shape
from treadle.ir.node import located
from treadle.nn.functional.common import check_rank, node_of, real_node
from treadle.ops import elementwise as e
from treadle.ops.checks import check
from treadle.ops.indexing import take
from treadle.ops.movement import detach, expand, reshape
from treadle.random.sampling import draw_bernoulli
from treadle.tensor import arithmetic as a
from treadle.tensor import reduction
from treadle.tensor.arithmetic import cast
from treadle.tensor.composed import composed
from treadle.tensor.creation import zeros
from treadle.tensor.function import Function
from treadle.tensor.grad_mode import no_grad
from treadle.tensor.handle import wrap
from treadle.tensor.operators import write_back
from treadle.tensor.selection import index_add
from treadle.tensor.tensor import Tensor


def embedding(
    input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Tensor:  # fmt: skip
    """The rows of ``weight`` (num, dim) that ``input`` names: (*input.shape, dim).

    No gradient flows to row ``padding_idx``. With ``max_norm`` the rows that are named are first
    scaled to that ``norm_type`` norm in place, where theirs is larger. ``scale_grad_by_freq``
    divides the gradient of a row by how often it is named. Gradients are dense, so ``sparse``
    changes nothing. An index outside [0, num) is an IndexError, raised when the result is
    evaluated.
    """
    if max_norm is not None:
        limit_rows(input, weight, max_norm, norm_type)
    if scale_grad_by_freq:
        weight = _EvenGradient.apply(weight, input)
    return _embedding(input, weight, padding_idx)


@no_grad()
def limit_rows(input: Tensor, weight: Tensor, max_norm: float, norm_type: float) -> None:
    """Scales the rows that are named, in place, to a norm of at most ``max_norm``."""
    index = input.reshape(-1)
    rows = weight.detach().index_select(0, index)
    norms = reduction.norm(rows, norm_type, 1, keepdim=True)
    scaled = a.where(a.gt(norms, max_norm), a.mul(rows, a.div(max_norm, a.add(norms, 1e-7))), rows)
    weight.index_copy_(0, index, scaled.to(weight.dtype))


class _EvenGradient(Function):
    """The weight; the gradient of a row is divided by how often it is named."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, index: Tensor) -> Tensor:
        """The weight."""
        ctx.save_for_backward(index)
        return weight

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        """The gradient, divided by the counts."""
        (index,) = ctx.saved_tensors
        flat = index.reshape(-1).long()
        ones = a.add(a.mul(flat, 0), 1)
        counts = index_add(zeros(g.shape[0], dtype=dtypes.int64), 0, flat, ones)
        return a.div(g, a.clamp(counts, min=1).to(g.dtype).unsqueeze(1)), None


@composed
def _embedding(input: Tensor, weight: Tensor, padding_idx: int | None) -> Tensor:
    index, table = node_of("embedding", input), real_node("embedding", weight, "a weight")
    if index.dtype.kind not in "iu":
        raise located(DTypeError(
            f"embedding: got indices of dtype {index.dtype.name}; they must be integers; convert "
            f"them with .long()"
        ))  # fmt: skip
    if len(table.shape) != 2:
        raise located(ShapeError(
            f"embedding: got a weight of shape {table.shape}; it must be (num, dim)"
        ))  # fmt: skip
    count = table.shape[0]
    words = (
        f"embedding: index {{value}} is out of range for {count} rows (0..{count - 1}){{where}}; "
        f"make the table larger, or map unknown indices to one of its rows"
    )
    index = check(cast(index, dtypes.int64), rule="index_in_range", limits=(count,), words=words)
    rows = take(table, index, axis=0)
    if padding_idx is None:
        return wrap(rows)
    if not -count <= padding_idx < count:
        raise located(ValueError(
            f"embedding: got padding_idx {padding_idx} for a weight of {count} rows; it must be "
            f"one of them"
        ))  # fmt: skip
    is_padding = e.eq(index, e.full_like(index, padding_idx % count))
    mask = expand(reshape(is_padding, shape=(*index.shape, 1)), shape=rows.shape)
    return wrap(e.where(mask, detach(rows), rows))


def _dropped(
    name: str, input: Tensor, p: float, training: bool, inplace: bool, shape: Shape
) -> Tensor:
    """Zeros with probability p, decided once for each place of ``shape``."""
    node_of(name, input)
    if not 0 <= p <= 1:
        raise located(ValueError(f"{name}: got p={p}; a probability is from 0 to 1"))
    if not training or p == 0:
        return input
    node = real_node(name, input)
    dropped = draw_bernoulli(shape, p)
    dropped = dropped if dropped.shape == node.shape else expand(dropped, shape=node.shape)
    scaled = e.mul(node, e.full_like(node, 1 / (1 - p) if p < 1 else 0.0))
    out = wrap(e.where(dropped, e.full_like(node, 0), scaled))
    return write_back(input, out, name) if inplace else out


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """In training: elements become 0 with probability p, the others ``x / (1 - p)``."""
    return _dropped("dropout", input, p, training, inplace, node_of("dropout", input).shape)


def dropout2d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """``dropout`` of whole channels of (N, C, H, W) or (C, H, W)."""
    node = node_of("dropout2d", input)
    check_rank("dropout2d", node, (4, 3), "(N, C, H, W) or (C, H, W)")
    return _dropped("dropout2d", input, p, training, inplace, (*node.shape[:-2], 1, 1))


def dropout1d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """``dropout`` of whole channels of (N, C, L) or (C, L)."""
    node = node_of("dropout1d", input)
    check_rank("dropout1d", node, (3, 2), "(N, C, L) or (C, L)")
    return _dropped("dropout1d", input, p, training, inplace, (*node.shape[:-1], 1))


def dropout3d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """``dropout`` of whole channels of (N, C, D, H, W) or (C, D, H, W)."""
    node = node_of("dropout3d", input)
    check_rank("dropout3d", node, (5, 4), "(N, C, D, H, W) or (C, D, H, W)")
    return _dropped("dropout3d", input, p, training, inplace, (*node.shape[:-3], 1, 1, 1))


def alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """``dropout`` that keeps mean and variance after SELU: elements become its lowest value.

    That is ``-scale * alpha`` of ``selu``; all are then scaled and shifted (Klambauer, 2017).
    """
    shape = node_of("alpha_dropout", input).shape
    return _alpha_dropped("alpha_dropout", input, p, training, inplace, shape)


def feature_alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """``alpha_dropout`` of whole channels of (N, C, ...)."""
    shape = node_of("feature_alpha_dropout", input).shape
    places = (*shape[:2], *(1,) * (len(shape) - 2))
    return _alpha_dropped("feature_alpha_dropout", input, p, training, inplace, places)


_LOWEST_SELU = -1.7580993408473766


def _alpha_dropped(
    name: str, input: Tensor, p: float, training: bool, inplace: bool, shape: Shape
) -> Tensor:
    node_of(name, input)
    if not 0 <= p <= 1:
        raise located(ValueError(f"{name}: got p={p}; a probability is from 0 to 1"))
    if not training or p == 0:
        return input
    node = real_node(name, input)
    kept = 1 - p
    scale = (kept + _LOWEST_SELU**2 * kept * p) ** -0.5 if kept else 0.0
    dropped = draw_bernoulli(shape, p)
    dropped = dropped if dropped.shape == node.shape else expand(dropped, shape=node.shape)
    chosen = e.where(dropped, e.full_like(node, _LOWEST_SELU), node)
    shift = e.full_like(node, -scale * _LOWEST_SELU * p)
    out = wrap(e.add(e.mul(chosen, e.full_like(node, scale)), shift))
    return write_back(input, out, name) if inplace else out


__all__ = [
    "alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "embedding",
    "feature_alpha_dropout",
]  # fmt: skip
