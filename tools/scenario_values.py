"""What PyTorch makes of the scenarios, as a table that tests compare Treadle with.

``python -m tools.scenario_values [FRAMEWORK]`` prints sums for every scenario and step, as JSON.
Run by a Python that has PyTorch it writes what
``tests/programs/pytorch.json`` holds.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from treadle.testing.scenarios import SCENARIOS, steps_of


def _numbers(values: Any) -> Iterator[Any]:
    for x in values:
        if isinstance(x, list):
            yield from _numbers(x)
        else:
            yield np.array(x.tolist() if hasattr(x, "detach") else x, np.float64)


def sums(torch: Any, name: str) -> list[tuple[float, float, int]]:
    """For every step of a scenario a weighted sum of its results, that of their sizes, and how
    many numbers they are (finite ones)."""
    step = SCENARIOS[name].begin(torch)
    table = []
    for i in range(steps_of(name)):
        found = [x[np.isfinite(x)] for x in _numbers(step(i))]
        total = sum(float((x * np.cos(np.arange(x.size))).sum()) for x in found)
        size = sum(float(np.abs(x).sum()) for x in found)
        table.append((float(f"{total:.7g}"), float(f"{size:.7g}"), sum(x.size for x in found)))
    return table


def main() -> None:
    """Prints the table."""
    torch = importlib.import_module(sys.argv[1] if len(sys.argv) > 1 else "torch")
    tables = {name: sums(torch, name) for name, one in SCENARIOS.items() if not one.is_random}
    lines = [f"{json.dumps(name)}: {json.dumps(table)}" for name, table in tables.items()]
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    main()
