"""Running results, differences and areas as a user calls them: results, dtypes, dims, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle.base.errors import DTypeError, ShapeError

X = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_along_every_dimension(dim: int):
    x = treadle.tensor(X)
    np.testing.assert_allclose(x.cumsum(dim).numpy(), X.cumsum(dim), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(treadle.cumprod(x, dim).numpy(), X.cumprod(dim), rtol=1e-5)
    np.testing.assert_array_equal(x.cummax(dim).values.numpy(), np.maximum.accumulate(X, dim))
    np.testing.assert_array_equal(x.cummin(dim).values.numpy(), np.minimum.accumulate(X, dim))
    np.testing.assert_allclose(
        x.logcumsumexp(dim).numpy(), np.logaddexp.accumulate(X, dim), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(x.diff(2, dim).numpy(), np.diff(X, 2, dim))


def test_views_give_what_their_values_say():
    x = treadle.tensor(X)
    for view, array in ((x.transpose(0, 2), X.T.transpose(0, 1, 2)), (x[::2], X[::2]),
                        (x.flip(1), np.flip(X, 1))):  # fmt: skip
        assert view.cumsum(1).numpy().tobytes() == treadle.tensor(array.copy()).cumsum(1).numpy(
        ).tobytes()  # fmt: skip


def test_dtypes():
    assert treadle.tensor([True, True]).cumsum(0).tolist() == [1, 2]
    assert treadle.tensor([1, 2], dtype=treadle.int8).cumprod(0).dtype is treadle.int64
    assert treadle.tensor([1, 2]).cumsum(0, dtype=treadle.float64).dtype is treadle.float64
    assert treadle.tensor([1, 2], dtype=treadle.uint8).cummax(0).values.dtype is treadle.uint8


def test_tensors_without_dimensions_and_without_elements():
    one = treadle.tensor(3.0)
    assert one.cumsum(0).shape == one.cummax(-1).indices.shape == ()
    assert one.logcumsumexp(0).item() == 3.0
    assert treadle.zeros(2, 0).cumsum(1).shape == (2, 0)
    assert treadle.zeros(0, 3).cummin(0).values.shape == (0, 3)
    assert treadle.ones(2).diff(5).shape == (0,)


def test_in_place():
    x = treadle.tensor([1.0, 2.0, 3.0])
    assert x.cumsum_(0) is x
    assert x.tolist() == [1.0, 3.0, 6.0]


def test_diff_of_bools_with_ends():
    assert treadle.tensor([True, False, False]).diff().tolist() == [True, False]
    ends: Any = {"prepend": treadle.tensor([0.0]), "append": treadle.tensor([7.0])}
    assert treadle.tensor([1.0, 5.0]).diff(**ends).tolist() == [1.0, 4.0, 2.0]


def test_areas():
    y, x = treadle.tensor([1.0, 2.0, 3.0]), treadle.tensor([0.0, 1.0, 3.0])
    assert treadle.trapezoid(y).item() == 4.0
    assert treadle.trapezoid(y, x).item() == 6.5
    assert treadle.cumulative_trapezoid(y, x).tolist() == [1.5, 6.5]
    rows = treadle.tensor(X)
    np.testing.assert_allclose(
        treadle.trapezoid(rows, dx=0.5, dim=1).numpy(), np.trapezoid(X, dx=0.5, axis=1), rtol=1e-5,
        atol=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: treadle.ones(2).cumsum(1), IndexError, "cumsum: dim out of range: got 1"),
        (lambda: treadle.tensor([1]).logcumsumexp(0), DTypeError,
         "logcumsumexp: got an operand of dtype int64; it takes float64"),
        (lambda: treadle.tensor(1.0).diff(), ShapeError, "diff: got a tensor without dimensions"),
        (lambda: treadle.ones(2).diff(-1), ValueError, "diff: got n=-1; it must not be negative"),
        (lambda: treadle.cumsum([1.0], 0), TypeError, "cumsum: got a list; it takes a tensor"),
        (lambda: treadle.trapezoid(treadle.ones(3), treadle.ones(2)), ShapeError,
         "trapezoid: got x of shape (2,) for samples of shape (3,)"),
        (lambda: treadle.trapezoid(treadle.ones(3), treadle.ones(3), dx=1.0), TypeError,
         "trapezoid: got both x and dx"),
    ],
)  # fmt: skip
def test_what_is_refused(call: Any, error: type[Exception], text: str):
    with pytest.raises(error) as told:
        call()
    assert text in str(told.value)
