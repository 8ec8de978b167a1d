"""What the tests of contractions share: running a plan, and the sums as they are defined."""

from __future__ import annotations

import array
import ctypes
import ctypes.util
import math
import platform
from collections.abc import Callable, Iterable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from treadle.base import dtypes
from treadle.codegen.llvm import print_llvm
from treadle.ir.launch import In, KernelSpec, Layout, Out, Plan
from treadle.ir.loop_interpret import interpret
from treadle.ir.loop_text import print_kernel
from treadle.ir.loop_verify import verify_kernel
from treadle.runtime import jit, pool

_addresses: dict[tuple[KernelSpec, int], int] = {}


def layout_of(x: np.ndarray) -> Layout:
    """The layout of a NumPy array, with its strides."""
    strides = tuple(s // x.itemsize for s in x.strides)
    return Layout(dtypes.from_numpy(x.dtype), x.shape, strides)


def _address(spec: KernelSpec, bits: int) -> int:
    if (spec, bits) not in _addresses:
        kernel = spec.build(*spec.key)
        verify_kernel(kernel)
        text = f"{print_kernel(kernel)}\n{bits}"
        _addresses[spec, bits] = jit.compile_kernel(
            kernel.name, text, lambda: print_llvm(kernel, bits)
        )
    return _addresses[spec, bits]


def run(
    plan: Plan, inputs: list[np.ndarray], out: np.ndarray, threads: int, bits: int = 256
) -> None:
    """Runs a plan; its workspaces begin as NaNs, and every launch is cut into pieces."""
    works = [np.full(nbytes, 0xFF, np.uint8) for nbytes in plan.workspaces]
    tape = array.array("q")
    for launch in plan.launches:
        words = []
        for arg in launch.args:
            if isinstance(arg, int):
                words.append(arg)
                continue
            holder = inputs if isinstance(arg, In) else [out] if isinstance(arg, Out) else works
            held = holder[arg.index]
            words.append(held.ctypes.data + arg.offset * held.itemsize)
        entry, units = _address(launch.kernel, bits), launch.units
        tape.extend([entry, len(words), units, units, *words])
    assert pool.run_tape(tape, len(plan.launches), threads) == (-1, 0)


def interpret_plan(plan: Plan, inputs: list[np.ndarray], out: np.ndarray) -> None:
    """Runs a plan in the interpreter of the loop IR, which checks every promise of the kernels."""
    works = [np.full(nbytes, 0xFF, np.uint8) for nbytes in plan.workspaces]
    for launch in plan.launches:
        kernel = launch.kernel.build(*launch.kernel.key)
        args: list[np.ndarray | int] = []
        for param, arg in zip(kernel.params, launch.args, strict=True):
            if isinstance(arg, int):
                args.append(arg)
            elif isinstance(arg, In):
                args.append(inputs[arg.index].reshape(-1))
            elif isinstance(arg, Out):
                args.append(out.reshape(-1))
            else:
                args.append(works[arg.index].view(param.dtype.numpy))
        assert interpret(kernel, args, 0, launch.units) == 0


def _fma32(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """float32 fma by float64: exact product, sum rounded to odd, then to nearest."""
    product = a.astype(np.float64) * b.astype(np.float64)
    c64 = np.broadcast_to(c.astype(np.float64), product.shape)
    total = product + c64
    part = total - product
    error = (product - (total - part)) + (c64 - part)
    bits = np.atleast_1d(total).view(np.int64).reshape(total.shape)
    away = (error > 0) == (total > 0)
    odd = np.where(away, bits + 1, bits - 1)
    inexact = np.isfinite(total) & (error != 0) & ((bits & 1) == 0)
    fixed = np.where(inexact, odd, bits).view(np.float64)
    return fixed.astype(np.float32)


def _libm_fma() -> Callable[[float, float, float], float]:
    name = ctypes.util.find_library("m")
    if name is None:
        pytest.skip(f"no C mathematics library on {platform.system()} to check float64 with")
    function = ctypes.CDLL(name).fma
    function.restype = ctypes.c_double
    function.argtypes = [ctypes.c_double] * 3
    return function


def _fma64(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    return np.vectorize(_libm_fma(), otypes=[np.float64])(a, b, c)


def _flush(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < np.float32(2.0**-126), np.float32(0), x)


def contract(
    terms: Callable[[int], tuple[np.ndarray, np.ndarray, Any]],
    depth: int,
    shape: tuple[int, ...],
    dtype: Any,
) -> np.ndarray:
    """The sum over k of a * b as it is defined; ``terms(k)`` gives a, b and where it is a term."""
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        total = np.zeros(shape, np.int64)
        for index in range(depth):
            a, b, there = terms(index)
            total = total + np.where(there, a.astype(np.int64) * b.astype(np.int64), 0)
        return total.astype(dtype)
    bf16 = dtype == ml_dtypes.bfloat16
    wide = np.float64 if dtype == np.float64 else np.float32
    fma = _fma64 if wide is np.float64 else _fma32
    total = np.zeros(shape, wide)
    with np.errstate(all="ignore"):
        for start in range(0, depth, 512):
            chain = np.zeros(shape, wide)
            for index in _order(start, min(start + 512, depth), bf16):
                a, b, there = terms(index)
                a, b = a.astype(wide), b.astype(wide)
                if bf16:
                    a, b = _flush(a), _flush(b)
                new = fma(a, b, chain)
                chain = np.where(there, _flush(new) if bf16 else new, chain)
            total = total + chain
        return total.astype(dtype)


def _order(start: int, stop: int, swap: bool) -> Iterable[int]:
    if not swap:
        return range(start, stop)
    return (index ^ 1 if index ^ 1 < stop else index for index in range(start, stop))


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal to the last bit; NaNs count as equal."""
    assert a.dtype == b.dtype and a.shape == b.shape
    nan = (a != a) & (b != b)
    words = f"u{a.dtype.itemsize}"
    return bool(np.all(nan | (np.ascontiguousarray(a).view(words) == b.view(words))))


class Contractions:
    """The helpers, as one fixture."""

    layout_of = staticmethod(layout_of)
    run = staticmethod(run)
    interpret = staticmethod(interpret_plan)
    contract = staticmethod(contract)
    same_bits = staticmethod(same_bits)
    dtypes = {
        "f32": np.dtype("f4"), "f64": np.dtype("f8"), "f16": np.dtype("f2"),
        "bf16": np.dtype(ml_dtypes.bfloat16), "i64": np.dtype("i8"), "i32": np.dtype("i4"),
        "i16": np.dtype("i2"), "i8": np.dtype("i1"), "u8": np.dtype("u1"),
    }  # fmt: skip

    @staticmethod
    def random(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Values that exercise rounding (and, in integers, wrapping)."""
        if dtype.kind in "iu":
            info = np.iinfo(dtype)
            return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
        scale = 2.0 ** rng.integers(-6, 6, shape)
        return (rng.standard_normal(shape) * scale).astype(dtype)

    @staticmethod
    def special(rng: np.random.Generator, x: np.ndarray, share: float) -> np.ndarray:
        """``x`` with some elements made infinite, NaN, -0, subnormal or tiny."""
        tiny = float(np.finfo(np.float32).tiny)
        values = [math.inf, -math.inf, math.nan, -0.0, 0.0, tiny / 2, -tiny / 4, 1e-30, -1e-30]
        chosen = np.array(values)[rng.integers(0, len(values), x.shape)]
        return np.where(rng.random(x.shape) < share, chosen, x.astype("f8")).astype(x.dtype)


@pytest.fixture
def contractions() -> type[Contractions]:
    """Running plans, and the sums as they are defined."""
    return Contractions
