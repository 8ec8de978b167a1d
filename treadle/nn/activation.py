"""Activation layers: the functions of ``nn.functional`` with their settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.nn import functional as F
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.tensor.creation import full
from treadle.tensor.tensor import Tensor


class _Activation(Module):
    """Applies ``function(input, *settings)``; ``settings`` names the attributes to pass."""

    function: Callable[..., Tensor]
    settings: tuple[str, ...] = ()

    def forward(self, input: Tensor) -> Tensor:
        """The function applied to every element."""
        values = [getattr(self, name) for name in self.settings]
        return type(self).function(input, *values)

    def extra_repr(self) -> str:
        """The settings (``inplace`` only where it is on)."""
        shown = []
        for name in self.settings:
            value = getattr(self, name)
            if name != "inplace" or value:
                shown.append(f"{name}={value!r}")
        return ", ".join(shown)


class _InPlace(_Activation):
    settings = ("inplace",)

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace


class ReLU(_InPlace):
    """``max(x, 0)``."""

    function = staticmethod(F.relu)


class ReLU6(_InPlace):
    """``min(max(x, 0), 6)``."""

    function = staticmethod(F.relu6)


class SELU(_InPlace):
    """``scale * elu(x, alpha)`` with the constants of self-normalising networks."""

    function = staticmethod(F.selu)


class SiLU(_InPlace):
    """``x * sigmoid(x)``."""

    function = staticmethod(F.silu)


class Hardtanh(_Activation):
    """``min(max(x, min_val), max_val)``."""

    function = staticmethod(F.hardtanh)
    settings = ("min_val", "max_val", "inplace")

    def __init__(
        self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False,
        min_value: float | None = None, max_value: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__()  # min_value and max_value are older names
        self.min_val = min_val if min_value is None else min_value
        self.max_val = max_val if max_value is None else max_value
        self.inplace = inplace


class LeakyReLU(_Activation):
    """``x`` where x > 0, else ``negative_slope * x``."""

    function = staticmethod(F.leaky_relu)
    settings = ("negative_slope", "inplace")

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.inplace = inplace


class PReLU(Module):
    """``x`` where x > 0, else ``weight * x`` with a learned weight, for all or for each channel."""

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        slopes = full((num_parameters,), float(init), device=device, dtype=dtype)
        self.weight = Parameter(slopes)

    def forward(self, input: Tensor) -> Tensor:
        """The function applied to every element."""
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        """The number of slopes."""
        return f"num_parameters={self.weight.numel()}"


class ELU(_Activation):
    """``x`` where x > 0, else ``alpha * (e^x - 1)``."""

    function = staticmethod(F.elu)
    settings = ("alpha", "inplace")

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace


class CELU(_Activation):
    """``max(x, 0) + min(alpha * (e^(x / alpha) - 1), 0)``."""

    function = staticmethod(F.celu)
    settings = ("alpha", "inplace")

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace


class GELU(_Activation):
    """``x * Phi(x)`` with the normal distribution function, or its "tanh" approximation."""

    function = staticmethod(F.gelu)
    settings = ("approximate",)

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate


class Sigmoid(_Activation):
    """``1 / (1 + e^-x)``."""

    function = staticmethod(F.sigmoid)


class LogSigmoid(_Activation):
    """``log(sigmoid(x))``."""

    function = staticmethod(F.logsigmoid)


class Hardsigmoid(_InPlace):
    """``min(max(x + 3, 0), 6) / 6``."""

    function = staticmethod(F.hardsigmoid)


class Hardswish(_InPlace):
    """``x * hardsigmoid(x)``."""

    function = staticmethod(F.hardswish)


class Mish(_InPlace):
    """``x * tanh(softplus(x))``."""

    function = staticmethod(F.mish)


class Tanh(_Activation):
    """The hyperbolic tangent."""

    function = staticmethod(F.tanh)


class Tanhshrink(_Activation):
    """``x - tanh(x)``."""

    function = staticmethod(F.tanhshrink)


class Softsign(_Activation):
    """``x / (1 + |x|)``."""

    function = staticmethod(F.softsign)


class Softplus(_Activation):
    """``log(1 + e^(beta * x)) / beta``; x itself where ``beta * x`` is above the threshold."""

    function = staticmethod(F.softplus)
    settings = ("beta", "threshold")

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = beta
        self.threshold = threshold


class Threshold(_Activation):
    """``x`` where x > threshold, else ``value``."""

    function = staticmethod(F.threshold)
    settings = ("threshold", "value", "inplace")

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold = threshold
        self.value = value
        self.inplace = inplace


class Hardshrink(_Activation):
    """``x`` where |x| > lambd, else 0."""

    function = staticmethod(F.hardshrink)
    settings = ("lambd",)

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd


class Softshrink(Hardshrink):
    """``sign(x) * max(|x| - lambd, 0)``."""

    function = staticmethod(F.softshrink)


class RReLU(_Activation):
    """``x`` where x > 0, else ``slope * x`` with a slope drawn anew in training (its mean else)."""

    function = staticmethod(F.rrelu)
    settings = ("lower", "upper", "training", "inplace")

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3, inplace: bool = False) -> None:
        super().__init__()
        self.lower = lower
        self.upper = upper
        self.inplace = inplace

    def extra_repr(self) -> str:
        """The bounds."""
        return f"lower={self.lower}, upper={self.upper}{', inplace=True' * self.inplace}"


class GLU(_Activation):
    """``a * sigmoid(b)`` for the halves a and b of ``dim``."""

    function = staticmethod(F.glu)
    settings = ("dim",)

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim


class _AlongDim(_Activation):
    settings = ("dim",)

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim


class Softmax(_AlongDim):
    """``exp(x) / sum(exp(x))`` along ``dim``."""

    function = staticmethod(F.softmax)


class Softmin(_AlongDim):
    """``softmax(-x)`` along ``dim``."""

    function = staticmethod(F.softmin)


class LogSoftmax(_AlongDim):
    """``x - log(sum(exp(x)))`` along ``dim``."""

    function = staticmethod(F.log_softmax)


class Softmax2d(_Activation):
    """``softmax`` over the channels of (N, C, H, W) or (C, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        """The shares of the channels."""
        return F.softmax(input, -3)


__all__ = [
    "CELU", "ELU", "GELU", "GLU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh",
    "LeakyReLU", "LogSigmoid", "LogSoftmax", "Mish", "PReLU", "RReLU", "ReLU", "ReLU6", "SELU",
    "SiLU", "Sigmoid", "Softmax", "Softmax2d", "Softmin", "Softplus", "Softshrink", "Softsign",
    "Tanh", "Tanhshrink", "Threshold",
]  # fmt: skip
