"""The programs of ``tests/programs/corpus``: written for PyTorch, run under either name.

``python -m tools.program_corpus [NAME ...]`` runs them with PyTorch in float32 and float64 and
writes what their first steps tell to ``tests/programs/corpus.json``; it needs a Python that has
PyTorch, and no Treadle. A program's ``train()`` is a generator: it yields, at each step, its loss
or several numbers.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tools.program_draws import given

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tests" / "programs" / "corpus"
STORED = FOLDER.with_suffix(".json")
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.py")))
STEPS = 100
RELATIVE, TIMES = 1e-4, 3.0  # the bound of a difference: this, or so often PyTorch's own


def load(name: str, framework: str) -> ModuleType:
    """A program with the word ``torch`` replaced by the name of a framework."""
    path = FOLDER / f"{name}.py"
    source = re.sub(r"\btorch\b", framework, path.read_text())
    module = ModuleType(f"{framework}_{name}")
    sys.modules[module.__name__] = module  # where its data classes look for it
    exec(compile(source, str(path), "exec"), vars(module))
    return module


@contextlib.contextmanager
def _wide(torch: Any) -> Iterator[None]:
    """Float64 wherever a program says float32 or leaves it unsaid."""
    before = (torch.float32, torch.float, torch.Tensor.float)
    torch.set_default_dtype(torch.float64)
    torch.float32, torch.float, torch.Tensor.float = (
        torch.float64, torch.float64, torch.Tensor.double
    )  # fmt: skip
    try:
        yield
    finally:
        torch.float32, torch.float, torch.Tensor.float = before
        torch.set_default_dtype(torch.float32)


def told(name: str, framework: str, steps: int = STEPS, is_wide: bool = False) -> np.ndarray:
    """What each of the first steps tells, (steps, numbers), all draws from one NumPy generator."""
    torch = importlib.import_module(framework)
    with (
        _wide(torch) if is_wide else contextlib.nullcontext(),
        given(torch, seed=0),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        program = load(name, framework).train()
        return np.array([np.atleast_1d(t) for t in itertools.islice(program, steps)], np.float64)


def excess(ours: np.ndarray, theirs: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """The difference at each step as a share of its bound, (steps,): at most 1 where it is met.

    ``theirs`` and ``exact`` are PyTorch's in float32 and float64; its own difference is counted as
    it is so far, since an error once made stays.
    """
    own = np.maximum.accumulate(np.abs(theirs - exact))
    bound = np.maximum(RELATIVE * np.abs(theirs), TIMES * own)
    shares = np.abs(ours - theirs) / bound
    return np.where(np.isfinite(shares), shares, np.inf).max(1)


def falls(losses: np.ndarray) -> bool:
    """Whether the last number that is told falls by a tenth between the first and last fifths."""
    fifth = len(losses) // 5
    first, last = losses[:fifth, -1].mean(), losses[-fifth:, -1].mean()
    return bool(last < first - 0.1 * abs(first))


def stored() -> dict[str, dict[str, np.ndarray]]:
    """PyTorch's numbers by program, as ``float32`` and ``float64``."""
    tables = json.loads(STORED.read_text())
    return {n: {kind: np.array(t) for kind, t in one.items()} for n, one in tables.items()}


def main() -> None:
    """Writes the file, or the programs named anew."""
    names = sys.argv[1:] or NAMES
    tables = json.loads(STORED.read_text()) if STORED.exists() and sys.argv[1:] else {}
    for name in names:
        tables[name] = {
            kind: [[float(f"{x:.9g}") for x in row] for row in told(name, "torch", STEPS, is_wide)]
            for kind, is_wide in (("float32", False), ("float64", True))
        }
        both = {kind: np.array(t) for kind, t in tables[name].items()}
        own = np.abs(both["float32"] - both["float64"]) / np.abs(both["float64"])
        found = both["float32"]
        print(f"{name}: {found[0]} -> {found[-1]}, falls: {falls(found)}, own {own.max():.1e}")
    lines = [f"{json.dumps(name)}: {json.dumps(tables[name])}" for name in sorted(tables)]
    STORED.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
