"""The law of bits: a result never depends on how it was computed.

Random programs (``treadle.testing.programs``) and a small training are run with other numbers of
threads, other moments of evaluation, other layouts in memory, and in fresh processes with a cold
and a warm kernel cache and with other vector widths. ``make sweep-bits`` does it for many more.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import lru_cache

import numpy as np
import pytest

import treadle
from treadle.compiler import prepare, tier0
from treadle.nn import functional as F
from treadle.testing.networks import NETWORKS
from treadle.testing.programs import (
    Run,
    evaluated,
    fingerprint,
    first_difference,
    run_program,
    run_training,
    same_bits,
)

SEEDS = range(40)
POLICIES = ("each", "some", "reads")


@lru_cache(maxsize=None)
def _expected(seed: int) -> Run:
    with evaluated("end") as barrier:
        return run_program(seed, barrier)


@lru_cache(maxsize=None)
def _expected_training(name: str = "lenet") -> Run:
    with evaluated("end") as barrier:
        return run_training(barrier, name=name)


@pytest.fixture
def threads(request, monkeypatch):
    """Runs with that many threads, each launch cut for all of them however small it is."""
    before = treadle.get_num_threads()
    monkeypatch.setattr(prepare, "PARALLEL_WORK", 1)
    tier0.forget_plans()
    treadle.set_num_threads(request.param)
    yield request.param
    treadle.set_num_threads(before)
    tier0.forget_plans()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", SEEDS)
def test_moments_of_evaluation(seed, policy):
    with evaluated(policy, seed) as barrier:
        run = run_program(seed, barrier)
    assert not first_difference(_expected(seed), run)


@pytest.mark.parametrize("threads", [1, 2, 3], indirect=True)
def test_threads(threads):
    for seed in SEEDS:
        assert not first_difference(_expected(seed), run_program(seed)), f"seed {seed}"


def test_repetition():
    programs = tier0.evaluator().programs
    for seed in SEEDS:
        before = programs.replays
        for _ in range(3):
            with evaluated("end") as barrier:
                run = run_program(seed, barrier)
            assert not first_difference(_expected(seed), run), f"seed {seed}"
        assert programs.replays > before, f"seed {seed} ran by no program"


def test_layouts():
    for seed in SEEDS:
        run = run_program(seed, strided=True)
        assert not first_difference(_expected(seed), run), f"seed {seed}"


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("policy", POLICIES)
def test_training_and_moments_of_evaluation(policy, name):
    with evaluated(policy) as barrier:
        run = run_training(barrier, name=name)
    assert not first_difference(_expected_training(name), run)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("threads", [1, 2, 3, 5], indirect=True)
def test_training_and_threads(threads, name):
    assert not first_difference(_expected_training(name), run_training(name=name))


@pytest.mark.parametrize("name", NETWORKS)
def test_training_moves(name):
    """What is compared is not constant."""
    short = run_training(num_steps=1, name=name)
    assert first_difference(_expected_training(name), short)
    moved = _expected_training(name).results[3:]  # after the losses of three steps
    assert not any(same_bits(x, y) for x, y in zip(moved[:2], short.results[1:3], strict=True))


def test_programs_differ():
    assert len({fingerprint([_expected(seed)]) for seed in SEEDS}) == len(SEEDS)


# --- in fresh processes ---------------------------------------------------------------------------

_PROCESS = """
from treadle.runtime import jit
from treadle.testing.networks import NETWORKS
from treadle.testing.programs import fingerprint, run_program, run_training
print(fingerprint([run_program(1, num_steps=8), *(run_training(name=n) for n in NETWORKS)]))
print(jit.statistics().compiled, jit.statistics().loaded)
"""


def _start(cache, **variables: str) -> subprocess.Popen[str]:
    environment = {name: x for name, x in os.environ.items() if not name.startswith("TREADLE_")}
    environment |= {"TREADLE_CACHE_DIR": str(cache), **variables}
    return subprocess.Popen(
        [sys.executable, "-c", _PROCESS], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def _finish(process: subprocess.Popen[str]) -> tuple[str, int, int]:
    """(fingerprint, kernels compiled, kernels loaded from the cache)."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    digest, compiled, loaded = out.split()
    return digest, int(compiled), int(loaded)


def test_cold_and_warm_cache_and_vector_widths(tmp_path):
    here = fingerprint([run_program(1, num_steps=8), *map(_expected_training, NETWORKS)])
    cold = _start(tmp_path / "native")
    narrow = _start(tmp_path / "narrow", TREADLE_VECTOR_BITS="128", TREADLE_NUM_THREADS="1")
    digest, compiled, loaded = _finish(cold)
    assert (digest, loaded) == (here, 0)
    assert compiled > 20
    assert _finish(_start(tmp_path / "native")) == (here, 0, compiled)
    assert _finish(narrow)[0] == here


# --- rows of a batch ------------------------------------------------------------------------------


def _row_by_row(function, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Results of all rows at once, and of every row by itself."""
    together = function(treadle.from_numpy(x)).numpy()
    alone = [function(treadle.from_numpy(x[i : i + 1])).numpy() for i in range(len(x))]
    return together, np.concatenate(alone)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize(("batch", "columns", "width"), [(2, 3, 5), (7, 10, 600), (64, 100, 1000)])
def test_rows_of_linear(dtype, batch, columns, width):
    rng = np.random.default_rng(batch)
    weight = treadle.from_numpy(rng.normal(size=(columns, width)).astype(dtype))
    bias = treadle.from_numpy(rng.normal(size=columns).astype(dtype))
    x = rng.normal(size=(batch, width)).astype(dtype)
    together, alone = _row_by_row(lambda t: F.linear(t, weight, bias), x)
    assert same_bits(together, alone)


@pytest.mark.parametrize(
    ("batch", "shape", "window", "options"),
    [
        (5, (1, 28, 28), (20, 1, 5, 5), {}),
        (9, (20, 12, 12), (50, 20, 5, 5), {}),
        (3, (4, 9, 8), (6, 2, 3, 2), {"stride": 2, "padding": 1, "groups": 2}),
    ],
)
def test_images_of_convolution(batch, shape, window, options):
    rng = np.random.default_rng(batch)
    weight = treadle.from_numpy(rng.normal(size=window).astype(np.float32))
    x = rng.normal(size=(batch, *shape)).astype(np.float32)
    together, alone = _row_by_row(lambda t: F.conv2d(t, weight, **options), x)
    assert same_bits(together, alone)


def _input_gradient(x: treadle.Tensor, weight: treadle.Tensor) -> treadle.Tensor:
    x.requires_grad_()
    F.conv2d(x, weight, padding=1).square().sum().backward()
    return x.grad


def test_images_of_the_input_gradient():
    rng = np.random.default_rng(0)
    weight = treadle.from_numpy(rng.normal(size=(8, 3, 3, 3)).astype(np.float32))
    x = rng.normal(size=(6, 3, 10, 11)).astype(np.float32)
    together, alone = _row_by_row(lambda t: _input_gradient(t, weight), x)
    assert same_bits(together, alone)
