"""The special functions in NumPy, by definitions that share nothing with ``ops/mathlib``.

Integrals for the Bessel functions, series for gamma's, Newton's method for inverses. They are what
the op table compares with: right to about 1e-14 at moderate arguments, and slow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

from treadle.base.lazy_numpy import np

Array: TypeAlias = "np.ndarray"


def by_element(function: Callable[[float], float]) -> Callable[[Array], Array]:
    """A function of floats, for arrays."""

    def over(x: Array) -> Array:
        return np.vectorize(function, otypes=[np.float64])(x).astype(x.dtype)

    return over


@lru_cache(maxsize=None)
def _nodes(low: float, high: float) -> tuple[Array, Array]:
    """Points and weights of Gauss's quadrature over [low, high]."""
    t, w = np.polynomial.legendre.leggauss(200)
    return (low + high) / 2 + (high - low) / 2 * t, w * (high - low) / 2


def _integral(f: Callable[[Array], Array], low: float, high: float) -> float:
    t, w = _nodes(low, high)
    return float(np.sum(w * f(t)))


def bessel_j(n: int, x: float) -> float:
    """1/pi times the integral of cos(n t - x sin t) over [0, pi]."""
    return _integral(lambda t: np.cos(n * t - x * np.sin(t)), 0, math.pi) / math.pi


def bessel_y(n: int, x: float) -> float:
    """Schlaefli's integrals."""
    wave = _integral(lambda t: np.sin(x * np.sin(t) - n * t), 0, math.pi)

    def decay(t: Array) -> Array:
        return (np.exp(n * t) + (-1) ** n * np.exp(-n * t)) * np.exp(-x * np.sinh(t))

    return (wave - _integral(decay, 0, 3) - _integral(decay, 3, 9)) / math.pi


def bessel_i(n: int, x: float, scale: float = 0.0) -> float:
    """1/pi times the integral of exp(x cos t) cos(n t) over [0, pi], times exp(-scale)."""

    def f(t: Array) -> Array:
        return np.exp(x * np.cos(t) - scale) * np.cos(n * t)

    return _integral(f, 0, math.pi) / math.pi


def bessel_k(n: int, x: float, scale: float = 0.0) -> float:
    """The integral of exp(-x cosh t) cosh(n t) from 0 on, times exp(scale)."""

    def f(t: Array) -> Array:
        return np.exp(scale - x * np.cosh(t)) * np.cosh(n * t)

    return _integral(f, 0, 3) + _integral(f, 3, 9)


def polygamma(n: int, x: float) -> float:
    """-gamma - sum (1/(x + i) - 1/(i + 1)), or its n-th derivative, ended by Euler-Maclaurin."""
    count = 60
    y, head = x + count, np.arange(count)
    if n == 0:
        tail = math.log(y) - 1 / (2 * y) - 1 / (12 * y**2) + 1 / (120 * y**4) - 1 / (252 * y**6)
        return tail - float(np.sum(1 / (x + head)))
    first = float(np.sum((x + head) ** -(n + 1.0)))
    a, b = n + 1, y ** -(n + 1.0)
    tail = b * y / n + b / 2 + a * b / (12 * y) - a * (a + 1) * (a + 2) * b / (720 * y**3)
    tail += a * (a + 1) * (a + 2) * (a + 3) * (a + 4) * b / (30240 * y**5)
    return (-1) ** (n + 1) * math.factorial(n) * (first + tail)


def erfcx(x: float) -> float:
    """exp(x^2) erfc(x)."""
    return math.exp(x * x) * math.erfc(x)


def ndtr(x: float) -> float:
    """erfc(-x/sqrt(2))/2."""
    return math.erfc(-x / math.sqrt(2)) / 2


def erfinv(x: float) -> float:
    """By Newton's method, from 0."""
    y = 0.0
    for _ in range(60):
        y -= (math.erf(y) - x) * math.sqrt(math.pi) / 2 * math.exp(min(y * y, 5.0))
    return y


def ndtri(p: float) -> float:
    """sqrt(2) erfinv(2p - 1)."""
    return math.sqrt(2) * erfinv(2 * p - 1)
