"""Runs all clauses of the law of bits over many subjects, and writes what came out.

``python -m tools.sweep_bits [--quick] [--seeds N] [--first K] [--only PART] [--out FILE]``: the op
table in every dtype, the trainings and N random programs, each in every way that must give the same
bits: threads, cold and warm cache, generic and fused kernels, widths of vectors, emulated FMA,
drawn tiles and cuts, layouts, rows of batches, moments of evaluation and of the swap of fused
programs; thousands of small random graphs, the models of ``bench/models`` and the scenarios as
programs, with the memory that these take; and elementwise functions against the loop IR's
interpreter. Programs run under ``TREADLE_CHECK=shadow``. FILE gets date, commit and counts. Ends
with exit code 1 where any bit differed.
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
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import treadle
from bench.models.catalog import PROGRAMS as MODELS
from bench.models.catalog import make
from bench.models.draws import Draws
from treadle.base import dtypes
from treadle.runtime import jit, object_code
from treadle.testing import definitions, laws
from treadle.testing.growth import growth
from treadle.testing.laws import Comparison, Elsewhere, Subject, Verdict, Way
from treadle.testing.programs import Run
from treadle.testing.rows import row_cases
from treadle.testing.scenarios import SCENARIOS

ROOT = Path(__file__).resolve().parents[1]
_CHUNK = 50  # subjects whose results are held at a time


class Size(NamedTuple):
    """How much is run."""

    programs: int
    every_dtype: bool
    schedules: int  # drawn tiles and cuts of each subject
    operands: int  # of an elementwise function
    fmas: int
    elsewhere: int  # programs that other processes run
    graphs: int  # small random ones
    steps: int  # of a training
    memory: int  # steps over which memory stays flat


FULL = Size(programs=300, every_dtype=True, schedules=3, operands=300, fmas=1_000_000,
            elsewhere=40, graphs=20_000, steps=100, memory=10_000)  # fmt: skip
QUICK = Size(programs=20, every_dtype=False, schedules=1, operands=30, fmas=1000, elsewhere=3,
             graphs=100, steps=10, memory=1000)  # fmt: skip


class Part(NamedTuple):
    """Some comparisons, how many there are, and what to call them on the way."""

    title: str
    total: int
    verdicts: Iterable[Verdict]


def in_this_process(title: str, subjects: list[Subject], schedules: range) -> Iterator[Part]:
    """Every way of some subjects."""
    compared = Comparison(subjects)
    for way in [*laws.all_ways(schedules), Way("layouts", "wait", place="expanded")]:
        yield Part(f"{title}: {way.clause}, {way.name}", len(subjects), compared.way(way))


def in_other_processes(subjects: list[Subject]) -> Iterator[Part]:
    """Caches, widths of vectors and a processor without FMA."""
    compared = Comparison(subjects)
    with tempfile.TemporaryDirectory() as folder:
        for kind, (clause, differing) in laws.ELSEWHERE.items():
            if clause == "emulated FMA" and not definitions.has_fma():
                continue
            # A cold cache is one of its own; the other processes may share theirs.
            name = differing["programs"] if clause == "cache" else "shared"
            process = Elsewhere(kind, subjects, os.path.join(folder, name))
            yield Part(f"processes: {kind}", len(subjects), process.verdicts(compared))


def definitions_of(size: Size) -> Iterator[Part]:
    """The interpreter, wide vectors in it, FMA without the instruction, rows of batches."""
    cases = list(definitions.elementwise_cases())
    yield Part("elementwise against the interpreter", len(cases), (
        Verdict("elementwise = interpreter", case.name, case.difference(size.operands))
        for case in cases
    ))  # fmt: skip
    cases = list(definitions.contraction_cases())[:: 1 if size.every_dtype else 8]
    yield Part("contractions for 512 bits in the interpreter", len(cases), (
        Verdict("vectors", f"{case.name}, interpreted", definitions.wide_difference(case))
        for case in cases
    ))  # fmt: skip
    if definitions.has_fma():
        kinds = (dtypes.float32, dtypes.float64)
        yield Part("emulated FMA", size.fmas * len(kinds), (
            Verdict("emulated FMA", f"{kind.name}, seed {seed}",
                    definitions.fma_difference(kind, 1000, seed))
            for kind in kinds for seed in range(size.fmas // 1000)
        ))  # fmt: skip
    rows = list(row_cases())
    yield Part("rows of batches", len(rows), (
        Verdict("rows of batches", f"{row.name}, {dtype.name}", row.check(dtype))
        for row, dtype in rows
    ))  # fmt: skip


def _run_model(name: str, steps: int) -> Run:
    """A program of ``bench/models`` in its small form: what its steps tell, and its weights."""
    treadle.manual_seed(0)
    model = make(name, Draws(), is_reduced=True)
    told = [np.array(model.step(i)) for i in range(steps)]
    net = getattr(model, "net", None)
    state = {} if net is None else net.state_dict()
    labels = [f"step {i}" for i in range(steps)] + list(state)
    return Run(labels, told + [x.numpy(force=True).copy() for x in state.values()])


def models(steps: int) -> list[Subject]:
    """Every program of ``bench/models``."""
    return [
        Subject(f"model {name}", partial(lambda name, b, place: _run_model(name, steps), name), 1)
        for name in MODELS
    ]


def as_programs(size: Size, seed: int) -> Iterator[Part]:
    """Long runs whose graphs come again and again: models, trainings, scenarios; their memory."""
    swaps = range(4 * size.schedules)
    ways = [
        Way("generic and fused", "wait", policy="all"),
        *(Way("moments of the swap", "beside", 1 + n % 2, "all", swap=seed + n) for n in swaps),
        *(Way("moments of evaluation", "beside", policy=p) for p in ("some", "reads")),
    ]
    for title, subjects in (
        ("models", models(size.steps)),
        ("trainings", laws.trainings(size.steps)),
        ("scenarios", laws.scenarios()),
    ):
        compared = Comparison(subjects)
        for way in ways:
            yield Part(f"{title}: {way.clause}, {way.name}", len(subjects), compared.way(way))
    for name in SCENARIOS:
        yield Part(f"memory: {name}", 1, (
            Verdict("memory", f"{name}, {size.memory} steps", growth(name, size.memory).excess())
            for _ in range(1)
        ))  # fmt: skip


def small_graphs(size: Size, first: int) -> Iterator[Part]:
    """Thousands of them, by all cores."""
    names = [one.name for one in laws.graphs(range(first, first + size.graphs))]
    for clause, way in (
        ("generic and fused", {"programs": "wait"}),
        ("moments of the swap", {"programs": "beside", "swap": first}),
    ):
        yield Part(f"graphs: {clause}", len(names), laws.shared_out(names, clause, **way))


PARTS = ("definitions", "processes", "trainings", "ops", "programs", "graphs", "repeated")


def parts(size: Size, seeds: range, only: str | None) -> Iterator[Part]:
    """All that is compared, or one of PARTS."""
    makers = {
        "definitions": lambda: definitions_of(size),
        "graphs": lambda: small_graphs(size, seeds.start),
        "repeated": lambda: as_programs(size, seeds.start),
    }
    for name in PARTS:
        if only in (None, name):
            maker = makers.get(name)
            yield from maker() if maker else in_all_ways(name, size, seeds)


def in_all_ways(kind: str, size: Size, seeds: range) -> Iterator[Part]:
    """Ops, trainings or random programs in every way of this process, or of others."""
    ops = laws.op_samples(size.every_dtype)
    if kind == "processes":
        few = laws.programs(seeds[: size.elsewhere])
        yield from in_other_processes([*laws.trainings(), *few, *ops])
    elif kind == "trainings":
        yield from in_this_process("trainings", laws.trainings(), range(4 * size.schedules))
    elif kind == "ops":
        for start in range(0, len(ops), _CHUNK):
            drawn = range(start, start + size.schedules)
            title = f"ops {start} to {min(start + _CHUNK, len(ops)) - 1} of {len(ops)}"
            yield from in_this_process(title, ops[start : start + _CHUNK], drawn)
    else:
        for start in range(seeds.start, seeds.stop, _CHUNK):
            chunk = range(start, min(start + _CHUNK, seeds.stop))
            title = f"programs {chunk.start} to {chunk.stop - 1}"
            drawn = range(start, start + size.schedules)
            yield from in_this_process(title, laws.programs(chunk), drawn)


class Sweep:
    """Counts comparisons by clause, and keeps what differed."""

    def __init__(self) -> None:
        self.compared: Counter[str] = Counter()
        self.failures: list[str] = []

    def run(self, found: Iterable[Part], console: Console) -> None:
        """Goes through all parts with a bar on a terminal, and a line for each part elsewhere."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                   TimeElapsedColumn())  # fmt: skip
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            for part in found:
                begin = time.monotonic()
                task = progress.add_task(part.title, total=part.total)
                for verdict in part.verdicts:
                    self._count(verdict, console)
                    progress.advance(task)
                progress.remove_task(task)
                if not console.is_terminal:
                    console.print(f"{part.title}: {time.monotonic() - begin:.1f} s", soft_wrap=True)

    def _count(self, verdict: Verdict, console: Console) -> None:
        self.compared[verdict.clause] += 1
        if verdict.difference:
            self.failures.append(f"{verdict.clause}: {verdict.case}: {verdict.difference}")
            console.print(self.failures[-1], style="red", markup=False, soft_wrap=True)


def commit() -> str:
    """What git calls the tree."""
    try:
        name = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            capture_output=True, text=True, check=True, cwd=ROOT,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.stdout.strip()


def machine() -> str:
    """The processor, and what code is made for it."""
    target = object_code.native()
    known = ("avx", "avx2", "fma", "f16c", "avx512f", "avx512bf16", "neon", "sve")
    has = [name for name in known if f"+{name}" in target.features.split(",")]
    return (
        f"{target.cpu} ({platform.machine()}, {', '.join(has) or 'no vector extensions'}; "
        f"{os.cpu_count()} cores), code for {jit.host_target().vector_bits} bits"
    )


def report(sweep: Sweep, size: Size, seeds: range, seconds: float, only: str | None) -> str:
    """The page in Markdown."""
    part = f"**Only the part {only!r} was run.** " if only else ""
    rows = "\n".join(f"| {clause} | {n:,} |" for clause, n in sorted(sweep.compared.items()))
    failures = "\n".join(f"- {text}" for text in sweep.failures) or "None."
    wide = (
        "" if object_code.native().vector_bits >= 512 else
        "This machine has no vectors of 512 bits: code for them ran in halves, and in the "
        "interpreter.\n\n"
    )  # fmt: skip
    dtypes_of_ops = "every dtype" if size.every_dtype else "one dtype each"
    return f"""# Bits: the same however a program runs

Written by `make sweep-bits` on {datetime.date.today()}, commit {commit()}, Treadle
{treadle.__version__}, in {seconds / 60:.0f} minutes, on {machine()}.

A comparison is one subject run in one way against its plainest run: operation by operation, one
thread, evaluated at the end. {part}Subjects are

- the op table ({dtypes_of_ops}) and the trainings (LeNet, GPT, LSTM);
- the random programs of seeds {seeds.start} to {seeds.stop - 1} and {size.graphs:,} small ones,
  forward and backward, every fourth to second order;
- as programs, with the swap to fused ones at drawn moments: the {len(MODELS)} models of
  `bench/models` in their small forms and the trainings over {size.steps} steps, and
  {len(SCENARIOS)} scenarios of what changes between steps.

Programs run under `TREADLE_CHECK=shadow`. A comparison of memory is {size.memory:,} steps of a
scenario, with the size of the process; one of emulated FMA is 1,000 operands, of a function with
the interpreter {size.operands}. What may run as a program is run three times.

{wide}| clause | comparisons |
| --- | ---: |
{rows}

## Differences

{failures}
"""


def main() -> int:
    """Runs the sweep and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="few subjects: some minutes")
    parser.add_argument("--seeds", type=int, help="how many programs")
    parser.add_argument("--first", type=int, default=1000, help="the first seed")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "sweep-bits.md")
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    count = size.programs if options.seeds is None else options.seeds
    seeds = range(options.first, options.first + count)
    console, sweep, begin = Console(highlight=False), Sweep(), time.monotonic()
    sweep.run(parts(size, seeds, options.only), console)
    options.out.write_text(report(sweep, size, seeds, time.monotonic() - begin, options.only))
    total = sum(sweep.compared.values())
    print(f"{total:,} comparisons, {len(sweep.failures)} differences; see {options.out}")
    return 1 if sweep.failures else 0


if __name__ == "__main__":
    sys.exit(main())
