"""Functions with rules of their own in forward mode and under vmap, and without."""

import numpy as np
import pytest

import treadle
from treadle.autograd import Function
from treadle.autograd.function import once_differentiable
from treadle.func import grad, hessian, jvp, vmap


class Power(Function):
    """With ``setup_context``; saves an argument and the result."""

    @staticmethod
    def forward(x, n):
        return x**n

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.n = inputs
        ctx.save_for_backward(x, output)

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return g * ctx.n * y / x, None


def cube(x):
    return Power.apply(x, 3).sum()


X = treadle.tensor([1.0, 2.0, 3.0], dtype=treadle.float64)


def test_setup_context():
    x = X.clone().requires_grad_()
    cube(x).backward()
    assert x.grad.tolist() == [3.0, 12.0, 27.0]


def test_rules_follow_from_backward():
    assert jvp(cube, (X,), (X,))[1].item() == 108.0
    np.testing.assert_allclose(hessian(cube)(X).numpy(), np.diag(6 * X.numpy()))
    rows = treadle.stack([X, X + 1])
    expected = 3 * rows**2
    np.testing.assert_allclose(vmap(grad(cube))(rows).numpy(), expected.numpy())
    np.testing.assert_allclose(grad(lambda x: vmap(cube)(x).sum())(rows).numpy(), expected.numpy())
    twice = grad(lambda x: vmap(vmap(cube))(x).sum())
    np.testing.assert_allclose(twice(rows).numpy(), expected.numpy())
    np.testing.assert_allclose(vmap(hessian(cube))(rows)[1].numpy(), np.diag(6 * (X + 1).numpy()))


def test_saved_tensors_of_an_unbatched_argument():
    class Scaled(Function):
        @staticmethod
        def forward(ctx, x, w):
            ctx.save_for_backward(x, w)
            return x * w

        @staticmethod
        def backward(ctx, g):
            x, w = ctx.saved_tensors
            return g * w, (g * x).sum(0) if x.ndim > w.ndim else g * x

    rows, w = treadle.stack([X, X + 1]), X * 2
    found = grad(lambda w: vmap(Scaled.apply, (0, None))(rows, w).sum())(w)
    np.testing.assert_allclose(found.numpy(), rows.sum(0).numpy())


def test_own_forward_mode():
    calls = []

    class Sine(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            ctx.save_for_forward(x.cos())
            return x.sin(), 3

        @staticmethod
        def backward(ctx, g, _):
            return g * ctx.saved_tensors[0].cos()

        @staticmethod
        def jvp(ctx, t):
            calls.append(t.shape)
            return t * ctx.saved_tensors[0], None

    _, along = jvp(lambda x: Sine.apply(x)[0], (X,), (X,))
    np.testing.assert_allclose(along.numpy(), (X * X.cos()).numpy())
    assert calls == [(3,)]

    class Short(Sine):
        @staticmethod
        def jvp(ctx, t):
            return t

    with pytest.raises(RuntimeError, match=r"Short\.jvp: returned 1 tangents for 2 outputs"):
        jvp(lambda x: Short.apply(x)[0], (X,), (X,))


def test_own_batching():
    seen = []

    class Square(Function):
        @staticmethod
        def forward(ctx, x, n):
            ctx.save_for_backward(x)
            return x * x * n

        @staticmethod
        def backward(ctx, g):
            return 2 * g * ctx.saved_tensors[0], None

        @staticmethod
        def vmap(info, in_dims, x, n):
            seen.append((info.batch_size, in_dims, tuple(x.shape), n))
            return Square.apply(x, n).t(), 1

    rows = treadle.stack([X, X + 1]).requires_grad_()
    out = vmap(lambda x: Square.apply(x, 1), 1, 1)(rows.t())
    assert (out.t() == rows**2).all()
    assert seen == [(2, (0, None), (2, 3), 1)]
    out.sum().backward()
    assert (rows.grad == 2 * rows).all()


def test_once_differentiable():
    class Once(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        @once_differentiable
        def backward(ctx, g):
            return g * 2 * ctx.saved_tensors[0]

    x = X.clone().requires_grad_()
    (g,) = treadle.autograd.grad(Once.apply(x).sum(), x, create_graph=True)
    assert g.tolist() == [2.0, 4.0, 6.0]
    with pytest.raises(RuntimeError, match="Once: a gradient marked with @once_differentiable"):
        treadle.autograd.grad(g.sum(), x)
