"""Losses by margins, distances and densities. 16-bit floats are computed in f32, rounded once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from treadle.base.errors import ShapeError
from treadle.ir.node import located
from treadle.nn.functional.activation import logsigmoid, softplus
from treadle.nn.functional.common import (
    check_reduction,
    number_node,
    old_reduction,
    reduced,
    widened,
)
from treadle.tensor import arithmetic as a
from treadle.tensor import reduction as r
from treadle.tensor.autocast import in_float32
from treadle.tensor.creation import arange
from treadle.tensor.grad_mode import no_grad
from treadle.tensor.handle import wrap
from treadle.tensor.selection import gather, scatter
from treadle.tensor.tensor import Tensor


def _wide(name: str, *tensors: Tensor) -> list[Tensor]:
    """Numbers as floats, in f32 where they have 16 bits."""
    return [wrap(widened(number_node(name, x))) for x in tensors]


def _finished(losses: Tensor, reduction: str, source: Tensor) -> Tensor:
    return reduced(losses.node, reduction, source.node)


def _above(x: Tensor, margin: float = 0.0) -> Tensor:
    """``max(x + margin, 0)``."""
    return a.clamp(a.add(x, margin) if margin else x, min=0)


# --- pairs ----------------------------------------------------------------------------------------


def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """``norm(x1 - x2 + eps, p)`` along the last dimension."""
    x, y = _wide("pairwise_distance", x1, x2)
    distance = r.norm(a.add(a.sub(x, y), eps), p, -1, keepdim)
    dtype = a.common_dtype("pairwise_distance", x1, x2)
    return distance.to(dtype) if dtype.is_floating_point else distance


@in_float32
def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0,
    size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``max(0, -target * (input1 - input2) + margin)``; target 1 wants input1 larger, -1 input2."""
    reduction = old_reduction(reduction, size_average, reduce)
    check_reduction("margin_ranking_loss", reduction)
    x, y = _wide("margin_ranking_loss", input1, input2)
    losses = _above(a.mul(a.neg(target), a.sub(x, y)), margin)
    return _finished(losses, reduction, input1)


@in_float32
def hinge_embedding_loss(
    input: Tensor, target: Tensor, margin: float = 1.0, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``input`` where the target is 1, ``max(0, margin - input)`` where it is -1."""
    reduction = old_reduction(reduction, size_average, reduce)
    check_reduction("hinge_embedding_loss", reduction)
    (x,) = _wide("hinge_embedding_loss", input)
    zero = a.mul(x, 0)
    apart = a.where(a.ne(target, 1), _above(a.sub(margin, x)), zero)
    losses = a.add(apart, a.where(a.ne(target, -1), x, zero))
    return _finished(losses, reduction, input)


@in_float32
def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0,
    size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``1 - cos(input1, input2)`` where the target is 1, ``max(0, cos - margin)`` where it is -1.

    Inputs (N, D) or (D,), target (N,) or ().
    """
    reduction = old_reduction(reduction, size_average, reduce)
    name = "cosine_embedding_loss"
    check_reduction(name, reduction)
    x, y = _wide(name, input1, input2)
    if x.ndim not in (1, 2) or target.ndim != x.ndim - 1 or x.ndim != y.ndim:
        raise located(ShapeError(
            f"{name}: got inputs of shapes {tuple(x.shape)} and {tuple(y.shape)} and a target of "
            f"shape {tuple(target.shape)}; they are (N, D) and (N,), or (D,) and ()"
        ))  # fmt: skip
    squares = [a.add(r.sum(a.square(z), -1), 1e-12) for z in (x, y)]
    cosine = a.div(r.sum(a.mul(x, y), -1), a.sqrt(a.mul(*squares)))
    zero = a.mul(cosine, 0)
    losses = a.where(a.eq(target, 1), a.sub(1, cosine), zero)
    losses = a.add(losses, a.where(a.eq(target, -1), _above(cosine, -margin), zero))
    return _finished(losses, reduction, input1)


# --- triplets -------------------------------------------------------------------------------------


@in_float32
def triplet_margin_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2.0,
    eps: float = 1e-6, swap: bool = False, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``max(0, d(anchor, positive) - d(anchor, negative) + margin)``, d by ``pairwise_distance``.

    ``swap`` takes the distance between positive and negative where that is smaller.
    """
    reduction = old_reduction(reduction, size_average, reduce)
    return triplet_margin_with_distance_loss(
        anchor, positive, negative, margin=margin, swap=swap, reduction=reduction,
        distance_function=lambda x, y: pairwise_distance(x, y, p, eps),
    )  # fmt: skip


def triplet_margin_with_distance_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None, margin: float = 1.0,
    swap: bool = False, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``triplet_margin_loss`` by any distance (``pairwise_distance`` if None)."""
    name = "triplet_margin_with_distance_loss"
    check_reduction(name, reduction)
    if margin <= 0:
        raise located(ValueError(f"{name}: got margin {margin}; it must be positive"))
    distance = pairwise_distance if distance_function is None else distance_function
    x, near, far = _wide(name, anchor, positive, negative)
    apart = distance(x, far)
    if swap:
        apart = a.minimum(apart, distance(near, far))
    losses = _above(a.sub(distance(x, near), apart), margin)
    return _finished(losses, reduction, anchor)


# --- classes --------------------------------------------------------------------------------------


def _rows(name: str, input: Tensor) -> Tensor:
    """(N, C) from that or (C,), or from () for one class."""
    (x,) = _wide(name, input)
    if x.ndim > 2 or (x.ndim and not x.shape[-1]):
        raise located(ShapeError(
            f"{name}: got an input of shape {tuple(x.shape)}; it is (N, C) or (C,)"
        ))  # fmt: skip
    return x.reshape(-1, x.shape[-1] if x.ndim else 1)


@in_float32
def multi_margin_loss(
    input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, weight: Tensor | None = None,
    size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``sum over i != y of weight[y] * max(0, margin - x[y] + x[i])^p / C`` for scores (N, C).

    The target holds the classes y: (N,), or () for an input (C,).
    """
    reduction = old_reduction(reduction, size_average, reduce)
    name = "multi_margin_loss"
    check_reduction(name, reduction)
    if p not in (1, 2):
        raise located(ValueError(f"{name}: got p={p}; it is 1 or 2"))
    x = _rows(name, input)
    column = target.reshape(-1, 1).long()
    losses = _above(a.sub(x, gather(x, 1, column)), margin)
    losses = losses if p == 1 else a.square(losses)
    if weight is not None:
        losses = a.mul(losses, weight.to(x.dtype)[column])
    own = a.mul(gather(losses, 1, column), 0)  # the class itself does not count
    total = a.div(r.sum(scatter(losses, 1, column, own), 1), x.shape[1])
    return _finished(total.reshape(target.shape), reduction, input)


@in_float32
def multilabel_margin_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``sum over targets j, others i of max(0, 1 - (x[j] - x[i])) / C`` for scores (N, C).

    The target, of the input's shape, names classes up to the first -1.
    """
    reduction = old_reduction(reduction, size_average, reduce)
    name = "multilabel_margin_loss"
    check_reduction(name, reduction)
    x = _rows(name, input)
    if tuple(target.shape) != tuple(input.shape):
        raise located(ShapeError(
            f"{name}: got an input of shape {tuple(input.shape)} and a target of shape "
            f"{tuple(target.shape)}; they must be equal"
        ))  # fmt: skip
    names = target.reshape(x.shape).long()
    counts = names.lt(0).long().cumsum(1).eq(0)  # before the first -1
    places = names.clamp(min=0)
    named = a.logical_and(a.eq(places.unsqueeze(2), arange(x.shape[1])), counts.unsqueeze(2))
    is_target = r.any(named, 1)
    differences = a.add(a.sub(x.unsqueeze(1), gather(x, 1, places).unsqueeze(2)), 1)
    counted = a.logical_and(counts.unsqueeze(2), a.logical_not(is_target).unsqueeze(1))
    losses = a.where(counted, _above(differences), a.mul(differences, 0))
    total = a.div(r.sum(losses, (1, 2)), x.shape[1])
    return _finished(total.reshape(input.shape[:-1]), reduction, input)


@in_float32
def soft_margin_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``log(1 + exp(-target * input))`` for targets 1 and -1."""
    reduction = old_reduction(reduction, size_average, reduce)
    check_reduction("soft_margin_loss", reduction)
    (x,) = _wide("soft_margin_loss", input)
    losses = softplus(a.mul(a.neg(target.to(x.dtype)), x), threshold=math.inf)
    return _finished(losses, reduction, input)


def multilabel_soft_margin_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``-(y log sigmoid(x) + (1 - y) log sigmoid(-x))``: the mean over the last dimension.

    ``weight`` (C,) weighs the classes.
    """
    reduction = old_reduction(reduction, size_average, reduce)
    check_reduction("multilabel_soft_margin_loss", reduction)
    (x,) = _wide("multilabel_soft_margin_loss", input)
    y = target.to(x.dtype)
    told = a.add(a.mul(y, logsigmoid(x)), a.mul(a.sub(1, y), logsigmoid(a.neg(x))))
    losses = a.neg(told) if weight is None else a.mul(a.neg(told), weight)
    return _finished(r.mean(losses, -1), reduction, input)


# --- densities ------------------------------------------------------------------------------------


@in_float32
def poisson_nll_loss(
    input: Tensor, target: Tensor, log_input: bool = True, full: bool = False,
    size_average: bool | None = None, eps: float = 1e-8, reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``exp(x) - y * x``, or without ``log_input`` ``x - y * log(x + eps)``.

    ``full`` adds Stirling's ``y log y - y + log(2 pi y) / 2`` where y > 1.
    """
    reduction = old_reduction(reduction, size_average, reduce)
    check_reduction("poisson_nll_loss", reduction)
    (x,) = _wide("poisson_nll_loss", input)
    y = target.to(x.dtype)
    if log_input:
        losses = a.sub(a.exp(x), a.mul(y, x))
    else:
        losses = a.sub(x, a.mul(y, a.log(a.add(x, eps))))
    if full:
        large = a.where(a.gt(y, 1), y, 1.0).to(x.dtype)
        stirling = a.add(a.sub(a.mul(large, a.log(large)), large),
                         a.mul(a.log(a.mul(large, 2 * math.pi)), 0.5))  # fmt: skip
        losses = a.add(losses, a.where(a.gt(y, 1), stirling, a.mul(stirling, 0)))
    return _finished(losses, reduction, input)


def gaussian_nll_loss(
    input: Tensor, target: Tensor, var: Any, full: bool = False, eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``(log(v) + (input - target)^2 / v) / 2`` with v = max(var, eps).

    ``var`` is a number, has the input's shape, with sizes of 1, or no last dimension. The bound
    does not count for the gradient. ``full`` adds ``log(2 pi) / 2``.
    """
    name = "gaussian_nll_loss"
    check_reduction(name, reduction)
    x, y = _wide(name, input, target)
    if isinstance(var, (int, float)):
        v = a.add(a.mul(x.detach(), 0), var)
    else:
        (v,) = _wide(name, var)
        shape = tuple(x.shape)
        if tuple(v.shape) != shape:
            if tuple(v.shape) == shape[:-1]:
                v = v.unsqueeze(-1)
            elif v.ndim != len(shape) or any(
                n not in (1, m) for n, m in zip(v.shape, shape, strict=True)
            ):
                raise located(ShapeError(
                    f"{name}: got an input of shape {shape} and a var of shape {tuple(v.shape)}; "
                    f"the var has the input's shape, with sizes of 1, or no last dimension"
                ))  # fmt: skip
    v = v.clone()
    with no_grad():
        v.clamp_(min=eps)
    losses = a.mul(a.add(a.log(v), a.div(a.square(a.sub(x, y)), v)), 0.5)
    if full:
        losses = a.add(losses, 0.5 * math.log(2 * math.pi))
    return _finished(losses, reduction, input)


__all__ = [
    "cosine_embedding_loss", "gaussian_nll_loss", "hinge_embedding_loss", "margin_ranking_loss",
    "multi_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss",
    "pairwise_distance", "poisson_nll_loss", "soft_margin_loss", "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]  # fmt: skip
