"""Sorts, the first k, and search: every way of sorting, on every dtype, against a stable sort.

Values of all samples, strides and gradients are the op table's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import treadle
from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.compiler import prepare, tier0
from treadle.ops import sort as ops
from treadle.ops import sort_kernels, sort_plans
from treadle.ops.project import results
from treadle.ops.registry import ALL
from treadle.tensor.storage import array_of, node_from_array
from treadle.testing.plans import interpret_op

# By counting, by radix row by row, along other axes, block by block; long for topk in pieces.
SHAPES = [((64,), 0), ((5, 63), 1), ((3, 700), 1), ((300, 5), 0), ((40000,), 0), ((2, 33000), 1)]


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every launch is cut in three."""
    before = treadle.get_num_threads()
    monkeypatch.setattr(prepare, "PARALLEL_WORK", 1)
    treadle.set_num_threads(3)
    yield
    treadle.set_num_threads(before)


def data(shape: Any, dtype: DType) -> np.ndarray:
    """Numbers with ties; of floats also NaN of both signs, infinities and zeros of both signs."""
    rng = np.random.default_rng(0)
    if dtype.kind == "b":
        return rng.random(shape) > 0.5
    if dtype.kind in "iu":
        info = np.iinfo(dtype.numpy)
        wide = rng.integers(info.min, info.max, shape, dtype.numpy, endpoint=True)
        return np.where(rng.random(shape) < 0.5, wide, wide % 5).astype(dtype.numpy)
    x = rng.standard_normal(shape)
    x = np.where(rng.random(shape) < 0.3, np.round(x), x)
    special = rng.choice([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0], shape)
    return np.where(rng.random(shape) < 0.2, special, x).astype(dtype.numpy)


def expected(x: np.ndarray, axis: int, descending: bool) -> tuple[np.ndarray, np.ndarray]:
    """By NumPy's stable sort, which also puts NaN last; descending from the end of each row."""
    plain = x.astype(np.float64) + 0.0 if dtypes.from_numpy(x.dtype).kind == "f" else x
    if not descending:
        places = np.argsort(plain, axis, kind="stable")
    else:
        turned = np.argsort(np.flip(plain, axis), axis, kind="stable")
        places = x.shape[axis] - 1 - np.flip(turned, axis)
    return np.take_along_axis(x, places, axis), places


def run(op: Any, x: np.ndarray, **attrs: Any) -> list[np.ndarray]:
    return [array_of(n) for n in results(op(node_from_array(x), **attrs))]


def check(x: np.ndarray, axis: int) -> None:
    for descending in (False, True):
        values, places = expected(x, axis, descending)
        got = run(ops.sort, x, axis=axis, descending=descending)
        assert np.array_equal(got[1], places)
        assert got[0].tobytes() == values.tobytes()  # the sign of zeros and NaNs included
        for k in (1, 10, 64, 100):
            if k <= x.shape[axis]:
                got = run(ops.topk, x, axis=axis, k=k, largest=descending)
                first = (slice(None),) * axis + (slice(k),)
                assert np.array_equal(got[1], places[first])
                assert got[0].tobytes() == values[first].tobytes()


@pytest.mark.parametrize("dtype", ALL, ids=lambda d: d.short)
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_every_way_of_sorting(dtype: DType, shape: Any, axis: int, threads: None):
    check(data(shape, dtype), axis)


@pytest.mark.parametrize(("shape", "axis"), [((60,), 0), ((3, 700), 1), ((40000,), 0)], ids=str)
def test_rows_whose_positions_do_not_fit_a_word_with_the_order(
    shape: Any, axis: int, threads: None, monkeypatch: pytest.MonkeyPatch
):
    """As rows of 2^32 elements would be sorted."""
    monkeypatch.setattr(sort_kernels, "is_packed", lambda dtype, n: False)
    tier0.forget_plans()
    check(data(shape, dtypes.float32), axis)
    tier0.forget_plans()


def test_there_is_room_for_every_thread_however_few_the_rows():
    """The last of the threads may be the one that takes a row."""
    layout = node_from_array(np.zeros((2, 300))).type.layout
    plan = sort_plans.PLANS["sort"]([layout], {"axis": 1, "descending": False}, 5)
    assert plan.workspaces == (5 * 2 * 300 * 8,) * 2


@pytest.mark.parametrize("n", [100, 40000])
@pytest.mark.parametrize("values", [[7], [3, 3 << 40], [-1, 0], [1 << 16, 2 << 16]])
def test_digits_that_are_all_the_same_are_skipped(n: int, values: list[int], threads: None):
    x = np.random.default_rng(0).choice(np.array(values, np.int64), n)
    check(x, 0)


def test_sorted_and_reversed_rows():
    x = np.arange(5000, dtype=np.float32) - 2500
    check(x, 0)
    check(x[::-1].copy(), 0)


@pytest.mark.parametrize("shape", [(70,), (3, 9)])
def test_the_interpreter_agrees(shape: tuple[int, ...]):
    x = data(shape, dtypes.float32)
    cases = [
        (ops.sort, {"axis": len(shape) - 1, "descending": True}),
        (ops.topk, {"axis": len(shape) - 1, "k": 5, "largest": True}),
    ]
    for op, attrs in cases:
        for a, b in zip(interpret_op(op, (x,), attrs), run(op, x, **attrs), strict=True):
            assert a.tobytes() == b.tobytes()


def test_pieces_of_a_long_row_are_searched_on_their_own():
    x = np.zeros(4 * sort_plans._PIECE + 5, np.float32)
    x[-1] = 1.0
    values, places = run(ops.topk, x, axis=0, k=3, largest=True)
    assert (values.tolist(), places.tolist()) == ([1.0, 0.0, 0.0], [len(x) - 1, 0, 1])


# --- search ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 31, 32, 33, 1000])
@pytest.mark.parametrize("right", [False, True])
def test_search_at_every_length(n: int, right: bool, threads: None):
    rng = np.random.default_rng(n)
    row, values = np.sort(rng.integers(0, 50, n)), rng.integers(-2, 53, 200)
    node = ops.search_sorted(node_from_array(row), node_from_array(values), right=right)
    side = "right" if right else "left"
    np.testing.assert_array_equal(array_of(node), np.searchsorted(row, values, side))


def test_nan_goes_behind_all_numbers():
    row, values = np.array([1.0, 2.0, np.nan]), np.array([np.nan, np.inf])
    node = ops.search_sorted(node_from_array(row), node_from_array(values), right=True)
    assert array_of(node).tolist() == [3, 3]
