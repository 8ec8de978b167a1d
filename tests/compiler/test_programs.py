"""Programs: what repeats runs as one prepared tape, and nobody can tell but by the clock."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import treadle
from treadle.base.errors import CompileError
from treadle.base.flags import flags
from treadle.compiler import tier0
from treadle.compiler.arena import Storage, lay_out, verify_arena


def replays() -> int:
    return tier0.evaluator().programs.replays


def repeated(function, times=4):
    """The results of calling it again and again; the last two calls must be replays."""
    results = []
    for i in range(times):
        before = replays()
        results.append(function(i))
        if i >= 2:
            assert replays() > before, f"call {i} was no replay"
    return results


def test_a_step_repeats_with_other_values_and_numbers():
    rng = np.random.default_rng(0)
    xs = rng.standard_normal((4, 8, 5)).astype("float32")

    def step(i):
        x = treadle.tensor(xs[i], requires_grad=True)
        y = (treadle.tanh(x * (i + 0.5)) + 1).sum()
        y.backward()
        return y.item(), x.grad.numpy()

    with flags.context(programs="off"):
        expected = [step(i) for i in range(4)]
    for (loss, gradient), (want, want_gradient) in zip(repeated(step), expected, strict=True):
        assert loss == want
        assert gradient.tobytes() == want_gradient.tobytes()


def test_where_a_view_lies_that_a_tensor_decides_does_not_change_the_graph():
    data = treadle.tensor(np.linspace(0, 1, 60, dtype="float32"))

    def step(i):
        at = treadle.tensor(7 * i)
        parts = [data[at + k : at + k + 8] for k in range(3)]
        return treadle.stack(parts).mul(2).exp().numpy()

    for i, found in enumerate(repeated(step, 5)):
        parts = np.stack([data.numpy()[7 * i + k : 7 * i + k + 8] for k in range(3)])
        np.testing.assert_allclose(found, np.exp(2 * parts), rtol=1e-6)


def test_a_view_that_a_tensor_decides_is_a_view():
    data = treadle.arange(6.0)
    data.numpy()
    at = treadle.tensor(2)
    part = data[at : at + 2]
    before = part * 1
    data += 10
    part *= 2
    assert data.tolist() == [10, 11, 24, 26, 14, 15]
    assert (before.tolist(), part.tolist()) == ([2, 3], [24, 26])
    weight = treadle.arange(6.0).requires_grad_()
    (weight[at : at + 2] * 3).sum().backward()
    assert weight.grad.tolist() == [0, 0, 3, 3, 0, 0]


def test_views_alone_are_no_program():
    data = treadle.arange(40.0).reshape(8, 5)
    data.numpy()
    before = replays()
    for _ in range(5):
        rows = [data[i] for i in range(8)]
        assert [row.tolist()[0] for row in rows] == list(range(0, 40, 5))
    assert replays() == before


def test_views_of_inputs_of_temporaries_and_of_numbers_are_kept():
    data = np.arange(24.0, dtype="float32").reshape(4, 6)

    def step(i):
        x = treadle.tensor(data + i)
        first = x[1:3, ::2]
        second = (x * 2 + 1).t()[:, 1]
        third = treadle.full((3, 2), i)
        fourth = (x + 1).t().reshape(-1)  # needs a copy
        treadle.stack([first[0], second[:3]]).numpy()
        return [t.numpy(copy=True) for t in (first, second, third, fourth)]

    for i, (first, second, third, fourth) in enumerate(repeated(step)):
        x = data + i
        assert np.array_equal(first, x[1:3, ::2])
        assert np.array_equal(second, (x * 2 + 1).T[:, 1])
        assert np.array_equal(third, np.full((3, 2), i))
        assert np.array_equal(fourth, (x + 1).T.reshape(-1))


def test_results_outlive_later_replays():
    def step(i):
        x = treadle.tensor([1.0, 2.0, 3.0]) * i
        y = (x + 1) * (x - 1)
        y.numpy()
        return y

    kept = repeated(step)
    for i, y in enumerate(kept):
        x = np.array([1.0, 2.0, 3.0]) * i
        assert np.array_equal(y.numpy(), (x + 1) * (x - 1))


def test_several_results():
    def step(i):
        x = treadle.tensor([[3.0, 1.0 + i, 2.0], [0.0, 5.0, 4.0]])
        values, indices = (x + 1).max(dim=1)
        (values * 2 - x.var(dim=1)).numpy()
        return values.numpy().tolist(), indices.tolist()

    for i, (values, indices) in enumerate(repeated(step)):
        assert values == [max(4.0, 2.0 + i), 6.0]
        assert indices == [0 if i <= 2 else 1, 1]


def test_a_bad_index_is_told_as_ever_and_the_rest_has_its_values():
    table = treadle.arange(10.0)
    table.numpy()

    def step(index):
        rows = table[treadle.tensor([0, index])]
        good = treadle.tensor([1.0, 2.0]) * 3 + 1
        bad = rows * 2 + good
        return good, bad

    for index in (1, 2, 3):
        good, bad = step(index)
        assert bad.tolist() == [4.0, 2.0 * index + 7.0]
    good, bad = step(99)
    with pytest.raises(IndexError, match="index"):
        bad.numpy()
    assert good.tolist() == [4.0, 7.0]
    good, bad = step(4)
    assert bad.tolist() == [4.0, 15.0]


def test_another_number_of_threads():
    def step(i):
        treadle.set_num_threads(1 + i % 3)
        x = treadle.arange(50_000.0)
        return (treadle.sin(x) * 2 + x).sum().item()

    before = treadle.get_num_threads()
    try:
        assert len({step(i) for i in range(9)}) == 1
    finally:
        treadle.set_num_threads(before)


def test_gradients_of_a_users_function():
    class Double(treadle.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * x

    def step(i):
        x = treadle.tensor([1.0, 2.0 + i], requires_grad=True)
        (Double.apply(x * 3) + 1).sum().backward()
        return x.grad.tolist()

    assert repeated(step) == [[9.0, 9.0 * (2 + i)] for i in range(4)]


def test_memory_stays_flat():
    w = treadle.randn(64, 64)

    def step():
        nonlocal w
        w = (w * 0.5 + treadle.tanh(w) * 0.25).abs() - 0.1
        w.numpy()

    for _ in range(5):
        step()
    gc.collect()
    before = treadle.memory_stats()["allocated.current"]
    for _ in range(50):
        step()
    gc.collect()
    assert treadle.memory_stats()["allocated.current"] <= before


def test_what_is_in_use_at_the_same_time_lies_apart():
    rng = np.random.default_rng(1)
    for _ in range(50):
        storages = []
        for step in range(30):
            s = Storage(int(rng.integers(0, 1000)), step)
            s.last = step + int(rng.integers(0, 8))
            storages.append(s)
        end = lay_out(storages)
        for i, a in enumerate(storages):
            assert a.offset % 64 == 0
            assert a.offset + a.nbytes <= end
            for b in storages[:i]:
                if b.last >= a.first and a.nbytes and b.nbytes:
                    assert a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset
        verify_arena(storages, end)


def test_the_verifier_of_the_arena():
    one, two = Storage(64, 0), Storage(128, 1)
    one.last = two.last = 1
    with pytest.raises(CompileError, match="128 bytes at 0, in use from step 1 to 1, share memory"):
        verify_arena([one, two], 192)
    two.offset = 64
    verify_arena([one, two], 192)
    with pytest.raises(CompileError, match="or lie outside"):
        verify_arena([one, two], 128)
