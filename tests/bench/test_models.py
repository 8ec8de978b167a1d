"""The programs of ``bench/models`` in their small forms, and what their report computes."""

from __future__ import annotations

import math
import sys

import pytest

import treadle
from bench.harness import Peer
from bench.models.catalog import PROGRAMS, make
from bench.models.draws import Draws
from bench.models.report import _difference, time_to_steady
from treadle.base.flags import flags

_STEPS = 12
_ONLY_ASKED = {"resnet50_inference", "mobilenet_inference", "gpt_generate", "chain"}


def _losses(name: str, programs: str) -> list[float]:
    treadle.manual_seed(0)
    with flags.context(programs=programs):
        program = make(name, Draws(), is_reduced=True)
        return [program.step(i) for i in range(_STEPS)]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_trains_and_gives_the_same_bits_fused(name):
    losses = _losses(name, "off")
    assert all(map(math.isfinite, losses))
    if name not in _ONLY_ASKED:
        assert sum(losses[-4:]) < 0.97 * sum(losses[:4])
    assert _losses(name, "wait") == losses


@pytest.mark.parametrize("name", ["gpt", "vae", "chain"])
def test_given_masks_and_noise_leave_the_generator_alone(name):
    seen = []
    for seed in (1, 2):
        treadle.manual_seed(seed)
        seen.append(make(name, Draws(is_given=True), is_reduced=True).step(0))
    assert seen[0] == seen[1]


def test_a_worker_measures_a_program():
    with Peer("Treadle", sys.executable, "bench.models.worker") as worker:
        assert worker.version == treadle.__version__
        assert worker.ask("start", program="mlp") > 0
        assert worker.ask("round", steps=2) > 0
        assert worker.ask("memory")["live"] > 4 * 3 * 537_354 / 2**20  # weights, Adam's two
        work = worker.ask("work")
        parts = worker.ask("profile", steps=2)
    layers = ((784, 512), (512, 256), (256, 10))
    passes = sum(3 * 2 * 128 * a * b for a, b in layers) - 2 * 128 * 784 * 512
    assert work["flops"] == passes
    assert work["bytes"] > 4 * 6 * 537_354  # read and written
    assert math.isclose(parts["a step"], sum(parts.values()) / 2)
    assert parts["kernels"] > 0


def test_time_to_steady():
    assert time_to_steady(2.0, [0.5] * 10 + [0.1] * 30) == pytest.approx(6.0)
    assert time_to_steady(0.1, [0.1] * 10) == pytest.approx(0.1)


def test_the_bound_of_a_difference_is_pytorchs_own():
    row = _difference("x", [1.0, 1.003], [1.0, 1.0], [1.0, 1.002])
    assert row.met
    assert row.bound == pytest.approx(3 * 0.002 / 1.002)
    assert not _difference("x", [1.0, 1.003], [1.0, 1.0], [1.0, 1.0]).met
    assert not _difference("x", [1.0, math.nan], [1.0, 1.0], [1.0, 1.0]).met
