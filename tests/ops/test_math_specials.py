"""The elementary functions where the answer is exact, and their bits however they run."""

import itertools
import math
from typing import Any

import numpy as np
import pytest

from treadle.base.dtypes import DType, float16, float32, float64
from treadle.base.errors import DTypeError
from treadle.ir.loop import Builder
from treadle.ir.loop_interpret import interpret
from treadle.ops import mathlib
from treadle.testing.elementary import compiled, elementary_kernel

Array = np.ndarray[Any, Any]
FLOATS = pytest.mark.parametrize("dtype", [float32, float64], ids=["f32", "f64"])
NAMES = pytest.mark.parametrize("name", [*mathlib.UNARY, *mathlib.BINARY])
INF, NAN = math.inf, math.nan

# name -> argument -> result, to the last bit and with the sign of zeros
EXACT: dict[str, list[tuple[float, float]]] = {
    "exp": [
        (0.0, 1.0),
        (INF, INF),
        (-INF, 0.0),
        (1e4, INF),
        (-1e4, 0.0),
        (1e30, INF),
        (-1e30, 0.0),
    ],
    "exp2": [
        (0.0, 1.0),
        (INF, INF),
        (-INF, 0.0),
        (10.0, 1024.0),
        (-1.0, 0.5),
        (2000.0, INF),
        (-2000.0, 0.0),
    ],
    "expm1": [
        (0.0, 0.0),
        (-0.0, -0.0),
        (INF, INF),
        (-INF, -1.0),
        (1e4, INF),
        (-1e4, -1.0),
        (-100.0, -1.0),
    ],
    "log": [
        (1.0, 0.0),
        (0.0, -INF),
        (-0.0, -INF),
        (INF, INF),
        (-1.0, NAN),
        (-INF, NAN),
        (-1e-40, NAN),
    ],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (-1.0, -INF), (INF, INF), (-1.5, NAN), (-INF, NAN)],
    "log2": [
        (1.0, 0.0),
        (8.0, 3.0),
        (0.25, -2.0),
        (0.0, -INF),
        (-0.0, -INF),
        (INF, INF),
        (-1.0, NAN),
    ],
    "sin": [(0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN)],
    "cos": [(0.0, 1.0), (-0.0, 1.0), (INF, NAN), (-INF, NAN), (1e-20, 1.0)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (1e30, 1.0), (-50.0, -1.0)],
    "sigmoid": [(0.0, 0.5), (INF, 1.0), (-INF, 0.0), (1e30, 1.0), (-1e30, 0.0), (50.0, 1.0)],
    "erf": [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (7.0, 1.0), (-1e30, -1.0)],
}
EXACT |= {
    "tan": [(0.0, 0.0), (-0.0, -0.0), (INF, NAN)],
    "asin": [(0.0, 0.0), (-0.0, -0.0), (1.5, NAN), (-INF, NAN)],
    "acos": [(1.0, 0.0), (1.5, NAN), (-INF, NAN)],
    "atan": [(0.0, 0.0), (-0.0, -0.0)],
    "sinh": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -INF), (1e4, INF), (-1e30, -INF)],
    "cosh": [(0.0, 1.0), (INF, INF), (-INF, INF), (1e4, INF), (-1e30, INF)],
    "asinh": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -INF)],
    "acosh": [(1.0, 0.0), (INF, INF), (0.5, NAN), (-1e30, NAN), (-INF, NAN)],
    "atanh": [(0.0, 0.0), (-0.0, -0.0), (1.0, INF), (-1.0, -INF), (1.5, NAN), (-INF, NAN)],
    "log10": [(1.0, 0.0), (0.0, -INF), (-0.0, -INF), (INF, INF), (-1.0, NAN)],
    "sinc": [(0.0, 1.0), (-0.0, 1.0), (INF, 0.0), (-INF, 0.0)],
    "erfc": [(0.0, 1.0), (INF, 0.0), (-INF, 2.0), (1e30, 0.0), (-1e30, 2.0)],
    "erfcx": [(0.0, 1.0), (INF, 0.0), (-INF, INF), (-1e15, INF)],
    "erfinv": [(0.0, 0.0), (-0.0, -0.0), (1.0, INF), (-1.0, -INF), (1.5, NAN), (-INF, NAN)],
    "ndtr": [(0.0, 0.5), (INF, 1.0), (-INF, 0.0), (1e30, 1.0)],
    "ndtri": [(0.5, 0.0), (0.0, -INF), (1.0, INF), (-0.5, NAN), (1.5, NAN)],
    "log_ndtr": [(INF, -0.0), (-INF, -INF)],
    "lgamma": [(1.0, 0.0), (2.0, 0.0), (0.0, INF), (-0.0, INF), (-3.0, INF), (INF, INF),
               (-INF, INF)],
    "digamma": [(0.0, -INF), (-0.0, INF), (-3.0, NAN), (INF, INF), (-INF, NAN)],
    "i0": [(0.0, 1.0), (INF, INF), (-INF, INF)],
    "i0e": [(0.0, 1.0), (INF, 0.0), (-INF, 0.0)],
    "i1": [(0.0, 0.0), (INF, INF), (-INF, -INF)],
    "i1e": [(0.0, 0.0), (INF, 0.0)],
    "bessel_j0": [(0.0, 1.0), (INF, 0.0), (-INF, 0.0)],
    "bessel_j1": [(0.0, 0.0), (INF, 0.0)],
    "bessel_y0": [(0.0, -INF), (INF, 0.0), (-1.0, NAN), (-INF, NAN)],
    "bessel_y1": [(0.0, -INF), (INF, 0.0), (-1.0, NAN), (-INF, NAN)],
    "modified_bessel_k0": [(0.0, INF), (INF, 0.0), (-1.0, NAN)],
    "modified_bessel_k1": [(0.0, INF), (INF, 0.0), (-1.0, NAN)],
    "scaled_modified_bessel_k0": [(0.0, INF), (INF, 0.0), (-1.0, NAN)],
    "scaled_modified_bessel_k1": [(0.0, INF), (INF, 0.0), (-1.0, NAN)],
}  # fmt: skip
ODD = ("sin", "tanh", "erf", "tan", "asin", "atan", "sinh", "asinh", "atanh", "erfinv", "i1", "i1e",
       "bessel_j1")  # fmt: skip
NEAR_IDENTITY = ("sin", "tanh", "expm1", "log1p", "tan", "asin", "atan", "sinh", "asinh", "atanh")
SPECIAL = [
    0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, 1.5, -1.5, INF, -INF, NAN, 1e-30,
    -1e-30, 1e30, -1e30, 1e-40, -1e-40, 16777215.0, -16777215.0, 16777217.0, 2.0**31 + 128,
    9007199254740991.0, -9007199254740991.0, 9007199254740992.0, 3.4e38, -3.4e38,
]  # fmt: skip


def same_bits(a: Array, b: Array) -> Array:
    """Equal bits; NaNs count as equal."""
    word = np.uint32 if a.dtype == np.float32 else np.uint64
    return (a.view(word) == b.view(word)) | (np.isnan(a) & np.isnan(b))


def sample(dtype: DType, size: int) -> Array:
    """Ordinary numbers, any bit patterns and special numbers."""
    random = np.random.default_rng(7)
    patterns = random.integers(0, 1 << dtype.bits, size, np.uint64)
    word = np.uint32 if dtype is float32 else np.uint64
    patterns = patterns.astype(word).view(dtype.numpy)
    ordinary = random.uniform(-30, 30, size)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.concatenate([ordinary, patterns, SPECIAL]).astype(dtype.numpy)


def operands(name: str, dtype: DType, size: int) -> list[Array]:
    x = sample(dtype, size)
    return [x, x[::-1].copy()] if name in mathlib.BINARY else [x]


@FLOATS
@pytest.mark.parametrize("name", EXACT)
def test_exact_results(name: str, dtype: DType) -> None:
    x, expected = np.array([*EXACT[name], (NAN, NAN)], dtype.numpy).T
    result = compiled(name, dtype)(x)
    wrong = ~same_bits(result, np.ascontiguousarray(expected))
    assert not wrong.any(), (x[wrong], result[wrong])


@FLOATS
@pytest.mark.parametrize("name", ODD)
def test_odd_functions(name: str, dtype: DType) -> None:
    x, function = sample(dtype, 5000), compiled(name, dtype)
    assert same_bits(function(-x), -function(x)).all()


@FLOATS
def test_cosine_is_even(dtype: DType) -> None:
    x, function = sample(dtype, 5000), compiled("cos", dtype)
    assert same_bits(function(-x), function(x)).all()


@FLOATS
@pytest.mark.parametrize("name", NEAR_IDENTITY)
def test_subnormals_pass_unchanged(name: str, dtype: DType) -> None:
    tiny = np.finfo(dtype.numpy).smallest_subnormal
    x = np.arange(-2000, 2001).astype(dtype.numpy) * tiny
    assert same_bits(compiled(name, dtype)(x), x).all()


@FLOATS
def test_powers_of_two(dtype: DType) -> None:
    info = np.finfo(dtype.numpy)
    n = np.arange(info.minexp - info.nmant, info.maxexp).astype(dtype.numpy)
    powers = np.ldexp(np.ones_like(n), n.astype(np.int32))
    assert same_bits(compiled("exp2", dtype)(n), powers).all()
    assert same_bits(compiled("log2", dtype)(powers), n).all()
    assert same_bits(compiled("pow", dtype)(np.full_like(n, 2), n), powers).all()


@FLOATS
def test_overflow_and_underflow_begin_where_they_should(dtype: DType) -> None:
    info = np.finfo(dtype.numpy)
    exp, largest = compiled("exp", dtype), math.log(float(info.max))
    below, above = exp(np.array([largest * (1 - 1e-6), largest * (1 + 1e-6)]))
    assert np.isfinite(below)
    assert below > 0.99 * info.max or dtype is float64
    assert np.isinf(above)
    smallest = math.log(float(info.smallest_subnormal))
    below, above = exp(np.array([smallest - 1.0, smallest + 0.1]))
    assert below == 0
    assert above == info.smallest_subnormal


# --- pow -----------------------------------------------------------------------------------------


def c_pow(x: float, y: float) -> float:
    """C99's pow for special operands, spelled out; NaN where nothing special applies."""
    if y == 0 or x == 1:
        return 1.0
    if math.isnan(x) or math.isnan(y):
        return NAN
    if math.isinf(y):
        if abs(x) == 1:
            return 1.0
        return INF if (abs(x) > 1) == (y > 0) else 0.0
    integer = y == math.floor(y)
    odd = integer and math.fmod(y, 2) != 0
    sign = math.copysign(1.0, x) if odd else 1.0
    if x == 0 or math.isinf(x):
        return math.copysign(0.0 if (x == 0) == (y > 0) else INF, sign)
    if x < 0 and not integer:
        return NAN
    return sign * abs_pow(abs(x), y)


def abs_pow(x: float, y: float) -> float:
    """x**y for finite x > 0, with overflow as infinity."""
    try:
        return math.pow(x, y)
    except OverflowError:
        return INF


@FLOATS
def test_pow_of_special_operands(dtype: DType) -> None:
    pairs = np.array(list(itertools.product(SPECIAL, SPECIAL)))
    with np.errstate(over="ignore"):
        x, y = (np.ascontiguousarray(c).astype(dtype.numpy) for c in pairs.T)
        result = compiled("pow", dtype)(x, y)
        expected = np.array([c_pow(float(a), float(b)) for a, b in zip(x, y, strict=True)])
        expected = expected.astype(dtype.numpy)
    finite = np.isfinite(expected) & (expected != 0)
    np.testing.assert_array_max_ulp(result[finite], expected[finite], 2)
    exact = same_bits(result, expected)
    wrong = np.flatnonzero(~finite & ~exact)
    assert wrong.size == 0, [(x[i], y[i], result[i], expected[i]) for i in wrong[:5]]


def test_pow_of_small_integers_is_exact() -> None:
    base, exponent = np.meshgrid(np.arange(-15.0, 16.0), np.arange(0.0, 7.0))
    x, y = base.ravel(), exponent.ravel()
    assert np.array_equal(compiled("pow", float32)(x, y), (x**y).astype(np.float32))


# --- the same bits -------------------------------------------------------------------------------


@FLOATS
@NAMES
def test_same_bits_at_every_width(name: str, dtype: DType) -> None:
    x = operands(name, dtype, 300)
    serial = compiled(name, dtype, "serial")(*x)
    for bits in (128, 256):
        vector = compiled(name, dtype, "vector", bits)(*x)
        assert same_bits(vector, serial).all(), bits


@FLOATS
@NAMES
def test_same_bits_as_the_interpreter(name: str, dtype: DType) -> None:
    # the special numbers and, of what takes long, few others
    count = 60 if name in ("exp", "log", "sin", "pow") else len(SPECIAL) + 4
    x = [a[-count:].copy() for a in operands(name, dtype, 60)]
    expected = np.empty_like(x[0])
    interpret(elementary_kernel(name, dtype), [expected, *x], 0, expected.size)
    assert same_bits(compiled(name, dtype)(*x), expected).all()


def test_narrow_floats_are_refused() -> None:
    k = Builder("half")
    x = k.load(k.pointer("x", float16), 0)
    with pytest.raises(DTypeError, match="float32 or float64, got float16; convert the operand"):
        mathlib.exp(k, x)


@FLOATS
def test_atan2_of_special_operands(dtype: DType) -> None:
    pairs = np.array(list(itertools.product(SPECIAL, SPECIAL)))
    with np.errstate(over="ignore"):
        y, x = (np.ascontiguousarray(c).astype(dtype.numpy) for c in pairs.T)
    expected = np.array([math.atan2(float(a), float(b)) for a, b in zip(y, x, strict=True)])
    result = compiled("atan2", dtype)(y, x)
    np.testing.assert_allclose(result, expected, 3e-7, 1e-44)
    assert (np.signbit(result) == np.signbit(expected))[~np.isnan(expected)].all()
