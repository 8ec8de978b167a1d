"""Indexing: what is read and written where, in which order, and what a bad index says.

Values of all samples, dtypes, strides and gradients are the op table's; this file holds the
definitions that a tolerance would hide, and the checks that happen while a kernel runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import treadle
from treadle.base import dtypes
from treadle.base.errors import IndexRangeError
from treadle.compiler import prepare
from treadle.ir.node import Node, type_of
from treadle.ir.op import Op
from treadle.ops import indexing
from treadle.ops.indexing import gather, scatter, scatter_add, take, take_add, take_update
from treadle.ops.movement import permute
from treadle.tensor.handle import wrap
from treadle.tensor.storage import array_of, node_from_array
from treadle.testing.plans import interpret_op

OPS: list[Op] = [getattr(indexing, name) for name in indexing.__all__]
WRITES = (take_add, take_update, scatter_add, scatter)


def run(op: Op, *arrays: Any, axis: int = 0) -> np.ndarray:
    return array_of(op(*map(node_from_array, arrays), axis=axis))


@pytest.fixture
def many_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every launch is cut in three."""
    before = treadle.get_num_threads()
    monkeypatch.setattr(prepare, "PARALLEL_WORK", 1)
    treadle.set_num_threads(3)
    yield
    treadle.set_num_threads(before)


# --- definitions --------------------------------------------------------------------------------


def test_take_puts_the_shape_of_the_index_in_place_of_the_axis():
    x = np.arange(24.0).reshape(2, 3, 4)
    index = np.array([[2, 0], [1, 1], [0, 2]])
    got = run(take, x, index, axis=1)
    assert got.shape == (2, 3, 2, 4)
    assert (got == x[:, index]).all()
    assert (run(take, x, np.array(3), axis=2) == x[:, :, 3]).all()


def test_gather_is_pytorchs():
    # The example of torch.gather's page, and one whose index is smaller than x elsewhere.
    x = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert run(gather, x, np.array([[0, 0], [1, 0]]), axis=1).tolist() == [[1, 1], [4, 3]]
    x = np.arange(12).reshape(3, 4)
    assert run(gather, x, np.array([[2, 0]]), axis=0).tolist() == [[8, 1]]


def test_scatter_is_pytorchs():
    # The examples of torch.Tensor.scatter_ and scatter_add_.
    patch = np.arange(1, 6).reshape(1, 5)
    index = np.array([[0, 1, 2, 0, 0]])
    expected = [[1, 0, 0, 4, 5], [0, 2, 0, 0, 0], [0, 0, 3, 0, 0]]
    assert run(scatter, np.zeros((3, 5), np.int64), index, patch).tolist() == expected
    ones = run(scatter_add, np.ones((3, 5), np.int64), index, patch)
    assert ones.tolist() == (np.array(expected) + 1).tolist()


@pytest.mark.parametrize("op", [take_update, scatter])
def test_the_last_writer_stays_and_alone_has_a_gradient(op: Op):
    base = wrap(node_from_array(np.zeros(3))).requires_grad_()
    patch = wrap(node_from_array(np.array([1.0, 2.0, 3.0, 4.0]))).requires_grad_()
    index = node_from_array(np.array([1, 0, 1, 0]))
    out = wrap(op(base.node, index, patch.node, axis=0))
    assert out.tolist() == [4, 3, 0]
    out.backward(treadle.tensor([10.0, 20.0, 30.0], dtype=treadle.float64))
    assert patch.grad.tolist() == [0, 0, 20, 10]
    assert base.grad.tolist() == [0, 0, 30]


@pytest.mark.parametrize("op", [take_add, scatter_add])
def test_duplicates_are_added_in_index_order_from_the_base_on(op: Op):
    rng = np.random.default_rng(0)
    base, patch = (rng.standard_normal(n).astype(np.float32) * 1e3 for n in (3, 500))
    index = rng.integers(0, 3, 500)
    expected = base.copy()
    for at, value in zip(index, patch, strict=True):
        expected[at] = expected[at] + value
    got = run(op, base, index, patch)
    assert got.tobytes() == expected.tobytes()
    exact = base.astype(float) + [patch[index == i].astype(float).sum() for i in range(3)]
    assert (got != exact.astype(np.float32)).any(), "the case must tell orders apart"


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_16_bits_are_added_in_f32_and_rounded_once(dtype: Any):
    # One by one in 16 bits, 2048 + 1 would stay 2048 for ever.
    got = run(take_add, np.array([2048], dtype), np.zeros(300, np.int64), np.ones(300, dtype))
    assert got.dtype == dtype
    assert got[0] == dtype(2348)


def test_an_empty_index_copies_the_base():
    base, none = np.arange(6.0).reshape(2, 3), np.zeros(0, np.int64)
    for op in (take_add, take_update):
        assert (run(op, base, none, np.zeros((2, 0)), axis=1) == base).all()
    assert run(take, np.zeros((0, 3)), none).shape == (0, 3)


# --- kernels ------------------------------------------------------------------------------------


def cases(op: Op) -> list[tuple[tuple[np.ndarray, ...], int]]:
    """Several shapes and axes, with many duplicates."""
    rng = np.random.default_rng(1)
    found = []
    for shape, axis in [((40,), 0), ((7, 33), 0), ((6, 33), 1), ((3, 5, 4), 1), ((1, 1, 9), 2)]:
        if op in (take, take_add, take_update):
            index = rng.integers(0, shape[axis], (4, 5))
            places = (*shape[:axis], *index.shape, *shape[axis + 1 :])
        else:
            places = tuple(15 if a == axis else max(n - 1, 1) for a, n in enumerate(shape))
            index = rng.integers(0, shape[axis], places)
        x, patch = (rng.standard_normal(s).astype(np.float32) for s in (shape, places))
        found.append(((x, index, patch) if op in WRITES else (x, index), axis))
    return found


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_threads_do_not_change_a_bit(op: Op, many_threads: None):
    for arrays, axis in cases(op):
        expected = op.reference(*arrays, axis=axis)
        assert run(op, *arrays, axis=axis).tobytes() == expected.tobytes(), (arrays[0].shape, axis)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_kernels_keep_the_rules_of_the_loop_ir(op: Op):
    for arrays, axis in cases(op)[2:]:
        (got,) = interpret_op(op, arrays, {"axis": axis}, cut=lambda units: units // 3)
        assert got.tobytes() == op.reference(*arrays, axis=axis).tobytes()


def test_transposed_and_expanded_operands():
    rng = np.random.default_rng(2)
    x, index = rng.standard_normal((5, 6)), rng.integers(0, 5, (4, 3))
    node: Node = permute(node_from_array(x), axes=(1, 0))
    got = array_of(take(node, node_from_array(index), axis=1))
    assert (got == x.T[:, index]).all()
    index = rng.integers(0, 5, (6, 9))
    got = array_of(gather(node, permute(node_from_array(index.T), axes=(1, 0)), axis=1))
    assert (got == np.take_along_axis(x.T, index, 1)).all()


# --- bad indices --------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [-1, 5, 2**62, -(2**63)])
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_an_index_out_of_range_is_told(op: Op, bad: int):
    index = np.array([0, 4, bad])
    arrays = (np.zeros(5, np.float32), index, np.ones(3, np.float32))
    text = (
        rf"^{op.name}: index out of range: indices must lie in \[0, 5\) along dimension 0 "
        rf"\(the size of the tensor there\) \[test_indexing.py:\d+\]$"
    )
    with pytest.raises(IndexRangeError, match=text):
        run(op, *arrays[: 3 if op in WRITES else 2])


def test_nothing_can_be_taken_where_there_is_nothing():
    with pytest.raises(IndexRangeError, match=r"\[0, 0\) along dimension 1"):
        run(take, np.zeros((2, 0)), np.array([0]), axis=1)


@pytest.mark.parametrize("op", WRITES, ids=lambda op: op.name)
def test_the_check_comes_before_every_write(op: Op):
    arrays = [np.zeros(5, np.float32), np.array([1, 7]), np.ones(2, np.float32)]
    layouts = [node_from_array(a).type.layout for a in arrays]
    plan = op.lower.plan(layouts, layouts[:1], {"axis": 0}, 2)  # type: ignore[union-attr]
    check, *others = (launch.kernel.build(*launch.kernel.key).name for launch in plan.launches)
    assert check == "check_index_in_range_i64"
    assert check not in others


def test_a_read_costs_what_it_reads():
    table, index = type_of(dtypes.float32, (50000, 64)), type_of(dtypes.int64, (3,))
    out = type_of(dtypes.float32, (3, 64))
    assert take.cost((table, index), out, {"axis": 0}) == (3 * 64, 3 * 8 + 2 * 3 * 64 * 4)
