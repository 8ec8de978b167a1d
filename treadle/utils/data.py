"""PyTorch's path to data sets, samplers and ``DataLoader``."""

from treadle.data import *  # noqa: F403
from treadle.data import __all__ as __all__
