"""The loop IR as text: exact, canonical, and back again."""

from __future__ import annotations

import math
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base import dtypes
from treadle.ir.loop import BEGIN, BOOL, END, I64, Assign, Builder, Const, Kernel, Value
from treadle.ir.loop_arithmetic import round_float
from treadle.ir.loop_text import KernelSyntaxError, parse_kernel, print_kernel
from treadle.ir.loop_verify import verify_kernel

EVERYTHING = """\
kernel everything(%out: ptr f32, %a: ptr bf16, %n: i64) {
  local %m: f32[4]
  for %j in 0..4 step 1 unrolled {
    store %m[%j], 0x0p+0
  }
  %big = gt i64 %n, 100
  if %big {
    fail 7
  }
  for %i in %begin..%end step 2 vector {
    %0 = load %a[%i]
    %1 = convert f32 %0
    %2 = load %m[3]
    %3 = fma f32 %1, -0x1.8p-1, %2
    %4 = lt f32 %3, inf
    %5 = select f32 %4, %3, nan
    %6 = convert f32 -7:i64
    %7 = bitcast u32 0x1.000002p+0:f32
    %8 = shl u32 %7, 3
    %9 = and b1 %4, true
    for %k in 0..%n step 1 serial {
      store %out[%i], %5
    }
  }
}
"""
STREAM = """\
kernel streams(%out: ptr f32, %a: ptr f32) {
  for %i in %begin..%end step 1 vector {
    %0 = load %a[%i]
    stream %out[%i], %0
  }
}
"""


@pytest.mark.parametrize("text", [EVERYTHING, STREAM])
def test_parses_and_prints_every_statement(text):
    kernel = parse_kernel(text)
    verify_kernel(kernel)
    assert print_kernel(kernel) == text


def test_space_and_blank_lines_do_not_matter():
    loose = EVERYTHING.replace("\n", " \n\n\t").replace(",", "  ,")
    assert print_kernel(parse_kernel(loose)) == EVERYTHING


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (0.0, dtypes.float32, "0x0p+0"),
        (-0.0, dtypes.float32, "-0x0p+0"),
        (1.0, dtypes.float32, "0x1p+0"),
        (0.1, dtypes.float64, "0x1.999999999999ap-4"),
        (5e-324, dtypes.float64, "0x0.0000000000001p-1022"),
        (-math.inf, dtypes.float16, "-inf"),
        (math.nan, dtypes.bfloat16, "nan"),
        (-(2**63), I64, "-9223372036854775808"),
        (2**64 - 1, dtypes.uint64, "18446744073709551615"),
        (True, BOOL, "true"),
        (False, BOOL, "false"),
    ],
)
def test_constants_are_exact(value, dtype, text):
    k = Builder("constant")
    out = k.pointer("out", dtype)
    k.store(out, 0, Const(value, dtype))
    printed = print_kernel(k.kernel)
    assert f"store %out[0], {text}\n" in printed
    back = parse_kernel(printed).body[0].value
    assert back.dtype is dtype
    assert repr(back.value) == repr(value)


def test_different_constants_print_differently():
    def text(value, dtype):
        k = Builder("constant")
        k.op("convert", Const(value, dtype), dtype=dtypes.float32)
        return print_kernel(k.kernel)

    texts = {
        text(1, I64), text(1, dtypes.int32), text(1.0, dtypes.float32), text(1.0, dtypes.float64),
        text(True, BOOL), text(0.0, dtypes.float32), text(-0.0, dtypes.float32),
    }  # fmt: skip
    assert len(texts) == 7


def test_a_deep_chain_of_arithmetic_prints_and_parses():
    k = Builder("deep")
    out = k.pointer("out", dtypes.float32)
    x = k.load(out, 0)
    for _ in range(5000):
        x = k.add(x, x)
    k.store(out, 0, x)
    assert print_kernel(parse_kernel(print_kernel(k.kernel))) == print_kernel(k.kernel)


def test_deep_nesting_prints_and_parses():
    text = "kernel deep() {\n" + "if true {\n" * 3000 + "}\n" * 3000 + "}\n"
    printed = print_kernel(parse_kernel(text))
    assert [line.strip() for line in printed.splitlines()] == text.splitlines()


class _Writer:
    """Builds a random kernel that keeps the rules."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.k = Builder("random")
        self.pointers = [self.k.pointer(f"p{d.short}", d) for d in dtypes.ALL]
        self.values = [BEGIN, END, self.k.size("n")]

    def constant(self, dtype):
        if dtype.kind == "b":
            return Const(self.rng.random() < 0.5, dtype)
        if dtype.kind == "f":
            x = self.rng.choice([math.nan, math.inf, -0.0, 0.1, 1e-7, 5e-324, 3e38])
            return Const(round_float(x, dtype), dtype)
        low = -(1 << (dtype.bits - 1)) if dtype.kind == "i" else 0
        return Const(self.rng.randint(low, low + (1 << dtype.bits) - 1), dtype)

    def operand(self, dtype):
        known = [v for v in self.values if v.dtype is dtype]
        return self.rng.choice(known) if known and self.rng.random() < 0.8 else self.constant(dtype)

    def arithmetic(self):
        rng, dtype = self.rng, self.rng.choice(dtypes.ALL)
        a, b, c = (self.operand(dtype) for _ in range(3))
        k, other = self.k, rng.choice(dtypes.ALL)
        choices = [
            lambda: k.op(rng.choice(["eq", "lt", "ge"]), a, b, dtype=dtype),
            lambda: k.op(rng.choice(["minimum", "maximum"]), a, b, dtype=dtype),
            lambda: k.op("select", self.operand(BOOL), a, b, dtype=dtype),
            lambda: k.op("convert", self.operand(other), dtype=dtype),
        ]
        if dtype.kind == "f":
            choices += [lambda: k.op("fma", a, b, c, dtype=dtype)] * 2
            choices += [lambda: k.op(rng.choice(["add", "div", "rem"]), a, b, dtype=dtype)] * 2
        return rng.choice(choices)()

    def block(self, depth: int, *inner: Value) -> None:
        outer = list(self.values)
        self.values += inner
        for _ in range(self.rng.randint(0, 5)):
            kind = self.rng.choice(["op"] * 5 + ["load", "store", "local", "loop", "if", "fail"])
            pointer = self.rng.choice(self.pointers)
            if kind == "op":
                result = self.arithmetic()
                self.values += [] if isinstance(result, Const) else [result]
            elif kind == "load":
                self.values.append(self.k.load(pointer, self.operand(I64)))
            elif kind == "store":
                self.k.store(pointer, self.operand(I64), self.operand(pointer.dtype))
            elif kind == "local":
                self.k.local(pointer.dtype, self.rng.randint(1, 64))
            elif kind == "fail":
                self.k.fail(self.rng.randint(1, 255))
            elif kind == "loop" and depth:
                step = self.rng.randint(1, 5)
                with self.k.loop(self.operand(I64), self.operand(I64), step) as i:
                    self.block(depth - 1, i)
            elif depth:
                with self.k.when(self.operand(BOOL)):
                    self.block(depth - 1)
        self.values = outer


def random_kernel(rng: random.Random) -> Kernel:
    writer = _Writer(rng)
    writer.block(3)
    return writer.k.kernel


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False))
def test_random_kernels_verify_and_round_trip(rng):
    kernel = random_kernel(rng)
    verify_kernel(kernel)
    text = print_kernel(kernel)
    again = parse_kernel(text)
    assert print_kernel(again) == text
    if "nan" not in text:
        assert again == kernel


ERRORS = [
    ("", "line 1: found no text; expected 'kernel NAME(...) {'"),
    ("kernal k() {\n}", "line 1: found 'kernal'; expected 'kernel'"),
    ("kernel k(%a: f7) {\n}", "line 1: found 'f7'; expected a dtype, one of f64, f32, f16, bf16"),
    ("kernel k(%a: ptr f32 %b: i64) {\n}", "line 1: found '%b'; expected ','"),
    ("kernel k() {", "line 1: found the end of the text; expected 1 more '}'"),
    ("kernel k() {\n}\n}", "line 3: found '}'; expected the end of the text after"),
    ("kernel k() {\n  %0 = frob f32\n}", "line 2: found 'frob'; expected an operation: load, ch"),
    ("kernel k() {\n\n  goto 3\n}", "line 3: found 'goto'; expected a statement:"),
    ("kernel k() {\n  %0 = add i64 1\n}", "line 2: found the end of the line; expected ','"),
    ("kernel k() {\n  %0 = neg i64 1, 2\n}", "line 2: found ','; expected the end of the line"),
    ("kernel k() {\n  %0 = neg i64 %x\n}", "line 2: found '%x'; expected a value defined above"),
    ("kernel k() {\n  %0 = load %x[0]\n}", "line 2: found '%x'; expected a pointer defined above"),
    ("kernel k() {\n  %0 = neg f32 3\n}", "line 2: found '3'; expected a hex float such as"),
    ("kernel k() {\n  %0 = neg i32 inf\n}", "line 2: found 'inf'; expected an integer, the const"),
    ("kernel k() {\n  %0 = not b1 1\n}", "line 2: found '1'; expected true or false"),
    (
        "kernel k() {\n  %0 = convert f32 3\n}",
        "line 2: found the end of the line; expected a dtype",
    ),
    (
        "kernel k() {\n  %0 = neg f64 0x1p+9999\n}",
        "line 2: found '0x1p+9999'; expected an exponent",
    ),
    (
        "kernel k() {\n  %0 = neg f64 0x1p+1024\n}",
        "line 2: found '0x1p+1024'; expected a float wit",
    ),
    ("kernel k() {\n  fail ?!\n}", "line 2: found '?!'; expected a name, a number, a word or one"),
    ("kernel k() {\n  for %i in 0..4 step 1 slow {\n}\n}", "line 2: found 'slow'; expected a loop"),
    ("kernel k() {\n  store %begin[0], 1\n}", "line 2: found '%begin'; expected a pointer"),
]


@pytest.mark.parametrize(("text", "message"), ERRORS, ids=range(len(ERRORS)))
def test_errors_tell_the_line_what_was_found_and_what_expected(text, message):
    with pytest.raises(KernelSyntaxError, match="^" + re.escape(message)):
        parse_kernel(text)


PIECES = [*re.findall(r"\S+", EVERYTHING), "\n", "\n", " ", "0x", "9" * 20, "%", "é", "\0"]


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False))
def test_broken_text_raises_nothing_but_a_syntax_error(rng):
    text = list(EVERYTHING)
    for _ in range(rng.randint(1, 6)):
        start = rng.randrange(len(text) + 1)
        text[start : start + rng.randint(0, 8)] = rng.choice(PIECES)
    try:
        kernel = parse_kernel("".join(text))
    except KernelSyntaxError:
        return
    assert isinstance(kernel, Kernel)
    assert print_kernel(parse_kernel(print_kernel(kernel))) == print_kernel(kernel)


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_any_text_raises_nothing_but_a_syntax_error(text):
    with pytest.raises(KernelSyntaxError):
        parse_kernel(text)


def test_the_result_of_a_comparison_is_b1():
    kernel = parse_kernel("kernel k() {\n  %0 = eq i64 %begin, %end\n}")
    statement = kernel.body[0]
    assert isinstance(statement, Assign)
    assert (statement.result.dtype, statement.dtype) == (BOOL, I64)
