"""How long ``import treadle`` takes, less what bare Python takes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from statistics import median

from bench.harness import ROOT, Options, Row

_BOUND = 0.2
_ROUNDS = 15  # at least


def _seconds(code: str, environment: dict[str, str]) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, check=True)
    return time.perf_counter() - begin


def run(options: Options) -> list[Row]:
    """Bare Python, NumPy, Treadle and (where it is here) PyTorch in turn, with bytecode cached."""
    times: dict[str, list[float]] = {"pass": [], "import numpy": [], "import treadle": []}
    with tempfile.TemporaryDirectory() as folder:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = folder
        for code in times:
            _seconds(code, environment)
        for _ in range(max(_ROUNDS, options.rounds)):
            for code, samples in times.items():
                samples.append(_seconds(code, environment))
    bare, numpy, ours = (median(samples) for samples in times.values())
    return [
        Row("import treadle", ours - bare, bound=_BOUND, note="NumPy included"),
        Row("  of which NumPy", numpy - bare),
        Row("  bare Python, not counted", bare),
    ]
