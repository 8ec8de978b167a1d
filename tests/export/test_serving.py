"""A loaded program called from many threads: same bits, no memory that grows, no held GIL."""

from __future__ import annotations

import gc
import threading
from time import perf_counter

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.compiler.programs import wait_for_programs
from treadle.export import export, load, save
from treadle.runtime.memory import memory_stats


def _saved(folder, model, *inputs, **options):
    path = folder / "net.treadle"
    save(export(model, inputs, **options), path)
    return load(path)


@pytest.fixture
def served(tmp_path):
    """A program and what it answers to 16 inputs."""
    treadle.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
    ).eval()
    program = _saved(tmp_path, model, treadle.ones(1, 1, 8, 8), optimize=True)
    inputs = [treadle.randn(1, 1, 8, 8) for _ in range(16)]
    return program, inputs, [program(x).numpy(copy=True) for x in inputs]


def _in_threads(count, work):
    """Runs ``work(number)`` in so many threads; what they raised."""
    raised = []

    def guarded(number):
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - told to the test
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return raised


def test_many_threads_get_the_bits_that_one_gets(served):
    program, inputs, expected = served

    def ask(number):
        for turn in range(60):
            i = (number * 7 + turn) % len(inputs)
            np.testing.assert_array_equal(program(inputs[i]).numpy(), expected[i])

    assert not _in_threads(8, ask)


def test_other_sizes_at_the_same_time(tmp_path):
    n = treadle.export.Dim("N")
    model = nn.Sequential(nn.Linear(6, 7), nn.GELU(), nn.Linear(7, 3))
    program = _saved(
        tmp_path, model, treadle.ones(2, 6), dynamic_shapes={"input": {0: n}}
    )  # fmt: skip
    inputs = [treadle.randn(size, 6) for size in range(1, 9)]
    expected = [program(x).numpy(copy=True) for x in inputs]

    def ask(number):
        for turn in range(40):
            i = (number + turn) % len(inputs)
            np.testing.assert_array_equal(program(inputs[i]).numpy(), expected[i])

    assert not _in_threads(6, ask)


def test_calls_that_change_weights_wait_for_each_other(tmp_path):
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("total", treadle.zeros(1))

        def forward(self, x):
            self.total += x
            return self.total * 1

    program = _saved(tmp_path, Counter(), treadle.ones(1))
    one = treadle.ones(1)
    assert not _in_threads(4, lambda number: [program(one) for _ in range(25)])
    assert program.weights["total"].item() == 100


def test_nothing_is_allocated_once_it_runs(served):
    program, inputs, _ = served
    for _ in range(40):
        program(inputs[0]).numpy()
    wait_for_programs(30.0)
    for _ in range(40):
        program(inputs[0]).numpy()
    gc.collect()
    before = memory_stats()
    for turn in range(200):
        program(inputs[turn % 16]).numpy()
    after = memory_stats()
    for kind in ("allocated.current", "reserved.current", "reserved.peak", "allocated.peak"):
        assert after[kind] == before[kind], kind
    taken = after["allocations"] - before["allocations"]
    assert after["frees"] - before["frees"] == taken  # blocks that go round


def test_kernels_run_without_the_lock_of_python():
    """While a long program runs in one thread, another goes on counting."""
    model = nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(4))).eval()
    x = treadle.randn(1024, 1024)
    program = export(model, (x,))
    program(x).numpy()
    done = threading.Event()
    longest, counted = 0.0, 0

    def ask():
        for _ in range(4):
            program(x).numpy()
        done.set()

    thread = threading.Thread(target=ask)
    begin = perf_counter()
    thread.start()
    last = perf_counter()
    while not done.is_set():
        done.wait(0.0005)
        now = perf_counter()
        longest, counted, last = max(longest, now - last), counted + 1, now
    thread.join()
    whole = last - begin
    # With the lock held, this thread would wake once a program: a quarter of the whole.
    assert counted >= 20 and longest < whole / 4
