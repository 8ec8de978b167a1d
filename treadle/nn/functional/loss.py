"""Losses. 16-bit floats are computed in f32 and rounded once.

Bad values are told when the loss is evaluated: a class index outside its range is an IndexError, a
NaN in a floating-point target a RuntimeError. A NaN in the input is not an error: it flows into the
loss, as in PyTorch.
"""

from __future__ import annotations

from typing import Any

from treadle.base import dtypes
from treadle.base.errors import DTypeError, ShapeError
from treadle.ir.node import Node, located
from treadle.nn.functional.common import (
    check_reduction,
    node_of,
    old_reduction,
    real_node,
    reduced,
    total,
    widened,
)
from treadle.ops import elementwise as e
from treadle.ops.checks import check
from treadle.ops.indexing import gather, take
from treadle.ops.movement import expand, reshape
from treadle.ops.reduce import reduce_sum
from treadle.tensor import arithmetic as a
from treadle.tensor.arithmetic import cast
from treadle.tensor.autocast import in_float32
from treadle.tensor.composed import composed
from treadle.tensor.function import Function
from treadle.tensor.handle import Handle, wrap
from treadle.tensor.reduction import log_softmax
from treadle.tensor.tensor import Tensor


def _without_nan(name: str, target: Node) -> Node:
    """The target; an error when it is evaluated and has a NaN."""
    words = (
        f"{name}: the target has a NaN{{where}}; leave such elements out, or replace them with "
        f"treadle.nan_to_num()"
    )
    return check(target, rule="not_nan", limits=(), words=words)


# --- classes ------------------------------------------------------------------------------------


def _class_axis(name: str, x: Node) -> int:
    if not x.shape:
        raise located(ShapeError(
            f"{name}: got an input without dimensions; it must be (C,), (N, C) or (N, C, ...)"
        ))  # fmt: skip
    return 0 if len(x.shape) == 1 else 1


def _class_weight(name: str, weight: Tensor | None, x: Node, axis: int) -> Node | None:
    """The weights of the classes in the dtype of the input."""
    if weight is None:
        return None
    node = real_node(name, weight, "a weight")
    if node.shape != (x.shape[axis],):
        raise located(ShapeError(
            f"{name}: got a weight of shape {node.shape} for {x.shape[axis]} classes (input "
            f"{x.shape}); its shape must be ({x.shape[axis]},)"
        ))  # fmt: skip
    return cast(node, x.dtype)


def _class_indices(name: str, x: Node, target: Any, axis: int, ignore_index: int) -> Node:
    """The target as int64, checked."""
    node = node_of(name, target)
    wanted = (*x.shape[:axis], *x.shape[axis + 1 :])
    if node.dtype.kind not in "iu":
        raise located(DTypeError(
            f"{name}: got a target of dtype {node.dtype.name} and shape {node.shape} for an input "
            f"of shape {x.shape}; class indices are integers of shape {wanted}: convert the target "
            f"with .long()"
            + (" (probabilities have the input's shape)" if name == "cross_entropy" else "")
        ))  # fmt: skip
    if node.shape != wanted:
        raise located(ShapeError(
            f"{name}: got an input of shape {x.shape} and class indices of shape {node.shape}; "
            f"with {x.shape[axis]} classes in dimension {axis} the target must have the shape "
            f"{wanted}"
            + ("; reshape it, for example with .squeeze()" if node.type.size * x.shape[axis]
               == x.type.size else "")
        ))  # fmt: skip
    classes = x.shape[axis]
    ignored = "" if 0 <= ignore_index < classes else f", or ignore_index={ignore_index}"
    words = (
        f"{name}: target {{value}} is out of range for {classes} classes (0..{classes - 1}"
        f"{ignored}){{where}}; number the classes from 0, and give the input one score for each"
    )
    limits = (classes, ignore_index)
    return check(cast(node, dtypes.int64), rule="label_in_range", limits=limits, words=words)


def _class_losses(
    name: str, logs: Node, target: Any, weight: Tensor | None, ignore_index: int, smoothing: float
) -> tuple[Node, Node]:  # fmt: skip
    """The losses and, for the mean, what their sum is divided by."""
    axis = _class_axis(name, logs)
    index = _class_indices(name, logs, target, axis, ignore_index)
    weights = _class_weight(name, weight, logs, axis)
    ignored = e.eq(index, e.full_like(index, ignore_index))
    safe = e.where(ignored, e.full_like(index, 0), index)
    column = reshape(safe, shape=tuple(1 if i == axis else s for i, s in enumerate(logs.shape)))
    loss = e.neg(reshape(gather(logs, column, axis=axis), shape=index.shape))
    zero = e.full_like(loss, 0)
    weight_of_each = e.full_like(loss, 1) if weights is None else take(weights, safe, axis=0)
    counted = e.where(ignored, zero, weight_of_each)
    if weights is not None:
        loss = e.mul(loss, counted)
    count = total(counted)
    if smoothing:
        even = e.neg(reduce_sum(_weighted(logs, weights, axis), axes=(axis,)))
        kept = e.mul(loss, e.full_like(loss, 1 - smoothing))
        loss = e.add(kept, e.mul(even, e.full_like(even, smoothing / logs.shape[axis])))
    return e.where(ignored, zero, loss), count


def _weighted(node: Node, weights: Node | None, axis: int) -> Node:
    """Every class multiplied by its weight."""
    if weights is None:
        return node
    shape = tuple(s if i == axis else 1 for i, s in enumerate(node.shape))
    return e.mul(node, expand(reshape(weights, shape=shape), shape=node.shape))


@in_float32
@composed
def nll_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``-weight[target] * input[target]`` for log-probabilities (N, C, ...) or (C,).

    The mean is the sum divided by the sum of the weights used; targets equal to ``ignore_index``
    do not count.
    """
    reduction = old_reduction(reduction, size_average, reduce)
    check_reduction("nll_loss", reduction)
    source = real_node("nll_loss", input)
    loss, count = _class_losses("nll_loss", widened(source), target, weight, ignore_index, 0.0)
    return _finished(loss, count, reduction, source)


def _finished(loss: Node, count: Node, reduction: str, source: Node) -> Tensor:
    if reduction == "mean":
        return wrap(cast(e.div(total(loss), count), source.dtype))
    return reduced(loss, reduction, source)


@in_float32
@composed
def cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """``nll_loss(log_softmax(input), target)`` for scores (N, C, ...) or (C,).

    The target is class indices without the class dimension, or probabilities in the input's shape.
    ``label_smoothing`` mixes the target with the uniform distribution.

    >>> import treadle
    >>> scores = treadle.tensor([[0.0, 0.0], [5.0, 5.0]])
    >>> round(cross_entropy(scores, treadle.tensor([0, 1])).item(), 4)
    0.6931
    """
    reduction = old_reduction(reduction, size_average, reduce)
    check_reduction("cross_entropy", reduction)
    if not 0 <= label_smoothing <= 1:
        raise located(ValueError(
            f"cross_entropy: got label_smoothing {label_smoothing}; it is from 0 to 1"
        ))  # fmt: skip
    source, goal = real_node("cross_entropy", input), node_of("cross_entropy", target)
    axis = _class_axis("cross_entropy", source)
    logs = log_softmax(wrap(widened(source)), axis).node
    if goal.shape != source.shape or not goal.dtype.is_floating_point:
        loss, count = _class_losses(
            "cross_entropy", logs, target, weight, ignore_index, label_smoothing
        )
        return _finished(loss, count, reduction, source)
    shares = cast(_without_nan("cross_entropy", goal), logs.dtype)
    classes = logs.shape[axis]
    if label_smoothing:
        kept = e.mul(shares, e.full_like(shares, 1 - label_smoothing))
        shares = e.add(kept, e.full_like(kept, label_smoothing / classes))
    weights = _class_weight("cross_entropy", weight, logs, axis)
    loss = e.neg(reduce_sum(_weighted(e.mul(logs, shares), weights, axis), axes=(axis,)))
    return reduced(loss, reduction, source)


# --- numbers ------------------------------------------------------------------------------------


def _operands(name: str, input: Any, target: Any) -> tuple[Node, Node, Node]:
    """Input and target widened to one dtype, and the input as it was; shapes must be equal."""
    source, goal = real_node(name, input), node_of(name, target)
    if source.shape != goal.shape:
        raise located(ShapeError(
            f"{name}: got an input of shape {source.shape} and a target of shape {goal.shape}; "
            f"they must be equal; reshape one of them"
        ))  # fmt: skip
    real_node(name, target, "a target")
    kind = dtypes.promote_types(source.dtype, goal.dtype)
    goal = _without_nan(name, goal)
    return widened(cast(source, kind)), widened(cast(goal, kind)), cast(source, kind)


def _weighed(
    name: str, losses: Node, weight: Tensor | None, reduction: str, source: Node
) -> Tensor:
    """The losses reduced; with a weight for each the mean is divided by the sum of the weights."""
    if weight is None:
        return reduced(losses, reduction, source)
    if weight.node.shape != losses.shape:
        raise located(ShapeError(
            f"{name}: got a weight of shape {weight.node.shape} for losses of shape "
            f"{losses.shape}; they must be equal"
        ))  # fmt: skip
    w = cast(weight.node, losses.dtype)
    if reduction != "mean":
        return reduced(e.mul(losses, w), reduction, source)
    return wrap(cast(e.div(total(e.mul(losses, w)), total(w)), source.dtype))


@in_float32
@composed
def mse_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """``(input - target)^2``, times ``weight``, by whose sum the mean is then divided."""
    reduction = old_reduction(reduction, size_average, reduce)
    check_reduction("mse_loss", reduction)
    x, y, source = _operands("mse_loss", input, target)
    difference = e.sub(x, y)
    return _weighed("mse_loss", e.mul(difference, difference), weight, reduction, source)


@in_float32
@composed
def l1_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """``|input - target|``, times ``weight``, by whose sum the mean is then divided."""
    reduction = old_reduction(reduction, size_average, reduce)
    check_reduction("l1_loss", reduction)
    if any(isinstance(x, Handle) and x.dtype.is_complex for x in (input, target)):
        losses = a.abs(a.sub(input, target)).node
        return _weighed("l1_loss", losses, weight, reduction, losses)
    x, y, source = _operands("l1_loss", input, target)
    return _weighed("l1_loss", e.abs_(e.sub(x, y)), weight, reduction, source)


@in_float32
@composed
def smooth_l1_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", beta: float = 1.0,
) -> Tensor:  # fmt: skip
    """With d = |input - target|: ``0.5 * d^2 / beta`` where d < beta, else ``d - 0.5 * beta``."""
    reduction = old_reduction(reduction, size_average, reduce)
    check_reduction("smooth_l1_loss", reduction)
    if beta < 0:
        raise located(ValueError(f"smooth_l1_loss: got beta {beta}; it must not be negative"))
    if beta == 0:
        return l1_loss(input, target, reduction=reduction)
    x, y, source = _operands("smooth_l1_loss", input, target)
    d = a.abs(wrap(e.sub(x, y)))
    loss = a.where(a.lt(d, beta), a.div(a.mul(a.mul(d, 0.5), d), beta), a.sub(d, 0.5 * beta))
    return reduced(loss.node, reduction, source)


@in_float32
@composed
def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """With d = |input - target|: ``0.5 * d^2`` where d <= delta, else ``delta * (d - delta/2)``.

    ``weight`` multiplies the losses.
    """
    check_reduction("huber_loss", reduction)
    if delta <= 0:
        raise located(ValueError(f"huber_loss: got delta {delta}; it must be positive"))
    x, y, source = _operands("huber_loss", input, target)
    d = a.abs(wrap(e.sub(x, y)))
    inner = a.mul(a.mul(d, 0.5), d)
    loss = a.where(a.le(d, delta), inner, a.mul(a.sub(d, 0.5 * delta), delta))
    return reduced(_rescaled("huber_loss", loss.node, weight), reduction, source)


@in_float32
@composed
def kl_div(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", log_target: bool = False,
) -> Tensor:  # fmt: skip
    """``target * (log(target) - input)`` for log-probabilities ``input``; 0 log 0 is 0.

    "batchmean" divides the sum by the first size, which is the mathematical definition; "mean" by
    the number of elements. ``log_target`` says that the target is logarithms too.
    """
    reduction = old_reduction(reduction, size_average, reduce)
    check_reduction("kl_div", reduction, "batchmean")
    x, y, source = _operands("kl_div", input, target)
    if log_target:
        loss = e.mul(e.exp(y), e.sub(y, x))
    else:
        is_zero = e.eq(y, e.full_like(y, 0))
        safe = e.where(is_zero, e.full_like(y, 1), y)
        loss = e.sub(e.mul(y, e.log(safe)), e.mul(y, x))
    count = x.shape[0] if reduction == "batchmean" and x.shape else None
    return reduced(loss, reduction, source, count)


# --- two classes --------------------------------------------------------------------------------


class _BinaryCrossEntropy(Function):
    """``-(y log x + (1 - y) log(1 - x))`` with logarithms of at least -100, as in PyTorch.

    The derivative ``(x - y) / (x (1 - x))`` has its divisor kept above 1e-12, so that it is finite
    at 0 and 1.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        """The losses."""
        ctx.save_for_backward(x, y)
        log_x = a.clamp(a.log(x), min=-100.0)
        log_rest = a.clamp(a.log1p(a.neg(x)), min=-100.0)
        # (y - 1) * log(1 - x) - y * log(x)
        return a.sub(a.mul(a.sub(y, 1.0), log_rest), a.mul(y, log_x))

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of input and target."""
        x, y = ctx.saved_tensors
        divisor = a.clamp(a.mul(a.sub(1.0, x), x), min=1e-12)
        by_x = a.div(a.mul(grad_output, a.sub(x, y)), divisor)
        log_x = a.clamp(a.log(x), min=-100.0)
        log_rest = a.clamp(a.log1p(a.neg(x)), min=-100.0)
        return by_x, a.mul(grad_output, a.sub(log_rest, log_x))


def _rescaled(name: str, loss: Node, weight: Tensor | None) -> Node:
    if weight is None:
        return loss
    node = cast(real_node(name, weight, "a weight"), loss.dtype)
    return e.mul(loss, node if node.shape == loss.shape else expand(node, shape=loss.shape))


@in_float32
@composed
def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``-weight * (y log x + (1 - y) log(1 - x))`` for probabilities x and targets y in [0, 1].

    Logarithms are at least -100, so the loss stays finite at 0 and 1. A probability outside [0, 1]
    is an error when the loss is evaluated. ``binary_cross_entropy_with_logits`` is safer.
    """
    reduction = old_reduction(reduction, size_average, reduce)
    name = "binary_cross_entropy"
    check_reduction(name, reduction)
    x, y, source = _operands(name, input, target)
    words = (
        f"{name}: got the input {{value}}{{where}}, outside [0, 1]; apply sigmoid() first, or use "
        f"binary_cross_entropy_with_logits, which takes any score"
    )
    x = check(x, rule="in_unit_interval", limits=(), words=words)
    loss = _BinaryCrossEntropy.apply(wrap(x), wrap(y)).node
    return reduced(_rescaled(name, loss, weight), reduction, source)


@in_float32
@composed
def binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean", pos_weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """``binary_cross_entropy(sigmoid(input), target)`` without overflow.

    ``weight * ((1 - y) * x + (1 + (pos_weight - 1) * y) * log(1 + e^-x))``
    """
    reduction = old_reduction(reduction, size_average, reduce)
    name = "binary_cross_entropy_with_logits"
    check_reduction(name, reduction)
    x, y, source = _operands(name, input, target)
    zero, one = e.full_like(x, 0), e.full_like(x, 1)
    # log(1 + e^-x) = max(-x, 0) + log(1 + e^-|x|)
    smooth = e.add(e.maximum(e.neg(x), zero), e.log1p(e.exp(e.neg(e.abs_(x)))))
    if pos_weight is not None:
        raised = cast(real_node(name, pos_weight, "a pos_weight"), x.dtype)
        raised = expand(raised, shape=x.shape) if raised.shape != x.shape else raised
        smooth = e.mul(smooth, e.add(e.mul(e.sub(raised, one), y), one))
    loss = e.add(e.mul(e.sub(one, y), x), smooth)
    return reduced(_rescaled(name, loss, weight), reduction, source)


__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "huber_loss",
    "kl_div", "l1_loss", "mse_loss", "nll_loss", "smooth_l1_loss",
]  # fmt: skip
