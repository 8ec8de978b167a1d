"""Attention."""

from __future__ import annotations

import math

from treadle.base import dtypes
from treadle.base.errors import ShapeError
from treadle.ir.node import located
from treadle.nn.functional.common import real_node
from treadle.nn.functional.embedding import dropout
from treadle.tensor import arithmetic as a
from treadle.tensor.contraction import matmul
from treadle.tensor.creation import ones
from treadle.tensor.joining import tril
from treadle.tensor.reduction import softmax
from treadle.tensor.tensor import Tensor


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
) -> Tensor:  # fmt: skip
    """``softmax(query @ key^T * scale + mask) @ value``.

    ``scale`` is 1 / sqrt(E) unless given. A boolean mask is True where a key takes part, another
    one is added to the scores; with ``is_causal`` query i sees the keys 0..i. A query that sees no
    key gives NaN. Dropout removes weights with probability ``dropout_p``.

    Shapes: query (..., L, E), key (..., S, E), value (..., S, V), mask broadcast to (..., L, S);
    the result is (..., L, V).
    """
    name = "scaled_dot_product_attention"
    nodes = [real_node(name, x, what) for x, what in (
        (query, "a query"), (key, "a key"), (value, "a value")
    )]  # fmt: skip
    if any(len(n.shape) < 2 for n in nodes) or nodes[1].shape[-2] != nodes[2].shape[-2]:
        raise located(ShapeError(
            f"{name}: got a query of shape {nodes[0].shape}, a key of {nodes[1].shape} and a value "
            f"of {nodes[2].shape}; they must be (..., L, E), (..., S, E) and (..., S, V)"
        ))  # fmt: skip
    if is_causal and attn_mask is not None:
        raise located(ValueError(f"{name}: got attn_mask and is_causal=True; give one of them"))
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = a.mul(matmul(query, key.transpose(-2, -1)), factor)
    if is_causal:
        attn_mask = tril(ones(query.shape[-2], key.shape[-2], dtype=dtypes.bool_))
    if attn_mask is not None and attn_mask.dtype is dtypes.bool_:
        scores = a.where(attn_mask, scores, -math.inf)
    elif attn_mask is not None:
        scores = a.add(scores, attn_mask)
    weights = softmax(scores, -1)
    return matmul(dropout(weights, dropout_p) if dropout_p else weights, value)


__all__ = ["scaled_dot_product_attention"]
