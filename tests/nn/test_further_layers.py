"""Lazy layers, adaptive softmax, further pooling, embeddings, older arguments, PyTorch's paths."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.nn import functional as F
from treadle.testing.layers import check_layer

RNG = np.random.default_rng(0)


def t(*shape):
    return treadle.tensor(RNG.normal(size=shape))


# --- lazy layers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "shape", "becomes"),
    [
        (lambda: nn.LazyLinear(3), (2, 4), nn.Linear),
        (lambda: nn.LazyConv1d(4, 3, groups=2), (1, 2, 5), nn.Conv1d),
        (lambda: nn.LazyConv2d(4, 3, padding=1), (1, 2, 5, 5), nn.Conv2d),
        (lambda: nn.LazyConvTranspose2d(4, 3, stride=2), (1, 2, 5, 5), nn.ConvTranspose2d),
        (lambda: nn.LazyBatchNorm1d(), (4, 3), nn.BatchNorm1d),
        (lambda: nn.LazyInstanceNorm2d(), (4, 3, 2, 2), nn.InstanceNorm2d),
    ],
)
def test_the_first_input_tells_the_sizes(make, shape, becomes):
    layer, x = make(), treadle.ones(*shape)
    twin, pickled = copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))
    assert layer.has_uninitialized_params()
    with pytest.raises(ValueError, match="got a request for the shape of a tensor that has no"):
        _ = layer.weight.shape
    y = layer(x)
    assert type(layer) is becomes
    assert not isinstance(layer.weight, nn.UninitializedParameter)
    twin.load_state_dict(layer.state_dict())
    assert twin(x).tolist() == y.tolist()
    pickled(x).sum().backward()
    assert tuple(pickled.weight.grad.shape) == tuple(layer.weight.shape)


def test_saving_and_loading_what_has_no_shape():
    layer = nn.LazyLinear(3)
    state = layer.state_dict()
    nn.LazyLinear(3).load_state_dict(state)
    with pytest.raises(RuntimeError, match="missing: weight, bias"):
        layer.load_state_dict({})


# --- adaptive softmax ---------------------------------------------------------------------------


def test_adaptive_softmax_sums_to_one_and_its_loss_is_that_of_the_targets():
    layer = nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 10], div_value=2.0).double()
    x, target = t(5, 8), treadle.tensor([0, 3, 7, 12, 19])
    logs = layer.log_prob(x)
    np.testing.assert_allclose(logs.exp().sum(1).detach().numpy(), 1)
    out = layer(x, target)
    wanted = logs.gather(1, target.unsqueeze(1)).squeeze(1)
    np.testing.assert_allclose(out.output.detach().numpy(), wanted.detach().numpy())
    assert out.loss.item() == pytest.approx(-wanted.mean().item())
    assert layer.predict(x).tolist() == logs.argmax(1).tolist()
    out.loss.backward()
    assert all(p.grad is not None for p in layer.parameters())
    with pytest.raises(ValueError, match=r"got cutoffs \[5, 3\] for 20 classes; they must rise"):
        nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5, 3])


# --- pooling ------------------------------------------------------------------------------------


def boxes(x, parts):
    """The maxima over boxes of the last axes, and their flat places."""
    sizes = x.shape[-len(parts) :]
    values, places = [], []
    for place in np.ndindex(*[len(p) for p in parts]):
        window = tuple(slice(*p[i]) for p, i in zip(parts, place, strict=True))
        inner = x[(Ellipsis, *window)]
        values.append(inner.max())
        at = np.unravel_index(inner.argmax(), inner.shape)
        at = [a + p[i][0] for a, p, i in zip(at, parts, place, strict=True)]
        places.append(np.ravel_multi_index(at, sizes))
    return values, places


@pytest.mark.parametrize(
    ("function", "shape", "out"),
    [(F.adaptive_max_pool1d, (7,), (3,)), (F.adaptive_max_pool2d, (7, 5), (3, 2)),
     (F.adaptive_max_pool2d, (6, 4), (3, 2)), (F.adaptive_max_pool3d, (5, 4, 3), (2, 3, 2))],
)  # fmt: skip
def test_adaptive_maxima_of_any_size(function, shape, out):
    x = t(1, *shape).requires_grad_()
    parts = [
        [(i * n // o, -(-(i + 1) * n // o)) for i in range(o)]
        for n, o in zip(shape, out, strict=True)
    ]
    values, places = function(x, out, return_indices=True)
    wanted, at = boxes(x.detach().numpy()[0], parts)
    assert values.flatten().tolist() == wanted
    assert places.flatten().tolist() == at
    values.sum().backward()
    assert x.grad.flatten()[treadle.tensor(at)].min().item() >= 1


def test_maxima_of_volumes_and_back():
    x = t(1, 1, 4, 4, 4)
    values, places = F.max_pool3d(x, 2, return_indices=True)
    assert x.flatten()[places.flatten()].tolist() == values.flatten().tolist()
    back = nn.MaxUnpool3d(2)(values, places)
    assert back.flatten()[places.flatten()].tolist() == values.flatten().tolist()
    assert int((back != 0).sum()) == 8
    norms = F.lp_pool3d(x, 2, 2).flatten()
    blocks = x.numpy().reshape(2, 2, 2, 2, 2, 2).transpose(0, 2, 4, 1, 3, 5).reshape(8, 8)
    np.testing.assert_allclose(norms.numpy(), np.sqrt((blocks**2).sum(1)))


def test_fractional_maxima():
    treadle.manual_seed(0)
    x = t(2, 3, 9, 9)
    y, places = nn.FractionalMaxPool2d(2, output_ratio=0.5, return_indices=True)(x)
    assert tuple(y.shape) == (2, 3, 4, 4)
    flat = x.flatten(2).gather(2, places.flatten(2))
    assert flat.tolist() == y.flatten(2).tolist()
    with pytest.raises(ValueError, match="fractional_max_pool2d: got output_size None and out"):
        F.fractional_max_pool2d(x, 2)


# --- embeddings ---------------------------------------------------------------------------------


def test_embeddings_limit_rows_and_even_out_gradients():
    layer = nn.Embedding(4, 2, max_norm=1.0, _weight=treadle.tensor([[3.0, 4.0], [0.3, 0.4]] * 2))
    layer(treadle.tensor([0, 1]))
    np.testing.assert_allclose(layer.weight.detach().numpy()[:3], [[0.6, 0.8], [0.3, 0.4], [3, 4]],
                               rtol=1e-6)  # fmt: skip
    weight = treadle.ones(4, 2, requires_grad=True)
    F.embedding(treadle.tensor([0, 0, 1]), weight, scale_grad_by_freq=True).sum().backward()
    assert weight.grad[:, 0].tolist() == [1.0, 1.0, 0.0, 0.0]
    bag = nn.EmbeddingBag.from_pretrained(treadle.ones(4, 2), mode="sum")
    assert bag(treadle.tensor([[0, 1]])).tolist() == [[2.0, 2.0]]
    assert not bag.weight.requires_grad


# --- older arguments and names ------------------------------------------------------------------


def test_size_average_and_reduce():
    x, y = t(3, 4), t(3, 4)
    square = ((x - y) ** 2).numpy()
    assert F.mse_loss(x, y, False).item() == pytest.approx(square.sum())
    np.testing.assert_allclose(F.mse_loss(x, y, reduce=False).numpy(), square)
    assert nn.MSELoss(size_average=False)(x, y).item() == pytest.approx(square.sum())
    scores, labels = t(3, 4), treadle.tensor([0, 1, 2])
    total = nn.CrossEntropyLoss(None, False)(scores, labels).item()
    assert total == pytest.approx(F.cross_entropy(scores, labels, reduction="sum").item())
    weight = t(3, 4).abs()
    wanted = (square * weight.numpy()).sum() / weight.numpy().sum()
    assert F.mse_loss(x, y, weight=weight).item() == pytest.approx(wanted)


def test_pytorchs_paths_and_older_names():
    from treadle.nn.modules.batchnorm import _BatchNorm
    from treadle.nn.modules.conv import _ConvNd
    from treadle.nn.modules.utils import _pair

    from treadle.nn.modules import module

    assert isinstance(nn.BatchNorm2d(1), _BatchNorm)
    assert isinstance(nn.Conv1d(1, 1, 1), _ConvNd)
    assert module.Module is nn.Module
    assert _pair(3) == (3, 3)
    assert nn.NLLLoss2d is nn.NLLLoss
    assert nn.init.xavier_uniform is nn.init.xavier_uniform_
    assert not treadle.cuda.is_available()
    with pytest.raises(RuntimeError, match="there is no CUDA device"):
        treadle.cuda.current_device()
    with pytest.raises(AttributeError, match=r"module 'treadle\.nn\.modules\.conv' has no"):
        _ = nn.modules.conv.missing


def test_initialisers():
    weight = nn.init.dirac_(treadle.empty(4, 2, 3), groups=2)
    x = t(1, 4, 5).float()
    assert F.conv1d(x, weight, padding=1, groups=2).tolist() == x.tolist()
    sparse = nn.init.sparse_(treadle.empty(10, 3), 0.25)
    assert (sparse == 0).sum(0).tolist() == [3, 3, 3]


def test_antialiasing_averages_what_becomes_smaller():
    x = treadle.arange(16.0).reshape(1, 1, 4, 4)
    y = F.interpolate(x, size=(2, 2), mode="bilinear", antialias=True)
    w = np.array([[3, 3, 1, 0], [0, 1, 3, 3]]) / 7
    np.testing.assert_allclose(y[0, 0].numpy(), w @ x[0, 0].numpy() @ w.T, rtol=1e-6)
    with pytest.raises(ValueError, match="interpolate: got antialias=True and mode 'nearest'"):
        F.interpolate(x, size=2, antialias=True)


def test_gradients_of_convolutions():
    x, w, g = t(2, 4, 6, 6), t(6, 2, 3, 3), t(2, 6, 3, 3)
    a, b = x.clone().requires_grad_(), w.clone().requires_grad_()
    F.conv2d(a, b, None, 2, 1, 1, 2).backward(g)
    assert nn.grad.conv2d_input(x.shape, w, g, 2, 1, 1, 2).tolist() == a.grad.tolist()
    assert nn.grad.conv2d_weight(x, w.shape, g, 2, 1, 1, 2).tolist() == b.grad.tolist()


def test_lstm_with_projections():
    layer = nn.LSTM(3, 5, proj_size=2, bidirectional=True, num_layers=2)
    y, (h, c) = layer(treadle.ones(4, 2, 3))
    assert (tuple(y.shape), tuple(h.shape), tuple(c.shape)) == ((4, 2, 4), (4, 2, 2), (4, 2, 5))
    assert tuple(layer.weight_hr_l0.shape) == (2, 5)
    one = nn.LSTM(3, 4, proj_size=2).double()
    cell = nn.LSTMCell(3, 4).double()
    x, h, c = t(3, 1, 3), treadle.zeros(1, 2).double(), treadle.zeros(1, 4).double()
    out, _ = one(x)
    for step in range(3):  # by hand: the gates see the projected state
        total = F.linear(x[step], one.weight_ih_l0, one.bias_ih_l0) + F.linear(
            h, one.weight_hh_l0, one.bias_hh_l0
        )
        i, f, g, o = total.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = F.linear(o.sigmoid() * c.tanh(), one.weight_hr_l0)
        np.testing.assert_allclose(out[step].detach().numpy(), h.detach().numpy(), rtol=1e-9)
    assert cell.hidden_size == 4


def test_synchronised_batch_norm_is_batch_norm():
    net = nn.Sequential(nn.BatchNorm1d(3))
    x = treadle.tensor(RNG.normal(size=(4, 3)).astype("f4"))
    twin = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(net))
    assert isinstance(twin[0], nn.SyncBatchNorm)
    assert twin(x).tolist() == net(x).tolist()
    check_layer(lambda: nn.SyncBatchNorm(3), (4, 3), (4, 3))
