"""Layers that rearrange images, and measure distances between rows."""

from __future__ import annotations

from typing import Any

from treadle.nn import functional as F
from treadle.nn.module import Module
from treadle.tensor.tensor import Tensor


class _Settings(Module):
    """A module whose settings are attributes, shown in the order of ``shown``."""

    shown: tuple[str, ...] = ()

    def __init__(self, *values: Any) -> None:
        super().__init__()
        for name, value in zip(self.shown, values, strict=True):
            setattr(self, name, value)

    def extra_repr(self) -> str:
        """The settings."""
        return ", ".join(f"{name}={getattr(self, name)}" for name in self.shown)


class PixelShuffle(_Settings):
    """(..., C * r * r, H, W) -> (..., C, H * r, W * r): r * r channels become squares of pixels."""

    shown = ("upscale_factor",)

    def __init__(self, upscale_factor: int) -> None:
        super().__init__(upscale_factor)

    def forward(self, input: Tensor) -> Tensor:
        """The larger images."""
        return F.pixel_shuffle(input, self.upscale_factor)


class PixelUnshuffle(_Settings):
    """(..., C, H * r, W * r) -> (..., C * r * r, H, W): what ``PixelShuffle`` undoes."""

    shown = ("downscale_factor",)

    def __init__(self, downscale_factor: int) -> None:
        super().__init__(downscale_factor)

    def forward(self, input: Tensor) -> Tensor:
        """The smaller images."""
        return F.pixel_unshuffle(input, self.downscale_factor)


class ChannelShuffle(_Settings):
    """(N, C, ...) with the channels of the groups interleaved: 0 0 1 1 becomes 0 1 0 1."""

    shown = ("groups",)

    def __init__(self, groups: int) -> None:
        super().__init__(groups)

    def forward(self, input: Tensor) -> Tensor:
        """The same channels in another order."""
        return F.channel_shuffle(input, self.groups)


class Unfold(_Settings):
    """The windows of images as columns: (N, C, H, W) -> (N, C * KH * KW, windows)."""

    shown = ("kernel_size", "dilation", "padding", "stride")

    def __init__(
        self, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
    ) -> None:
        super().__init__(kernel_size, dilation, padding, stride)

    def forward(self, input: Tensor) -> Tensor:
        """The columns."""
        return F.unfold(input, *(getattr(self, name) for name in self.shown))


class Fold(_Settings):
    """Columns put together to images, adding where windows overlap."""

    shown = ("output_size", "kernel_size", "dilation", "padding", "stride")

    def __init__(
        self, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
        stride: Any = 1,
    ) -> None:  # fmt: skip
        super().__init__(output_size, kernel_size, dilation, padding, stride)

    def forward(self, input: Tensor) -> Tensor:
        """The images."""
        return F.fold(input, *(getattr(self, name) for name in self.shown))


class CosineSimilarity(_Settings):
    """``x1 . x2 / (max(|x1|, eps) * max(|x2|, eps))`` along ``dim``."""

    shown = ("dim", "eps")

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__(dim, eps)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """The similarities."""
        return F.cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(_Settings):
    """``norm(x1 - x2 + eps, p)`` along the last dimension."""

    shown = ("norm", "eps", "keepdim")

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        super().__init__(p, eps, keepdim)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """The distances."""
        return F.pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)


__all__ = [
    "ChannelShuffle", "CosineSimilarity", "Fold", "PairwiseDistance", "PixelShuffle",
    "PixelUnshuffle", "Unfold",
]  # fmt: skip
