"""Runs many random programs in every way that must give the same bits, and writes what came out.

``python -m tools.sweep_bits [--seeds N] [--first K] [--out FILE]`` runs each program evaluated at
the end, after every operation, at random points and after random numbers of operations, with one
to three threads (every launch cut for all of them) and with inputs in other layouts; then in fresh
processes with a cold and a warm kernel cache, at 128 bits and at the machine's width. FILE gets
date, commit and counts. Ends with exit code 1 where any bit differed.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import treadle
from treadle.compiler import prepare, tier0
from treadle.runtime import jit
from treadle.testing.networks import NETWORKS
from treadle.testing.programs import (
    Run,
    evaluated,
    fingerprint,
    first_difference,
    run_program,
    run_training,
)

ROOT = Path(__file__).resolve().parents[1]
_PROCESS = """
import sys
from treadle.testing.networks import NETWORKS
from treadle.testing.programs import fingerprint, run_program, run_training
first, count = int(sys.argv[1]), int(sys.argv[2])
programs = map(run_program, range(first, first + count))
print(fingerprint([*programs, *(run_training(name=n) for n in NETWORKS)]))
"""


class Sweep:
    """Counts comparisons by what was varied, and keeps what differed."""

    def __init__(self) -> None:
        self.compared: Counter[str] = Counter()
        self.failures: list[str] = []

    def check(self, kind: str, name: str, difference: str) -> None:
        """Counts one comparison; ``difference`` is empty where there was none."""
        self.compared[kind] += 1
        if difference:
            self.failures.append(f"{kind}, {name}: {difference}")
            print(self.failures[-1], file=sys.stderr, flush=True)

    def programs(self, seeds: range) -> dict[int, Run]:
        """Moments of evaluation; returns the runs that all others are compared with."""
        expected = {}
        for seed in seeds:
            with evaluated("end") as barrier:
                expected[seed] = run_program(seed, barrier)
            for policy in ("each", "some", "reads"):
                with evaluated(policy, seed) as barrier:
                    run = run_program(seed, barrier)
                self.check(f"evaluated: {policy}", f"seed {seed}",
                           first_difference(expected[seed], run))  # fmt: skip
        return expected

    def layouts_and_threads(self, expected: dict[int, Run]) -> None:
        """Other layouts of the inputs, and numbers of threads."""
        for seed, run in expected.items():
            difference = first_difference(run, run_program(seed, strided=True))
            self.check("strided inputs", f"seed {seed}", difference)
        prepare.PARALLEL_WORK = 1
        for threads in (1, 2, 3):
            tier0.forget_plans()
            treadle.set_num_threads(threads)
            for seed, run in expected.items():
                difference = first_difference(run, run_program(seed))
                self.check(f"threads: {threads}", f"seed {seed}", difference)

    def processes(self, expected: dict[int, Run], count: int) -> None:
        """Fresh processes: cold cache, warm cache, narrow vectors."""
        first = min(expected)
        runs = [expected[seed] for seed in range(first, first + count)]
        here = fingerprint([*runs, *(run_training(name=name) for name in NETWORKS)])
        with tempfile.TemporaryDirectory() as folder:
            for kind, variables in (
                ("cold cache", {}),
                ("warm cache", {}),
                ("vectors of 128 bits", {"TREADLE_VECTOR_BITS": "128"}),
            ):
                there = _fingerprint_elsewhere(first, count, folder, variables)
                difference = "" if there == here else f"{there} instead of {here}"
                self.check(kind, f"{count} programs and {len(NETWORKS)} trainings", difference)


def _fingerprint_elsewhere(first: int, count: int, cache: str, variables: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _PROCESS, str(first), str(count)],
        env={**os.environ, "TREADLE_CACHE_DIR": cache, **variables},
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    return done.stdout.strip()


def _commit() -> str:
    try:
        name = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            capture_output=True, text=True, check=True, cwd=ROOT,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.stdout.strip()


def report(sweep: Sweep, seeds: range, seconds: float) -> str:
    """The page in Markdown."""
    target = jit.host_target()
    rows = "\n".join(f"| {kind} | {count:,} |" for kind, count in sweep.compared.items())
    failures = "\n".join(f"- {text}" for text in sweep.failures) or "None."
    return f"""# Bits: the same however a program runs

Written by `make sweep-bits` on {datetime.date.today()}, commit {_commit()}, Treadle
{treadle.__version__} on {target.cpu} ({platform.machine()}, {target.vector_bits} bits), in
{seconds:.0f} s. Random programs of seeds {seeds.start} to {seeds.stop - 1}, forward and backward,
every fourth to second order, each compared with its run on the default number of threads and
evaluated at the end.

| varied | comparisons |
| --- | ---: |
{rows}

## Differences

{failures}
"""


def main() -> int:
    """Runs the sweep and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=1000, help="how many programs")
    parser.add_argument("--first", type=int, default=1000, help="the first seed")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "sweep-bits.md")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    sweep = Sweep()
    begin = time.monotonic()
    expected = sweep.programs(seeds)
    sweep.processes(expected, min(options.seeds, 20))
    sweep.layouts_and_threads(expected)
    options.out.write_text(report(sweep, seeds, time.monotonic() - begin))
    total = sum(sweep.compared.values())
    print(f"{total:,} comparisons, {len(sweep.failures)} differences; see {options.out}")
    return 1 if sweep.failures else 0


if __name__ == "__main__":
    sys.exit(main())
