"""Sorts and what is read off them as a user calls them: results, gradients, dims, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle.base.errors import DTypeError, ShapeError

NAN = float("nan")
X = np.random.default_rng(0).permutation(60).reshape(3, 4, 5).astype(np.float64)


def lists(pair: Any) -> tuple[Any, Any]:
    return pair.values.tolist(), pair.indices.tolist()


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_along_every_dimension(dim: int):
    x = treadle.tensor(X)
    ordered = np.sort(X, dim)
    n = X.shape[dim]
    np.testing.assert_array_equal(x.sort(dim).values.numpy(), ordered)
    np.testing.assert_array_equal(x.argsort(dim).numpy(), np.argsort(X, dim))
    np.testing.assert_array_equal(x.topk(2, dim, largest=False).values.numpy(),
                                  ordered.take([0, 1], dim))  # fmt: skip
    np.testing.assert_array_equal(x.kthvalue(n, dim).values.numpy(), X.max(dim))
    np.testing.assert_array_equal(x.median(dim).values.numpy(), ordered.take((n - 1) // 2, dim))
    for q in (0.0, 0.3, 1.0):
        np.testing.assert_allclose(x.quantile(q, dim).numpy(), np.quantile(X, q, axis=dim))
    np.testing.assert_array_equal(x.mode(dim).values.numpy(), X.min(dim))


def test_sorts_are_stable_in_both_directions():
    x = treadle.tensor([1, 0, 1, 0])
    assert lists(x.sort()) == ([0, 0, 1, 1], [1, 3, 0, 2])
    assert lists(x.sort(descending=True)) == ([1, 1, 0, 0], [0, 2, 1, 3])
    assert lists(x.topk(3)) == ([1, 1, 0], [0, 2, 1])
    assert lists(treadle.tensor([0.0, -0.0]).sort())[1] == [0, 1]


def test_nan_is_the_largest():
    x = treadle.tensor([NAN, 1.0, float("inf")])
    assert x.argsort().tolist() == [1, 2, 0]
    assert x.topk(1).indices.tolist() == [0]


def test_tensors_without_dimensions_and_without_elements():
    one = treadle.tensor(3.0)
    for pair in (one.sort(), one.topk(1), one.kthvalue(1), one.median(0), one.mode()):
        assert lists(pair) == (3.0, 0)
    assert treadle.zeros(0, 3).sort(0).indices.shape == (0, 3)
    assert treadle.zeros(3).topk(0).values.shape == (0,)
    assert np.isnan(treadle.zeros(0).median().item())


def test_the_lower_of_two_medians_and_nan():
    assert lists(treadle.tensor([4.0, 1.0, 3.0, 2.0]).median(0)) == (2.0, 3)
    values, indices = treadle.tensor([[3.0, NAN, 1.0, NAN], [1.0, 2.0, 3.0, 4.0]]).median(1)
    assert (np.isnan(values.numpy()).tolist(), indices.tolist()) == ([True, False], [1, 1])
    assert lists(treadle.tensor([3.0, NAN, 1.0, 2.0]).nanmedian(0, keepdim=True)) == ([2.0], [3])
    assert np.isnan(treadle.tensor([NAN, NAN]).nanmedian().item())
    assert treadle.tensor([5, 1, 2, 9]).median().item() == 2


def test_equal_elements_share_the_gradient_of_the_median_of_all():
    x = treadle.tensor([2.0, 1.0, 2.0, 3.0], requires_grad=True)
    x.median().backward()
    assert x.grad.tolist() == [0.5, 0.0, 0.5, 0.0]


def test_the_mode_is_the_smallest_of_the_most_frequent():
    assert lists(treadle.tensor([[2, 1, 2, 1], [3, 3, 0, 0]]).mode()) == ([1, 0], [3, 3])
    assert lists(treadle.tensor([[5, 5, 1]]).mode(keepdim=True)) == ([[5]], [[1]])


@pytest.mark.parametrize(
    ("interpolation", "method"),
    [("linear", "linear"), ("lower", "lower"), ("higher", "higher"), ("midpoint", "midpoint"),
     ("nearest", "nearest")],
)  # fmt: skip
def test_quantiles_at_several_levels(interpolation: str, method: Any):
    x, levels = treadle.tensor(X), [0.0, 0.2, 0.5, 0.9]
    got = x.quantile(treadle.tensor(levels, dtype=x.dtype), 1, interpolation=interpolation)
    np.testing.assert_allclose(got.numpy(), np.quantile(X, levels, axis=1, method=method))


def test_quantiles_with_nan():
    x = treadle.tensor([[1.0, NAN, 3.0], [1.0, 2.0, 4.0]])
    got = x.quantile(0.5, 1).tolist()
    assert np.isnan(got[0])
    assert got[1] == 2.0
    assert x.nanquantile(0.5, 1, keepdim=True).tolist() == [[2.0], [2.0]]
    assert treadle.tensor([1.0, float("inf")]).quantile(1.0).item() == float("inf")


def test_gradients_go_back_to_where_the_elements_were():
    for call, expected in (
        (lambda x: x.sort(descending=True).values, [4.0, 8.0, 2.0]),
        (lambda x: x.topk(3).values, [4.0, 8.0, 2.0]),
        (lambda x: x.kthvalue(1).values, [2.0, 0.0, 0.0]),
        (lambda x: x.quantile(0.75), [0.0, 1.0, 1.0]),
    ):
        x = treadle.tensor([1.0, 3.0, 2.0], requires_grad=True)
        out = call(x)
        weights = treadle.tensor([8.0, 2.0, 4.0])
        out.backward(weights if out.ndim else treadle.tensor(2.0))
        wanted = [4.0, 8.0, 2.0] if out.ndim else expected
        assert x.grad.tolist() == wanted


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: treadle.ones(2).topk(3), ShapeError,
         "topk: got k=3 for axis 0 of a tensor of shape (2,); k must lie in [0, 2]"),
        (lambda: treadle.ones(2).kthvalue(0), ValueError, "kthvalue: got k=0 for dimension -1"),
        (lambda: treadle.ones(2).sort(1), IndexError, "sort: dim out of range: got 1"),
        (lambda: treadle.zeros(2, 0).median(1), IndexError,
         "median: got a tensor of shape (2, 0), which has no element along dimension 1"),
        (lambda: treadle.ones(2).quantile(1.5), ValueError,
         "quantile: got q=1.5; levels must lie in [0, 1]"),
        (lambda: treadle.tensor([1]).quantile(0.5), DTypeError,
         "quantile: got a tensor of dtype int64; it takes float32 and float64"),
        (lambda: treadle.ones(2).quantile(0.5, interpolation="cubic"), ValueError,
         "quantile: got interpolation='cubic'; there are linear, lower"),
        (lambda: treadle.ones(2).quantile(treadle.zeros(1, 1)), ShapeError,
         "quantile: got q of shape (1, 1); it must be a number or a vector"),
    ],
)  # fmt: skip
def test_what_is_refused(call: Any, error: type[Exception], text: str):
    with pytest.raises(error) as told:
        call()
    assert text in str(told.value)
