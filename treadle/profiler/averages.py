"""Events and their sums, as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from treadle.ir.node import located

_LEAST_NAME = 12  # characters of the column of names
_GAP = "  "


class FunctionEvent:
    """Something that took time: a span of the host's, an evaluation, a kernel.

    Times are microseconds; ``start`` counts from the begin of the recording. ``category`` is one of
    "host", "layer", "user", "step", "evaluation" and "kernel".
    """

    def __init__(self, name: str, category: str, start: float, end: float, thread: int) -> None:
        self.name = name
        self.category = category
        self.start = start
        self.end = end
        self.thread = thread
        self.self_cpu_time_total = self.cpu_time_total
        self.kernel_time_total = 0.0
        self.flops = 0.0
        self.nbytes = 0
        self.least = 0.0  # microseconds that the machine's limit allows
        self.shape = ""
        self.lines: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The name."""
        return self.name

    @property
    def cpu_time_total(self) -> float:
        """From its start to its end."""
        return self.end - self.start

    def __repr__(self) -> str:
        return f"<FunctionEvent {self.name}: {self.cpu_time_total:.1f} us>"


class FunctionEventAvg:
    """Events alike, summed up. Times are microseconds.

    ``kernel_time_total`` is the part of the time that was spent in kernels, ``flops`` and
    ``nbytes`` the work of these, ``share`` the part of the machine's limit that they reached.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.count = 0
        self.cpu_time_total = 0.0
        self.self_cpu_time_total = 0.0
        self.kernel_time_total = 0.0
        self.flops = 0.0
        self.nbytes = 0.0
        self.least = 0.0

    @property
    def cpu_time(self) -> float:
        """The average of the total time."""
        return self.cpu_time_total / self.count if self.count else 0.0

    @property
    def share(self) -> float:
        """1 where the kernels were as fast as the machine allows."""
        return self.least / self.kernel_time_total if self.kernel_time_total else 0.0

    def __repr__(self) -> str:
        return (
            f"<FunctionEventAvg {self.key}: {self.count} calls, self "
            f"{self.self_cpu_time_total:.1f} us, total {self.cpu_time_total:.1f} us>"
        )


_SORTS: dict[str, Callable[[FunctionEventAvg], float]] = {
    "cpu_time_total": lambda a: a.cpu_time_total,
    "self_cpu_time_total": lambda a: a.self_cpu_time_total,
    "cpu_time": lambda a: a.cpu_time,
    "kernel_time_total": lambda a: a.kernel_time_total,
    "count": lambda a: a.count,
    "flops": lambda a: a.flops,
    "nbytes": lambda a: a.nbytes,
}


class EventList(list[FunctionEventAvg]):
    """Sums of events, those that took most of the time first; ``table()`` prints them.

    ``whole`` is the time of the recording, in microseconds; ``note`` a line below the table.
    """

    def __init__(self, rows: Iterable[FunctionEventAvg], whole: float, note: str = "") -> None:
        super().__init__(sorted(rows, key=lambda a: -a.self_cpu_time_total))
        self.whole = whole
        self.note = note

    @property
    def self_cpu_time_total(self) -> float:
        """The time of all rows, each moment counted once."""
        return sum(row.self_cpu_time_total for row in self)

    def table(
        self, sort_by: str | None = None, row_limit: int = 100, max_name_column_width: int = 55,
        header: str | None = None,
    ) -> str:  # fmt: skip
        """The rows as text.

        Args:
            sort_by: cpu_time_total, self_cpu_time_total, cpu_time, kernel_time_total, count, flops
                or nbytes, the largest first; by default as they stand.
            row_limit: at most so many rows (-1: all).
            max_name_column_width: longer names are cut.
            header: a line above the table.
        """
        rows: list[FunctionEventAvg] = list(self)
        if sort_by is not None:
            if sort_by not in _SORTS:
                raise located(ValueError(
                    f"table: got sort_by={sort_by!r}; it takes {', '.join(_SORTS)}"
                ))  # fmt: skip
            rows.sort(key=lambda a: -_SORTS[sort_by](a))
        shown = rows if row_limit < 0 else rows[:row_limit]
        whole = self.whole or 1.0
        cells = [list(_HEADS), *(_cells(row, whole, max_name_column_width) for row in shown)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        widths[0] = max(widths[0], _LEAST_NAME)
        rule = _GAP.join("-" * width for width in widths)
        lines = [header] if header else []
        lines += [rule, _line(cells[0], widths), rule]
        lines += [_line(row, widths) for row in cells[1:]]
        lines.append(rule)
        if len(rows) > len(shown):
            lines.append(f"{len(rows) - len(shown)} more rows")
        lines.append(f"Self CPU time total: {pretty_time(self.self_cpu_time_total)}")
        if self.note:
            lines.append(self.note)
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()


_HEADS = (
    "Name", "Self CPU %", "Self CPU", "CPU total %", "CPU total", "CPU time avg", "# of Calls",
    "Kernels", "Gflop/s", "GB/s", "of limit",
)  # fmt: skip


def _cells(row: FunctionEventAvg, whole: float, most: int) -> list[str]:
    name = row.key if len(row.key) <= most else f"{row.key[: most - 3]}..."
    speeds = ["-", "-", "-"]
    if row.kernel_time_total and row.flops + row.nbytes:
        seconds = row.kernel_time_total * 1e-6
        speeds = [
            f"{row.flops / seconds / 1e9:.1f}", f"{row.nbytes / seconds / 1e9:.1f}",
            f"{100 * row.share:.0f}%",
        ]  # fmt: skip
    return [
        name,
        f"{100 * row.self_cpu_time_total / whole:.2f}%", pretty_time(row.self_cpu_time_total),
        f"{100 * row.cpu_time_total / whole:.2f}%", pretty_time(row.cpu_time_total),
        pretty_time(row.cpu_time), str(row.count), pretty_time(row.kernel_time_total), *speeds,
    ]  # fmt: skip


def _line(cells: list[str], widths: list[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    parts = [f"{first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in others)]
    return _GAP.join(parts).rstrip()


def pretty_time(microseconds: float) -> str:
    """As PyTorch writes times.

    >>> pretty_time(12.5), pretty_time(3400), pretty_time(2.5e6)
    ('12.500us', '3.400ms', '2.500s')
    """
    for unit, name in ((1e6, "s"), (1e3, "ms")):
        if microseconds >= unit:
            return f"{microseconds / unit:.3f}{name}"
    return f"{microseconds:.3f}us"


__all__ = ["EventList", "FunctionEvent", "FunctionEventAvg", "pretty_time"]
