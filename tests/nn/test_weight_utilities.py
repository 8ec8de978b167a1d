"""Parametrisations, weight and spectral norms, pruning, folding, older hooks."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.nn import functional as F
from treadle.nn.utils import parametrizations, parametrize, prune

RNG = np.random.default_rng(0)


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).T

    def right_inverse(self, x):
        return x.triu()


def test_a_parametrised_weight_is_computed_from_its_original():
    layer = nn.Linear(3, 3)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    w = layer.weight
    assert (w == w.T).all()
    assert parametrize.is_parametrized(layer, "weight")
    assert "parametrizations.weight.original" in dict(layer.named_parameters())
    layer(treadle.ones(1, 3)).sum().backward()
    assert layer.parametrizations.weight.original.grad is not None
    wanted = treadle.tensor([[1.0, 2, 3], [2, 4, 5], [3, 5, 6]])
    layer.weight = wanted
    assert layer.weight.tolist() == wanted.tolist()
    with parametrize.cached():
        assert layer.weight is layer.weight
    twin = copy.deepcopy(layer)
    twin.weight = wanted * 2
    assert layer.weight.tolist() == wanted.tolist()
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear
    assert isinstance(layer.weight, nn.Parameter)
    assert layer.weight.tolist() == wanted.tolist()


def test_what_cannot_be_parametrised():
    class Wider(nn.Module):
        def forward(self, x):
            return x.repeat(2, 1)

    with pytest.raises(
        ValueError, match=r"turn the shape \(3, 3\) into \(6, 3\); pass unsafe=True"
    ):
        parametrize.register_parametrization(nn.Linear(3, 3), "weight", Wider())
    with pytest.raises(ValueError, match="got the name 'w', but Linear has no such parameter"):
        parametrize.register_parametrization(nn.Linear(3, 3), "w", Symmetric())


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)])
@pytest.mark.parametrize("orthogonal_map", ["matrix_exp", "cayley", "householder"])
def test_orthogonal_weights(shape, orthogonal_map):
    layer = nn.Linear(shape[1], shape[0]).double()
    parametrizations.orthogonal(layer, orthogonal_map=orthogonal_map)
    for _ in range(2):
        q = layer.weight.detach().numpy()
        gram = q.T @ q if shape[0] >= shape[1] else q @ q.T
        np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-9)
        layer(treadle.ones(1, shape[1]).double()).square().sum().backward()
        with treadle.no_grad():
            original = layer.parametrizations.weight.original
            original.add_(original.grad, alpha=-0.1)
    other = np.linalg.qr(RNG.normal(size=(5, 5)))[0][: shape[0], : shape[1]]
    if shape == (4, 4):
        other = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
        layer.weight = treadle.tensor(other)
        np.testing.assert_allclose(layer.weight.detach().numpy(), other, atol=1e-9)


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, nn.utils.weight_norm])
def test_weight_norm(norm):
    layer = nn.Linear(3, 2)
    before = layer.weight.tolist()
    norm(layer)
    np.testing.assert_allclose(layer.weight.detach().numpy(), before, rtol=1e-6)
    length, direction = [p for p in layer.parameters() if p.ndim == 2]
    with treadle.no_grad():
        direction.mul_(3)
        length.mul_(2)
    y = layer(treadle.eye(3)) - layer.bias
    np.testing.assert_allclose(y.detach().numpy().T, 2 * np.array(before), rtol=1e-5)
    if norm is nn.utils.weight_norm:
        nn.utils.remove_weight_norm(layer)
        assert sorted(layer.state_dict()) == ["bias", "weight"]


@pytest.mark.parametrize("norm", [parametrizations.spectral_norm, nn.utils.spectral_norm])
def test_spectral_norm(norm):
    layer = norm(nn.Conv2d(2, 4, 3))
    for _ in range(40):
        layer(treadle.ones(1, 2, 3, 3))
    largest = np.linalg.svd(layer.weight.detach().numpy().reshape(4, -1))[1][0]
    assert largest == pytest.approx(1, abs=1e-3)
    layer.eval()
    assert layer(treadle.ones(1, 2, 3, 3)).tolist() == layer(treadle.ones(1, 2, 3, 3)).tolist()


def test_pruning():
    layer = nn.Linear(4, 5)
    weight = np.abs(layer.weight.detach().numpy())
    prune.l1_unstructured(layer, "weight", 0.25)
    small = np.sort(weight.ravel())[4]
    np.testing.assert_array_equal(layer.weight.detach().numpy() == 0, weight <= small)
    assert sorted(layer.state_dict()) == ["bias", "weight_mask", "weight_orig"]
    prune.random_unstructured(layer, "weight", 5)
    assert int((layer.weight == 0).sum()) == 10
    prune.ln_structured(layer, "weight", 1, n=2, dim=0)
    assert int((layer.weight == 0).all(1).sum()) >= 1
    layer(treadle.ones(1, 4)).sum().backward()
    assert (layer.weight_orig.grad[layer.weight == 0] == 0).all()
    assert prune.is_pruned(layer)
    pruned = layer.weight.tolist()
    prune.remove(layer, "weight")
    assert layer.weight.tolist() == pruned
    assert not prune.is_pruned(layer)
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    pairs = [(net[0], "weight"), (net[1], "weight")]
    prune.global_unstructured(pairs, prune.L1Unstructured, amount=0.4)
    assert sum(int((m.weight == 0).sum()) for m in net) == 6
    with pytest.raises(ValueError, match=r"prune: got amount=1\.5; it is a share"):
        prune.l1_unstructured(nn.Linear(1, 1), "weight", 1.5)


@pytest.mark.parametrize("transpose", [False, True])
def test_folding_a_batch_norm(transpose):
    conv = (nn.ConvTranspose2d if transpose else nn.Conv2d)(2, 3, 3).eval()
    norm = nn.BatchNorm2d(3).eval()
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    nn.init.uniform_(norm.weight, 0.5, 2)
    x = treadle.tensor(RNG.normal(size=(1, 2, 5, 5)).astype("f4"))
    fused = nn.utils.fuse_conv_bn_eval(conv, norm, transpose)
    np.testing.assert_allclose(
        fused(x).detach().numpy(), norm(conv(x)).detach().numpy(), rtol=1e-4, atol=1e-5
    )
    linear, norm = nn.Linear(2, 3).eval(), nn.BatchNorm1d(3).eval()
    norm.running_mean.uniform_(-1, 1)
    y = treadle.ones(4, 2)
    fused = nn.utils.fuse_linear_bn_eval(linear, norm)
    np.testing.assert_allclose(
        fused(y).detach().numpy(), norm(linear(y)).detach().numpy(), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(AssertionError, match=r"call eval\(\) on both first"):
        nn.utils.fuse_conv_bn_eval(conv.train(), norm)


def test_attention_as_a_function_is_the_layer():
    layer = nn.MultiheadAttention(8, 2)
    q, k = (treadle.tensor(RNG.normal(size=(n, 2, 8)).astype("f4")) for n in (3, 4))
    wanted, weights = layer(q, k, k)
    found, others = F.multi_head_attention_forward(
        q, k, k, 8, 2, layer.in_proj_weight, layer.in_proj_bias, None, None, False, 0.0,
        layer.out_proj.weight, layer.out_proj.bias,
    )  # fmt: skip
    assert found.tolist() == wanted.tolist()
    assert others.tolist() == weights.tolist()
