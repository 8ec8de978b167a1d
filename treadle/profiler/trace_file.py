"""A recording as a file in Chrome's trace format, which Perfetto reads.

The host's threads are one track each, the kernels another, the memory in use a counter. The
recording is bounded (``recording.py``), and so is the file.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from typing import Any, TextIO

from treadle.profiler.events import EVALUATION, KERNEL, Timeline

_KERNELS = 0  # the number of the kernels' track; threads follow


def write_trace(timeline: Timeline, path: str) -> None:
    """Writes the trace, event by event."""
    if path.endswith(".gz"):
        with gzip.open(path, "wt", encoding="utf-8") as file:
            _write(timeline, file)
    else:
        with open(path, "w", encoding="utf-8") as file:
            _write(timeline, file)


def _write(timeline: Timeline, file: TextIO) -> None:
    head = {"dropped_events": timeline.recording.dropped}
    file.write(f'{{"displayTimeUnit": "ms", "otherData": {json.dumps(head)}, "traceEvents": [\n')
    for position, event in enumerate(_events(timeline)):
        file.write(",\n" if position else "")
        json.dump(event, file)
    file.write("\n]}\n")


def _events(timeline: Timeline) -> Iterator[dict[str, Any]]:
    process = os.getpid()
    tracks: dict[int, int] = {}
    for event in timeline.events():
        tracks.setdefault(event.thread, len(tracks) + 1)
    names = {_KERNELS: "kernels", **{n: f"Python thread {thread}" for thread, n in tracks.items()}}
    for number, name in names.items():
        yield {
            "ph": "M", "name": "thread_name", "pid": process, "tid": number,
            "args": {"name": name},
        }  # fmt: skip
        yield {
            "ph": "M", "name": "thread_sort_index", "pid": process, "tid": number,
            "args": {"sort_index": -number if number == _KERNELS else number},
        }  # fmt: skip
    for event in timeline.events():
        arguments: dict[str, Any] = {}
        if event.category == KERNEL:
            arguments = {
                "over": event.shape, "lines": list(event.lines), "flops": event.flops,
                "bytes": event.nbytes,
            }  # fmt: skip
            if event.cpu_time_total:
                arguments["of limit"] = round(event.least / event.cpu_time_total, 3)
        elif event.category == EVALUATION:
            arguments = {"forced by": event.lines[0]}
        yield {
            "ph": "X", "name": event.name, "cat": event.category, "pid": process,
            "tid": _KERNELS if event.category == KERNEL else tracks[event.thread],
            "ts": round(event.start, 3), "dur": round(event.cpu_time_total, 3),
            "args": arguments,
        }  # fmt: skip
    origin = timeline.recording.begin
    for noted, _ in timeline.kernels:
        e = noted.evaluation
        yield {
            "ph": "C", "name": "memory in use", "pid": process,
            "ts": round((e.begin + e.seconds - origin) * 1e6, 3), "args": {"bytes": noted.nbytes},
        }  # fmt: skip


__all__ = ["write_trace"]
