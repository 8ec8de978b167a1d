"""Reductions as records: results, dtypes, gradients where they are hard, and error texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle.base import dtypes
from treadle.base.errors import DTypeError, ShapeError
from treadle.ops import reduce, registry
from treadle.ops.project import results
from treadle.tensor.handle import wrap
from treadle.tensor.storage import array_of, node_from_array
from treadle.testing.gradients import check_grads


def apply(name: str, x: Any, axes: tuple[int, ...]) -> list[np.ndarray]:
    node = registry.get(name)(node_from_array(np.asarray(x)), axes=axes)
    return [array_of(n) for n in (results(node) if isinstance(node.type, tuple) else (node,))]


def gradient(name: str, x: Any, axes: tuple[int, ...], g: Any = None, index: int = -1) -> Any:
    """What <op(x), g> (all ones unless given) gives for x."""
    leaf = treadle.tensor(x, dtype=treadle.float64, requires_grad=True)
    node = registry.get(name)(leaf.node, axes=axes)
    out = wrap(node if index < 0 else results(node)[index])
    out.backward(treadle.ones_like(out) if g is None else treadle.tensor(g, dtype=out.dtype))
    return leaf.grad.numpy()


def hessian(name: str, x: np.ndarray) -> np.ndarray:
    """Of the reduction of a vector."""
    leaf = treadle.tensor(x, dtype=treadle.float64, requires_grad=True)
    out = wrap(registry.get(name)(leaf.node, axes=(0,)))
    (slope,) = treadle.autograd.grad(out, [leaf], create_graph=True)
    rows = [
        treadle.autograd.grad(slope[i], [leaf], retain_graph=True)[0].numpy() for i in range(len(x))
    ]
    return np.stack(rows)


# --- results -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", registry.ALL, ids=lambda d: d.short)
def test_the_dtypes_of_results(dtype: dtypes.DType) -> None:
    x = np.ones((2, 3), dtype.numpy)
    total = dtype if dtype.is_floating_point else dtypes.int64
    for name, expected in (
        ("reduce_sum", total), ("reduce_prod", total), ("reduce_max", dtype),
        ("reduce_min", dtype), ("reduce_any", dtypes.bool_), ("reduce_all", dtypes.bool_),
        ("argmax", dtypes.int64), ("argmin", dtypes.int64),
    ):  # fmt: skip
        out = apply(name, x, (1,))[0]
        assert (out.dtype, out.shape) == (expected.numpy, (2,)), name


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float16", "float32"), ("bfloat16", "float32"), ("float32", "float32"),
     ("float64", "float64")],
)  # fmt: skip
def test_moments_of_16_bit_floats_are_float32(dtype: str, expected: str) -> None:
    x = np.arange(6).reshape(2, 3).astype(dtypes.as_dtype(dtype).numpy)
    mean, var = apply("moments", x, (1,))
    assert mean.dtype == var.dtype == np.dtype(expected)
    assert mean.tolist() == [1.0, 4.0]
    np.testing.assert_allclose(var, 2 / 3, rtol=1e-7)


def test_the_variance_is_never_negative() -> None:
    for value in (0.1, 1e4 / 3, 1e18):
        mean, var = apply("moments", np.full((3, 1000), value, np.float32), (1,))
        np.testing.assert_allclose(mean, value, rtol=1e-7)
        assert (var >= 0).all()
        assert (var <= (1e-7 * value) ** 2).all()


def test_moments_survive_a_large_mean() -> None:
    x = (1e4 + np.random.default_rng(0).standard_normal(4000)).astype(np.float32)
    mean, var = apply("moments", x, (0,))
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(), rtol=1e-7)
    np.testing.assert_allclose(var, x.astype(np.float64).var(), rtol=1e-6)


def test_integer_sums_do_not_wrap_at_their_own_width() -> None:
    assert apply("reduce_sum", np.full(1000, 127, np.int8), (0,))[0] == 127000
    assert apply("reduce_sum", np.full(300, True), (0,))[0] == 300
    assert apply("reduce_prod", np.full(9, 100, np.uint8), (0,))[0] == 100**9


def test_no_axis_changes_no_value() -> None:
    x = np.array([1.5, -0.0, np.inf], np.float32)
    for name in ("reduce_sum", "reduce_prod", "reduce_max", "reduce_min"):
        assert apply(name, x, ())[0].tobytes() == x.tobytes()


def test_small_float16_terms_are_not_lost() -> None:
    """Summed in float16 the result would stay at 2048."""
    assert apply("reduce_sum", np.ones(4096, np.float16), (0,))[0] == 4096


# --- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([2.0, 3.0, 4.0], [12.0, 8.0, 6.0]),
        ([2.0, 0.0, 4.0], [0.0, 8.0, 0.0]),
        ([0.0, 3.0, 0.0], [0.0, 0.0, 0.0]),
        ([0.0], [1.0]),
        ([2.0, 3.0, 0.0, 5.0, 7.0], [0.0, 0.0, 210.0, 0.0, 0.0]),
    ],
)
def test_the_product_has_a_gradient_at_zero(row: list[float], expected: list[float]) -> None:
    assert gradient("reduce_prod", row, (0,)).tolist() == expected


@pytest.mark.parametrize("zeros", [0, 1, 2, 3])
def test_the_second_derivative_of_the_product(zeros: int) -> None:
    x = np.array([2.0, -1.5, 3.0, 0.5, -4.0])
    x[:zeros] = 0
    expected = np.zeros((5, 5))
    for i, j in np.ndindex(5, 5):
        if i != j:
            expected[i, j] = np.prod(np.delete(x, [i, j]))
    np.testing.assert_allclose(hessian("reduce_prod", x), expected, rtol=1e-12)


def test_the_product_over_outer_axes() -> None:
    x = np.random.default_rng(0).uniform(0.5, 1.5, (3, 2, 4))
    g = np.array([1.0, -2.0])
    found = gradient("reduce_prod", x, (0, 2), g)
    np.testing.assert_allclose(found, g[:, None] * x.prod((0, 2))[:, None] / x, rtol=1e-12)


@pytest.mark.parametrize("name", ["reduce_max", "reduce_min"])
def test_ties_share_the_gradient(name: str) -> None:
    sign = 1.0 if name == "reduce_max" else -1.0
    x = sign * np.array([[1.0, 3.0, 3.0, 0.0], [5.0, 5.0, 5.0, 5.0], [0.0, 1.0, 2.0, 3.0]])
    expected = [[0, 3, 3, 0], [1, 1, 1, 1], [0, 0, 0, 8]]
    assert gradient(name, x, (1,), [6.0, 4.0, 8.0]).tolist() == expected


def test_the_gradient_of_a_sum_of_nothing_is_empty() -> None:
    for name in ("reduce_sum", "reduce_prod"):
        assert gradient(name, np.zeros((3, 0)), (1,)).shape == (3, 0)


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 2), (0, 1, 2)])
def test_moments_used_together_have_their_gradients(axes: tuple[int, ...]) -> None:
    x = treadle.tensor(
        np.random.default_rng(0).standard_normal((3, 4, 2)), dtype=treadle.float64,
        requires_grad=True,
    )  # fmt: skip

    def coefficient(x: treadle.Tensor) -> treadle.Tensor:
        mean, var = (wrap(n) for n in results(reduce.moments(x.node, axes=axes)))
        return mean * mean / (var + 1.0)

    check_grads(coefficient, [x])


def test_moments_of_which_one_is_used() -> None:
    x = np.array([[1.0, 2.0, 6.0]])
    np.testing.assert_allclose(gradient("moments", x, (1,), index=0), [[1 / 3] * 3])
    np.testing.assert_allclose(gradient("moments", x, (1,), index=1), 2 / 3 * (x - 3.0))


def test_gradients_of_16_bit_floats_have_their_dtype() -> None:
    for name in ("reduce_sum", "reduce_prod", "reduce_max"):
        leaf = treadle.tensor([[1.0, 2.0, 4.0]], dtype=treadle.bfloat16, requires_grad=True)
        wrap(registry.get(name)(leaf.node, axes=(0, 1))).backward()
        assert leaf.grad.dtype is treadle.bfloat16


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "axes", "text"),
    [
        ("reduce_sum", (2, 3), (2,),
         "reduce_sum: got axes (2,) for a tensor of shape (2, 3); they must be distinct, in "
         "ascending order, and name some of its 2 axes 0, 1, ..."),
        ("reduce_max", (0, 3), (0,),
         "reduce_max: got a tensor of shape (0, 3) and axes (0,), along which there is no element "
         "to choose; reduce axes of size 1 or more, or skip empty tensors"),
        ("argmin", (3, 0), (1,), "argmin: got a tensor of shape (3, 0) and axes (1,)"),
        ("argmax", (2, 3), (0, 1),
         "argmax: got axes (0, 1) for a tensor of shape (2, 3); it takes exactly one axis: "
         "reshape the tensor to (-1,) first to search all of it"),
    ],
)  # fmt: skip
def test_what_is_refused(
    name: str, shape: tuple[int, ...], axes: tuple[int, ...], text: str
) -> None:
    with pytest.raises(ShapeError) as error:
        apply(name, np.zeros(shape, np.float32), axes)
    assert text in str(error.value)


def test_moments_take_floats() -> None:
    with pytest.raises(DTypeError, match="moments: got an operand of dtype int32; it takes float"):
        apply("moments", np.ones(3, np.int32), (0,))
