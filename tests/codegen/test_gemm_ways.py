"""Every way to multiply gives the same bits: schemes, tiles, cuts, packing, threads, hooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from treadle.base import dtypes
from treadle.codegen.contraction import BLOCK, tile_for
from treadle.codegen.gemm import matmul_problem, plan_matmul, plan_way
from treadle.codegen.gemm_cost import Problem, Way, ways
from treadle.codegen.hooks import Fused, Hook, Indices, Riders
from treadle.ir.launch import In, Layout
from treadle.ir.loop import Builder, Operand, Pointer


def defined(c: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    shape = (a.shape[0], a.shape[1], b.shape[2])
    return c.contract(lambda k: (a[:, :, k, None], b[:, k, None, :], True), a.shape[2], shape,
                      a.dtype)  # fmt: skip


def drawn_view(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """An array equal to ``x`` with random strides: permuted, with gaps, backwards, misaligned."""
    order = rng.permutation(3)
    kept = x.transpose(order)
    wide = np.zeros([2 * size + 3 for size in kept.shape], x.dtype)
    cut = []
    for size in kept.shape:
        step = int(rng.choice([1, 1, 1, 2]))
        begin = int(rng.integers(0, 3))
        cut.append(slice(begin, begin + step * size, step))
    view = wide[tuple(cut)]
    flips = tuple(slice(None, None, int(rng.choice([1, 1, 1, -1]))) for _ in range(3))
    view = view[flips]
    view[...] = kept
    return view.transpose(np.argsort(order))


def drawn_shape(rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(batch, m, k, n), small where the product would be large; with zeros and ones."""
    batch = int(rng.choice([1, 1, 2, 3]))
    m, n = (int(rng.choice([0, 1, 2, 3, 5, 8, 13, 16, 17, 31, 40])) for _ in range(2))
    k = int(rng.choice([0, 1, 2, 7, 16, 65, 511, 512, 513, 1030]))
    return batch, m, k, n


def problem_of(
    c: Any, a: np.ndarray, b: np.ndarray, out: np.ndarray, threads: int, bits: int
) -> Problem:
    return matmul_problem(c.layout_of(a), c.layout_of(b), c.layout_of(out), threads, bits)


@pytest.mark.parametrize("seed", range(40))
def test_any_shape_strides_and_threads(contractions: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    batch, m, k, n = drawn_shape(rng)
    dtype = contractions.dtypes[str(rng.choice(["f32", "f32", "f32", "f16", "bf16", "i32"]))]
    a = drawn_view(rng, contractions.random(rng, (batch, m, k), dtype))
    b = drawn_view(rng, contractions.random(rng, (batch, k, n), dtype))
    expected = defined(contractions, a, b)
    for threads in (1, 2, 3, 5):
        out = np.full(expected.shape, 3, dtype)
        plan = plan_matmul(*(contractions.layout_of(x) for x in (a, b, out)), threads)
        contractions.run(plan, [a, b], out, threads)
        assert contractions.same_bits(out, expected), (seed, threads)


@pytest.mark.parametrize(
    ("shape", "transposed"),
    [((2, 19, 530, 37), ""), ((1, 13, 40, 26), "ab"), ((1, 1, 530, 50), "b"), ((1, 50, 530, 1), ""),
     ((1, 2, 9000, 2), "b"), ((1, 63, 3, 70), "a"), ((1, 7, 5, 3), "b")],
    ids=str,
)  # fmt: skip
def test_every_way_that_is_offered(
    contractions: Any, shape: tuple[int, ...], transposed: str
) -> None:
    rng = np.random.default_rng(11)
    batch, m, k, n = shape
    a = contractions.random(rng, (batch, m, k), np.dtype("f4"))
    b = contractions.random(rng, (batch, k, n), np.dtype("f4"))
    expected = defined(contractions, a, b)
    if "a" in transposed:
        a = np.ascontiguousarray(a.swapaxes(1, 2)).swapaxes(1, 2)
    if "b" in transposed:
        b = np.ascontiguousarray(b.swapaxes(1, 2)).swapaxes(1, 2)
    for threads in (1, 3):
        out = np.zeros(expected.shape, "f4")
        problem = problem_of(contractions, a, b, out, threads, 256)
        for way in dict.fromkeys(ways(problem)):
            out[:] = 3
            contractions.run(plan_way(problem, way), [a, b], out, threads)
            assert contractions.same_bits(out, expected), (threads, way)


@pytest.mark.parametrize("seed", range(12))
def test_any_tile_and_cut(contractions: Any, seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    bits = int(rng.choice([128, 256, 512]))
    dtype = contractions.dtypes[str(rng.choice(["f32", "bf16", "f64"]))]
    m, k, n = 29, int(rng.choice([70, 515])), int(rng.choice([33, 70]))
    kind = dtypes.from_numpy(dtype)
    tile = tile_for(kind, int(rng.integers(1, 9)), int(rng.integers(1, 4)), bits)
    a = contractions.random(rng, (1, m, k), dtype)
    b = contractions.random(rng, (1, k, n), dtype)
    expected = defined(contractions, a, b)
    rows, columns = (int(rng.integers(1, 4)) for _ in range(2))
    way = Way(
        "tile", tile, rows * tile.rows, columns * tile.columns,
        int(rng.choice([1, -(-k // BLOCK)])), str(rng.choice(["depth", "any"])),  # type: ignore[arg-type]
        str(rng.choice(["items", "any"])), int(rng.integers(1, rows + 1)) * tile.rows,  # type: ignore[arg-type]
    )  # fmt: skip
    for threads in (1, 2):
        out = np.zeros((1, m, n), dtype)
        plan = plan_way(problem_of(contractions, a, b, out, threads, bits), way)
        contractions.run(plan, [a, b], out, threads, bits)
        assert contractions.same_bits(out, expected), way


@pytest.mark.parametrize(("size", "least", "most"), [(16, 1, 1), (32, 1, 1), (1024, 4, 8)])
def test_work_is_cut_as_it_is_worth(size: int, least: int, most: int) -> None:
    """Small products stay whole; of large ones a late thread holds up only a part of its own."""
    matrix = Layout(dtypes.float32, (1, size, size), (size * size, size, 1))
    (launch,) = plan_matmul(matrix, matrix, matrix, 2).launches
    assert least <= launch.units <= most


@pytest.mark.parametrize("depth", [1, 2, 6, 31, 513])
def test_bfloat16_with_subnormals_and_infinities(contractions: Any, depth: int) -> None:
    """Blocks whose sums can be subnormal take another path than those whose sums cannot."""
    rng = np.random.default_rng(depth)
    bf16 = contractions.dtypes["bf16"]
    a = contractions.random(rng, (1, 20, depth), bf16)
    b = contractions.random(rng, (1, depth, 40), bf16)
    tiny = (b.astype("f4") * 2.0**-110).astype(bf16)
    for left in (a, (a.astype("f4") * 2.0**-20).astype(bf16), contractions.special(rng, a, 0.1)):
        for right in (b, tiny):
            out = np.zeros((1, 20, 40), bf16)
            plan = plan_matmul(*(contractions.layout_of(x) for x in (left, right, out)), 2)
            contractions.run(plan, [left, right], out, 2)
            assert contractions.same_bits(out, defined(contractions, left, right))


def scaled(
    k: Builder, value: Operand, at: Indices, pointers: Sequence[Pointer], sizes: Sequence[Operand]
) -> Operand:
    """``value * scale[row, column]``, the strides being parameters."""
    place = k.add(k.mul(at[1], sizes[0]), k.mul(at[2], sizes[1]))
    return k.mul(value, k.load(pointers[0], place))


def biased(
    k: Builder, value: Operand, at: Indices, pointers: Sequence[Pointer], sizes: Sequence[Operand]
) -> Operand:
    """``max(value + bias[column], 0) + residual[batch, row, column]``."""
    value = k.add(value, k.load(pointers[0], at[2]))
    value = k.maximum(value, k.const(0, value.dtype))
    place = k.add(k.mul(k.add(k.mul(at[0], sizes[0]), at[1]), sizes[1]), at[2])
    return k.add(value, k.load(pointers[1], place))


SHAPES = [(2, 13, 20, 33), (1, 1, 600, 70), (1, 70, 40, 1), (1, 1, 5000, 1), (2, 30, 3, 50),
          (1, 3, 5, 4), (1, 64, 1030, 16)]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_hooks_compute_what_kernels_of_their_own_would(
    contractions: Any, dtype: str, shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(3)
    batch, m, k, n = shape
    numpy_type, kind = contractions.dtypes[dtype], dtypes.by_short(dtype)

    def draw(*sizes: int) -> np.ndarray:
        return rng.standard_normal(sizes).astype(numpy_type)

    a, b, scale_a, scale_b = draw(batch, m, k), draw(batch, k, n), draw(m, k), draw(k, n)
    bias, residual = draw(n), draw(batch, m, n)
    product = defined(contractions, a * scale_a, b * scale_b)
    expected = np.maximum(product + bias, numpy_type.type(0)) + residual
    scale = Hook("scaled", scaled, (kind,), 2)
    riders = Riders(
        Fused(scale, (In(2),), (k, 1)),
        Fused(scale, (In(3),), (n, 1)),
        Fused(Hook("biased", biased, (kind, kind), 2), (In(4), In(5)), (m, n)),
    )
    for threads in (1, 3):
        for view in (b, np.ascontiguousarray(b.swapaxes(1, 2)).swapaxes(1, 2)):
            out = np.zeros((batch, m, n), numpy_type)
            layouts = [contractions.layout_of(x) for x in (a, view, out)]
            plan = plan_matmul(*layouts, threads, 256, riders)
            contractions.run(plan, [a, view, scale_a, scale_b, bias, residual], out, threads)
            assert contractions.same_bits(out, expected)


def to_half(
    k: Builder, value: Operand, at: Indices, pointers: Sequence[Pointer], sizes: Sequence[Operand]
) -> Operand:
    """Rounds to another dtype."""
    return k.convert(value, dtypes.float16)


def test_an_epilogue_may_change_the_dtype(contractions: Any) -> None:
    rng = np.random.default_rng(5)
    a = rng.standard_normal((1, 20, 40)).astype("f4")
    b = rng.standard_normal((1, 40, 30)).astype("f4")
    out = np.zeros((1, 20, 30), "f2")
    layouts = [contractions.layout_of(x) for x in (a, b, out)]
    riders = Riders(result=Fused(Hook("to_half", to_half)))
    contractions.run(plan_matmul(*layouts, 2, 256, riders, dtypes.float32), [a, b], out, 2)
    assert contractions.same_bits(out, defined(contractions, a, b).astype("f2"))
