"""What a review of the core found: each was wrong once. Expected values are PyTorch's or exact."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import treadle
from treadle.compiler.tier0 import forget_plans

# --- numbers --------------------------------------------------------------------------------------


def test_float64_data_is_not_rounded_to_float32_first():
    assert treadle.tensor([0.1, 1e300], dtype=treadle.float64).tolist() == [0.1, 1e300]
    assert treadle.tensor(0.1, dtype=treadle.float64).item() == 0.1
    assert treadle.tensor([0.1]).dtype is treadle.float32


def test_integer_division_that_truncates_is_exact():
    x = treadle.tensor([16777217, -7, 7, -(2**62)])
    y = treadle.tensor([1, 2, -2, 3])
    quotient = treadle.div(x, y, rounding_mode="trunc")
    assert quotient.tolist() == [16777217, -3, -3, -(2**62 // 3)]
    with pytest.raises(ZeroDivisionError, match=r"div: got an integer division by zero.*review"):
        treadle.div(x, 0, rounding_mode="trunc")


def test_a_truncated_quotient_of_narrow_floats_is_rounded_once():
    x = treadle.tensor([8.0], dtype=treadle.float16)
    y = treadle.tensor([-1.6], dtype=treadle.float16)  # -1.599609375: the quotient is -5.0012
    z = treadle.tensor([7.996], dtype=treadle.float16)  # 7.99609375 / 1.599609375 = 4.9988
    assert treadle.div(x, y, rounding_mode="trunc").item() == -5.0
    assert treadle.div(z, y, rounding_mode="trunc").item() == -4.0


@pytest.mark.parametrize(
    ("base", "exponent", "dtype", "expected"),
    [
        ([1, 2, 3], 2.0, "float32", [1.0, 4.0, 9.0]),
        ([1, 2, 3], 2, "int64", [1, 4, 9]),
        ([True, False], 2, "int64", [1, 0]),
    ],
)
def test_the_square_has_the_dtype_of_any_power(base, exponent, dtype, expected):
    y = treadle.tensor(base) ** exponent
    assert (y.dtype.name, y.tolist()) == (dtype, expected)


@pytest.mark.parametrize("dtype", [treadle.float16, treadle.bfloat16])
@pytest.mark.parametrize("name", ["log2", "log10", "rsqrt"])
def test_composed_functions_round_16_bit_floats_once(name, dtype):
    x = treadle.tensor(np.linspace(0.3, 900, 5000)).to(dtype)
    wide = getattr(treadle, name)(x.float())
    assert getattr(treadle, name)(x).tolist() == wide.to(dtype).tolist()


def test_norms_and_deviations_of_float16_do_not_overflow():
    half = treadle.float16
    assert treadle.tensor([300.0, 400.0], dtype=half).norm().item() == 500.0
    assert treadle.tensor([400.0, -400.0], dtype=half).std().item() == 565.5
    both = treadle.std_mean(treadle.tensor([400.0, -400.0], dtype=half))
    assert [x.item() for x in both] == [565.5, 0.0]


@pytest.mark.parametrize(
    "function",
    [lambda x: x.norm(), lambda x: x.norm(3), lambda x: x.std(), lambda x: treadle.std_mean(x)[0]],
)
def test_the_gradient_of_a_root_at_zero_is_zero(function):
    x = treadle.zeros(3, requires_grad=True)
    y = function(x)
    assert y.item() == 0.0
    y.backward()
    assert x.grad.tolist() == [0.0, 0.0, 0.0]


def test_the_variance_of_float64_does_not_cancel():
    values = np.array([1e8, 1e8 + 1, 1e8 + 2])
    x = treadle.tensor(values)
    assert x.var().item() == 1.0
    assert x.reshape(1, 3).var(1, keepdim=True).tolist() == [[1.0]]
    x = treadle.tensor([1.0, 2.0, 4.0], dtype=treadle.float64, requires_grad=True)
    x.var(unbiased=False).backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 / 3 * (np.array([1, 2, 4]) - 7 / 3))


def test_sums_have_the_dtype_that_was_asked_for():
    assert treadle.tensor([1.5, 2.5]).sum(dtype=treadle.int32).dtype is treadle.int32
    assert treadle.tensor([2, 3]).prod(dtype=treadle.int8).dtype is treadle.int8


def test_numpy_numbers_as_operands_and_dimensions():
    x = treadle.tensor([1, 2])
    assert (x * np.array(0.5)).tolist() == [0.5, 1.0]
    assert (treadle.tensor([True]) & np.True_).dtype is treadle.bool
    values, where = treadle.tensor([[1.0, 2.0], [3.0, 0.0]]).max(np.int64(0))
    assert (values.tolist(), where.tolist()) == ([3.0, 2.0], [1, 0])


# --- aliasing and gradients -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["floor", "ceil", "trunc", "round"])
def test_rounding_integers_gives_another_tensor(name):
    x = treadle.tensor([1, 2])
    y = getattr(x, name)()
    y += 1
    assert x.tolist() == [1, 2]


def test_a_detached_tensor_has_a_history_of_its_own():
    w = treadle.ones(3, requires_grad=True)
    x = treadle.ones(3)
    y = x.detach()
    y += w * 3
    assert (y.requires_grad, x.requires_grad) == (True, False)
    assert x.tolist() == [4.0, 4.0, 4.0]
    y.sum().backward()
    assert w.grad.tolist() == [3.0, 3.0, 3.0]


def test_views_of_a_detached_tensor_belong_to_its_history():
    w = treadle.ones(3, requires_grad=True)
    h = w * 2
    d = h.detach()
    d[:2] += w[:2] * 5
    assert h.tolist() == [7.0, 7.0, 2.0]
    d.sum().backward()
    assert w.grad.tolist() == [5.0, 5.0, 0.0]
    w.grad = None
    h.sum().backward()  # h has got the values and no more
    assert w.grad.tolist() == [2.0, 2.0, 2.0]


def test_a_write_through_a_detached_part_leaves_the_gradient_whole():
    w = treadle.ones(3, requires_grad=True)
    h = w * 2
    h[0].detach().fill_(7.0)
    assert h.tolist() == [7.0, 2.0, 2.0]
    h.sum().backward()
    assert w.grad.tolist() == [2.0, 2.0, 2.0]


def test_a_detached_leaf_keeps_its_own_rules():
    x = treadle.zeros(2)
    d = x.detach().requires_grad_()
    with pytest.raises(RuntimeError, match="a leaf tensor"):
        d += 1
    x += 1
    assert (d.tolist(), d.is_leaf, d.requires_grad) == ([1.0, 1.0], True, True)


def test_detaching_again_and_again_makes_no_long_chain():
    x = treadle.zeros(2)
    y = x
    for _ in range(3000):
        y = y.detach()[:]
    y += 1
    assert x.tolist() == [1.0, 1.0]


def test_a_view_that_is_overwritten_still_requires_a_gradient():
    x = treadle.ones(4, requires_grad=True)
    y = x * 1
    v = y.view(2, 2)
    v.fill_(3.0)
    assert v.requires_grad
    v.sum().backward()
    assert x.grad.tolist() == [0.0] * 4


def test_the_weights_of_backward_are_constants():
    x = treadle.ones(1, requires_grad=True)
    weight = treadle.tensor([2.0], requires_grad=True)
    (x + 0).backward(weight)
    assert not x.grad.requires_grad
    x.grad.zero_()
    (g,) = treadle.autograd.grad(x * x, x, weight, create_graph=True)
    g.backward()
    assert weight.grad.tolist() == [2.0]


def test_retain_grad_does_not_keep_the_graph_alive():
    x = treadle.ones(2, requires_grad=True)
    y = x * 2
    y.retain_grad()
    node = weakref.ref(y.node)
    y.sum().backward()
    assert y.grad.tolist() == [1.0, 1.0]
    del y
    gc.collect()
    assert node() is None


@pytest.mark.parametrize("read_first", [False, True])
def test_a_gradient_beside_a_released_graph_does_not_depend_on_evaluation(read_first):
    w, v = (treadle.ones(3, requires_grad=True) for _ in range(2))
    released = (w * w).sum()
    released.backward()
    total = released + (v * 2).sum()
    if read_first:
        total.item()
    (g,) = treadle.autograd.grad(total, v)
    assert g.tolist() == [2.0, 2.0, 2.0]


# --- threads --------------------------------------------------------------------------------------


def test_a_tape_runs_on_the_threads_that_it_was_made_for(monkeypatch):
    """Its workspaces are sized for them; another thread may have changed the number since."""
    from treadle.compiler.tier0 import evaluator

    engine = evaluator()
    seen = []
    run = type(engine.device).run

    def changed(self, tape, calls, threads, *times):
        seen.append(threads)
        treadle.set_num_threads(threads + 1)
        return run(self, tape, calls, threads, *times)

    before = treadle.get_num_threads()
    monkeypatch.setattr(type(engine.device), "run", changed)
    try:
        x = treadle.ones(100_000).sum()
        assert x.item() == 100_000.0
        assert seen == [before]
    finally:
        monkeypatch.undo()
        treadle.set_num_threads(before)
        forget_plans()
