"""The tensor functions beyond the core: promotion, in-place forms, special cases, names."""

from __future__ import annotations

import math

import numpy as np
import pytest

import treadle
from treadle import special

INF, NAN = math.inf, math.nan


def test_integers_become_floats():
    x = treadle.tensor([1, 2, 3])
    for function in (treadle.tan, treadle.lgamma, treadle.erfc, treadle.log2, special.i0e):
        assert function(x).dtype is treadle.float32
    assert treadle.atan2(x, 2).dtype is treadle.float32
    assert treadle.float_power(x, 2).dtype is treadle.float64


def test_in_place_forms_and_methods():
    x = treadle.tensor([0.5, 1.0])
    y = x.clone()
    assert y.tan_() is y
    np.testing.assert_array_equal(y.numpy(), x.tan().numpy())
    np.testing.assert_allclose(x.polygamma(1).numpy(), [math.pi**2 / 2, math.pi**2 / 6], 1e-6)
    np.testing.assert_allclose(x.clone().log2_().numpy(), [-1, 0])


@pytest.mark.parametrize(
    ("function", "x", "y", "expected"),
    [
        (treadle.xlogy, [0.0, 0.0, 2.0], [0.0, NAN, 1.0], [0.0, NAN, 0.0]),
        (special.xlog1py, [0.0, 2.0], [-1.0, 0.0], [0.0, 0.0]),
        (treadle.hypot, [3.0, INF, 3e30], [4.0, NAN, 4e30], [5.0, INF, 5e30]),
        (treadle.logaddexp, [INF, -INF, 0.0], [INF, -INF, -INF], [INF, -INF, 0.0]),
        (treadle.fmax, [1.0, NAN], [NAN, 2.0], [1.0, 2.0]),
        (treadle.fmin, [1.0, 3.0], [NAN, 2.0], [1.0, 2.0]),
        (treadle.heaviside, [-1.0, 0.0, 2.0], [0.5, 0.5, 0.5], [0.0, 0.5, 1.0]),
        (treadle.copysign, [1.0, -2.0], [-0.0, 3.0], [-1.0, 2.0]),
        (treadle.ldexp, [1.0, 3.0], [4.0, -1.0], [16.0, 1.5]),
    ],
)
def test_special_cases_of_two(function, x, y, expected):
    result = function(treadle.tensor(x), treadle.tensor(y)).numpy()
    np.testing.assert_allclose(result, np.array(expected, np.float32), 1e-6)


def test_special_cases_of_one():
    x = treadle.tensor([-1.0, 0.0, 1.0])
    np.testing.assert_array_equal(special.entr(x).numpy(), [-INF, 0.0, -0.0])
    np.testing.assert_array_equal(treadle.signbit(treadle.tensor([-0.0, 0.0])).numpy(), [1, 0])
    half = treadle.tensor([0.0, 0.25, 0.5, 1.0])
    np.testing.assert_allclose(treadle.logit(half).numpy(), [-INF, -math.log(3), 0, INF], 1e-6)
    assert treadle.logit(half, eps=0.25).numpy().max() == pytest.approx(math.log(3))


def test_nextafter_moves_by_one_unit():
    x = np.array([0.0, 1.0, -1.0, 1e-45, INF, 2.0], np.float32)
    y = np.array([-1.0, 2.0, 2.0, 0.0, 0.0, 2.0], np.float32)
    result = treadle.nextafter(treadle.tensor(x), treadle.tensor(y)).numpy()
    np.testing.assert_array_equal(result, np.nextafter(x, y))


def test_errors_say_what_is_accepted():
    x = treadle.tensor([1.0])
    with pytest.raises(ValueError, match=r"polygamma: got n = -1; it is an int from 0 to 100"):
        treadle.polygamma(-1, x)
    with pytest.raises(ValueError, match=r"mvlgamma: got p = 0; it is an int of at least 1"):
        treadle.mvlgamma(x, 0)
    with pytest.raises(TypeError, match=r"nextafter: got tensors of dtype float16"):
        treadle.nextafter(x.half(), x.half())


def test_names_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    assert [n for n in special.__all__ if not hasattr(torch.special, n)] == []
