"""Memory that is short is told before anything runs: what needs it, who holds it, what fits."""

from __future__ import annotations

import gc
import re

import numpy as np
import pytest

import treadle
from treadle import nn, optim
from treadle.base.flags import flags

MB = 1 << 20


class Training:
    def __init__(self):
        treadle.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(96, 1024), nn.Tanh(), nn.Linear(1024, 8))
        self.optimizer = optim.SGD(self.net.parameters(), lr=1e-3, momentum=0.9)

    def step(self, batch):
        x = treadle.from_numpy(np.ones((batch, 96), "float32"))
        loss = (self.net(x) ** 2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def error(self, batch):
        """What a step says that does not fit; None for one that does."""
        try:
            self.step(batch)
        except MemoryError as error:
            return str(error)
        return None


def in_use():
    gc.collect()
    return treadle.memory_stats()["allocated.current"]


def test_a_step_that_does_not_fit_is_told_with_the_batch_that_would():
    training = Training()
    training.step(4)
    before = [p.detach().numpy(copy=True) for p in training.net.parameters()]
    with flags.context(memory_limit=in_use() + 24 * MB):
        text = training.error(4096)
        assert re.match(r"\w+: the result \w+\[[\d,]+\] needs \d+ bytes: cannot allocate ", text)
        assert re.search(r"MiB of the [\d.]+ MiB that TREADLE_MEMORY_LIMIT allows are in use", text)
        assert re.search(r"in use are .*(parameters|workspaces) [\d.]+ [KM]iB", text)
        assert re.search(
            r"the step needs [\d.]+ MiB in all, its largest result \S+ at \S+\.py:\d+;", text
        )
        fitting = int(re.search(r"a batch of (\d+) instead of 4096 would fit \[", text)[1])
        assert re.search(r"\[test_shortage\.py:\d+\]$", text)
        after = [p.detach().numpy() for p in training.net.parameters()]
        assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
        training.optimizer.zero_grad()
        gc.collect()
        assert 64 < fitting < 4096
        assert training.error(fitting) is None
        assert training.error(2 * fitting) is not None


def test_without_a_batch_nothing_is_promised():
    x = treadle.from_numpy(np.ones((1, 1 << 16), "float32"))
    with (
        flags.context(memory_limit=in_use() + MB),
        pytest.raises(MemoryError, match=r"needs 16777216 bytes: .*f32\[\S* at test_sh") as error,
    ):
        (x + treadle.zeros(64, 1)).numpy()
    assert "would fit" not in str(error.value)


def test_data_that_does_not_fit():
    with (
        flags.context(memory_limit=in_use() + MB),
        pytest.raises(MemoryError, match=r"cannot allocate 8\.0 MiB: .* raise the limit"),
    ):
        treadle.from_numpy(np.ones(2 * MB, "float32"))


def test_garbage_makes_room():
    class Ring:
        def __init__(self):
            self.me = self
            self.x = treadle.from_numpy(np.ones(2 * MB, "float32"))

    with flags.context(memory_limit=in_use() + 20 * MB):
        gc.disable()
        try:
            for _ in range(6):
                Ring()
        finally:
            gc.enable()


def test_a_program_that_does_not_fit_leaves_everything_as_it_was():
    training = Training()
    with flags.context(programs="wait"):
        for _ in range(3):
            training.step(1024)
        before = [p.detach().numpy(copy=True) for p in training.net.parameters()]
        with flags.context(memory_limit=in_use() + 4 * MB):
            assert "cannot allocate" in training.error(1024)
        after = [p.detach().numpy() for p in training.net.parameters()]
        assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
        training.step(1024)


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("0", 0), ("123", 123), ("500M", 500 * MB), ("1.5GiB", 3 << 29), ("2 gb", 2 << 30), (7, 7)],
)
def test_sizes(text, nbytes):
    with flags.context(memory_limit=text):
        assert nbytes == flags.MEMORY_LIMIT


@pytest.mark.parametrize("text", ["-1", "much", "1.5X", 2.5, "G"])
def test_sizes_that_are_none(text):
    with (
        pytest.raises(ValueError, match=r"expected a number of bytes, as 500M or 1.5GiB, or 0"),
        flags.context(memory_limit=text),
    ):
        pass
