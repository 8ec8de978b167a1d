"""Images cut into windows and put together, and channels exchanged with places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.base.errors import ShapeError
from treadle.base.lazy_numpy import np
from treadle.base.shapes import prod
from treadle.ir.node import located
from treadle.nn.functional.common import Pair, check_rank, node_of, pair
from treadle.tensor.creation import tensor, zeros
from treadle.tensor.joining import pad
from treadle.tensor.selection import index_add, index_select
from treadle.tensor.tensor import Tensor

_IMAGES = "(N, C, H, W) or (C, H, W)"


def _factor(name: str, what: str, value: int, size: int, of: Tensor) -> int:
    """A factor that divides the size."""
    if not isinstance(value, int) or value < 1 or size % value:
        raise located(ShapeError(
            f"{name}: got {what} {value!r} for an input of shape {tuple(of.shape)}; it must be a "
            f"positive int that divides {size}"
        ))  # fmt: skip
    return value


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(..., C * r * r, H, W) -> (..., C, H * r, W * r): r * r channels become squares of pixels.

    >>> import treadle
    >>> pixel_shuffle(treadle.arange(4).reshape(1, 4, 1, 1), 2).tolist()
    [[[[0, 1], [2, 3]]]]
    """
    *batch, channels, height, width = _image("pixel_shuffle", input)
    r = upscale_factor
    _factor("pixel_shuffle", "upscale_factor", r * r, channels, input)
    apart = input.reshape(prod(batch), channels // (r * r), r, r, height, width)
    merged = apart.permute(0, 1, 4, 2, 5, 3)
    return merged.reshape(*batch, channels // (r * r), height * r, width * r)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(..., C, H * r, W * r) -> (..., C * r * r, H, W): what ``pixel_shuffle`` undoes."""
    *batch, channels, height, width = _image("pixel_unshuffle", input)
    r = downscale_factor
    _factor("pixel_unshuffle", "downscale_factor", r, height, input)
    _factor("pixel_unshuffle", "downscale_factor", r, width, input)
    apart = input.reshape(prod(batch), channels, height // r, r, width // r, r)
    merged = apart.permute(0, 1, 3, 5, 2, 4)
    return merged.reshape(*batch, channels * r * r, height // r, width // r)


def _image(name: str, input: Tensor) -> tuple[int, ...]:
    shape = node_of(name, input).shape
    if len(shape) < 3:
        raise located(ShapeError(
            f"{name}: got an input of shape {shape}; it takes (..., C, H, W)"
        ))  # fmt: skip
    return shape


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """(N, C, ...) with the channels of the groups interleaved: 0 0 1 1 becomes 0 1 0 1."""
    shape = node_of("channel_shuffle", input).shape
    if len(shape) < 2:
        raise located(ShapeError(
            f"channel_shuffle: got an input of shape {shape}; it takes (N, C, ...)"
        ))  # fmt: skip
    _factor("channel_shuffle", "groups", groups, shape[1], input)
    apart = input.reshape(shape[0], groups, shape[1] // groups, *shape[2:])
    return apart.transpose(1, 2).reshape(shape)


# --- windows --------------------------------------------------------------------------------------


class _Windows:
    """Where the windows of an image lie."""

    def __init__(
        self, name: str, size: Sequence[int], kernel_size: Any, dilation: Any, padding: Any,
        stride: Any,
    ) -> None:  # fmt: skip
        self.kernel = pair(name, "kernel_size", kernel_size)
        self.step = pair(name, "stride", stride)
        self.gap = pair(name, "dilation", dilation)
        self.around = pair(name, "padding", padding)
        counts = [
            (n + 2 * p - d * (k - 1) - 1) // s + 1 if min(k, s, d) > 0 else 0
            for n, p, d, k, s in zip(
                size, self.around, self.gap, self.kernel, self.step, strict=True
            )
        ]
        if min(counts) < 1:
            raise located(ShapeError(
                f"{name}: got images of {tuple(size)} with kernel_size {self.kernel}, padding "
                f"{self.around}, dilation {self.gap} and stride {self.step}; no window fits in"
            ))  # fmt: skip
        self.counts: Pair = counts[0], counts[1]

    def places(self, axis: int) -> Tensor:
        """For every element of the kernel, then for every window: a place on the padded axis."""
        kernel, windows = np.arange(self.kernel[axis]), np.arange(self.counts[axis])
        found = kernel[:, None] * self.gap[axis] + windows * self.step[axis]
        return tensor(found.reshape(-1))


def unfold(
    input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """The windows of images as columns: (N, C, H, W) -> (N, C * KH * KW, windows).

    >>> import treadle
    >>> unfold(treadle.arange(4.0).reshape(1, 1, 2, 2), (1, 2)).tolist()
    [[[0.0, 2.0], [1.0, 3.0]]]
    """
    node = node_of("unfold", input)
    check_rank("unfold", node, (4, 3), _IMAGES)
    *batch, channels, height, width = node.shape
    windows = _Windows("unfold", (height, width), kernel_size, dilation, padding, stride)
    (top, left), (kh, kw), (rows, columns) = windows.around, windows.kernel, windows.counts
    padded = pad(input, (left, left, top, top))
    picked = index_select(index_select(padded, -2, windows.places(0)), -1, windows.places(1))
    apart = picked.reshape(-1, channels, kh, rows, kw, columns).permute(0, 1, 2, 4, 3, 5)
    return apart.reshape(*batch, channels * kh * kw, rows * columns)


def fold(
    input: Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
    stride: Any = 1,
) -> Tensor:  # fmt: skip
    """Columns put together to images, adding where windows overlap: what ``unfold`` cut apart.

    (N, C * KH * KW, windows) -> (N, C, *output_size). Added in the order of the kernel's elements.
    """
    node = node_of("fold", input)
    check_rank("fold", node, (3, 2), "(N, C * KH * KW, windows)")
    height, width = pair("fold", "output_size", output_size)
    windows = _Windows("fold", (height, width), kernel_size, dilation, padding, stride)
    (top, left), (kh, kw), (rows, columns) = windows.around, windows.kernel, windows.counts
    *batch, size, count = node.shape
    if size % (kh * kw) or count != rows * columns:
        raise located(ShapeError(
            f"fold: got an input of shape {node.shape}; for images of {(height, width)} it must be "
            f"(N, C * {kh * kw}, {rows * columns})"
        ))  # fmt: skip
    channels = size // (kh * kw)
    apart = input.reshape(-1, channels, kh, kw, rows, columns).permute(0, 1, 2, 4, 3, 5)
    lines = apart.reshape(-1, channels, kh * rows, kw * columns)
    wide, high = width + 2 * left, height + 2 * top
    joined = index_add(
        zeros(len(lines), channels, kh * rows, wide, dtype=input.dtype), 3, windows.places(1), lines
    )
    whole = index_add(
        zeros(len(lines), channels, high, wide, dtype=input.dtype), 2, windows.places(0), joined
    )
    return pad(whole, (-left, -left, -top, -top)).reshape(*batch, channels, height, width)


__all__ = ["channel_shuffle", "fold", "pixel_shuffle", "pixel_unshuffle", "unfold"]
