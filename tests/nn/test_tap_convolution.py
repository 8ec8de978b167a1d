"""Convolutions of complex numbers and integers against those of floats."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
from treadle.nn import functional as F
from treadle.testing.gradients import check_grads

RNG = np.random.default_rng(0)
CASES = [
    {}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": 2}, {"groups": 2}, {"stride": 3},
]  # fmt: skip


def _numbers(*shape):
    return treadle.tensor(RNG.normal(size=shape) + 1j * RNG.normal(size=shape))


@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_complex_convolutions_are_four_real_ones(name, options):
    function = getattr(F, name)
    x, w, b = _numbers(2, 4, 6, 5), _numbers(4, 4 // options.get("groups", 1), 3, 2), _numbers(4)
    if name == "conv_transpose2d" and options.get("groups"):
        b = _numbers(4)

    def real(p, q):
        return function(p, q, **options).numpy()

    wanted = real(x.real, w.real) - real(x.imag, w.imag) + 1j * (
        real(x.real, w.imag) + real(x.imag, w.real)
    )  # fmt: skip
    got = function(x, w, b, **options)
    np.testing.assert_allclose(got.numpy(), wanted + b.numpy()[:, None, None], atol=1e-12)


def test_integer_convolutions_are_exact():
    x = treadle.tensor([[[2**60, 1, 2]]])
    assert F.conv1d(x, treadle.tensor([[[1, 3]]])).tolist() == [[[2**60 + 3, 7]]]
    assert F.conv_transpose1d(x, treadle.tensor([[[1, 1]]]), stride=2).shape == (1, 1, 6)


@pytest.mark.parametrize("function", [F.conv1d, F.conv_transpose1d])
def test_gradients(function):
    parts = [
        treadle.tensor(RNG.normal(size=shape), requires_grad=True)
        for shape in ((1, 2, 5), (1, 2, 5), (2, 2, 2), (2, 2, 2))
    ]

    def size(a, b, c, d):
        x, w = treadle.complex(a, b), treadle.complex(c, d)
        return function(x, w, stride=2).abs()

    check_grads(size, parts, order=1)


def test_mistakes():
    with pytest.raises(
        treadle.base.errors.ShapeError, match="got an input of 2 channels, a weight"
    ):
        F.conv1d(_numbers(1, 2, 4), _numbers(1, 3, 2))
