"""The law of bits: a result never depends on how it was computed.

Each clause over the op table, random programs and trainings, by ``treadle.testing.laws``; a few
telling cases of what ``make sweep-bits`` does at length.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

import treadle
from treadle.base import dtypes
from treadle.testing import definitions, laws
from treadle.testing.laws import Comparison, Elsewhere, Way
from treadle.testing.networks import NETWORKS
from treadle.testing.programs import (
    evaluated,
    fingerprint,
    first_difference,
    run_training,
    same_bits,
)
from treadle.testing.rows import ROWS

PROGRAMS = range(8)
KINDS = ("ops", "programs", "trainings")


@lru_cache(maxsize=None)
def compared(kind: str) -> Comparison:
    if kind == "ops":
        return Comparison(laws.op_samples(every_dtype=False))
    return Comparison(laws.programs(PROGRAMS) if kind == "programs" else laws.trainings())


def same(kind: str, way: Way) -> bool:
    """True where every subject has the bits of its plainest run; tells the others."""
    wrong = [f"{v.case}: {v.difference}" for v in compared(kind).way(way) if v.difference]
    assert not wrong, "\n".join(wrong)
    return not wrong


@pytest.mark.parametrize("threads", laws.THREADS[1:])
@pytest.mark.parametrize("kind", KINDS)
def test_threads(kind, threads):
    assert same(kind, Way(threads=threads))


@pytest.mark.parametrize("threads", laws.THREADS)
@pytest.mark.parametrize("kind", KINDS)
def test_generic_and_fused_kernels(kind, threads):
    assert same(kind, Way(programs="wait", threads=threads))


@pytest.mark.parametrize("kind", KINDS)
def test_programs_made_beside_the_run(kind):
    assert same(kind, Way(programs="beside"))


@pytest.mark.parametrize("policy", laws.POLICIES)
@pytest.mark.parametrize("kind", KINDS)
def test_moments_of_evaluation(kind, policy):
    assert same(kind, Way(policy=policy))


@pytest.mark.parametrize("kind", ["ops", "trainings"])
def test_moments_of_evaluation_of_programs(kind):
    assert same(kind, Way(programs="wait", policy="reads"))


@pytest.mark.parametrize("place", laws.LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_layouts(kind, place):
    assert same(kind, Way(place=place))


@pytest.mark.parametrize(
    ("kind", "place"), [("trainings", "strided"), ("ops", "shifted"), ("ops", "expanded")]
)
def test_layouts_in_programs(kind, place):
    assert same(kind, Way(programs="wait", place=place))


@pytest.mark.parametrize(("kind", "seed"), [("ops", 0), ("trainings", 1), ("trainings", 2)])
def test_tiles_and_cuts(kind, seed):
    assert same(kind, Way(programs="wait", threads=1 + seed, schedule=seed))


# --- in fresh processes ---------------------------------------------------------------------------


def test_cold_and_warm_cache(tmp_path):
    few = Comparison([*laws.programs([1]), *laws.trainings()])
    for kind in ("cold cache, fused", "warm cache, fused"):
        process = Elsewhere(kind, few.subjects, str(tmp_path))
        assert [v for v in process.verdicts(few) if v.difference] == []


def test_vector_widths(tmp_path):
    """Code for 512 bits runs in halves where there are no such vectors."""
    few = Comparison([*laws.programs([1, 4]), *laws.trainings()])
    kinds = ("vectors of 128 bits", "vectors of 512 bits")
    processes = [Elsewhere(kind, few.subjects, str(tmp_path)) for kind in kinds]
    for process in processes:
        assert [v for v in process.verdicts(few) if v.difference] == []


def test_contractions_for_wide_vectors_in_the_interpreter():
    cases = [c for c in definitions.contraction_cases() if c.dtype is dtypes.float32]
    for case in cases[::6]:
        assert not definitions.wide_difference(case), case.name


@pytest.mark.skipif(not definitions.has_fma(), reason="no x86-64 with FMA to compare with")
@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64], ids=lambda d: d.short)
def test_emulated_fma(dtype):
    assert not definitions.fma_difference(dtype, 1000)


# --- definitions ----------------------------------------------------------------------------------


def test_elementwise_functions_and_the_interpreter():
    cases = list(definitions.elementwise_cases())
    assert len(cases) > 400
    usual = [case for case in cases if case.dtype is dtypes.float32]
    others = [case for case in cases if case.dtype is not dtypes.float32]
    wrong = [(c.name, text) for c in (*usual, *others[::4]) if (text := c.difference(32))]
    assert wrong == []


@pytest.mark.parametrize("rows", ROWS, ids=lambda rows: rows.name)
def test_rows_of_batches(rows):
    assert not rows.check(rows.dtypes[0])


# --- what is compared is worth comparing ----------------------------------------------------------


def test_subjects_differ():
    one = compared("programs")
    assert len({fingerprint([one.plain(s)]) for s in one.subjects}) == len(one.subjects)


@pytest.mark.parametrize("name", NETWORKS)
def test_training_moves(name):
    with evaluated("end") as barrier:
        long, short = (run_training(barrier, steps, name) for steps in (3, 1))
    assert first_difference(long, short)
    moved = long.results[3:]  # after the losses of three steps
    assert not any(same_bits(x, y) for x, y in zip(moved[:2], short.results[1:3], strict=True))


def test_a_difference_is_told():
    one = compared("trainings")
    subject = one.subjects[0]
    other = Comparison([subject._replace(run=lambda b, place: run_training(b, 3, "gpt", place))])
    other._plain[subject.name, "contiguous"] = one.plain(subject)
    (verdict,) = other.way(Way("threads", threads=2))
    assert verdict.case == "training lenet 3, threads 2"
    assert "other steps" in verdict.difference


def test_one_different_bit_is_told():
    x = np.arange(6, dtype=np.float32)
    y = x.copy()
    y.view(np.int32)[4] += 1
    run = compared("programs").plain(compared("programs").subjects[0])
    one, other = run._replace(results=[x]), run._replace(results=[y])
    assert first_difference(one, other).startswith("result 0 differs, float32[6], in 1 elements")
    assert treadle.get_num_threads() >= 1  # as it was: no way leaves its settings behind
