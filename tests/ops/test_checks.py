"""Checks of values: which elements each rule refuses, and what is told."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
from treadle.base.errors import EvaluationError
from treadle.compiler import tier0
from treadle.ops.checks import RULES, check
from treadle.tensor.storage import array_of, node_from_array
from treadle.testing.op_table import strided

WORDS = "got {value}{where}"
CASES = {  # limits, a good array, bad values
    "not_nan": ((), [0.0, -np.inf, np.inf, 3.5], [np.nan, -np.nan]),
    "in_unit_interval": ((), [0.0, 1.0, 0.5, np.nan], [-0.5, 1.5, np.inf, -np.inf]),
    "positive": ((), [1.0, 0.5, np.inf, 1e-6], [0.0, -1.0, np.nan, -np.inf]),
    "not_negative": ((), [0.0, 0.5, np.inf, -0.0], [-0.5, -np.inf, np.nan, -1.0]),
    "index_in_range": ((5,), [0, 4, 2, 1], [5, -1, 2**62, -(2**63)]),
    "index_wraps": ((5,), [0, 4, -5, -1], [5, -6, 2**62, -(2**63)]),
    "label_in_range": ((5, -7), [0, 4, -7, 1], [5, -1, -100, 2**62]),
}


def checked(array, rule, make_node=node_from_array):
    limits = CASES[rule][0]
    return array_of(check(make_node(array), rule=rule, limits=limits, words=WORDS))


def good_array(rule, size, dtype):
    return np.resize(np.array(CASES[rule][1]), size).astype(dtype)


def dtypes_of(rule):
    return [d.numpy for d in RULES[rule].dtypes]


@pytest.mark.parametrize("rule", RULES)
def test_good_values_pass_as_they_are(rule):
    for dtype in dtypes_of(rule):
        for size in (0, 1, 15, 16, 17, 100):
            x = good_array(rule, size, dtype)
            assert checked(x, rule).tobytes() == x.tobytes()


@pytest.mark.parametrize("size", [1, 16, 37])
@pytest.mark.parametrize("rule", RULES)
def test_every_bad_value_is_found_wherever_it_is(rule, size):
    error = RULES[rule].error
    for dtype in dtypes_of(rule):
        for position in range(size):
            x = good_array(rule, size, dtype)
            x[position] = bad = np.resize(CASES[rule][2], size)[position]
            shown = rf"{bad:g}(\.0)?" if error is EvaluationError else str(bad)
            with pytest.raises(error, match=rf"^got {shown} at \[{position}\] \[test_checks.py"):
                checked(x, rule)


def test_the_first_of_several_is_told_whatever_the_layout_and_the_threads():
    x = np.zeros((3, 40_000))
    x[1, 70] = x[2, 3] = x[1, 30_000] = np.nan
    before = treadle.get_num_threads()
    try:
        for threads in (1, 3):
            treadle.set_num_threads(threads)
            for make_node in (node_from_array, strided):
                with pytest.raises(EvaluationError, match=r"^got nan at \[1, 70\] \(and 2 more\)"):
                    checked(x, "not_nan", make_node)
    finally:
        treadle.set_num_threads(before)
        tier0.forget_plans()


def test_what_does_not_depend_on_the_bad_value_goes_on():
    x = treadle.tensor([1.0, np.nan])
    bad = treadle.nn.functional.mse_loss(treadle.zeros(2), x)
    after, good = bad * 2, x + 1
    assert good.tolist()[0] == 2.0
    for loss in (bad, after):
        with pytest.raises(RuntimeError, match=r"^mse_loss: the target has a NaN at \[1\]"):
            loss.item()
