"""Each operation against exact rational arithmetic, NumPy and known hard cases."""

from __future__ import annotations

import math
import struct
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base import dtypes
from treadle.ir.loop_arithmetic import convert, fma, operation, round_float

INF, NAN = math.inf, math.nan
F64, F32, F16, BF16 = dtypes.float64, dtypes.float32, dtypes.float16, dtypes.bfloat16
TINY = {F64: 2.0**-1074, F32: 2.0**-149, F16: 2.0**-24, BF16: 2.0**-133}
INTS = (*dtypes.INTS, dtypes.uint32, dtypes.uint64)


def same(a, b) -> bool:
    """Equal bits, where NaNs count as equal."""
    if isinstance(a, float) and isinstance(b, float):
        return (a != a and b != b) or struct.pack("<d", a) == struct.pack("<d", b)
    return type(a) is type(b) and a == b


def values_of(dtype):
    """Every value of a 16-bit float, by its bits."""
    with np.errstate(invalid="ignore"):  # signaling NaNs
        return np.arange(65536, dtype=np.uint16).view(dtype.numpy).astype(np.float64)


FINITE = {d: np.unique(v[np.isfinite(v)]) for d in (F16, BF16) for v in [values_of(d)]}


def nearest(exact: Fraction, dtype) -> float:
    """The rounding of ``exact`` by search among all values of a 16-bit float."""
    values = FINITE[dtype]
    above = int(np.searchsorted(values, float(exact)))
    near = [float(v) for v in values[max(above - 2, 0) : above + 2]]
    best = min(abs(Fraction(v) - exact) for v in near)
    ties = [v for v in near if abs(Fraction(v) - exact) == best]
    even = [v for v in ties if (v / TINY[dtype] / _gap(v, dtype)) % 2 == 0]
    return (even or ties)[0]


def _gap(value: float, dtype) -> float:
    """The distance of neighbours at ``value``, in units of the smallest subnormal."""
    precision = 11 if dtype is F16 else 8
    last = math.frexp(value)[1] - precision if value else -10000
    return max(2.0**last / TINY[dtype], 1.0)


# floats

DOUBLES = st.floats(width=64)
SINGLES = st.floats(width=32)


@pytest.mark.parametrize("op", ["add", "sub", "mul", "div", "minimum", "maximum", "rem"])
@pytest.mark.parametrize("dtype", [F64, F32], ids=["f64", "f32"])
def test_binary_operations_are_numpys(op, dtype):
    special = [0.0, -0.0, 1.0, -1.5, 3.0, INF, -INF, NAN, TINY[dtype], -TINY[dtype], 3e38, 1e-30]
    rng = np.random.default_rng(1)
    drawn = rng.standard_normal(40) * 10.0 ** rng.integers(-38, 38, 40)
    values = np.array([*special, *drawn]).astype(dtype.numpy)
    a, b = (x.ravel() for x in np.meshgrid(values, values))
    numpy_op = {"rem": np.fmod, "add": np.add, "sub": np.subtract, "mul": np.multiply}
    numpy_op |= {"div": np.divide, "minimum": np.minimum, "maximum": np.maximum}
    with np.errstate(all="ignore"):
        expected = numpy_op[op](a, b)
    compute = operation(op, dtype, dtype)
    zeros = (a == 0) & (b == 0) & (op in ("minimum", "maximum"))  # NumPy ignores their sign
    a, b, expected = (x[~zeros].tolist() for x in (a, b, expected))
    for x, y, want in zip(a, b, expected, strict=True):
        assert same(compute(x, y), want), (op, x, y)


def test_minimum_and_maximum_order_zeros_and_let_nan_win():
    low, high = operation("minimum", F32, F32), operation("maximum", F32, F32)
    assert same(low(0.0, -0.0), -0.0)
    assert same(low(-0.0, 0.0), -0.0)
    assert same(high(0.0, -0.0), 0.0)
    assert same(high(-0.0, 0.0), 0.0)
    for a, b in ((NAN, 1.0), (1.0, NAN), (NAN, -INF), (INF, NAN)):
        assert math.isnan(low(a, b))
        assert math.isnan(high(a, b))


@pytest.mark.parametrize("dtype", [F16, BF16], ids=["f16", "bf16"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_16_bit_operations_round_once_from_the_exact_result(dtype, data):
    finite = st.integers(0, len(FINITE[dtype]) - 1).map(lambda i: float(FINITE[dtype][i]))
    a, b, c = (data.draw(finite) for _ in range(3))
    exact = {
        "add": Fraction(a) + Fraction(b),
        "mul": Fraction(a) * Fraction(b),
        "fma": Fraction(a) * Fraction(b) + Fraction(c),
    }
    if b:
        exact["div"] = Fraction(a) / Fraction(b)
    greatest = float(FINITE[dtype][-1])
    overflow = Fraction(greatest) + Fraction(_gap(greatest, dtype) * TINY[dtype]) / 2
    for op, value in exact.items():
        got = operation(op, dtype, dtype)(*(a, b, c)[: 3 if op == "fma" else 2])
        if abs(value) >= overflow:
            assert got == (INF if value > 0 else -INF)
        else:
            assert got == nearest(value, dtype), (op, a, b, c)


@pytest.mark.parametrize("dtype", [F16, BF16], ids=["f16", "bf16"])
def test_square_roots_of_every_16_bit_value(dtype):
    compute = operation("sqrt", dtype, dtype)
    for x in FINITE[dtype][FINITE[dtype] >= 0][::7].tolist():
        root = compute(x)
        stored = dtype.numpy.type(root)
        below = float(np.nextafter(stored, dtype.numpy.type(-INF)))
        above = float(np.nextafter(stored, dtype.numpy.type(INF)))
        assert ((Fraction(max(below, 0.0)) + Fraction(root)) / 2) ** 2 <= Fraction(x)
        assert Fraction(x) <= ((Fraction(above) + Fraction(root)) / 2) ** 2


def test_square_roots_of_what_has_none():
    compute = operation("sqrt", F32, F32)
    assert math.isnan(compute(-1.0))
    assert math.isnan(compute(NAN))
    assert same(compute(-0.0), -0.0)
    assert compute(INF) == INF
    assert compute(2.0) == float(np.sqrt(np.float32(2)))


@pytest.mark.parametrize("op", ["floor", "ceil", "trunc", "roundeven"])
def test_roundings_to_integers_keep_signs_of_zero(op):
    numpy_op = {"roundeven": np.rint}.get(op) or getattr(np, op)
    values = [0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, -0.3, 1e300, INF, -INF, NAN, 2.0**52 + 1]
    for x in values:
        assert same(operation(op, F64, F64)(x), float(numpy_op(x))), x


def test_comparisons_with_nan():
    for op in ("eq", "lt", "le", "gt", "ge"):
        assert operation(op, F32, F32)(NAN, NAN) is False
    assert operation("ne", F32, F32)(NAN, NAN) is True
    assert operation("eq", F32, F32)(0.0, -0.0) is True


# fma


@settings(max_examples=300, deadline=None)
@given(SINGLES, SINGLES, SINGLES)
def test_f32_fma_is_the_nearest_value(a, b, c):
    got = fma(a, b, c, F32)
    if not all(map(math.isfinite, (a, b, c))):
        with np.errstate(all="ignore"):
            assert same(got, float(np.float64(a) * b + c))  # f64: a finite product stays finite
        return
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if not math.isfinite(got):
        assert abs(exact) >= Fraction(2**128) - Fraction(2**103)
        return
    single = np.float32(got)
    assert float(single) == got
    error = abs(Fraction(got) - exact)
    for toward in (-INF, INF):
        with np.errstate(over="ignore"):
            neighbour = np.nextafter(single, np.float32(toward))
        if np.isfinite(neighbour):
            rival = abs(Fraction(float(neighbour)) - exact)
            assert error < rival or (error == rival and not single.view(np.uint32) & 1)


@settings(max_examples=300, deadline=None)
@given(DOUBLES, DOUBLES, DOUBLES)
def test_f64_fma_is_the_nearest_value(a, b, c):
    got = fma(a, b, c, F64)
    if not all(map(math.isfinite, (a, b, c))):
        expected = c if math.isfinite(a) and math.isfinite(b) else a * b + c
        assert same(got, expected)
        return
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        assert got == 0
        return
    try:
        assert got == float(exact)  # Python rounds a Fraction correctly
    except OverflowError:
        assert got == (INF if exact > 0 else -INF)


FMA_CASES = [
    # (a, b, c, dtype, a*b + c rounded once)
    (1.0 + 2.0**-12, 1.0 + 2.0**-12, -(1.0 + 2.0**-11), F32, 2.0**-24),  # exact cancellation
    (1.0 + 2.0**-27, 1.0 - 2.0**-27, -1.0, F64, -(2.0**-54)),
    (2.0**-24, 1.0 + 2.0**-23, 1.0, F32, 1.0 + 2.0**-23),
    (2.0**-30, 2.0**-30, 1.0 + 2.0**-23, F32, 1.0 + 2.0**-23),
    (1.0 + 2.0**-23, 2.0**-24 + 2.0**-47, 2.0**30, F32, 2.0**30),
    (2.0**-75, 2.0**-75, 0.0, F32, 0.0),  # a tie at half of the smallest subnormal
    (2.0**-75, 1.5 * 2.0**-75, 0.0, F32, 2.0**-149),
    (2.0**-537, 1.5 * 2.0**-538, 0.0, F64, 2.0**-1074),
    (2.0**-149, 2.0**-149, 1.0, F32, 1.0),
    (-(2.0**-149), 2.0**-149, 0.0, F32, -0.0),  # underflows to the exact result's sign
    (2.0**127, 2.0, -(2.0**127), F32, 2.0**127),  # the product alone overflows
    (2.0**1023, 2.0, -(2.0**1023), F64, 2.0**1023),
    (2.0**127, 2.0, 0.0, F32, INF),
    (1.0, -1.0, 1.0, F32, 0.0),
    (-1.0, 1.0, 1.0, BF16, 0.0),
    (0.0, 1.0, -0.0, F32, 0.0),
    (-0.0, 1.0, -0.0, F32, -0.0),
    (-0.0, 1.0, 0.0, F16, 0.0),
    (-0.0, -1.0, -0.0, F64, 0.0),
    (INF, 1.0, -INF, F32, NAN),
    (INF, 0.0, 1.0, F32, NAN),
    (INF, -2.0, 5.0, F64, -INF),
    (1e300, 1e300, -INF, F64, -INF),
    (1.0, 1.0, NAN, F16, NAN),
    (65504.0, 1.0, 15.9921875, F16, 65504.0),
    (65504.0, 1.0, 16.0, F16, INF),  # a tie between the greatest value and 2^16
    (256.0, 256.0, 0.0, F16, INF),
]


@pytest.mark.parametrize(("a", "b", "c", "dtype", "expected"), FMA_CASES)
def test_fma_hard_cases(a, b, c, dtype, expected):
    assert same(fma(a, b, c, dtype), expected)
    assert same(fma(b, a, c, dtype), expected)


def test_f32_fma_where_rounding_to_f64_first_is_wrong():
    # a*b = 2^-24 - 2^-70: just below half the distance to the next f32, and f64 loses the 2^-70
    a, b, c = 1.0 + 2.0**-23, 2.0**-24 - 2.0**-47, 1.0 + 2.0**-23
    assert fma(a, b, c, F32) == 1.0 + 2.0**-23
    assert round_float(a * b + c, F32) == 1.0 + 2.0**-22


# rounding and conversion


@pytest.mark.parametrize("dtype", [F32, F16], ids=["f32", "f16"])
@settings(max_examples=300, deadline=None)
@given(DOUBLES)
def test_f64_rounds_as_numpy_does(dtype, x):
    with np.errstate(all="ignore"):
        assert same(round_float(x, dtype), float(np.float64(x).astype(dtype.numpy)))


@settings(max_examples=300, deadline=None)
@given(SINGLES)
def test_f32_rounds_to_bf16_as_ml_dtypes_does(x):
    assert same(round_float(x, BF16), float(np.float32(x).astype(ml_dtypes.bfloat16)))


def test_f64_to_bf16_rounds_once():
    # through f32 this would tie, and go to 1
    assert round_float(1.0 + 2.0**-8 + 2.0**-30, BF16) == 1.0 + 2.0**-7


@pytest.mark.parametrize("dtype", [F16, BF16], ids=["f16", "bf16"])
def test_every_16_bit_value_is_its_own_rounding(dtype):
    assert all(same(round_float(x, dtype), x) for x in values_of(dtype).tolist())


CONVERSIONS = [
    (NAN, dtypes.int32, 0), (INF, dtypes.int32, 2**31 - 1), (-INF, dtypes.int64, -(2**63)),
    (2.0**63, dtypes.int64, 2**63 - 1), (-(2.0**63), dtypes.int64, -(2**63)),
    (1e30, dtypes.uint8, 255), (-1.0, dtypes.uint8, 0), (-0.9, dtypes.uint8, 0),
    (255.9, dtypes.uint8, 255), (-1.9, dtypes.int8, -1), (2.0**64, dtypes.uint64, 2**64 - 1),
    (300, dtypes.uint8, 44), (-1, dtypes.uint64, 2**64 - 1), (2**31, dtypes.int32, -(2**31)),
    (2**24 + 1, F32, 2.0**24), (2**24 + 3, F32, 2.0**24 + 4), (2**53 + 1, F64, 2.0**53),
    # through f64 this would tie, and go to 2^62
    (2**62 + 2**38 + 1, F32, 2.0**62 + 2.0**39), (-(2**63), F32, -(2.0**63)),
    (2**64 - 1, F32, 2.0**64), (65520, F16, INF), (65519, F16, 65504.0), (257, BF16, 256.0),
    (True, F32, 1.0), (False, BF16, 0.0), (True, dtypes.int64, 1),
    (0.0, dtypes.bool_, False), (-0.0, dtypes.bool_, False), (NAN, dtypes.bool_, True),
    (5e-324, dtypes.bool_, True), (256, dtypes.bool_, True), (0, dtypes.bool_, False),
    (1e39, F32, INF), (-1e-46, F32, -0.0),
]  # fmt: skip


@pytest.mark.parametrize(("value", "dtype", "expected"), CONVERSIONS)
def test_convert(value, dtype, expected):
    assert same(convert(value, dtype), expected)


@pytest.mark.parametrize(
    ("source", "value", "dtype", "expected"),
    [
        (F32, 1.0, dtypes.uint32, 0x3F800000),
        (F32, -0.0, dtypes.int32, -(2**31)),
        (dtypes.int32, 0x7F800000, F32, INF),
        (F64, -2.0, dtypes.uint64, 0xC000000000000000),
        (dtypes.int64, 1, F64, 5e-324),
        (dtypes.int16, 0x3F80, BF16, 1.0),
        (BF16, -1.0, dtypes.int16, 0xBF80 - 0x10000),
        (dtypes.int16, 0x3C00, F16, 1.0),
        (BF16, 1.0, F16, 1.875),
        (dtypes.uint8, 255, dtypes.int8, -1),
    ],
)
def test_bitcast(source, value, dtype, expected):
    assert same(operation("bitcast", dtype, source)(value), expected)


# integers and b1


@pytest.mark.parametrize("dtype", INTS, ids=lambda d: d.short)
def test_integer_operations(dtype):
    low = -(1 << (dtype.bits - 1)) if dtype.kind == "i" else 0
    high = low + (1 << dtype.bits) - 1
    values = [v for v in (low, low + 1, -7, -1, 0, 1, 2, 3, 100, high - 1, high) if v >= low]
    a, b = (x.ravel() for x in np.meshgrid(*[np.array(values, dtype.numpy)] * 2))
    with np.errstate(all="ignore"):
        expected = {
            "add": a + b, "sub": a - b, "mul": a * b, "and": a & b, "or": a | b, "xor": a ^ b,
            "minimum": np.minimum(a, b), "maximum": np.maximum(a, b), "lt": a < b, "ge": a >= b,
            "rem": np.fmod(a, np.where(b == 0, 1, b)),
        }  # fmt: skip
        unary = {"neg": -a, "abs": np.abs(a), "not": ~a}
    for op, wants in expected.items():
        compute = operation(op, dtype, dtype)
        for x, y, want in zip(a.tolist(), b.tolist(), wants.tolist(), strict=True):
            if not (op == "rem" and y == 0):
                assert compute(x, y) == want, (op, x, y)
    for op, wants in unary.items():
        compute = operation(op, dtype, dtype)
        assert [compute(x) for x in a.tolist()] == wants.tolist()


def test_integer_division_rules():
    div, rem = (operation(op, dtypes.int32, dtypes.int32) for op in ("div", "rem"))
    low = -(2**31)
    assert [div(7, 2), div(-7, 2), div(7, -2), div(-7, -2)] == [3, -3, -3, 3]
    assert [rem(7, 2), rem(-7, 2), rem(7, -2), rem(-7, -2)] == [1, -1, 1, -1]
    assert [div(5, 0), div(0, 0), rem(5, 0), rem(-5, 0)] == [0, 0, 0, 0]
    assert (div(low, -1), rem(low, -1)) == (low, 0)
    assert operation("div", dtypes.uint64, dtypes.uint64)(2**64 - 1, 2) == 2**63 - 1


def test_shifts_up_to_and_beyond_the_width():
    shl, shr = (operation(op, dtypes.int8, dtypes.int8) for op in ("shl", "shr"))
    assert [shl(1, 6), shl(1, 7), shl(1, 8), shl(-1, 100), shl(3, -1)] == [64, -128, 0, 0, 0]
    assert [shr(-128, 7), shr(-128, 8), shr(-1, -1)] == [-1, -1, -1]
    assert [shr(100, 2), shr(100, 8)] == [25, 0]
    logical = operation("shr", dtypes.uint64, dtypes.uint64)
    assert [logical(2**64 - 1, 63), logical(2**64 - 1, 64), logical(2**63, 2**63)] == [1, 0, 0]


def test_b1_operations():
    pairs = [(a, b) for a in (False, True) for b in (False, True)]
    table = {
        "and": [False, False, False, True], "or": [False, True, True, True],
        "xor": [False, True, True, False], "minimum": [False, False, False, True],
        "maximum": [False, True, True, True], "lt": [False, True, False, False],
        "eq": [True, False, False, True],
    }  # fmt: skip
    for op, expected in table.items():
        got = [operation(op, dtypes.bool_, dtypes.bool_)(a, b) for a, b in pairs]
        assert got == expected, op
        assert {type(x) for x in got} == {bool}
    assert operation("not", dtypes.bool_, dtypes.bool_)(True) is False
