"""Data sets of images, and transforms that vary them."""

from treadle.vision.datasets import MNIST
from treadle.vision.transforms import RandomAffine

__all__ = ["MNIST", "RandomAffine"]
