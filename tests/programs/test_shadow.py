"""``TREADLE_CHECK=shadow`` runs every program again op by op, and tells of a difference."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
from treadle.base.errors import EvaluationError
from treadle.base.flags import flags
from treadle.compiler import tier0
from treadle.compiler.program import Program
from treadle.compiler.shadow import Shadow


@pytest.fixture(autouse=True)
def shadow():
    with flags.context(programs="wait", check="shadow"):
        yield
    tier0.evaluator().programs.clear()


def step(i, data=None):
    x = treadle.tensor(np.arange(12.0, dtype="float32").reshape(3, 4) if data is None else data)
    return (treadle.tanh(x * 0.1) + i).t().flip(0)


def test_every_program_is_compared(monkeypatch):
    compared = []
    monkeypatch.setattr(Shadow, "compare", lambda self: compared.append(self))
    before = tier0.evaluator().programs.replays
    for i in range(5):
        step(i).tolist()
    assert len(compared) == tier0.evaluator().programs.replays - before >= 3


def test_a_wrong_bit_is_told_with_operation_and_line(monkeypatch):
    run = Program.run

    def wrong(self, *args):
        values = run(self, *args)
        memory, layout, _ = values[0]
        memory.array(layout.dtype, (12,)).view(np.int32)[5] += 1
        return values

    for i in range(3):
        step(i).tolist()
    monkeypatch.setattr(Program, "run", wrong)
    y = step(7)
    text = (
        r"flip: the program of this step differs from its operations run one by one, f32\[4,3\]: "
        r"1 of 12 elements differ: 7\.\d+ instead of 7\.\d+ at \[\d, \d\]; .* report it, and set "
        r"TREADLE_PROGRAMS=off .*test_shadow\.py:\d+\]"
    )
    with pytest.raises(EvaluationError, match=text):
        y.tolist()
    monkeypatch.undo()
    x = np.arange(12.0, dtype="float32").reshape(3, 4)
    np.testing.assert_allclose(y.numpy(), np.flip((np.tanh(x * 0.1) + 7).T, 0), rtol=1e-6)


def test_all_nans_are_equal_and_the_signs_of_zero_are_not():
    data = np.array([np.nan, -0.0, 0.0, np.inf], dtype="float32")
    for i in range(4):
        found = (step(0, data.reshape(2, 2)) * 1).numpy()
        assert np.isnan(found).sum() == 1 and i < 4


def test_an_error_is_that_of_the_operation():
    table = treadle.arange(10.0)
    for index in (1, 2, 3, 99, 4):
        y = table[treadle.tensor([0, index])] * 2 + treadle.tensor([1.0, 2.0]) * 3
        if index < 10:
            assert y.tolist() == [3.0, 2.0 * index + 6.0]
        else:
            with pytest.raises(IndexError, match="index out of range"):
                y.tolist()
