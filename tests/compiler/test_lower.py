"""One kernel for many kinds of operands."""

import numpy as np
import pytest

import treadle
from treadle.base import dtypes
from treadle.compiler import lower
from treadle.ir.launch import In, Layout, contiguous
from treadle.ops import registry

F32 = dtypes.float32
FULL = contiguous(F32, (64, 20, 144))


def launch_of(name, *operands):
    op = registry.get(name)
    shape = operands[0].shape
    dtype = dtypes.bool_ if name in ("eq", "ne", "lt") else F32
    (launch,) = lower.plan(op, {}, operands, [contiguous(dtype, shape)], 2, 256).launches
    return launch


@pytest.mark.parametrize("strides", [(0, 0, 0), (0, 1, 0), (0, 0, 1), (20, 1, 0)], ids=str)
@pytest.mark.parametrize("name", ["add", "mul", "eq", "ne", "maximum", "minimum"])
def test_operands_that_may_change_places_share_a_kernel(name, strides):
    repeated = Layout(F32, FULL.shape, strides)
    first, second = launch_of(name, FULL, repeated), launch_of(name, repeated, FULL)
    assert first.kernel == second.kernel
    assert first.args[1:3] == (In(0), In(1))
    assert second.args[1:3] == (In(1), In(0))
    assert first.args[3:] == second.args[3:]


@pytest.mark.parametrize("name", ["sub", "div", "lt"])
def test_operands_that_may_not_keep_theirs(name):
    launch = launch_of(name, Layout(F32, FULL.shape, (0, 0, 0)), FULL)
    assert launch.args[1:3] == (In(0), In(1))


def test_exchanged_operands_give_the_same_bits():
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=s).astype(np.float32) for s in ((30, 17, 5), (17, 1)))
    a, b = treadle.from_numpy(x), treadle.from_numpy(y)
    for op in (np.add, np.multiply, np.maximum, np.minimum):
        for u, v, expected in ((a, b, op(x, y)), (b, a, op(y, x)), (a, a.flip(0), op(x, x[::-1]))):
            np.testing.assert_array_equal(getattr(treadle, op.__name__)(u, v).numpy(), expected)


def test_two_axes_and_three_share_a_kernel():
    two = Layout(F32, (64, 10), (10, 1)), Layout(F32, (64, 10), (1, 0))
    three = FULL, Layout(F32, FULL.shape, (0, 1, 0))
    assert launch_of("sub", *two).kernel == launch_of("sub", *three).kernel


@pytest.mark.parametrize("batch", [(), (3,)], ids=["matrix", "batch"])
@pytest.mark.parametrize("dtype", [treadle.float32, treadle.float64, treadle.bfloat16])
def test_the_gradient_of_a_transposed_operand_lies_as_the_operand(batch, dtype):
    """And its bits are those of the plain product."""
    rng = np.random.default_rng(1)

    def tensor(*shape):
        return treadle.from_numpy(rng.normal(size=(*batch, *shape))).to(dtype)

    x, w, g = tensor(6, 700), tensor(5, 700), tensor(6, 5)
    x, w = (t.detach().requires_grad_() for t in (x, w))
    ((x @ w.mT) * g).sum().backward()
    xt, wt = (t.detach().mT.contiguous().requires_grad_() for t in (x, w))
    ((xt.mT @ wt) * g).sum().backward()
    for found, expected in ((w.grad, wt.grad.mT), (x.grad, xt.grad.mT)):
        np.testing.assert_array_equal(
            found.to(treadle.float64).numpy(), expected.to(treadle.float64).numpy()
        )
    for leaf in (w, xt):
        _, layout, _ = leaf.grad.node.value
        assert layout.is_contiguous
