"""The kernels of the random ops: Philox, and numbers from its words (see ``ops.random``)."""

from __future__ import annotations

import math
from collections.abc import Callable

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.ir.loop import BEGIN, END, Builder, Kernel, Operand, Pointer
from treadle.ops import mathlib
from treadle.ops.mathlib.floats import Floats
from treadle.ops.random import (
    COUNTERS,
    KEY_STEPS,
    MULTIPLIERS,
    NUMBERS,
    ROUNDS,
    UNIT_BITS,
    WORD,
    words_each,
)

Words = list[Operand]


def philox(k: Builder, counter: Words, key: Words) -> Words:
    """Four words from four words of counter and two of key; all are u64 below 2**32.

    Between rounds the upper halves of the words hold anything: multiplying cuts them off.
    """
    c0, c1, c2, c3 = counter
    for _ in range(ROUNDS):
        first = k.mul(k.op("and", c0, WORD), MULTIPLIERS[0])
        second = k.mul(k.op("and", c2, WORD), MULTIPLIERS[1])
        c0 = k.op("xor", k.op("xor", k.op("shr", second, 32), c1), key[0])
        c2 = k.op("xor", k.op("xor", k.op("shr", first, 32), c3), key[1])
        c1, c3 = second, first
        key = [k.op("and", k.add(w, s), WORD) for w, s in zip(key, KEY_STEPS, strict=True)]
    return [k.op("and", word, WORD) for word in (c0, c1, c2, c3)]


def _halves(k: Builder, number: Operand) -> Words:
    """The lower and the upper 32 bits of an i64."""
    bits = k.bitcast(number, dtypes.uint64)
    return [k.op("and", bits, WORD), k.op("shr", bits, 32)]


def _unit(k: Builder, words: Words, bits: int) -> Operand:
    """The upper ``bits`` bits of the words as a fraction of 1, in f32 (one word) or f64 (two)."""
    if len(words) == 1:
        whole = k.convert(k.op("shr", words[0], 32 - bits), dtypes.int32)
        single = dtypes.float32
        return k.mul(k.convert(whole, single), k.const(2.0**-bits, single))
    f = Floats(k, dtypes.float64)
    low = f.mul(_word_to_f64(f, k.op("shr", words[1], 64 - bits)), 2.0**-bits)
    return f.fma(_word_to_f64(f, words[0]), 2.0**-32, low)


def _word_to_f64(f: Floats, word: Operand) -> Operand:
    """A u64 below 2**52, exactly: written into the significand of 2**52."""
    return f.sub(f.from_bits(f.k.op("or", word, (f.bias + 52) << 52)), 2.0**52)


def _sine_and_cosine(f: Floats, words: Words) -> tuple[Operand, Operand]:
    """Of a turn times the words as a fraction of 1.

    The upper two bits, rounded, are quarter turns; what is left is at most an eighth of a turn,
    where Taylor's series is short.
    """
    k = f.k
    shifted = k.add(words[0], 1 << 29)
    quarters = k.convert(k.op("shr", shifted, 30), f.word)
    rest = k.sub(k.convert(k.op("and", shifted, (1 << 30) - 1), dtypes.int32), 1 << 29)
    y = k.convert(rest, f.dtype)
    if len(words) == 2:
        y = f.fma(_word_to_f64(f, words[1]), 2.0**-32, y)
    y = f.mul(y, math.pi / 2 * 2.0**-30)
    z = f.mul(y, y)
    order = 5 if f.dtype is dtypes.float32 else 9
    series = [(-1) ** i / math.factorial(2 * i + 1) for i in range(order)]
    sine = f.fma(f.mul(y, z), f.polynomial(z, series[1:]), y)
    cosine = f.polynomial(z, [(-1) ** i / math.factorial(2 * i) for i in range(order + 1)])
    odd = k.compare("ne", k.op("and", quarters, 1), 0)
    top = f.dtype.bits - 2
    sign_of_sine = k.op("shl", k.op("and", quarters, 2), top)
    sign_of_cosine = k.op("shl", k.op("and", k.add(quarters, 1), 2), top)
    return (
        f.with_sign(f.select(odd, cosine, sine), sign_of_sine),
        f.with_sign(f.select(odd, sine, cosine), sign_of_cosine),
    )


def _box_muller(k: Builder, first: Words, second: Words) -> list[Operand]:
    """sqrt(-2 log u) times cosine and sine of a turn times the second words; u in (0, 1]."""
    if len(first) == 1:
        f = Floats(k, dtypes.float32)
        u = f.fma(k.convert(k.convert(first[0], dtypes.uint32), f.dtype), 2.0**-32, 2.0**-33)
    else:
        f = Floats(k, dtypes.float64)
        u = f.add(_unit(k, first, 53), 2.0**-53)
    radius = f.op("sqrt", f.mul(mathlib.log(k, u), -2.0))
    sine, cosine = _sine_and_cosine(f, second)
    return [f.mul(radius, cosine), f.mul(radius, sine)]


def _emit_bits(k: Builder, words: list[Words], dtype: DType) -> list[Operand]:
    return [k.bitcast(w, dtypes.int64) for (w,) in words]


def _emit_uniform(k: Builder, words: list[Words], dtype: DType) -> list[Operand]:
    return [k.convert(_unit(k, w, UNIT_BITS[dtype.short]), dtype) for w in words]


def _emit_normal(k: Builder, words: list[Words], dtype: DType) -> list[Operand]:
    pairs = (_box_muller(k, *words[i : i + 2]) for i in range(0, len(words), 2))
    return [k.convert(x, dtype) for pair in pairs for x in pair]


def _emit_bernoulli(
    k: Builder, words: list[Words], dtype: DType, threshold: Operand
) -> list[Operand]:
    return [k.compare("lt", k.bitcast(w, dtypes.int64), threshold) for (w,) in words]


Emit = Callable[..., list[Operand]]
_EMIT: dict[str, Emit] = {
    "random_bits": _emit_bits, "random_uniform": _emit_uniform, "random_normal": _emit_normal,
    "random_bernoulli": _emit_bernoulli,
}  # fmt: skip


def random_kernel(name: str, short: str) -> Kernel:
    """Fills ``out`` block by block; one that is cut short goes through scratch."""
    dtype = dtypes.by_short(short)
    k = Builder(f"{name}_{short}")
    out = k.pointer("out", dtype)
    seed, stream, offset = (
        k.load(k.pointer(p, dtypes.int64), 0) for p in ("seed", "stream", "offset")
    )
    size = k.size("size")
    numbers = [k.size(n) for n in NUMBERS.get(name, ())]
    key, upper = _halves(k, seed), _halves(k, stream)
    each = words_each(dtype)
    width = 4 * COUNTERS // each
    scratch = k.local(dtype, width)

    def draw(block: Operand, target: Pointer, start: Operand) -> None:
        """A block of elements, to ``target`` from ``start`` on."""
        with k.loop(0, COUNTERS, kind="vector") as lane:
            counter = k.add(k.add(offset, k.mul(block, COUNTERS)), lane)
            words = philox(k, [*_halves(k, counter), *upper], key)
            grouped = [words[i : i + each] for i in range(0, 4, each)]
            for place, value in enumerate(_EMIT[name](k, grouped, dtype, *numbers)):
                k.store(target, k.add(k.add(start, lane), place * COUNTERS), value)

    whole = k.maximum(BEGIN, k.minimum(k.div(size, width), END))
    with k.loop(BEGIN, whole) as block:
        draw(block, out, k.mul(block, width))
    with k.loop(whole, END) as block:
        start = k.mul(block, width)
        draw(block, scratch, k.const(0, dtypes.int64))
        with k.loop(0, k.sub(size, start)) as i:
            k.store(out, k.add(start, i), k.load(scratch, i))
    return k.kernel


__all__ = ["philox", "random_kernel"]
