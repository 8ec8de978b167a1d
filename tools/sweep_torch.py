"""Runs PyTorch's own test tables through Treadle, and writes what came out.

``python -m tools.sweep_torch [--only REGEX] [--samples N] [--fresh] [--out FILE]``: every sample
of ``op_db`` and ``module_db``, forward and gradient, in PyTorch and in Treadle; what PyTorch says
raises must raise. Runs in the environment that ``make sweep-torch`` makes, which has both. Two
processes share the entries; one that dies or hangs costs the sample it was at. What was found is
kept in ``runs/sweep-torch.jsonl``, so that a sweep that was stopped goes on where it was. With
``--only`` the page is not written, and what failed is printed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import queue
import re
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tools.sweep_bits import commit, machine

ROOT = Path(__file__).resolve().parents[1]
STATE = ROOT / "runs" / "sweep-torch.jsonl"
PATIENCE = 90  # seconds that one sample may take
MISTAKES = "errors"  # in place of a dtype: the inputs that must raise
NOTES = 8  # texts kept for each entry and dtype


class Unit(NamedTuple):
    """An entry in one dtype: what a process takes on at a time."""

    entry: str
    dtype: str


# --- in a process of its own ----------------------------------------------------------------------


def serve(channel: Connection, limit: int) -> None:
    """Answers requests (unit, first sample) with outcomes, then None."""
    import treadle
    from tools import torch_cases

    treadle.set_num_threads(1)
    entries = torch_cases.entries()
    channel.send({
        name: (entry.function is not None, entry.is_documented,
               [str(d) for d in entry.dtypes()] if entry.function else [])
        for name, entry in entries.items()
    })  # fmt: skip
    kinds = {str(d): d for d in torch_cases.KINDS}
    while True:
        unit, first = channel.recv()
        entry = entries[unit.entry]
        if unit.dtype == MISTAKES:
            outcomes: Iterator[Any] = map(entry.refuses, entry.mistakes())
        else:
            samples = islice(entry.samples(kinds[unit.dtype]), first, limit or None)
            outcomes = (entry.run(sample, kinds[unit.dtype]) for sample in samples)
        try:
            for outcome in outcomes:
                channel.send(tuple(outcome) if outcome else ())
        except Exception as error:  # PyTorch could not make its own sample
            channel.send(("skipped", f"{type(error).__name__}: {error}"[:200], 0, ()))
        channel.send(None)


class Process:
    """One process that runs units, and is begun again where it dies or hangs."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._begin()

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._channel, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, self._limit), daemon=True)
        self._process.start()
        theirs.close()
        self.found: dict[str, tuple[bool, bool, list[str]]] = self._channel.recv()

    def end(self) -> None:
        """Stops it."""
        self._process.kill()
        self._process.join()

    def run(self, unit: Unit) -> Iterator[Any]:
        """The outcomes of a unit."""
        done = 0
        self._channel.send((unit, 0))
        while True:
            told = None
            try:
                if self._channel.poll(PATIENCE):
                    told = self._channel.recv()
                    if told is None:
                        return
                else:
                    told = ("failed", f"sample {done} took longer than {PATIENCE} s", 0, ())
                    self._restart(unit, done + 1)
            except EOFError:
                told = ("failed", f"sample {done} ended the process", 0, ())
                self._restart(unit, done + 1)
            yield told
            done += 1

    def _restart(self, unit: Unit, first: int) -> None:
        self.end()
        self._begin()
        self._channel.send((unit, first))


# --- going through all ----------------------------------------------------------------------------


def summary(unit: Unit, outcomes: Iterable[Any]) -> dict[str, Any]:
    """A unit's counts and the first texts of what was not right."""
    counts: Counter[str] = Counter()
    notes: list[str] = []
    forms: list[str] = []
    tried, begin = 0, time.monotonic()
    for outcome in outcomes:
        if not outcome:
            continue
        verdict, why, more, wrong = outcome
        counts[verdict] += 1
        tried += more
        counts["forms wrong"] += len(wrong)
        forms += wrong
        if verdict != "passed":
            notes.append(f"{verdict}: {why}")
    counts["forms tried"] = tried
    return {
        "entry": unit.entry, "dtype": unit.dtype, **counts, "notes": notes[:NOTES],
        "forms": forms[:NOTES], "seconds": round(time.monotonic() - begin, 2),
    }  # fmt: skip


class Sweep:
    """All units, those done and those to do."""

    def __init__(self, only: str, limit: int, fresh: bool) -> None:
        self._processes = [Process(limit) for _ in range(2)]
        found = self._processes[0].found
        self.entries = {name: one for name, one in found.items() if re.search(only, name)}
        units = [
            Unit(name, dtype)
            for name, (exists, _, dtypes) in self.entries.items() if exists
            for dtype in (*dtypes, MISTAKES)
        ]  # fmt: skip
        self.rows: list[dict[str, Any]] = []
        self._keep = not (only or limit)
        if self._keep and not fresh and STATE.exists():
            self.rows = [json.loads(line) for line in STATE.read_text().splitlines()]
        elif self._keep:
            STATE.parent.mkdir(exist_ok=True)
            STATE.write_text("")
        done = {(row["entry"], row["dtype"]) for row in self.rows}
        self._queue: queue.SimpleQueue[Unit] = queue.SimpleQueue()
        self._left = [unit for unit in units if unit not in done]
        for unit in self._left:
            self._queue.put(unit)
        self._lock = threading.Lock()

    def _work(self, process: Process, advance: Any) -> None:
        while True:
            try:
                unit = self._queue.get_nowait()
            except queue.Empty:
                return
            row = summary(unit, process.run(unit))
            with self._lock:
                self.rows.append(row)
                if self._keep:
                    with STATE.open("a") as file:
                        file.write(json.dumps(row) + "\n")
            advance()

    def run(self, console: Console) -> None:
        """Runs what is left, with a bar."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                   TimeElapsedColumn())  # fmt: skip
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task("entries, by dtype", total=len(self._left))
            threads = [
                threading.Thread(
                    target=self._work, args=(one, lambda: progress.advance(task)), daemon=True
                )
                for one in self._processes
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        for process in self._processes:
            process.end()

    def finished(self) -> None:
        """The next sweep begins anew."""
        if self._keep:
            STATE.rename(STATE.with_suffix(".done.jsonl"))


# --- the page -------------------------------------------------------------------------------------


class Total(NamedTuple):
    """An entry over all its dtypes."""

    name: str
    passed: int
    failed: int
    refused: int
    raised: int
    mistakes: int
    right_forms: int
    forms: int
    notes: list[str]

    @property
    def share(self) -> float:
        """The part of its samples that passed."""
        return self.passed / max(self.passed + self.failed + self.refused, 1)


def totals(rows: list[dict[str, Any]]) -> list[Total]:
    """The rows of the page."""
    by_entry = defaultdict(list)
    for row in rows:
        by_entry[row["entry"]].append(row)
    found = []
    for name, several in sorted(by_entry.items()):
        samples = [row for row in several if row["dtype"] != MISTAKES]
        mistakes = [row for row in several if row["dtype"] == MISTAKES]
        words = ("passed", "failed", "refused", "forms tried", "forms wrong")
        count = {word: sum(row.get(word, 0) for row in samples) for word in words}
        raised = sum(row.get("passed", 0) for row in mistakes)
        not_raised = sum(row.get("failed", 0) for row in mistakes)
        notes = [f"{row['dtype']}: {note}" for row in samples for note in row["notes"]]
        found.append(Total(
            name, count["passed"], count["failed"], count["refused"], raised, raised + not_raised,
            count["forms tried"] - count["forms wrong"], count["forms tried"], notes,
        ))  # fmt: skip
    return found


def _table(found: list[Total]) -> str:
    lines = [
        "| entry | passed | failed | refused | mistakes raised | other forms |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in found:
        mistakes = f"{one.raised}/{one.mistakes}" if one.mistakes else ""
        forms = f"{one.right_forms}/{one.forms}" if one.forms else ""
        name = one.name.partition(":")[2]
        lines.append(
            f"| {name} | {one.passed} | {one.failed or ''} | {one.refused or ''} "
            f"| {mistakes} | {forms} |"
        )
    return "\n".join(lines)


def _section(title: str, kind: str, sweep: Sweep, found: list[Total]) -> str:
    """One of PyTorch's tables: the totals, what is not whole, what is missing, each entry."""
    entries = {k: v for k, v in sweep.entries.items() if k.startswith(kind)}
    documented = {k for k, (_, is_documented, _) in entries.items() if is_documented}
    there = {k for k in documented if entries[k][0]}
    found = [one for one in found if one.name.startswith(kind)]
    passed, failed, refused = (sum(getattr(x, w) for x in found)
                               for w in ("passed", "failed", "refused"))  # fmt: skip
    raised, mistakes = sum(x.raised for x in found), sum(x.mistakes for x in found)
    right, forms = sum(x.right_forms for x in found), sum(x.forms for x in found)
    low = [x for x in found if x.share < 0.97]
    missing = ", ".join(f"`{k.partition(':')[2]}`" for k in sorted(documented - there)) or "none"
    reasons = "\n".join(
        f"- `{x.name.partition(':')[2]}`: {x.share:.1%}; {x.notes[0] if x.notes else ''}"
        for x in low
    ) or "None."  # fmt: skip
    share = passed / max(passed + failed + refused, 1)
    return f"""## {title}

- Entries: {len(entries)}, of which {len(documented)} are dense and documented; of these
  **{len(there)} ({len(there) / max(len(documented), 1):.1%}) exist here**. Missing: {missing}.
- Samples: **{passed:,} passed ({share:.2%})**, {failed:,} failed, {refused:,} refused.
- Entries of which fewer than 97 % passed: {len(low)} of {len(found)}.
- Mistakes that raise as in PyTorch: {raised} of {mistakes}. Other forms right: {right:,} of
  {forms:,}.

### Below 97 %

{reasons}

### Every entry

{_table(found)}
"""


def report(sweep: Sweep, seconds: float) -> str:
    """The page in Markdown."""
    found = totals(sweep.rows)
    return f"""# PyTorch's samples

Written by `make sweep-torch` on {datetime.date.today()}, commit {commit()}, in
{seconds / 60:.0f} minutes, on {machine()}.

Every sample input of PyTorch's tables `op_db` and `module_db` is run by PyTorch and by Treadle, in
float32, float64, complex64, complex128, int64 and bool where PyTorch takes them. A sample *passed*
where results agree in number, shape, dtype and value and, where PyTorch differentiates, the
gradients of all inputs and parameters agree for the same cotangents. Values may differ by
1e-4 + 1e-4 |x| in single precision, by 1e-7 + 1e-7 |x| in double, by PyTorch's own tolerance of
the entry where that is wider; gradients by ten times as much; integers not at all. Of
random results only number, shape and dtype are compared. It was *refused* where Treadle raised an
error of its own and *failed* otherwise. *Mistakes* are inputs that PyTorch says must raise; *other
forms* are the method, in place and with `out=`.

An entry is *dense and documented* where no part of its name begins with an underscore, it is not of
sparse tensors, and its name is a function or method of PyTorch with a docstring.

{_section("Functions: op_db", "Entry:", sweep, found)}
{_section("Modules: module_db", "ModuleEntry:", sweep, found)}"""


def tell(sweep: Sweep, console: Console) -> None:
    """What was not right, for whoever mends it."""
    found = {x.name: x for x in totals(sweep.rows)}
    for name, one in found.items():
        texts: dict[str, list[str]] = defaultdict(list)
        for row in sweep.rows:
            if row["entry"] == name:
                for note in [*row["notes"], *row["forms"]]:
                    kind = row["dtype"].removeprefix("torch.")
                    texts[note.partition(" | ")[0].replace(kind, "*")].append(f"{kind} | {note}")
        if texts:
            console.print(
                f"{name}: passed {one.passed}, failed {one.failed}, refused {one.refused}, "
                f"mistakes {one.raised}/{one.mistakes}, forms {one.right_forms}/{one.forms}",
                markup=False, soft_wrap=True,
            )  # fmt: skip
        for several in texts.values():
            console.print(f"    {len(several)}: {several[0]}", markup=False, soft_wrap=True)
    low = [x.name for x in found.values() if x.share < 0.97]
    console.print(f"below 97 %: {low}", markup=False, soft_wrap=True)


def main() -> int:
    """Runs the sweep and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default="", help="entries whose name has this regular expression")
    parser.add_argument("--samples", type=int, default=0, help="of an entry and dtype (0: all)")
    parser.add_argument("--fresh", action="store_true", help="forget a sweep that was stopped")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "sweep-torch.md")
    options = parser.parse_args()
    console, begin = Console(highlight=False), time.monotonic()
    sweep = Sweep(options.only, options.samples, options.fresh)
    sweep.run(console)
    if options.only or options.samples:
        tell(sweep, console)
        return 0
    options.out.write_text(report(sweep, time.monotonic() - begin))
    sweep.finished()
    found = totals(sweep.rows)
    low = sum(x.share < 0.97 for x in found)
    print(f"{sum(x.passed for x in found):,} samples passed, {low} entries below 97 %; "
          f"see {options.out}")  # fmt: skip
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main())
