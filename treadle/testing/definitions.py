"""What kernels compute against what the loop IR means: the interpreter's bits, and exact FMAs."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import numpy as np

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.record import Record
from treadle.codegen.llvm import print_llvm
from treadle.ir.loop import BEGIN, END, Builder, Kernel
from treadle.ir.loop_text import print_kernel
from treadle.ir.op import Contraction, Elementwise, Op, Sample
from treadle.runtime import jit, object_code
from treadle.runtime.object_code import Target
from treadle.testing.op_table import all_ops, cast_sample, run, sample_dtypes
from treadle.testing.plans import interpret_op
from treadle.testing.programs import same_bits

Array = np.ndarray[Any, Any]

_SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, -2.0, np.inf, -np.inf, np.nan, 3.0, -2.5, 1e-30, 1e30)


class Case(Record):
    """An op with a dtype and attributes, to be compared on some operands."""

    op: Op
    dtype: DType
    sample: Sample

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.op.name} {self.dtype.name} {dict(self.sample.attrs) or ''}".strip()

    def difference(self, count: int, seed: int = 0) -> str:
        """Where native code differs from the interpreter; empty where it does not."""
        rng = np.random.default_rng(seed)
        drawn = [
            operand(rng, x.dtype, position, count)
            for position, x in enumerate(cast_sample(self.sample, self.dtype))
        ]
        got = run(self.op, tuple(drawn), self.sample.attrs)
        expected = interpret_op(self.op, tuple(drawn), self.sample.attrs)
        for one, other in zip(got, expected, strict=True):
            if not same_bits(one, other):
                at = next(
                    i for i in range(one.size) if not same_bits(one[i : i + 1], other[i : i + 1])
                )
                values = [x[at] for x in drawn]
                return f"of {values}: {one[at]!r} native, {other[at]!r} interpreted"
        return ""


def elementwise_cases() -> Iterator[Case]:
    """Every elementwise op in every dtype, with every kind of attributes that its samples have."""
    for op in all_ops():
        if not isinstance(op.lower, Elementwise):
            continue
        seen = set()
        for sample in op.samples():
            for dtype in sample_dtypes(op, sample):
                kinds = tuple(x.dtype.name for x in cast_sample(sample, dtype))
                mark = dtype, kinds, tuple(sorted((k, str(v)) for k, v in sample.attrs.items()))
                if mark not in seen:
                    seen.add(mark)
                    yield Case(op, dtype, sample)


def operand(rng: np.random.Generator, dtype: np.dtype[Any], position: int, count: int) -> Array:
    """Special numbers and others; integers after the first operand are divisors and shifts."""
    if dtype == np.bool_:
        return rng.random(count) < 0.5
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        if position:
            return rng.integers(1, 8 * dtype.itemsize - 1, count).astype(dtype)
        x = rng.integers(info.min, info.max, count, dtype, endpoint=True)
        x[:3] = info.min, info.max, 0
        return x
    scale = np.exp2(rng.integers(-8, 9, count))
    x = rng.standard_normal(count) * scale
    x[::3] = rng.uniform(-1.5, 1.5, len(x[::3]))
    limits = dtypes_limits(dtype)
    every = np.array([*_SPECIAL, *limits, *(-y for y in limits)])
    some = min(len(every) if position == 0 else count // 2, count // 2)
    x[:some] = every[:some] if position == 0 else rng.choice(every, some)
    with np.errstate(over="ignore"):
        return x.astype(dtype)


def dtypes_limits(dtype: np.dtype[Any]) -> tuple[float, ...]:
    """The largest number, the smallest normal one and the smallest of a dtype of floats."""
    import ml_dtypes

    info = ml_dtypes.finfo(dtype)
    return float(info.max), float(info.tiny), float(info.smallest_subnormal)


def contraction_cases() -> Iterator[Case]:
    """The contractions' own samples, in float32 and bfloat16."""
    for op in all_ops():
        if isinstance(op.lower, Contraction):
            for sample in op.samples():
                for dtype in (dtypes.float32, dtypes.bfloat16):
                    if dtype in sample_dtypes(op, sample):
                        yield Case(op, dtype, sample)


def wide_difference(case: Case, vector_bits: int = 512) -> str:
    """Code planned for wide vectors, in the interpreter, against this machine's code."""
    arrays = cast_sample(case.sample, case.dtype)
    got = run(case.op, arrays, case.sample.attrs)
    wide = interpret_op(case.op, arrays, case.sample.attrs, vector_bits=vector_bits)
    same = all(same_bits(x, y) for x, y in zip(got, wide, strict=True))
    return "" if same else f"other bits with vectors of {vector_bits} bits"


# --- FMA ------------------------------------------------------------------------------------------


def first_x86_64() -> Target:
    """The first x86-64 there was: neither AVX nor FMA nor F16C."""
    return object_code.native()._replace(cpu="x86-64", features="", vector_bits=128)


def has_fma() -> bool:
    """Whether this is an x86-64 with FMA, which can run code for the first x86-64 too."""
    target = object_code.native()
    return target.triple.startswith("x86_64") and "+fma," in f"{target.features},"


def _fma_kernel(dtype: DType) -> Kernel:
    k = Builder(f"law_fma_{dtype.short}")
    out, *operands = (k.pointer(name, dtype) for name in ("out", "a", "b", "c"))
    with k.loop(BEGIN, END, kind="vector") as i:
        k.store(out, i, k.fma(*(k.load(x, i) for x in operands)))
    return k.kernel


def _fma(target: Target, a: Array, b: Array, c: Array) -> Array:
    kernel = _fma_kernel(dtypes.from_numpy(a.dtype))
    with ExitStack() as stack:
        for module in (jit, object_code):
            stack.enter_context(patch.object(module, "native", lambda: target))
        text = print_kernel(kernel)
        entry = jit.compile_kernel(
            kernel.name, text, lambda: print_llvm(kernel, target.vector_bits)
        )
    out = np.empty_like(a)
    table = np.array([x.ctypes.data for x in (out, a, b, c)], np.int64)
    call = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, *(ctypes.c_int64,) * 3)(entry)
    if call(table.ctypes.data, 0, a.size, 0):
        raise RuntimeError(f"{kernel.name} stopped")
    return out


def fma_difference(dtype: DType, count: int, seed: int = 0) -> str:
    """Emulated against real FMA, on operands that cancel, underflow, overflow and tie."""
    rng = np.random.default_rng(seed)
    real, info = dtype.numpy, np.finfo(dtype.numpy)
    with np.errstate(all="ignore"):
        a, b = (
            (rng.standard_normal(count) * np.exp2(rng.integers(-30, 30, count))).astype(real)
            for _ in "ab"
        )
        ratio = rng.choice([1, 1 + 1e-7, 0.5, 2.0**-24, 2.0**-25, 2.0**-53, 2.0**-54, 1e9], count)
        c = (-(a * b) * ratio).astype(real)
        few = count // 5
        special = np.array([*_SPECIAL, info.tiny, -info.tiny / 8, info.max, -info.max], real)
        for x in (a, b, c):
            x[:few] = rng.choice(special, few)
        a[2 * few : 3 * few] *= real.type(info.tiny)
        c[2 * few : 3 * few] *= real.type(info.tiny)
        whole = rng.integers(-(1 << 12), 1 << 12, (3, few)).astype(real)  # ties
        a[3 * few : 4 * few], b[3 * few : 4 * few] = whole[0], whole[1] + real.type(info.eps)
        c[3 * few : 4 * few] = whole[2] * real.type(info.eps)
    fast, slow = (_fma(t, a, b, c) for t in (object_code.native(), first_x86_64()))
    for i in range(count):
        if not same_bits(fast[i : i + 1], slow[i : i + 1]):
            return f"fma{(a[i], b[i], c[i])}: {fast[i]!r}, emulated {slow[i]!r}"
    return ""


__all__ = [
    "Case", "contraction_cases", "elementwise_cases", "first_x86_64", "fma_difference", "has_fma",
    "operand", "wide_difference",
]  # fmt: skip
