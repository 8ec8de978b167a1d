"""Convolution layers."""

from __future__ import annotations

from typing import Any

from treadle.ir.node import located
from treadle.nn import functional as F
from treadle.nn.functional.common import pair
from treadle.nn.linear import reset_affine
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.tensor.creation import empty
from treadle.tensor.tensor import Tensor

_MODES = ("zeros", "reflect", "replicate", "circular")


class _Convolution(Module):
    """What all convolutions share: weight (O, C / groups, *window), bias (O,), geometry.

    Both start uniform in +-1 / sqrt(C / groups * elements of the window).
    """

    def __init__(
        self, channels: tuple[int, int], window: tuple[int, ...], geometry: dict[str, Any],
        groups: int, bias: bool, padding_mode: str, kind: dict[str, Any], transposed: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        name = type(self).__name__
        if groups < 1 or channels[0] % groups or channels[1] % groups:
            raise located(ValueError(
                f"{name}: got in_channels={channels[0]}, out_channels={channels[1]} and "
                f"groups={groups}; both channel counts must be divisible by groups"
            ))  # fmt: skip
        if padding_mode not in _MODES or (transposed and padding_mode != "zeros"):
            modes = _MODES[:1] if transposed else _MODES
            raise located(ValueError(
                f"{name}: got padding_mode {padding_mode!r}; it is "
                f"{' or '.join(map(repr, modes))}"
            ))  # fmt: skip
        self.in_channels, self.out_channels = channels
        self.kernel_size = window
        self.groups = groups
        self.padding_mode = padding_mode
        for key, value in geometry.items():
            setattr(self, key, value)
        first, second = channels[::-1] if not transposed else channels
        self.weight = Parameter(empty(first, second // groups, *window, **kind))
        self.register_parameter("bias", Parameter(empty(channels[1], **kind)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the parameters anew."""
        reset_affine(self.weight, self.bias)

    def _padded(self, input: Tensor) -> tuple[Tensor, Any]:
        """The input and the padding that is left to do, for modes other than zeros."""
        if self.padding_mode == "zeros":
            return input, self.padding
        if isinstance(self.padding, str):
            spans = [
                d * (w - 1) if self.padding == "same" else 0
                for d, w in zip(self.dilation, self.kernel_size, strict=True)
            ]
            sides = [(span // 2, span - span // 2) for span in spans]
        else:
            sides = [(p, p) for p in self.padding]
        widths = [width for side in reversed(sides) for width in side]
        return F.pad(input, widths, mode=self.padding_mode), (0,) * len(sides)

    def extra_repr(self) -> str:
        """Sizes, and what differs from the defaults."""
        count = len(self.kernel_size)
        parts = [
            str(self.in_channels), str(self.out_channels), f"kernel_size={self.kernel_size}",
            f"stride={self.stride}",
        ]  # fmt: skip
        if self.padding != (0,) * count:
            parts.append(f"padding={self.padding!r}")
        if self.dilation != (1,) * count:
            parts.append(f"dilation={self.dilation}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode!r}")
        return ", ".join(parts)


class Conv2d(_Convolution):
    """Cross-correlation of images: (N, C, H, W) -> (N, O, OH, OW).

    OH = floor((H + 2 * padding - dilation * (KH - 1) - 1) / stride) + 1. ``padding`` is an int, two
    ints, "same" or "valid"; ``groups`` cuts the channels into independent groups. Source:
    PyTorch's ``torch.nn.Conv2d``.

    >>> import treadle
    >>> tuple(Conv2d(1, 4, 3, padding=1)(treadle.zeros(2, 1, 8, 8)).shape)
    (2, 4, 8, 8)
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, dilation: Any = 1, groups: int = 1, bias: bool = True,
        padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        name = "Conv2d"
        geometry = {
            "stride": pair(name, "stride", stride),
            "padding": padding if isinstance(padding, str) else pair(name, "padding", padding),
            "dilation": pair(name, "dilation", dilation),
        }
        window = pair(name, "kernel_size", kernel_size)
        kind = {"device": device, "dtype": dtype}
        super().__init__(
            (in_channels, out_channels), window, geometry, groups, bias, padding_mode, kind
        )

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, O, OH, OW); without a batch (C, H, W) -> (O, OH, OW)."""
        input, padding = self._padded(input)
        return F.conv2d(
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )


def _single(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


class Conv1d(_Convolution):
    """Cross-correlation of sequences: (N, C, L) -> (N, O, OL)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, dilation: Any = 1, groups: int = 1, bias: bool = True,
        padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        geometry = {
            "stride": _single(stride),
            "padding": padding if isinstance(padding, str) else _single(padding),
            "dilation": _single(dilation),
        }
        kind = {"device": device, "dtype": dtype}
        channels = (in_channels, out_channels)
        window = _single(kernel_size)
        super().__init__(channels, window, geometry, groups, bias, padding_mode, kind)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, L) -> (N, O, OL); without a batch (C, L) -> (O, OL)."""
        input, padding = self._padded(input)
        return F.conv1d(
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )


class ConvTranspose2d(_Convolution):
    """The adjoint of ``Conv2d``, which enlarges images: (N, C, H, W) -> (N, O, OH, OW).

    OH = (H - 1) * stride - 2 * padding + dilation * (KH - 1) + output_padding + 1; the weight is
    (C, O / groups, KH, KW).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, output_padding: Any = 0, groups: int = 1, bias: bool = True,
        dilation: Any = 1, padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        name = "ConvTranspose2d"
        geometry = {
            "stride": pair(name, "stride", stride), "padding": pair(name, "padding", padding),
            "dilation": pair(name, "dilation", dilation),
            "output_padding": pair(name, "output_padding", output_padding),
        }  # fmt: skip
        window = pair(name, "kernel_size", kernel_size)
        kind = {"device": device, "dtype": dtype}
        super().__init__(
            (in_channels, out_channels), window, geometry, groups, bias, padding_mode, kind,
            transposed=True,
        )  # fmt: skip

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, O, OH, OW)."""
        return F.conv_transpose2d(
            input, self.weight, self.bias, self.stride, self.padding, self.output_padding,
            self.groups, self.dilation,
        )  # fmt: skip


__all__ = ["Conv1d", "Conv2d", "ConvTranspose2d"]
