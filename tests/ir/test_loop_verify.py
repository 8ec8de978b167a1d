"""The rules of the loop IR, one broken kernel for each."""

from __future__ import annotations

import re

import pytest

from treadle.base import dtypes
from treadle.ir.loop import (
    BEGIN,
    BOOL,
    I64,
    Assign,
    Builder,
    Const,
    Fail,
    If,
    Kernel,
    Load,
    Loop,
    Pointer,
    Store,
    Value,
)
from treadle.ir.loop_text import parse_kernel
from treadle.ir.loop_verify import MAX_NESTING, KernelVerifyError, verify_kernel

F32 = dtypes.float32


def wrap(body: str) -> Kernel:
    return parse_kernel(f"kernel k(%a: ptr f32, %p: ptr i64, %n: i64) {{\n{body}\n}}")


GOOD = {
    "uniform condition in a vector loop": """
        for %i in %begin..%end step 1 vector {
          %c = lt i64 %n, 3
          if %c {
            fail 1
          }
        }""",
    "uniform serial loop in a vector loop": """
        for %i in %begin..%end step 1 vector {
          for %j in 0..%n step 1 serial {
            %x = load %a[%i]
          }
        }""",
    "the same load for every lane is uniform": """
        for %i in 0..8 step 1 vector {
          %m = load %p[0]
          for %j in 0..%m step 1 serial {
            %x = load %a[%i]
          }
        }""",
    "varying again serial after the loop": """
        for %i in 0..8 step 1 vector {
          %0 = load %a[%i]
        }
        for %j in 0..8 step 1 serial {
          %1 = lt i64 %j, 3
          if %1 {
            store %a[%j], 0x1p+0
          }
        }""",
    "vector loop after a vector loop": """
        for %i in 0..8 step 1 vector {
        }
        for %j in 0..8 step 1 vector {
        }""",
}


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD)
def test_accepts(body):
    verify_kernel(wrap(body))


TEXTS = [
    ("%0 = add i64 1, 2\n%0 = neg i64 1", "'%0 = neg i64 1': %0 is assigned a second time"),
    ("%n = neg i64 1", "'%n = neg i64 1': %n is assigned a second time"),
    ("for %thread in 0..1 step 1 serial {\n}", "%thread is assigned a second time"),
    (
        "for %i in 0..4 step 1 serial {\n%0 = load %a[%i]\n}\nstore %a[0], %0",
        "'store %a[0], %0': %0 was assigned in a block that has ended; assign it above",
    ),
    (
        "for %i in 0..4 step 1 serial {\n}\n%0 = neg i64 %i",
        "'%0 = neg i64 %i': %i was assigned in a block that has ended",
    ),
    ("%0 = load %a[0]\n%1 = add f64 %0, 0x1p+0", "operand 1 is f32; expected f64: convert it"),
    ("%0 = select f32 %n, 0x1p+0, 0x1p+0", "operand 1 is i64; expected b1"),
    ("%0 = load %a[0]\n%1 = load %a[%0]", "'%1 = load %a[%0]': the index is f32; expected i64"),
    ("store %p[0], 0x1p+0:f32", "'store %p[0], 0x1p+0:f32': the stored value is f32; expected i64"),
    ("if %n {\n}", "'if %n {': the condition is i64; expected b1"),
    ("%0 = add b1 true, true", "add does not take b1; it takes floating, signed, unsigned dtypes"),
    ("%0 = sqrt i64 %n", "sqrt does not take i64; it takes floating dtypes"),
    ("%0 = and f32 0x1p+0, 0x1p+0", "and does not take f32; it takes signed, unsigned, b1 dtypes"),
    ("%0 = shl b1 true, true", "shl does not take b1; it takes signed, unsigned dtypes"),
    ("%0 = bitcast f32 %n", "bitcast from i64 to f32; the dtypes must have the same number of bit"),
    ("%0 = bitcast u8 true", "bitcast from b1 to u8; the dtypes must have the same number of bits"),
    ("%0 = neg u8 256", "operand 1, the constant 256, is not a value of u8; round it first"),
    ("%0 = neg i8 -129", "operand 1, the constant -129, is not a value of i8"),
    ("%0 = neg bf16 0x1.01p+0", "operand 1, the constant 1.00390625, is not a value of bf16"),
    ("%0 = neg f16 0x1p+16", "operand 1, the constant 65536.0, is not a value of f16"),
    ("fail 0", "'fail 0': the code is 0; expected 1..255"),
    ("fail 256", "the code is 256; expected 1..255"),
    ("stream %a[0], 0x1p+0\nfail 1", "'fail 1': a kernel that may fail streams nothing; use store"),
    ("local %m: f32[0]", "the size is 0 elements, 0 bytes; expected 1 to"),
    ("local %m: f64[131073]", "the size is 131073 elements, 1048584 bytes; expected 1 to 1048576"),
    ("for %i in 0..4 step 0 serial {\n}", "the step is 0; it must be greater than 0"),
    (
        "for %i in 0..%n step 1 unrolled {\n}",
        "the upper bound %n of an unrolled loop is not a constant; give a constant",
    ),
    (
        "for %i in 0..8 step 1 vector {\nlocal %m: f32[4]\n%0 = load %m[%i]\n}",
        "the index into a local %i varies with %i, the variable of the vector loop around",
    ),
    (
        "for %i in 0..8 step 1 vector {\nfor %j in 0..8 step 1 vector {\n}\n}",
        "a vector loop lies inside the vector loop over %i; make one of them serial or unrolled",
    ),
    (
        "for %i in 0..8 step 1 vector {\nfor %j in 0..%i step 1 serial {\n}\n}",
        "the upper bound %i varies with %i, the variable of the vector loop around",
    ),
    (
        "for %i in 0..8 step 1 vector {\n%0 = add i64 %i, 1\n%1 = lt i64 %n, %0\n"
        "if %1 {\nfail 3\n}\n}",
        "'fail 3': a Fail lies inside an If that varies with %i, the variable of the vector loop "
        "around; such an If holds arithmetic and Locals of that loop only",
    ),
    (
        "for %i in 0..8 step 1 vector {\n%0 = load %p[%i]\n%1 = eq i64 %0, 0\nif %1 {\n"
        "store %p[%i], %0\n}\n}",
        "access to %p lies inside an If that varies with %i",
    ),
]


@pytest.mark.parametrize(("body", "message"), TEXTS, ids=range(len(TEXTS)))
def test_rejects(body, message):
    with pytest.raises(KernelVerifyError) as caught:
        verify_kernel(wrap(body))
    assert str(caught.value).startswith("kernel k, statement '")
    assert message in str(caught.value)


A = Pointer("a", F32)
ONE = Const(1.0, F32)
NODES = [
    ([Load(Value("x", I64), A, Const(0, I64))], "the result is declared i64; expected f32"),
    ([Assign(Value("x", I64), "eq", I64, (BEGIN, BEGIN))], "the result is declared i64; exp"),
    ([Assign(Value("x", F32), "exp", F32, (ONE,))], "there is no operation 'exp'; there are add"),
    ([Assign(Value("x", F32), "add", F32, (ONE,))], "add takes 2 operands, got 1"),
    ([Assign(Value("x", F32), "neg", F32, (Const(1, F32),))], "the constant 1, is not a value of"),
    (
        [Assign(Value("x", BOOL), "not", BOOL, (Const(1, BOOL),))],
        "constant 1, is not a value of b1",
    ),
    ([Assign(Value("x", F32), "neg", F32, (A,))], "operand 1 is Pointer"),
    (
        [Store(Pointer("a", I64), BEGIN, BEGIN)],
        "%a is used as a pointer to i64 but is a pointer to",
    ),
    ([Store(Pointer("b", F32), BEGIN, ONE)], "%b is used before it is set; assign it above"),
    ([Assign(Value("x", F32), "neg", F32, (Value("y", F32),))], "%y is used before it is set"),
    ([Assign(Value("x y", F32), "neg", F32, (ONE,))], "the name 'x y' is not made of letters"),
    ([Loop(Value("i", I64), BEGIN, BEGIN, 1, "parallel", [])], "the kind is 'parallel'; expected"),
    (
        [Loop(Value("i", F32), BEGIN, BEGIN, 1, "serial", [])],
        "the loop variable is f32; expected i",
    ),
    (
        [None],
        "kernel k, statement None: expected an Assign, Load, Store, Local, Choose, Transpose, L",
    ),
]


@pytest.mark.parametrize(("body", "message"), NODES, ids=range(len(NODES)))
def test_rejects_what_no_text_says(body, message):
    with pytest.raises(KernelVerifyError, match=re.escape(message)):
        verify_kernel(Kernel("k", [A], body))


def test_parameters_and_names_of_kernels():
    with pytest.raises(KernelVerifyError, match="parameter %s is f32; parameters are pointers"):
        verify_kernel(Kernel("k", [Value("s", F32)]))
    with pytest.raises(KernelVerifyError, match="%a is assigned a second time"):
        verify_kernel(Kernel("k", [A, A]))
    with pytest.raises(KernelVerifyError, match=re.escape("the kernel's name is 'a-b'; expected")):
        verify_kernel(Kernel("a-b", []))


def test_nesting_is_limited():
    def nested(depth: int) -> Kernel:
        body = [Fail(1)]
        for _ in range(depth):
            body = [If(Const(True, BOOL), body)]
        return Kernel("k", [], body)

    verify_kernel(nested(MAX_NESTING))
    with pytest.raises(KernelVerifyError, match="nest deeper than 64; nest fewer"):
        verify_kernel(nested(5000))


def test_what_the_builder_writes_is_accepted():
    k = Builder("sum")
    out, a = k.pointer("out", F32), k.pointer("a", F32)
    total = k.local(F32, 1)
    k.store(total, 0, k.const(0, F32))
    with k.loop(BEGIN, k.size("n")) as i:
        k.store(total, 0, k.add(k.load(total, 0), k.load(a, k.mul(i, 2))))
    k.store(out, 0, k.load(total, 0))
    verify_kernel(k.kernel)
