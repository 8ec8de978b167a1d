"""Transformers: encoder and decoder layers, stacks of them, and both together."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

from treadle.base.errors import ShapeError
from treadle.ir.node import located
from treadle.nn import functional as F
from treadle.nn import init
from treadle.nn.attention import MultiheadAttention
from treadle.nn.containers import ModuleList
from treadle.nn.embedding import Dropout
from treadle.nn.linear import Linear
from treadle.nn.module import Module
from treadle.nn.normalization import LayerNorm
from treadle.tensor.creation import full
from treadle.tensor.joining import triu
from treadle.tensor.tensor import Tensor

Activation = Callable[[Tensor], Tensor]
_ACTIVATIONS: dict[str, Activation] = {"relu": F.relu, "gelu": F.gelu}


class _TransformerLayer(Module):
    """What encoder and decoder layers share: self-attention, the feed-forward part, norms."""

    num_norms = 2

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: str | Activation = F.relu, layer_norm_eps: float = 1e-5,
        batch_first: bool = False, norm_first: bool = False, bias: bool = True,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if isinstance(activation, str) and activation not in _ACTIVATIONS:
            raise located(ValueError(
                f"{type(self).__name__}: got activation {activation!r}; it is 'relu', 'gelu' or a "
                f"function of a tensor"
            ))  # fmt: skip
        kind = {"device": device, "dtype": dtype}
        attention = {"dropout": dropout, "bias": bias, "batch_first": batch_first, **kind}
        self.self_attn = MultiheadAttention(d_model, nhead, **attention)
        if self.num_norms == 3:
            self.multihead_attn = MultiheadAttention(d_model, nhead, **attention)
        self.linear1 = Linear(d_model, dim_feedforward, bias, **kind)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, **kind)
        self.norm_first = norm_first
        for i in range(1, self.num_norms + 1):
            setattr(self, f"norm{i}", LayerNorm(d_model, layer_norm_eps, bias=bias, **kind))
        for i in range(1, self.num_norms + 1):
            setattr(self, f"dropout{i}", Dropout(dropout))
        self.activation = _ACTIVATIONS[activation] if isinstance(activation, str) else activation

    def _around(self, x: Tensor, number: int, block: Activation) -> Tensor:
        """``x + block(norm(x))`` where the norm comes first, else ``norm(x + block(x))``."""
        norm, dropout = getattr(self, f"norm{number}"), getattr(self, f"dropout{number}")
        if self.norm_first:
            return x + dropout(block(norm(x)))
        out: Tensor = norm(x + dropout(block(x)))
        return out

    def _feed_forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear2(self.dropout(self.activation(self.linear1(x))))
        return out

    def _attend_to_itself(
        self, mask: Tensor | None, padding: Tensor | None, is_causal: bool
    ) -> Activation:
        def block(x: Tensor) -> Tensor:
            out: Tensor = self.self_attn(x, x, x, padding, False, mask, is_causal=is_causal)[0]
            return out

        return block


class TransformerEncoderLayer(_TransformerLayer):
    """Self-attention and a feed-forward part, each with a shortcut and a norm.

    ``norm(x + f(x))``, or ``x + f(norm(x))`` where ``norm_first``; the feed-forward part is
    ``linear2(dropout(activation(linear1(x))))``. The sequence is (T, N, d_model), (N, T, d_model)
    where ``batch_first``, or (T, d_model).

    >>> import treadle
    >>> layer = TransformerEncoderLayer(8, 2, 16, batch_first=True)
    >>> tuple(layer(treadle.randn(4, 5, 8)).shape)
    (4, 5, 8)
    """

    def forward(
        self, src: Tensor, src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None, is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        """The sequence; masks as for ``MultiheadAttention``."""
        attend = self._attend_to_itself(src_mask, src_key_padding_mask, is_causal)
        return self._around(self._around(src, 1, attend), 2, self._feed_forward)


class TransformerDecoderLayer(_TransformerLayer):
    """Self-attention, attention to the encoder's ``memory``, and a feed-forward part.

    Each has a shortcut and a norm, as in ``TransformerEncoderLayer``.
    """

    num_norms = 3

    def forward(
        self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None, tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None, tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        """The sequence; masks as for ``MultiheadAttention``."""

        def attend_to_memory(x: Tensor) -> Tensor:
            out: Tensor = self.multihead_attn(
                x, memory, memory, memory_key_padding_mask, False, memory_mask,
                is_causal=memory_is_causal,
            )[0]  # fmt: skip
            return out

        attend = self._attend_to_itself(tgt_mask, tgt_key_padding_mask, tgt_is_causal)
        x = self._around(self._around(tgt, 1, attend), 2, attend_to_memory)
        return self._around(x, 3, self._feed_forward)


class TransformerEncoder(Module):
    """``num_layers`` copies of an encoder layer in a row, and a norm at the end if given.

    ``enable_nested_tensor`` and ``mask_check`` are accepted for PyTorch's sake.
    """

    def __init__(
        self, encoder_layer: Module, num_layers: int, norm: Module | None = None,
        enable_nested_tensor: bool = True, mask_check: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.layers = _copies(encoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self, src: Tensor, mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:  # fmt: skip
        """The encoded sequence."""
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask, is_causal=bool(is_causal))
        return src if self.norm is None else self.norm(src)


class TransformerDecoder(Module):
    """``num_layers`` copies of a decoder layer in a row, and a norm at the end if given."""

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        self.layers = _copies(decoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None, tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None, tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        """The decoded sequence."""
        for layer in self.layers:
            tgt = layer(
                tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask,
                memory_key_padding_mask, bool(tgt_is_causal), memory_is_causal,
            )  # fmt: skip
        return tgt if self.norm is None else self.norm(tgt)


def _copies(layer: Module, count: int) -> ModuleList:
    return ModuleList([copy.deepcopy(layer) for _ in range(count)])


class Transformer(Module):
    """An encoder and a decoder that reads what it encoded (Vaswani et al., 2017).

    ``src`` (S, N, d_model) and ``tgt`` (T, N, d_model), with N first where ``batch_first``, or both
    without N, give (T, N, d_model). Matrices start as by Xavier.
    """

    def __init__(
        self, d_model: int = 512, nhead: int = 8, num_encoder_layers: int = 6,
        num_decoder_layers: int = 6, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: str | Activation = F.relu, custom_encoder: Any = None,
        custom_decoder: Any = None, layer_norm_eps: float = 1e-5, batch_first: bool = False,
        norm_first: bool = False, bias: bool = True, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        kind = {"device": device, "dtype": dtype}
        settings = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps,
                    batch_first, norm_first, bias)  # fmt: skip

        def norm() -> LayerNorm:
            return LayerNorm(d_model, layer_norm_eps, bias=bias, **kind)

        self.encoder = custom_encoder or TransformerEncoder(
            TransformerEncoderLayer(*settings, **kind), num_encoder_layers, norm()
        )
        self.decoder = custom_decoder or TransformerDecoder(
            TransformerDecoderLayer(*settings, **kind), num_decoder_layers, norm()
        )
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first
        for p in self.parameters():
            if p.ndim > 1:
                init.xavier_uniform_(p)

    def forward(
        self, src: Tensor, tgt: Tensor, src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None, memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None, tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None, src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None, memory_is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        """The decoded sequence."""
        batch = 0 if self.batch_first else 1
        sizes = src.shape[-1] == tgt.shape[-1] == self.d_model
        if (
            not sizes
            or src.ndim != tgt.ndim
            or (src.ndim == 3 and src.shape[batch] != tgt.shape[batch])
        ):
            raise located(ShapeError(
                f"Transformer: got src of shape {tuple(src.shape)} and tgt of {tuple(tgt.shape)}; "
                f"both must have one batch size (dimension {batch}) and {self.d_model} features "
                f"(d_model) in the last dimension"
            ))  # fmt: skip
        memory = self.encoder(src, src_mask, src_key_padding_mask, src_is_causal)
        out: Tensor = self.decoder(
            tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask,
            tgt_is_causal, memory_is_causal,
        )  # fmt: skip
        return out

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: Any = None, dtype: Any = None) -> Tensor:
        """The causal mask (sz, sz): 0 where a key is not later than the query, else -inf."""
        return triu(full((sz, sz), -math.inf, device=device, dtype=dtype), 1)


__all__ = [
    "Transformer", "TransformerDecoder", "TransformerDecoderLayer", "TransformerEncoder",
    "TransformerEncoderLayer",
]  # fmt: skip
