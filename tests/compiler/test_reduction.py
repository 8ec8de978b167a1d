"""Reduction kernels against an independent statement of the order, bit by bit."""

from __future__ import annotations

import array
from collections.abc import Callable, Sequence
from functools import lru_cache, reduce
from typing import Any

import numpy as np
import pytest

from treadle.base import dtypes
from treadle.codegen.llvm import print_llvm
from treadle.compiler import reduction, reduction_kernels
from treadle.compiler.reduction import CHUNK, plain, plan_reduction
from treadle.ir.launch import In, KernelSpec, Layout, Out, Plan, Work
from treadle.ir.loop_arithmetic import fma
from treadle.ir.loop_text import print_kernel
from treadle.ir.loop_verify import verify_kernel
from treadle.ir.node import type_of
from treadle.ops import reduce as records  # noqa: F401  (registers the ops)
from treadle.ops import registry
from treadle.runtime import jit, pool
from treadle.testing.plans import interpret_op

LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "contiguous": np.ascontiguousarray,
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "strided": lambda x: np.repeat(np.repeat(x, 2, axis=-1), 2, axis=0)[::2][..., ::2],
    "flipped": lambda x: np.ascontiguousarray(np.flip(x))[tuple([slice(None, None, -1)] * x.ndim)],
}


# --- the order, written down once more ------------------------------------------------------------


Merge = Callable[[Any, Any], Any]


def stripes_of(x: np.ndarray, merge: Merge, step: Merge | None) -> np.ndarray:
    """One chunk (rows, n): 16 stripes in order, then s[i] with s[i+8], [i+4], [i+2], [i+1].

    With a ``step`` a stripe begins with zeros, and that takes its elements in.
    """
    columns = [[x[:, r] for r in range(s, x.shape[1], 16)] for s in range(min(16, x.shape[1]))]
    zeros = np.zeros(len(x), x.dtype)
    stripe = [reduce(step, c, zeros) if step else reduce(merge, c) for c in columns]
    for half in (8, 4, 2, 1):
        for i in range(half):
            if i + half < len(stripe):
                stripe[i] = merge(stripe[i], stripe[i + half])
        del stripe[half:]
    return stripe[0]


def ordered(
    x: np.ndarray, axes: Sequence[int], merge: Merge, chunk: int = CHUNK, step: Merge | None = None
) -> np.ndarray:
    """The reduction over ``axes`` in the order of the design, in the dtype of ``x``."""
    kept = [a for a in range(x.ndim) if a not in axes]
    shape = [x.shape[a] for a in kept]
    rows = np.transpose(x, [*kept, *axes]).reshape(int(np.prod(shape)), -1)
    cuts = range(0, rows.shape[1], chunk)
    parts = [stripes_of(rows[:, at : at + chunk], merge, step) for at in cuts]
    while len(parts) > 1:
        pairs = [merge(a, b) for a, b in zip(parts[::2], parts[1::2], strict=False)]
        parts = pairs + parts[len(pairs) * 2 :]
    return parts[0].reshape(shape)


# --- running plans --------------------------------------------------------------------------------


def layout_of(x: np.ndarray) -> Layout:
    strides = tuple(s // x.itemsize for s in x.strides)
    return Layout(dtypes.from_numpy(x.dtype), x.shape, strides)


def planned(name: str, x: np.ndarray, axes: tuple[int, ...], threads: int) -> tuple[Plan, list]:
    op = registry.get(name)
    source = layout_of(x)
    found = op.infer((type_of(source.dtype, x.shape),), {"axes": axes})
    types = found if isinstance(found, tuple) else (found,)
    of = plain(name, source.dtype)
    plan = plan_reduction(of, [source], [t.layout for t in types], axes, threads)
    return plan, [np.zeros(t.shape, t.dtype.numpy) for t in types]


@lru_cache(maxsize=None)
def address(spec: KernelSpec, bits: int) -> int:
    kernel = spec.build(*spec.key)
    verify_kernel(kernel)
    text = f"{print_kernel(kernel)}; {bits}"
    return jit.compile_kernel(kernel.name, text, lambda: print_llvm(kernel, bits))


def run(
    name: str, x: np.ndarray, axes: tuple[int, ...], threads: int = 1, bits: int = 0
) -> list[np.ndarray]:
    bits = bits or jit.host_target().vector_bits
    plan, outs = planned(name, x, axes, threads)
    works = [np.zeros(nbytes, np.uint8) for nbytes in plan.workspaces]
    memory = {In: [x], Out: outs, Work: works}
    tape = array.array("q")
    for launch in plan.launches:
        args = [
            a if isinstance(a, int) else memory[type(a)][a.index].ctypes.data for a in launch.args
        ]
        units = launch.units
        tape.extend([address(launch.kernel, bits), len(args), units, units, *args])
    assert pool.run_tape(tape, len(plan.launches), threads) == (-1, 0)
    return outs


def variants(name: str, x: np.ndarray, axes: tuple[int, ...], threads: int = 1) -> list[str]:
    plan, _ = planned(name, x, axes, threads)
    return [launch.kernel.build.__name__ for launch in plan.launches]


def values(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    """Numbers of very different sizes, so that every change of order shows."""
    random = np.random.default_rng(seed)
    return (random.standard_normal(shape) * 10.0 ** random.integers(-3, 4, shape)).astype(dtype)


# --- the order ------------------------------------------------------------------------------------

CASES = [
    ((1,), (0,)), ((15,), (0,)), ((16,), (0,)), ((17,), (0,)), ((100,), (0,)),
    ((4096,), (0,)), ((4097,), (0,)), ((3 * 4096 + 5,), (0,)), ((6 * 4096,), (0,)),
    ((5, 3), (1,)), ((40, 9), (1,)), ((3, 70), (1,)), ((2, 9001), (1,)),
    ((3, 40), (0,)), ((33, 7), (0,)), ((100, 50), (0,)), ((4200, 21), (0,)), ((100, 300), (0,)),
    ((4, 33, 19), (1,)), ((4, 5, 49), (0, 2)), ((3, 20, 10), (0, 2)), ((9, 3, 1000), (0, 2)),
    ((2, 3, 4, 19), (1, 3)), ((3, 4, 5), (0, 1, 2)), ((3, 5), ()), ((3, 2, 700, 2), (0, 2)),
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("shape", "axes"), CASES, ids=str)
def test_sums_have_the_bits_of_the_order(
    layout: str, shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    x = LAYOUTS[layout](values(shape))
    expected = ordered(x, axes, np.add)
    for threads in (1, 2, 3):
        np.testing.assert_array_equal(run("reduce_sum", x, axes, threads)[0], expected)


@pytest.mark.parametrize("bits", [128, 256, 512])
def test_the_width_of_vectors_changes_no_bit(bits: int) -> None:
    x = values((70, 50))
    for axis in (0, 1):
        found = run("reduce_sum", x, (axis,), bits=bits)[0]
        np.testing.assert_array_equal(found, ordered(x, (axis,), np.add))
        for moment, usual in zip(
            run("moments", x, (axis,), bits=bits), run("moments", x, (axis,)), strict=True
        ):
            np.testing.assert_array_equal(moment, usual)


@pytest.mark.parametrize("shape", [(70,), (5000, 9), (9, 5000)], ids=str)
def test_the_order_shows_in_the_bits(shape: tuple[int, ...]) -> None:
    """Otherwise the tests here would prove nothing."""
    x = values(shape)
    plain = reduce(np.add, list(x.reshape(-1)))
    assert ordered(x, range(x.ndim), np.add) != plain


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
def test_products_in_float64(axes: tuple[int, ...]) -> None:
    x = np.exp(np.random.default_rng(0).uniform(-0.1, 0.1, (90, 50)))
    np.testing.assert_array_equal(run("reduce_prod", x, axes)[0], ordered(x, axes, np.multiply))


@pytest.mark.parametrize("short", ["f16", "bf16"])
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
def test_16_bit_floats_are_summed_in_float32_and_rounded_once(
    short: str, axes: tuple[int, ...]
) -> None:
    dtype = dtypes.by_short(short).numpy
    x = np.random.default_rng(0).standard_normal((80, 60)).astype(dtype)
    expected = ordered(x.astype(np.float32), axes, np.add).astype(dtype)
    np.testing.assert_array_equal(run("reduce_sum", x, axes)[0], expected)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.bool_])
def test_integers_are_summed_in_int64(dtype: Any) -> None:
    x = np.random.default_rng(0).integers(0, 2 if dtype is np.bool_ else 120, (40, 9000))
    x = x.astype(dtype)
    for axes in ((0,), (1,)):
        found = run("reduce_sum", x, axes)[0]
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, x.sum(axis=axes, dtype=np.int64))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "axes"), [((6, 300), (1,)), ((5000, 20), (0,)),
                                             ((4, 6, 49), (0, 2))], ids=str)  # fmt: skip
def test_moments_are_sums_in_float64(
    dtype: Any, shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    x = values(shape, dtype)
    wide = x.astype(np.float64)
    n = wide.size / np.prod([s for a, s in enumerate(shape) if a not in axes])
    exact = np.vectorize(lambda total, v: fma(v, v, total, dtypes.float64))
    s1, s2 = ordered(wide, axes, np.add), ordered(wide, axes, np.add, step=exact)
    mean, var = run("moments", x, axes, 2)
    np.testing.assert_array_equal(mean, (s1 / n).astype(dtype))
    np.testing.assert_array_equal(var, np.maximum((s2 - s1 * s1 / n) / n, 0).astype(dtype))


# --- choosing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "layout"),
    [("float32", layout) for layout in LAYOUTS]
    + [(d, "contiguous") for d in ("bfloat16", "int8", "bool")],
)
def test_positions_take_the_lowest_index_of_ties(dtype: str, layout: str) -> None:
    x = np.random.default_rng(0).integers(-3, 4, (4200, 20))
    x = LAYOUTS[layout](x.astype(dtypes.as_dtype(dtype).numpy))
    plain = x if x.dtype.kind in "iub" else x.astype(np.float64)
    for axis in (0, 1):
        assert np.array_equal(run("argmax", x, (axis,), 2)[0], np.argmax(plain, axis))
        assert np.array_equal(run("argmin", x, (axis,), 2)[0], np.argmin(plain, axis))
        top, bottom = (run(f"reduce_{name}", x, (axis,), 2)[0] for name in ("max", "min"))
        assert top.dtype == bottom.dtype == x.dtype
        assert np.array_equal(top.astype(plain.dtype), plain.max(axis))
        assert np.array_equal(bottom.astype(plain.dtype), plain.min(axis))


@pytest.mark.parametrize("axes", [(0,), (1,)])
def test_the_first_nan_wins(axes: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal((50, 60)).astype(np.float32)
    x[[3, 40, 40, 7], [50, 12, 13, 50]] = np.nan
    x[9, 9], x[10, 10] = np.inf, -np.inf
    assert np.array_equal(run("argmax", x, axes)[0], np.argmax(x, axes[0]))
    assert np.array_equal(run("argmin", x, axes)[0], np.argmin(x, axes[0]))
    for name, reference in (("reduce_max", np.max), ("reduce_min", np.min)):
        np.testing.assert_array_equal(run(name, x, axes)[0], reference(x, axes[0]))


@pytest.mark.parametrize("shape", [(30, 1), (1, 30)])
def test_extreme_values_only(shape: tuple[int, ...]) -> None:
    """What equals the identity is still an element."""
    for fill in (np.inf, -np.inf):
        x = np.full(shape, fill, np.float32)
        for axis in (0, 1):
            assert not run("argmax", x, (axis,))[0].any()
            assert not run("argmin", x, (axis,))[0].any()
            assert (run("reduce_max", x, (axis,))[0] == fill).all()


def test_zeros_are_ordered_and_keep_their_sign() -> None:
    for zeros in ([-0.0, 0.0], [0.0, -0.0]):
        x = np.array(zeros * 9, np.float32)
        assert not np.signbit(run("reduce_max", x, (0,))[0])
        assert np.signbit(run("reduce_min", x, (0,))[0])
    assert np.signbit(run("reduce_sum", np.full(40, -0.0, np.float32), (0,))[0])


def test_truth_counts_nan() -> None:
    x = np.zeros((20, 40), np.float32)
    x[3, 17], x[5] = np.nan, 2.0
    for axis in (0, 1):
        assert np.array_equal(run("reduce_any", x, (axis,))[0], (x != 0).any(axis))
        assert np.array_equal(run("reduce_all", x, (axis,))[0], (x != 0).all(axis))


# --- nothing to reduce ----------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "axes"), [((0,), (0,)), ((3, 0), (1,)), ((0, 20), (0,)),
                                             ((20, 0, 4), (0, 1))], ids=str)  # fmt: skip
def test_no_element_gives_the_identity(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    x = np.zeros(shape, np.float32)
    total = run("reduce_sum", x, axes)[0]
    assert not total.any()
    assert not np.signbit(total).any()
    assert (run("reduce_prod", x, axes)[0] == 1).all()
    assert not run("reduce_any", x, axes)[0].any()
    assert run("reduce_all", x, axes)[0].all()
    assert all(np.isnan(m).all() for m in run("moments", x, axes))
    assert not run("reduce_sum", x.astype(np.int32), axes)[0].any()


def test_no_output_needs_no_launch() -> None:
    plan, _ = planned("reduce_sum", np.zeros((0, 5), np.float32), (1,), 2)
    assert plan == Plan(())


# --- which kernel, and how it keeps to its memory -------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((50, 64), (1,), ["stripes_kernel"]),
        ((64, 50), (0,), ["lanes_kernel"]),
        ((50, 4), (1,), ["lanes_kernel"]),
        ((50, 4), (0,), ["stripes_kernel"]),
        ((20, 50, 4), (0, 1), ["stripes_kernel"]),
        ((4, 8, 49), (0, 2), ["stripes_kernel"]),
        ((9000,), (0,), ["stripes_kernel", "combine_kernel"]),
        ((9000, 20), (0,), ["lanes_kernel", "combine_kernel"]),
    ],
    ids=str,
)
def test_what_lies_side_by_side_decides(
    shape: tuple[int, ...], axes: tuple[int, ...], expected: list[str]
) -> None:
    assert variants("reduce_sum", np.zeros(shape, np.float32), axes) == expected


def test_repeated_elements_are_not_lanes() -> None:
    row = np.broadcast_to(np.arange(20, dtype=np.float32), (64, 20))
    assert variants("reduce_sum", row, (0,)) == ["lanes_kernel"]
    column = np.broadcast_to(np.arange(64, dtype=np.float32), (20, 64))
    assert variants("reduce_sum", column, (1,)) == ["stripes_kernel"]
    np.testing.assert_array_equal(run("reduce_sum", row, (0,))[0], 64.0 * np.arange(20))
    np.testing.assert_array_equal(run("reduce_sum", column, (1,))[0], [2016.0] * 20)


def test_a_long_sum_has_units_for_all_threads() -> None:
    plan, _ = planned("reduce_sum", np.zeros(10 * CHUNK, np.float32), (0,), 4)
    assert plan.launches[0].units == 10
    plan, _ = planned("reduce_sum", np.zeros((500, 256), np.float32), (0,), 4)
    assert plan.launches[0].units == 4


@pytest.mark.parametrize("name", ["reduce_sum", "argmax", "moments", "reduce_any"])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((2, 21), (1,)), ((19, 17), (0,)), ((2, 2, 19), (0, 2)), ((75,), (0,)), ((70, 20), (0,)),
     ((17, 5), (1,)), ((3, 0), (1,))], ids=str,
)  # fmt: skip
def test_every_access_is_in_range_and_lanes_are_independent(
    monkeypatch: pytest.MonkeyPatch, name: str, shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    """As the interpreter sees it, with short chunks and any cut into pieces."""
    if (len(axes) > 1 or not np.prod(shape)) and name == "argmax":
        pytest.skip("argmax takes one axis that is not empty")
    for module in (reduction, reduction_kernels):
        monkeypatch.setattr(module, "CHUNK", 32)
    x = values(shape)
    op = registry.get(name)
    with np.errstate(invalid="ignore"):
        expected = op.reference(x, axes=axes)
    for part in (1, 2, 3):
        found = interpret_op(op, (x,), {"axes": axes}, lambda units, part=part: units // part)
        for f, e in zip(found, expected if name == "moments" else [expected], strict=True):
            np.testing.assert_allclose(f, e, rtol=1e-4, atol=1e-3)
        if name == "reduce_sum" and x.size:
            np.testing.assert_array_equal(found[0], ordered(x, axes, np.add, chunk=32))


def test_only_reductions_have_a_plan() -> None:
    x = layout_of(np.zeros(3, np.float32))
    with pytest.raises(TypeError, match="reshape is no reduction: its lowering is a View"):
        plan_reduction(plain("reshape", x.dtype), [x], [x], (), 1)


def test_the_table_of_every_op_fits_its_bound() -> None:
    for op in registry.OPS.values():
        if op.family == "reduce":
            for dtype in op.dtypes:
                width = reduction_kernels.table_width(plain(op.name, dtype))
                size = sum(a.itemsize for a, _ in op.lower.accumulators(dtype))
                assert 16 * width * size <= reduction_kernels._TABLE_BYTES
                assert width >= 64
