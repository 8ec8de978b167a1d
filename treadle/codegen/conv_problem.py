"""What the plans of convolutions are made for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from treadle.base.shapes import prod
from treadle.ir.launch import Layout

Kind = Literal["forward", "input", "weight"]
Numbers = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """A convolution over three axes: ``image`` is (N, C, D, H, W), and so on."""

    image: Layout
    weight: Layout
    result: Layout
    stride: Numbers
    pad: Numbers  # before the first element; what comes after the last follows from the sizes
    dilation: Numbers
    groups: int
    threads: int
    vector_bits: int

    @property
    def is_pointwise(self) -> bool:
        """Whether it is a matrix product for every image: one tap, and no pixel left out."""
        spatial = self.image.shape[2:]
        same = spatial == self.result.shape[2:] and self.weight.shape[2:] == (1, 1, 1)
        plain = self.stride == (1, 1, 1) and self.pad == (0, 0, 0) and self.groups == 1
        return same and plain and all(is_flat(x) for x in (self.image, self.result))


def is_flat(layout: Layout) -> bool:
    """Whether the spatial axes have one common stride."""
    expected = layout.strides[-1]
    for size, stride in zip(reversed(layout.shape[2:]), reversed(layout.strides[2:]), strict=True):
        if size != 1 and stride != expected:
            return False
        expected = stride * size if size != 1 else expected
    return True


def in_one_row(layout: Layout) -> Layout:
    """The pixels of an image as one row, where the spatial axes have one common stride."""
    n, channels, *sizes = layout.shape
    image, channel, *_, step = layout.strides
    if not is_flat(layout):
        return layout
    return Layout(layout.dtype, (n, channels, 1, 1, prod(sizes)), (image, channel, 0, 0, step))


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a convolution whose result is an image, or of a class of its pixels.

    Pixel i is pixel ``first + i * every`` of the result. Tap j of pixel 0 reads the element
    ``(base + j * distance) / spread`` of the source where that is whole, and of the next pixel the
    element ``step`` further on.
    """

    size: int  # of the source
    pixels: int
    step: int
    taps: int
    base: int
    distance: int
    spread: int = 1
    first: int = 0
    every: int = 1

    @property
    def present(self) -> list[int]:
        """The elements that pixel 0 reads, tap by tap."""
        reached = [self.base + j * self.distance for j in range(self.taps)]
        return [r // self.spread for r in reached if r % self.spread == 0]

    @property
    def places(self) -> list[int]:
        """The same, or the first element where there is none: a strip is never empty."""
        return self.present or [0]

    @property
    def low(self) -> int:
        """The first of them."""
        return min(self.places)

    @property
    def reach(self) -> int:
        """Elements from the first of them to the last."""
        return max(self.places) - self.low + 1

    @property
    def has_absent(self) -> bool:
        """Whether a tap of a pixel can miss the elements."""
        return self.low < 0 or self.low + (self.pixels - 1) * self.step + self.reach > self.size
