"""Kernels run statement by statement: values against NumPy, and what the interpreter catches."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest

from treadle.base import dtypes
from treadle.ir.loop import BEGIN, END, Builder, Kernel
from treadle.ir.loop_interpret import KernelRunError, interpret
from treadle.ir.loop_text import parse_kernel
from treadle.ir.loop_verify import KernelVerifyError

F32 = dtypes.float32


def kernel_of(body: str, params: str = "%out: ptr f32, %a: ptr f32") -> Kernel:
    return parse_kernel(f"kernel k({params}) {{\n{body}\n}}")


def test_runs_its_share_of_the_range():
    kernel = kernel_of("""
        for %i in %begin..%end step 1 vector {
          %0 = load %a[%i]
          %1 = mul f32 %0, %0
          %2 = add f32 %1, 0x1p+0
          store %out[%i], %2
        }""")
    a = np.random.default_rng(0).standard_normal(20).astype("float32")
    out = np.zeros(20, "float32")
    assert interpret(kernel, [out, a], 5, 17) == 0
    assert (out[5:17] == a[5:17] * a[5:17] + np.float32(1)).all()
    assert not out[:5].any()
    assert not out[17:].any()


def test_a_sum_through_a_local_is_sequential():
    kernel = kernel_of(
        """
        local %m: f32[1]
        store %m[0], 0x0p+0
        for %i in 0..%n step 3 serial {
          %0 = load %m[0]
          %1 = load %a[%i]
          %2 = add f32 %0, %1
          store %m[0], %2
        }
        %3 = load %m[0]
        store %out[%thread], %3""",
        "%out: ptr f32, %a: ptr f32, %n: i64",
    )
    a = np.random.default_rng(0).standard_normal(100).astype("float32")
    out = np.zeros(4, "float32")
    assert interpret(kernel, [out, a, 100], 0, 1, thread=2) == 0
    expected = np.float32(0)
    for x in a[::3]:
        expected = expected + x
    assert out.tolist() == [0.0, 0.0, float(expected), 0.0]


def test_matrix_multiplication_by_fma_matches_f64():
    k = Builder("matmul")
    out, a, b = (k.pointer(name, F32) for name in ("out", "a", "b"))
    m, n, depth = 3, 4, 5
    with k.loop(BEGIN, END) as row, k.loop(0, n, kind="vector") as column:
        at = k.add(k.mul(row, n), column)
        k.store(out, at, k.const(0, F32))
        with k.loop(0, depth, kind="unrolled") as r:
            x = k.load(a, k.add(k.mul(row, depth), r))
            y = k.load(b, k.add(k.mul(r, n), column))
            k.store(out, at, k.fma(x, y, k.load(out, at)))
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(s).astype("float32") for s in ((m, depth), (depth, n)))
    got = np.empty(m * n, "float32")
    assert interpret(k.kernel, [got, x.ravel(), y.ravel()], 0, m) == 0
    np.testing.assert_allclose(got.reshape(m, n), x.astype("float64") @ y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "dtype", (*dtypes.ALL, dtypes.uint32, dtypes.uint64), ids=lambda d: d.short
)
def test_every_dtype_is_loaded_and_stored_exactly(dtype):
    bits = np.random.default_rng(0).integers(0, 256, 64 * dtype.itemsize, dtype=np.uint8)
    a = (bits & 1).view(np.bool_) if dtype.kind == "b" else bits.view(dtype.numpy)
    out = np.zeros_like(a)
    copy = kernel_of(
        "for %i in %begin..%end step 1 vector {\n%0 = load %a[%i]\nstore %out[%i], %0\n}",
        f"%out: ptr {dtype.short}, %a: ptr {dtype.short}",
    )
    interpret(copy, [out, a], 0, len(a))
    if dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # signaling NaNs
            out, a = out.astype("float64"), a.astype("float64")
    np.testing.assert_array_equal(out, a)


def test_a_failing_kernel_returns_its_code_and_stops():
    kernel = kernel_of("""
        for %i in %begin..%end step 1 serial {
          %0 = load %a[%i]
          %1 = lt f32 %0, 0x0p+0
          if %1 {
            fail 42
          }
          store %out[%i], 0x1p+0
        }
        store %out[0], 0x1p+1""")
    out = np.zeros(4, "float32")
    assert interpret(kernel, [out, np.array([1, 1, -1, 1], "float32")], 0, 4) == 42
    assert out.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert interpret(kernel, [out, np.ones(4, "float32")], 0, 4) == 0
    assert out.tolist() == [2.0, 1.0, 1.0, 1.0]


def test_a_loop_with_lo_at_or_above_hi_runs_no_iteration():
    kernel = kernel_of("for %i in %begin..%end step 2 serial {\nstore %out[%i], 0x1p+0\n}")
    out = np.zeros(5, "float32")
    for begin, end in ((3, 3), (4, 1)):
        interpret(kernel, [out, out], begin, end)
    assert not out.any()
    interpret(kernel, [out, out], 0, 5)
    assert out.tolist() == [1.0, 0.0, 1.0, 0.0, 1.0]


PHILOX = [  # known answers of Random123 (philox4x32-10): every word of counter and key, the result
    (0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    (0xFFFFFFFF, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
]


@pytest.mark.parametrize(("word", "expected"), PHILOX)
def test_philox_gives_its_known_answers(word, expected):
    """u32 and u64 arithmetic: wrapping, shifts and conversions."""
    k = Builder("philox")
    out = k.pointer("out", dtypes.uint32)
    u32, u64 = dtypes.uint32, dtypes.uint64
    state, keys = [k.const(word, u32)] * 4, [k.const(word, u32)] * 2
    for _ in range(10):
        products = [
            k.mul(k.convert(state[0], u64), k.const(0xD2511F53, u64)),
            k.mul(k.convert(state[2], u64), k.const(0xCD9E8D57, u64)),
        ]
        high = [k.convert(k.op("shr", p, 32), u32) for p in products]
        low = [k.convert(p, u32) for p in products]
        left = k.op("xor", k.op("xor", high[1], state[1]), keys[0])
        right = k.op("xor", k.op("xor", high[0], state[3]), keys[1])
        state = [left, low[1], right, low[0]]
        keys = [k.add(keys[0], 0x9E3779B9), k.add(keys[1], 0xBB67AE85)]
    for index, value in enumerate(state):
        k.store(out, index, value)
    got = np.zeros(4, "uint32")
    assert interpret(k.kernel, [got], 0, 1) == 0
    assert got.tolist() == expected


OUT_OF_RANGE = [
    (
        "store %out[4], 0x1p+0",
        "'store %out[4], 0x1p+0': the index 4 is outside %out, which has 4 el",
    ),
    ("%0 = load %a[-1]", "'%0 = load %a[-1]': the index -1 is outside %a, which has 4 elements"),
    (
        "for %i in 2..8 step 1 vector {\n%0 = load %a[%i]\n}",
        "'%0 = load %a[%i]' (%i = 4): the index 4 is outside %a, which has 4 elements",
    ),
    ("local %m: f32[2]\nstore %m[2], 0x0p+0", "the index 2 is outside %m, which has 2 elements"),
    (
        "local %m: f32[2]\n%0 = load %m[1]",
        "'%0 = load %m[1]': element 1 of the local is read before it is stored to",
    ),
    (
        "for %j in 0..2 step 1 serial {\nlocal %m: f32[1]\nif %c {\n%0 = load %m[0]\n}\n"
        "store %m[0], 0x0p+0\n}",
        "element 0 of the local is read before it is stored to",
    ),
]


@pytest.mark.parametrize(("body", "message"), OUT_OF_RANGE, ids=range(len(OUT_OF_RANGE)))
def test_memory_errors_name_the_statement(body, message):
    kernel = kernel_of("%c = eq i64 %thread, 0\n" + body)
    with pytest.raises(KernelRunError, match=re.escape(message)):
        interpret(kernel, [np.zeros(4, "float32"), np.zeros(4, "float32")], 0, 1)


def vector(body: str) -> Kernel:
    return kernel_of(f"for %i in 0..3 step 1 vector {{\n{body}\n}}")


DEPENDENT = [
    (
        "%0 = load %a[%i]\n%1 = add i64 %i, 1\nstore %a[%1], %0",
        "'%0 = load %a[%i]' (%i = 1): iteration %i = 0 stored the same element, index 1; "
        "iterations of a vector loop must be independent: make the loop serial",
    ),
    (
        "%1 = add i64 %i, 1\n%0 = load %a[%1]\nstore %a[%i], %0",
        "(%i = 1): iteration %i = 0 read the same element, index 1",
    ),
    ("store %a[0], 0x0p+0", "(%i = 1): iteration %i = 0 stored the same element, index 0"),
    (
        "%0 = load %a[0]\n%1 = eq i64 %end, 3\n%2 = sub i64 2, %i\nstore %a[%2], %0",
        "(%i = 2): other iterations read the same element, index 0",
    ),
]


@pytest.mark.parametrize(("body", "message"), DEPENDENT, ids=range(len(DEPENDENT)))
def test_iterations_of_a_vector_loop_must_be_independent(body, message):
    with pytest.raises(KernelRunError, match=re.escape(message)):
        interpret(vector(body), [np.zeros(4, "float32"), np.zeros(4, "float32")], 0, 3)


def test_independence_is_by_address_not_by_name():
    memory = np.zeros(8, "float32")
    shift = vector("%0 = load %a[%i]\nstore %out[%i], %0")
    interpret(shift, [memory, memory], 0, 3)
    interpret(shift, [memory, memory[4:]], 0, 3)
    with pytest.raises(KernelRunError, match=re.escape("iteration %i = 0 stored the same element")):
        interpret(shift, [memory[1:], memory], 0, 3)


def test_one_vector_loop_may_read_what_an_earlier_one_stored():
    kernel = kernel_of("""
        local %m: f32[3]
        for %j in 0..2 step 1 serial {
          for %i in 0..3 step 1 vector {
            store %m[%i], 0x1p+0
          }
          for %k in 0..3 step 1 vector {
            %r = sub i64 2, %k
            %0 = load %m[%r]
            store %out[%k], %0
          }
        }""")
    out = np.zeros(3, "float32")
    interpret(kernel, [out, out], 0, 1)
    assert out.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "kernel k takes 2 arguments, got 0"),
        (
            [np.zeros(1), 3],
            "parameter %a: got an array of float64 with shape (1,); expected a 1-D a",
        ),
        ([np.zeros((1, 1), "float32"), 3], "shape (1, 1); expected a 1-D array of float32"),
        ([3, 3], "parameter %a: got 3; expected a 1-D array of float32"),
        ([np.zeros(1, "float32"), 3.0], "parameter %n: got 3.0; expected an int"),
    ],
)
def test_arguments_that_do_not_fit(args, message):
    with pytest.raises(KernelRunError, match=re.escape(message)):
        interpret(kernel_of("", "%a: ptr f32, %n: i64"), args, 0, 1)


def test_a_kernel_is_verified_before_it_runs():
    with pytest.raises(KernelVerifyError, match="the code is 0"):
        interpret(kernel_of("fail 0"), [np.zeros(1, "float32")] * 2, 0, 1)


def test_f32_chains_are_numpys():
    rng = random.Random(0)
    numpy_op = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
                "minimum": np.minimum, "maximum": np.maximum}  # fmt: skip
    for dtype in (F32, dtypes.float64, dtypes.float16):
        data = np.random.default_rng(1).standard_normal(8).astype(dtype.numpy)
        k = Builder("chain")
        out, a = k.pointer("out", dtype), k.pointer("a", dtype)
        with k.loop(BEGIN, END, kind="vector") as i:
            value = first = k.load(a, i)
            expected = data
            for _ in range(60):
                name = rng.choice(list(numpy_op))
                value = k.op(name, value, first)
                expected = numpy_op[name](expected, data)
            k.store(out, i, value)
        got = np.zeros(8, dtype.numpy)
        interpret(k.kernel, [got, data], 0, 8)
        np.testing.assert_array_equal(got, expected)
