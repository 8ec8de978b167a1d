"""What is fused with what, and that it gives the same bits."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
from treadle.base.flags import flags
from treadle.compiler import assembly, fuse, tier0
from treadle.nn import functional as F
from treadle.ops.elementwise import add
from treadle.testing.op_table import all_ops, evaluate, sample_dtypes, strided, usual


@pytest.fixture
def groups(monkeypatch):
    """The groups that programs are made of while the test runs: (kind, names of the ops)."""
    found: list[tuple[str, list[str]]] = []
    single: list[str] = []
    make_group, make_entry = assembly.Assembly._group, assembly.Assembly._entry

    def group(self, step):
        entries = [self.trace.entry(v) for v in step.group.entries]
        found.append((step.group.kind, [e.sig.op.name for e in entries]))
        make_group(self, step)

    def entry(self, value):
        single.append(self.trace.entry(value).sig.op.name)
        make_entry(self, value)

    monkeypatch.setattr(assembly.Assembly, "_group", group)
    monkeypatch.setattr(assembly.Assembly, "_entry", entry)
    with flags.context(programs="wait"):
        yield found
    tier0.evaluator().programs.clear()


def kinds(groups):
    return [kind for kind, _ in groups]


def same_bits(step, *arrays):
    """Runs a step op by op, then three times as a program; True where all bits agree."""
    with flags.context(programs="off"):
        expected = step(*map(treadle.tensor, arrays))
    before = tier0.evaluator().programs.replays
    for _ in range(3):
        found = step(*map(treadle.tensor, arrays))
    assert tier0.evaluator().programs.replays > before
    for a, b in zip(expected, found, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert a.tobytes() == b.tobytes()


def floats(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def test_a_chain_is_one_map(groups):
    def step(x, y):
        z = treadle.tanh(x * 2 + y) - treadle.exp(y)
        return (z.numpy(copy=True),)

    same_bits(step, floats(37, 21), floats(37, 21, seed=1))
    assert [(kind, len(ops)) for kind, ops in groups] == [("map", 5)]


def test_views_are_read_through(groups):
    def step(x):
        z = treadle.exp(x.t()) + x.t().flip(0) * 3 - x.t()[:, :1]
        return (z.numpy(copy=True),)

    same_bits(step, floats(19, 33))
    assert kinds(groups) == ["map"]


def test_softmax_is_one_kernel(groups):
    def step(x):
        return (F.softmax(x, -1).numpy(copy=True),)

    same_bits(step, floats(64, 1000))
    assert kinds(groups) == ["rows"]


@pytest.mark.parametrize("shape", [(64, 100), (9, 5000), (3, 4, 50, 7)], ids=str)
def test_layer_norm_and_its_gradient(groups, shape):
    def step(x, w, b):
        for t in (x, w, b):
            t.requires_grad_()
        y = F.layer_norm(x, x.shape[1:], w, b)
        (y * y).sum().backward()
        return [t.numpy(force=True).copy() for t in (y, x.grad, w.grad, b.grad)]

    same_bits(step, floats(*shape), floats(*shape[1:], seed=1), floats(*shape[1:], seed=2))
    assert "rows" in kinds(groups)


def test_batch_norm_and_its_gradient(groups):
    def step(x, w, b):
        for t in (x, w, b):
            t.requires_grad_()
        y = F.batch_norm(x, None, None, w, b, training=True)
        treadle.tanh(y).sum().backward()
        return [t.numpy(force=True).copy() for t in (y, x.grad, w.grad, b.grad)]

    same_bits(step, floats(8, 12, 30, 30), floats(12, seed=1), floats(12, seed=2))
    assert "rows" in kinds(groups)


def test_cross_entropy_and_its_gradient(groups):
    labels = np.arange(50) % 11

    def step(x):
        x.requires_grad_()
        loss = F.cross_entropy(x, treadle.tensor(labels))
        loss.backward()
        return loss.numpy(force=True).copy(), x.grad.numpy(force=True).copy()

    same_bits(step, floats(50, 11))
    assert "rows" in kinds(groups)


def test_a_long_sum_takes_in_what_feeds_it_and_stores_what_others_want(groups):
    def step(x, y):
        d = x - y
        loss = (d * d).sum()
        twice = d * 2
        return loss.numpy(), twice.numpy(copy=True)

    same_bits(step, floats(300, 400), floats(300, 400, seed=1))
    assert "sum" in kinds(groups)


def test_sums_down_the_columns(groups):
    def step(g, x):
        found = (g * x).sum(0), g.sum(0), g.amax(0)
        return [t.numpy(copy=True) for t in found]

    same_bits(step, floats(700, 48), floats(700, 48, seed=1))
    assert ("sum", ["mul", "reduce_sum"]) in groups


def test_a_group_never_waits_for_itself(groups):
    """exp feeds a sorted copy, which no group takes in, and meets its result again."""

    def step(x):
        y = treadle.exp(x)
        z = treadle.cumsum(y, 0) * y + 1
        return (z.numpy(copy=True),)

    same_bits(step, floats(40, 30))


def test_groups_that_wait_for_one_another_are_taken_apart(groups, monkeypatch):
    """The second group's input lies before it, in a group that grew past it and waits for it."""
    monkeypatch.setattr(fuse, "_MOST_STEPS", 3)

    def step(x, z):
        y = treadle.exp(x)
        y.numpy()
        total = y.sum(1, keepdim=True)
        part = y / total
        wide = z.to(treadle.float32)
        return (treadle.stack([wide * part, wide / total]).numpy(copy=True),)

    same_bits(step, floats(33, 5), floats(33, 5, seed=1).astype("float64"))
    assert groups


def test_sixteen_bits_are_rounded_at_every_node(groups):
    def step(x):
        h = x.to(treadle.bfloat16)
        z = F.gelu(h * 3 + 1) * h
        return (z.to(treadle.float32).numpy(copy=True),)

    same_bits(step, floats(100, 100))
    assert kinds(groups) == ["map"]


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_threads(groups, threads):
    def step(x, w):
        x.requires_grad_()
        y = F.layer_norm(x, x.shape[1:], w)
        loss = F.log_softmax(y, -1).square().mean()
        loss.backward()
        return loss.numpy(force=True).copy(), x.grad.numpy(force=True).copy()

    before = treadle.get_num_threads()
    try:
        treadle.set_num_threads(1)
        with flags.context(programs="off"):
            arrays = floats(500, 130), floats(130, seed=1)
            expected = step(*map(treadle.tensor, arrays))
        treadle.set_num_threads(threads)
        for _ in range(3):
            found = step(*map(treadle.tensor, arrays))
    finally:
        treadle.set_num_threads(before)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(expected, found, strict=True))


_FUSABLE = [op for op in all_ops() if op.traits & {"elementwise", "reduction"}]


@pytest.mark.parametrize("op", _FUSABLE, ids=lambda op: op.name)
def test_every_op_among_neighbours(groups, op):
    """The op's first sample, strided, with its result used twice."""
    sample = next(s for s in op.samples() if s.args and all(a.size > 1 for a in s.args))
    arrays = usual(op, sample)
    if not sample_dtypes(op, sample):
        pytest.skip("takes no sample as it is")

    def run():
        node = op(*map(strided, arrays), **sample.attrs)
        if isinstance(node.type, tuple) or not node.dtype.is_floating_point:
            return evaluate(node)
        twice = add(node, node)
        return [*evaluate(twice), *evaluate(node)]

    with flags.context(programs="off"):
        expected = run()
    for _ in range(3):
        found = run()
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.tobytes() == b.tobytes() or np.isnan(a.astype("float64")).any()


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16", "int32"])
@pytest.mark.parametrize("shape", [(5, 7, 9), (64, 1100, 40), (1, 600, 130), (130, 33, 1)], ids=str)
def test_a_layer_is_one_kernel(groups, shape, dtype):
    m, k, n = shape
    kind = getattr(treadle, dtype)

    def step(x, w, b):
        y = x.to(kind) @ w.to(kind).t() + b.to(kind)
        z = treadle.where(y > 0, y, y * 2) - y
        return y.numpy(copy=True), z.numpy(copy=True)

    same_bits(step, 4 * floats(m, k), 4 * floats(n, k, seed=1), 4 * floats(n, seed=2))
    assert [kind for kind, ops in groups if "matmul" in ops] == ["epilogue"]


def test_what_rides_on_a_batch_of_products_of_views(groups):
    def step(x, w, r):
        y = treadle.bmm(x[1:], w[:2].transpose(1, 2)).reshape(8, 6, 5)
        return ((y * r[:8]).tanh() - r[8:, :, :1]).numpy(copy=True), y.sum().numpy()

    same_bits(step, floats(3, 24, 7), floats(3, 10, 7, seed=1)[:, ::2].copy(), floats(16, 6, 5))
    assert "epilogue" in kinds(groups)


def test_what_rides_on_a_pointwise_convolution(groups):
    def step(x, w, b, r):
        y = F.conv2d(x, w, b)
        return F.relu(y + r).numpy(copy=True), (y * 2).numpy(copy=True)

    shapes = (2, 5, 6, 7), (4, 5, 1, 1), (4,), (2, 4, 6, 7)
    same_bits(step, *(floats(*s, seed=j) for j, s in enumerate(shapes)))
    assert [kind for kind, ops in groups if "conv_forward" in ops] == ["epilogue"]


@pytest.mark.parametrize("attributes", [{"padding": 1}, {"padding": 1, "stride": 2}])
@pytest.mark.parametrize("groups_of", [1, 6])
def test_what_rides_on_a_convolution(groups, attributes, groups_of):
    def step(x, w, scale, shift):
        y = F.conv2d(x, w, groups=groups_of, **attributes)
        return F.relu(y * scale + shift).numpy(copy=True)

    shapes = (2, 6, 12, 14), (6, 6 // groups_of, 3, 3), (6, 1, 1), (6, 1, 1)
    same_bits(step, *(floats(*s, seed=j) for j, s in enumerate(shapes)))
    assert [kind for kind, ops in groups if "conv_forward" in ops] == ["epilogue"]


def test_what_rides_on_a_transposed_convolution(groups):
    def step(x, w, b):
        return F.conv_transpose2d(x, w, b, stride=2, padding=1).tanh().numpy(copy=True)

    same_bits(step, floats(2, 5, 6, 7), floats(5, 4, 4, 4, seed=1), floats(4, seed=2))
    assert [kind for kind, ops in groups if "conv_input" in ops] == ["epilogue"]
