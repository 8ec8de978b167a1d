"""What a function with a gradient of its own can do wrong, and what is told then."""

import pytest

import treadle
from treadle.autograd import Function


def leaf(data):
    return treadle.tensor(data, dtype=treadle.float32, requires_grad=True)


class Square(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 2 * x


def broken(returns):
    class Broken(Function):
        @staticmethod
        def forward(ctx, x, y):
            return x * y

        @staticmethod
        def backward(ctx, g):
            return returns(g)

    return Broken


def test_a_wrong_number_of_gradients():
    x, y = leaf([1.0]), leaf([1.0])
    with pytest.raises(RuntimeError, match=r"Broken.backward: returned 1 gradients for 2 arg"):
        broken(lambda g: g).apply(x, y).sum().backward()
    with pytest.raises(RuntimeError, match=r"returned 3 gradients .* None where there is none"):
        broken(lambda g: (g, g, g)).apply(x, y).sum().backward()


def test_a_gradient_of_a_wrong_shape():
    x, y = leaf([1.0, 2.0]), leaf([1.0, 2.0])
    with pytest.raises(ValueError, match=r"gradient of shape \(\) for argument 1 of shape \(2,\)"):
        broken(lambda g: (g, g.sum())).apply(x, y).sum().backward()


def test_a_gradient_that_is_no_tensor():
    x, y = leaf([1.0]), leaf([1.0])
    with pytest.raises(TypeError, match=r"Broken.backward: returned a float .* for argument 0"):
        broken(lambda g: (1.0, g)).apply(x, y).sum().backward()


def test_a_forward_that_returns_no_tensor():
    class Listing(Function):
        @staticmethod
        def forward(ctx, x):
            return [x * 2]

    with pytest.raises(TypeError, match=r"Listing.forward: returned a list; return a tensor or"):
        Listing.apply(leaf([1.0]))


def test_a_gradient_of_another_dtype_is_converted():
    x, y = leaf([2.0]), leaf([3.0])
    broken(lambda g: (g.double() * 5, None)).apply(x, y).sum().backward()
    assert x.grad.dtype is treadle.float32
    assert x.grad.tolist() == [5.0]


def test_an_exception_in_backward_leaves_everything_usable():
    def fail(g):
        raise KeyError("mine")

    x, y = leaf([2.0]), leaf([3.0])
    before = x * 2
    loss = broken(fail).apply(x, y).sum()
    with pytest.raises(KeyError, match="mine"):
        loss.backward()
    assert treadle.is_grad_enabled()
    assert x.grad is None
    with pytest.raises(KeyError):  # and the graph is still there
        loss.backward()
    before.sum().backward()
    assert x.grad.tolist() == [2.0]


def test_an_exception_in_forward_leaves_everything_usable():
    class Failing(Function):
        @staticmethod
        def forward(ctx, x):
            raise KeyError("mine")

    x = leaf([2.0])
    with pytest.raises(KeyError, match="mine"):
        Failing.apply(x)
    assert treadle.is_grad_enabled()
    (x * 2).sum().backward()
    assert x.grad.tolist() == [2.0]


def test_a_function_without_backward():
    class Forward(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

    x = leaf([2.0])
    y = Forward.apply(x)
    assert y.tolist() == [4.0]
    with pytest.raises(NotImplementedError, match=r"must define backward\(\) to be differentiated"):
        y.sum().backward()


def test_a_released_function_is_refused():
    x = leaf([2.0])
    y = Square.apply(x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="released by an earlier backward"):
        y.backward()


def test_lines_of_errors_in_backward_are_the_functions_own():
    def bad(g):
        return g, g @ treadle.ones(7)

    x, y = leaf([1.0, 2.0]), leaf([1.0, 2.0])
    line = bad.__code__.co_firstlineno + 1
    with pytest.raises(ValueError, match=rf"matmul: .*\[test_function_mistakes.py:{line}\]"):
        broken(bad).apply(x, y).sum().backward()
