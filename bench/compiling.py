"""What a kernel costs to compile and to load from the cache, in a process of its own each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from statistics import median

from bench.harness import ROOT, Options, Row

_MEDIAN, _MOST, _LOAD, _KERNELS = 0.030, 0.150, 0.001, 60


def child() -> None:
    """Prints (name, seconds of the thread) of every kernel that a training step of LeNet needs."""
    from bench.step import _Training
    from treadle.base.flags import flags
    from treadle.ir.launch import KernelSpec
    from treadle.runtime.cpu import CPU

    compile_one, figures = CPU.compile, []

    def timed(self: CPU, spec: KernelSpec) -> int:
        is_known = self.has_kernel(spec)
        begin = time.thread_time()
        entry = compile_one(self, spec)
        if not is_known:
            figures.append((spec.build.__name__, time.thread_time() - begin))
        return entry

    setattr(CPU, "compile", timed)  # noqa: B010  # a method, so that mypy is content
    flags.PROGRAMS = "off"
    _Training().step()
    print(json.dumps(figures))


def _kernels(cache: str) -> list[tuple[str, float]]:
    done = subprocess.run(
        [sys.executable, "-c", "from bench.compiling import child; child()"],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TREADLE_CACHE_DIR": cache},
    )  # fmt: skip
    return [(name, seconds) for name, seconds in json.loads(done.stdout.splitlines()[-1])]


def run(options: Options) -> list[Row]:
    """Once with a cold cache and once with what the first run left there."""
    with tempfile.TemporaryDirectory() as cache:
        cold, warm = _kernels(cache), _kernels(cache)
    slowest, most = max(cold, key=lambda kernel: kernel[1])
    # The first kernel also pays for loading LLVM.
    loads = sorted(seconds for _, seconds in warm)[:-1]
    return [
        Row("compiling a kernel, median", median(s for _, s in cold), bound=_MEDIAN,
            note="processor time of the thread, from the plan's request to the address"),
        Row("compiling a kernel, the slowest", most, bound=_MOST, note=slowest),
        Row("loading a cached kernel, median", median(loads), bound=_LOAD),
        Row("loading a cached kernel, the slowest", max(loads)),
        Row("kernels of a training step of LeNet", len(cold), unit="", bound=_KERNELS),
    ]  # fmt: skip
