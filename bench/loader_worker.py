"""Epochs of a DataLoader over PNG files, in whichever framework is named: ``bench.loader`` runs it.

``python loader_worker.py FRAMEWORK FOLDER EPOCHS WORKERS`` prints JSON: for each epoch the images
per second, and the memory of the process and its children in MB.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BATCH = 64
_PAD = 8


class Pictures:
    """Each file, decoded, shifted and turned round as its number says: (3, 224, 224), a label."""

    def __init__(self, folder: str) -> None:
        self.files = sorted(str(path) for path in Path(folder).glob("*.png"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        with Image.open(self.files[index]) as file:
            pixels = np.asarray(file)  # (224, 224, 3), bytes
        top, left = index % _PAD, index // _PAD % _PAD
        pixels = np.roll(pixels, (top, left), (0, 1))
        if index % 2:
            pixels = pixels[:, ::-1]
        image = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)
        image *= 1 / 255
        return image, index % 10


def memory() -> float:
    """MB of this process and its children, what they share counted once."""
    total = 0
    for process in [os.getpid(), *_children(os.getpid())]:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1024


def _children(process: int) -> list[int]:
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    found = [int(child) for child in text.split()]
    return found + [inner for child in found for inner in _children(child)]


def main() -> None:
    """Runs the epochs."""
    framework, folder, epochs, workers = sys.argv[1:]
    data = importlib.import_module(f"{framework}.utils.data")
    dataset, found = Pictures(folder), []
    before = memory()
    loader = data.DataLoader(dataset, BATCH, shuffle=True, num_workers=int(workers))
    for _ in range(int(epochs)):
        begin, count, peak = time.perf_counter(), 0, 0.0
        for images, _ in loader:
            count += len(images)
            if count % (16 * BATCH) == 0:
                peak = max(peak, memory())
        seconds = time.perf_counter() - begin
        found.append({"images": count / seconds, "memory": max(peak, memory()) - before})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
