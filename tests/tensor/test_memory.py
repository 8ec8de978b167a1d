"""Who holds the memory, now and at the peak."""

import gc
import re

import pytest

import treadle
from treadle import nn, optim

SIZE = 128 * 128 * 4


@pytest.fixture(autouse=True)
def nothing_else():
    gc.collect()
    yield
    treadle.reset_peak_memory_stats()


def grown(before):
    """Owners that hold more, or less, and by how many matrices."""
    after = treadle.memory_by_owner()
    matrices = {name: round((after[name] - old) / SIZE) for name, old in before.items()}
    return {name: number for name, number in matrices.items() if number}


def test_owners_of_a_training():
    before = treadle.memory_by_owner()
    net = nn.Linear(128, 128, bias=False)
    x = treadle.randn(128, 128)
    (x + 0).sum().item()
    assert grown(before) == {"parameters": 1, "other tensors": 1}
    optimizer = optim.Adam(net.parameters())
    net(x).sum().backward()
    assert net.weight.grad.shape == (128, 128)
    optimizer.step()
    found = grown(before)
    assert found["parameters"] == found["gradients"] == 1
    assert found["optimizer state"] == 2
    net.weight.grad = None
    assert "gradients" not in grown(before)


def test_what_a_gradient_needs_is_the_graphs():
    x = treadle.randn(128, 128)
    x.numpy()
    x.requires_grad_()
    before = treadle.memory_by_owner()
    y = x.exp().sin()
    y.sum().item()
    assert grown(before) == {"graph": 1, "other tensors": 1}  # exp(x) and y
    del y
    assert grown(before) == {}


def test_views_and_detached_tensors_count_once():
    before = treadle.memory_by_owner()
    x = treadle.randn(128, 128)
    views = [x.t(), x[3:], x.detach(), x.reshape(-1)]
    for view in views:
        view.sum().item()
    assert grown(before)["other tensors"] == 1


def test_sum_is_what_is_allocated():
    kept = treadle.randn(1000)
    kept.sum().item()
    assert sum(treadle.memory_by_owner().values()) == treadle.memory_stats()["allocated.current"]


def test_peak_by_owner():
    treadle.reset_peak_memory_stats(by_owner=True)
    x = treadle.ones(256, 1024)
    y = treadle.ones(256, 1024)
    (x + y).sum().item()
    del y
    summary = treadle.memory_summary()
    (peak,) = re.search(r"other tensors +[\d.]+ \w+ +([\d.]+) MiB", summary).groups()
    assert float(peak) >= 2
    treadle.reset_peak_memory_stats()
    assert re.search(r"other tensors +[\d.]+ \w+\n", treadle.memory_summary())


def test_summary_has_every_owner():
    lines = treadle.memory_summary().splitlines()
    names = [line[:18].strip() for line in lines]
    assert names == ["memory", "allocated", *treadle.memory_by_owner(), "reserved"]
