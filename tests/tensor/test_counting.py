"""Distinct elements, counts and search as a user calls them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle.base.errors import DTypeError, ShapeError


def lists(result: Any) -> Any:
    return [x.tolist() for x in result] if isinstance(result, tuple) else result.tolist()


def test_distinct_elements():
    x = treadle.tensor([[3, 1], [3, 2]])
    assert lists(x.unique()) == [1, 2, 3]
    everything = x.unique(return_inverse=True, return_counts=True)
    assert lists(everything) == [[1, 2, 3], [[2, 0], [2, 1]], [1, 1, 2]]
    assert lists(treadle.zeros(0).unique(return_counts=True)) == [[], []]
    assert len(treadle.tensor([float("nan")] * 2).unique()) == 2
    assert lists(treadle.tensor(4.0).unique(return_inverse=True)) == [[4.0], 0]


def test_distinct_slices():
    x = treadle.tensor([[1, 2], [1, 2], [0, 9]])
    found = x.unique(dim=0, return_inverse=True, return_counts=True)
    assert lists(found) == [[[0, 9], [1, 2]], [1, 1, 0], [1, 2]]
    assert lists(x.t().unique(dim=1)) == [[0, 1], [9, 2]]
    random = np.random.default_rng(0).integers(0, 3, (50, 3))
    np.testing.assert_array_equal(
        treadle.tensor(random).unique(dim=0).numpy(), np.unique(random, axis=0)
    )


def test_runs():
    x = treadle.tensor([1, 1, 2, 2, 1])
    found = x.unique_consecutive(return_inverse=True, return_counts=True)
    assert lists(found) == [[1, 2, 1], [0, 0, 1, 1, 2], [2, 2, 1]]
    rows = treadle.tensor([[1, 2], [1, 2], [3, 4]])
    assert lists(rows.unique_consecutive(dim=0)) == [[1, 2], [3, 4]]


def test_counts_of_whole_numbers():
    x = treadle.tensor([1, 3, 1], dtype=treadle.uint8)
    assert lists(x.bincount()) == [0, 2, 0, 1]
    assert lists(x.bincount(minlength=6)) == [0, 2, 0, 1, 0, 0]
    weighted = x.bincount(treadle.tensor([0.5, 1.0, 0.25]))
    assert (weighted.dtype, lists(weighted)) == (treadle.float32, [0.0, 0.75, 0.0, 1.0])
    assert lists(treadle.zeros(0, dtype=treadle.int64).bincount()) == []


def test_histograms():
    x = np.random.default_rng(0).normal(0, 1, 1000).astype(np.float32)
    for edges in ((-2, 2), (0, 0)):
        low, high = edges if any(edges) else (x.min(), x.max())
        expected = np.histogram(x, 7, (low, high))[0]
        np.testing.assert_array_equal(treadle.tensor(x).histc(7, *edges).numpy(), expected)
    assert lists(treadle.tensor([2.0, 2.0]).histc(3)) == [0.0, 2.0, 0.0]
    assert lists(treadle.tensor([1.0, float("nan"), 9.0]).histc(2, 0, 2)) == [0.0, 1.0]


def test_search():
    row = treadle.tensor([1.0, 3.0, 3.0, 5.0])
    values = treadle.tensor([[3.0, 0.0], [6.0, float("nan")]])
    assert lists(treadle.searchsorted(row, values)) == [[1, 0], [4, 4]]
    assert lists(treadle.searchsorted(row, values, side="right")) == [[3, 0], [4, 4]]
    assert lists(treadle.searchsorted(row, 4)) == 3
    found = treadle.bucketize(values, row, right=True, out_int32=True)
    assert (found.dtype, lists(found)) == (treadle.int32, [[3, 0], [4, 4]])
    rows = treadle.tensor([[1, 2, 3], [10, 20, 30]])
    assert lists(treadle.searchsorted(rows, treadle.tensor([[2], [25]]))) == [[1], [2]]
    sorter = treadle.tensor([2, 0, 1])
    assert lists(treadle.searchsorted(treadle.tensor([2, 3, 1]), 3, sorter=sorter)) == 2


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: treadle.tensor([1, -2]).bincount(), ValueError,
         "bincount: got the number -2; it counts numbers that are not negative"),
        (lambda: treadle.ones(2).bincount(), ValueError, "bincount: got a tensor of dtype float32"),
        (lambda: treadle.tensor([1]).bincount(treadle.ones(2)), ShapeError,
         "bincount: got weights of shape (2,) for a vector of shape (1,)"),
        (lambda: treadle.tensor([1]).histc(), DTypeError, "histc: got a tensor of dtype int64"),
        (lambda: treadle.ones(2).histc(0), ValueError, "histc: got bins=0, min=0, max=0"),
        (lambda: treadle.tensor([float("inf")]).histc(3), ValueError,
         "histc: got elements from inf to inf; give a finite min and max"),
        (lambda: treadle.bucketize(1, treadle.ones(2, 2)), ShapeError,
         "bucketize: got boundaries of shape (2, 2); they must be a vector"),
        (lambda: treadle.searchsorted(treadle.ones(2), 1, side="left", right=True), ValueError,
         "searchsorted: got side='left' and right=True"),
        (lambda: treadle.searchsorted(treadle.ones(2, 3), treadle.ones(3, 1)), ShapeError,
         "search_sorted: got a sequence of shape (2, 3) and values of shape (3, 1)"),
    ],
)  # fmt: skip
def test_what_is_refused(call: Any, error: type[Exception], text: str):
    with pytest.raises(error) as told:
        call()
    assert text in str(told.value)


def test_divisors_and_multiples():
    rng = np.random.default_rng(0)
    x, y = rng.integers(-20, 20, (5, 1)), rng.integers(0, 20, 4)
    for name in ("gcd", "lcm"):
        found = getattr(treadle, name)(treadle.tensor(x), treadle.tensor(y)).numpy()
        np.testing.assert_array_equal(found, getattr(np, name)(x, y))
    assert treadle.tensor([12]).gcd_(treadle.tensor(8)).tolist() == [4]
    with pytest.raises(TypeError, match="gcd: got tensors of dtype float32; it takes integers"):
        treadle.gcd(treadle.ones(2), treadle.tensor(2))
