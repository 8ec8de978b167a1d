"""The thread pool: what a fork and join costs, how steady short kernels are, and how two busy
processes share the cores."""

from __future__ import annotations

import array
import resource
import subprocess
import sys
import time
from itertools import groupby
from statistics import median

import numpy as np

import treadle
from bench.harness import ROOT, Options, Row
from treadle.runtime import jit, pool

_JOBS = 1000
_TIMINGS = 2000
_SECONDS = 1.5  # of two processes side by side
_LOST = 1.5  # what sharing may cost beyond the share

_SPIN = """define i32 @bench_spin(ptr %args, i64 %begin, i64 %end, i64 %thread) nounwind {
entry:
  %turns = load i64, ptr %args
  %cell = alloca i64
  %units = sub i64 %end, %begin
  %count = mul i64 %units, %turns
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  store volatile i64 %i, ptr %cell
  %old = load volatile i64, ptr %cell
  %next = add i64 %old, 1
  %more = icmp slt i64 %next, %count
  br i1 %more, label %loop, label %done
done:
  ret i32 0
}
"""


def fork_join(rounds: int) -> float:
    """Seconds that a job of one short piece for each thread takes longer than one piece."""
    entry = jit.compile_kernel("bench_spin", _SPIN, lambda: _SPIN)
    threads = treadle.get_num_threads()

    def seconds(units: int) -> float:
        tape = array.array("q", [entry, 1, units, units, 500] * _JOBS)
        begin = time.perf_counter()
        pool.run_tape(tape, _JOBS)
        return (time.perf_counter() - begin) / _JOBS

    return min(seconds(threads) for _ in range(rounds)) - min(seconds(1) for _ in range(rounds))


def _stolen() -> int:
    """What other machines on the same cores took, in the system's ticks."""
    with open("/proc/stat") as file:
        return int(file.readline().split()[8])


def steadiness() -> tuple[float, list[bool]]:
    """The median of many timings of a small product, and which of them took twice as long.

    Timings during which the machine was stolen or somebody else ran are left out.
    """
    a = treadle.from_numpy(np.ones((64, 1000), np.float32))
    b = treadle.from_numpy(np.ones((1000, 100), np.float32))
    timings = []
    stolen, switches = _stolen(), resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    for _ in range(_TIMINGS):
        begin = time.perf_counter()
        (a @ b).numpy()
        seconds = time.perf_counter() - begin
        before = stolen, switches
        stolen, switches = _stolen(), resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        if before == (stolen, switches):
            timings.append(seconds)
    middle = median(timings)
    return middle, [t > 2 * middle for t in timings]


def products() -> int:
    """How many products of 512x512 matrices this process makes from a word on its input on."""
    a = treadle.from_numpy(np.ones((512, 512), np.float32))
    (a @ a).numpy()
    print("ready", flush=True)
    input()
    end = time.perf_counter() + _SECONDS
    count = 0
    while time.perf_counter() < end:
        (a @ a).numpy()
        count += 1
    return count


def _together(processes: int) -> list[float]:
    """Products per second of each of so many processes at once."""
    code = "from bench.threads import products; print(products())"
    pipe = subprocess.PIPE
    running = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        for _ in range(processes)
    ]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [int(process.communicate()[0]) / _SECONDS for process in running]


def run(options: Options) -> list[Row]:
    """Fork and join, steadiness, and sharing."""
    middle, slow = steadiness()
    longest = max((len(list(group)) for is_slow, group in groupby(slow) if is_slow), default=0)
    alone = _together(1)[0]
    shared = min(_together(2))
    return [
        Row("fork and join, hot", fork_join(options.rounds), bound=1e-6),
        Row("64x1000 @ 1000x100", middle, note=f"median of {len(slow):,}"),
        Row("  of 1,000 twice as long", 1000 * sum(slow) / len(slow), unit="", bound=5),
        Row("  in a row", longest, unit="", bound=4),
        Row("512x512 @ 512x512, alone", 1 / alone),
        Row("  the slower of two processes", 1 / shared, limit=2 / alone,
            bound=2 * _LOST / alone, note="1.5 times its share"),
    ]  # fmt: skip
