"""Data sets of images that come with Treadle: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.resources import as_file, files
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_TRAIN = 8_000


@lru_cache(maxsize=1)
def _digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """All images (10000, 1, 28, 28) in [0, 1] and labels (10000,), read once and frozen."""
    with (
        as_file(files("treadle.vision") / "data" / "mnist_10k.npz") as path,
        np.load(path, allow_pickle=False) as archive,
    ):
        images = archive["images"][:, None].astype(np.float32) / np.float32(255)
        labels = archive["labels"].astype(np.int64)
    images.flags.writeable = labels.flags.writeable = False
    return images, labels


class MNIST:
    """10,000 real handwritten digits: 8,000 to train with and 2,000 to test on.

    A data set for ``DataLoader``: item ``i`` is ``(image, label)``, a float32 array of shape
    (1, 28, 28) with ink between 0 and 1, and an ``int`` between 0 and 9.

    Args:
        train: the 8,000 training digits, or else the 2,000 test digits.
        transform: called with each image; its result takes the image's place.
        target_transform: called with each label; its result takes the label's place.

    ``data``, float32 (N, 1, 28, 28), and ``targets``, int64 (N,), are the whole set as read-only
    NumPy arrays. The digits are from the MNIST database of Y. LeCun and C. Cortes.

    >>> digits = MNIST(train=False)
    >>> len(digits)
    2000
    >>> image, label = digits[0]
    >>> image.shape, label
    ((1, 28, 28), 3)
    """

    classes = tuple("0123456789")

    def __init__(
        self,
        train: bool = True,
        transform: Callable[[NDArray[np.float32]], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
    ) -> None:
        images, labels = _digits()
        part = slice(None, NUM_TRAIN) if train else slice(NUM_TRAIN, None)
        self.train = train
        self.transform = transform
        self.target_transform = target_transform
        self.data = images[part]
        self.targets = labels[part]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        try:
            image, label = self.data[index], int(self.targets[index])
        except IndexError:
            raise IndexError(
                f"MNIST has {len(self)} {'training' if self.train else 'test'} digits; got the "
                f"index {index}, expected one of [{-len(self)}, {len(self) - 1}]"
            ) from None
        if self.transform is not None:
            image = self.transform(image)
        return image, label if self.target_transform is None else self.target_transform(label)

    def __repr__(self) -> str:
        return f"MNIST(train={self.train}, {len(self)} digits of 1x28x28)"
