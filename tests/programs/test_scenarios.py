"""Programs on which tracing compilers go wrong do what the Python says.

``treadle.testing.scenarios`` has them. Each runs long enough for its graphs to run as programs,
under ``TREADLE_CHECK=shadow``, and is compared bit by bit with its run without programs, and in
numbers with PyTorch.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import treadle
from tools.scenario_values import sums
from treadle.testing.laws import Comparison, Way, subject
from treadle.testing.scenarios import HUGE, SCENARIOS

PYTORCH = json.loads((Path(__file__).parent / "pytorch.json").read_text())
WAYS = [
    Way("generic and fused", "wait", policy="all"),
    Way("moments of the swap", "beside", threads=2, policy="reads", swap=0),
    Way("moments of evaluation", "beside", policy="some"),
]


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_bits_are_those_of_single_operations(name):
    one = Comparison([subject(f"scenario {name}")])
    ways = WAYS if SCENARIOS[name].size < HUGE else [Way(programs="beside", policy="all")]
    wrong = [f"{v.case}: {v.difference}" for way in ways for v in one.way(way) if v.difference]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", [n for n, s in SCENARIOS.items() if not s.is_random])
def test_the_numbers_are_those_of_pytorch(name):
    """By the sums that ``tools.scenario_values`` has written with PyTorch."""
    wrong = [
        (step, found, expected)
        for step, (found, expected) in enumerate(
            zip(sums(treadle, name), PYTORCH[name], strict=True)
        )
        if found != pytest.approx(expected, rel=1e-4, abs=3e-5 * (expected[1] + 1))
        or found[2] != expected[2]
    ]
    assert wrong == []


def test_scenarios_run_often_enough():
    assert len(SCENARIOS) > 40
    assert set(PYTORCH) == {name for name, s in SCENARIOS.items() if not s.is_random}
    assert min(len(steps) for steps in PYTORCH.values()) >= 12
