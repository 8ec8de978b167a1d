"""Functions of several others, and PyTorch's further names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.nn.functional.common import node_of
from treadle.nn.functional.fractional import fractional_max_pool2d, fractional_max_pool3d
from treadle.nn.functional.further_pooling import adaptive_max_pool1d
from treadle.nn.functional.loss import cross_entropy
from treadle.nn.functional.pooling import adaptive_max_pool2d, max_pool1d, max_pool2d
from treadle.nn.functional.volume_pooling import adaptive_max_pool3d, max_pool3d
from treadle.tensor.contraction import linear
from treadle.tensor.tensor import Tensor


def _with_places(function: Callable[..., Any]) -> Callable[..., tuple[Tensor, Tensor]]:
    """The function with its places: PyTorch's ``..._with_indices``."""

    def with_indices(input: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        kwargs["return_indices"] = True
        return function(input, *args, **kwargs)

    with_indices.__name__ = f"{function.__name__}_with_indices"
    with_indices.__doc__ = f"``{function.__name__}`` with ``return_indices=True``."
    return with_indices


max_pool1d_with_indices = _with_places(max_pool1d)
max_pool2d_with_indices = _with_places(max_pool2d)
max_pool3d_with_indices = _with_places(max_pool3d)
adaptive_max_pool1d_with_indices = _with_places(adaptive_max_pool1d)
adaptive_max_pool2d_with_indices = _with_places(adaptive_max_pool2d)
adaptive_max_pool3d_with_indices = _with_places(adaptive_max_pool3d)
fractional_max_pool2d_with_indices = _with_places(fractional_max_pool2d)
fractional_max_pool3d_with_indices = _with_places(fractional_max_pool3d)


def linear_cross_entropy(
    input: Tensor, linear_weight: Tensor, target: Tensor, *, linear_bias: Tensor | None = None,
    weight: Tensor | None = None, reduction: str = "mean", ignore_index: int | None = None,
    label_smoothing: float = 0.0, options: Any = None,
) -> Tensor:  # fmt: skip
    """``cross_entropy(linear(input, linear_weight, linear_bias), target)``.

    The input is (N, F) or (F,), the weight (C, F); or (C, d1, ..., F) with a bias (C, d1, ...), for
    logits (N, C, d1, ...). ``options`` are PyTorch's, about its memory, and change nothing.
    """
    node_of("linear_cross_entropy", linear_weight)
    classes = tuple(linear_weight.shape[:-1])
    if len(classes) > 1:
        linear_weight = linear_weight.reshape(-1, linear_weight.shape[-1])
        linear_bias = None if linear_bias is None else linear_bias.reshape(-1)
    logits = linear(input, linear_weight, linear_bias)
    return cross_entropy(
        logits.reshape(*input.shape[:-1], *classes), target, weight,
        ignore_index=-100 if ignore_index is None else ignore_index, reduction=reduction,
        label_smoothing=label_smoothing,
    )  # fmt: skip


def multi_head_attention_forward(
    query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int,
    in_proj_weight: Tensor | None, in_proj_bias: Tensor | None, bias_k: Tensor | None,
    bias_v: Tensor | None, add_zero_attn: bool, dropout_p: float, out_proj_weight: Tensor,
    out_proj_bias: Tensor | None, training: bool = True, key_padding_mask: Tensor | None = None,
    need_weights: bool = True, attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False, q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None, v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None, static_v: Tensor | None = None,
    average_attn_weights: bool = True, is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """``nn.MultiheadAttention`` with these parameters; shapes (L, N, E) or without N."""
    from treadle.ir.node import located
    from treadle.nn.attention import MultiheadAttention

    if static_k is not None or static_v is not None:
        raise located(NotImplementedError(
            "multi_head_attention_forward: got static_k or static_v; pass keys and values to be "
            "projected, or use scaled_dot_product_attention"
        ))  # fmt: skip
    layer = MultiheadAttention.of(
        embed_dim_to_check, num_heads, dropout_p, training, add_zero_attn,
        {
            "in_proj_weight": None if use_separate_proj_weight else in_proj_weight,
            "q_proj_weight": q_proj_weight, "k_proj_weight": k_proj_weight,
            "v_proj_weight": v_proj_weight, "in_proj_bias": in_proj_bias, "bias_k": bias_k,
            "bias_v": bias_v,
        },
        out_proj_weight, out_proj_bias, (key.shape[-1], value.shape[-1]),
    )  # fmt: skip
    return layer(
        query, key, value, key_padding_mask=key_padding_mask, need_weights=need_weights,
        attn_mask=attn_mask, average_attn_weights=average_attn_weights, is_causal=is_causal,
    )  # fmt: skip


__all__ = [
    "adaptive_max_pool1d_with_indices", "adaptive_max_pool2d_with_indices",
    "adaptive_max_pool3d_with_indices", "fractional_max_pool2d_with_indices",
    "fractional_max_pool3d_with_indices", "linear_cross_entropy", "max_pool1d_with_indices",
    "max_pool2d_with_indices", "max_pool3d_with_indices", "multi_head_attention_forward",
]  # fmt: skip
