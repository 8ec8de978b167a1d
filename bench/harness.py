"""What all benchmarks share: rows and tables, alternating rounds, PyTorch in its own process."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

import treadle
from treadle.runtime import jit

ROOT = Path(__file__).resolve().parents[1]
_PIPED_WIDTH = 150


@dataclass(frozen=True)
class Row:
    """One figure. ``limit`` is what the machine allows, ``bound`` what the figure may be at most;
    ``unit`` is "s", "MB", "ratio", "relative" (a difference) or "" for a count."""

    what: str
    treadle: float
    torch: float | None = None
    unit: str = "s"
    limit: float | None = None
    bound: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the bound is met (None where there is none)."""
        return None if self.bound is None else self.treadle <= self.bound


class Options(NamedTuple):
    """What the command line said."""

    rounds: int
    torch: Peer
    jax: Peer
    onednn: Peer
    models: ModelOptions
    functions: FunctionOptions


class FunctionOptions(NamedTuple):
    """What it said of functions."""

    sizes: tuple[int, ...] = ()  # all where it names none
    only: str = ""  # those with this in their name


class ModelOptions(NamedTuple):
    """What it said of whole models."""

    only: tuple[str, ...] = ()  # programs; all where there is none
    is_check: bool = False
    is_alone: bool = False  # one thread, and its CPU time
    profile: str = ""  # the program whose time is to be split
    beside: tuple[str, ...] = ()  # peers; all that are there where it names none
    nets: tuple[str, ...] = ()  # of the inferences; all where there is none
    onnx: str = ""  # an interpreter that has ONNX Runtime and can export from PyTorch


# --- peers ------------------------------------------------------------------------------------


def find_torch(interpreter: str) -> str:
    """The interpreter to run PyTorch with: the one named, or this one if it has it, or none."""
    if interpreter:
        return interpreter
    return sys.executable if find_spec("torch") else ""


class Peer:
    """A library in a process of its own: it computes when it is asked, or else sleeps.

    ``module`` is what it runs (by default the file of this folder that is called after it), with
    the environment's ``variables`` set.
    """

    def __init__(
        self, name: str, interpreter: str, module: str = "",
        variables: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.interpreter = interpreter
        self.version = ""
        self._process: subprocess.Popen[str] | None = None
        if interpreter:
            worker = str(Path(__file__).with_name(f"{name.lower()}_worker.py"))
            run = ["-m", module] if module else [worker]
            self._process = subprocess.Popen(
                [interpreter, "-u", *run, str(treadle.get_num_threads())],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                cwd=ROOT if module else None, env={**os.environ, **(variables or {})},
            )  # fmt: skip
            self.version = self.ask("version")

    def __bool__(self) -> bool:
        return self._process is not None

    def ask(self, task: str, **arguments: Any) -> Any:
        """The worker's answer to one request."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise RuntimeError(f"{self.name} was asked, but no interpreter that has it is named")
        process.stdin.write(json.dumps({"task": task, **arguments}) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self.name} ended at {task}; its error is above")
        return json.loads(line)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def environment(torch: Peer) -> dict[str, Any]:
    """The machine and the versions, with a line that says them."""
    target = jit.host_target()
    facts: dict[str, Any] = {
        "cpu": target.cpu, "vector_bits": target.vector_bits, "python": platform.python_version(),
        "threads": treadle.get_num_threads(), "treadle": treadle.__version__,
        "torch": torch.version, "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }  # fmt: skip
    beside = f"beside PyTorch {torch.version}" if torch else (
        "without PyTorch, which is not here (--torch PYTHON names an interpreter that has it)"
    )  # fmt: skip
    load = "" if facts["load"] is None else f", load {facts['load']:.1f} at the start"
    facts["text"] = (
        f"Treadle {facts['treadle']} on {facts['cpu']}, {facts['vector_bits']} bits, "
        f"{facts['threads']} threads, Python {facts['python']}{load}; {beside}."
    )
    return facts


# --- rounds -----------------------------------------------------------------------------------


def medians(samples: Iterable[dict[str, float]]) -> dict[str, float]:
    """The median of every part over all rounds."""
    rounds = list(samples)
    return {name: median(r[name] for r in rounds) for name in rounds[0]} if rounds else {}


def alternate(
    rounds: int, ours: Callable[[], dict[str, float]], theirs: Callable[[], dict[str, float]] | None
) -> tuple[dict[str, float], dict[str, float]]:
    """Medians of both over ``rounds``, one round of each in turn, after one to warm up."""
    found = in_turn(rounds, [ours, *([theirs] if theirs else [])])
    return found[0], found[1] if theirs else {}


def in_turn(
    rounds: int, measures: Sequence[Callable[[], dict[str, float]]]
) -> list[dict[str, float]]:
    """Medians of each over ``rounds``, one round of each in turn, after one to warm up."""
    for measure in measures:
        measure()
    samples = [[measure() for measure in measures] for _ in range(rounds)]
    return [medians(column) for column in zip(*samples, strict=True)]


# --- tables -----------------------------------------------------------------------------------


def show(value: float | None, unit: str) -> str:
    """The figure with its unit, three digits or so."""
    if value is None:
        return ""
    if unit == "s":
        for factor, name in ((1.0, "s"), (1e3, "ms"), (1e6, "us")):
            if abs(value) * factor >= 1 or name == "us":
                return f"{value * factor:.3g} {name}" if value * factor < 1e3 else f"{value:.0f} s"
    if unit == "ratio":
        return f"{value:.2f}"
    if unit == "relative":
        return f"{value:.1e}"
    return f"{value:,.2f} MB" if unit == "MB" else f"{value:,.0f}"


def print_table(title: str, rows: list[Row]) -> None:
    """A table of rows; columns that no row uses are left out."""
    cells: dict[str, list[str]] = {
        "": [r.what for r in rows],
        "Treadle": [show(r.treadle, r.unit) for r in rows],
        "PyTorch": [show(r.torch, r.unit) for r in rows],
        "times PyTorch": [f"{r.treadle / r.torch:.2f}" if r.torch else "" for r in rows],
        "limit": [show(r.limit, r.unit) for r in rows],
        "of limit": [f"{r.limit / r.treadle:.0%}" if r.limit else "" for r in rows],
        "bound": [show(r.bound, r.unit) for r in rows],
        "met": ["" if r.met is None else "met" if r.met else "NOT MET" for r in rows],
        "note": [r.note for r in rows],
    }
    table = Table(title=title, title_justify="left", box=box.SIMPLE, title_style="bold")
    used = {name: column for name, column in cells.items() if any(column)}
    for name in used:
        table.add_column(name, justify="left" if name in ("", "met", "note") else "right")
    for line in zip(*used.values(), strict=True):
        style = "bold red" if "NOT MET" in line else ""
        table.add_row(*line, style=style)
    piped = not sys.stdout.isatty()
    Console(highlight=False, width=_PIPED_WIDTH if piped else None).print(table)
