"""Pictures of a training: read back and looked at as pixels."""

import sys

import numpy as np
import pytest

from treadle.base.errors import MissingExtraError
from treadle.train import save_image_grid, save_learning_curves

HISTORY = [
    {"loss": 2.0, "accuracy": 0.5, "test_accuracy": 0.6},
    {"loss": 0.5, "accuracy": 0.9, "test_accuracy": 0.95},
]


@pytest.fixture
def read_png():
    pytest.importorskip("matplotlib", reason="needs the extra 'plot'")
    image = pytest.importorskip("PIL.Image", reason="needs pillow")
    return lambda path: np.asarray(image.open(path).convert("RGB"))


def _has_colour(pixels: np.ndarray, colour: str) -> bool:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((pixels == wanted).all(-1).any())


def test_curves(tmp_path, read_png):
    path = save_learning_curves(HISTORY, tmp_path / "new" / "curves.png", "A title")
    pixels = read_png(path)
    assert pixels.shape[1] > 1000
    assert _has_colour(pixels, "#0b6e99"), "the loss and the training accuracy"
    assert _has_colour(pixels, "#d1495b"), "the test accuracy"


def test_curves_of_metrics_that_some_epochs_lack(tmp_path, read_png):
    pixels = read_png(save_learning_curves([{"loss": 1.0}, {}, {"loss": 0.5}], tmp_path / "c.png"))
    assert pixels.shape[1] < 1000, "one panel"


def test_grid_shows_the_ink(tmp_path, read_png):
    images = np.zeros((9, 1, 28, 28), np.float32)
    images[3] = 1.0
    captions = [""] * 9
    blank = read_png(save_image_grid(images * 0, captions, tmp_path / "blank.png"))
    pixels = read_png(save_image_grid(images, captions, tmp_path / "grid.png"))
    assert (blank == 255).all()
    dark = np.argwhere((pixels == 0).all(-1))
    assert len(dark) > 50**2, "one black square,"
    height, width = pixels.shape[:2]
    assert dark[:, 0].max() < height / 2, "in the first of two rows,"
    assert width * 3 / 8 - 5 < dark[:, 1].min() < dark[:, 1].max() < width / 2 + 5, "fourth"


def test_empty_grid(tmp_path, read_png):
    path = save_image_grid(np.zeros((0, 28, 28)), [], tmp_path / "none.png", "Nothing wrong")
    assert (read_png(path) != 255).any(), "the heading"


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="empty history; expected one mapping an epoch"):
        save_learning_curves([], tmp_path / "c.png")
    with pytest.raises(ValueError, match=r"shape \(2, 3, 8, 8\) and 1 captions; expected"):
        save_image_grid(np.zeros((2, 3, 8, 8)), ["a"], tmp_path / "g.png")


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'treadle\[plot\]'"):
        save_learning_curves(HISTORY, tmp_path / "c.png")
