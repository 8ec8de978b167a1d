"""Convolution layers."""

from __future__ import annotations

from typing import Any

from treadle.ir.node import located
from treadle.nn import functional as F
from treadle.nn.functional.convolution import per_axis, same_sides
from treadle.nn.linear import reset_affine
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.tensor.creation import empty
from treadle.tensor.tensor import Tensor

_MODES = ("zeros", "reflect", "replicate", "circular")


class _Convolution(Module):
    """What all convolutions share: weight, bias (O,) and geometry.

    Both parameters start uniform in +-1 / sqrt(C / groups * elements of the window).
    """

    _RANK: int  # spatial axes
    _TRANSPOSED = False

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any, padding: Any,
        dilation: Any, groups: int, bias: bool, padding_mode: str, device: Any, dtype: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        name = type(self).__name__
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise located(ValueError(
                f"{name}: got in_channels={in_channels}, out_channels={out_channels} and "
                f"groups={groups}; both channel counts must be divisible by groups"
            ))  # fmt: skip
        modes = _MODES[:1] if self._TRANSPOSED else _MODES
        if padding_mode not in modes:
            raise located(ValueError(
                f"{name}: got padding_mode {padding_mode!r}; it is "
                f"{' or '.join(map(repr, modes))}"
            ))  # fmt: skip
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = self._numbers("kernel_size", kernel_size)
        self.stride = self._numbers("stride", stride)
        named = isinstance(padding, str) and not self._TRANSPOSED
        self.padding = padding if named else self._numbers("padding", padding)
        self.dilation = self._numbers("dilation", dilation)
        self.groups = groups
        self.padding_mode = padding_mode
        first, second = out_channels, in_channels
        if self._TRANSPOSED:
            first, second = second, first
        kind = {"device": device, "dtype": dtype}
        self.weight = Parameter(empty(first, second // groups, *self.kernel_size, **kind))
        self.register_parameter("bias", Parameter(empty(out_channels, **kind)) if bias else None)
        self.reset_parameters()

    def _numbers(self, what: str, value: Any) -> tuple[int, ...]:
        return per_axis(type(self).__name__, what, value, self._RANK)

    def reset_parameters(self) -> None:
        """Draws the parameters anew."""
        reset_affine(self.weight, self.bias)

    def _padded(self, input: Tensor) -> tuple[Tensor, Any]:
        """The input and the padding that is left to do, for modes other than zeros."""
        if self.padding_mode == "zeros":
            return input, self.padding
        if self.padding == "same":
            sides = same_sides(self.kernel_size, self.dilation)
        elif self.padding == "valid":
            sides = ((0, 0),) * self._RANK
        else:
            sides = tuple((p, p) for p in self.padding)
        widths = [width for side in reversed(sides) for width in side]
        return F.pad(input, widths, mode=self.padding_mode), 0

    def extra_repr(self) -> str:
        """Sizes, and what differs from the defaults."""
        parts = [
            str(self.in_channels), str(self.out_channels), f"kernel_size={self.kernel_size}",
            f"stride={self.stride}",
        ]  # fmt: skip
        if self.padding != (0,) * self._RANK:
            parts.append(f"padding={self.padding!r}")
        if self.dilation != (1,) * self._RANK:
            parts.append(f"dilation={self.dilation}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode!r}")
        return ", ".join(parts)


class _Forward(_Convolution):
    """``Conv1d``, ``Conv2d`` and ``Conv3d``."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, dilation: Any = 1, groups: int = 1, bias: bool = True,
        padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            padding_mode, device, dtype,
        )  # fmt: skip


class Conv1d(_Forward):
    """Cross-correlation of sequences: (N, C, L) -> (N, O, OL), or (C, L) -> (O, OL).

    The arguments are those of ``Conv2d``; the weight is (O, C / groups, K).

    >>> import treadle
    >>> tuple(Conv1d(2, 4, 3, padding="same")(treadle.zeros(5, 2, 9)).shape)
    (5, 4, 9)
    """

    _RANK = 1

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, L) -> (N, O, OL)."""
        input, padding = self._padded(input)
        return F.conv1d(
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )


class Conv2d(_Forward):
    """Cross-correlation of images: (N, C, H, W) -> (N, O, OH, OW), or without the N.

    OH = floor((H + 2 * padding - dilation * (KH - 1) - 1) / stride) + 1; the weight is
    (O, C / groups, KH, KW). Source: PyTorch's ``torch.nn.Conv2d``.

    Args:
        in_channels, out_channels: C and O.
        kernel_size, stride, padding, dilation: an int, or one for each axis; ``padding`` may be
            "same" or "valid".
        groups: cuts the channels into groups that do not see one another.
        bias: whether to add a (O,) to every pixel.
        padding_mode: "zeros", "reflect", "replicate" or "circular".

    Raises:
        ValueError, TypeError: arguments that do not fit.

    >>> import treadle
    >>> tuple(Conv2d(1, 4, 3, padding=1)(treadle.zeros(2, 1, 8, 8)).shape)
    (2, 4, 8, 8)
    """

    _RANK = 2

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, O, OH, OW)."""
        input, padding = self._padded(input)
        return F.conv2d(
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )


class Conv3d(_Forward):
    """Cross-correlation of volumes: (N, C, D, H, W) -> (N, O, OD, OH, OW), or without the N.

    The arguments are those of ``Conv2d``; the weight is (O, C / groups, KD, KH, KW).

    >>> import treadle
    >>> tuple(Conv3d(1, 2, 3)(treadle.zeros(2, 1, 4, 5, 6)).shape)
    (2, 2, 2, 3, 4)
    """

    _RANK = 3

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, D, H, W) -> (N, O, OD, OH, OW)."""
        input, padding = self._padded(input)
        return F.conv3d(
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )


class _Transposed(_Convolution):
    """``ConvTranspose1d``, ``ConvTranspose2d`` and ``ConvTranspose3d``."""

    _TRANSPOSED = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, output_padding: Any = 0, groups: int = 1, bias: bool = True,
        dilation: Any = 1, padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            padding_mode, device, dtype,
        )  # fmt: skip
        self.output_padding = self._numbers("output_padding", output_padding)

    def _extra(self, input: Tensor, output_size: Any) -> tuple[int, ...]:
        """The output padding that gives ``output_size``."""
        if output_size is None:
            return self.output_padding
        name, rank = type(self).__name__, self._RANK
        wanted = tuple(output_size)
        if len(wanted) == input.ndim:
            wanted = wanted[-rank:]
        sizes = tuple(input.shape)[-rank:]
        least = tuple(
            (n - 1) * s - 2 * p + d * (k - 1) + 1
            for n, s, p, d, k in zip(
                sizes, self.stride, self.padding, self.dilation, self.kernel_size, strict=True
            )
        )
        most = tuple(
            low + max(s, d) - 1 for low, s, d in zip(least, self.stride, self.dilation, strict=True)
        )
        fits = len(wanted) == rank and all(
            low <= w <= high for low, w, high in zip(least, wanted, most, strict=True)
        )
        if not fits:
            raise located(ValueError(
                f"{name}: got output_size {tuple(output_size)} for an input of shape "
                f"{tuple(input.shape)}; it takes {rank} sizes from {least} to {most}"
            ))  # fmt: skip
        return tuple(w - low for w, low in zip(wanted, least, strict=True))

    def extra_repr(self) -> str:
        """Sizes, and what differs from the defaults."""
        text = super().extra_repr()
        if self.output_padding != (0,) * self._RANK:
            text += f", output_padding={self.output_padding}"
        return text


class ConvTranspose1d(_Transposed):
    """The adjoint of ``Conv1d``, which lengthens sequences: (N, C, L) -> (N, O, OL).

    The arguments are those of ``ConvTranspose2d``; the weight is (C, O / groups, K).

    >>> import treadle
    >>> tuple(ConvTranspose1d(2, 4, 4, stride=2, padding=1)(treadle.zeros(5, 2, 9)).shape)
    (5, 4, 18)
    """

    _RANK = 1

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """(N, C, L) -> (N, O, OL)."""
        return F.conv_transpose1d(
            input, self.weight, self.bias, self.stride, self.padding,
            self._extra(input, output_size), self.groups, self.dilation,
        )  # fmt: skip


class ConvTranspose2d(_Transposed):
    """The adjoint of ``Conv2d``, which enlarges images: (N, C, H, W) -> (N, O, OH, OW).

    OH = (H - 1) * stride - 2 * padding + dilation * (KH - 1) + output_padding + 1; the weight is
    (C, O / groups, KH, KW). Source: PyTorch's ``torch.nn.ConvTranspose2d``.

    Args:
        in_channels, out_channels: C and O.
        kernel_size, stride, padding, dilation: an int, or one for each axis.
        output_padding: rows and columns more at the end; below the stride or the dilation. A call
            with ``output_size`` chooses it.
        groups: cuts the channels into groups that do not see one another.
        bias: whether to add a (O,) to every pixel.
        padding_mode: "zeros".

    Raises:
        ValueError, TypeError: arguments that do not fit.

    >>> import treadle
    >>> up = ConvTranspose2d(1, 4, 3, stride=2, padding=1, output_padding=1)
    >>> tuple(up(treadle.zeros(2, 1, 8, 8)).shape)
    (2, 4, 16, 16)
    """

    _RANK = 2

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """(N, C, H, W) -> (N, O, OH, OW)."""
        return F.conv_transpose2d(
            input, self.weight, self.bias, self.stride, self.padding,
            self._extra(input, output_size), self.groups, self.dilation,
        )  # fmt: skip


class ConvTranspose3d(_Transposed):
    """The adjoint of ``Conv3d``, which enlarges volumes: (N, C, D, H, W) -> (N, O, OD, OH, OW).

    The arguments are those of ``ConvTranspose2d``; the weight is (C, O / groups, KD, KH, KW).

    >>> import treadle
    >>> tuple(ConvTranspose3d(1, 2, 2, stride=2)(treadle.zeros(2, 1, 2, 3, 4)).shape)
    (2, 2, 4, 6, 8)
    """

    _RANK = 3

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """(N, C, D, H, W) -> (N, O, OD, OH, OW)."""
        return F.conv_transpose3d(
            input, self.weight, self.bias, self.stride, self.padding,
            self._extra(input, output_size), self.groups, self.dilation,
        )  # fmt: skip


__all__ = [
    "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d",
]  # fmt: skip
