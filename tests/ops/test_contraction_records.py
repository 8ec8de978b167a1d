"""The records of matmul and convolution: references, shapes, gradients, cost and refusals.

References are checked against sums written out element by element, and the three convolutions
against the adjoint identity, so none of it needs a kernel.
"""

from typing import Any

import numpy as np
import pytest

from treadle.base import dtypes
from treadle.ir.node import Node, record, type_of
from treadle.ir.op import NoGradient, Op
from treadle.ops.contraction import conv_forward, conv_input, conv_weight, matmul
from treadle.ops.registry import OPS
from treadle.ops.source import buffer

ALL_FOUR = (matmul, conv_forward, conv_input, conv_weight)
CONVOLUTIONS = ALL_FOUR[1:]


def leaf(array: np.ndarray) -> Node:
    kind = type_of(dtypes.from_numpy(array.dtype), array.shape)
    node = record(buffer, (), {"type": kind})
    node.value = array
    return node


def evaluate(node: Node) -> np.ndarray:
    """The value of a graph by the references alone."""
    if node.value is None:
        node.value = node.op.reference(*(evaluate(i) for i in node.inputs), **node.attrs)
    return node.value


def cases() -> list[Any]:
    return [
        pytest.param(op, sample, id=f"{op.name}-{index}")
        for op in ALL_FOUR
        for index, sample in enumerate(op.samples())
    ]


def direct_convolution(
    x: np.ndarray, w: np.ndarray, stride: Any, padding: Any, dilation: Any, groups: int
) -> np.ndarray:
    """Every result as the sum over its window, absent taps left out."""
    (n, _, *sizes), (o, per_group, *window) = x.shape, w.shape
    axes = range(len(sizes))
    out = [
        (sizes[a] + sum(padding[a]) - dilation[a] * (window[a] - 1) - 1) // stride[a] + 1
        for a in axes
    ]
    y = np.zeros((n, o, *out))
    for b, q, *pixel in np.ndindex(*y.shape):
        first = q // (o // groups) * per_group
        for p, *tap in np.ndindex(per_group, *window):
            at = [pixel[a] * stride[a] + tap[a] * dilation[a] - padding[a][0] for a in axes]
            if all(0 <= at[a] < sizes[a] for a in axes):
                y[b, q, *pixel] += float(x[b, first + p, *at]) * float(w[q, p, *tap])
    return y


@pytest.mark.parametrize(("op", "sample"), cases())
def test_infer_agrees_with_the_reference(op: Op, sample: Any) -> None:
    inputs = [leaf(a) for a in sample.args]
    node = op(*inputs, **sample.attrs)
    out = op.reference(*sample.args, **sample.attrs)
    assert node.shape == out.shape
    assert node.dtype.numpy == out.dtype == sample.args[0].dtype


@pytest.mark.parametrize("dtype", dtypes.FLOATS, ids=repr)
@pytest.mark.parametrize("op", ALL_FOUR, ids=repr)
def test_references_keep_every_float_dtype(op: Op, dtype: dtypes.DType) -> None:
    sample = next(iter(op.samples()))
    args = [a.astype(dtype.numpy) for a in sample.args]
    out = op.reference(*args, **sample.attrs)
    exact = op.reference(*(a.astype(np.float64) for a in args), **sample.attrs)
    assert out.dtype == dtype.numpy
    assert np.array_equal(out, exact.astype(dtype.numpy))


def test_matmul_reference() -> None:
    for sample in matmul.samples():
        a, b = sample.args
        expected = (a.astype(np.float64)[..., None] * b[..., None, :, :]).sum(-2)
        np.testing.assert_allclose(matmul.reference(a, b), expected, rtol=1e-6, atol=1e-6)


def test_integer_matmul_wraps() -> None:
    a = np.full((1, 1, 3), 100, np.int8)
    assert matmul.reference(a, a.reshape(1, 3, 1)) == np.int8(30000 - (30000 + 128) // 256 * 256)


def test_convolution_reference() -> None:
    for sample in conv_forward.samples():
        np.testing.assert_allclose(
            conv_forward.reference(*sample.args, **sample.attrs),
            direct_convolution(*sample.args, **sample.attrs), rtol=1e-6, atol=1e-6,
        )  # fmt: skip


def test_the_three_convolutions_are_adjoint() -> None:
    """<g, forward(x, w)> = <input(g, w), x> = <weight(g, x), w> on every sample."""
    for forward, to_input in zip(conv_forward.samples(), conv_input.samples(), strict=True):
        x, w = (a.astype(np.float64) for a in forward.args)
        g = to_input.args[0].astype(np.float64)
        attrs = forward.attrs
        expected = np.vdot(g, conv_forward.reference(x, w, **attrs))
        through_x = np.vdot(conv_input.reference(g, w, **attrs, size=x.shape[2:]), x)
        through_w = np.vdot(conv_weight.reference(g, x, **attrs, window=w.shape[2:]), w)
        np.testing.assert_allclose([through_x, through_w], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("op", "sample"), cases())
def test_gradients_are_the_derivatives(op: Op, sample: Any) -> None:
    """The ops are linear in each operand, so a directional derivative is exact at any step."""
    if not np.issubdtype(sample.args[0].dtype, np.floating):
        return
    random = np.random.default_rng(3)
    arrays = [a.astype(np.float64) for a in sample.args]
    node = op(*(leaf(a) for a in arrays), **sample.attrs)
    g = random.normal(size=node.shape)
    for position, rule in enumerate(op.gradient):  # type: ignore[arg-type]
        assert not isinstance(rule, NoGradient)
        direction = random.normal(size=arrays[position].shape)
        moved = [direction if i == position else a for i, a in enumerate(arrays)]
        expected = np.vdot(g, op.reference(*moved, **sample.attrs))
        found = evaluate(rule(leaf(g), node))
        assert found.shape == arrays[position].shape
        np.testing.assert_allclose(np.vdot(found, direction), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("op", CONVOLUTIONS, ids=repr)
def test_gradients_of_convolutions_are_convolutions(op: Op) -> None:
    sample = next(iter(op.samples()))
    node = op(*(leaf(a) for a in sample.args), **sample.attrs)
    g = leaf(np.ones(node.shape, np.float32))
    names = {rule(g, node).op.name for rule in op.gradient}  # type: ignore[operator]
    assert names == {o.name for o in CONVOLUTIONS} - {op.name}


def errors() -> list[Any]:
    return [
        pytest.param(op, error, id=f"{op.name}-{index}")
        for op in ALL_FOUR
        for index, error in enumerate(op.errors())
    ]


@pytest.mark.parametrize(("op", "error"), errors())
def test_refusals(op: Op, error: Any) -> None:
    inputs = [leaf(a) for a in error.args]
    with pytest.raises(error.error) as caught:
        op(*inputs, **error.attrs)
    assert error.text in str(caught.value)
    assert str(caught.value).startswith(f"{op.name}: ")


def test_costs_count_multiplications_and_additions_and_bytes() -> None:
    a, b = leaf(np.ones((2, 3, 4), np.float32)), leaf(np.ones((2, 4, 5), np.float32))
    node = matmul(a, b)
    assert matmul.cost([a.type, b.type], node.type, {}) == (2 * 2 * 3 * 5 * 4, 4 * (24 + 40 + 30))
    x, w = np.ones((2, 4, 5, 5), np.float32), np.ones((6, 2, 3, 3), np.float32)
    attrs = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 2}
    y = conv_forward(leaf(x), leaf(w), **attrs)
    flops = 2 * (2 * 6 * 5 * 5) * (2 * 3 * 3)
    into_x = conv_input(y, leaf(w), **attrs, size=(5, 5))
    into_w = conv_weight(y, leaf(x), **attrs, window=(3, 3))
    for result in (y, into_x, into_w):
        kinds = [i.type for i in result.inputs]
        assert result.op.cost(kinds, result.type, result.attrs).flops == flops


def test_the_records_are_registered_for_the_contraction_generator() -> None:
    for op in ALL_FOUR:
        assert OPS[op.name] is op
        assert op.lower.kind == op.name  # type: ignore[union-attr]
        assert op.traits == {"contraction"}
