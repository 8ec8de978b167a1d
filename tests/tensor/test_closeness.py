"""isclose, allclose, equal and nan_to_num, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import treadle

INF, NAN = float("inf"), float("nan")
VALUES = [0.0, 1.0, 1.000001, 1.1, -1.0, 1e-9, 1e30, INF, -INF, NAN]


@pytest.mark.parametrize("equal_nan", [False, True])
def test_isclose_is_numpys(equal_nan):
    x, y = (m.ravel() for m in np.meshgrid(VALUES, VALUES))
    got = treadle.isclose(treadle.tensor(x), treadle.tensor(y), equal_nan=equal_nan)
    assert got.tolist() == np.isclose(x, y, equal_nan=equal_nan).tolist()


def test_allclose_and_equal():
    x = treadle.tensor([1, 2, 3])
    assert x.allclose(treadle.tensor([1, 2, 3]))
    assert not treadle.allclose(x, treadle.tensor([1, 2, 4]))
    assert x.equal(treadle.tensor([1, 2, 3]))
    assert not x.equal(treadle.tensor([1, 2]))
    assert not treadle.equal(treadle.tensor([NAN]), treadle.tensor([NAN]))


@pytest.mark.parametrize("dtype", [treadle.float64, treadle.float32, treadle.float16])
def test_nan_to_num_is_numpys(dtype):
    x = treadle.tensor([1.5, NAN, INF, -INF], dtype=dtype)
    assert np.array_equal(x.nan_to_num().numpy(), np.nan_to_num(x.numpy()))
    assert x.nan_to_num(7.0, 8.0, -9.0).tolist() == [1.5, 7.0, 8.0, -9.0]


def test_nan_to_num_of_bfloat16_is_finite():
    x = treadle.tensor([INF, -INF], dtype=treadle.bfloat16).nan_to_num()
    assert x.isfinite().all()
