"""Initialisers by their statistics; gradients clipped; parameters as a vector."""

from __future__ import annotations

import math

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.base.errors import ShapeError
from treadle.nn import init
from treadle.nn.utils import (
    clip_grad_norm_,
    clip_grad_value_,
    parameters_to_vector,
    vector_to_parameters,
)


def weight(*shape):
    treadle.manual_seed(0)
    return nn.Parameter(treadle.empty(*shape))


@pytest.mark.parametrize(
    ("fill", "bound"),
    [
        (lambda w: init.xavier_uniform_(w, gain=2), 2 * math.sqrt(6 / 500)),
        (lambda w: init.kaiming_uniform_(w, nonlinearity="relu"), math.sqrt(2 * 3 / 300)),
        (lambda w: init.kaiming_uniform_(w, a=1, mode="fan_out"), math.sqrt(3 / 200)),
        (lambda w: init.uniform_(w, -0.5, 0.5), 0.5),
    ],
)
def test_uniform_initialisers(fill, bound):
    w = weight(200, 300)
    assert fill(w) is w
    values = w.detach().numpy()
    assert -bound <= values.min() < -0.99 * bound
    assert 0.99 * bound < values.max() <= bound
    assert abs(values.std() - bound / math.sqrt(3)) < 0.01 * bound
    assert w.is_leaf
    assert w.requires_grad


@pytest.mark.parametrize(
    ("fill", "std"),
    [
        (init.xavier_normal_, math.sqrt(2 / 500)),
        (lambda w: init.kaiming_normal_(w, nonlinearity="relu"), math.sqrt(2 / 300)),
        (lambda w: init.normal_(w, 0.0, 0.3), 0.3),
    ],
)
def test_normal_initialisers(fill, std):
    values = fill(weight(200, 300)).detach().numpy()
    assert abs(values.std() / std - 1) < 0.01
    assert abs(values.mean()) < 0.02 * std


def test_fans_count_the_window():
    values = init.kaiming_normal_(weight(40, 30, 5, 5), nonlinearity="linear").detach().numpy()
    assert abs(values.std() * math.sqrt(750) - 1) < 0.02


def test_default_layers_are_uniform_by_fan_in():
    treadle.manual_seed(0)
    for layer, fan_in in ((nn.Linear(400, 50), 400), (nn.Conv2d(16, 32, 5), 400)):
        for p in layer.parameters():
            values = p.detach().numpy()
            assert np.abs(values).max() <= 1 / math.sqrt(fan_in)
            assert np.abs(values).max() > 0.8 / math.sqrt(fan_in)


def test_truncated_normal():
    values = init.trunc_normal_(weight(300, 300), 1.0, 0.5, 0.0, 1.5).detach().numpy()
    assert values.min() >= 0
    assert values.max() <= 1.5
    # Mean and deviation of a normal number cut at -2 and +1 deviations.
    phi = [math.exp(-z * z / 2) / math.sqrt(2 * math.pi) for z in (-2, 1)]
    mass = 0.5 * (math.erf(1 / math.sqrt(2)) + math.erf(2 / math.sqrt(2)))
    mean = (phi[0] - phi[1]) / mass
    variance = 1 + (-2 * phi[0] - 1 * phi[1]) / mass - mean**2
    assert abs(values.mean() - (1 + 0.5 * mean)) < 0.005
    assert abs(values.std() - 0.5 * math.sqrt(variance)) < 0.005


def test_inverse_of_the_error_function():
    y = treadle.tensor([-0.999999, -0.9, -1e-3, 0.0, 0.3, 0.99999])
    np.testing.assert_allclose(
        [math.erf(x) for x in init._inverse_erf(y.double()).tolist()], y.tolist(), rtol=1e-9
    )


def test_constants_and_matrices():
    assert init.eye_(weight(2, 3)).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert init.ones_(weight(2)).tolist() == [1, 1]
    assert init.zeros_(weight(2)).tolist() == [0, 0]
    for shape in ((5, 3), (3, 5), (4, 2, 3)):
        q = init.orthogonal_(weight(*shape), gain=2).detach().numpy().reshape(shape[0], -1)
        small = q.T @ q if q.shape[0] > q.shape[1] else q @ q.T
        np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-5)


def test_initialiser_errors():
    with pytest.raises(ShapeError, match=r"xavier_uniform_: got a tensor of shape \(3,\); fan-in"):
        init.xavier_uniform_(weight(3))
    with pytest.raises(ValueError, match="kaiming_normal_: got mode 'fan'; it is 'fan_in' or"):
        init.kaiming_normal_(weight(3, 3), mode="fan")
    with pytest.raises(ValueError, match="calculate_gain: got 'swish'; there are linear"):
        init.calculate_gain("swish")
    with pytest.raises(ValueError, match="trunc_normal_: got std=0"):
        init.trunc_normal_(weight(2), std=0)
    with pytest.raises(ShapeError, match="eye_: got a tensor of shape"):
        init.eye_(weight(2))
    assert init.calculate_gain("leaky_relu", 1.0) == 1.0
    assert init.calculate_gain("tanh") == 5 / 3


# --- utils --------------------------------------------------------------------------------------


def _with_gradients(*gradients):
    parameters = [nn.Parameter(treadle.zeros(len(g))) for g in gradients]
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = treadle.tensor(g)
    return parameters


@pytest.mark.parametrize(("norm_type", "norm"), [(2.0, 13.0), (1.0, 19.0), (float("inf"), 12.0)])
def test_clip_grad_norm(norm_type, norm):
    parameters = _with_gradients([3.0, 4.0], [12.0])
    parameters.append(nn.Parameter([1.0]))  # without a gradient
    assert clip_grad_norm_(parameters, 100.0, norm_type).item() == pytest.approx(norm)
    assert parameters[0].grad.tolist() == [3.0, 4.0]
    clip_grad_norm_(parameters, 6.5, norm_type)
    np.testing.assert_allclose(
        parameters[0].grad.numpy(), np.array([3, 4]) * 6.5 / (norm + 1e-6), rtol=1e-6
    )
    assert clip_grad_norm_([], 1.0).item() == 0


def test_clip_grad_norm_tells_of_infinity():
    parameters = _with_gradients([math.inf])
    with pytest.raises(RuntimeError, match="the norm of the gradients is inf; it must be finite"):
        clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
    assert parameters[0].grad.tolist() == [math.inf]


def test_clip_grad_value():
    (p,) = _with_gradients([-3.0, 0.5, 2.0])
    clip_grad_value_(p, 1.0)
    assert p.grad.tolist() == [-1.0, 0.5, 1.0]


def test_vector_of_parameters_and_back():
    layer = nn.Linear(2, 3)
    vector = parameters_to_vector(layer.parameters())
    assert tuple(vector.shape) == (9,)
    vector_to_parameters(treadle.arange(9.0), layer.parameters())
    assert layer.weight.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert layer.bias.tolist() == [6, 7, 8]
    with pytest.raises(ShapeError, match=r"got a vector of shape \(8,\) for 9 numbers"):
        vector_to_parameters(treadle.zeros(8), layer.parameters())


def test_norms_of_several_tensors():
    tensors = [treadle.tensor([3.0]), treadle.tensor([[4.0, 12.0]])]
    assert nn.utils.get_total_norm(tensors).item() == pytest.approx(13)
    assert nn.utils.get_total_norm(tensors, math.inf).item() == 12
    assert nn.utils.get_total_norm([]).item() == 0
    p = nn.Parameter(treadle.ones(2))
    p.grad = treadle.tensor([3.0, 4.0])
    nn.utils.clip_grads_with_norm_([p], 1.0, treadle.tensor(10.0))
    assert p.grad.tolist() == pytest.approx([0.3, 0.4])
    with pytest.raises(RuntimeError, match="get_total_norm: the norm is inf; it must be finite"):
        nn.utils.get_total_norm([treadle.tensor([math.inf])], error_if_nonfinite=True)
