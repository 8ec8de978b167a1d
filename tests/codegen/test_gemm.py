"""GEMM against its definition, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from treadle.base import dtypes
from treadle.base.errors import DTypeError, ShapeError
from treadle.codegen.gemm import plan_matmul
from treadle.ir.launch import contiguous


def multiply(c: Any, a: np.ndarray, b: np.ndarray, threads: int = 1, bits: int = 256) -> np.ndarray:
    out = np.full((a.shape[0], a.shape[1], b.shape[2]), 3, a.dtype)
    plan = plan_matmul(c.layout_of(a), c.layout_of(b), c.layout_of(out), threads, bits)
    c.run(plan, [a, b], out, threads, bits)
    return out


def defined(c: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    shape = (a.shape[0], a.shape[1], b.shape[2])
    return c.contract(lambda k: (a[:, :, k, None], b[:, k, None, :], True), a.shape[2], shape,
                      a.dtype)  # fmt: skip


SHAPES = [  # (batch, m, k, n)
    (1, 1, 1, 1), (2, 3, 7, 5), (1, 6, 33, 16), (1, 13, 512, 17), (1, 7, 513, 9),
    (1, 5, 1300, 3), (1, 1, 600, 70), (1, 70, 40, 1), (3, 20, 5, 40), (1, 100, 3, 130),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "i32"])
def test_bits_are_the_defined_ones(contractions: Any, dtype: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    batch, m, k, n = shape
    a = contractions.random(rng, (batch, m, k), contractions.dtypes[dtype])
    b = contractions.random(rng, (batch, k, n), contractions.dtypes[dtype])
    expected = defined(contractions, a, b)
    for threads in (1, 2, 3):
        assert contractions.same_bits(multiply(contractions, a, b, threads), expected), threads


@pytest.mark.parametrize("dtype", ["f64", "i64", "i16", "i8", "u8"])
def test_other_dtypes(contractions: Any, dtype: str) -> None:
    rng = np.random.default_rng(2)
    a = contractions.random(rng, (1, 7, 520), contractions.dtypes[dtype])
    b = contractions.random(rng, (1, 520, 5), contractions.dtypes[dtype])
    assert contractions.same_bits(multiply(contractions, a, b, 2), defined(contractions, a, b))


def views(x: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays equal to x that lie differently in memory."""
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1] + 3), x.dtype)
    wide[..., 1:-2:2] = x
    return {
        "contiguous": x,
        "transposed": np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2),
        "strided": wide[..., 1:-2:2],
        "reversed": np.ascontiguousarray(x[:, ::-1, ::-1])[:, ::-1, ::-1],
        "batch last": np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -1)), -1, 0),
    }


@pytest.mark.parametrize("shape", [(2, 19, 37, 33), (2, 1, 530, 64), (2, 40, 70, 3)], ids=str)
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_layout_does_not_change_a_bit(
    contractions: Any, dtype: str, shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(3)
    batch, m, k, n = shape
    a = contractions.random(rng, (batch, m, k), contractions.dtypes[dtype])
    b = contractions.random(rng, (batch, k, n), contractions.dtypes[dtype])
    expected = defined(contractions, a, b)
    for name_a, view_a in views(a).items():
        for name_b, view_b in views(b).items():
            got = multiply(contractions, view_a, view_b, 2)
            assert contractions.same_bits(got, expected), (name_a, name_b)


def test_broadcast_batch_and_broadcast_inner(contractions: Any) -> None:
    rng = np.random.default_rng(4)
    a = np.broadcast_to(contractions.random(rng, (1, 9, 20), np.dtype("f4")), (3, 9, 20))
    b = np.broadcast_to(contractions.random(rng, (3, 20, 1), np.dtype("f4")), (3, 20, 31))
    expected = defined(contractions, a, b)
    assert contractions.same_bits(multiply(contractions, a, b, 2), expected)
    a = np.broadcast_to(contractions.random(rng, (3, 9, 1), np.dtype("f4")), (3, 9, 20))
    expected = defined(contractions, a, b)
    assert contractions.same_bits(multiply(contractions, a, b, 2), expected)


@pytest.mark.parametrize("bits", [128, 512])
def test_width_of_the_registers_does_not_change_a_bit(contractions: Any, bits: int) -> None:
    rng = np.random.default_rng(5)
    a = contractions.random(rng, (1, 30, 600), np.dtype("f4"))
    b = contractions.random(rng, (1, 600, 41), np.dtype("f4"))
    got = multiply(contractions, a, b, 2, bits)
    assert contractions.same_bits(got, multiply(contractions, a, b))


@pytest.mark.parametrize("dtype", ["f32", "bf16", "i8"])
def test_interpreter_agrees(contractions: Any, dtype: str) -> None:
    rng = np.random.default_rng(9)
    a = contractions.random(rng, (2, 3, 4), contractions.dtypes[dtype])
    b = contractions.random(rng, (2, 4, 5), contractions.dtypes[dtype])
    out = np.zeros((2, 3, 5), a.dtype)
    plan = plan_matmul(*(contractions.layout_of(x) for x in (a, b, out)), 1, 128)
    contractions.interpret(plan, [a, b], out)
    assert contractions.same_bits(out, defined(contractions, a, b))


def test_a_row_has_the_same_bits_in_every_company(contractions: Any) -> None:
    rng = np.random.default_rng(6)
    a = contractions.random(rng, (1, 50, 700), np.dtype("f4"))
    b = contractions.random(rng, (1, 700, 60), np.dtype("f4"))
    whole = multiply(contractions, a, b, 2)
    for rows in (1, 2, 7, 49):
        part = multiply(contractions, a[:, :rows], b)
        assert contractions.same_bits(part, whole[:, :rows].copy()), rows
    for columns in (1, 5, 33):
        part = multiply(contractions, a, b[:, :, :columns])
        assert contractions.same_bits(part, whole[:, :, :columns].copy()), columns


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_values_that_are_not_ordinary(contractions: Any, dtype: str) -> None:
    rng = np.random.default_rng(7)
    for share in (0.02, 0.6):
        a = contractions.random(rng, (1, 12, 530), contractions.dtypes[dtype])
        b = contractions.random(rng, (1, 530, 21), contractions.dtypes[dtype])
        a, b = contractions.special(rng, a, share), contractions.special(rng, b, share / 4)
        b[:, :, 5:] = contractions.special(rng, b[:, :, 5:], 0)
        got = multiply(contractions, a, b, 2)
        assert contractions.same_bits(got, defined(contractions, a, b))


def test_subnormals_and_the_sign_of_zero(contractions: Any) -> None:
    small = np.full((1, 1, 2), 1e-30, "f4")
    small[0, 0, 1] = 0
    minus = multiply(contractions, small, -small.reshape(1, 2, 1))
    assert contractions.same_bits(minus, np.zeros((1, 1, 1), "f4"))  # +0, though the chain is -0
    subnormal = np.full((1, 1, 1), 2.0**-140, "f4")
    one = np.ones((1, 1, 1), "f4")
    assert multiply(contractions, subnormal, one).item() == 2.0**-140


def test_bfloat16_pairs_are_swapped_and_subnormals_flushed(contractions: Any) -> None:
    bf16 = contractions.dtypes["bf16"]
    # 1, 2**24, -2**24: in order 1, 0, 2 the one is lost (2**24 + 1 rounds to even), and 0 is left.
    a = np.array([1, 2.0**24, -(2.0**24)], bf16).reshape(1, 1, 3)
    ones = np.ones((1, 3, 1), bf16)
    assert multiply(contractions, a, ones).item() == 0
    b = np.array([2.0**24, 1, -(2.0**24)], bf16).reshape(1, 1, 3)
    assert multiply(contractions, b, ones).item() == 0
    c = np.array([-(2.0**24), 2.0**24, 1], bf16).reshape(1, 1, 3)
    assert multiply(contractions, c, ones).item() == 1
    tiny = np.full((1, 1, 1), 2.0**-130, bf16)
    assert multiply(contractions, tiny, np.full((1, 1, 1), 2.0**100, bf16)).item() == 0


def test_blocks_of_512_are_added_in_order(contractions: Any) -> None:
    # Block sums 2**24, 1, 1: ((2**24 + 1) + 1) is 2**24, while 2**24 + (1 + 1) is not.
    a = np.zeros((1, 1, 1536), "f4")
    a[0, 0, [0, 512, 1024]] = 2.0**24, 1, 1
    ones = np.ones((1, 1536, 1), "f4")
    for threads in (1, 3):
        assert multiply(contractions, a, ones, threads).item() == 2.0**24
    a[0, 0, [0, 512, 1024]] = 0
    a[0, 0, [0, 512, 513]] = 2.0**24, 1, 1
    assert multiply(contractions, a, ones).item() == 2.0**24 + 2


@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (2, 0, 3, 4), (2, 3, 4, 0)], ids=str)
def test_nothing_to_compute(contractions: Any, shape: tuple[int, ...]) -> None:
    batch, m, k, n = shape
    out = multiply(contractions, np.ones((batch, m, k), "f4"), np.ones((batch, k, n), "f4"), 2)
    assert out.size == 0


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "i8"])
def test_an_empty_sum_is_plus_zero(contractions: Any, dtype: str) -> None:
    kind = contractions.dtypes[dtype]
    out = multiply(contractions, np.ones((2, 3, 0), kind), np.ones((2, 0, 19), kind), 2)
    assert contractions.same_bits(out, np.zeros((2, 3, 19), kind))


def test_random_shapes(contractions: Any) -> None:
    rng = np.random.default_rng(8)
    for _ in range(40):
        batch, m, k, n = (int(rng.integers(1, top)) for top in (4, 60, 130, 90))
        a = contractions.random(rng, (batch, m, k), np.dtype("f4"))
        b = contractions.random(rng, (batch, k, n), np.dtype("f4"))
        a = list(views(a).values())[rng.integers(5)]
        b = list(views(b).values())[rng.integers(5)]
        threads = int(rng.integers(1, 4))
        got = multiply(contractions, a, b, threads)
        assert contractions.same_bits(got, defined(contractions, a, b)), (a.shape, b.shape)


def test_mistakes() -> None:
    f32 = dtypes.float32
    a, b = contiguous(f32, (1, 2, 3)), contiguous(f32, (1, 3, 4))
    out = contiguous(f32, (1, 2, 4))
    with pytest.raises(ShapeError, match=r"got \(1, 2, 3\) @ \(1, 2, 3\) -> \(1, 2, 4\)"):
        plan_matmul(a, a, out, 1)
    with pytest.raises(ShapeError, match="expected a contiguous one"):
        plan_matmul(a, b, out._replace(strides=(8, 1, 2)), 1)
    with pytest.raises(DTypeError, match="the dtypes must be equal: convert the operands"):
        plan_matmul(a, contiguous(dtypes.float64, (1, 3, 4)), out, 1)
    flags = [contiguous(dtypes.bool_, x.shape) for x in (a, b, out)]
    with pytest.raises(DTypeError, match="a contraction got bool operands"):
        plan_matmul(*flags, 1)
