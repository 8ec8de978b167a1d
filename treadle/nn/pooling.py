"""Pooling layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.nn import functional as F
from treadle.nn.module import Module
from treadle.tensor.tensor import Tensor


class _Pool(Module):
    """A pooling function with its settings."""

    shown: tuple[str, ...] = ()

    def __init__(self, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode

    def extra_repr(self) -> str:
        """The settings."""
        return ", ".join(f"{name}={getattr(self, name)}" for name in self.shown)


class MaxPool2d(_Pool):
    """The largest element of every window of (N, C, H, W).

    OH = floor((H + 2 * padding - dilation * (KH - 1) - 1) / stride) + 1, rounded up instead with
    ``ceil_mode``. ``return_indices`` gives the places y * W + x too.

    >>> import treadle
    >>> MaxPool2d(2)(treadle.arange(16.0).reshape(1, 1, 4, 4)).flatten().tolist()
    [5.0, 7.0, 13.0, 15.0]
    """

    shown = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    _function = staticmethod(F.max_pool2d)

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        return_indices: bool = False, ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.dilation = dilation
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        """The pooled tensor, or the pair (pooled tensor, places)."""
        return self._function(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode,
            self.return_indices,
        )  # fmt: skip


class MaxPool1d(MaxPool2d):
    """The largest element of every window of (N, C, L)."""

    _function = staticmethod(F.max_pool1d)


class AvgPool2d(_Pool):
    """The mean of every window of (N, C, H, W).

    Padding counts as zeros unless ``count_include_pad`` is False; ``divisor_override`` replaces the
    number that the sum is divided by.
    """

    shown = ("kernel_size", "stride", "padding")
    _function = staticmethod(F.avg_pool2d)

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Tensor) -> Tensor:
        """The pooled tensor."""
        return self._function(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode,
            self.count_include_pad, self.divisor_override,
        )  # fmt: skip


class AvgPool1d(_Pool):
    """The mean of every window of (N, C, L)."""

    shown = ("kernel_size", "stride", "padding")

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.count_include_pad = count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        """The pooled tensor."""
        return F.avg_pool1d(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode,
            self.count_include_pad,
        )  # fmt: skip


class _AdaptivePool(Module):
    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def extra_repr(self) -> str:
        """The size of the result."""
        return f"output_size={self.output_size}"


class AdaptiveAvgPool2d(_AdaptivePool):
    """Means over windows that divide the image into ``output_size`` parts."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, *output_size)."""
        return F.adaptive_avg_pool2d(input, self.output_size)


class AdaptiveMaxPool2d(_AdaptivePool):
    """The largest elements of windows that divide the image."""

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        """(N, C, H, W) -> (N, C, *output_size)."""
        return F.adaptive_max_pool2d(input, self.output_size, self.return_indices)


class AdaptiveAvgPool1d(_AdaptivePool):
    """Means over windows that divide the sequence into ``output_size`` parts."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, L) -> (N, C, output_size)."""
        return F.adaptive_avg_pool1d(input, self.output_size)


class AdaptiveMaxPool1d(AdaptiveMaxPool2d):
    """The largest elements of windows that divide the sequence."""

    def forward(self, input: Tensor) -> Any:
        """(N, C, L) -> (N, C, output_size)."""
        return F.adaptive_max_pool1d(input, self.output_size, self.return_indices)


class MaxPool3d(MaxPool2d):
    """The largest element of every window of (N, C, D, H, W)."""

    _function = staticmethod(F.max_pool3d)


class AvgPool3d(AvgPool2d):
    """The mean of every window of (N, C, D, H, W); settings as in ``AvgPool2d``."""

    _function = staticmethod(F.avg_pool3d)


class AdaptiveAvgPool3d(_AdaptivePool):
    """Means over windows that divide the volume into ``output_size`` parts."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, D, H, W) -> (N, C, *output_size)."""
        return F.adaptive_avg_pool3d(input, self.output_size)


class LPPool2d(_Pool):
    """``(sum of x^p)^(1/p)`` of every window of (N, C, H, W)."""

    shown = ("norm_type", "kernel_size", "stride", "ceil_mode")
    _function = staticmethod(F.lp_pool2d)

    def __init__(
        self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
    ) -> None:
        super().__init__(kernel_size, stride, 0, ceil_mode)
        self.norm_type = norm_type

    def forward(self, input: Tensor) -> Tensor:
        """The pooled tensor."""
        return self._function(input, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)


class LPPool1d(LPPool2d):
    """``(sum of x^p)^(1/p)`` of every window of (N, C, L)."""

    _function = staticmethod(F.lp_pool1d)


class MaxUnpool2d(_Pool):
    """Zeros, with the maxima that ``MaxPool2d(return_indices=True)`` found at their places."""

    shown = ("kernel_size", "stride", "padding")
    _function = staticmethod(F.max_unpool2d)

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__(kernel_size, stride, padding, False)

    def forward(
        self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None
    ) -> Tensor:
        """The larger images."""
        return self._function(
            input, indices, self.kernel_size, self.stride, self.padding, output_size
        )


class MaxUnpool1d(MaxUnpool2d):
    """Zeros, with the maxima that ``MaxPool1d(return_indices=True)`` found at their places."""

    _function = staticmethod(F.max_unpool1d)


class MaxUnpool3d(MaxUnpool2d):
    """Zeros, with the maxima that ``MaxPool3d(return_indices=True)`` found at their places."""

    _function = staticmethod(F.max_unpool3d)


class AdaptiveMaxPool3d(AdaptiveMaxPool2d):
    """The largest elements of windows that divide the volume."""

    def forward(self, input: Tensor) -> Any:
        """(N, C, D, H, W) -> (N, C, *output_size)."""
        return F.adaptive_max_pool3d(input, self.output_size, self.return_indices)


class LPPool3d(LPPool2d):
    """``(sum of x^p)^(1/p)`` of every window of (N, C, D, H, W)."""

    _function = staticmethod(F.lp_pool3d)


class FractionalMaxPool2d(Module):
    """The largest elements of windows at random places (Graham, 2015): (N, C, H, W).

    The result has ``output_size``, or the share ``output_ratio`` of the input's size.
    """

    _function = staticmethod(F.fractional_max_pool2d)

    def __init__(
        self, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
        return_indices: bool = False, _random_samples: Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size = kernel_size
        self.output_size = output_size
        self.output_ratio = output_ratio
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)

    def forward(self, input: Tensor) -> Any:
        """The pooled tensor, or the pair (pooled tensor, places)."""
        return self._function(
            input, self.kernel_size, self.output_size, self.output_ratio, self.return_indices,
            self._random_samples,
        )  # fmt: skip


class FractionalMaxPool3d(FractionalMaxPool2d):
    """The largest elements of windows at random places: (N, C, D, H, W)."""

    _function = staticmethod(F.fractional_max_pool3d)


__all__ = [
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d", "AdaptiveMaxPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d",
    "FractionalMaxPool2d", "FractionalMaxPool3d", "LPPool1d", "LPPool2d", "LPPool3d", "MaxPool1d",
    "MaxPool2d", "MaxPool3d", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d",
]  # fmt: skip
