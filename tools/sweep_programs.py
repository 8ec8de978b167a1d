"""Runs the programs of ``tests/programs/corpus`` on Treadle and PyTorch and writes a page.

``make sweep-programs TORCH=/path/to/python`` compares what each of the first hundred steps tells,
all random numbers given, and then the time of a step, one framework in turn with the other.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from contextlib import ExitStack
from math import exp, log
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

import treadle
from bench.harness import ROOT, Peer, environment, find_torch, show
from tools import program_corpus as corpus
from treadle.base.flags import flags

_WARM_SECONDS = 1.0
_WARM_STEPS = 10
_ROUND_SECONDS = 0.2
_ROUNDS = 7
_STOCK = {"BENCH_FRAMEWORK": "torch", "KINETO_LOG_LEVEL": "9", "TORCH_CPP_LOG_LEVEL": "ERROR"}


class Numbers(NamedTuple):
    """What the steps told, ours beside PyTorch's."""

    share: float  # of the bound, where it is largest
    step: int  # there
    ours: np.ndarray
    theirs: np.ndarray

    @property
    def is_right(self) -> bool:
        """Whether every step is within its bound and the program learnt."""
        return self.share <= 1 and corpus.falls(self.ours)


class Times(NamedTuple):
    """Seconds, of ours and of PyTorch's."""

    first: tuple[float, float]  # the first steps, with all compiling
    step: tuple[float, float]  # later


def numbers(name: str, ours: Peer, theirs: Peer) -> Numbers:
    """Compares the steps of a program."""
    a, b = (np.array(peer.ask("told", program=name)) for peer in (ours, theirs))
    exact = np.array(theirs.ask("told", program=name, is_wide=True))
    shares = corpus.excess(a, b, exact)
    step = int(shares.argmax())
    return Numbers(float(shares[step]), step + 1, a, b)


def times(name: str, peers: tuple[Peer, Peer]) -> Times:
    """Alone up to the steady state, then in turn."""
    first = [peer.ask("first", program=name) for peer in peers]
    steps = []
    for peer in peers:
        warm = peer.ask("warm", seconds=_WARM_SECONDS, least=_WARM_STEPS)
        steps.append(max(1, round(_ROUND_SECONDS / median(warm))))
    samples: list[list[float]] = [[], []]
    for _ in range(_ROUNDS):
        for found, peer, count in zip(samples, peers, steps, strict=True):
            found.append(peer.ask("round", steps=count))
    return Times((first[0], first[1]), (median(samples[0]), median(samples[1])))


def _told(numbers: np.ndarray) -> str:
    return ", ".join(f"{x:.4g}" for x in numbers)


def _row(name: str, found: Numbers, took: Times | None) -> str:
    verdict = "yes" if found.is_right else "**NO**"
    cells = [
        name, verdict, f"{found.share:.3f} at {found.step}",
        f"{_told(found.ours[0])} → {_told(found.ours[-1])}",
    ]  # fmt: skip
    if took is not None:
        cells += [show(x, "s") for x in (*took.first, *took.step)]
        cells.append(f"{took.step[1] / took.step[0]:.2f}")
    return f"| {' | '.join(cells)} |"


def report(results: dict[str, tuple[Numbers, Times | None]], facts: str, is_alone: bool) -> str:
    """The page in Markdown."""
    right = sum(found.is_right for found, _ in results.values())
    ratios = [took.step[1] / took.step[0] for _, took in results.values() if took is not None]
    heads = ["program", "right", "of the bound, at step", "first → last"]
    speed = ""
    if ratios:
        heads += ["100 steps", "PyTorch", "a step", "PyTorch", "times as fast"]
        mean = exp(sum(map(log, ratios)) / len(ratios))
        speed = (
            f"A step takes {'CPU time of one thread' if is_alone else 'time by the clock'}, median "
            f"of {_ROUNDS} rounds in turn; the first {corpus.STEPS} steps are those of a fresh "
            f"process, with all compiling that the cache on disk did not save. Treadle is "
            f"{mean:.2f} times as fast as PyTorch (geometric mean), and slower in "
            f"{sum(r < 1 for r in ratios)} of {len(ratios)}.\n\n"
        )
    rows = "\n".join(_row(name, *result) for name, result in results.items())
    return f"""# Whole programs beside PyTorch

Written by `make sweep-programs` on {datetime.date.today()}. {facts}

The programs of `tests/programs/corpus` are written for PyTorch and run here with the word `torch`
replaced by `treadle`. Weights, noise, masks and shuffles come from one NumPy generator. At each of
the first {corpus.STEPS} steps what the program tells must differ from PyTorch by at most
{corpus.RELATIVE:g} of it, or {corpus.TIMES:g} times what PyTorch itself has differed by so far
between float32 and float64; and the loss must fall by a tenth. {right} of {len(results)} do both.

{speed}| {" | ".join(heads)} |
|{" --- |" * 4}{" ---: |" * (len(heads) - 4)}
{rows}
"""


def sweep(names: list[str], torch: str, is_alone: bool, is_timed: bool) -> tuple[str, bool]:
    """Runs the programs; the page, and whether all was right."""
    results: dict[str, tuple[Numbers, Times | None]] = {}
    variables = {"BENCH_CPU_TIME": "1"} if is_alone else {}
    facts = ""
    for name in names:
        with ExitStack() as stack:
            ours, theirs = (
                stack.enter_context(Peer(label, python, "tools.program_worker", environ))
                for label, python, environ in (
                    ("Treadle", sys.executable, variables),
                    ("PyTorch", torch, {**_STOCK, **variables}),
                )
            )
            facts = facts or environment(theirs)["text"]
            took = times(name, (ours, theirs)) if is_timed else None
            results[name] = numbers(name, ours, theirs), took
        print(_row(name, *results[name]), flush=True)
    return report(results, facts, is_alone), all(found.is_right for found, _ in results.values())


def main() -> int:
    """Runs the sweep and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--torch", default="", help="a Python that has PyTorch")
    parser.add_argument("--only", nargs="+", choices=corpus.NAMES, help="these programs")
    parser.add_argument("--alone", action="store_true", help="one thread, and its CPU time")
    parser.add_argument("--no-times", action="store_true", help="only what the steps tell")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "sweep-programs.md")
    options = parser.parse_args()
    torch = find_torch(options.torch)
    if not torch:
        parser.error("this Python has no PyTorch; name one that has it: --torch /path/to/python")
    with flags.context(num_threads=1 if options.alone else treadle.get_num_threads()):
        page, is_right = sweep(
            options.only or list(corpus.NAMES), torch, options.alone, not options.no_times
        )
    options.out.write_text(page)
    print(f"see {options.out}")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
