"""The transpose of a block, in the interpreter and natively."""

from __future__ import annotations

import array

import ml_dtypes
import numpy as np
import pytest

from treadle.base import dtypes
from treadle.codegen.llvm import print_llvm
from treadle.ir.loop import Builder, Const, Kernel, Pointer
from treadle.ir.loop_interpret import interpret
from treadle.ir.loop_text import parse_kernel, print_kernel
from treadle.ir.loop_verify import KernelVerifyError, verify_kernel
from treadle.runtime import jit, pool


def block_kernel(dtype: dtypes.DType, size: int) -> Kernel:
    """Copies the transposed block at element 3 of ``a``, rows 40 apart, to ``out``."""
    k = Builder(f"transpose_{dtype.short}_{size}")
    out, a, stride = k.pointer("out", dtype), k.pointer("a", dtype), k.size("stride")
    block = k.local(dtype, size * size)
    k.transpose(block, a, 3, stride, size)
    for row in range(size):
        with k.loop(0, size, kind="vector") as j:
            place = k.add(j, row * size)
            k.store(out, place, k.load(block, place))
    return k.kernel


@pytest.mark.parametrize("bits", [128, 256, 512])
@pytest.mark.parametrize("size", [2, 4, 8, 16])
@pytest.mark.parametrize("dtype", ["f32", "f64", "f16", "bf16", "i8", "i64"])
def test_rows_become_columns(dtype: str, size: int, bits: int) -> None:
    kind = dtypes.by_short(dtype)
    numpy_type = ml_dtypes.bfloat16 if dtype == "bf16" else kind.numpy
    a = np.arange(3 + 40 * size).astype(numpy_type)
    kernel = block_kernel(kind, size)
    assert print_kernel(parse_kernel(print_kernel(kernel))) == print_kernel(kernel)
    expected = np.stack([a[3 + 40 * i : 3 + 40 * i + size] for i in range(size)]).T.reshape(-1)
    out = np.zeros(size * size, numpy_type)
    assert interpret(kernel, [out, a, 40], 0, 1) == 0
    np.testing.assert_array_equal(out, expected)
    out[:] = 0
    text = f"{print_kernel(kernel)}\n{bits}"
    entry = jit.compile_kernel(kernel.name, text, lambda: print_llvm(kernel, bits))
    tape = array.array("q", [entry, 3, 1, 0, out.ctypes.data, a.ctypes.data, 40])
    assert pool.run_tape(tape, 1, 1) == (-1, 0)
    np.testing.assert_array_equal(out, expected)


def test_mistakes() -> None:
    def verify(size: int, elements: int, target: Pointer | None = None) -> None:
        k = Builder("wrong")
        a = k.pointer("a", dtypes.float32)
        block = k.local(dtypes.float32, elements)
        k.transpose(target or block, a, 0, Const(8, dtypes.int64), size)
        verify_kernel(k.kernel)

    verify(4, 16)
    with pytest.raises(KernelVerifyError, match="the size is 3; expected a power of two"):
        verify(3, 16)
    with pytest.raises(KernelVerifyError, match="has 8 elements as a local; expected a local of"):
        verify(4, 8)
    with pytest.raises(KernelVerifyError, match="has 0 elements as a local"):
        verify(4, 16, Pointer("a", dtypes.float32))
