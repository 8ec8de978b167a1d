"""Initialisation of parameters: every function fills its tensor and returns it."""

from __future__ import annotations

import math
from typing import Any, TypeVar

from treadle.base import dtypes
from treadle.base.errors import ShapeError
from treadle.base.lazy_numpy import np
from treadle.base.shapes import prod
from treadle.ir.node import located
from treadle.random.generator import Generator
from treadle.random.sampling import rand, randn
from treadle.tensor import arithmetic as a
from treadle.tensor.creation import eye as identity
from treadle.tensor.creation import tensor as make_tensor
from treadle.tensor.grad_mode import no_grad
from treadle.tensor.tensor import Tensor

T = TypeVar("T", bound=Tensor)
_GAINS = {
    "linear": 1.0, "conv1d": 1.0, "conv2d": 1.0, "conv3d": 1.0, "conv_transpose1d": 1.0,
    "conv_transpose2d": 1.0, "conv_transpose3d": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3,
    "relu": math.sqrt(2.0), "selu": 0.75,
}  # fmt: skip


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The gain that keeps the variance through a non-linearity.

    ``param`` is the negative slope of "leaky_relu" (0.01 unless given).
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2.0 / (1 + slope**2))
    try:
        return _GAINS[nonlinearity]
    except KeyError:
        raise located(ValueError(
            f"calculate_gain: got {nonlinearity!r}; there are {', '.join(_GAINS)} and leaky_relu"
        )) from None  # fmt: skip


def fans(tensor: Tensor, name: str = "init") -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (out, in, *window)."""
    shape = tensor.shape
    if len(shape) < 2:
        raise located(ShapeError(
            f"{name}: got a tensor of shape {tuple(shape)}; fan-in and fan-out need at least 2 "
            f"dimensions"
        ))  # fmt: skip
    window = prod(shape[2:])
    return shape[1] * window, shape[0] * window


def uniform_(tensor: T, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> T:
    """Uniform numbers of [a, b)."""
    with no_grad():
        return tensor.uniform_(a, b, generator=generator)  # type: ignore[attr-defined]


def normal_(
    tensor: T, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None
) -> T:
    """Normal numbers."""
    with no_grad():
        return tensor.normal_(mean, std, generator=generator)  # type: ignore[attr-defined]


def constant_(tensor: T, val: float) -> T:
    """One number everywhere."""
    with no_grad():
        return tensor.fill_(val)


def zeros_(tensor: T) -> T:
    """Zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: T) -> T:
    """Ones."""
    return constant_(tensor, 1.0)


def eye_(tensor: T) -> T:
    """The identity matrix."""
    if tensor.ndim != 2:
        raise located(ShapeError(
            f"eye_: got a tensor of shape {tuple(tensor.shape)}; it must have 2 dimensions"
        ))  # fmt: skip
    with no_grad():
        return tensor.copy_(identity(*tensor.shape))


def xavier_uniform_(tensor: T, gain: float = 1.0, generator: Generator | None = None) -> T:
    """Uniform in +-gain * sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    bound = gain * math.sqrt(6.0 / sum(fans(tensor, "xavier_uniform_")))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: T, gain: float = 1.0, generator: Generator | None = None) -> T:
    """Normal with deviation gain * sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    std = gain * math.sqrt(2.0 / sum(fans(tensor, "xavier_normal_")))
    return normal_(tensor, 0.0, std, generator)


def _kaiming_std(name: str, tensor: Tensor, slope: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise located(ValueError(f"{name}: got mode {mode!r}; it is 'fan_in' or 'fan_out'"))
    fan = fans(tensor, name)[mode == "fan_out"]
    return calculate_gain(nonlinearity, slope) / math.sqrt(fan) if fan else 0.0


def kaiming_uniform_(
    tensor: T, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> T:  # fmt: skip
    """Uniform in +-gain * sqrt(3 / fan) (He et al., 2015); ``a`` is leaky_relu's slope."""
    bound = math.sqrt(3.0) * _kaiming_std("kaiming_uniform_", tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: T, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> T:  # fmt: skip
    """Normal with deviation gain / sqrt(fan) (He et al., 2015); ``a`` is leaky_relu's slope."""
    std = _kaiming_std("kaiming_normal_", tensor, a, mode, nonlinearity)
    return normal_(tensor, 0.0, std, generator)


def trunc_normal_(
    tensor: T, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
    generator: Generator | None = None,
) -> T:  # fmt: skip
    """Normal numbers of [a, b]: the inverse of the distribution function at uniform numbers."""
    if not a < b or std <= 0:
        raise located(ValueError(
            f"trunc_normal_: got std={std}, a={a} and b={b}; std must be positive and a below b"
        ))  # fmt: skip
    low, high = (math.erf((x - mean) / (std * math.sqrt(2.0))) for x in (a, b))
    with no_grad():
        unit = rand(tuple(tensor.shape), generator=generator, dtype=dtypes.float64)
        z = _inverse_erf(unit * (high - low) + low)
        return tensor.copy_((z * (std * math.sqrt(2.0)) + mean).clamp(a, b))


def _inverse_erf(y: Tensor) -> Tensor:
    """x with erf(x) = y: Winitzki's approximation and three steps of Newton."""
    y = y.clamp(-1 + 1e-16, 1 - 1e-16)
    c = 0.147
    logs = a.log((1.0 - y) * (1.0 + y))
    half = logs * 0.5 + 2 / (math.pi * c)
    x = a.sign(y) * a.sqrt(a.sqrt(half * half - logs / c) - half)
    for _ in range(3):
        slope = a.exp(-(x * x)) * (2 / math.sqrt(math.pi))
        x = x - (a.erf(x) - y) / slope
    return x


def orthogonal_(tensor: T, gain: float = 1.0, generator: Generator | None = None) -> T:
    """A (semi-)orthogonal matrix, rows by all other dimensions: NumPy's QR of normal numbers."""
    rows, columns = tensor.shape[0], prod(tensor.shape[1:])
    if tensor.ndim < 2:
        raise located(ShapeError(
            f"orthogonal_: got a tensor of shape {tuple(tensor.shape)}; it needs at least 2 "
            f"dimensions"
        ))  # fmt: skip
    drawn: Any = randn(rows, columns, generator=generator, dtype=dtypes.float64).numpy()
    q, r = np.linalg.qr(drawn.T if rows < columns else drawn)
    q = q * np.sign(np.diag(r))  # uniform over orthogonal matrices (Mezzadri, 2007)
    q = q.T if rows < columns else q
    with no_grad():
        return tensor.copy_(make_tensor(q.reshape(tensor.shape) * gain))


def dirac_(tensor: T, groups: int = 1) -> T:
    """A convolution's weight that leaves as many channels as it can as they are."""
    rows, columns = tensor.shape[0], tensor.shape[1] if tensor.ndim > 1 else 0
    if tensor.ndim not in (3, 4, 5) or rows % groups:
        raise located(ShapeError(
            f"dirac_: got a tensor of shape {tuple(tensor.shape)} and groups={groups}; it takes "
            f"the weight of a convolution, of 3 to 5 dimensions, the first divisible by groups"
        ))  # fmt: skip
    per_group = rows // groups
    values = np.zeros(tuple(tensor.shape))
    middle = tuple(n // 2 for n in tensor.shape[2:])
    for group in range(groups):
        for channel in range(min(per_group, columns)):
            values[(group * per_group + channel, channel, *middle)] = 1
    with no_grad():
        return tensor.copy_(make_tensor(values))


def sparse_(tensor: T, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> T:
    """Normal numbers, of which a share ``sparsity`` of every column is 0 (Martens, 2010)."""
    if tensor.ndim != 2:
        raise located(ShapeError(
            f"sparse_: got a tensor of shape {tuple(tensor.shape)}; it must have 2 dimensions"
        ))  # fmt: skip
    rows, columns = tensor.shape
    zeros = math.ceil(sparsity * rows)
    normal_(tensor, 0.0, std, generator)
    ranks = rand(rows, columns, generator=generator).argsort(0).argsort(0)
    with no_grad():
        return tensor.mul_((ranks >= zeros).to(tensor.dtype))


# PyTorch's older names.
uniform, normal, constant, eye, dirac = uniform_, normal_, constant_, eye_, dirac_
xavier_uniform, xavier_normal = xavier_uniform_, xavier_normal_
kaiming_uniform, kaiming_normal = kaiming_uniform_, kaiming_normal_
orthogonal, sparse = orthogonal_, sparse_

__all__ = [
    "calculate_gain", "constant", "constant_", "dirac", "dirac_", "eye", "eye_", "fans",
    "kaiming_normal", "kaiming_normal_", "kaiming_uniform", "kaiming_uniform_", "normal",
    "normal_", "ones_", "orthogonal", "orthogonal_", "sparse", "sparse_", "trunc_normal_",
    "uniform", "uniform_", "xavier_normal", "xavier_normal_", "xavier_uniform",
    "xavier_uniform_", "zeros_",
]  # fmt: skip
