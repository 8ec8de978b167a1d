"""What the machine can do is measured, kept, and held against kernels; calls are timed."""

from __future__ import annotations

import array
import time

import pytest

from treadle.base import dtypes
from treadle.compiler.prepare import words
from treadle.ir.launch import Layout, Out
from treadle.ir.nest import copy_launch
from treadle.runtime import machine, memory, pool
from treadle.runtime.control_groups import control_groups, smallest
from treadle.runtime.cpu import cpu
from treadle.runtime.machine import MachineLimits


def test_limits():
    limits = MachineLimits(1e11, ((1 << 10, 8e10), (1 << 20, 2e10)))
    assert limits.bandwidth(1) == 8e10
    assert limits.bandwidth(1 << 30) == 2e10
    assert limits.seconds(1e9, 1) == pytest.approx(0.01)
    assert limits.seconds(1e9, 1, itemsize=8) == pytest.approx(0.02)
    assert limits.seconds(1e9, 1, itemsize=1) == pytest.approx(0.01)
    assert limits.seconds(1, 1 << 30) == pytest.approx((1 << 30) / 2e10)


def test_limits_are_measured_once_and_only_get_better(monkeypatch):
    notes = {}
    monkeypatch.setattr(cpu, "remember", notes.__setitem__)
    monkeypatch.setattr(cpu, "recall", notes.get)
    monkeypatch.setattr(machine, "peak_flops", lambda: 5.0)
    monkeypatch.setattr(machine, "_small_copies", lambda nbytes: float(nbytes % 1000))
    first = machine.limits()
    rates = [rate for _, rate in first.bandwidths]
    assert rates == sorted(rates, reverse=True)  # less is never slower
    monkeypatch.setattr(machine, "peak_flops", lambda: 3.0)
    monkeypatch.setattr(machine, "_small_copies", lambda nbytes: 1e6)
    assert machine.limits() == first
    assert machine.limits(again=True).flops == 5.0
    assert machine.limits().bandwidth(1) == 1e6


def test_real_limits_are_those_of_a_machine():
    limits = machine.limits()
    assert 1e9 < limits.flops < 1e14
    assert 1e8 < limits.bandwidth(1 << 30) <= limits.bandwidth(1 << 16) < 1e13


def test_calls_are_timed_one_by_one():
    size = 1 << 20
    layout = Layout(dtypes.float32, (size,), (1,))
    launch = copy_launch(layout, Out(0), (1,))
    numbers = [x for x in launch.args if isinstance(x, int)]
    source, target = memory.allocate(4 * size), memory.allocate(4 * size)
    head = [cpu.compile(launch.kernel), len(launch.args), launch.units, 1]
    tape = array.array("q", [*head, target.address, source.address, *numbers] * 5)
    times = array.array("q", bytes(8 * 6))
    for _ in range(2):
        begin = time.perf_counter()
        assert pool.run_tape(tape, 5, times=times) == (-1, 0)
        seconds = time.perf_counter() - begin
    assert list(times) == sorted(times)
    measured = (times[-1] - times[0]) * pool.seconds_per_tick()
    assert 0 < measured < 1.1 * seconds
    assert cpu.run(words(*tape), 5, 1, times) == (-1, 0)


def test_control_groups(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/outer/inner\n")
    inner = tmp_path / "sys/fs/cgroup/outer/inner"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (inner.parent / "memory.max").write_text("4096\n")
    assert next(control_groups(tmp_path, "memory")) == inner
    names = ("memory.max", "memory.limit_in_bytes")
    assert smallest(tmp_path, "memory", names, 1 << 20) == 4096
    assert smallest(tmp_path, "memory", names, 100) == 100
    assert smallest(tmp_path / "nowhere", "memory", names, 7) == 7
