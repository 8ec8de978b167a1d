"""What the elementary functions are written with: a Builder that knows one float dtype."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import DTypeError
from treadle.ir.loop import Builder, Operand

Number = Operand | float
Pair = tuple[Operand, Operand]  # an unevaluated sum hi + lo with lo below an ulp of hi

# ln 2 as a pair, by the bits of the mantissa
LN2 = {
    23: (0.693147182464599609375, -1.904654290582768e-09),
    52: (0.693147180559945286226764, 2.319046813846299558e-17),
}
_ROOT_HALF_BITS = {23: 0x3F3504F3, 52: 0x3FE6A09E667F3BCD}


def in_double(function: Callable[..., Operand]) -> Callable[..., Operand]:
    """A function written for f64, made to serve f32 too: computed in f64 and rounded once."""

    @functools.wraps(function)
    def either(k: Builder, *operands: Operand | int) -> Operand:
        given = next(x.dtype for x in operands if not isinstance(x, int))
        Floats(k, given)  # which refuses other dtypes
        wide = [x if isinstance(x, int) else k.convert(x, dtypes.float64) for x in operands]
        return k.convert(function(k, *wide), given)

    return either


class Floats:
    """Arithmetic in one float dtype (f32 or f64); Python numbers become constants of it.

    Raises DTypeError for other dtypes: narrower ones are widened to f32 by whoever lowers them.
    """

    def __init__(self, k: Builder, dtype: DType) -> None:
        if dtype not in (dtypes.float32, dtypes.float64):
            raise DTypeError(
                f"elementary functions are computed in float32 or float64, got {dtype.name}; "
                f"convert the operand to float32 and the result back"
            )
        self.k = k
        self.dtype = dtype
        self.word = dtypes.uint32 if dtype is dtypes.float32 else dtypes.uint64
        self.mantissa = 23 if dtype is dtypes.float32 else 52
        self.bias = 127 if dtype is dtypes.float32 else 1023
        # Adding this rounds to an integer, which then stands in the low bits.
        self.magic = 1.5 * 2.0**self.mantissa
        self.min_normal = 2.0 ** (1 - self.bias)
        self.one_bits = self.bias << self.mantissa
        self.magic_bits = ((self.bias + self.mantissa) << self.mantissa) + (
            1 << (self.mantissa - 1)
        )

    # one operation
    def op(self, name: str, *args: Number) -> Operand:
        """An operation of the loop IR on operands and Python numbers."""
        return self.k.op(name, *(self.operand(a) for a in args))

    def operand(self, a: Number) -> Operand:
        """Python numbers as constants."""
        return self.k.const(a, self.dtype) if isinstance(a, (int, float)) else a

    def add(self, a: Number, b: Number) -> Operand:
        """a + b."""
        return self.op("add", a, b)

    def sub(self, a: Number, b: Number) -> Operand:
        """a - b."""
        return self.op("sub", a, b)

    def mul(self, a: Number, b: Number) -> Operand:
        """a * b."""
        return self.op("mul", a, b)

    def div(self, a: Number, b: Number) -> Operand:
        """a / b."""
        return self.op("div", a, b)

    def fma(self, a: Number, b: Number, c: Number) -> Operand:
        """a * b + c, rounded once."""
        return self.op("fma", a, b, c)

    def neg(self, a: Operand) -> Operand:
        """-a."""
        return self.op("neg", a)

    def abs(self, a: Operand) -> Operand:
        """Without the sign."""
        return self.op("abs", a)

    def select(self, condition: Operand, a: Number, b: Number) -> Operand:
        """a where the condition holds, b elsewhere."""
        return self.k.select(condition, self.operand(a), self.operand(b))

    def rarely(
        self, condition: Operand, usual: Sequence[Operand], unusual: Callable[[], Sequence[Operand]]
    ) -> list[Operand]:
        """``unusual()`` where the condition holds, else ``usual``; free where no lane needs it."""
        places = [self.k.local(a.dtype, 1) for a in usual]
        for place, a in zip(places, usual, strict=True):
            self.k.store(place, 0, a)
        with self.k.when(condition):
            for place, a in zip(places, unusual(), strict=True):
                self.k.store(place, 0, a)
        return [self.k.load(place, 0) for place in places]

    # compositions
    def at_most(self, a: Operand, limit: float) -> Operand:
        """The smaller of both; NaN stays (one instruction, unlike the IEEE minimum)."""
        return self.select(self.op("lt", limit, a), limit, a)

    def at_least(self, a: Operand, limit: float) -> Operand:
        """The larger of both; NaN stays."""
        return self.select(self.op("gt", limit, a), limit, a)

    def of_dtype(self, single: Sequence[float], double: Sequence[float]) -> Sequence[float]:
        """The table for f32, or that for f64."""
        return single if self.dtype is dtypes.float32 else double

    def polynomial(self, x: Operand, coefficients: Sequence[Number]) -> Operand:
        """``sum coefficients[i] * x**i`` by Horner's rule."""
        result = self.operand(coefficients[-1])
        for c in reversed(coefficients[:-1]):
            result = self.fma(result, x, c)
        return result

    def two_sum(self, a: Operand, b: Operand) -> Pair:
        """a + b exactly."""
        hi = self.add(a, b)
        part = self.sub(hi, a)
        lo = self.add(self.sub(a, self.sub(hi, part)), self.sub(b, part))
        return hi, lo

    def fast_two_sum(self, a: Number, b: Operand) -> Pair:
        """a + b exactly, where a is 0 or not below b in magnitude."""
        hi = self.add(a, b)
        return hi, self.sub(b, self.sub(hi, a))

    def two_product(self, a: Number, b: Number) -> Pair:
        """a * b exactly (short of underflow)."""
        hi = self.mul(a, b)
        return hi, self.fma(a, b, self.neg(hi))

    def pair_product(self, a: Pair, b: Pair) -> Pair:
        """The product of two pairs, to about twice the precision."""
        hi, lo = self.two_product(a[0], b[0])
        return hi, self.add(lo, self.fma(a[0], b[1], self.mul(a[1], b[0])))

    def quotient(self, a: Operand, b: Pair) -> Pair:
        """a / b as a pair, with one division: the remainder corrects ``a * (1/b)``."""
        inverse = self.div(1.0, b[0])
        q = self.mul(a, inverse)
        minus = self.neg(q)
        remainder = self.fma(minus, b[1], self.fma(minus, b[0], a))
        return q, self.mul(remainder, inverse)

    # bit patterns
    def bits(self, a: Operand) -> Operand:
        """The bit pattern as an unsigned integer."""
        return self.k.bitcast(a, self.word)

    def from_bits(self, word: Operand) -> Operand:
        """The float with this bit pattern."""
        return self.k.bitcast(word, self.dtype)

    def sign_bit(self, a: Operand) -> Operand:
        """All bits but the sign cleared."""
        return self.k.op("and", self.bits(a), 1 << (self.dtype.bits - 1))

    def with_sign(self, magnitude: Operand, sign: Operand) -> Operand:
        """The magnitude with its sign flipped where the word ``sign`` has its highest bit."""
        return self.from_bits(self.k.op("xor", self.bits(magnitude), sign))

    def small_integer(self, word: Operand, offset: int = 0) -> Operand:
        """``word - offset`` as a float; the word is below 2**16."""
        shifted = self.from_bits(self.k.add(word, self.magic_bits))
        return self.sub(shifted, self.magic + offset)

    def round(self, x: Number, factor: Number) -> tuple[Operand, Operand]:
        """``x * factor`` rounded to an integer n, and the word ``n`` modulo its width.

        Right where n stays below a quarter of 2**mantissa in magnitude.
        """
        shifted = self.fma(x, factor, self.magic)
        return self.sub(shifted, self.magic), self.k.sub(self.bits(shifted), self.magic_bits)

    def power_of_two(self, biased: Operand) -> Operand:
        """2**(biased - bias); ``biased`` is a word in 1..2*bias."""
        return self.from_bits(self.k.op("shl", biased, self.mantissa))

    def scale(self, x: Operand, n: Operand) -> Operand:
        """``x * 2**n`` rounded once, for x in [0.5, 2] and n (a word) within twice the range.

        In two steps, so that subnormal and overflowing results come out right.
        """
        biased = self.k.add(n, 2 * self.bias)
        half = self.k.op("shr", biased, 1)
        rest = self.k.sub(biased, half)
        return self.mul(self.mul(x, self.power_of_two(half)), self.power_of_two(rest))

    def split(self, x: Operand) -> Pair:
        """m in [sqrt(1/2), sqrt(2)) and an integer e with ``x = m * 2**e``; x positive, normal."""
        root = _ROOT_HALF_BITS[self.mantissa]
        word = self.k.add(self.bits(x), self.one_bits - root)
        e = self.small_integer(self.k.op("shr", word, self.mantissa), self.bias)
        low = self.k.op("and", word, (1 << self.mantissa) - 1)
        return self.from_bits(self.k.add(low, root)), e

    def normalize(self, x: Operand) -> Pair:
        """x brought into the normal range by a power of two, and what to subtract from e."""
        tiny = self.op("lt", x, self.min_normal)
        shift = self.mantissa + 2
        scaled = self.select(tiny, self.mul(x, 2.0**shift), x)
        return scaled, self.select(tiny, float(shift), 0.0)
