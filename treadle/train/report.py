"""Pictures of a training, as PNG files: learning curves, and grids of captioned images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from treadle.base.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK = "#1f2933"
_FAINT = "#d5dbe1"
_COLOURS = ("#0b6e99", "#d1495b", "#2e8b57", "#c98a1b")


def save_learning_curves(
    history: Sequence[Mapping[str, float]], path: str | Path, title: str = ""
) -> Path:
    """Draws how each metric went, epoch by epoch, and returns the path of the PNG.

    Args:
        history: one mapping from metric to value for each epoch. Metrics with "accuracy" in their
            name share the right panel, in percent; the others share the left one.
        path: the file to write.
        title: a heading.
    """
    if not history:
        raise ValueError("save_learning_curves got an empty history; expected one mapping an epoch")
    names = list(dict.fromkeys(name for row in history for name in row))
    panels = [
        [name for name in names if "accuracy" not in name],
        [name for name in names if "accuracy" in name],
    ]
    panels = [panel for panel in panels if panel]
    figure = _figure(4.8 * len(panels), 3.6, title)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        percent = "accuracy" in panel[0]
        _draw_panel(axes, history, panel, 100.0 if percent else 1.0)
        axes.set_ylabel("accuracy in %" if percent else " and ".join(panel).replace("_", " "))
    return _save(figure, path)


def save_image_grid(
    images: Any,
    captions: Sequence[str],
    path: str | Path,
    title: str = "",
    columns: int = 8,
) -> Path:
    """Draws grey images in rows, each with its caption, and returns the path of the PNG.

    Args:
        images: an array of shape (N, H, W) or (N, 1, H, W), 0 (paper) to 1 (ink); N may be 0.
        captions: one text for each image.
        path: the file to write.
        title: a heading.
        columns: how many images a row has.
    """
    images = np.asarray(images)
    if images.ndim == 4 and images.shape[1] == 1:
        images = images[:, 0]
    if images.ndim != 3 or len(images) != len(captions):
        raise ValueError(
            f"save_image_grid got images of shape {images.shape} and {len(captions)} captions; "
            "expected (N, H, W) or (N, 1, H, W) and N captions"
        )
    rows = max(math.ceil(len(images) / columns), 1)
    figure = _figure(1.15 * columns, 1.4 * rows + 0.5, title)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, caption in zip(grid, images, captions, strict=False):
        axes.imshow(image, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(caption, fontsize=9, color=_INK, pad=3)
    return _save(figure, path)


def _draw_panel(
    axes: Any, history: Sequence[Mapping[str, float]], names: Sequence[str], factor: float
) -> None:
    from matplotlib.ticker import MaxNLocator

    for name, colour in zip(names, _COLOURS * len(names), strict=False):
        epochs = [epoch for epoch, row in enumerate(history, 1) if name in row]
        values = [history[epoch - 1][name] * factor for epoch in epochs]
        last = f"{values[-1]:.4f}" if factor == 1 else f"{values[-1]:.2f}%"
        label = f"{name.replace('_', ' ')}: {last} at the end"
        axes.plot(epochs, values, color=colour, marker="o", markersize=3.5, lw=1.8, label=label)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color=_FAINT, lw=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)


def _figure(width: float, height: float, title: str) -> Figure:
    """A figure of its own: no global state of pyplot, no window system."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "plot", "Drawing a picture of a training") from None
    figure = Figure(figsize=(width, height), dpi=144, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, color=_INK, fontsize=12)
    return figure


def _save(figure: Figure, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
    return path
