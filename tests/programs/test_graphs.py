"""Random graphs give the same bits op by op and as programs: forward, gradients, second gradients.

``make sweep-bits`` runs 20,000 of them.
"""

from __future__ import annotations

import pytest

from treadle.testing import laws

GRAPHS = 500


@pytest.mark.parametrize("one", laws.trainings(steps=10), ids=lambda one: one.name)
def test_trainings(one):
    ways = [
        laws.Way("generic and fused", "wait", policy="all"),
        laws.Way("moments of the swap", "beside", policy="all", swap=5),
    ]
    told = laws.differences([one.name], ways)
    assert [f"{v.case}: {v.difference}" for v in told if v.difference] == []


def test_random_graphs():
    names = [one.name for one in laws.graphs(range(20_000, 20_000 + GRAPHS))]
    told = list(laws.shared_out(names, "graphs", programs="wait"))
    assert len(told) == GRAPHS
    assert [f"{v.case}: {v.difference}" for v in told if v.difference] == []
