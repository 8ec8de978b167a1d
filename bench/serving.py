"""``python -m bench serving``: a program file asked from many threads at a time."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from statistics import quantiles

import treadle
from bench.harness import Options, Row
from treadle import nn
from treadle.base.flags import flags
from treadle.export import ExportedProgram, export, load, save
from treadle.runtime.memory import memory_stats

_THREADS = (1, 2, 4, 8, 16)
_SECONDS = 2.0


def run(options: Options) -> list[Row]:
    """Requests for single rows of an MLP and for single images of a LeNet."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, flags.context(num_threads=1):
        for name, net, shape in _nets():
            path = Path(folder, f"{name}.treadle")
            x = treadle.randn(1, *shape)
            save(export(net.eval(), (x,), optimize=True), path)
            program = load(path)
            for count in _THREADS:
                rows.append(_row(f"{name}, {count} threads", _ask(program, x, count)))
    return rows


def _nets() -> list[tuple[str, nn.Module, tuple[int, ...]]]:
    mlp = nn.Sequential(
        nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10)
    )
    lenet = nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    )  # fmt: skip
    return [("MLP 784-512-256-10", mlp, (784,)), ("LeNet", lenet, (1, 28, 28))]


def _ask(program: ExportedProgram, x: treadle.Tensor, count: int) -> tuple[list[float], float, int]:
    """The times of all requests, requests a second, and bytes allocated from the system."""
    times: list[list[float]] = [[] for _ in range(count)]
    start = threading.Barrier(count + 1)
    stop = threading.Event()

    def ask(own: list[float]) -> None:
        for _ in range(50):
            program(x).numpy()
        start.wait()
        while not stop.is_set():
            begin = time.perf_counter()
            program(x).numpy()
            own.append(time.perf_counter() - begin)

    threads = [threading.Thread(target=ask, args=(own,)) for own in times]
    for thread in threads:
        thread.start()
    start.wait()
    before = memory_stats()["reserved.current"]
    begin = time.perf_counter()
    time.sleep(_SECONDS)
    stop.set()
    for thread in threads:
        thread.join()
    passed = time.perf_counter() - begin
    grown = memory_stats()["reserved.current"] - before
    whole = [t for own in times for t in own]
    return whole, len(whole) / passed, grown


def _row(what: str, found: tuple[list[float], float, int]) -> Row:
    times, rate, grown = found
    p99 = quantiles(times, n=100)[98]
    note = f"{rate:,.0f} requests a second; {grown:,} bytes more from the system"
    return Row(f"{what}: 99 % answered within", p99, note=note)
