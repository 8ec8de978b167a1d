"""Runs the elementary functions of ``ops/mathlib`` on arrays and measures their errors."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from treadle.base.dtypes import DType
from treadle.codegen.llvm import print_llvm
from treadle.ir.loop import BEGIN, END, Builder, Kernel
from treadle.ir.loop_text import print_kernel
from treadle.ops import mathlib
from treadle.runtime.jit import compile_kernel, host_target

Array = np.ndarray[Any, Any]
_Kernel = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64
)


def elementary_kernel(name: str, dtype: DType, kind: str = "vector") -> Kernel:
    """The kernel that applies ``mathlib.<name>`` to each element: pointers ``out, x0, ...``.

    ``kind`` is the kind of its loop: "vector", or "serial" for one element at a time.
    """
    k = Builder(f"{name}_{dtype.short}_{kind}")
    out = k.pointer("out", dtype)
    inputs = [k.pointer(f"x{i}", dtype) for i in range(2 if name in mathlib.BINARY else 1)]
    with k.loop(BEGIN, END, kind=kind) as i:
        k.store(out, i, getattr(mathlib, name)(k, *(k.load(x, i) for x in inputs)))
    return k.kernel


@lru_cache(maxsize=None)
def compiled(
    name: str, dtype: DType, kind: str = "vector", vector_bits: int = 0
) -> Callable[..., Array]:
    """That kernel as a function of arrays, which it converts to ``dtype``.

    ``vector_bits`` is the width of the vectors it is printed with; 0 means this machine's.
    """
    kernel = elementary_kernel(name, dtype, kind)
    bits = vector_bits or host_target().vector_bits
    text = f"{print_kernel(kernel)}; {bits}"
    address = compile_kernel(kernel.name, text, lambda: print_llvm(kernel, bits))
    native = _Kernel(address)

    def call(*arrays: Array) -> Array:
        operands = [np.ascontiguousarray(a, dtype.numpy) for a in arrays]
        result = np.empty_like(operands[0])
        table = np.array([a.ctypes.data for a in (result, *operands)], np.int64)
        native(table.ctypes.data, 0, result.size, 0)
        return result

    return call


def ulp_errors(result: Array, reference: Array) -> Array:
    """How far results are from a reference of higher precision, in units of the last place.

    The unit is the spacing of the result's dtype at the reference, at least the smallest subnormal.
    A result that overflowed counts as the number after the largest one, 2**128 in f32. Infinitely
    wrong are: NaN on one side only, a zero of the wrong sign, and anything but the same infinity
    where the reference is infinite.

    >>> ulp_errors(np.array([1.0, np.inf], np.float32), np.array([1 + 2.0**-24, np.inf]))
    array([0.5, 0. ])
    """
    info = np.finfo(result.dtype)
    wide = reference.dtype.type
    top = np.ldexp(wide(1), info.maxexp)
    with np.errstate(all="ignore"):
        rounded = reference.astype(result.dtype)
        _, exponent = np.frexp(reference)
        unit = np.ldexp(wide(1), np.maximum(exponent - 1, info.minexp) - info.nmant)
        value = np.clip(result.astype(wide), -top, top)
        errors = np.abs((value - np.clip(reference, -top, top)) / unit).astype(np.float64)
    infinite = np.isinf(reference)
    errors[infinite] = np.where(result[infinite] == rounded[infinite], 0, np.inf)
    errors[np.isnan(result) & np.isnan(reference)] = 0
    errors[np.isnan(result) != np.isnan(reference)] = np.inf
    wrong_sign = np.signbit(result) != np.signbit(rounded)
    errors[(result == 0) & ~np.isnan(reference) & wrong_sign] = np.inf
    return errors
