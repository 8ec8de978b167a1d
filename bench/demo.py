"""The demo in a process of its own with an empty kernel cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time

from bench.harness import ROOT, Options, Row

_FIRST_STEP_BOUND, _WHOLE_BOUND = 5.0, 90.0


def child(begin: float, out: str) -> None:
    """Runs the demo into ``out`` and prints, last, when the first step ended after ``begin``."""
    from pathlib import Path

    from treadle import optim
    from treadle.cli import demo
    from treadle.runtime import jit

    step, ended = optim.Adam.step, []

    def timed(self: optim.Adam, closure: object = None) -> object:
        result = step(self, closure)
        if not ended:
            ended.extend((time.time() - begin, time.process_time()))
        return result

    optim.Adam.step = timed  # type: ignore[method-assign, assignment]
    demo.run(0, None, Path(out))
    statistics = jit.statistics()._asdict()
    figures = {"first": ended[0], "first_cpu": ended[1], "whole": time.time() - begin,
               "whole_cpu": time.process_time()}  # fmt: skip
    print(json.dumps({**figures, **statistics}))


def _measure(cache: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as out:
        code = "import sys; from bench.demo import child; child(float(sys.argv[1]), sys.argv[2])"
        done = subprocess.run(
            [sys.executable, "-c", code, str(time.time()), out], cwd=ROOT, check=True,
            stdout=subprocess.PIPE, text=True, env={**os.environ, "TREADLE_CACHE_DIR": cache},
        )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def run(options: Options) -> list[Row]:
    """Once with a cold cache and once with the cache that the first run left."""
    with tempfile.TemporaryDirectory() as cache:
        cold, warm = _measure(cache), _measure(cache)
    return [
        Row("start to first training step, cold cache", cold["first"], bound=_FIRST_STEP_BOUND),
        Row("  processor time", cold["first_cpu"], note="what it takes where others are busy"),
        Row("the whole, cold cache", cold["whole"], bound=_WHOLE_BOUND),
        Row("  processor time", cold["whole_cpu"], note="all threads"),
        Row("kernels compiled", cold["compiled"], unit=""),
        Row("time in compiling, all threads", cold["milliseconds"] / 1e3),
        Row("start to first training step, warm cache", warm["first"]),
        Row("the whole, warm cache", warm["whole"]),
        Row("kernels compiled, warm cache", warm["compiled"], unit="", bound=0),
    ]
