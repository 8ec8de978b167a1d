"""``treadle cache``: kernels and programs on disk: what is there, compiling ahead, clearing."""

from __future__ import annotations

import dataclasses
import importlib
import os
import runpy
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from treadle.base.flags import flags
from treadle.ir.op import Op
from treadle.runtime import kernel_cache

_MEGABYTE = 1 << 20
_CALLS = 3  # of a function: what repeats is compiled as a whole when it comes again
Task = tuple[str, Callable[[], object]]


def show() -> int:
    """Prints kernels and programs by name, those used last first; returns the exit status."""
    console = Console(highlight=False)
    entries = _entries()
    groups: dict[str, list[kernel_cache.Entry]] = {}
    for entry in reversed(entries):
        groups.setdefault(entry.name() or "(of another version)", []).append(entry)
    table = Table(box=box.SIMPLE)
    table.add_column("kernel", overflow="fold")
    for title in ("variants", "size", "last used"):
        table.add_column(title, justify="right")
    for name, found in groups.items():
        size = sum(entry.nbytes for entry in found)
        table.add_row(name, str(len(found)), f"{size / 1024:.1f} kB", _ago(found[0].used))
    if entries:
        console.print(table)
    console.print(_summary(entries), markup=False, soft_wrap=True)
    return 0


def clear() -> int:
    """Removes all that is there; returns the exit status."""
    console = Console(highlight=False)
    try:
        removed = kernel_cache.clear()
    except OSError as error:
        Console(stderr=True, highlight=False).print(
            f"Error: cannot clear the kernel cache: {error}", markup=False, soft_wrap=True
        )
        return 1
    console.print(f"{_counted(removed)} removed from {kernel_cache.folder()}",
                  markup=False, soft_wrap=True)  # fmt: skip
    return 0


def warm(what: Iterable[str]) -> int:
    """Compiles what ``demo``, ``ops`` and functions (``train.py:step``) need; the exit status."""
    from treadle.compiler.programs import wait_for_programs
    from treadle.runtime import jit

    errors = Console(stderr=True, highlight=False)
    if flags.CACHE_LIMIT_MB == 0:
        errors.print("Error: the kernel cache is off (TREADLE_CACHE_LIMIT_MB is 0)")
        return 1
    tasks: list[Task] = []
    for name in what:
        try:
            tasks += _tasks(name)
        except (ImportError, AttributeError, OSError, ValueError) as error:
            errors.print(f"Error: cannot warm {name}: {error}", markup=False, soft_wrap=True)
            return 2
    before, begin = jit.statistics(), time.monotonic()
    console = Console(highlight=False)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        row = progress.add_task("", total=len(tasks))
        for title, run in tasks:
            progress.update(row, description=title)
            run()
            wait_for_programs()
            progress.advance(row)
    after, seconds = jit.statistics(), time.monotonic() - begin
    there = after.loaded - before.loaded
    console.print(
        f"{_counted(after.compiled - before.compiled)} compiled in {seconds:.0f} s, "
        f"{there:,} {'was' if there == 1 else 'were'} there already",
        markup=False,
    )
    console.print(_summary(_entries()), markup=False, soft_wrap=True)
    return 0


def _tasks(name: str) -> list[Task]:
    """What to run for one name on the command line."""
    if name == "demo":
        return [("the demo", _demo)]
    if name == "ops":
        from treadle.testing.op_table import all_ops

        return [(op.name, partial(_try, op)) for op in all_ops()]
    function = _function(name)
    return [(f"{name}, call {i + 1}", function) for i in range(_CALLS)]


def _function(name: str) -> Callable[[], object]:
    """The function of ``FILE.py:FUNCTION`` or ``MODULE:FUNCTION``."""
    place, _, function = name.rpartition(":")
    if not place:
        raise ValueError(
            "expected demo, ops, or a function without arguments as FILE.py:FUNCTION or "
            "MODULE:FUNCTION"
        )
    sys.path.insert(0, os.getcwd())
    if place.endswith(".py"):
        found = runpy.run_path(place).get(function)
    else:
        found = getattr(importlib.import_module(place), function, None)
    if not callable(found):
        raise ValueError(f"there is no function {function!r} in {place}")
    return found


def _demo() -> None:
    """A few steps of the demo's training, and a test."""
    from treadle.cli import demo
    from treadle.vision import MNIST

    settings = dataclasses.replace(demo.Settings(), epochs=1)
    digits, test = MNIST(train=True), MNIST(train=False)
    some = _CALLS * settings.batch_size
    digits.data, digits.targets = digits.data[:some], digits.targets[:some]
    examples = demo.Examples("test", test.data[:1000], test.targets[:1000])
    net = demo.LeNet(settings.dropout)
    for _ in demo.train(net, digits, examples, settings, 0, Console(quiet=True)):
        pass


def _try(op: Op) -> None:
    """One op on its samples, in every dtype."""
    from treadle.testing import op_table

    for sample in op.samples():
        for dtype in op_table.sample_dtypes(op, sample):
            op_table.run(op, op_table.cast_sample(sample, dtype), sample.attrs)


def _entries() -> list[kernel_cache.Entry]:
    return kernel_cache.entries(kernel_cache.KERNEL, kernel_cache.PROGRAM)


def _summary(entries: list[kernel_cache.Entry]) -> str:
    size = sum(entry.nbytes for entry in entries) / _MEGABYTE
    programs = sum(entry.path.suffix == kernel_cache.PROGRAM for entry in entries)
    counted = _counted(len(entries) - programs)
    if programs:
        counted += f" and {programs:,} program{'' if programs == 1 else 's'}"
    return (
        f"{counted}, {size:.1f} MB of at most {flags.CACHE_LIMIT_MB} MB, in {kernel_cache.folder()}"
    )


def _counted(number: int) -> str:
    return f"{number:,} kernel{'' if number == 1 else 's'}"


def _ago(moment: float) -> str:
    seconds = max(time.time() - moment, 0)
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds // unit:.0f} {name} ago"
    return "just now" if seconds < 60 else "a minute ago"
