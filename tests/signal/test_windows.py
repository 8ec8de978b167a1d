"""Window functions against their formulas, symmetric and periodic."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
from treadle.signal import windows

NAMES = [name for name in windows.__all__ if name != "general_cosine"]


@pytest.mark.parametrize(("name", "reference"), [
    ("hann", np.hanning), ("hamming", np.hamming), ("blackman", np.blackman),
    ("bartlett", np.bartlett), ("kaiser", lambda m: np.kaiser(m, 12.0)),
    ("cosine", lambda m: np.sin(np.pi * (np.arange(m) + 0.5) / m)),
    ("gaussian", lambda m: np.exp(-((np.arange(m) - (m - 1) / 2) ** 2) / 2)),
    ("exponential", lambda m: np.exp(-np.abs(np.arange(m) - (m - 1) / 2))),
])  # fmt: skip
@pytest.mark.parametrize("size", [0, 1, 2, 7, 10])
def test_symmetric_windows(name, reference, size):
    got = getattr(windows, name)(size, dtype=treadle.float64)
    np.testing.assert_allclose(got.numpy(), reference(size), atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_periodic_window_is_the_beginning_of_a_longer_symmetric_one(name):
    make = getattr(windows, name)
    longer = make(9, dtype=treadle.float64).numpy()
    np.testing.assert_allclose(make(8, sym=False, dtype=treadle.float64).numpy(), longer[:8])


def test_general_cosine_is_the_sum_of_its_terms():
    x = 2 * np.pi * np.arange(6) / 5
    got = windows.general_cosine(6, a=[0.5, 0.3, 0.2], dtype=treadle.float64)
    np.testing.assert_allclose(got.numpy(), 0.5 - 0.3 * np.cos(x) + 0.2 * np.cos(2 * x))


def test_dtype_and_gradient():
    assert windows.hann(4).dtype is treadle.float32
    assert windows.nuttall(4, requires_grad=True).requires_grad
    moved = windows.exponential(4, center=0, sym=False, tau=2.0)
    np.testing.assert_allclose(moved.numpy(), np.exp(-np.arange(4) / 2), rtol=1e-6)


@pytest.mark.parametrize(("call", "text"), [
    (lambda: windows.hann(-1), "got M=-1; it takes a length, not negative"),
    (lambda: windows.hann(3, dtype=treadle.int64), "got dtype int64; a window is float32 or"),
    (lambda: windows.gaussian(3, std=0), "got std=0; it must be positive"),
    (lambda: windows.exponential(3, tau=0), "got tau=0; it must be positive"),
    (lambda: windows.exponential(3, center=1), "leave it out, or sym=False"),
    (lambda: windows.kaiser(3, beta=-1), "got beta=-1; it must not be negative"),
    (lambda: windows.general_cosine(3, a=[]), "got no coefficients a"),
    (lambda: windows.general_cosine(3, a=1.0), "got a=1.0; it takes a list of numbers"),
])  # fmt: skip
def test_mistakes(call, text):
    with pytest.raises((ValueError, TypeError), match=text.replace("(", r"\(")):
        call()
