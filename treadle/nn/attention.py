"""Attention of several heads."""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import DTypeError, ShapeError
from treadle.ir.node import located
from treadle.nn import functional as F
from treadle.nn import init
from treadle.nn.functional.attention import attend
from treadle.nn.functional.common import node_of, real_node
from treadle.nn.linear import Linear
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.tensor import arithmetic as a
from treadle.tensor.creation import empty, zeros
from treadle.tensor.joining import cat
from treadle.tensor.tensor import Tensor


class MultiheadAttention(Module):
    """``out_proj(concat_h(softmax(q_h k_h^T / sqrt(d) + mask) v_h))`` (Vaswani et al., 2017).

    Query, key and value are projected to ``embed_dim`` and cut into ``num_heads`` heads of size d.
    ``kdim`` and ``vdim`` are the sizes of key and value where they differ. ``add_bias_kv`` adds a
    learned key and value, ``add_zero_attn`` ones of zeros.

    Shapes: query (L, N, E), key (S, N, kdim), value (S, N, vdim), with N first where
    ``batch_first``, or without N.

    >>> import treadle
    >>> x = treadle.randn(2, 5, 8)
    >>> output, weights = MultiheadAttention(8, 2, batch_first=True)(x, x, x)
    >>> tuple(output.shape), tuple(weights.shape)
    ((2, 5, 8), (2, 5, 5))
    """

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
        add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None,
        vdim: int | None = None, batch_first: bool = False, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if embed_dim < 1 or num_heads < 1 or embed_dim % num_heads:
            raise located(ValueError(
                f"MultiheadAttention: got embed_dim {embed_dim} and num_heads {num_heads}; "
                f"embed_dim must be a positive multiple of num_heads"
            ))  # fmt: skip
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.add_zero_attn = add_zero_attn
        kind = {"device": device, "dtype": dtype}
        packed = self.kdim == self.vdim == embed_dim
        for name, rows, columns in (
            ("in_proj_weight", 3 * embed_dim, embed_dim), ("q_proj_weight", embed_dim, embed_dim),
            ("k_proj_weight", embed_dim, self.kdim), ("v_proj_weight", embed_dim, self.vdim),
        ):  # fmt: skip
            used = packed == (name == "in_proj_weight")
            weight = Parameter(empty(rows, columns, **kind)) if used else None
            self.register_parameter(name, weight)
        vector = Parameter(empty(3 * embed_dim, **kind)) if bias else None
        self.register_parameter("in_proj_bias", vector)
        for name in ("bias_k", "bias_v"):
            extra = Parameter(empty(1, 1, embed_dim, **kind)) if add_bias_kv else None
            self.register_parameter(name, extra)
        self.out_proj = Linear(embed_dim, embed_dim, bias, **kind)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Weights as by Xavier, biases 0."""
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if getattr(self, name) is not None:
                init.xavier_uniform_(getattr(self, name))
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        if self.bias_k is not None:
            init.xavier_normal_(self.bias_k)
            init.xavier_normal_(self.bias_v)

    @classmethod
    def of(
        cls, embed_dim: int, num_heads: int, dropout: float, training: bool, add_zero_attn: bool,
        tensors: dict[str, Any], out_weight: Tensor, out_bias: Tensor | None,
        sizes: tuple[int, int],
    ) -> MultiheadAttention:  # fmt: skip
        """A layer around tensors, which need be no parameters; ``sizes`` are kdim and vdim."""
        made = cls.__new__(cls)
        Module.__init__(made)
        made.embed_dim, made.num_heads = embed_dim, num_heads
        made.kdim, made.vdim = sizes
        made.head_dim = embed_dim // num_heads
        made.dropout, made.training = dropout, training
        made.batch_first, made.add_zero_attn = False, add_zero_attn
        made.__dict__.update(tensors)
        made.__dict__["out_proj"] = lambda x: F.linear(x, out_weight, out_bias)
        return made

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None,
        average_attn_weights: bool = True, is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """The output, and with ``need_weights`` the weights, averaged over the heads or of each.

        ``attn_mask`` (L, S) or (N * num_heads, L, S) and ``key_padding_mask`` (N, S) are True where
        a key is left out, or floats added to the scores; a query left without any key attends to
        nothing (zeros). ``is_causal`` only says that ``attn_mask`` is a causal one, which must be
        given.
        """
        if is_causal and attn_mask is None:
            raise located(ValueError(
                "MultiheadAttention: got is_causal=True without attn_mask; pass the mask too, for "
                "example nn.Transformer.generate_square_subsequent_mask(L)"
            ))  # fmt: skip
        is_batched = self._check_inputs(query, key, value)
        same = query is key and key is value
        query, key, value = (self._batch_first(x, is_batched) for x in (query, key, value))
        q, k, v = self._projected(query, key, value, same)
        added = 0
        if self.bias_k is not None:
            k, v = (_longer(x, b) for x, b in ((k, self.bias_k), (v, self.bias_v)))
            added += 1
        if self.add_zero_attn:
            rest = zeros(1, 1, self.embed_dim, dtype=k.dtype)
            k, v = _longer(k, rest), _longer(v, rest)
            added += 1
        mask = self._mask(query, key, attn_mask, key_padding_mask, is_batched, added)
        rate = self.dropout if self.training else 0.0
        q, k, v = self._split(q), self._split(k), self._split(v)
        out, weights = attend(q, k, v, mask, rate, False)
        out = self.out_proj(out.transpose(1, 2).reshape(*query.shape[:2], self.embed_dim))
        weights = weights.mean(1) if average_attn_weights else weights
        if not is_batched:
            out, weights = out.squeeze(0), weights.squeeze(0)
        elif not self.batch_first:
            out = out.transpose(0, 1)
        return out, weights if need_weights else None

    def _check_inputs(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        """Whether there is a batch."""
        shapes = [real_node("MultiheadAttention", x, what).shape for x, what in (
            (query, "a query"), (key, "a key"), (value, "a value")
        )]  # fmt: skip
        q, k, v = shapes
        sizes = [s[-1:] for s in shapes]
        batch = 0 if self.batch_first else 1
        if (
            len(q) not in (2, 3)
            or not len(q) == len(k) == len(v)
            or sizes != [(self.embed_dim,), (self.kdim,), (self.vdim,)]
            or k[:-1] != v[:-1]
            or (len(q) == 3 and q[batch] != k[batch])
        ):
            first, second = ("N, L", "N, S") if self.batch_first else ("L, N", "S, N")
            raise located(ShapeError(
                f"MultiheadAttention: got a query of shape {q}, a key of {k} and a value of {v}; "
                f"they must be ({first}, {self.embed_dim}), ({second}, {self.kdim}) and "
                f"({second}, {self.vdim}), or all without the batch N"
            ))  # fmt: skip
        return len(q) == 3

    def _batch_first(self, x: Tensor, is_batched: bool) -> Tensor:
        """(N, L, E)."""
        if not is_batched:
            return x.unsqueeze(0)
        return x if self.batch_first else x.transpose(0, 1)

    def _projected(
        self, query: Tensor, key: Tensor, value: Tensor, same: bool
    ) -> tuple[Tensor, ...]:
        """The three projections; those of one tensor are one product."""
        if self.in_proj_weight is None:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        elif same:
            return F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        else:
            weights = self.in_proj_weight.chunk(3)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        inputs = (query, key, value)
        return tuple(F.linear(x, w, b) for x, w, b in zip(inputs, weights, biases, strict=True))

    def _split(self, x: Tensor) -> Tensor:
        """(N, L, E) as (N, heads, L, d)."""
        return x.reshape(*x.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)

    def _mask(
        self, query: Tensor, key: Tensor, attn_mask: Tensor | None,
        key_padding_mask: Tensor | None, is_batched: bool, added: int,
    ) -> Tensor | None:  # fmt: skip
        """Both masks as one for scores (N, heads, L, S + added); True where a key takes part."""
        batch, length, count = query.shape[0], query.shape[1], key.shape[1]
        masks: list[Tensor] = []
        if attn_mask is not None:
            each = (batch * self.num_heads, length, count)
            _check_mask("attn_mask", attn_mask, (length, count), each)
            full = (1, 1) if attn_mask.ndim == 2 else (batch, self.num_heads)
            masks.append(attn_mask.reshape(*full, length, count))
        if key_padding_mask is not None:
            shape = (batch, count) if is_batched else (count,)
            _check_mask("key_padding_mask", key_padding_mask, shape)
            masks.append(key_padding_mask.reshape(batch, 1, 1, count))
        if added:  # keys of our own are never masked
            masks = [F.pad(m, (0, added)) for m in masks]
        if not masks:
            return None
        if all(m.dtype is dtypes.bool_ for m in masks):
            return a.logical_not(functools.reduce(a.logical_or, masks))
        return functools.reduce(a.add, [_additive(m, query.dtype) for m in masks])


def _check_mask(name: str, mask: Tensor, *shapes: tuple[int, ...]) -> None:
    node = node_of("MultiheadAttention", mask)
    if node.shape not in shapes:
        raise located(ShapeError(
            f"MultiheadAttention: got {name} of shape {node.shape}; for this query and key it "
            f"must be {' or '.join(map(str, shapes))}"
        ))  # fmt: skip
    if node.dtype is not dtypes.bool_ and not node.dtype.is_floating_point:
        raise located(DTypeError(
            f"MultiheadAttention: got {name} of dtype {node.dtype.name}; it must be bool (True "
            f"where a key is left out) or floating-point; convert it with .bool()"
        ))  # fmt: skip


def _additive(mask: Tensor, dtype: DType) -> Tensor:
    """A mask as numbers to add to the scores."""
    if mask.dtype is not dtypes.bool_:
        return mask
    return a.where(mask, -math.inf, zeros((), dtype=dtype))


def _longer(x: Tensor, row: Tensor) -> Tensor:
    """(N, S, E) with one more key for all."""
    return cat([x, row.expand(x.shape[0], 1, x.shape[2])], 1)


# --- PyTorch's choice of implementations ----------------------------------------------------------


class SDPBackend(enum.IntEnum):
    """PyTorch's implementations of ``scaled_dot_product_attention``; there is one here."""

    ERROR = -1
    MATH = 0
    FLASH_ATTENTION = 1
    EFFICIENT_ATTENTION = 2
    CUDNN_ATTENTION = 3
    OVERRIDEABLE = 4


@contextmanager
def sdpa_kernel(backends: Any, set_priority: bool = False) -> Iterator[None]:
    """Accepted for PyTorch's sake: all implementations would have to give the same bits."""
    yield


__all__ = ["MultiheadAttention"]
