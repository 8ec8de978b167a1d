"""Whole programs written for PyTorch give PyTorch's numbers with their import lines changed.

``tests/programs/corpus`` has them; ``tools.program_corpus`` wrote what PyTorch makes of them, in
float32 and float64, from the same weights, noise, masks and shuffles. ``make sweep-programs``
compares all hundred steps, and speed.
"""

from __future__ import annotations

import ast
import sys

import numpy as np
import pytest

import treadle
from tools import program_corpus as corpus
from tools.program_draws import given
from treadle.nn import functional as F

PYTORCH = corpus.stored()
_STEPS = 6
_FEW = {"reinforce": 2, "seq2seq_attention": 2, "tree_lstm": 2}  # they have long steps


@pytest.mark.parametrize("name", corpus.NAMES)
def test_the_numbers_are_those_of_pytorch(name):
    steps = _FEW.get(name, _STEPS)
    found = corpus.told(name, "treadle", steps)
    theirs, exact = (PYTORCH[name][kind][:steps] for kind in ("float32", "float64"))
    shares = corpus.excess(found, theirs, exact)
    assert (shares <= 1).all(), f"step {shares.argmax() + 1}: {found} and {theirs}"


@pytest.mark.parametrize("name", corpus.NAMES)
def test_a_program_learns(name):
    """Under PyTorch, over a hundred steps; the sweep asks the same of ours."""
    assert len(PYTORCH[name]["float32"]) == corpus.STEPS
    assert corpus.falls(PYTORCH[name]["float32"])


@pytest.mark.parametrize("name", corpus.NAMES)
def test_a_program_knows_of_pytorch_only(name):
    tree = ast.parse((corpus.FOLDER / f"{name}.py").read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    packages = {name.partition(".")[0] for name in imported}
    assert "torch" in packages
    assert packages <= {"torch", "numpy", *sys.stdlib_module_names}


def test_there_are_programs_of_every_kind():
    assert len(corpus.NAMES) > 24
    assert set(PYTORCH) == set(corpus.NAMES)


def test_given_draws_are_the_generators_and_everything_is_put_back():
    before = (
        treadle.randn,
        F.dropout,
        vars(treadle.Tensor).get("normal_"),
        treadle.nn.Linear.__init__,
    )
    seen = []
    for _ in range(2):
        with given(treadle, seed=3):
            weight = treadle.nn.Linear(3, 2).weight.detach().numpy()
            seen.append([weight, treadle.randn(2, 2).numpy(), F.dropout(treadle.ones(9)).numpy()])
    for first, second in zip(*seen, strict=True):
        np.testing.assert_array_equal(first, second)
    rng = np.random.default_rng(3)
    drawn = rng.random((2, 3), np.float32)
    np.testing.assert_allclose(seen[0][0], (drawn * 2 - 1) / np.sqrt(3), rtol=1e-6)
    rng.random(2, np.float32)  # the bias
    np.testing.assert_array_equal(seen[0][1], rng.standard_normal((2, 2), np.float32))
    np.testing.assert_array_equal(seen[0][2], (rng.random(9, np.float32) >= 0.5) * 2)
    after = (
        treadle.randn,
        F.dropout,
        vars(treadle.Tensor).get("normal_"),
        treadle.nn.Linear.__init__,
    )
    assert after == before


def test_the_bound_is_pytorchs_own_difference():
    exact, theirs = np.array([[1.0], [-0.5]]), np.array([[1.002], [-0.5]])
    np.testing.assert_allclose(corpus.excess(theirs + 0.003, theirs, exact), [0.5, 0.5])
    np.testing.assert_allclose(corpus.excess(theirs * 1.0002, theirs, theirs), [2.0, 2.0])
    assert corpus.excess(theirs * np.nan, theirs, exact).tolist() == [np.inf, np.inf]
