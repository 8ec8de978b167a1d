"""Windows: which taps count, in which order, and where a maximum lies.

Values of all samples, dtypes, strides and gradients are the op table's; here are the shapes that
choose different kernels and the definitions that a tolerance would hide.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

import treadle
from treadle.compiler import prepare
from treadle.ops import window as ops
from treadle.ops.project import results
from treadle.ops.window import max_pool, window_spread, window_sum
from treadle.tensor.handle import wrap
from treadle.tensor.storage import array_of, node_from_array
from treadle.testing.plans import interpret_op

NONE = ((0, 0), (0, 0))


def attributes(
    window: Any, stride: Any = (1, 1), padding: Any = NONE, **more: Any
) -> dict[str, Any]:
    return {"window": window, "stride": stride, "padding": padding, **more}


def pooled(x: np.ndarray, *args: Any, dilation: Any = (1, 1)) -> list[np.ndarray]:
    node = max_pool(node_from_array(x), **attributes(*args, dilation=dilation))
    return [array_of(n) for n in results(node)]


def summed(x: np.ndarray, *args: Any) -> np.ndarray:
    return array_of(window_sum(node_from_array(x), **attributes(*args)))


def spread(g: np.ndarray, *args: Any, shape: Any) -> np.ndarray:
    return array_of(window_spread(node_from_array(g), **attributes(*args), shape=shape))


def views(x: np.ndarray, window: Any, stride: Any, padding: Any, dilation: Any, fill: Any) -> Any:
    """All windows of the padded array, by NumPy: (..., oh, ow, kh, kw)."""
    before = ((0, 0),) * (x.ndim - 2)
    wide = np.pad(x, (*before, *padding), constant_values=fill)
    reach = tuple(d * (w - 1) + 1 for d, w in zip(dilation, window, strict=True))
    every = sliding_window_view(wide, reach, axis=(-2, -1))
    return every[..., :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


@pytest.fixture
def many_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every launch is cut in three."""
    before = treadle.get_num_threads()
    monkeypatch.setattr(prepare, "PARALLEL_WORK", 1)
    treadle.set_num_threads(3)
    yield
    treadle.set_num_threads(before)


CONFIGURATIONS = [
    ((2, 2), (2, 2), NONE, (1, 1)),
    ((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    ((3, 2), (2, 3), ((1, 0), (0, 1)), (1, 1)),
    ((2, 3), (1, 2), ((1, 1), (2, 2)), (2, 2)),
    ((9, 8), (1, 1), ((4, 4), (3, 4)), (1, 1)),
]


@pytest.mark.parametrize("width", [8, 9, 13, 16, 23, 40])
@pytest.mark.parametrize("case", CONFIGURATIONS, ids=str)
def test_max_pool_at_every_width(case: Any, width: int, many_threads: None):
    x = np.random.default_rng(width).standard_normal((2, 3, 9, width)).astype(np.float32)
    values, places = pooled(x, *case[:3], dilation=case[3])
    expected = views(x, *case, fill=-np.inf).max((-2, -1))
    assert values.tobytes() == expected.tobytes()
    flat, at = x.reshape(2, 3, -1), places.reshape(2, 3, -1)
    assert (np.take_along_axis(flat, at, 2).reshape(values.shape) == values).all()


@pytest.mark.parametrize("width", [8, 9, 13, 16, 23])
@pytest.mark.parametrize("case", [c for c in CONFIGURATIONS if c[3] == (1, 1)], ids=str)
def test_window_sum_and_its_adjoint_at_every_width(case: Any, width: int, many_threads: None):
    rng = np.random.default_rng(width)
    x = rng.integers(-9, 10, (2, 3, 9, width)).astype(np.float32)  # so that all sums are exact
    got = summed(x, *case[:3])
    assert (got == views(x, *case, fill=0).sum((-2, -1))).all()
    g = rng.integers(-9, 10, got.shape).astype(np.float32)
    back = spread(g, *case[:3], shape=x.shape[-2:])
    assert (back * x).sum() == (got * g).sum()


# --- definitions --------------------------------------------------------------------------------


def test_the_first_of_equal_elements_is_the_maximum():
    x = np.array([[1.0, 2.0, 2.0], [2.0, 0.0, 2.0]])
    values, places = pooled(x, (2, 3))
    assert (values.item(), places.item()) == (2, 1)
    values, places = pooled(np.array([[-0.0, 0.0]]), (1, 2))
    assert (np.signbit(values.item()), places.item()) == (True, 0)


def test_nan_wins_and_the_first_one_stays():
    x = np.array([[1.0, np.nan, np.inf, np.nan]], np.float32)
    values, places = pooled(x, (1, 4))
    assert np.isnan(values.item())
    assert places.item() == 1
    values, places = pooled(np.tile(x, 5), (1, 2), (1, 1))  # several windows at a time
    assert places.ravel().tolist() == [
        1,
        1,
        3,
        3,
        5,
        5,
        7,
        7,
        9,
        9,
        11,
        11,
        13,
        13,
        15,
        15,
        17,
        17,
        19,
    ]


def test_minus_infinity_has_a_place_beside_padding():
    x = np.full((3, 3), -np.inf)
    values, places = pooled(x, (2, 2), (1, 1), ((1, 1), (1, 1)))
    assert (values == -np.inf).all()
    assert places.tolist() == [[0, 0, 1, 2], [0, 0, 1, 2], [3, 3, 4, 5], [6, 6, 7, 8]]


def test_integers_have_a_maximum_too():
    x = np.arange(16, dtype=np.int32).reshape(4, 4) - 20
    assert pooled(x, (2, 2), (2, 2))[0].tolist() == [[-15, -13], [-7, -5]]


def test_the_gradient_of_overlapping_windows_adds_in_their_order():
    x = wrap(node_from_array(np.eye(3, dtype=np.float32))).requires_grad_()
    out = wrap(results(max_pool(x.node, **attributes((3, 1)), dilation=(1, 1)))[0])
    out.backward(treadle.tensor([[1.0, 2.0, 3.0]]))
    assert x.grad.tolist() == [[1, 0, 0], [0, 2, 0], [0, 0, 3]]
    x = wrap(node_from_array(np.array([[0, 9, 0, 0]], np.float32))).requires_grad_()
    out = wrap(results(max_pool(x.node, **attributes((1, 2)), dilation=(1, 1)))[0])
    out.backward(treadle.tensor([[1e8, -1e8, 1.0]]))
    assert x.grad.tolist() == [[0, 0, 1, 0]]


def test_sums_start_from_the_first_tap_that_is_there():
    got = summed(np.full((1, 12), -0.0), (1, 2), (1, 1), ((0, 0), (1, 2)))
    assert np.signbit(got).tolist() == [[True] * 13 + [False]]  # the last window has no tap


def test_sums_are_in_row_major_order():
    x = np.random.default_rng(0).standard_normal((3, 17)).astype(np.float32) * 1e4
    expected = np.zeros(15, np.float32)
    for n in range(15):
        window = x[:, n : n + 3].ravel()
        expected[n] = window[0]
        for value in window[1:]:
            expected[n] = expected[n] + value
    assert summed(x, (3, 3)).tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_16_bits_are_summed_in_f32_and_rounded_once(dtype: Any):
    x = np.ones((1, 301), dtype)
    x[0, 0] = 2048
    assert summed(x, (1, 301)).item() == dtype(2348)
    assert spread(x, (1, 301), shape=(1, 601))[0, 300] == dtype(2348)


def test_spread_adds_the_windows_in_row_major_order():
    g = np.random.default_rng(0).standard_normal((2, 3, 11)).astype(np.float32) * 1e4
    for stride in (1, 2):
        shape = (5, 10 * stride + 3)
        expected = np.zeros((2, *shape), np.float32)
        for p, q in np.ndindex(3, 11):
            expected[:, p : p + 3, q * stride : q * stride + 3] += g[:, p, q, None, None]
        got = spread(g, (3, 3), (1, stride), shape=shape)
        assert got.tobytes() == expected.tobytes()


def test_more_padding_after_is_ceil_mode():
    x = np.arange(25.0).reshape(5, 5)
    values, _ = pooled(x, (2, 2), (2, 2), ((0, 1), (0, 1)))
    assert values.tolist() == [[6, 8, 9], [16, 18, 19], [21, 23, 24]]


# --- kernels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ops.__all__)
def test_kernels_keep_the_rules_of_the_loop_ir(name: str):
    op = getattr(ops, name)
    for sample in list(op.samples())[:4]:
        got = interpret_op(op, sample.args, sample.attrs, cut=lambda units: units // 3)
        expected = op.reference(*sample.args, **sample.attrs)
        for a, b in zip(got, expected if isinstance(expected, tuple) else [expected], strict=True):
            assert a.tobytes() == b.tobytes()


def test_few_kernels_serve_all_shapes():
    def kernels(shape: Any) -> set[Any]:
        layouts = [node_from_array(np.zeros(shape, np.float32)).type.layout]
        attrs = attributes((3, 3), (2, 2), ((1, 1), (1, 1)), dilation=(1, 1))
        plan = max_pool.lower.plan(layouts, layouts * 2, attrs, 2)  # type: ignore[union-attr]
        return {launch.kernel for launch in plan.launches}

    assert kernels((2, 3, 112, 112)) == kernels((5, 7, 57, 63))
    assert len(kernels((2, 3, 112, 112))) == 3


def test_an_axis_without_elements_is_refused():
    with pytest.raises(treadle.base.errors.ShapeError, match="where there are 0 and padding"):
        summed(np.zeros((1, 0)), (1, 1), (1, 1), ((0, 0), (1, 1)))
