"""Attention."""

from __future__ import annotations

import math

from treadle.base import dtypes
from treadle.base.errors import DTypeError, ShapeError
from treadle.ir.node import located
from treadle.nn.functional.common import node_of, real_node
from treadle.nn.functional.embedding import dropout
from treadle.tensor import arithmetic as a
from treadle.tensor import reduction
from treadle.tensor.autocast import lowered
from treadle.tensor.composed import composed
from treadle.tensor.contraction import matmul
from treadle.tensor.creation import ones
from treadle.tensor.joining import tril
from treadle.tensor.tensor import Tensor


@lowered
@composed
def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """``softmax(query @ key^T * scale + mask) @ value``.

    ``scale`` is 1 / sqrt(E) unless given. A boolean mask is True where a key takes part, another
    one is added to the scores; with ``is_causal`` query i sees the keys 0..i. A query that sees no
    key gives zeros. Dropout removes weights with probability ``dropout_p``. With ``enable_gqa``
    key and value may have fewer heads (dimension -3), each for a group of the query's.

    Shapes: query (..., L, E), key (..., S, E), value (..., S, V), mask broadcast to (..., L, S);
    the result is (..., L, V).
    """
    return attend(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)[0]


def attend(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, dropout_p: float,
    is_causal: bool, scale: float | None = None, enable_gqa: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The result of ``scaled_dot_product_attention``, and the weights (..., L, S) behind it."""
    name = "scaled_dot_product_attention"
    _check_shapes(name, query, key, value)
    if is_causal and attn_mask is not None:
        raise located(ValueError(f"{name}: got attn_mask and is_causal=True; give one of them"))
    if enable_gqa:
        key, value = _for_all_heads(name, query, key), _for_all_heads(name, query, value)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = a.mul(matmul(query, key.transpose(-2, -1)), factor)
    if is_causal:
        causal = tril(ones(query.shape[-2], key.shape[-2], dtype=dtypes.bool_))
        scores = a.where(causal, scores, -math.inf)
    lonely: Tensor | None = None  # where a query sees no key
    if attn_mask is not None:
        scores, lonely = _masked(name, scores, attn_mask)
    weights = reduction.softmax(scores, -1)
    if lonely is not None:
        weights = a.where(lonely, 0.0, weights)
    weights = dropout(weights, dropout_p) if dropout_p else weights
    return matmul(weights, value), weights


def _check_shapes(name: str, query: Tensor, key: Tensor, value: Tensor) -> None:
    q, k, v = (real_node(name, x, what).shape for x, what in (
        (query, "a query"), (key, "a key"), (value, "a value")
    ))  # fmt: skip
    if min(len(q), len(k), len(v)) < 2 or k[-2] != v[-2] or q[-1] != k[-1]:
        raise located(ShapeError(
            f"{name}: got a query of shape {q}, a key of {k} and a value of {v}; they must be "
            f"(..., L, E), (..., S, E) and (..., S, V)"
        ))  # fmt: skip


def _masked(name: str, scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The scores with the mask, and which rows it leaves nothing of (they are not masked)."""
    node = node_of(name, mask)
    if node.dtype is dtypes.bool_:
        lonely = a.logical_not(reduction.any(mask, -1, keepdim=True))
        return a.where(a.logical_or(mask, lonely), scores, -math.inf), lonely
    if not node.dtype.is_floating_point:
        raise located(DTypeError(
            f"{name}: got an attn_mask of dtype {node.dtype.name}; it must be bool (True where a "
            f"key takes part) or floating-point (added to the scores); convert it with .bool()"
        ))  # fmt: skip
    lonely = a.eq(reduction.amax(mask, -1, keepdim=True), -math.inf)
    return a.add(scores, a.where(lonely, 0.0, mask).to(scores.dtype)), lonely


def _for_all_heads(name: str, query: Tensor, x: Tensor) -> Tensor:
    """Every head of a key or value repeated for its group of the query's heads."""
    heads = query.shape[-3] if query.ndim > 2 else 0
    own = x.shape[-3] if x.ndim > 2 else 0
    if not own or heads % own:
        raise located(ShapeError(
            f"{name}: got a query of shape {tuple(query.shape)} and a key or value of "
            f"{tuple(x.shape)} with enable_gqa; the number of heads (dimension -3) of the query "
            f"must be a multiple of the other's"
        ))  # fmt: skip
    *batch, _, length, width = x.shape
    spread = x.unsqueeze(-3).expand(*batch, own, heads // own, length, width)
    return spread.reshape(*batch, heads, length, width)


__all__ = ["scaled_dot_product_attention"]
