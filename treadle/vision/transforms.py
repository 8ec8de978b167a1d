"""Transforms that vary images while they are loaded: NumPy to NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class RandomAffine:
    """Turns, shifts and scales each image by a little, at random; what comes in from outside is 0.

    Takes images of shape (..., H, W): one image (C, H, W) is moved as a whole, and each image of
    a batch (N, C, H, W) by its own amounts. Sampling is bilinear, about the image's centre.

    Args:
        degrees: turn by an angle within ``[-degrees, degrees]``.
        translate: the largest shift as a fraction of the width and of the height.
        scale: the smallest and the largest factor, ``(0.9, 1.1)`` for a tenth either way.
        seed: what the draws follow from; the same seed gives the same sequence of images.

    Source: torchvision's ``RandomAffine``.

    >>> shift = RandomAffine(degrees=10, translate=(0.07, 0.07), scale=(0.9, 1.1), seed=0)
    >>> shift(np.ones((8, 1, 28, 28), np.float32)).shape
    (8, 1, 28, 28)
    """

    def __init__(
        self,
        degrees: float,
        translate: tuple[float, float] = (0.0, 0.0),
        scale: tuple[float, float] = (1.0, 1.0),
        seed: int | None = None,
    ) -> None:
        if degrees < 0 or min(translate) < 0 or not 0 < scale[0] <= scale[1]:
            raise ValueError(
                f"RandomAffine got degrees={degrees}, translate={translate}, scale={scale}; "
                "expected degrees and translate of at least 0 and scale=(low, high) with "
                "0 < low <= high"
            )
        self.degrees = degrees
        self.translate = translate
        self.scale = scale
        self._rng = np.random.default_rng(seed)

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """The images moved, as a new array of the same shape."""
        images = np.asarray(images, np.float32)
        if images.ndim not in (3, 4):
            raise ValueError(
                f"RandomAffine got an array of shape {images.shape}; expected an image "
                "(C, H, W) or a batch (N, C, H, W)"
            )
        batch = images if images.ndim == 4 else images[None]
        return _warp(batch, *self._draw(batch)).reshape(images.shape)

    def _draw(self, batch: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """One inverse map per image: its linear part (N, 2, 2) and its shift (N, 2), as (x, y)."""
        count, _, height, width = batch.shape
        angle = np.deg2rad(self._rng.uniform(-self.degrees, self.degrees, count))
        factor = self._rng.uniform(*self.scale, count)
        reach = np.array(self.translate) * (width, height)
        shift = self._rng.uniform(-reach, reach, (count, 2))
        cos, sin = np.cos(angle) / factor, np.sin(angle) / factor
        linear = np.stack([cos, sin, -sin, cos], axis=1).reshape(count, 2, 2)
        return linear.astype(np.float32), shift.astype(np.float32)


def _warp(
    batch: NDArray[np.float32], linear: NDArray[np.float32], shift: NDArray[np.float32]
) -> NDArray[np.float32]:
    """out[y, x] = batch at linear @ (x, y) + shift, coordinates counted from the centre."""
    count, channels, height, width = batch.shape
    row, column = np.indices((height, width), np.float32).reshape(2, -1)
    centre = np.array([(width - 1) / 2, (height - 1) / 2], np.float32)
    source = (
        linear[:, :, :1] * (column - centre[0])
        + linear[:, :, 1:] * (row - centre[1])
        + (centre + shift)[:, :, None]
    )  # (N, 2, H*W)
    # A frame of zeros one wide on the left and top and two on the right and bottom: every point
    # clipped into it has its four neighbours, and a point outside the image reads zeros only.
    framed = np.pad(batch, ((0, 0), (0, 0), (1, 2), (1, 2)))
    x = np.clip(source[:, 0] + 1, 0, width + 1)
    y = np.clip(source[:, 1] + 1, 0, height + 1)
    left, top = np.floor(x), np.floor(y)
    fx, fy = (x - left)[:, None], (y - top)[:, None]
    stride = width + 3
    corner = (top * stride + left).astype(np.int32)[:, None]  # (N, 1, H*W); exact below 2**24
    planes = np.arange(count * channels, dtype=np.int32).reshape(count, channels, 1)
    corner = corner + planes * ((height + 3) * stride)
    flat = framed.ravel()
    upper = flat[corner] * (1 - fx) + flat[corner + 1] * fx
    lower = flat[corner + stride] * (1 - fx) + flat[corner + stride + 1] * fx
    return (upper * (1 - fy) + lower * fy).reshape(batch.shape)
