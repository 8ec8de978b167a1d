"""Functions with gradients of their own, in both forms. PyTorch 2.13 gives the same numbers."""

import weakref

import numpy as np
import pytest

import treadle
from treadle.autograd import Function, grad
from treadle.testing.gradients import check_grads


def leaf(data, dtype=treadle.float32):
    return treadle.tensor(data, dtype=dtype, requires_grad=True)


class Cube(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 3 * x**2


class Scale(Function):
    """x * factor: an argument that is no tensor."""

    @staticmethod
    def forward(ctx, x, factor, name="plain"):
        ctx.factor = factor
        ctx.name = name
        return x * factor

    @staticmethod
    def backward(ctx, g):
        return g * ctx.factor, None, None


class OldReLU(Function):
    def forward(self, x):
        self.save_for_backward(x)
        return x.clamp(min=0)

    def backward(self, grad_output):
        (x,) = self.saved_tensors
        grad_input = grad_output.clone()
        grad_input[x < 0] = 0
        return grad_input


class SumAndProduct(Function):
    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return x + y, x * y

    @staticmethod
    def backward(ctx, g_sum, g_product):
        x, y = ctx.saved_tensors
        return g_sum + g_product * y, g_sum + g_product * x


# --- the two forms --------------------------------------------------------------------------------


def test_static_form():
    x = leaf([1.0, -2.0])
    y = Cube.apply(x)
    assert y.tolist() == [1.0, -8.0]
    assert y.requires_grad
    assert not y.is_leaf
    y.sum().backward()
    assert x.grad.tolist() == [3.0, 12.0]


def test_instance_form():
    x = leaf([1.0, -2.0, 3.0])
    relu = OldReLU()
    (relu(x) * 2).sum().backward()
    assert x.grad.tolist() == [2.0, 0.0, 2.0]


def test_one_instance_called_twice_keeps_both_calls_apart():
    relu = OldReLU()
    x, y = leaf([1.0, -1.0]), leaf([-1.0, 1.0])
    (relu(x) + relu(y)).sum().backward()
    assert x.grad.tolist() == [1.0, 0.0]
    assert y.grad.tolist() == [0.0, 1.0]


def test_an_instance_carries_its_settings():
    class Power(Function):
        def __init__(self, n):
            self.n = n

        def forward(self, x):
            self.save_for_backward(x)
            return x**self.n

        def backward(self, g):
            (x,) = self.saved_tensors
            return g * self.n * x ** (self.n - 1)

    x = leaf([2.0])
    Power(4)(x).sum().backward()
    assert x.grad.tolist() == [32.0]


def test_functions_applied_to_functions():
    x = leaf([0.5, -0.5])
    (Cube.apply(OldReLU()(Cube.apply(x)))).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [9 * 0.5**8, 0.0])


def test_without_a_gradient_nothing_is_recorded():
    y = Cube.apply(treadle.tensor([2.0]))
    assert not y.requires_grad
    with treadle.no_grad():
        assert not Cube.apply(leaf([2.0])).requires_grad


def test_forward_runs_without_gradients_and_backward_follows_create_graph():
    seen = []

    class Watching(Function):
        @staticmethod
        def forward(ctx, x):
            seen.append(treadle.is_grad_enabled())
            return x * 1

        @staticmethod
        def backward(ctx, g):
            seen.append(treadle.is_grad_enabled())
            return g

    x = leaf([1.0])
    Watching.apply(x).sum().backward()
    Watching.apply(x).sum().backward(create_graph=True)
    assert seen == [False, False, False, True]


# --- arguments and results ------------------------------------------------------------------------


def test_arguments_that_are_no_tensors():
    x = leaf([2.0])
    Scale.apply(x, 5, "named").sum().backward()
    assert x.grad.tolist() == [5.0]


def test_arguments_left_out_may_have_the_gradient_none():
    x = leaf([1.0])
    Scale.apply(x, 3).sum().backward()  # backward returns three, of which two are None
    assert x.grad.tolist() == [3.0]


def test_several_outputs():
    x, y = leaf([2.0]), leaf([5.0])
    total, product = SumAndProduct.apply(x, y)
    (total + 10 * product).sum().backward()
    assert (x.grad.tolist(), y.grad.tolist()) == ([51.0], [21.0])


def test_an_output_nobody_used_has_the_gradient_zero():
    x, y = leaf([2.0]), leaf([5.0])
    _, product = SumAndProduct.apply(x, y)
    product.sum().backward()
    assert (x.grad.tolist(), y.grad.tolist()) == ([5.0], [2.0])


def test_an_output_nobody_used_gives_none_if_asked():
    seen = []

    class Pair(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.set_materialize_grads(False)
            return x * 2, x * 3

        @staticmethod
        def backward(ctx, first, second):
            seen.append((first is None, second is None))
            return second * 3

    x = leaf([1.0])
    Pair.apply(x)[1].sum().backward()
    assert seen == [(True, False)]
    assert x.grad.tolist() == [3.0]


def test_a_list_of_results_stays_what_it_is():
    class Unbind(Function):
        @staticmethod
        def forward(ctx, x):
            return tuple(row * 1 for row in x)

        @staticmethod
        def backward(ctx, *rows):
            return treadle.stack(rows)

    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    a, b = Unbind.apply(x)
    (a * 2 + b).sum().backward()
    assert x.grad.tolist() == [[2.0, 2.0], [1.0, 1.0]]


def test_results_that_are_no_tensors_pass_through():
    class WithCount(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2, x.numel()

        @staticmethod
        def backward(ctx, g, _):
            return g * 2

    x = leaf([1.0, 1.0])
    y, count = WithCount.apply(x)
    assert count == 2
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_none_gradients():
    class First(Function):
        @staticmethod
        def forward(ctx, x, y):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return g, None

    x, y = leaf([1.0]), leaf([1.0])
    First.apply(x, y).sum().backward()
    assert x.grad.tolist() == [1.0]
    assert y.grad is None


def test_needs_input_grad():
    seen = []

    class Product(Function):
        @staticmethod
        def forward(ctx, x, y, n):
            ctx.save_for_backward(x, y)
            return x * y * n

        @staticmethod
        def backward(ctx, g):
            seen.append(ctx.needs_input_grad)
            _, y = ctx.saved_tensors
            return g * y if ctx.needs_input_grad[0] else None, None, None

    x = leaf([2.0])
    Product.apply(x, treadle.tensor([3.0]), 1).sum().backward()
    assert seen == [(True, False, False)]
    assert x.grad.tolist() == [3.0]


def test_gradients_of_arguments_without_one_are_ignored():
    x, y = leaf([2.0]), treadle.tensor([5.0])
    total, _ = SumAndProduct.apply(x, y)
    total.sum().backward()
    assert x.grad.tolist() == [1.0]
    assert y.grad is None


def test_the_same_tensor_twice():
    x = leaf([3.0])
    _, product = SumAndProduct.apply(x, x)
    product.sum().backward()
    assert x.grad.tolist() == [6.0]


def test_non_differentiable_outputs():
    class Split(Function):
        @staticmethod
        def forward(ctx, x):
            positive = x > 0
            rounded = x.round()
            ctx.mark_non_differentiable(positive, rounded)
            return x * 2, positive, rounded

        @staticmethod
        def backward(ctx, g, *rest):
            return g * 2

    x = leaf([1.4, -1.0])
    y, positive, rounded = Split.apply(x)
    assert (y.requires_grad, positive.requires_grad, rounded.requires_grad) == (True, False, False)
    assert positive.tolist() == [True, False]
    assert rounded.tolist() == [1.0, -1.0]
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_integer_outputs_have_no_gradient():
    class Largest(Function):
        @staticmethod
        def forward(ctx, x):
            return x.max(), x.argmax()

        @staticmethod
        def backward(ctx, g, _):
            return g.expand(2)

    x = leaf([1.0, 3.0])
    value, index = Largest.apply(x)
    assert (value.item(), index.item()) == (3.0, 1)
    assert not index.requires_grad
    value.backward()
    assert x.grad.tolist() == [1.0, 1.0]


def test_an_argument_returned_as_it_is():
    class Reverse(Function):
        """The gradient with its sign turned."""

        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, g):
            return -g

    class Same(Reverse):
        @staticmethod
        def forward(ctx, x):
            return x

    for function in (Reverse, Same):
        x = leaf([2.0])
        y = function.apply(x)
        (y * y).sum().backward()
        assert x.grad.tolist() == [-4.0]


def test_saved_results():
    class Exp(Function):
        @staticmethod
        def forward(ctx, x):
            y = x.exp()
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx, g):
            (y,) = ctx.saved_tensors
            return g * y

    x = leaf([1.0])
    Exp.apply(x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [np.e], rtol=1e-6)


def test_saved_none_and_attributes():
    class Odd(Function):
        @staticmethod
        def forward(ctx, x, mask):
            ctx.save_for_backward(x, mask)
            ctx.shape = x.shape
            return x.sum()

        @staticmethod
        def backward(ctx, g):
            _, mask = ctx.saved_tensors
            assert mask is None
            return g * treadle.ones(ctx.shape), None

    x = leaf([1.0, 2.0])
    Odd.apply(x, None).backward()
    assert x.grad.tolist() == [1.0, 1.0]


def test_saved_values_are_those_of_the_moment():
    x = leaf([2.0])
    w = x * 1
    y = Cube.apply(w)
    w.zero_()
    y.sum().backward()
    assert x.grad.tolist() == [12.0]


def test_an_argument_written_in_place():
    class AddOne(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.mark_dirty(x)
            x.add_(1)
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 10

    x = leaf([2.0])
    y = x * 1
    z = AddOne.apply(y)
    assert z is y
    assert z.tolist() == [3.0]
    y.sum().backward()
    assert x.grad.tolist() == [10.0]
    with pytest.raises(RuntimeError, match="an in-place operation on a leaf tensor"):
        AddOne.apply(x)


# --- higher orders --------------------------------------------------------------------------------


def test_double_backward_through_a_function():
    x = leaf([2.0])
    (g,) = grad(Cube.apply(x).sum(), x, create_graph=True)
    (h,) = grad(g.sum(), x, create_graph=True)
    (k,) = grad(h.sum(), x)
    assert (g.tolist(), h.tolist(), k.tolist()) == ([12.0], [12.0], [6.0])


def test_double_backward_through_a_saved_result():
    class Exp(Function):
        @staticmethod
        def forward(ctx, x):
            y = x.exp()
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx, g):
            (y,) = ctx.saved_tensors
            return g * y

    check_grads(Exp.apply, [leaf([0.5, 1.0], treadle.float64)], order=3, rtol=1e-4)


def test_functions_pass_check_grads():
    rng = np.random.default_rng(0)
    x, y = (leaf(rng.normal(size=(3,)) + 3, treadle.float64) for _ in range(2))
    check_grads(lambda x, y: SumAndProduct.apply(Cube.apply(x), y)[1], [x, y], rtol=1e-4)
    check_grads(lambda x, y: OldReLU()(Scale.apply(x, 3)) * y, [x, y], rtol=1e-4)


def test_a_wrong_gradient_fails_check_grads():
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x):
            return x**2

        @staticmethod
        def backward(ctx, g):
            return g

    with pytest.raises(AssertionError, match="the gradient is wrong: finite differences give"):
        check_grads(Wrong.apply, [leaf([3.0], treadle.float64)])


def test_a_backward_that_calls_backward():
    class Inner(Function):
        """x^2 by a gradient computation inside the gradient."""

        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            with treadle.enable_grad():
                y = x.detach().requires_grad_()
                (d,) = grad((y**2).sum(), y)
            return g * d

    x = leaf([3.0])
    (Inner.apply(x) * 2).sum().backward()
    assert x.grad.tolist() == [12.0]


def test_backward_is_called_each_time():
    """A repeated pass is recorded as a call, but what a user's function does is its own affair."""

    class Counting(Function):
        count = 0

        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            Counting.count += 1
            return g * Counting.count

    x = leaf([1.0, 2.0])
    found = []
    for _ in range(6):
        x.grad = None
        (Counting.apply(x) * 3).sum().backward()
        found.append(x.grad[0].item())
    assert found == [3.0, 6.0, 9.0, 12.0, 15.0, 18.0]


def test_backward_lets_go_of_what_was_saved():
    saved = []

    class Keeping(Function):
        @staticmethod
        def forward(ctx, x):
            saved.append(weakref.ref(ctx))
            ctx.save_for_backward(x * 1)
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 2

    x = leaf([1.0])
    y = Keeping.apply(x)
    y.sum().backward()
    assert saved[0]() is None
    assert y.item() == 2.0
