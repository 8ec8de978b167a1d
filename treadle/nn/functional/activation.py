"""Activation functions. 16-bit floats are computed in f32 and rounded once."""

from __future__ import annotations

import math
from typing import Any

from treadle.base.dtypes import DType, promote_types
from treadle.base.errors import ShapeError
from treadle.ir.node import located
from treadle.nn.functional.common import node_of, of_any_number, real_node, rounded_once, widened
from treadle.random.sampling import rand_like
from treadle.tensor import arithmetic as a
from treadle.tensor import reduction
from treadle.tensor.arithmetic import cast
from treadle.tensor.autocast import lowered
from treadle.tensor.composed import composed
from treadle.tensor.creation import ones_like, zeros_like
from treadle.tensor.handle import wrap
from treadle.tensor.movement import axis_of, broadcast_tensors
from treadle.tensor.operators import write_back
from treadle.tensor.selection import scatter
from treadle.tensor.tensor import Tensor


@composed
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """``max(x, 0)``."""
    return _finished(input, a.relu(input), inplace)


def _finished(input: Tensor, out: Tensor, inplace: bool) -> Tensor:
    return write_back(input, out, "activation") if inplace else out


@composed
def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """``min(max(x, 0), 6)``."""
    return hardtanh(input, 0.0, 6.0, inplace)


@composed
def hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    """``min(max(x, min_val), max_val)``; the gradient flows strictly inside.

    Of integers the bounds are cut to integers.
    """
    if min_val > max_val:
        raise located(ValueError(
            f"hardtanh: got min_val {min_val} and max_val {max_val}; min_val must not be larger"
        ))  # fmt: skip
    if not node_of("hardtanh", input).dtype.is_inexact:
        min_val, max_val = int(min_val), int(max_val)
    low = a.where(a.le(input, min_val), min_val, input)
    return _finished(input, a.where(a.ge(low, max_val), max_val, low), inplace)


@composed
def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """``x`` where x > 0, else ``negative_slope * x``."""
    out = a.where(a.gt(input, 0), input, a.mul(input, negative_slope))
    return _finished(input, out, inplace)


@lowered
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """``x`` where x > 0, else ``weight * x``; weight (1,) or (C,) for input (N, C, ...)."""
    count = weight.numel()
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.ndim > 1 or count not in (1, channels):
        raise located(ShapeError(
            f"prelu: got a weight of shape {tuple(weight.shape)} for an input of shape "
            f"{tuple(input.shape)}; it must have 1 or {channels} elements"
        ))  # fmt: skip
    if count > 1 or not input.ndim:
        weight = weight.reshape(*(count,) * (count > 1), *(1,) * (input.ndim - 2))
    return a.where(a.gt(input, 0), input, a.mul(weight, input))


@rounded_once
def _elu(input: Tensor, alpha: float, scale: float) -> Tensor:
    """The branch that is not taken sees 0, so that no infinity comes into its gradient."""
    positive = a.gt(input, 0)
    curve = a.mul(a.expm1(a.where(positive, 0.0, input)), alpha)
    out = a.where(positive, input, curve)
    return out if scale == 1.0 else a.mul(out, scale)


@composed
def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """``x`` where x > 0, else ``alpha * (e^x - 1)``."""
    return _finished(input, _elu(input, alpha, 1.0), inplace)


@composed
def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """``scale * elu(x, alpha)`` with the constants of self-normalising networks."""
    out = _elu(input, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946)
    return _finished(input, out, inplace)


@composed
@rounded_once
def _celu(input: Tensor, alpha: float = 1.0) -> Tensor:
    positive = a.gt(input, 0)
    curve = a.mul(a.expm1(a.div(a.where(positive, 0.0, input), alpha)), alpha)
    return a.where(positive, input, curve)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """``max(x, 0) + min(alpha * (e^(x / alpha) - 1), 0)``."""
    return _finished(input, _celu(input, alpha), inplace)


@composed
@rounded_once
def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """``x * Phi(x)`` with the normal distribution function; "tanh" is its approximation.

    ``0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))``
    """
    if approximate == "none":
        rising = a.erf(a.mul(input, math.sqrt(0.5)))
    elif approximate == "tanh":
        cube = a.mul(a.mul(input, input), input)
        inner = a.mul(a.add(input, a.mul(cube, 0.044715)), math.sqrt(2 / math.pi))
        rising = a.tanh(inner)
    else:
        raise located(ValueError(
            f"gelu: got approximate {approximate!r}; it is 'none' or 'tanh'"
        ))  # fmt: skip
    return a.mul(a.mul(input, 0.5), a.add(rising, 1.0))


def sigmoid(input: Tensor) -> Tensor:
    """``1 / (1 + e^-x)``."""
    return a.sigmoid(input)


def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return a.tanh(input)


@of_any_number
def _silu(input: Tensor) -> Tensor:
    return a.mul(input, a.sigmoid(input))


@composed
def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """``x * sigmoid(x)``."""
    return _finished(input, _silu(input), inplace)


@composed
@rounded_once
def _mish(input: Tensor) -> Tensor:
    return a.mul(input, a.tanh(softplus(input)))


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """``x * tanh(softplus(x))``."""
    return _finished(input, _mish(input), inplace)


@composed
@rounded_once
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """``log(1 + e^(beta * x)) / beta``; x itself where ``beta * x`` is above the threshold."""
    scaled = input if beta == 1 else a.mul(input, beta)
    smooth = a.add(a.maximum(scaled, 0.0), a.log1p(a.exp(a.neg(a.abs(scaled)))))
    if beta != 1:
        smooth = a.div(smooth, beta)
    return a.where(a.gt(scaled, threshold), input, smooth)


@composed
@rounded_once
def logsigmoid(input: Tensor) -> Tensor:
    """``log(sigmoid(x))``, safe against underflow."""
    return a.sub(a.minimum(input, 0.0), a.log1p(a.exp(a.neg(a.abs(input)))))


@composed
@of_any_number
def softsign(input: Tensor) -> Tensor:
    """``x / (1 + |x|)``."""
    return a.div(input, a.add(a.abs(input), 1.0))


@composed
@of_any_number
def tanhshrink(input: Tensor) -> Tensor:
    """``x - tanh(x)``."""
    return a.sub(input, a.tanh(input))


@composed
@rounded_once
def _hardsigmoid(input: Tensor) -> Tensor:
    return a.div(hardtanh(a.add(input, 3.0), 0.0, 6.0), 6.0)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """``min(max(x + 3, 0), 6) / 6``."""
    return _finished(input, _hardsigmoid(input), inplace)


@composed
@rounded_once
def _hardswish(input: Tensor) -> Tensor:
    return a.div(a.mul(input, hardtanh(a.add(input, 3.0), 0.0, 6.0)), 6.0)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """``x * hardsigmoid(x)``."""
    return _finished(input, _hardswish(input), inplace)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """``x`` where x > threshold, else ``value``."""
    return _finished(input, a.where(a.gt(input, threshold), input, value), inplace)


def softmax(input: Tensor, dim: int | None = None, dtype: DType | None = None) -> Tensor:
    """``exp(x) / sum(exp(x))`` along ``dim``."""
    return reduction.softmax(input, dim, dtype)


def softmin(input: Tensor, dim: int | None = None, dtype: DType | None = None) -> Tensor:
    """``softmax(-x)`` along ``dim``."""
    return reduction.softmax(a.neg(input), dim, dtype)


def log_softmax(input: Tensor, dim: int | None = None, dtype: DType | None = None) -> Tensor:
    """``x - log(sum(exp(x)))`` along ``dim``."""
    return reduction.log_softmax(input, dim, dtype)


@composed
@rounded_once
def glu(input: Tensor, dim: int = -1) -> Tensor:
    """``a * sigmoid(b)`` for the halves a and b of ``dim``."""
    size = input.shape[axis_of("glu", dim, input.ndim)]
    if size % 2:
        raise located(ShapeError(
            f"glu: got an input of shape {tuple(input.shape)}; the size {size} of dimension {dim} "
            f"must be even"
        ))  # fmt: skip
    value, gate = input.chunk(2, dim)
    return a.mul(value, a.sigmoid(gate))


@composed
@rounded_once
def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """``x`` where |x| > lambd, else 0."""
    return a.where(a.gt(a.abs(input), lambd), input, a.mul(input, 0))


@composed
@rounded_once
def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """``sign(x) * max(|x| - lambd, 0)``."""
    if lambd < 0:
        raise located(ValueError(f"softshrink: got lambd {lambd}; it must not be negative"))
    inner = a.where(a.lt(input, -lambd), a.add(input, lambd), a.mul(input, 0))
    return a.where(a.gt(input, lambd), a.sub(input, lambd), inner)


def rrelu(
    input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False,
    inplace: bool = False,
) -> Tensor:  # fmt: skip
    """``x`` where x > 0, else ``slope * x``: in training a uniform random slope for each element.

    Otherwise the slope is ``(lower + upper) / 2``.
    """
    if not lower <= upper:
        raise located(ValueError(
            f"rrelu: got lower {lower} and upper {upper}; lower must not be larger"
        ))  # fmt: skip
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    slope = a.add(a.mul(rand_like(input), upper - lower), lower)
    return _finished(input, a.where(a.gt(input, 0), input, a.mul(input, slope)), inplace)


def gumbel_softmax(
    logits: Tensor, tau: float = 1.0, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Tensor:
    """``softmax((logits + g) / tau)`` along ``dim`` with Gumbel noise ``g = -log(-log(u))``.

    ``hard`` gives the one-hot vector of the largest, with the gradient of the soft one. ``eps`` is
    PyTorch's and changes nothing.
    """
    noise = a.neg(a.log(zeros_like(logits).exponential_()))  # type: ignore[attr-defined]
    soft = reduction.softmax(a.div(a.add(logits, noise), tau), dim)
    if not hard:
        return soft
    largest = reduction.argmax(soft, dim, keepdim=True)
    one_hot = scatter(zeros_like(soft), dim, largest, ones_like(largest, dtype=soft.dtype))
    return a.add(a.sub(one_hot, soft.detach()), soft)


def _in_place(function: Any) -> Any:
    """``function`` with ``inplace=True``."""

    def written(input: Tensor, *args: Any, **options: Any) -> Tensor:
        return write_back(input, function(input, *args, **options), written.__name__)

    written.__name__ = written.__qualname__ = f"{function.__name__}_"
    written.__doc__ = f"``{function.__name__}`` in place."
    return written


relu_, elu_, selu_, celu_ = map(_in_place, (relu, elu, selu, celu))
leaky_relu_, hardtanh_, rrelu_, threshold_ = map(
    _in_place, (leaky_relu, hardtanh, rrelu, threshold)
)


@composed
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """``sum(x1 * x2) / (max(norm(x1), eps) * max(norm(x2), eps))`` along ``dim``."""
    wide = (wrap(widened(real_node("cosine_similarity", x))) for x in broadcast_tensors(x1, x2))
    units = (normalize(x, 2.0, dim, eps) for x in wide)
    kind = promote_types(x1.dtype, x2.dtype)
    return wrap(cast(reduction.sum(a.mul(*units), dim).node, kind))


@composed
def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """``x / max(norm(x, p), eps)`` along ``dim``."""
    length = reduction.norm(input, p, dim, keepdim=True)
    return a.div(input, a.clamp(length, min=eps))


__all__ = [
    "celu", "celu_", "cosine_similarity", "elu", "elu_", "gelu", "glu", "gumbel_softmax",
    "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_",
    "log_softmax", "logsigmoid", "mish", "normalize", "prelu", "relu", "relu6", "relu_", "rrelu",
    "rrelu_", "selu", "selu_", "sigmoid", "silu", "softmax", "softmin", "softplus", "softshrink",
    "softsign", "tanh", "tanhshrink", "threshold", "threshold_",
]  # fmt: skip
