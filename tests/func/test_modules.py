"""Modules as functions of their parameters, and ensembles of them."""

import pytest

import treadle
from treadle import nn
from treadle.func import functional_call, stack_module_state, vmap


def test_other_parameters_take_part():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = treadle.randn(5, 3)
    before = net(x)
    params = {name: p * 2 for name, p in net.named_parameters()}
    twice = functional_call(net, params, (x,))
    expected = nn.functional.linear(
        nn.functional.linear(x, net[0].weight * 2, net[0].bias * 2).relu(),
        net[2].weight * 2, net[2].bias * 2,
    )  # fmt: skip
    assert (twice == expected).all()
    assert (net(x) == before).all()
    assert isinstance(net[0].weight, nn.Parameter)
    only = functional_call(net, {"2.bias": treadle.zeros(2)}, x)
    assert ((only - before + net[2].bias).abs() < 1e-6).all()


def test_buffers_that_the_call_updates():
    norm = nn.BatchNorm1d(2)
    state = {name: t.clone() for name, t in norm.named_buffers()}
    functional_call(norm, (dict(norm.named_parameters()), state), treadle.randn(8, 2) + 3)
    assert (state["running_mean"] > 0.1).all()
    assert (norm.running_mean == 0).all()


def test_tied_weights():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(2, 2, bias=False)
            self.second = nn.Linear(2, 2, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x))

    net, twice = Tied(), treadle.eye(2) * 2
    x = treadle.ones(2)
    assert functional_call(net, {"first.weight": twice}, x).tolist() == [4.0, 4.0]
    apart = functional_call(net, {"first.weight": twice}, x, tie_weights=False)
    assert (apart == net.first.weight @ (2 * x)).all()


def test_errors_put_the_parameters_back():
    layer = nn.Linear(2, 3)
    weight = layer.weight
    with pytest.raises(ValueError, match="last size must be 5"):
        functional_call(layer, {"weight": treadle.ones(3, 5)}, treadle.ones(2))
    assert layer.weight is weight
    with pytest.raises(RuntimeError, match="Linear does not have: wieght; missing: weight, bias"):
        functional_call(layer, {"wieght": weight}, treadle.ones(2), strict=True)
    with pytest.raises(ValueError, match="weight in more than one dictionary"):
        functional_call(layer, ({"weight": weight}, {"weight": weight}), treadle.ones(2))


def test_ensembles():
    models = [nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)) for _ in range(5)]
    params, buffers = stack_module_state(models)
    assert params["0.weight"].requires_grad
    assert params["0.weight"].is_leaf
    x = treadle.randn(7, 3)
    found = vmap(lambda p, b: functional_call(models[0], (p, b), (x,)))(params, buffers)
    for model, out in zip(models, found, strict=True):
        assert (model(x) == out).all()
    found.sum().backward()
    assert params["0.weight"].grad.shape == (5, 4, 3)


def test_models_must_be_alike():
    with pytest.raises(ValueError, match="no module"):
        stack_module_state([])
    with pytest.raises(ValueError, match="classes Linear, Tanh"):
        stack_module_state([nn.Linear(1, 1), nn.Tanh()])
    with pytest.raises(ValueError, match="in training and in evaluation mode"):
        stack_module_state([nn.Linear(1, 1), nn.Linear(1, 1).eval()])
