"""Running results: the order that defines them bit by bit, long axes, special values, gradients.

Values of all samples, dtypes, strides and gradients are the op table's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import treadle
from treadle.compiler import prepare
from treadle.ops import scan
from treadle.ops.project import results
from treadle.tensor.handle import wrap
from treadle.tensor.storage import array_of, node_from_array
from treadle.testing.gradients import check_grads
from treadle.testing.plans import interpret_op

CHUNK = 1024


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Every launch in one piece, and in three."""
    before = treadle.get_num_threads()
    monkeypatch.setattr(prepare, "PARALLEL_WORK", 1)
    treadle.set_num_threads(request.param)
    yield request.param
    treadle.set_num_threads(before)


def run(op: Any, *arrays: np.ndarray, **attrs: Any) -> list[np.ndarray]:
    node = op(*map(node_from_array, arrays), **attrs)
    return [array_of(n) for n in (results(node) if isinstance(node.type, tuple) else (node,))]


def ordered(x: np.ndarray, function: Any) -> np.ndarray:
    """The definition along the last axis, in the dtype of ``x``."""
    chunks = [
        function.accumulate(x[..., at : at + CHUNK], axis=-1) for at in range(0, x.shape[-1], CHUNK)
    ]
    carry = chunks[0][..., -1:]
    for number, local in enumerate(chunks[1:], 1):
        chunks[number] = function(carry, local)
        carry = function(carry, local[..., -1:])
    return np.concatenate(chunks, axis=-1)


# --- the order ------------------------------------------------------------------------------------

SHAPES = [((5000,), 0), ((3, 2048), 1), ((2100, 3), 0), ((2, 2500, 40), 1), ((9, 1025), 1)]


@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
@pytest.mark.parametrize("reverse", [False, True])
def test_sums_are_added_in_the_order_of_the_definition(
    shape: Any, axis: int, reverse: bool, threads: int
):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    (got,) = run(scan.cumsum, x, axis=axis, reverse=reverse)
    rows = np.moveaxis(np.flip(x, axis) if reverse else x, axis, -1)
    expected = np.moveaxis(ordered(rows, np.add), -1, axis)
    assert got.tobytes() == (np.flip(expected, axis) if reverse else expected).tobytes()


@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_products_are_multiplied_in_the_order_of_the_definition(
    shape: Any, axis: int, threads: int
):
    x = np.random.default_rng(0).uniform(0.99, 1.01, shape)
    (got,) = run(scan.cumprod, x, axis=axis)
    expected = np.moveaxis(ordered(np.moveaxis(x, axis, -1), np.multiply), -1, axis)
    assert got.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_16_bit_floats_are_summed_in_float32_and_rounded_once(dtype: Any):
    x = np.random.default_rng(0).uniform(0, 1, 3000).astype(dtype)
    (got,) = run(scan.cumsum, x, axis=0, reverse=False)
    assert got.tobytes() == ordered(x.astype(np.float32), np.add).astype(dtype).tobytes()


def test_the_interpreter_agrees_on_an_axis_of_two_chunks():
    x = np.random.default_rng(0).integers(-5, 6, (2, 1030)).astype(np.float32)
    for op, attrs in (
        (scan.cumsum, {"axis": 1, "reverse": True}), (scan.cummax, {"axis": 1}),
        (scan.logcumsumexp, {"axis": 1}),
    ):  # fmt: skip
        for a, b in zip(interpret_op(op, (x,), attrs), run(op, x, **attrs), strict=True):
            assert a.tobytes() == b.tobytes(), op.name


# --- long axes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_recurrences_over_many_chunks(shape: Any, axis: int, threads: int):
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-1, 1, shape), rng.standard_normal(shape)
    for reverse in (False, True):
        attrs = {"axis": axis, "reverse": reverse}
        (got,) = run(scan.linear_recurrence, a, b, **attrs)
        expected = scan.linear_recurrence.reference(a, b, **attrs)
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_running_extrema_over_many_chunks(shape: Any, axis: int, threads: int):
    x = np.random.default_rng(0).integers(-300, 300, shape).astype(np.float32)
    x[x == 299] = np.nan
    for op in (scan.cummax, scan.cummin):
        for got, expected in zip(run(op, x, axis=axis), op.reference(x, axis), strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_log_sums_over_many_chunks(shape: Any, axis: int, threads: int):
    x = np.random.default_rng(0).normal(0, 30, shape).astype(np.float32)
    (got,) = run(scan.logcumsumexp, x, axis=axis)
    expected = np.logaddexp.accumulate(x.astype(np.float64), axis=axis)
    np.testing.assert_allclose(got, expected, rtol=2e-6)


# --- special values -------------------------------------------------------------------------------


def test_of_equal_elements_and_of_nans_the_last_is_the_extremum():
    x = np.array([1, 3, 3, 2, np.nan, 5, np.nan, 6], np.float32)
    values, places = run(scan.cummax, x, axis=0)
    assert places.tolist() == [0, 1, 2, 2, 4, 4, 6, 6]
    np.testing.assert_array_equal(values, x[places])
    zeros = np.array([0.0, -0.0, 0.0], np.float32)
    values, places = run(scan.cummin, zeros, axis=0)
    assert (values.tobytes(), places.tolist()) == (zeros.tobytes(), [0, 1, 2])


def test_log_sums_of_infinities():
    inf = np.inf
    x = np.array([-inf, -inf, 0.0, inf, 1.0, inf], np.float32)
    assert run(scan.logcumsumexp, x, axis=0)[0].tolist() == [-inf, -inf, 0.0, inf, inf, inf]
    (nan,) = run(scan.logcumsumexp, np.array([0.0, np.nan, 1.0], np.float32), axis=0)
    assert np.isnan(nan).tolist() == [False, True, True]


def test_integers_are_summed_in_int64_and_wrap():
    (total,) = run(scan.cumsum, np.full(2000, 127, np.int8), axis=0, reverse=False)
    assert (total.dtype, total[-1]) == (np.int64, 254000)
    (product,) = run(scan.cumprod, np.full(3, 2**31), axis=0)
    assert product.tolist() == [2**31, 2**62, 0]


# --- gradients ------------------------------------------------------------------------------------


def gradient(x: np.ndarray, function: Any, g: np.ndarray) -> np.ndarray:
    leaf = treadle.tensor(x, requires_grad=True)
    function(leaf).backward(treadle.tensor(g))
    return leaf.grad.numpy()


@pytest.mark.parametrize("zeros", [0, 1, 2])
def test_the_running_product_has_a_gradient_at_zero(zeros: int):
    x = np.array([2.0, -1.5, 3.0, 0.5, -4.0])
    x[1 : 1 + zeros] = 0
    g = np.arange(1.0, 6.0)
    expected = [
        sum(g[k] * np.prod(np.delete(x[: k + 1], i)) for k in range(i, 5)) for i in range(5)
    ]
    np.testing.assert_allclose(gradient(x, lambda t: t.cumprod(0), g), expected, rtol=1e-12)
    check_grads(lambda t: t.cumprod(0), [treadle.tensor(x, requires_grad=True)])


def test_the_gradient_of_log_sums_survives_what_exp_does_not():
    x = np.array([-1000.0, 1000.0, 0.0, 1001.0])
    g = np.ones(4)
    y = np.logaddexp.accumulate(x)
    expected = [np.exp(x[i] - y[i:]).sum() for i in range(4)]
    np.testing.assert_allclose(gradient(x, lambda t: t.logcumsumexp(0), g), expected, rtol=1e-12)


def test_gradients_over_many_chunks():
    rng = np.random.default_rng(0)
    x, g = rng.uniform(0.9, 1.1, 3000), rng.standard_normal(3000)
    np.testing.assert_allclose(
        gradient(x, lambda t: t.cumsum(0), g), np.cumsum(g[::-1])[::-1], rtol=1e-9
    )
    product = np.cumprod(x)
    np.testing.assert_allclose(
        gradient(x, lambda t: t.cumprod(0), g), np.cumsum((g * product)[::-1])[::-1] / x, rtol=1e-7
    )


def test_the_extremum_gets_the_gradient():
    x, g = np.array([1.0, 3.0, 3.0, 2.0]), np.array([1.0, 2.0, 4.0, 8.0])
    found = gradient(x, lambda t: wrap(results(scan.cummax(t.node, axis=0))[0]), g)
    assert found.tolist() == [1.0, 2.0, 12.0, 0.0]
