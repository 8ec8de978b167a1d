"""The elementary functions against references of higher precision.

Every function's docstring states its largest error; these tests hold it to that. The f32 functions
meet f64 arithmetic on millions of bit patterns from the whole range (``tools/sweep_math.py`` takes
all of them), the f64 functions mpmath on points chosen range by range.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
from mpmath import mp, mpf

from treadle.base.dtypes import DType, float32, float64
from treadle.ops import mathlib
from treadle.testing.elementary import compiled, ulp_errors

# what neural networks are made of; the others may be off by 4 ulp
CORE = {"exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "sigmoid", "erf", "pow"}
Array = np.ndarray[Any, Any]


def stated(name: str, dtype: DType) -> float:
    """The bound in the docstring: "at most 1.1 ulp (f32) and 1.2 ulp (f64)"."""
    doc = getattr(mathlib, name).__doc__
    found = re.search(r"at most ([\d.]+) ulp \(f32\) and ([\d.]+) ulp \(f64\)", doc)
    assert found is not None, f"{name} does not state its error"
    bound = float(found.group(1 if dtype is float32 else 2))
    assert bound <= (2 if name in CORE else 4)
    return bound


# --- f32 against f64 -----------------------------------------------------------------------------


def sigmoid_f64(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1.0) / (1.0 + e)


def erf_f64(x: Array) -> Array:
    return np.array([math.erf(v) for v in x])


def by_f64(name: str) -> Callable[..., Array]:
    """Our own f64 function, which is held to mpmath below."""
    return lambda x: compiled(name, float64)(x)


F64: dict[str, Callable[..., Array]] = {
    "acos": np.arccos, "acosh": np.arccosh, "asin": np.arcsin, "asinh": np.arcsinh,
    "atan": np.arctan, "atanh": np.arctanh, "cos": np.cos, "cosh": np.cosh, "erf": erf_f64,
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log10": np.log10,
    "log1p": np.log1p, "log2": np.log2, "sigmoid": sigmoid_f64, "sin": np.sin, "sinh": np.sinh,
    "tan": np.tan, "tanh": np.tanh,
}  # fmt: skip
F64 |= {name: by_f64(name) for name in mathlib.UNARY if name not in F64}


def every(stride: int) -> Array:
    """Each ``stride``-th of all f32 bit patterns: subnormals, infinities and NaNs among them."""
    return np.arange(0, 1 << 32, stride, np.uint64).astype(np.uint32).view(np.float32)


@pytest.mark.parametrize("name", F64)
def test_f32_over_all_bit_patterns(name: str) -> None:
    x = every(32771 if name == "erf" else 2053)
    with np.errstate(all="ignore"):
        reference = F64[name](x.astype(np.float64))
    errors = ulp_errors(compiled(name, float32)(x), reference)
    worst = int(errors.argmax())
    assert errors[worst] <= stated(name, float32), (x[worst], reference[worst])


@pytest.mark.parametrize("name", F64)
def test_f32_where_the_function_bends(name: str) -> None:
    random = np.random.default_rng(1)
    x = np.concatenate([random.uniform(-s, s, 100_000) for s in (1.0, 2.0, 10.0, 100.0)])
    x = np.concatenate([x, 1 + x / 100]).astype(np.float32)
    if name == "erf":
        x = x[::4]
    with np.errstate(all="ignore"):
        reference = F64[name](x.astype(np.float64))
    errors = ulp_errors(compiled(name, float32)(x), reference)
    worst = int(errors.argmax())
    assert errors[worst] <= stated(name, float32), (x[worst], reference[worst])


def test_f32_pow() -> None:
    random = np.random.default_rng(2)
    size = 200_000
    x = np.concatenate([
        random.uniform(0, 3, size), 10.0 ** random.uniform(-45, 38, size),
        1 + random.uniform(-1, 1, size) * 10.0 ** random.uniform(-7, 0, size),
        random.uniform(-3, 3, size),
    ]).astype(np.float32)  # fmt: skip
    y = np.concatenate([
        random.uniform(-90, 90, size), random.uniform(-3, 3, size),
        10.0 ** random.uniform(0, 8, size) * random.choice([-1, 1], size),
        random.integers(-20, 21, size),
    ]).astype(np.float32)  # fmt: skip
    with np.errstate(all="ignore"):
        reference = np.power(x.astype(np.float64), y.astype(np.float64))
    errors = ulp_errors(compiled("pow", float32)(x, y), reference)
    worst = int(errors.argmax())
    assert errors[worst] <= stated("pow", float32), (x[worst], y[worst], reference[worst])


# --- f64 against mpmath --------------------------------------------------------------------------


def mp_ndtr(x: mpf) -> mpf:
    return mp.erfc(-x / mp.sqrt(2)) / 2


def mp_log_ndtr(x: mpf) -> mpf:
    return mp.log(mp_ndtr(x)) if x < 0 else mp.log1p(-mp_ndtr(-x))


MP: dict[str, Callable[..., mpf]] = {
    "cos": mp.cos, "erf": mp.erf, "exp": mp.exp, "exp2": lambda x: mpf(2) ** x,
    "expm1": mp.expm1, "log": mp.log, "log1p": mp.log1p, "log2": lambda x: mp.log(x) / mp.log(2),
    "pow": mp.power, "sigmoid": lambda x: 1 / (1 + mp.exp(-x)), "sin": mp.sin, "tanh": mp.tanh,
    "acos": mp.acos, "acosh": mp.acosh, "asin": mp.asin, "asinh": mp.asinh, "atan": mp.atan,
    "atanh": mp.atanh, "cosh": mp.cosh, "log10": mp.log10, "sinh": mp.sinh, "tan": mp.tan,
    "sinc": mp.sincpi, "erfc": mp.erfc, "erfcx": lambda x: mp.exp(x * x) * mp.erfc(x),
    "ndtr": mp_ndtr, "log_ndtr": mp_log_ndtr, "lgamma": mp.loggamma,
    "digamma": lambda x: mp.psi(0, x),
    "bessel_j0": lambda x: mp.besselj(0, x), "bessel_j1": lambda x: mp.besselj(1, x),
    "bessel_y0": lambda x: mp.bessely(0, x), "bessel_y1": lambda x: mp.bessely(1, x),
    "i0": lambda x: mp.besseli(0, x), "i1": lambda x: mp.besseli(1, x),
    "i0e": lambda x: mp.besseli(0, x) * mp.exp(-abs(x)),
    "i1e": lambda x: mp.besseli(1, x) * mp.exp(-abs(x)),
    "modified_bessel_k0": lambda x: mp.besselk(0, x),
    "modified_bessel_k1": lambda x: mp.besselk(1, x),
    "scaled_modified_bessel_k0": lambda x: mp.besselk(0, x) * mp.exp(x),
    "scaled_modified_bessel_k1": lambda x: mp.besselk(1, x) * mp.exp(x),
}  # fmt: skip

# Where each f64 function changes its ways: (low, high) of uniformly drawn points.
RANGES: dict[str, tuple[tuple[float, float], ...]] = {
    "cos": ((-1, 1), (-10, 10), (-1e5, 1e5), (-1e15, 1e15), (-1e17, 1e17)),
    "erf": ((-1, 1), (0.9, 1.1), (1, 3), (-6.1, 6.1)),
    "exp": ((-1, 1), (-20, 20), (-708, 709), (-746, -708), (709, 710)),
    "exp2": ((-1, 1), (-20, 20), (-1022, 1023), (-1075, -1022), (1023, 1025)),
    "expm1": ((-0.35, 0.35), (-1.1, 1.1), (-40, 40), (30, 709), (709, 710)),
    "log": ((0.7, 1.42), (0.999, 1.001), (0, 10), (0, 1e6)),
    "log1p": ((-0.3, 0.42), (-1, 1), (0, 10), (0, 1e18)),
    "log2": ((0.7, 1.42), (0.999, 1.001), (0, 10), (0, 1e6)),
    "sigmoid": ((-1, 1), (-40, 40), (-746, -36)),
    "sin": ((-1, 1), (-10, 10), (-1e5, 1e5), (-1e15, 1e15), (-1e17, 1e17)),
    "tanh": ((-0.2, 0.2), (-1, 1), (-22, 22)),
    "acos": ((-1, 1), (0.49, 0.51), (0.999, 1)),
    "acosh": ((1, 1.1), (1, 10), (1, 1e9)),
    "asin": ((-1, 1), (0.49, 0.51), (0.999, 1)),
    "asinh": ((-1, 1), (-10, 10), (-1e9, 1e9)),
    "atan": ((-0.5, 0.5), (-1.1, 1.1), (-10, 10)),
    "atanh": ((-1, 1), (-0.01, 0.01), (0.999, 1)),
    "cosh": ((-1, 1), (-10, 10), (-711, 711)),
    "log10": ((0.7, 1.42), (0.999, 1.001), (0, 1e6)),
    "sinh": ((-1, 1), (-10, 10), (-711, 711)),
    "tan": ((-1, 1), (-10, 10), (-1e9, 1e9), (-1e17, 1e17)),
    "sinc": ((-1, 1), (-10, 10), (-1e6, 1e6)),
}
# The special functions, where they are not next to a zero (there the bounds are of another kind).
SPECIAL: dict[str, tuple[tuple[float, float], ...]] = {
    "erfc": ((-1, 1), (0.4, 5), (5, 26)),
    "erfcx": ((-1, 1), (-26, 0), (0, 100), (0, 1e9)),
    "ndtr": ((-1, 1), (-37, 0), (0, 8)),
    "log_ndtr": ((-1.1, 1), (-37, 0), (0, 37), (-1e5, 0)),
    "lgamma": ((0, 0.5), (0.5, 2.5), (2.5, 9), (8, 1e3), (0, 1e15)),
    "digamma": ((0, 1), (1, 2), (2, 9), (8, 1e3), (0, 1e15)),
    "bessel_j0": ((-2, 2), (3, 5), (5.9, 8), (9, 11)),
    "bessel_j1": ((-3, 3), (2, 8), (8, 9.8)),
    "bessel_y0": ((0, 0.7), (1.2, 8), (8, 10)),
    "bessel_y1": ((0, 2), (2.5, 8), (9, 11)),
    "i0": ((-8, 8), (7, 9), (8, 713)), "i0e": ((-8, 8), (7, 9), (8, 1e4)),
    "i1": ((-8, 8), (7, 9), (8, 713)), "i1e": ((-8, 8), (7, 9), (8, 1e4)),
    "modified_bessel_k0": ((0, 1), (0.9, 5), (4, 600)),
    "modified_bessel_k1": ((0, 1), (0.9, 5), (4, 600)),
    "scaled_modified_bessel_k0": ((0, 1), (0.9, 5), (4, 600)),
    "scaled_modified_bessel_k1": ((0, 1), (0.9, 5), (4, 600)),
}  # fmt: skip
# Doubles very near to multiples of pi/2 (the first is the nearest of all).
NEAR_MULTIPLES = (6381956970095103 * 2.0**797, math.pi, math.pi / 2, 22.0, 355.0, 1e22, 2.0**1023)


def points(name: str) -> Array:
    random = np.random.default_rng(len(name))
    parts = [random.uniform(low, high, 900) for low, high in RANGES[name]]
    magnitudes = 10.0 ** random.uniform(-307.9, 308.2, 600) * random.choice([-1, 1], 600)
    small = 10.0 ** random.uniform(-20, 0, 600) * random.choice([-1, 1], 600)
    subnormal = random.integers(1, 1 << 52, 100).view(np.float64)
    special = np.array([*NEAR_MULTIPLES, *(-v for v in NEAR_MULTIPLES)])
    x = np.concatenate([*parts, magnitudes, small, 1 + small, subnormal, special])
    lowest = {"log": 0.0, "log10": 0.0, "log2": 0.0, "log1p": -1.0, "acosh": 1.0}.get(
        name, -math.inf
    )
    if name in ("asin", "acos", "atanh"):
        x = x[np.abs(x) < 1]
    if name in ("sinc", "cosh", "sinh"):
        x = x[np.abs(x) < 710]  # beyond, infinite, or of angles that mpmath must be asked anew for
    if name in ("exp", "exp2", "expm1", "sigmoid", "tanh", "erf"):
        x = np.clip(x, -2000, 2000)  # beyond lie the tests of special cases
    return x[x > lowest]


def error_in_ulp(result: float, reference: mpf) -> float:
    """The error in units of the last place of an f64; overflow counts as 2**1024."""
    assert not math.isnan(result)
    if reference == 0:
        return 0.0 if result == 0 else math.inf
    top = mpf(2) ** 1024
    value = mp.sign(result) * top if math.isinf(result) else mpf(result)
    reference = min(max(reference, -top), top)
    _, exponent = mpmath.frexp(reference)
    return float(abs(value - reference) / mpf(2) ** max(int(exponent) - 53, -1074))


@pytest.mark.parametrize("name", RANGES)
def test_f64_against_mpmath(name: str) -> None:
    x = points(name)
    result = compiled(name, float64)(x)
    bound = stated(name, float64)
    with mp.workprec(120):
        for argument, value in zip(x.tolist(), result.tolist(), strict=True):
            error = error_in_ulp(value, MP[name](mpf(argument)))
            assert error <= bound, (argument, value, error)


def test_f64_pow_against_mpmath() -> None:
    random = np.random.default_rng(5)
    size = 1000
    x = np.concatenate([
        random.uniform(0, 3, size), 10.0 ** random.uniform(-323, 308, size),
        1 + random.uniform(-1, 1, size) * 10.0 ** random.uniform(-15, 0, size),
        random.uniform(0, 4, size),
    ])  # fmt: skip
    y = np.concatenate([
        random.uniform(-20, 20, size), random.uniform(-1.2, 1.2, size),
        10.0 ** random.uniform(0, 15, size) * random.choice([-1, 1], size),
        random.uniform(-1080, 1025, size) / np.log2(x[-size:]),  # the edges of the range
    ])  # fmt: skip
    keep = np.abs(y * np.log2(x)) < 3000
    x, y = x[keep], y[keep]
    result, bound = compiled("pow", float64)(x, y), stated("pow", float64)
    with mp.workprec(150):
        for a, b, value in zip(x.tolist(), y.tolist(), result.tolist(), strict=True):
            error = error_in_ulp(value, mp.power(mpf(a), mpf(b)))
            assert error <= bound, (a, b, value, error)


@pytest.mark.parametrize("name", SPECIAL)
def test_f64_special_functions_against_mpmath(name: str) -> None:
    random = np.random.default_rng(len(name))
    x = np.concatenate([random.uniform(low, high, 150) for low, high in SPECIAL[name]])
    result, bound = compiled(name, float64)(x), stated(name, float64)
    with mp.workprec(120):
        for argument, value in zip(x.tolist(), result.tolist(), strict=True):
            reference = MP[name](mpf(argument))
            error = error_in_ulp(value, reference)
            if name in ("bessel_y0", "bessel_y1") and abs(reference) < 0.5:
                error = float(abs(mpf(value) - reference) * 2**53)  # in units of 1/2
            assert error <= bound, (argument, value, error)


@pytest.mark.parametrize("name", ["erfinv", "ndtri"])
def test_f64_inverses_against_mpmath(name: str) -> None:
    """The bound as a distance: the true inverse lies between the neighbours of the result."""
    random, bound = np.random.default_rng(3), stated(name, float64)
    tiny = 10.0 ** random.uniform(-300, -1, 40)
    x = np.concatenate([random.uniform(0.01, 0.99, 60), tiny, 1 - tiny[tiny > 1e-16]])
    function = mp.erf if name == "erfinv" else mp_ndtr
    result = compiled(name, float64)(x)
    with mp.workprec(1200):
        for argument, value in zip(x.tolist(), result.tolist(), strict=True):
            unit = mpf(2) ** (mpmath.frexp(mpf(value))[1] - 53) * bound
            assert function(value - unit) <= argument <= function(value + unit), argument


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_f64_polygamma_against_mpmath(n: int) -> None:
    import treadle

    x = np.random.default_rng(n).uniform(0.01, 30, 300)
    result = treadle.polygamma(n, treadle.tensor(x)).numpy()
    with mp.workprec(120):
        for argument, value in zip(x.tolist(), result.tolist(), strict=True):
            assert error_in_ulp(value, mp.psi(n, mpf(argument))) <= 4 + n, argument


def test_atan2_against_mpmath() -> None:
    random = np.random.default_rng(4)
    y, x = random.uniform(-3, 3, (2, 500))
    y, x = np.concatenate([y, 10.0 ** random.uniform(-307, 307, 500)]), np.concatenate([
        x, 10.0 ** random.uniform(-307, 307, 500) * random.choice([-1, 1], 500)])  # fmt: skip
    result, bound = compiled("atan2", float64)(y, x), stated("atan2", float64)
    with mp.workprec(2200):
        for a, b, value in zip(y.tolist(), x.tolist(), result.tolist(), strict=True):
            assert error_in_ulp(value, mp.atan2(mpf(a), mpf(b))) <= bound, (a, b)
