"""PyTorch's path to ``SummaryWriter``."""

from treadle.train.tensorboard import SummaryWriter

__all__ = ["SummaryWriter"]
