"""Checkpoints: the same bits with less memory."""

import pytest

import treadle
from treadle import nn
from treadle.base.flags import flags
from treadle.utils.checkpoint import checkpoint, checkpoint_sequential


def network(depth=6, width=64):
    treadle.manual_seed(0)
    return nn.Sequential(*[
        nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Dropout(0.2), nn.Linear(width, width),
                      nn.Tanh())
        for _ in range(depth)
    ])  # fmt: skip


def trained(run, net, x):
    """The loss, the gradients, and the peak of memory while they were computed."""
    treadle.manual_seed(1)
    for p in (*net.parameters(), x):
        p.grad = None
    treadle.reset_peak_memory_stats()
    start = treadle.memory_stats()["allocated.current"]
    loss = (run(net, x) ** 2).mean()
    loss.backward()
    grads = [p.grad.numpy().tobytes() for p in (*net.parameters(), x)]
    return loss.item(), grads, treadle.memory_stats()["allocated.peak"] - start


def plain(net, x):
    return net(x)


def by_layers(net, x):
    for layer in net:
        x = checkpoint(layer, x, use_reentrant=False)
    return x


def by_segments(net, x):
    return checkpoint_sequential(net, 3, x, use_reentrant=True)


def test_same_bits_with_less_memory():
    net, x = network(), treadle.randn(2048, 64).requires_grad_()
    x.sum().item()
    with flags.context(programs="off"):
        loss, grads, peak = trained(plain, net, x)
        for run, most in ((by_layers, 0.45), (by_segments, 0.8)):
            again, found, lower = trained(run, net, x)
            assert (again, found) == (loss, grads)
            assert lower < most * peak
    for run in (by_layers, by_segments):
        for _ in range(3):  # as a program too
            assert trained(run, net, x)[:2] == (loss, grads)


def test_recurrent_layers_and_functions_inside():
    treadle.manual_seed(0)
    lstm, x = nn.LSTM(3, 4, num_layers=2, dropout=0.5), treadle.randn(5, 2, 3).requires_grad_()
    first = trained(lambda m, x: m(x)[0], lstm, x)
    second = trained(lambda m, x: checkpoint(m, x)[0], lstm, x)
    assert first[:2] == second[:2]


def test_nested_and_second_order():
    x = treadle.tensor([0.5, 2.0], requires_grad=True)

    def inner(x):
        return checkpoint(lambda x: x.sin() * x, x)

    y = checkpoint(lambda x: inner(x).exp(), x).sum()
    (g,) = treadle.autograd.grad(y, x, create_graph=True)
    (h,) = treadle.autograd.grad(g.sum(), x)
    expected = (x.sin() * x).exp().sum()
    (g_,) = treadle.autograd.grad(expected, x, create_graph=True)
    (h_,) = treadle.autograd.grad(g_.sum(), x)
    assert (g == g_).all()
    assert ((h - h_).abs() < 1e-5).all()


def test_structures_and_what_needs_no_gradient():
    x = treadle.ones(2, requires_grad=True)
    out = checkpoint(lambda x, k: {"y": x * k, "n": 3, "z": treadle.zeros(1)}, x, 2.0)
    assert out["n"] == 3
    assert not out["z"].requires_grad
    out["y"].sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]
    with treadle.no_grad():
        assert not checkpoint(treadle.sin, x).requires_grad
    calls = []
    checkpoint(lambda x: (calls.append(1), x * 2)[1], x).sum().backward()
    assert calls == [1]  # nothing is called again
    found = treadle.func.vmap(treadle.func.grad(lambda x: checkpoint(treadle.sin, x)))(x.detach())
    assert (found == x.cos()).all()


def test_refusals():
    x = treadle.ones(2, requires_grad=True)
    with pytest.raises(NotImplementedError, match="checkpoint: got context_fn"):
        checkpoint(treadle.sin, x, context_fn=lambda: None)
    with pytest.raises(ValueError, match="got segments=4 for 2 functions"):
        checkpoint_sequential([treadle.sin, treadle.cos], 4, x)
