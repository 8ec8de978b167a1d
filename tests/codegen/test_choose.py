"""A choice among parameters, in the text, the interpreter and natively."""

from __future__ import annotations

import array

import numpy as np
import pytest

from treadle.base import dtypes
from treadle.codegen.llvm import print_llvm
from treadle.ir.loop import BEGIN, END, Builder, Choose, Kernel, Pointer
from treadle.ir.loop_interpret import KernelRunError, interpret
from treadle.ir.loop_text import parse_kernel, print_kernel
from treadle.ir.loop_verify import KernelVerifyError, verify_kernel
from treadle.runtime import jit, pool


def doubling(count: int) -> Kernel:
    """``outs[s][i] = 2 * ins[s][i]`` for s in the range and i < n[s]."""
    k = Builder("doubling")
    pointers = [k.pointer(f"p{j}", dtypes.float32) for j in range(2 * count)]
    sizes = [k.size(f"n{s}") for s in range(count)]
    with k.loop(BEGIN, END) as s:
        out, x = k.choose_pointer(pointers[::2], s), k.choose_pointer(pointers[1::2], s)
        with k.loop(0, k.choose_size(sizes, s), kind="vector") as i:
            value = k.load(x, i)
            k.store(out, i, k.add(value, value))
    return k.kernel


def arrays():
    inputs = [np.arange(n, dtype="float32") + n for n in (5, 37, 16)]
    outputs = [np.zeros_like(x) for x in inputs]
    args = [a for pair in zip(outputs, inputs, strict=True) for a in pair]
    return inputs, outputs, [*args, *map(len, inputs)]


def test_the_interpreter_and_the_native_code_choose():
    inputs, outputs, args = arrays()
    assert interpret(doubling(3), args, 1, 3) == 0
    assert [y.tolist() for y in outputs] == [[0.0] * 5, *((2 * x).tolist() for x in inputs[1:])]
    inputs, outputs, args = arrays()
    kernel = doubling(3)
    entry = jit.compile_kernel(kernel.name, print_kernel(kernel), lambda: print_llvm(kernel, 256))
    words = [a if isinstance(a, int) else a.ctypes.data for a in args]
    tape = array.array("q", [entry, len(words), 3, 3, *words])
    assert pool.run_tape(tape, 1, 2) == (-1, 0)
    assert [y.tolist() for y in outputs] == [(2 * x).tolist() for x in inputs]


def test_the_text_parses_back():
    text = print_kernel(doubling(2))
    assert "%c1 = choose (%p0, %p2), %i0\n" in text
    assert "= choose (%n0, %n1), %i0\n" in text
    assert print_kernel(parse_kernel(text)) == text


def test_a_choice_that_is_not_there():
    _, _, args = arrays()
    with pytest.raises(KernelRunError, match="the index 3 is outside the 3 choices"):
        interpret(doubling(3), args, 0, 4)


@pytest.mark.parametrize(
    ("order", "dtype", "message"),
    [
        ((0, 1, 3), dtypes.float32, "not parameters of the kernel, evenly spaced"),
        ((2, 0), dtypes.float32, "not parameters of the kernel, evenly spaced"),
        ((0, 2), dtypes.int32, "not of one kind and dtype"),
    ],
)
def test_choices_that_break_a_rule(order, dtype, message):
    k = Builder("wrong")
    pointers = [k.pointer(f"p{j}", dtypes.float32) for j in range(4)]
    chosen = Choose(Pointer("c", dtype), tuple(pointers[j] for j in order), BEGIN)
    k.kernel.body.append(chosen)
    with pytest.raises(KernelVerifyError, match=message):
        verify_kernel(k.kernel)
