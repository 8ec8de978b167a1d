"""Plans of matrix multiplication: ``out[b, i, j] = sum over k of a[b, i, k] * b[b, k, j]``.

There are many ways to the same bits (``Way``): a register tile with operands read in place or
packed, or one of the kernels for few rows and columns; any cut into units for threads. A rough
model of cycles (``gemm_cost``) chooses; with ``TREADLE_TUNE=1`` the best few are measured.
"""

from __future__ import annotations

from functools import lru_cache

from treadle.base.dtypes import DType
from treadle.base.errors import DTypeError, ShapeError
from treadle.codegen import gemm_tile, gemm_vector
from treadle.codegen.contraction import BLOCK, Workspaces, accumulator, in_order
from treadle.codegen.gemm_cost import Problem, Way, ways
from treadle.codegen.gemm_pack import ROW
from treadle.codegen.gemm_tile import GemmKey, gemm
from treadle.codegen.gemm_vector import CombineKey, VectorKey, combine, dot_units
from treadle.codegen.hooks import Hooks, Riders
from treadle.ir.launch import Argument, In, KernelSpec, Launch, Layout, Out, Plan

_NO_RIDERS = Riders()
_SCHEMES = {
    "stream": gemm_vector.stream, "matvec": gemm_vector.matvec, "dot": gemm_vector.dot,
    "outer": gemm_vector.outer,
}  # fmt: skip


@lru_cache(maxsize=4096)
def plan_matmul(
    a: Layout, b: Layout, out: Layout, threads: int, vector_bits: int = 256,
    riders: Riders = _NO_RIDERS, dtype: DType | None = None,
) -> Plan:  # fmt: skip
    """``out = a @ b`` in batches.

    Args:
        a: (B, M, K), with any strides.
        b: (B, K, N), with any strides.
        out: (B, M, N), contiguous.
        threads: how many may run the plan at once; the result does not depend on it.
        vector_bits: the width of the target's registers; nor on this.
        riders: elementwise work on the operands and the result; nor on how it is cut. Where an
            operand or the result has a rider its dtype may differ from the contraction's.
        dtype: of the contraction, where it is not that of ``out``.

    Raises:
        ShapeError: the shapes do not fit together.
        DTypeError: the dtypes differ or are bool.
    """
    problem = matmul_problem(a, b, out, threads, vector_bits, riders, dtype)
    if problem.is_empty:
        return Plan(())
    return plan_way(problem, min(ways(problem), key=lambda way: way.cost))


def matmul_problem(
    a: Layout, b: Layout, out: Layout, threads: int, vector_bits: int,
    riders: Riders = _NO_RIDERS, dtype: DType | None = None,
) -> Problem:  # fmt: skip
    """What is to be done, after the checks; arguments and errors as for ``plan_matmul``."""
    dtype = dtype or out.dtype
    _check(a, b, out, riders, dtype)
    accumulator(dtype)
    return Problem(a, b, out, dtype, threads, vector_bits, riders)


def _check(a: Layout, b: Layout, out: Layout, riders: Riders, dtype: DType) -> None:
    shapes = (a.shape, b.shape, out.shape)
    fits = all(len(shape) == 3 for shape in shapes) and out.shape == (
        a.shape[0], a.shape[1], b.shape[2],
    ) and b.shape[:2] == (a.shape[0], a.shape[2])  # fmt: skip
    if not fits:
        raise ShapeError(
            f"matmul plan: got {a.shape} @ {b.shape} -> {out.shape}; expected "
            "(B, M, K) @ (B, K, N) -> (B, M, N): expand the batch and make the inner sizes equal"
        )
    parts = zip((a, b, out), riders, strict=True)
    if any(layout.dtype is not dtype and rider is None for layout, rider in parts):
        raise DTypeError(
            f"matmul plan: got {a.dtype!r} @ {b.dtype!r} -> {out.dtype!r}; the dtypes must be "
            "equal: convert the operands to one dtype first"
        )
    if not out.is_contiguous:
        raise ShapeError(
            f"matmul plan: the result has strides {out.strides} for shape {out.shape}; "
            "expected a contiguous one"
        )


def plan_way(problem: Problem, way: Way) -> Plan:
    """The launches for one way."""
    works = Workspaces()
    if way.scheme == "tile":
        launches = _tile_launches(problem, way, works)
    else:
        launches = _vector_launches(problem, way, works)
    return Plan(tuple(launches), tuple(works.nbytes))


def _combined(problem: Problem, acc: DType, lanes: int, parts: Argument, count: int) -> Launch:
    """The launch that adds parts of sums and finishes them."""
    riders = Riders(result=problem.riders.result)
    key = CombineKey(acc, problem.dtype, problem.out.dtype, lanes, riders.hooks)
    elements = problem.batches * problem.m * problem.n
    numbers = (problem.m, problem.n, count, elements, *riders.numbers)
    args = (Out(0), parts, *riders.addresses, *numbers)
    units = problem.batches * problem.m
    return Launch(KernelSpec(combine, (key,)), args, units, elements * count)


def _tile_launches(problem: Problem, way: Way, works: Workspaces) -> list[Launch]:
    tile, a, b, out = way.tile, problem.a, problem.b, problem.out
    left, right = problem.sides(False)
    m, n, depth = left.items, right.items, problem.depth
    elements = problem.batches * m * n
    riders, result = problem.riders, out.dtype
    out_at: Argument = Out(0)
    if way.splits > 1:
        riders, result = riders._replace(result=None), tile.dtype
        out_at = works.new(way.splits * elements, tile.dtype)
    key = GemmKey(
        tile, problem.dtype, a.dtype, b.dtype, result, way.left, way.right, riders.hooks
    )  # fmt: skip
    addresses: list[Argument] = [out_at, In(0), In(1)]
    if key.separate:
        addresses.append(works.new(elements, tile.dtype))
    block = max(min(depth, BLOCK), 1)
    left_share = way.strip * (ROW if way.left == "depth" else block)
    right_share = way.columns * block
    if way.left != "direct":
        addresses.append(works.new(problem.threads * left_share, tile.dtype))
    if way.right != "direct":
        addresses.append(works.new(problem.threads * right_share, tile.dtype))
    row_units, column_units = -(-m // way.rows), -(-n // way.columns)
    values = {
        "m": m, "n": n, "depth": depth,
        "left_batch": left.batch, "left_item": left.item, "left_step": left.step,
        "right_batch": right.batch, "right_item": right.item, "right_step": right.step,
        "out_batch": m * n, "out_row": n, "out_split": elements,
        "rows": way.rows, "columns": way.columns, "row_units": row_units,
        "column_units": column_units, "splits": way.splits,
        "span": 1 if way.splits > 1 else problem.blocks,
        "strip": way.strip, "left_share": left_share, "right_share": right_share,
    }  # fmt: skip
    numbers = (*in_order(gemm_tile.SIZES, values), *riders.numbers)
    args = (*addresses, *riders.addresses, *numbers)
    units = problem.batches * row_units * column_units * way.splits
    launches = [Launch(KernelSpec(gemm, (key,)), args, units, 2 * elements * max(depth, 1))]
    if way.splits > 1:
        launches.append(_combined(problem, tile.dtype, tile.lanes, out_at, way.splits))
    return launches


def _vector_launches(problem: Problem, way: Way, works: Workspaces) -> list[Launch]:
    tile, out = way.tile, problem.out
    left, right = problem.sides(way.swapped)
    depth, elements = problem.depth, problem.batches * problem.m * problem.n
    riders, result = problem.riders, out.dtype
    out_at: Argument = Out(0)
    partial = way.splits > 1 or way.scheme == "dot"
    if partial:
        riders, result = riders._replace(result=None), tile.dtype
        out_at = works.new(problem.blocks * elements, tile.dtype)
    dot = way.scheme == "dot"
    out_left, out_right = (1, problem.n) if way.swapped else (problem.n, 1)
    splits = dot_units(depth, tile.lanes) if dot else way.splits
    row_units, column_units = -(-left.items // way.rows), -(-right.items // way.columns)
    values = {
        "m": left.items, "n": right.items, "depth": depth,
        "left_batch": left.batch, "left_item": left.item, "left_step": left.step,
        "right_batch": right.batch, "right_item": right.item, "right_step": right.step,
        "out_batch": problem.m * problem.n, "out_left": out_left, "out_right": out_right,
        "out_split": elements, "columns": way.columns, "row_units": row_units,
        "column_units": column_units, "splits": splits,
        "span": 1 if way.splits > 1 else problem.blocks,
    }  # fmt: skip
    key = VectorKey(
        tile, problem.dtype, problem.a.dtype, problem.b.dtype, result, way.swapped,
        out_right == 1, left.step == 1, partial, Hooks(*riders.hooks),
    )  # fmt: skip
    numbers = (*in_order(gemm_vector.SIZES, values), *riders.numbers)
    args = (out_at, In(0), In(1), *riders.addresses, *numbers)
    units = problem.batches * row_units * column_units * splits
    spec = KernelSpec(_SCHEMES[way.scheme], (key,))
    launches = [Launch(spec, args, units, 2 * elements * max(depth, 1))]
    if partial:
        launches.append(_combined(problem, tile.dtype, tile.lanes, out_at, problem.blocks))
    return launches
