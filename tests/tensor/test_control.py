"""Control flow in the graph against the same written as Python loops and choices."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
from treadle.autograd import gradcheck, gradgradcheck
from treadle.base.errors import EvaluationError, ShapeError
from treadle.base.flags import flags


@pytest.fixture
def weights():
    rng = np.random.default_rng(0)
    shapes = (3, 3), (3,), (6, 3)
    return [treadle.tensor(rng.normal(size=s), requires_grad=True) for s in shapes]


def recurrent(w, h, xs, reverse=False):
    def step(c, x):
        c = treadle.tanh(c @ w + x)
        return c, c * 2

    return treadle.scan(step, h, xs, reverse=reverse)


def unrolled(w, h, xs, reverse=False):
    ys = []
    for x in reversed(xs) if reverse else xs:
        h = treadle.tanh(h @ w + x)
        ys.append(h * 2)
    return h, treadle.stack(ys[::-1] if reverse else ys)


@pytest.mark.parametrize("programs", ["off", "beside", "wait"])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_has_the_bits_of_the_loop_and_its_gradient(weights, reverse, programs):
    with flags.context(programs=programs):
        for _ in range(4):
            found = recurrent(*weights, reverse)
            expected = unrolled(*weights, reverse)
            for x, y in zip(found, expected, strict=True):
                assert x.numpy(force=True).tobytes() == y.numpy(force=True).tobytes()
            grads = [
                treadle.autograd.grad(c.sum() + (ys**2).sum(), weights)
                for c, ys in (found, expected)
            ]
            for x, y in zip(*grads, strict=True):
                np.testing.assert_allclose(x.numpy(), y.numpy(), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_of_scan_to_second_order(weights, reverse):
    assert gradcheck(lambda *a: recurrent(*a, reverse), weights)
    assert gradgradcheck(lambda *a: recurrent(*a, reverse), weights)


def test_gradients_through_the_kept_carries_when_only_some_results_are_used(weights):
    assert gradcheck(lambda *a: recurrent(*a)[0], weights)
    assert gradcheck(lambda *a: recurrent(*a)[1], weights)


def test_scan_takes_trees_and_any_dimension():
    def step(carry, x):
        total, last = carry["total"], carry["last"]
        return {"total": total + x[0], "last": x[1]}, (total, [last])

    x, y = treadle.arange(6.0).reshape(2, 3), treadle.arange(6).reshape(2, 3) * 10
    init = {"total": treadle.zeros(2), "last": treadle.zeros(2, dtype=treadle.int64)}
    carry, (totals, [lasts]) = treadle.scan(step, init, (x, y), dim=1)
    assert carry["total"].tolist() == [3.0, 12.0]
    assert carry["last"].tolist() == [20, 50]
    assert totals.tolist() == [[0.0, 0.0], [0.0, 3.0], [1.0, 7.0]]
    assert lasts.tolist() == [[0, 0], [0, 30], [10, 40]]


def test_no_slices_and_one():
    for size, expected in ((0, 1.0), (1, 1.0)):
        carry, ys = treadle.scan(
            lambda c, x: (c + x, c), treadle.tensor(1.0), treadle.zeros(size, requires_grad=True)
        )
        assert carry.item() == expected
        assert ys.tolist() == [1.0] * size
        carry.backward()


def test_carries_that_change_places_and_results_that_are_views():
    def step(carry, x):
        a, b = carry
        return (b, a), (b, x, x.t(), a[::2], x)

    carry = treadle.tensor([1.0, 2.0, 3.0]), treadle.tensor([4.0, 5.0, 6.0])
    xs = treadle.arange(12.0).reshape(3, 2, 2).flip(0)
    (a, b), (ys, same, turned, every, again) = treadle.scan(step, carry, xs)
    assert (a.tolist(), b.tolist()) == ([4.0, 5.0, 6.0], [1.0, 2.0, 3.0])
    assert ys[:, 0].tolist() == [4.0, 1.0, 4.0]
    assert every.tolist() == [[1.0, 3.0], [4.0, 6.0], [1.0, 3.0]]
    assert turned.equal(xs.transpose(1, 2))
    assert same.equal(xs)
    assert again.equal(xs)


def test_loops_in_loops():
    def outer(total, row):
        return treadle.scan(lambda c, x: (c + x * x, c), total, row)

    total, kept = treadle.scan(outer, treadle.tensor(0.0), treadle.arange(12.0).reshape(3, 4))
    squares = np.arange(12.0) ** 2
    assert total.item() == squares.sum()
    assert kept.numpy().ravel().tolist() == (squares.cumsum() - squares).tolist()


def test_what_does_not_depend_on_the_pass_is_computed_once():
    w = treadle.randn(4, 4)
    calls = []

    def step(c, x):
        calls.append(1)
        return c @ (w @ w) + x, None if c is None else c

    treadle.scan(step, treadle.zeros(4), treadle.zeros(5, 4))
    assert len(calls) == 1  # the function is recorded


def test_map_is_the_function_of_every_slice():
    xs, y = treadle.arange(6.0).reshape(3, 2), treadle.tensor([1.0, 10.0])
    assert treadle.map(lambda x, y: (x * y).sum(), xs, y).tolist() == [10.0, 32.0, 54.0]


@pytest.mark.parametrize("start", [0.5, 40.0, 300.0])
def test_a_while_loop_runs_as_often_as_python_would(start):
    n, x = 0, start
    while x < 100:
        n, x = n + 1, x * 3
    found = treadle.while_loop(
        lambda n, x: x < 100,
        lambda n, x: (n + 1, x * 3),
        (treadle.tensor(0), treadle.tensor(start)),
    )
    assert [t.item() for t in found] == [n, x]


def test_gradients_of_a_while_loop(weights):
    w, h, _ = weights

    def loop(w, h):
        n = treadle.tensor(0)
        return treadle.while_loop(
            lambda n, x: n < 4, lambda n, x: (n + 1, treadle.sin(x @ w)), (n, h)
        )[1]

    assert gradcheck(loop, (w, h))
    assert gradgradcheck(loop, (w, h))
    found = treadle.autograd.grad(loop(w, h).sum(), (w, h))
    x = h
    for _ in range(4):
        x = treadle.sin(x @ w)
    for a, b in zip(found, treadle.autograd.grad(x.sum(), (w, h)), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-13)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_choice_computes_one_branch_and_its_gradient(weights, sign):
    w, h, _ = weights
    x = (h.detach().abs() * sign).requires_grad_()

    def choice(x, w):
        return treadle.cond(x.sum() > 0, lambda x: treadle.sin(x @ w), lambda x: x * x, (x,))

    expected = treadle.sin(x @ w) if sign > 0 else x * x
    assert choice(x, w).equal(expected)
    assert gradcheck(choice, (x, w))
    assert gradgradcheck(choice, (x, w))
    assert treadle.cond(sign > 0, lambda: 1, lambda: 2) == (1 if sign > 0 else 2)


def test_the_branch_that_is_not_taken_does_not_fail():
    table = treadle.arange(3.0)
    for index in (1, 7):
        i = treadle.tensor([index])
        found = treadle.cond((i < 3).all(), lambda i: table[i], lambda i: i * 1.0, (i,))
        assert found.tolist() == [float(index)]
        j = treadle.tensor([index])
        found = treadle.cond((j < 3).all(), lambda j=j: table[j], lambda j=j: j * 1.0)
        assert found.tolist() == [float(index)]
    with pytest.raises(IndexError, match="cond: an operation of its body refused a value"):
        treadle.cond(treadle.tensor(True), lambda i: table[i], lambda i: i * 1.0, (i,)).tolist()


def test_batches_have_the_bits_of_their_examples(weights):
    w, _, _ = (x.detach() for x in weights)
    rng = np.random.default_rng(1)
    h, xs = treadle.tensor(rng.normal(size=(4, 3))), treadle.tensor(rng.normal(size=(4, 6, 3)))

    def halved(x):
        n = treadle.tensor(0)
        return treadle.while_loop(
            lambda n, x: x.abs().sum() > 0.5, lambda n, x: (n + 1, x * 0.7), (n, x)
        )

    functions = (
        lambda h, xs: recurrent(w, h, xs),
        lambda h, xs: halved(h),
        lambda h, xs: (treadle.cond(h.sum() > 0, lambda: h * 2, lambda: -h),),
    )
    for function in functions:
        together = treadle.func.vmap(function)(h, xs)
        for k, found in enumerate(together):
            for i in range(4):
                assert found[i].equal(function(h[i], xs[i])[k])


def test_forward_mode_agrees_with_the_jacobian(weights):
    w, h, xs = (x.detach() for x in weights)
    along = treadle.tensor([1.0, -2.0, 0.5], dtype=treadle.float64)
    _, found = treadle.func.jvp(lambda h: recurrent(w, h, xs)[0], (h,), (along,))
    jacobian = treadle.autograd.functional.jacobian(lambda h: recurrent(w, h, xs)[0], h)
    np.testing.assert_allclose(found.numpy(), (jacobian @ along).numpy(), rtol=1e-12)


def test_a_training_with_a_scan_is_that_of_the_loop(weights):
    found = []
    for way in (recurrent, unrolled):
        w, h, xs = (x.detach().clone().requires_grad_() for x in weights)
        optimizer = treadle.optim.SGD([w, h], lr=0.1)
        with flags.context(programs="wait"):
            for _ in range(6):
                loss = way(w, h, xs)[1].square().sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                found.append(loss.item())
    np.testing.assert_allclose(found[:6], found[6:], rtol=1e-10)


def add_one(c, x):
    return c + 1, c


X = treadle.arange(3)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: treadle.scan(lambda c, x: (c, c.item()), X[0], X), EvaluationError,
         r"scan: got a call for the value of a tensor .* traced once .*\[test_control.py:\d+\]"),
        (lambda: treadle.scan(lambda c, x: (c + 0.5, c), X[0], X), ShapeError,
         r"scan: got \(f32\[\]\) from combine_fn for the carry \(i64\[\]\); it must keep"),
        (lambda: treadle.scan(lambda c, x: (c + treadle.rand(()), c), X[0] * 1.0, X), RuntimeError,
         r"scan: a random operation is called .*; draw before, and hand the numbers in \[test_"),
        (lambda: treadle.scan(lambda c, x: c, X[0], X), TypeError,
         r"scan: got a Tensor from combine_fn; expected \(carry, y\), a tuple of two"),
        (lambda: treadle.scan(add_one, 1.0, X), TypeError,
         r"scan: got a float in init; expected tensors, or tuples, .* treadle.tensor\)"),
        (lambda: treadle.scan(add_one, X[0], ()), TypeError, r"got no tensor in xs"),
        (lambda: treadle.scan(add_one, X[0], X, dim=1), IndexError, r"got dim 1 for xs of shape"),
        (lambda: treadle.scan(add_one, X[0], (X, X[:2])), ShapeError,
         r"scan: got xs of sizes \[3, 2\] along dimension 0; expected equal ones"),
        (lambda: treadle.while_loop(lambda c: c > 0, lambda c: (c, c), (X[0],)), ShapeError,
         r"while_loop: got \(i64\[\], i64\[\]\) from body_fn for the carry \(i64\[\]\)"),
        (lambda: treadle.while_loop(lambda: True, lambda: (), ()), TypeError, r"got no tensor in"),
        (lambda: treadle.while_loop(lambda c: X > 0, lambda c: c, (X[0],)), TypeError,
         r"while_loop: got shape \(3,\) for cond_fn; expected a tensor of one element"),
        (lambda: treadle.cond(X > 0, lambda: X, lambda: X), TypeError,
         r"cond: got shape \(3,\) for pred; expected a tensor of one element"),
        (lambda: treadle.cond(X[0] > 0, lambda: X, lambda: X[0]), ShapeError,
         r"cond: got \(i64\[3\]\) from true_fn and \(i64\[\]\) from false_fn; both must return"),
    ],
)  # fmt: skip
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_a_tensor_from_outside_is_not_written_by_what_is_made_inside():
    outside = treadle.zeros(())

    def step(c, x):
        outside.add_(x)
        return c, c

    with pytest.raises(
        RuntimeError, match=r"scan: got an in-place operation .* of shape \(\) that"
    ):
        treadle.scan(step, X[0], X)
    assert outside.item() == 0.0
