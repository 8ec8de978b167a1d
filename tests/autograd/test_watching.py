"""Anomaly detection, hooks of several gradients and of saved tensors, inference mode."""

import pytest

import treadle
from treadle import autograd
from treadle.autograd import Function, graph


def test_anomaly_names_the_forward_line():
    def root(x):
        return x.sqrt() * 0

    x = treadle.tensor([0.0, 1.0], requires_grad=True)
    line = root.__code__.co_firstlineno + 1
    root(x).sum().backward()  # silent without
    for switch in (autograd.detect_anomaly, lambda: autograd.set_detect_anomaly(True)):
        with (
            switch(),
            pytest.raises(
                RuntimeError, match=rf"gradient of sqrt by its operand 0.*test_watching.py:{line}"
            ),
        ):
            root(x).sum().backward()
    root(x).sum().backward()
    with autograd.detect_anomaly(check_nan=False):
        root(x).sum().backward()
    with autograd.detect_anomaly():
        (x * 2).sum().backward()
        with pytest.raises(RuntimeError, match="gradient of sqrt"):
            autograd.grad(root(x).sum(), x)


def test_anomaly_names_functions():
    class Bad(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return g * float("nan")

    x = treadle.ones(2, requires_grad=True)
    with autograd.detect_anomaly(), pytest.raises(RuntimeError, match="the gradient of Bad"):
        Bad.apply(x).sum().backward()


def test_hooks_of_several_gradients():
    a, b, c = (treadle.ones(1, requires_grad=True) for _ in range(3))
    seen, first = [], []
    every = graph.register_multi_grad_hook([a, b, c], seen.append)
    some = graph.register_multi_grad_hook([a, b, c], first.append, mode="any")
    for _ in range(2):
        (2 * a + 3 * b).sum().backward()
    assert [[g if g is None else g.item() for g in grads] for grads in seen] == [
        [2.0, 3.0, None]
    ] * 2
    assert len(first) == 2
    every.remove()
    some.remove()
    a.sum().backward()
    assert len(seen) == len(first) == 2
    with pytest.raises(ValueError, match="'all' or 'any'"):
        graph.register_multi_grad_hook([a], print, mode="last")


class Square(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        return g * 2 * ctx.saved_tensors[0]


def test_hooks_of_saved_tensors():
    x = treadle.tensor([1.0, 2.0], requires_grad=True)
    with graph.saved_tensors_hooks(lambda t: t.tolist(), lambda p: treadle.tensor(p) * 10):
        y = Square.apply(x)
    y.sum().backward()
    assert x.grad.tolist() == [20.0, 40.0]
    with graph.save_on_cpu():
        Square.apply(x).sum().backward()
    assert x.grad.tolist() == [22.0, 44.0]
    with graph.saved_tensors_hooks(lambda t: 0, lambda p: p):
        y = Square.apply(x)
    with pytest.raises(TypeError, match="unpack_hook returned a int"):
        y.sum().backward()
    with graph.disable_saved_tensors_hooks("not here"), pytest.raises(RuntimeError, match="not h"):
        graph.save_on_cpu().__enter__()


def test_gradient_edges_are_refused():
    for call in (graph.get_gradient_edge, graph.GradientEdge):
        with pytest.raises(NotImplementedError, match="pass the tensor to"):
            call(treadle.ones(1))


def test_inference_mode():
    x = treadle.ones(2, requires_grad=True)
    with treadle.inference_mode():
        assert not (x * 2).requires_grad
        with treadle.inference_mode(False):
            assert (x * 2).requires_grad
    assert not treadle.inference_mode(lambda: x * 2)().requires_grad
    assert not treadle.inference_mode()(lambda: x * 2)().requires_grad


def test_grad_fn_tells_where_gradients_go():
    x = treadle.ones(2, requires_grad=True)
    node = (x * treadle.ones(2)).grad_fn
    assert node.name() == "mul"
    assert node.next_functions == ((x.node, 0), (None, 0))
