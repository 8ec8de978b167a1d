"""PyTorch's autograd.functional, forward_ad and gradcheck."""

import numpy as np
import pytest

import treadle
from treadle.autograd import GradcheckError, forward_ad, functional, gradcheck, gradgradcheck

X = treadle.tensor([0.5, -1.0], dtype=treadle.float64)
Y = treadle.tensor([2.0, 3.0], dtype=treadle.float64)


def near(a, b):
    np.testing.assert_allclose(a.numpy(), np.asarray(b), 1e-10, 1e-10)


def product(x, y):
    return (x * y.exp()).sum()


def test_jacobian():
    for strategy in ("reverse-mode", "forward-mode"):
        by_x, by_y = functional.jacobian(lambda x, y: x * y, (X, Y), strategy=strategy)
        near(by_x, np.diag(Y.numpy()))
        near(by_y, np.diag(X.numpy()))
        first, second = functional.jacobian(lambda x: (x * 2, x.sum()), X, strategy=strategy)
        near(first, 2 * np.eye(2))
        near(second, [1.0, 1.0])
    x = X.clone().requires_grad_()
    assert not functional.jacobian(lambda x: x**2, x).requires_grad
    found = functional.jacobian(lambda x: x**2, x, create_graph=True)
    found.sum().backward()
    near(x.grad, [2.0, 2.0])


def test_hessian_and_its_products():
    e = np.exp(Y.numpy())
    for strategy in ("reverse-mode", "forward-mode"):
        (xx, xy), (yx, yy) = functional.hessian(product, (X, Y), outer_jacobian_strategy=strategy)
        near(xx, np.zeros((2, 2)))
        near(xy, np.diag(e))
        near(yx, np.diag(e))
        near(yy, np.diag(X.numpy() * e))
    ones = (treadle.ones(2).double(), treadle.ones(2).double())
    for function in (functional.hvp, functional.vhp):
        value, (by_x, by_y) = function(product, (X, Y), ones)
        near(value, product(X, Y).item())
        near(by_x, e)
        near(by_y, e + X.numpy() * e)


def test_products_with_the_jacobian():
    value, by_x = functional.vjp(lambda x: x**2, X, Y)
    near(value, X.numpy() ** 2)
    near(by_x, 2 * (X * Y).numpy())
    _, along = functional.jvp(lambda x: (x**2, x.sum()), X, Y)
    near(along[0], 2 * (X * Y).numpy())
    near(along[1], 5.0)
    near(functional.vjp(product, (X, Y))[1][0], Y.exp().numpy())


def test_functional_refusals():
    with pytest.raises(ValueError, match="v=None; that is for outputs of one element"):
        functional.vjp(lambda x: x * 2, X)
    with pytest.raises(RuntimeError, match="output 0 of the function does not depend"):
        functional.jacobian(lambda x: Y * 2, X, strict=True)
    with pytest.raises(ValueError, match="'reverse-mode' or 'forward-mode'"):
        functional.jacobian(lambda x: x, X, strategy="sideways")
    with pytest.raises(ValueError, match=r"one tensor of one element; got shapes \(2,\)"):
        functional.hessian(lambda x: x * 2, X)


def test_dual_tensors():
    weight = treadle.tensor(3.0, dtype=treadle.float64, requires_grad=True)
    with forward_ad.dual_level():
        x = forward_ad.make_dual(X, Y)
        y = (x * weight).sin() * treadle.tensor(2.0)
        _, tangent = forward_ad.unpack_dual(y)
        near(tangent.detach(), 2 * np.cos(3 * X.numpy()) * 3 * Y.numpy())
        tangent.sum().backward()  # reverse over forward
        assert forward_ad.unpack_dual(X * 2).tangent is None
        plain = forward_ad.unpack_dual(x * 2).primal
        assert not plain.requires_grad
        near(plain, 2 * X.numpy())
    expected = np.sum(
        2 * Y.numpy() * (np.cos(3 * X.numpy()) - 3 * X.numpy() * np.sin(3 * X.numpy()))
    )
    near(weight.grad, expected)
    assert forward_ad.unpack_dual(y).tangent is None
    with pytest.raises(RuntimeError, match="use it inside `with dual_level"):
        forward_ad.make_dual(X, Y)
    with forward_ad.dual_level():
        with pytest.raises(ValueError, match="among the tangents"):
            forward_ad.make_dual(X, Y[:1])
        with pytest.raises(RuntimeError, match=r"nests by treadle\.func\.jvp"):
            forward_ad.enter_dual_level()
        with treadle.no_grad(), pytest.raises(RuntimeError, match="under no_grad"):
            forward_ad.make_dual(X, Y)


class Wrong(treadle.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * x


@pytest.mark.parametrize("fast", [False, True])
def test_gradcheck(fast):
    x, y = (t.clone().requires_grad_() for t in (X, Y))

    def good(x, y, scale):
        return x * y.sin() * scale, (x * y).sum()

    assert gradcheck(good, (x, y, 2.0), check_forward_ad=True, fast_mode=fast)
    assert gradcheck(good, (x, Y, 2.0), check_batched_grad=True, check_forward_ad=True,
                     check_batched_forward_grad=True, fast_mode=fast)  # fmt: skip
    assert gradgradcheck(good, (x, y, 2.0), check_fwd_over_rev=True, fast_mode=fast)
    with pytest.raises(GradcheckError, match="output 0 by input 0 in backward mode"):
        gradcheck(Wrong.apply, (x,), fast_mode=fast)
    assert not gradcheck(Wrong.apply, x, raise_exception=False, fast_mode=fast)


def test_gradcheck_refusals():
    with pytest.raises(ValueError, match="no input that requires a gradient"):
        gradcheck(lambda x: x, X)
