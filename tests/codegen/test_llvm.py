"""What the LLVM printer makes of loop IR: hoisting, sums of indices, other targets."""

import ctypes
import re
from contextlib import ExitStack
from fractions import Fraction
from functools import lru_cache

import numpy as np
import pytest

from treadle.base import dtypes
from treadle.codegen.llvm import print_llvm
from treadle.compiler import lower
from treadle.ir.loop import BEGIN, END, Builder, Kernel
from treadle.ir.loop_interpret import interpret
from treadle.ir.loop_verify import verify_kernel
from treadle.ir.node import type_of
from treadle.ops import (  # noqa: F401  (those that register the ops used here)
    contraction,
    indexing,
    random,
    reduce,
    registry,
    scan,
)
from treadle.runtime import jit
from treadle.runtime.object_code import Target, binding, native, object_code

KERNEL = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64
)
BASELINE = Target("x86-64", "", 128, "x86_64-unknown-linux-gnu")
ARM = Target("generic", "+neon", 128, "aarch64-unknown-linux-gnu")
MACHINES = {BASELINE: 62, ARM: 183}  # e_machine of the ELF format


def call(kernel: Kernel, arguments: list, begin: int, end: int, target: Target) -> int:
    """Runs a kernel compiled for ``target`` on this machine."""
    verify_kernel(kernel)
    code = object_code(print_llvm(kernel, target.vector_bits), target)
    words = [a if isinstance(a, int) else a.ctypes.data for a in arguments]
    table = np.array(words, np.int64)
    return KERNEL(jit._load(kernel.name, code))(table.ctypes.data, begin, end, 0)


# hoisting


def blocks_of(kernel: Kernel) -> dict[str, list[str]]:
    """The instructions of every basic block."""
    found: dict[str, list[str]] = {}
    for line in print_llvm(kernel, 256).splitlines():
        if label := re.fullmatch(r"([a-z]+\d*):", line):
            found[label[1]] = block = []
        elif line.startswith("  ") and found:
            block.append(re.sub(r"%\w+", "%", line.strip()))
    return found


def test_what_a_loop_does_not_change_is_computed_before_it():
    k = Builder("hoisted")
    out, a = k.pointer("out", dtypes.int64), k.pointer("a", dtypes.int64)
    n, s = k.size("n"), k.size("s")
    with k.loop(BEGIN, END) as i, k.loop(0, n) as j:
        row = k.mul(k.add(i, 1), s)
        k.store(out, k.add(k.add(row, j), 3), k.load(a, k.add(k.mul(k.add(i, 1), s), j)))
    blocks = [b for name, b in blocks_of(k.kernel).items() if name.startswith("body")]
    outer, inner = blocks
    assert inner == [
        "% = phi i64 [0, %], [%, %]",
        "% = getelementptr i64, ptr %, i64 %",
        "% = load i64, ptr %, align 8",
        "% = getelementptr i64, ptr %, i64 %",
        "% = getelementptr i64, ptr %, i64 3",
        "store i64 %, ptr %, align 8",
        "% = add nsw i64 %, 1",
        "% = icmp slt i64 %, %",
        "br i1 %, label %, label %",
    ]
    assert sum("mul" in line for line in outer) == 1  # i * s; once, and s itself is in the entry


@pytest.mark.parametrize(
    ("loops", "kind", "multiplies", "hidden"),
    [
        (1, "serial", False, 0), (2, "serial", False, 1),  # the quick one inside is shown
        (3, "serial", False, 3), (3, "serial", True, 2),  # deep inside, only where it multiplies
        (1, "vector", True, 2),  # full vectors and the rest
    ],
)  # fmt: skip
def test_what_strength_reduction_looks_at(loops, kind, multiplies, hidden):
    k = Builder("nest")
    out, a, n = k.pointer("out", dtypes.float32), k.pointer("a", dtypes.float32), k.size("n")
    with ExitStack() as nest:
        for _ in range(loops - 1):
            nest.enter_context(k.loop(0, n))
        i = nest.enter_context(k.loop(0, n, kind=kind))
        x = k.load(a, i)
        k.store(out, i, k.fma(x, x, x) if multiplies else x)
    text = print_llvm(k.kernel, 256)
    assert text.count("= call ptr @llvm.launder.invariant.group") == hidden


def test_slow_arithmetic_stays_in_the_if_that_may_save_it():
    k = Builder("guarded")
    out, x, flag = (k.pointer(name, dtypes.int64) for name in ("out", "x", "flag"))
    a = k.load(x, 0)
    zero = k.const(0, dtypes.int64)
    with k.loop(BEGIN, END) as i, k.when(k.compare("ne", k.load(flag, i), zero)):
        k.store(out, i, k.add(k.div(a, 7), k.mul(a, a)))
    blocks = blocks_of(k.kernel)
    (inside,) = [b for name, b in blocks.items() if name.startswith("then")]
    assert any("sdiv" in line for line in inside)
    assert any("mul i64" in line for line in blocks["entry"])


def test_an_instruction_is_printed_once():
    k = Builder("once")
    out, x = k.pointer("out", dtypes.float32), k.pointer("x", dtypes.float32)
    with k.loop(BEGIN, END, kind="vector") as i:
        a = k.load(x, i)
        k.store(out, i, k.add(k.mul(a, a), k.mul(a, a)))
    text = print_llvm(k.kernel, 256)
    assert text.count("fmul <8 x float>") == 1
    assert text.count("fmul float") == 1


# sums of indices


def random_indices(rng: np.random.Generator, kind: str) -> tuple[Kernel, list]:
    """A kernel with random index arithmetic in nested loops, and its arguments."""
    k = Builder("indices")
    out, a = k.pointer("out", dtypes.int64), k.pointer("a", dtypes.int64)
    s, t, n = k.size("s"), k.size("t"), k.size("n")
    with k.loop(BEGIN, END) as i, k.loop(0, n, kind=kind) as j, k.loop(0, 3) as m:
        known = [i, j, m, s, t, k.const(int(rng.integers(-9, 9)), dtypes.int64)]
        for _ in range(6):
            x, y = (known[int(rng.integers(len(known)))] for _ in range(2))
            known.append(getattr(k, str(rng.choice(["add", "sub", "mul"])))(x, y))
        size = k.const(61, dtypes.int64)
        place = k.op("rem", k.add(k.op("rem", known[-1], size), size), size)
        at = k.add(k.mul(k.add(k.mul(i, n), j), 3), m)
        value = k.add(k.load(a, place), k.op("xor", known[-2], known[-3]))
        k.store(out, at, value)
    numbers = [int(rng.integers(-1000, 1000)), int(rng.integers(-(1 << 62), 1 << 62)), 21]
    return k.kernel, [np.zeros(4 * 21 * 3, np.int64), rng.integers(-5, 5, 61), *numbers]


@pytest.mark.parametrize("kind", ["serial", "vector"])
@pytest.mark.parametrize("seed", range(25))
def test_sums_of_indices_are_what_they_were(seed, kind):
    kernel, arguments = random_indices(np.random.default_rng(seed), kind)
    expected, got = (arguments[0].copy() for _ in range(2))
    assert interpret(kernel, [expected, *arguments[1:]], 0, 4) == 0
    assert call(kernel, [got, *arguments[1:]], 0, 4, native()) == 0
    assert (got == expected).all()


@pytest.mark.parametrize("step", [-3, -1, 0, 1, 2, 5])
def test_vectors_are_gathered_and_scattered_by_any_step(step):
    k = Builder("strided")
    out, x = k.pointer("out", dtypes.float32), k.pointer("x", dtypes.float32)
    s = k.size("s")
    with k.loop(BEGIN, END, kind="vector") as i:
        k.store(out, k.mul(i, 2), k.load(x, k.add(k.mul(i, s), 60)))
    x = np.arange(200, dtype=np.float32)
    out = np.zeros(60, np.float32)
    assert call(k.kernel, [out, x, step], 1, 20, native()) == 0
    assert (out[2:40:2] == x[[60 + i * step for i in range(1, 20)]]).all()
    assert not out[1::2].any()


@pytest.mark.parametrize("start", range(5))
def test_streams_store_at_any_address(start):
    k = Builder("streaming")
    out, x = k.pointer("out", dtypes.float32), k.pointer("x", dtypes.float32)
    with k.loop(BEGIN, END, kind="vector") as i:
        k.store(out, k.add(i, start), k.load(x, i), streams=True)
    text = print_llvm(k.kernel, 256)
    assert "!nontemporal" in text
    assert "fence seq_cst" in text
    x = np.arange(70, dtype=np.float32)
    out = np.zeros(80, np.float32)
    assert call(k.kernel, [out, x], 1, 60, native()) == 0
    assert (out[start + 1 : start + 60] == x[1:60]).all()
    assert out.sum() == x[1:60].sum()


def test_two_vectors_go_side_by_side_where_there_is_much_arithmetic():
    k = Builder("polynomial")
    out, x = k.pointer("out", dtypes.float32), k.pointer("x", dtypes.float32)
    with k.loop(BEGIN, END, kind="vector") as i:
        value = v = k.load(x, i)
        for _ in range(20):
            value = k.fma(value, v, v)
        k.store(out, i, value)
    assert "llvm.fma.v16f32" in print_llvm(k.kernel, 256)
    x = np.linspace(-1, 1, 101, dtype=np.float32)
    got, expected = np.zeros_like(x), np.zeros_like(x)
    assert interpret(k.kernel, [expected, x], 3, 100) == 0
    assert call(k.kernel, [got, x], 3, 100, native()) == 0
    assert (got == expected).all()


# targets


REPRESENTATIVE = (
    "add", "div", "convert", "exp", "sin", "reduce_sum", "reduce_max", "argmax", "moments",
    "cumsum", "gather", "random_uniform", "matmul", "conv_forward", "conv_input", "conv_weight",
)  # fmt: skip


def representative_kernels(bits: int) -> list[Kernel]:
    """Kernels of every kind, of the first samples of their ops."""
    kernels: dict[str, Kernel] = {}
    for name in REPRESENTATIVE:
        op = registry.get(name)
        for sample in list(op.samples())[:2]:
            types = [type_of(dtypes.from_numpy(a.dtype), a.shape) for a in sample.args]
            result = op.infer(types, sample.attrs)
            outs = result if isinstance(result, tuple) else (result,)
            layouts = [t.layout for t in types]
            plan = lower.plan(op, sample.attrs, layouts, [t.layout for t in outs], 2, bits)
            for launch in plan.launches:
                kernel = launch.kernel.build(*launch.kernel.key)
                kernels[kernel.name] = kernel
    return list(kernels.values())


@lru_cache(maxsize=None)
def every_target() -> None:
    binding().initialize_all_targets()
    binding().initialize_all_asmprinters()


@pytest.mark.parametrize("target", MACHINES, ids=lambda t: t.triple.partition("-")[0])
def test_kernels_compile_for_other_processors(target):
    every_target()
    kernels = representative_kernels(target.vector_bits)
    assert len(kernels) > 15
    for kernel in kernels:
        verify_kernel(kernel)
        code = object_code(print_llvm(kernel, target.vector_bits), target)
        assert code[:5] == b"\x7fELF\x02", kernel.name
        assert int.from_bytes(code[18:20], "little") == MACHINES[target]


def test_neon_multiplies_and_adds_in_one_instruction():
    every_target()
    k = Builder("multiply_add")
    a, b, c = (k.pointer(name, dtypes.float32) for name in "abc")
    with k.loop(BEGIN, END, kind="vector") as i:
        k.store(c, i, k.fma(k.load(a, i), k.load(b, i), k.load(c, i)))
    shown: list[str] = []
    object_code(print_llvm(k.kernel, 128), ARM, shown.append)
    assert re.search(r"fmla\s+v\d+\.4s", shown[0])


# fma where there is none


def fused(a: float, b: float, c: float, dtype: np.dtype) -> float:
    """a * b + c rounded once, by exact fractions."""
    if not np.isfinite([a, b]).all():
        with np.errstate(invalid="ignore"):
            return float(np.float64(a) * np.float64(b) + np.float64(c))
    if not np.isfinite(c):
        return float(c)
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    if exact == 0:
        return float(np.float64(a) * np.float64(b) + np.float64(c)) if not a * b else 0.0
    info = np.finfo(dtype)
    exponent = exact.numerator.bit_length() - exact.denominator.bit_length()
    exponent -= Fraction(2) ** exponent > abs(exact)
    ulp = Fraction(2) ** (max(exponent, int(info.minexp)) - info.nmant)
    rounded = round(exact / ulp) * ulp  # to even
    if abs(rounded) > Fraction(float(info.max)):
        return float(np.copysign(np.inf, float(rounded > 0) - 0.5))
    return float(rounded) if rounded else float(np.copysign(0.0, float(exact > 0) - 0.5))


@pytest.mark.skipif(native().triple.partition("-")[0] != "x86_64", reason="code for x86-64")
@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64], ids=lambda d: d.short)
def test_fma_is_exact_on_a_processor_without_it(dtype):
    k = Builder(f"emulated_{dtype.short}")
    out, *operands = (k.pointer(name, dtype) for name in ("out", "a", "b", "c"))
    with k.loop(BEGIN, END, kind="vector") as i:
        k.store(out, i, k.fma(*(k.load(x, i) for x in operands)))
    rng, size = np.random.default_rng(0), 3000
    real = dtype.numpy
    a, b = (rng.standard_normal(size).astype(real) for _ in "ab")
    c = (-a * b * rng.choice([1, 1 + 1e-7, 0.5, 2.0**-24, 2.0**-53], size)).astype(real)
    tiny, huge = np.finfo(real).tiny, np.finfo(real).max
    special = np.array([0, -0.0, tiny, -tiny / 8, huge, np.inf, -np.inf, np.nan, 1, 1.5], real)
    for x in (a, b, c):
        x[: size // 5] = rng.choice(special, size // 5)
    a[size // 2 :] *= real.type(tiny)  # results among the subnormal numbers
    c[size // 2 :] *= real.type(tiny)
    got = np.zeros(size, real)
    assert call(k.kernel, [got, a, b, c], 0, size, BASELINE) == 0
    expected = np.array([fused(*row, real) for row in zip(a, b, c, strict=True)], real)
    assert ((got == expected) | (np.isnan(got) & np.isnan(expected))).all()
    zeros = (expected == 0) & (a != 0) & (b != 0)
    assert (np.signbit(got) == np.signbit(expected))[zeros].all()
