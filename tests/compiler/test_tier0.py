"""The evaluator: what it computes, what it keeps, and what an error leaves behind."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
from treadle.compiler import tier0
from treadle.compiler.tier0 import evaluate, evaluator
from treadle.ir.node import Limits, recorder


@pytest.fixture
def calls(monkeypatch):
    """The nodes whose kernels ran, tape by tape."""
    tapes = []
    engine = evaluator()
    run = type(engine.device).run

    def recording(self, tape, *rest):
        tapes.append([n.op.name for n in engine.owners])
        return run(self, tape, *rest)

    monkeypatch.setattr(type(engine.device), "run", recording)
    return tapes


def leaf(*shape):
    x = treadle.tensor(np.linspace(0.5, 1.5, int(np.prod(shape)), dtype="f4").reshape(shape))
    return x.requires_grad_()


def test_what_nobody_can_read_is_not_computed(calls):
    x = leaf(4)
    evaluate()
    calls.clear()
    for _ in range(3):
        x.exp()  # dropped at once
    y = x + 1
    evaluate()
    assert calls == [["add"]]
    assert y.node.value is not None


def test_a_graph_runs_as_one_tape_in_the_order_of_recording(calls):
    x = leaf(4)
    evaluate()
    calls.clear()
    y = (x.exp() * 2).sum()
    y.backward()
    assert calls == []
    x.grad.numpy()
    assert len(calls) == 1
    assert calls[0].index("exp") < calls[0].index("mul") < calls[0].index("reduce_sum")


def test_intermediate_memory_is_handed_on():
    x = treadle.ones(1 << 18)
    evaluate()
    treadle.reset_peak_memory_stats()
    before = treadle.memory_stats()["allocated.current"]
    y = x
    for _ in range(50):
        y = y * 1.5 + 0.5
    y.numpy()
    peak = treadle.memory_stats()["allocated.peak"] - before
    assert peak <= 3 * x.nbytes + (1 << 16)


def test_residuals_are_kept_when_the_loss_is_read_first():
    x = leaf(8)
    h = x.exp()
    residual = h.node
    loss = (h * h).sum()
    del h
    assert loss.item() > 0
    assert residual.value is not None  # exp's own gradient reads its result
    loss.backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.exp(2 * x.detach().numpy()), rtol=1e-6)


def test_a_dropped_value_is_computed_again_when_wanted():
    x = leaf(8)
    h = x + 1.0
    node = h.node
    y = (h.exp()).sum()
    del h
    y.item()
    node.set_value(None)
    node.keep = False
    again = treadle.tensor(0.0) + tier0_wrap(node).sum()
    np.testing.assert_allclose(again.item(), float((x.detach().numpy() + 1).sum()), rtol=1e-6)


def tier0_wrap(node):
    from treadle.tensor.handle import wrap

    return wrap(node)


def test_a_failed_index_poisons_its_dependants_only():
    x = treadle.arange(5, dtype=treadle.float32)
    bad = x[treadle.tensor([1, 7])]
    after = bad * 2
    good = x + 1
    np.testing.assert_array_equal(good.numpy(), np.arange(5, dtype="f4") + 1)
    for value in (bad, after):
        with pytest.raises(IndexError, match=r"index out of range.*test_tier0\.py:\d+\]"):
            value.numpy()
    np.testing.assert_array_equal((x * 3).numpy(), np.arange(5, dtype="f4") * 3)


def test_lack_of_memory_concerns_only_what_needs_it():
    x = treadle.ones(1000)
    y = x + 1
    huge = treadle.zeros(1 << 46)
    after = huge * 2
    np.testing.assert_array_equal(y.numpy(), np.full(1000, 2, "f4"))
    for value in (huge, after):
        with pytest.raises(MemoryError, match=r"needs 281474976710656 bytes.*test_tier0\.py:\d+\]"):
            value.numpy()
    np.testing.assert_array_equal((y + 1).numpy(), np.full(1000, 3, "f4"))


def test_an_interrupt_while_the_tape_is_made_restores_the_graph(monkeypatch):
    x = treadle.ones(16)
    ys = [x * float(i) for i in range(20)]
    engine = evaluator()
    allocate = engine.device.allocate
    count = iter(range(1000))

    def interrupted(nbytes):
        if next(count) == 10:
            raise KeyboardInterrupt
        return allocate(nbytes)

    monkeypatch.setattr(engine.device, "allocate", interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt):
        ys[0].numpy()
    monkeypatch.undo()
    for i, y in enumerate(ys):
        np.testing.assert_array_equal(y.numpy(), np.full(16, i, "f4"))


def test_an_interrupt_after_the_tape_has_run_leaves_nothing_half_done(monkeypatch):
    x = treadle.ones(16)
    hidden = x * 3.0  # its value is handed on within the tape
    ys = [hidden + float(i) for i in range(3)]
    del hidden

    def interrupted(done):
        for n in done[:3]:
            n.inputs = ()
        raise KeyboardInterrupt

    monkeypatch.setattr(tier0, "forget_inputs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ys[0].numpy()
    monkeypatch.undo()
    for i, y in enumerate(ys):
        np.testing.assert_array_equal(y.numpy(), np.full(16, 3 + i, "f4"))


def test_the_budget_makes_a_thread_evaluate_by_itself(monkeypatch):
    monkeypatch.setattr(Limits, "nodes", 10)
    evaluate()
    x = treadle.ones(4)
    for _ in range(100):
        x = x + 1
        assert len(recorder.state.pending) < 12
    np.testing.assert_array_equal(x.numpy(), np.full(4, 101, "f4"))


def test_a_fork_drops_pending_work_with_an_error():
    import os

    if not hasattr(os, "fork"):
        pytest.skip("needs os.fork")
    x = treadle.ones(4) + 1
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        text = b"nothing raised"
        try:
            x.numpy()
        except treadle.base.errors.EvaluationError as error:
            text = str(error).encode()
        fresh = (treadle.ones(3) + 1).tolist()
        os.write(write, text + repr(fresh).encode())
        os._exit(0)
    os.waitpid(child, 0)
    told = os.read(read, 4096).decode()
    assert "recorded before the process forked" in told
    assert told.endswith("[2.0, 2.0, 2.0]")
    np.testing.assert_array_equal(x.numpy(), np.full(4, 2, "f4"))


def test_a_signal_handler_cannot_read_in_the_middle(monkeypatch):
    x = treadle.ones(16)
    y, z = x * 3.0, x + 4.0
    engine = evaluator()
    allocate = engine.device.allocate
    told = []

    def handler(nbytes):
        # What a handler would do that ran between two instructions of the evaluator.
        monkeypatch.undo()
        try:
            z.numpy()
        except treadle.base.errors.EvaluationError as error:
            told.append(str(error))
        return allocate(nbytes)

    monkeypatch.setattr(engine.device, "allocate", handler, raising=False)
    np.testing.assert_array_equal(y.numpy(), np.full(16, 3, "f4"))
    assert told and "inside a signal handler" in told[0]
    np.testing.assert_array_equal(z.numpy(), np.full(16, 5, "f4"))
