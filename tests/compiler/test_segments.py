"""Graphs that never come again as a whole: cut into segments, which run as programs."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
import treadle.nn.functional as F
from treadle import nn
from treadle.base.flags import flags
from treadle.compiler import programs, segments, tier0, watch
from treadle.compiler.watch import Ran
from treadle.ir import segments as ir_segments
from treadle.runtime.cpu import cpu
from treadle.tensor import repeated
from treadle.testing.programs import run_program


class Cell(nn.Module):
    """A gated cell in plain tensor code."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w = nn.Linear(width, 2 * width)
        self.u = nn.Parameter(treadle.randn(width, width) / width)

    def forward(self, x: treadle.Tensor, h: treadle.Tensor) -> treadle.Tensor:
        z, n = self.w(x).chunk(2, 1)
        z = treadle.sigmoid(z + h)
        n = treadle.tanh(n + (z * h) @ self.u.t())
        return (1 - z) * n + z * h * 0.5


class Loop:
    """Trains a cell over sequences of other lengths each time."""

    def __init__(self) -> None:
        treadle.manual_seed(0)
        self.cell = Cell(6)
        self.optimizer = treadle.optim.Adam(self.cell.parameters(), lr=0.01)
        self.rng = np.random.default_rng(0)

    def step(self, length: int) -> float:
        xs = treadle.tensor(self.rng.standard_normal((length, 3, 6)).astype("float32"))
        h = treadle.zeros(3, 6)
        for x in xs:
            h = self.cell(x, h)
        loss = h.square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def weights(self) -> list[bytes]:
        return [p.detach().numpy().tobytes() for p in self.cell.parameters()]


LENGTHS = (9, 14, 11, 23, 8, 17, 31, 12, 10, 19)


def share_in_segments() -> float:
    """Of the last evaluation of a whole step."""
    e = next(e for e in reversed(watch.recent) if e.size > 50)
    return sum(len(r.known.sites) for r in e.ran if isinstance(r, Ran)) / max(e.size, 1)


@pytest.mark.parametrize("way", ["beside", "wait"])
def test_a_loop_over_random_lengths_has_the_bits_of_single_operations(way):
    with flags.context(programs="off"):
        plain = Loop()
        expected = [plain.step(n) for n in LENGTHS]
    with flags.context(programs=way):
        loop = Loop()
        assert [loop.step(n) for n in LENGTHS] == expected
        assert share_in_segments() > 0.9
    assert loop.weights() == plain.weights()


def test_a_recursion_over_trees_runs_in_segments():
    def train(step_count):
        treadle.manual_seed(1)
        rng = np.random.default_rng(1)
        join = nn.Linear(8, 4)
        optimizer = treadle.optim.SGD(join.parameters(), lr=0.1)

        def state(words):
            if len(words) == 1:
                return treadle.tanh(words * 2)
            cut = int(rng.integers(1, len(words)))
            both = treadle.cat([state(words[:cut]), state(words[cut:])], 1)
            return treadle.sigmoid(join(both)) * both[:, :4] + 0.25

        losses = []
        for _ in range(step_count):
            size = int(rng.integers(8, 16))
            total = 0.0
            for _ in range(4):
                words = treadle.tensor(rng.standard_normal((size, 4)).astype("float32"))
                total = total + state(words).sum()
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            losses.append(total.item())
        return losses, join.weight.detach().numpy().tobytes()

    found = train(8)
    assert share_in_segments() > 0.6
    with flags.context(programs="off"):
        assert train(8) == found


def test_shadow_compares_segments_with_single_operations():
    with flags.context(check="shadow"):
        loop = Loop()
        for n in LENGTHS:
            loop.step(n)
        assert share_in_segments() > 0.9


def test_random_graphs_in_segments_have_the_same_bits(monkeypatch):
    seeds = range(30_001, 30_013)
    with flags.context(programs="off"):
        expected = {seed: run_program(seed).results for seed in seeds}
    ran = []
    values_of = segments.Run.values_of
    monkeypatch.setattr(programs.Programs, "find", lambda self, *a, **k: None)
    monkeypatch.setattr(repeated._Passes, "find", lambda self, *a: False)
    monkeypatch.setattr(tier0, "SHORTEST", 1)
    monkeypatch.setattr(repeated, "SHORTEST", 1)
    monkeypatch.setattr(segments, "_COVERED", 0)
    monkeypatch.setattr(ir_segments.Segment, "repeats", property(lambda self: True))
    monkeypatch.setattr(segments.Run, "values_of", lambda run: ran.append(1) or values_of(run))
    for seed in seeds:
        found = run_program(seed).results
        for a, b in zip(found, expected[seed], strict=True):
            assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), seed
    assert len(ran) >= len(seeds)


def test_an_error_in_a_segment_is_told_with_its_line_and_changes_nothing():
    table = nn.Embedding(5, 4)
    cell = Cell(4)
    optimizer = treadle.optim.SGD([*table.parameters(), *cell.parameters()], lr=0.1)

    def step(numbers):
        h = treadle.zeros(1, 4)
        for i in numbers:
            h = cell(table(treadle.tensor([i])), h)
        optimizer.zero_grad()
        h.sum().backward()
        optimizer.step()

    for length in (8, 11, 9, 13):
        step([i % 5 for i in range(length)])
    assert share_in_segments() > 0.8
    before = [p.detach().numpy(copy=True) for p in cell.parameters()]
    with pytest.raises(IndexError, match=r"test_segments\.py"):
        step([1, 2, 3, 4, 7, 1, 2, 3, 4, 0])
        for p in cell.parameters():
            p.detach().numpy()
    optimizer.zero_grad()
    step([1, 2, 3, 4, 1, 2, 3])
    assert all(np.isfinite(p.detach().numpy()).all() for p in cell.parameters())
    assert len(before) == 3


def test_numbers_in_a_segment_are_those_of_this_call():
    def steps():
        found = []
        for i, length in enumerate(LENGTHS):
            x = treadle.tensor(np.linspace(0.1, 1, 12, dtype="float32"), requires_grad=True)
            y = x
            for k in range(length):
                y = treadle.sin(y * (0.5 + i + k)) + x * (k + 1.0) - 0.25
                y = treadle.tanh(y) * 1.5
            y.sum().backward()
            found.append((y.detach().numpy().tobytes(), x.grad.numpy().tobytes()))
        return found

    found = steps()
    assert share_in_segments() > 0
    with flags.context(programs="off"):
        assert steps() == found


def test_what_somebody_holds_of_a_segment_is_kept():
    def steps():
        found = []
        for length in LENGTHS:
            x = treadle.tensor(np.linspace(-1, 1, 12, dtype="float32"), requires_grad=True)
            states, y = [], x
            for _ in range(length):
                y = treadle.tanh(y * x + 1) * 2
                y = treadle.sigmoid(y) - x
                states.append(y)
            values = [s.item() for s in (states[2].sum(), states[-1].sum())]
            y.sum().backward()  # what its gradient reads was kept, or is computed again
            found.append((values, x.grad.numpy().tobytes(), states[4].detach().numpy().tobytes()))
        return found

    found = steps()
    with flags.context(programs="off"):
        assert steps() == found


def test_explain_says_which_segments_ran():
    loop = Loop()
    for n in LENGTHS:
        loop.step(n)
    text = str(treadle.explain())
    assert "% of it ran in segments seen before" in text
    assert "segments:\n" in text
    assert "17 times 24 operations" in text
    assert "test_segments.py:" in text


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(ir_segments, "_MOST_PARTS", 2_000)
    monkeypatch.setattr(ir_segments, "_MOST_MARKS", 2_000)
    loop = Loop()
    for n in LENGTHS:
        loop.step(n)
        x = treadle.ones(n)
        for k in range(n):
            x = treadle.exp(x.reshape(1, n) * k).reshape(n) + 1
        x.sum().item()
    assert ir_segments.segments._length <= 4_000
    assert len(ir_segments.segments.chains._marks) <= 2_000


@pytest.mark.parametrize("kind", ["ragged batches", "growing sequences"])
def test_a_new_size_compiles_nothing(kind):
    """Kernels take sizes as parameters, those of fused programs too."""
    treadle.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.LayerNorm(32), nn.Linear(32, 10))
    optimizer = treadle.optim.Adam(net.parameters())

    def batch(n):
        loss = F.cross_entropy(net(treadle.randn(n, 20)), treadle.randint(0, 10, (n,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    def sequence(n):
        with treadle.no_grad():
            q = net[0](treadle.randn(1, n, 20))
            weights = F.softmax(q @ q.transpose(1, 2) / 4, dim=-1)
            return ((weights @ q)[:, -1] * 2).sum().item() + weights.mean().item()

    step = batch if kind == "ragged batches" else sequence
    with flags.context(programs="wait"):
        for n in (32, 24, 17):
            for _ in range(3):
                step(n)
        known = set(cpu._entries)
        for n in (29, 40, 21, 37):
            for _ in range(3):
                step(n)
        assert set(cpu._entries) == known
