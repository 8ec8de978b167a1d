"""A layer that changes the size of images and sequences."""

from __future__ import annotations

from typing import Any

from treadle.nn import functional as F
from treadle.nn.module import Module
from treadle.tensor.tensor import Tensor


class Upsample(Module):
    """``functional.interpolate``: (N, C, H, W) or (N, C, L) in another size.

    >>> import treadle
    >>> tuple(Upsample(scale_factor=2)(treadle.zeros(1, 3, 4, 5)).shape)
    (1, 3, 8, 10)
    """

    def __init__(
        self, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
        align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.size = size
        self.scale_factor = scale_factor
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        """The input in the new size."""
        return F.interpolate(
            input, self.size, self.scale_factor, self.mode, self.align_corners,
            self.recompute_scale_factor,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """The settings."""
        given = "scale_factor" if self.size is None else "size"
        return f"{given}={getattr(self, given)}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """``Upsample`` of images with mode "nearest"."""

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor)


class UpsamplingBilinear2d(Upsample):
    """``Upsample`` of images with mode "bilinear" and ``align_corners``."""

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, "bilinear", True)


__all__ = ["Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d"]
