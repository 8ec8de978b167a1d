"""How long ``import treadle`` takes, without and with NumPy, less what bare Python takes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from statistics import median

from bench.harness import ROOT, Options, Row

_BOUND = 0.2
_OWN_BOUND = 0.05  # what Treadle may add to NumPy
_ROUNDS = 15  # at least


def _seconds(code: str, environment: dict[str, str]) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, check=True)
    return time.perf_counter() - begin


def run(options: Options) -> list[Row]:
    """Bare Python, NumPy, Treadle, and both of them, in turn, with bytecode cached."""
    codes = ("pass", "import numpy", "import treadle", "import treadle, numpy")
    times: dict[str, list[float]] = {code: [] for code in codes}
    with tempfile.TemporaryDirectory() as folder:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = folder
        for code in times:
            _seconds(code, environment)
        for _ in range(max(_ROUNDS, options.rounds)):
            for code, samples in times.items():
                samples.append(_seconds(code, environment))
    bare, numpy, ours, both = (median(samples) for samples in times.values())
    return [
        Row("import treadle", ours - bare, bound=_BOUND, note="NumPy waits for its first use"),
        Row("import treadle, numpy", both - bare, bound=_BOUND, note="NumPy included"),
        Row("  of which NumPy, by itself", numpy - bare),
        Row("  of which Treadle", both - numpy, bound=_OWN_BOUND),
        Row("  bare Python, not counted", bare),
    ]
