"""How a training goes, live: a moving bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from importlib.util import find_spec
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar


class Progress:
    """Shows epoch, mean loss and accuracy, items per second and time left while a loop runs.

    Each epoch leaves one line. Between them a terminal, and a notebook with ipywidgets, has a
    moving bar; elsewhere (a file, a pipe) a line is written every ``interval`` seconds at most.

    Args:
        epochs: how many epochs the training has.
        steps: how many steps an epoch has.
        unit: what is counted, for "images/s".
        console: where to write; the standard output unless named.
        interval: seconds between plain lines inside an epoch.

    >>> from rich.console import Console
    >>> with Progress(epochs=1, steps=2, console=Console(force_terminal=False)) as progress:
    ...     progress.step(64, loss=2.0, accuracy=0.25)
    ...     progress.step(64, loss=1.0, accuracy=0.75)
    ...     means = progress.end_epoch(test_accuracy=0.9)
    epoch 1/1  loss 1.5000  accuracy 50.00%  test accuracy 90.00%  ... images/s
    >>> means
    {'loss': 1.5, 'accuracy': 0.5, 'test_accuracy': 0.9}
    """

    def __init__(
        self,
        epochs: int,
        steps: int,
        *,
        unit: str = "images",
        console: Console | None = None,
        interval: float = 10.0,
    ) -> None:
        if epochs < 1 or steps < 1:
            raise ValueError(f"Progress got epochs={epochs} and steps={steps}; both must be >= 1")
        self.epochs = epochs
        self.steps = steps
        self.unit = unit
        self.interval = interval
        self._console = console or Console(highlight=False)
        self._bar = self._make_bar() if _can_redraw(self._console) else None
        self._task = TaskID(0)
        self._epoch = 0
        self._reset()
        self._begin = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        self._begin = self._last_line = self._epoch_begin = time.monotonic()
        if self._bar is not None:
            self._task = self._bar.add_task(self._label(), total=self.steps, numbers="")
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.remove_task(self._task)
            self._bar.stop()

    def step(self, count: int, **metrics: float) -> None:
        """One step over ``count`` items is done; ``metrics`` are means over them."""
        self._step += 1
        self._count += count
        self._last_step = time.monotonic()
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + value * count
        if self._bar is not None:
            self._bar.update(self._task, completed=self._step, numbers=self._numbers())
        elif time.monotonic() - self._last_line >= self.interval:
            self._line(f"{self._label()}  {self._step:>4}/{self.steps}  {self._numbers()}")

    def end_epoch(self, **metrics: float) -> dict[str, float]:
        """Closes the epoch with its line; returns its mean metrics and ``metrics``."""
        means = self._means() | metrics
        shown = "  ".join(_show(name, value) for name, value in means.items())
        self._line(f"{self._label()}  {shown}  {self._speed()}")
        self._epoch += 1
        self._reset()
        if self._bar is not None:
            label = self._label()
            self._bar.update(self._task, description=label, completed=0, numbers="")
        return means

    def _reset(self) -> None:
        self._step = 0
        self._count = 0
        self._sums: dict[str, float] = {}
        self._epoch_begin = self._last_step = time.monotonic()

    def _means(self) -> dict[str, float]:
        return {name: total / max(self._count, 1) for name, total in self._sums.items()}

    def _label(self) -> str:
        width = len(str(self.epochs))
        return f"epoch {min(self._epoch + 1, self.epochs):>{width}}/{self.epochs}"

    def _speed(self) -> str:
        seconds = max(self._last_step - self._epoch_begin, 1e-9)
        return f"{self._count / seconds:,.0f} {self.unit}/s"

    def _numbers(self) -> str:
        shown = "  ".join(_show(name, value) for name, value in self._means().items())
        done = self._epoch * self.steps + self._step
        left = (time.monotonic() - self._begin) / done * (self.epochs * self.steps - done)
        return f"{shown}  {self._speed()}  {_clock(left)} left"

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        self._last_line = time.monotonic()

    def _make_bar(self) -> Bar:
        return Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[numbers]}"),
            console=self._console,
            refresh_per_second=8,
        )


def _can_redraw(console: Console) -> bool:
    """True where a line can be drawn again: a terminal, or a notebook that has widgets."""
    if console.is_jupyter:
        return find_spec("ipywidgets") is not None
    return console.is_terminal and not console.is_dumb_terminal


def _show(name: str, value: float) -> str:
    label = name.replace("_", " ")
    return f"{label} {value:.2%}" if "accuracy" in name else f"{label} {value:.4f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
