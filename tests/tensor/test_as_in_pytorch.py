"""Corners where PyTorch's samples showed that Treadle did otherwise."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
from treadle.nn import functional as F
from treadle.testing.gradients import check_grads


@pytest.mark.parametrize("widths", [(-4, 5), (-1, 2), (3, -2), (-1, -1), (0, -3)])
def test_replicating_edges_that_are_taken_away(widths):
    places = np.clip(np.arange(-widths[0], 4 + widths[1]), 0, 3)
    assert F.pad(treadle.arange(4), widths, "replicate").tolist() == places.tolist()


def test_the_gradient_of_a_quantile_reaches_its_level():
    q = treadle.tensor([0.25, 0.75], dtype=treadle.float64, requires_grad=True)
    treadle.quantile(treadle.tensor([0.0, 1.0, 4.0], dtype=treadle.float64), q).sum().backward()
    assert q.grad.tolist() == [2.0, 6.0]


def test_counting_norms_have_a_gradient_of_zero():
    x = treadle.tensor([[0.0, 2.0, -3.0]], requires_grad=True)
    total = treadle.norm(x, 0, 1)
    total.backward(treadle.ones(1))
    assert (total.item(), x.grad.tolist()) == (2.0, [[0.0, 0.0, 0.0]])


def test_what_an_ellipsis_stands_for_is_summed_where_the_result_has_none():
    a, b = np.arange(12.0).reshape(2, 2, 3), np.arange(4.0)
    got = treadle.einsum("...ik,...j->ij", treadle.tensor(a), treadle.tensor(b))
    np.testing.assert_allclose(got.numpy(), np.einsum("nik,j->ij", a, b))


def test_sizes_of_one_broadcast_in_tensordot():
    a, b = np.arange(1.0, 2.0).reshape(1, 1, 1), np.arange(4.0).reshape(2, 1, 2)
    got = treadle.tensordot(treadle.tensor(a), treadle.tensor(b), dims=([0, 1], [2, 0]))
    np.testing.assert_allclose(got.numpy(), [[b.sum()]])


def test_cosine_similarity_broadcasts_before_it_sums():
    x, y = np.random.default_rng(0).normal(size=(2, 1, 2, 3))
    got = F.cosine_similarity(treadle.tensor(x), treadle.tensor(y.reshape(2, 1, 3)), dim=-2)
    a, b = np.broadcast_arrays(x, y.reshape(2, 1, 3))
    wanted = (a * b).sum(-2) / np.sqrt((a * a).sum(-2) * (b * b).sum(-2))
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-6)


@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [True, False])
def test_bicubic_grid_sample_at_pixels_gives_the_pixels(padding_mode, align):
    pixels = np.random.default_rng(0).normal(size=(1, 1, 4, 4))
    image = treadle.tensor(pixels, requires_grad=True)
    theta = treadle.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]], dtype=treadle.float64)
    grid = F.affine_grid(theta, (1, 1, 4, 4), align_corners=align)

    def read(image, scale):
        return F.grid_sample(image, grid * scale, "bicubic", padding_mode, align)

    np.testing.assert_allclose(read(image, 1.0).numpy(force=True), pixels, atol=1e-12)
    check_grads(lambda image: read(image, 0.9), [image], order=1)


def test_grid_sample_of_volumes():
    volume = treadle.arange(8.0).reshape(1, 1, 2, 2, 2)
    grid = treadle.tensor([[[[[-1.0, -1.0, -1.0], [1.0, -1.0, -1.0], [0.0, 0.0, 0.0]]]]])
    got = F.grid_sample(volume, grid, align_corners=True)
    assert got.flatten().tolist() == [0.0, 1.0, 3.5]
    with pytest.raises(ValueError, match="got mode 'bicubic' for volumes"):
        F.grid_sample(volume, grid, "bicubic")


def test_empty_batches_leave_running_statistics_alone():
    layer = treadle.nn.BatchNorm1d(3)
    assert layer(treadle.zeros(0, 3, 2)).shape == (0, 3, 2)
    assert (layer.running_mean.tolist(), layer.running_var.tolist()) == ([0.0] * 3, [1.0] * 3)
    assert F.pixel_shuffle(treadle.zeros(1, 0, 1, 1), 1).shape == (1, 0, 1, 1)
    assert F.fractional_max_pool2d(treadle.zeros(0, 1, 4, 4), 2, 2).shape == (0, 1, 2, 2)


def test_ctc_loss_has_the_gradient_of_normalised_probabilities():
    logits = treadle.tensor(np.random.default_rng(0).normal(size=(5, 1, 3)), requires_grad=True)
    logs = logits.log_softmax(-1)
    logs.retain_grad()
    F.ctc_loss(logs, treadle.tensor([[1, 2]]), [5], [2], reduction="sum").backward()
    np.testing.assert_allclose(logs.grad.sum(-1).numpy(), 0.0, atol=1e-12)
    np.testing.assert_allclose(logs.grad.numpy(), logits.grad.numpy(), atol=1e-12)


def test_linear_cross_entropy_of_several_dimensions():
    treadle.manual_seed(0)
    layer = treadle.nn.LinearCrossEntropyLoss(3, 4, out_features=(2,), bias=True)
    x, target = treadle.randn(5, 3), treadle.randint(0, 4, (5, 2))
    logits = layer.linear(x).reshape(5, 4, 2)
    np.testing.assert_allclose(layer(x, target).item(), F.cross_entropy(logits, target).item())


def test_lazy_layers_keep_the_dtype_they_are_given():
    layer = treadle.nn.LazyConv1d(2, 3).double()
    assert layer(treadle.ones(1, 4, 5, dtype=treadle.float64)).dtype is treadle.float64


def test_means_of_integers_are_cut_once():
    x = treadle.tensor([[[[[1, 2], [-4, -5]], [[7, 0], [0, 1]]]]])
    assert F.avg_pool3d(x, 2).item() == 0
    assert F.avg_pool3d(x, (1, 1, 2)).flatten().tolist() == [1, -4, 3, 0]
    assert F.avg_pool1d(treadle.tensor([[1, 2, -4, -5]]), 2).tolist() == [[1, -4]]
    with pytest.raises(ValueError, match="divisor_override 0"):
        F.avg_pool3d(x, 2, divisor_override=0)
