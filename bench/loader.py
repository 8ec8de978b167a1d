"""A DataLoader over PNG files of 224x224, decoded by Pillow, with two workers, beside PyTorch's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import ROOT, Options, Row
from treadle.base.errors import MissingExtraError

FILES, DISTINCT, SIDE = 10_000, 250, 224
EPOCHS, WORKERS = 5, 2
_GROWTH = 8.0  # MB: Python's own heap breathes


def make_files(folder: Path, count: int = FILES) -> None:
    """Pictures with edges and noise; most names are links to the same few."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError("pillow", "tensorboard", "the benchmark of the loader") from None
    rng = np.random.default_rng(0)
    for number in range(count):
        place = folder / f"{number:05}.png"
        if number >= DISTINCT:
            os.link(folder / f"{number % DISTINCT:05}.png", place)
            continue
        coarse = rng.integers(0, 220, (14, 14, 3)).repeat(16, 0).repeat(16, 1)
        fine = rng.integers(0, 32, (SIDE, SIDE, 3))
        Image.fromarray((coarse + fine).astype(np.uint8)).save(place, compress_level=1)


def _run(interpreter: str, framework: str, folder: Path) -> list[dict[str, Any]]:
    worker = str(Path(__file__).with_name("loader_worker.py"))
    done = subprocess.run(
        [interpreter, worker, framework, str(folder), str(EPOCHS), str(WORKERS)],
        stdout=subprocess.PIPE, text=True, check=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )  # fmt: skip
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def run(options: Options) -> list[Row]:
    """Seconds per 1,000 images (the best epoch), and memory in the first and the last."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder)
        ours = _run(sys.executable, "treadle", folder)
        torch = options.torch.interpreter
        theirs = _run(torch, "torch", folder) if torch else None
    best = [1000 / max(epoch["images"] for epoch in x) if x else None for x in (ours, theirs)]
    memory = [[epoch["memory"] for epoch in x] if x else [None] * EPOCHS for x in (ours, theirs)]
    return [
        Row("1,000 images", best[0] or 0.0, best[1], bound=best[1]),
        Row("memory, first epoch", memory[0][0], memory[1][0], "MB",
            bound=memory[1][0] and memory[1][0] / 10),
        Row("memory, last epoch", memory[0][-1], memory[1][-1], "MB",
            bound=memory[0][0] + _GROWTH),
    ]  # fmt: skip
