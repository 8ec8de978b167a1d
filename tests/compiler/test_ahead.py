"""Finding the kernels of a graph before it runs."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.compiler.ahead import kernels_ahead
from treadle.compiler.tier0 import evaluate, evaluator, forget_plans
from treadle.ir.call import write_out
from treadle.ir.node import recorder


@pytest.fixture
def device(monkeypatch):
    """A device whose kernels are told, and that has none yet."""
    engine = evaluator()
    device = type(engine.device)()
    device.asked = []
    compile_kernel = device.compile
    device.compile = lambda spec: (device.asked.append(spec), compile_kernel(spec))[1]
    monkeypatch.setattr(engine, "device", device)
    evaluate()
    forget_plans()
    yield device
    forget_plans()


def step() -> treadle.Tensor:
    """A graph with views, copies, several results, reductions and contractions."""
    x = treadle.tensor(np.linspace(-1, 1, 2 * 3 * 8 * 8, dtype="f4").reshape(2, 3, 8, 8))
    layer = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.Flatten())
    y = layer(x.permute(0, 1, 3, 2))
    y = y.reshape(2, 4, 9).permute(2, 0, 1).reshape(9, 8) @ treadle.ones(8, 5).t().t()
    loss = (y.softmax(1).amax(0) * y[:5, 0]).sum()
    loss.backward()
    return layer[0].weight.grad


def test_the_kernels_found_are_those_that_are_asked_for(device):
    step_result = step()
    write_out(recorder.state)
    nodes = list(recorder.state.pending)
    found = kernels_ahead(nodes, device.threads(), device.vector_bits)
    assert len(found) == len(set(found)) > 15
    device.compile_ahead = lambda specs: None
    step_result.numpy()
    assert set(device.asked) <= set(found)


def test_they_are_compiled_in_one_go_when_the_first_is_missing(device, monkeypatch):
    told = []
    compile_ahead = device.compile_ahead
    device.compile_ahead = lambda specs: (told.append(list(specs)), compile_ahead(specs))[1]
    first = step().numpy()
    assert len(told) == 1
    again = step().numpy()
    assert len(told) == 1
    assert first.shape == again.shape
