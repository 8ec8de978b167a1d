"""Native builds, compiled into C programs: their bits are Python's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import treadle
from tests.export.built import needs_cc, run_built
from treadle import nn
from treadle.export import Dim, export, load
from treadle.export.native import BuildError, build
from treadle.nn import functional as F

FILE = Path(__file__).parent / "files" / "v1.treadle"
pytestmark = needs_cc


def same(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def picture(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def lenet():
    treadle.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 84),
        nn.Tanh(), nn.Linear(84, 10),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("inside", [True, False], ids=["weights inside", "weights beside"])
def test_a_convolutional_network(inside, tmp_path):
    model, x = lenet(), picture(4, 1, 28, 28)
    program = export(model, (treadle.from_numpy(x),))
    expected = np.asarray(program(treadle.from_numpy(x)))
    built = build(program, name="lenet", weights_inside=inside)
    assert (built.weights is None) is inside
    arena = "aligned_alloc(64, LENET_ARENA_BYTES)"
    calls = [("forward", {"input": x})] * 2
    for threads in ("NULL", "&several", "&own"):
        (got,), (again,) = run_built(
            built, calls, tmp_path, arena, threads, own_threads=threads == "&own"
        )
        assert same(got, expected) and same(again, expected)


def test_training_goes_on_with_the_bits_of_python(tmp_path):
    program = load(FILE)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((16, 1, 8, 8), np.float32), rng.integers(0, 4, 16)
    built = build(program, name="net", sizes={"N": 16})
    calls = [("train", {"x": x, "y": y})] * 3 + [("predict", {"x": x})]
    expected = [
        program.run(entry, *[treadle.from_numpy(a) for a in given.values()])
        for entry, given in calls
    ]
    got = run_built(built, calls, tmp_path, threads="&several")
    for (a,), b in zip(got, expected, strict=True):
        assert same(a, b)
