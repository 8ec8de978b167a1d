"""Normalisation by mean and variance.

``(x - mean) / sqrt(variance + eps) * weight + bias``; mean and biased variance come from the
``moments`` primitive in one pass. 16-bit floats are computed in f32 and rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.base.errors import DTypeError, ShapeError
from treadle.base.shapes import Shape, prod
from treadle.ir.node import Node, located
from treadle.nn.functional.common import along_channels, node_of, number_node, real_node, widened
from treadle.ops import elementwise as e
from treadle.ops.movement import expand, reshape
from treadle.ops.project import results
from treadle.ops.reduce import moments, reduce_sum, restore
from treadle.ops.source import number
from treadle.ops.window import window_sum
from treadle.tensor.arithmetic import cast
from treadle.tensor.composed import composed
from treadle.tensor.grad_mode import no_grad
from treadle.tensor.handle import wrap
from treadle.tensor.tensor import Tensor


def _vector(name: str, what: str, value: Tensor | None, shape: Shape, x: Node) -> Node | None:
    """A weight, a bias or a statistic of that shape, in the dtype that is computed in."""
    if value is None:
        return None
    node = number_node(name, value) if x.dtype.is_complex else real_node(name, value, f"a {what}")
    wide = widened(x).dtype
    if node.shape != shape:
        raise located(ShapeError(
            f"{name}: got a {what} of shape {node.shape} for an input of shape {x.shape}; its "
            f"shape must be {shape}"
        ))  # fmt: skip
    if node.dtype is not x.dtype and node.dtype is not wide:
        raise located(DTypeError(
            f"{name}: got a {what} of dtype {node.dtype.name} for an input of dtype "
            f"{x.dtype.name}; convert the input, or the module with .to(dtype)"
        ))  # fmt: skip
    return cast(node, wide)


def _inverse_deviation(variance: Node, eps: float) -> Node:
    safe = e.sqrt(e.add(variance, e.full_like(variance, eps)))
    return e.div(e.full_like(safe, 1), safe)


def batch_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
    momentum: float | Tensor = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Normalises every channel of (N, C, ...) over all other dimensions.

    In training by the batch's own statistics, which also move the running ones:
    ``running = (1 - momentum) * running + momentum * observed`` (the variance unbiased); else by
    the running ones.
    """
    source = real_node("batch_norm", input)
    if source.shape == (0,):
        return input.clone()
    if len(source.shape) < 2:
        raise located(ShapeError(
            f"batch_norm: got an input of shape {source.shape}; it must be (N, C, ...)"
        ))  # fmt: skip
    shape, channels = source.shape, source.shape[1:2]
    for what, value in (
        ("weight", weight), ("bias", bias), ("running_mean", running_mean),
        ("running_var", running_var),
    ):  # fmt: skip
        _vector("batch_norm", what, value, channels, source)
    if training:
        axes = (0, *range(2, len(shape)))
        count = prod(shape[i] for i in axes)
        if count == 1:
            raise located(ShapeError(
                f"batch_norm: got an input of shape {shape}, one value per channel; training needs "
                f"more than one; use a larger batch, or .eval()"
            ))  # fmt: skip
        mean, variance = map(wrap, results(moments(source, axes=axes)))
        if count and running_mean is not None and running_var is not None:
            unbiased = count / max(count - 1, 1)
            _move(running_mean, mean, momentum, 1.0)
            _move(running_var, variance, momentum, unbiased)
    elif running_mean is None or running_var is None:
        raise located(ValueError(
            "batch_norm: got no running statistics and training=False; pass running_mean and "
            "running_var, or training=True"
        ))  # fmt: skip
    else:
        mean, variance = running_mean, running_var
    return _by_channels(input, mean, variance, weight, bias, eps)


@composed
def _by_channels(
    input: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None,
    eps: float,
) -> Tensor:  # fmt: skip
    """``batch_norm`` with this mean and this variance of every channel."""
    x, wide = input.node, widened(input.node)
    factor = _inverse_deviation(cast(variance.node, wide.dtype), eps)
    if weight is not None:
        factor = e.mul(factor, cast(weight.node, wide.dtype))
    centred = e.sub(wide, along_channels(cast(mean.node, wide.dtype), x.shape))
    out = e.mul(centred, along_channels(factor, x.shape))
    if bias is not None:
        out = e.add(out, along_channels(cast(bias.node, wide.dtype), x.shape))
    return wrap(cast(out, x.dtype))


@no_grad()  # not a `with` block, at whose end Ctrl-C could leave gradients off
def _move(running: Tensor, observed: Tensor, momentum: float | Tensor, scale: float) -> None:
    running._write(_moved(running, observed, momentum, scale).node)


@composed
def _moved(running: Tensor, seen: Tensor, momentum: float | Tensor, scale: float) -> Tensor:
    """``(1 - momentum) * running + momentum * scale * seen``."""
    observed = seen.node
    dtype, shape = observed.dtype, observed.shape
    if isinstance(momentum, Tensor):
        kept, fresh = (cast(rate.node, dtype) for rate in (1 - momentum, momentum * scale))
    else:
        kept, fresh = number(1 - momentum, dtype), number(momentum * scale, dtype)
    old = e.mul(expand(kept, shape=shape), cast(running.node, dtype))
    new = e.mul(expand(fresh, shape=shape), observed)
    return wrap(cast(e.add(old, new), running.dtype))


@composed
def layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Normalises over the last dimensions, whose sizes are ``normalized_shape``."""
    source = real_node("layer_norm", input)
    last, axes = _last_axes("layer_norm", source, normalized_shape)
    shape = source.shape
    scale = _vector("layer_norm", "weight", weight, last, source)
    shift = _vector("layer_norm", "bias", bias, last, source)
    mean, variance = results(moments(source, axes=axes))
    centred = e.sub(widened(source), restore(mean, shape, axes))
    out = e.mul(centred, restore(_inverse_deviation(variance, eps), shape, axes))
    if scale is not None:
        out = e.mul(out, expand(scale, shape=shape))
    if shift is not None:
        out = e.add(out, expand(shift, shape=shape))
    return wrap(cast(out, source.dtype))


def _last_axes(
    name: str, node: Node, normalized_shape: Sequence[int]
) -> tuple[Shape, tuple[int, ...]]:
    last = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    ndim = len(node.shape)
    if not last or node.shape[ndim - len(last) :] != last:
        raise located(ShapeError(
            f"{name}: got an input of shape {node.shape} and normalized_shape {last}; the last "
            f"sizes of the input must be equal to it"
        ))  # fmt: skip
    return last, tuple(range(ndim - len(last), ndim))


@composed
def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:  # fmt: skip
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last dimensions.

    Without ``eps`` it is the distance from 1 to the next number of the dtype computed in.
    """
    source = number_node("rms_norm", input)
    last, axes = _last_axes("rms_norm", source, normalized_shape)
    x = widened(source)
    if eps is None:
        eps = 2.0**-23 if x.dtype.to_real().bits == 32 else 2.0**-52
    scale = _vector("rms_norm", "weight", weight, last, source)
    total = reduce_sum(e.mul(x, x), axes=axes)
    mean_square = e.div(total, e.full_like(total, prod(last)))
    out = e.mul(x, restore(_inverse_deviation(mean_square, eps), x.shape, axes))
    if scale is not None:
        out = e.mul(out, expand(scale, shape=x.shape))
    return wrap(cast(out, source.dtype))


@composed
def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Normalises every group of channels of every example of (N, C, ...)."""
    source = real_node("group_norm", input)
    shape = source.shape
    if len(shape) < 2 or num_groups < 1 or shape[1] % num_groups:
        raise located(ShapeError(
            f"group_norm: got an input of shape {shape} and {num_groups} groups; the input must be "
            f"(N, C, ...) and C divisible by the number of groups"
        ))  # fmt: skip
    return _grouped("group_norm", source, num_groups, weight, bias, eps)[0]


def _grouped(
    name: str, source: Node, num_groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Node, Node]:  # fmt: skip
    """Every group of channels of every example normalised, and its mean and variance."""
    shape = source.shape
    scale = _vector(name, "weight", weight, shape[1:2], source)
    shift = _vector(name, "bias", bias, shape[1:2], source)
    per_group = prod(shape[1:]) // num_groups
    grouped = reshape(source, shape=(shape[0], num_groups, per_group))
    mean, variance = results(moments(grouped, axes=(2,)))
    centred = e.sub(widened(grouped), restore(mean, grouped.shape, (2,)))
    out = e.mul(centred, restore(_inverse_deviation(variance, eps), grouped.shape, (2,)))
    out = reshape(out, shape=shape)
    if scale is not None:
        out = e.mul(out, along_channels(scale, shape))
    if shift is not None:
        out = e.add(out, along_channels(shift, shape))
    return wrap(cast(out, source.dtype)), mean, variance


def instance_norm(
    input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
    weight: Tensor | None = None, bias: Tensor | None = None, use_input_stats: bool = True,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Normalises every channel of every example of (N, C, ...) by itself.

    The means over the batch of what is observed move the running statistics, if given (the variance
    unbiased); without ``use_input_stats`` these are used instead.
    """
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    source = real_node("instance_norm", input)
    count = prod(source.shape[2:])
    if len(source.shape) < 3 or count < 2:
        raise located(ShapeError(
            f"instance_norm: got an input of shape {source.shape}; it must be (N, C, ...) with "
            f"more than one value per channel; use larger images or sequences, or another norm"
        ))  # fmt: skip
    out, mean, variance = _grouped("instance_norm", source, source.shape[1], weight, bias, eps)
    if running_mean is not None and running_var is not None:
        for running, observed, scale in (
            (running_mean, mean, 1.0), (running_var, variance, count / (count - 1))
        ):  # fmt: skip
            total = reduce_sum(observed, axes=(0,))
            _move(running, wrap(e.div(total, e.full_like(total, source.shape[0]))), momentum, scale)
    return out


@composed
def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """``x / (k + alpha * mean of x^2 over size channels around)^beta`` for (N, C, ...).

    Channels outside count as zeros (Krizhevsky et al., 2012).
    """
    source = node_of("local_response_norm", input)
    source = source if not source.type.size else number_node("local_response_norm", input)
    shape = source.shape
    if len(shape) < 3 or size < 1:
        raise located(ShapeError(
            f"local_response_norm: got an input of shape {shape} and size {size}; the input must "
            f"be (N, C, ...) with at least 3 dimensions, and size positive"
        ))  # fmt: skip
    x = widened(source)
    squares = reshape(e.mul(x, x), shape=(shape[0], 1, shape[1], prod(shape[2:])))
    around = (size // 2, (size - 1) // 2), (0, 0)
    total = window_sum(squares, window=(size, 1), stride=(1, 1), padding=around)
    mean = e.div(total, e.full_like(total, size))
    scale = e.add(e.mul(mean, e.full_like(mean, alpha)), e.full_like(mean, k))
    divisor = reshape(e.pow_(scale, e.full_like(scale, beta)), shape=shape)
    return wrap(cast(e.div(x, divisor), source.dtype))


__all__ = [
    "batch_norm", "group_norm", "instance_norm", "layer_norm", "local_response_norm", "rms_norm",
]  # fmt: skip
