"""Tuning measures ways and remembers the winner; results stay what they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import treadle
from treadle.base import dtypes
from treadle.base.flags import flags
from treadle.codegen.gemm_cost import Problem, Way
from treadle.compiler import tune
from treadle.compiler.device import Device
from treadle.ir.launch import Layout, contiguous


def test_a_winner_is_measured_once_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[list[Way]] = []
    real = tune._measure

    def measure(problem: Problem, candidates: list[Way], device: Device) -> list[float]:
        measured.append(candidates)
        return real(problem, candidates, device)

    monkeypatch.setattr(tune, "_measure", measure)
    monkeypatch.setattr(tune, "CANDIDATES", 2)
    monkeypatch.setattr(tune, "_SECONDS", 0.0)
    f32 = dtypes.float32
    backwards = Layout(f32, (1, 30, 40), (1200, -40, 1))
    layouts = (backwards, contiguous(f32, (1, 40, 50)), contiguous(f32, (1, 30, 50)))
    with flags.context(cache_dir=str(tmp_path)):
        tune.tuned_matmul.cache_clear()
        first = tune.tuned_matmul(*layouts, 2, 256)
        assert len(measured) == 1 and len(measured[0]) == 2
        tune.tuned_matmul.cache_clear()  # as another process would begin
        assert tune.tuned_matmul(*layouts, 2, 256) == first
        assert len(measured) == 1
        tune.tuned_matmul(*layouts, 1, 256)  # another number of threads is another question
        assert len(measured) == 2


def test_results_do_not_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "CANDIDATES", 2)
    monkeypatch.setattr(tune, "_SECONDS", 0.0)
    rng = np.random.default_rng(0)
    a = rng.standard_normal((37, 21)).astype("f4")
    b = rng.standard_normal((21, 45)).astype("f4")
    plain = (treadle.tensor(a) @ treadle.tensor(b)).numpy()
    with flags.context(cache_dir=str(tmp_path), tune=True):
        # Other shapes than those above: what is planned once stays planned.
        wide = np.concatenate([b, b], axis=1)
        tuned = (treadle.tensor(a) @ treadle.tensor(wide)).numpy()
    np.testing.assert_array_equal(tuned[:, :45], plain)
