"""Around a training loop: progress on the screen, curves and pictures, TensorBoard."""

from treadle.train.progress import Progress
from treadle.train.report import save_image_grid, save_learning_curves

__all__ = ["Progress", "save_image_grid", "save_learning_curves"]
