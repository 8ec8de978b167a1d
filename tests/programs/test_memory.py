"""Memory stays flat and bounded over a thousand steps of a scenario.

``make sweep-bits`` runs 10,000 of each, here is every third one.

Bytes of tensors may not grow at all but for what differs from step to step; the process may grow
by the programs of graphs that are new, of which there is a bounded number.
"""

from __future__ import annotations

import sys

import pytest

from treadle.testing.growth import growth
from treadle.testing.scenarios import SCENARIOS

STEPS = 1000
SOME = list(SCENARIOS)[::3]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
@pytest.mark.parametrize("name", SOME)
def test_memory_is_flat(name):
    found = growth(name, STEPS)
    assert not found.excess()


def test_a_leak_is_told(monkeypatch):
    """What keeps 4 KiB in every step is too much."""
    import treadle
    from treadle.testing.scenarios.scenario import Scenario

    kept = []

    def begin(torch):
        def step(i):
            kept.append(torch.full((1024,), float(i)).tolist() and torch.ones(1024) * i)
            return [kept[-1]]

        return step

    monkeypatch.setitem(SCENARIOS, "leak", Scenario("leak", "", begin, False, 1, True))
    text = growth("leak", 100).excess()
    assert "more in tensors" in text
    assert treadle.is_tensor(kept[0])
