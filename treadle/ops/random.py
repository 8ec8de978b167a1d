"""Random numbers by counter: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", 2011).

Each op takes three 0-d int64 nodes, (seed, stream, offset). Philox maps a 128-bit counter and a
64-bit key to four 32-bit words; the key is the seed, the counter's upper half the stream and its
lower half ``offset`` plus a number. Elements are numbered row-major. With E words to an element a
block of 8 counters makes 32 / E elements:

    element i:  block b = i // (32 / E), place r = i % (32 / E)
                counter offset + 8 b + r % 8, words (r // 8) E ... (r // 8) E + E - 1

so element i depends on (seed, stream, offset, i) alone, and a block is four vectors at full width.
An op that makes n elements uses up ``counters(n, dtype)`` counters.

    random_bits     E = 1   the word
    random_bernoulli  1     whether the word is below the threshold
    random_uniform  E = 1   the upper 24 (float32), 11 (float16) or 8 (bfloat16) bits of the word
                    E = 2   float64: the upper 53 bits of first * 2^32 + second
    random_normal   as uniform; two neighbouring vectors of elements are a Box-Muller pair
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.lazy_numpy import np
from treadle.base.shapes import Shape, prod
from treadle.ir.launch import In, KernelSpec, Launch, Layout, Out, Plan
from treadle.ir.node import Node, Type, type_of
from treadle.ir.op import Cost, ErrorSample, Loops, NoGradient, Op, Sample
from treadle.ops.registry import FLOATS, check_dtype, floats, register

COUNTERS = 8  # of a block: a vector of this many lanes
ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
WORD = 0xFFFFFFFF
UNIT_BITS = {
    "f64": 53,
    "f32": 24,
    "f16": 11,
    "bf16": 8,
}  # of a uniform number: those of its significand

NUMBERS = {"random_bernoulli": ("threshold",)}  # attributes that kernels take as parameters


def words_each(dtype: DType) -> int:
    """The words that make one element."""
    return 2 if dtype is dtypes.float64 else 1


def counters(size: int, dtype: DType) -> int:
    """How many counters an op uses up that makes ``size`` elements of ``dtype``.

    >>> counters(1, dtypes.float32), counters(33, dtypes.float32), counters(33, dtypes.float64)
    (8, 16, 24)
    """
    return -(-size * words_each(dtype) // (4 * COUNTERS)) * COUNTERS


# --- references -----------------------------------------------------------------------------------


def philox_reference(counter: Sequence[Any], key: Sequence[int]) -> list[np.ndarray]:
    """Four words from four words of counter (arrays) and two of key, as uint64 arrays.

    >>> [hex(w) for w in philox_reference([0, 0, 0, 0], [0, 0])]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c = [np.asarray(w, np.uint64) for w in counter]
    mask, half = np.uint64(WORD), np.uint64(32)
    for turn in range(ROUNDS):
        k0, k1 = (np.uint64((w + turn * s) & WORD) for w, s in zip(key, KEY_STEPS, strict=True))
        first, second = (w * np.uint64(m) for w, m in zip(c[::2], MULTIPLIERS, strict=True))
        c = [(second >> half) ^ c[1] ^ k0, second & mask, (first >> half) ^ c[3] ^ k1, first & mask]
    return c


def _reference_words(key: Sequence[Any], size: int, each: int) -> tuple[np.ndarray, np.ndarray]:
    """The four words of the counter of each element, and which of its vectors that is in."""
    seed, stream, offset = (int(x) & 0xFFFFFFFFFFFFFFFF for x in key)
    block, place = np.divmod(np.arange(size, dtype=np.uint64), np.uint64(4 * COUNTERS // each))
    lane = place % np.uint64(COUNTERS)
    number = np.uint64(offset) + block * np.uint64(COUNTERS) + lane
    mask, half = np.uint64(WORD), np.uint64(32)
    counter = [number & mask, number >> half, stream & WORD, stream >> 32]
    words = philox_reference(counter, [seed & WORD, seed >> 32])
    return np.stack(words), place.astype(np.int64) // COUNTERS


def _bits_reference(*key: Any, shape: Shape) -> np.ndarray:
    words, vector = _reference_words(key, prod(shape), 1)
    return np.take_along_axis(words, vector[None], 0)[0].astype(np.int64).reshape(shape)


def _bernoulli_reference(*key: Any, shape: Shape, threshold: int) -> np.ndarray:
    return _bits_reference(*key, shape=shape) < threshold


def _join(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The upper 53 bits of two words as a fraction of 1."""
    return ((first << np.uint64(21)) | (second >> np.uint64(11))).astype(np.float64) * 2.0**-53


def _uniform_reference(*key: Any, shape: Shape, dtype: DType) -> np.ndarray:
    bits = UNIT_BITS[dtype.short]
    if dtype is dtypes.float64:
        words, vector = _reference_words(key, prod(shape), 2)
        unit = np.where(vector == 0, _join(*words[:2]), _join(*words[2:]))
    else:
        unit = (_bits_reference(*key, shape=(prod(shape),)) >> (32 - bits)) * 2.0**-bits
    return unit.astype(dtype.numpy).reshape(shape)


def _normal_reference(*key: Any, shape: Shape, dtype: DType) -> np.ndarray:
    words, vector = _reference_words(key, prod(shape), words_each(dtype))
    if dtype is dtypes.float64:
        u, turn = _join(*words[:2]) + 2.0**-53, words[2] * 2.0**-32 + words[3] * 2.0**-64
    else:
        first, second = np.where(vector < 2, words[:2], words[2:])
        # u as the kernel rounds it: near 1 its logarithm hangs on that
        u = (first.astype(np.float32) * 2.0**-32 + 2.0**-33).astype(np.float32).astype(np.float64)
        turn = second * 2.0**-32
    wave = np.where(vector % 2 == 0, np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn))
    return (np.sqrt(-2 * np.log(u)) * wave).astype(dtype.numpy).reshape(shape)


# --- records --------------------------------------------------------------------------------------


def _infer(name: str, allowed: Sequence[DType]) -> Callable[..., Type]:
    def infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
        for kind in types:
            check_dtype(name, kind, (dtypes.int64,))
            if kind.ndim:
                raise ShapeError(
                    f"{name}: got a seed, stream or offset of shape {kind.shape}; all three must "
                    f"be 0-d"
                )
        shape, dtype = attrs["shape"], attrs.get("dtype", allowed[0])
        if dtype not in allowed:
            raise DTypeError(
                f"{name}: got dtype={dtype.name}; it makes {', '.join(d.name for d in allowed)}; "
                f"convert the result with .to(dtype)"
            )
        if any(s < 0 for s in shape):
            raise ShapeError(f"{name}: got the shape {shape}; sizes must not be negative")
        return type_of(dtype, shape, types[0].device)

    return infer


def _plan_of(name: str, numbers: Iterable[str], flops: int) -> Callable[..., Plan]:
    def plan(
        inputs: Sequence[Layout], outputs: Sequence[Layout], attrs: dict[str, Any], threads: int
    ) -> Plan:
        (out,) = outputs
        size = prod(out.shape)
        if not size:
            return Plan(())
        from treadle.ops.random_kernels import random_kernel  # when first needed

        spec = KernelSpec(random_kernel, (name, out.dtype.short))
        arguments = (Out(0), In(0), In(1), In(2), size, *(attrs[number] for number in numbers))
        blocks = counters(size, out.dtype) // COUNTERS
        return Plan((Launch(spec, arguments, blocks, size * flops),))

    return plan


def _batch(inputs: list[Node], batched: list[bool], size: int, n: Node) -> Node:
    """Numbers of its own for every example, of the same key."""
    return n.op(*inputs, **n.attrs | {"shape": (size, *n.shape)})


def _define(
    name: str, allowed: Sequence[DType], reference: Callable[..., np.ndarray], flops: int, doc: str,
    **numbers: int,
) -> Op:  # fmt: skip
    """One record; ``numbers`` are its attributes beside shape and dtype, as samples have them."""
    chooses = len(allowed) > 1

    def attributes(shape: Shape, dtype: DType) -> dict[str, Any]:
        return {"shape": shape, **({"dtype": dtype} if chooses else {}), **numbers}

    def samples() -> Iterable[Sample]:
        for dtype in allowed:
            for shape in ((), (5,), (3, 0), (7, 11)):
                key = (1234, 0, 0) if shape else (-5, 1 << 40, (1 << 32) - 4)
                arrays = tuple(np.array(x, np.int64) for x in key)
                yield Sample(arrays, attributes(shape, dtype), smooth=False)

    def errors() -> Iterable[ErrorSample]:
        good, bad = np.array(1), np.array([1, 2])
        attrs = attributes((3,), allowed[0])
        yield ErrorSample(
            (good, bad, good), attrs, ShapeError,
            f"{name}: got a seed, stream or offset of shape (2,); all three must be 0-d",
        )  # fmt: skip
        yield ErrorSample(
            (floats(), good, good), attrs, DTypeError, f"{name}: got an operand of dtype float32"
        )
        yield ErrorSample(
            (good,) * 3, attrs | {"shape": (2, -1)}, ShapeError,
            f"{name}: got the shape (2, -1); sizes must not be negative",
        )  # fmt: skip
        if chooses:
            yield ErrorSample(
                (good,) * 3, attrs | {"dtype": dtypes.int32}, DTypeError,
                f"{name}: got dtype=int32; it makes float64, float32, float16, bfloat16",
            )  # fmt: skip

    return register(
        Op(
            name=name, family="random", traits=frozenset({"random"}),
            infer=_infer(name, allowed),
            gradient=NoGradient("random numbers depend on no tensor"), residuals=(), batch=_batch,
            lower=Loops(_plan_of(name, numbers, flops)), reference=reference, samples=samples,
            errors=errors,
            cost=lambda inputs, out, attrs: Cost(flops * out.size, out.nbytes),  # type: ignore[union-attr]
            dtypes=(dtypes.int64,), doc=doc,
        )
    )  # fmt: skip


random_bits = _define(
    "random_bits", (dtypes.int64,), _bits_reference, 25,
    "whole numbers of 32 bits, 0 to 2^32 - 1, in int64",
)  # fmt: skip
random_bernoulli = _define(
    "random_bernoulli", (dtypes.bool_,), _bernoulli_reference, 25,
    "whether 32 random bits, as a whole number, are below ``threshold``, which is from 0 (never) "
    "to 2^32 (always)", threshold=3 << 30,
)  # fmt: skip
random_uniform = _define(
    "random_uniform", FLOATS, _uniform_reference, 30,
    "numbers of [0, 1), all multiples of 2^-53 (float64), 2^-24, 2^-11 (float16), 2^-8 (bfloat16)",
)  # fmt: skip
random_normal = _define(
    "random_normal", FLOATS, _normal_reference, 60,
    "normal numbers of mean 0 and variance 1 by Box and Muller's transform; float16 and bfloat16 "
    "are the float32 numbers rounded",
)  # fmt: skip

__all__ = [
    "NUMBERS", "UNIT_BITS", "counters", "random_bernoulli", "random_bits", "random_normal",
    "random_uniform",
]  # fmt: skip
