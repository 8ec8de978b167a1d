"""Steps that end half-way, and graphs of unusual size: what is there afterwards is no mixture.

A training runs as programs; then Ctrl-C or lack of memory ends a step at any of its points. Weights
and optimizer are as before the step or as after it, and the training goes on to the same bits.
"""

from __future__ import annotations

import copy
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import treadle
from treadle import nn, optim
from treadle.base.flags import flags
from treadle.compiler import tier0
from treadle.ir.node import Limits

WARM, REST = 6, 3
PACKAGE = str(Path(treadle.__file__).parent)


@pytest.fixture(autouse=True, params=["beside", "wait"])
def programs(request):
    with flags.context(programs=request.param):
        yield request.param


class Training:
    """A small net and Adam, run long enough for its step to be a program."""

    def __init__(self, warm: int = WARM) -> None:
        treadle.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))
        self.optimizer = optim.Adam(self.net.parameters(), lr=0.05)
        self.done = 0
        for _ in range(warm):
            self.step()

    def step(self) -> None:
        rng = np.random.default_rng(self.done)
        x = treadle.from_numpy(rng.normal(size=(4, 6)).astype(np.float32))
        loss = self.net(x).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.done += 1

    def weights(self) -> bytes:
        """All that a step of the optimizer changes."""
        states = self.optimizer.state_dict()["state"]
        values = [v for state in states.values() for v in state.values()]
        tensors = [*self.net.parameters(), *(v for v in values if isinstance(v, treadle.Tensor))]
        steps = [v for v in values if not isinstance(v, treadle.Tensor)]
        return repr(steps).encode() + b"".join(t.numpy(force=True).tobytes() for t in tensors)


def expected() -> list[bytes]:
    """The weights before and after the step that is ended, and at the end."""
    training = Training()
    found = [training.weights()]
    for _ in range(1 + REST):
        training.step()
        found.append(training.weights())
    return [found[0], found[1], found[-1]]


def ended_at(stop, error) -> tuple[Training, bool]:
    """A training whose next step is ended by ``stop``; whether it was."""
    training = Training()
    buffers = copy.deepcopy(dict(training.net.named_buffers()))
    with suppress(error):
        with stop:
            training.step()
        return training, False
    for name, buffer in training.net.named_buffers():
        buffer.copy_(buffers[name])  # Python's own assignments: the forward pass comes again
    return training, True


class Interrupt:
    """Raises KeyboardInterrupt at the n-th line that Treadle runs."""

    def __init__(self, line: int) -> None:
        self.left = line

    def __enter__(self) -> None:
        sys.settrace(self.trace)

    def __exit__(self, *_) -> None:
        sys.settrace(None)

    def trace(self, frame, event, argument):
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
        return self.trace


class OutOfMemory:
    """The n-th allocation finds no memory, nor does any after it in this step."""

    def __init__(self, allocation: int) -> None:
        self.left = allocation
        self.device = tier0.evaluator().device

    def __enter__(self) -> None:
        allocate = self.device.allocate

        def refuse(nbytes: int):
            self.left -= 1
            if self.left <= 0:
                raise MemoryError("no memory left")
            return allocate(nbytes)

        self.device.allocate = refuse

    def __exit__(self, *_) -> None:
        del self.device.allocate


def check(stops, error) -> int:
    before, after, end = expected()
    hits = 0
    for point in stops:
        training, ended = ended_at(point, error)
        assert treadle.is_grad_enabled()
        found = training.weights()
        assert found in (before, after), f"a mixture after the stop at {point.left}"
        hits += ended
        training.done = WARM + (found == after)
        for _ in range(WARM + 1 + REST - training.done):
            training.step()
        assert training.weights() == end
    return hits


def test_an_interrupt_at_any_line():
    lines = Interrupt(1 << 30)
    with lines:
        Training(warm=0)
    training = Training()
    with lines:
        training.step()
    count = (1 << 30) - lines.left
    points = np.unique(np.linspace(1, count, 60).astype(int))
    assert check([Interrupt(int(n)) for n in points], KeyboardInterrupt) > 40


def test_no_memory_at_any_allocation():
    assert check([OutOfMemory(n) for n in range(1, 40)], MemoryError) >= 3


def test_an_exception_of_the_users_own():
    before, after, end = expected()
    training = Training()
    hook = training.net[2].register_forward_hook(lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        training.step()
    assert training.weights() == before
    hook.remove()
    for module in training.net:
        if isinstance(module, nn.BatchNorm1d):
            reference = Training().net[1]
            for mine, other in zip(module.buffers(), reference.buffers(), strict=True):
                mine.copy_(other)
    for _ in range(1 + REST):
        training.step()
    assert training.weights() == end
    assert after != before


def test_a_graph_of_200_000_nodes(monkeypatch):
    monkeypatch.setattr(Limits, "nodes", 1 << 60)
    monkeypatch.setattr(Limits, "nbytes", 1 << 60)
    if flags.PROGRAMS == "wait":
        pytest.skip("nobody waits for a fused program of that size")
    count = 200_000
    x = treadle.ones(2, requires_grad=True)
    for _ in range(3):
        y = x * 1
        for _ in range(count // 2):
            y = y + x
        x.grad = None
        y.sum().backward()
        assert y.tolist() == [count // 2 + 1] * 2
        assert x.grad.tolist() == [count // 2 + 1] * 2
