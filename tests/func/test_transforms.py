"""Derivatives of functions: against formulas, one another, and nested."""

import numpy as np
import pytest

import treadle
from treadle import func
from treadle.func import grad, grad_and_value, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

X = treadle.tensor([0.5, -1.0, 2.0], dtype=treadle.float64)
V = treadle.tensor([1.0, 2.0, -0.5], dtype=treadle.float64)


def near(a, b):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), 1e-10, 1e-10)


def cubic(x):
    return (x**3).sum() + x.prod()


def gradient(x):
    a, b, c = x.tolist()
    return [3 * a * a + b * c, 3 * b * b + a * c, 3 * c * c + a * b]


def second(x):
    a, b, c = x.tolist()
    return [[6 * a, c, b], [c, 6 * b, a], [b, a, 6 * c]]


def test_gradient_and_value():
    near(grad(cubic)(X), gradient(X))
    grads, value = grad_and_value(cubic)(X)
    near(grads, gradient(X))
    near(value, cubic(X))
    grads, aux = grad(lambda x: (cubic(x), {"twice": x * 2}), has_aux=True)(X)
    near(aux["twice"], X * 2)
    grads, (value, aux) = grad_and_value(lambda x: (cubic(x), "text"), has_aux=True)(X)
    assert aux == "text"


def test_arguments_are_trees():
    def f(scale, tree, power=1):
        return (scale * tree["a"] ** power).sum() + (tree["b"][0] * 2).sum()

    tree = {"a": X, "b": (V,)}
    by_scale, by_tree = grad(f, (0, 1))(treadle.tensor(2.0).double(), tree, power=2)
    near(by_scale, (X**2).sum())
    near(by_tree["a"], 4 * X)
    near(by_tree["b"][0], [2.0] * 3)
    near(grad(f, -1)(1.0, tree)["a"], [1.0] * 3)


def test_every_way_to_the_second_derivative():
    expected = second(X)
    for outer in (jacfwd, jacrev):
        for inner in (jacfwd, jacrev, grad):
            near(outer(inner(cubic))(X), expected)
    near(hessian(cubic)(X), expected)
    near(vmap(lambda v: jvp(grad(cubic), (X,), (v,))[1])(treadle.eye(3).double()), expected)
    near(jacrev(grad(cubic), chunk_size=2)(X), expected)


def test_third_derivative():
    for chain in ((grad, grad, grad), (jacfwd, jacrev, grad)):
        f = chain[2](lambda x: x**4 if x.ndim == 0 else (x**4).sum())
        near(chain[0](chain[1](f))(treadle.tensor(2.0).double()), 48.0)


def test_products():
    matrix = treadle.tensor(np.arange(6.0).reshape(2, 3))

    def f(x):
        return {"y": matrix @ x.sin(), "z": x.sum()}

    value, pull = vjp(f, X)
    near(value["z"], X.sum())
    one = treadle.ones(2).double()
    (found,) = pull({"y": one, "z": treadle.zeros(()).double()})
    near(found, matrix.sum(0) * X.cos())
    near(pull({"y": one * 0, "z": treadle.ones(()).double()})[0], [1.0] * 3)
    _, along = jvp(f, (X,), (V,))
    near(along["y"], matrix @ (X.cos() * V))
    value, push = linearize(f, X)
    near(push(V)["y"], along["y"])
    near(push(2 * V)["z"], 2 * V.sum())


def test_jacobians_of_trees():
    found = jacrev(lambda x, y: (x * y, y.sum()), (0, 1))(X, V)
    near(found[0][0], np.diag(V.numpy()))
    near(found[0][1], np.diag(X.numpy()))
    near(found[1][0], [0.0] * 3)
    ahead = jacfwd(lambda x, y: (x * y, y.sum()), (0, 1))(X, V)
    for a, b in zip(found[0] + found[1], ahead[0] + ahead[1], strict=True):
        near(a, b)
    jacobian, aux = jacrev(lambda x: (x * 2, x.sum()), has_aux=True)(X)
    near(jacobian, 2 * np.eye(3))
    near(aux, X.sum())


def test_no_perturbation_is_confused():
    # d/dx (x * d/dy (x + y)) = 1, not 2
    x, y = treadle.tensor(1.0), treadle.tensor(1.0)
    inner = lambda x: x * grad(lambda y: x + y)(y)  # noqa: E731
    assert grad(inner)(x).item() == 1.0
    ahead = lambda x: x * jvp(lambda y: x + y, (y,), (treadle.tensor(1.0),))[1]  # noqa: E731
    assert jvp(ahead, (x,), (treadle.tensor(1.0),))[1].item() == 1.0


def test_values_may_be_looked_at():
    def f(x):
        while x.norm() < 10:
            x = x * 2 if x[0] > 0 else x * 3
        return x.sum()

    near(grad(f)(X), [8.0] * 3)
    near(jacfwd(f)(X), [8.0] * 3)
    near(hessian(lambda x: f(x) * x.sum())(X), np.full((3, 3), 16.0))


def test_what_needs_a_gradient_afterwards():
    assert not grad(cubic)(X).requires_grad
    assert not hessian(cubic)(X).requires_grad
    value, pull = vjp(cubic, X)
    assert not value.requires_grad
    assert not pull(treadle.ones(()).double())[0].requires_grad
    x = X.clone().requires_grad_()
    found = grad(cubic)(x)
    assert found.requires_grad
    (outer,) = treadle.autograd.grad(found.sum(), x)
    near(outer, np.sum(second(X), 0))
    scale = treadle.tensor(2.0, dtype=treadle.float64, requires_grad=True)
    out = jvp(lambda x: cubic(x) * scale, (X,), (V,))[1]
    out.backward()
    near(scale.grad, np.dot(gradient(X), V.numpy()))
    with treadle.no_grad():
        assert not grad(cubic)(x).requires_grad
        near(grad(cubic)(x), gradient(X))
    near(grad(lambda x: cubic(x) * 0 + x.detach().sum())(X), [0.0] * 3)

    def without(x):
        with treadle.no_grad():
            shift = x**2
        return (x + shift).sum()

    near(grad(without)(X), [1.0] * 3)
    near(jvp(without, (X,), (V,))[1], V.sum())


def test_graphs_are_let_go():
    x = treadle.tensor(np.ones((1000, 1000), np.float32))
    before = treadle.memory_stats()["allocated.current"]
    for _ in range(3):
        g = grad(lambda x: x.sin().exp().cos().sum())(x)
        g.sum().item()
    del g
    assert treadle.memory_stats()["allocated.current"] - before < 1e6


def test_per_sample_gradients_of_a_network():
    from treadle import nn

    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                        nn.Linear(36, 5))  # fmt: skip
    params = {name: p.detach() for name, p in net.named_parameters()}
    x, y = treadle.randn(6, 1, 8, 8), treadle.randint(0, 5, (6,))

    def loss(params, x, y):
        out = func.functional_call(net, params, (x[None],))
        return nn.functional.cross_entropy(out, y[None])

    found = vmap(grad(loss), (None, 0, 0))(params, x, y)
    for i in range(6):
        net.zero_grad()
        nn.functional.cross_entropy(net(x[i : i + 1]), y[i : i + 1]).backward()
        for name, p in net.named_parameters():
            np.testing.assert_allclose(found[name][i].numpy(), p.grad.numpy(), 1e-4, 1e-6)


def test_a_step_of_maml():
    """The gradient through a gradient step, against finite differences."""

    def inner(w, x):
        return ((w * x).sin() ** 2).sum()

    def outer(w):
        adapted = w - 0.1 * grad(inner)(w, X)
        return inner(adapted, V)

    step = 1e-6
    numeric = [
        (outer(X + step * e) - outer(X - step * e)).item() / (2 * step)
        for e in treadle.eye(3).double()
    ]
    np.testing.assert_allclose(grad(outer)(X).numpy(), numeric, 1e-6)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: grad(lambda x: x)(X), ValueError, r"got shapes \(3,\); reduce it"),
        (lambda: grad(lambda x: 1.0)(X), TypeError, "the function returned a float"),
        (lambda: grad(cubic)(3.0), TypeError, "name the arguments that are tensors by argnums"),
        (lambda: grad(cubic)(treadle.arange(3)), RuntimeError, "convert it with .float"),
        (lambda: grad(cubic, 2)(X), ValueError, "argnums=2 for a call with 1 positional"),
        (lambda: grad(cubic, has_aux=True)(X), TypeError, r"a pair \(output, aux\); got a Tensor"),
        (lambda: jvp(cubic, X, V), TypeError, "give a tuple with one tensor"),
        (lambda: jvp(cubic, (X,), (V, V)), ValueError, "got 2 tangents for 1 tensors"),
        (lambda: jvp(cubic, (X,), (V[:2],)), ValueError, r"f64\[2\] among the tangents for a"),
        (lambda: jvp(lambda x: V, (X,), (V,), strict=True), RuntimeError, "does not depend"),
        (lambda: vjp(cubic, X)[1](V), ValueError, r"f64\[3\] among the cotangents for a tensor"),
        (lambda: jacrev(cubic, chunk_size=0), ValueError, "at least 1"),
    ],
)
def test_refusals(call, error, text):
    with pytest.raises(error, match=text) as caught:
        call()
    assert "test_transforms.py" in str(caught.value)
