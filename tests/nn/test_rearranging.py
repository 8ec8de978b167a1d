"""Layers that pad, shuffle, cut and put together, sample and sum up images; further activations."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
import treadle.nn.functional as F
from treadle import nn
from treadle.base.errors import ShapeError
from treadle.testing.gradients import check_grads
from treadle.testing.layers import check_layer

RNG = np.random.default_rng(0)
IMAGES, ROWS = RNG.normal(size=(2, 8, 6, 4)), RNG.normal(size=(2, 4, 12))


@pytest.mark.parametrize(
    "make, shape, out",
    [
        (lambda: nn.PixelShuffle(2), (2, 8, 3, 4), (2, 2, 6, 8)),
        (lambda: nn.PixelUnshuffle(2), (8, 6, 4), (32, 3, 2)),
        (lambda: nn.ChannelShuffle(4), (2, 8, 3), (2, 8, 3)),
        (lambda: nn.Unfold((2, 3), (2, 1), (1, 2), (2, 1)), (2, 2, 6, 4), (2, 12, 18)),
        (lambda: nn.Fold((5, 6), (2, 3), padding=1, stride=2), (2, 12, 9), (2, 2, 5, 6)),
        (lambda: nn.GLU(1), (2, 8, 3), (2, 4, 3)),
        (lambda: nn.Hardshrink(0.3), (2, 8), (2, 8)),
        (lambda: nn.Softshrink(0.3), (2, 8), (2, 8)),
        (lambda: nn.Softmax2d(), (2, 8, 3, 2), (2, 8, 3, 2)),
        (lambda: nn.LocalResponseNorm(3, 0.5), (2, 8, 3, 2), (2, 8, 3, 2)),
        (lambda: nn.LPPool2d(2, 2), (2, 3, 4, 6), (2, 3, 2, 3)),
        (lambda: nn.LPPool1d(2, 3, 2), (2, 3, 9), (2, 3, 4)),
        (lambda: nn.AdaptiveAvgPool1d(5), (2, 3, 12), (2, 3, 5)),
        (lambda: nn.AdaptiveMaxPool1d(4), (2, 3, 12), (2, 3, 4)),
        (lambda: nn.ReflectionPad2d((1, 0, 2, 1)), (2, 3, 4, 5), (2, 3, 7, 6)),
        (lambda: nn.UpsamplingBilinear2d(scale_factor=2), (1, 2, 3, 4), (1, 2, 6, 8)),
        (lambda: nn.UpsamplingNearest2d((3, 5)), (1, 2, 3, 4), (1, 2, 3, 5)),
        (lambda: nn.RReLU().eval(), (2, 8), (2, 8)),
    ],
)
def test_layers_keep_their_promises(make, shape, out):
    if isinstance(make(), nn.RReLU):
        x = treadle.randn(shape)
        assert make()(x).tolist() == F.leaky_relu(x, (1 / 8 + 1 / 3) / 2).tolist()
        return
    check_layer(make, shape, out)


@pytest.mark.parametrize(
    "make, mode, widths",
    [
        (nn.ReflectionPad2d, "reflect", (2, 1, 3, 0)),
        (nn.ReplicationPad2d, "edge", (1, 2, 0, 3)),
        (nn.CircularPad2d, "wrap", (1, 2, 3, 0)),
        (nn.ZeroPad2d, "constant", (1, 2, 0, 3)),
    ],
)
def test_padding(make, mode, widths):
    left, right, top, bottom = widths
    expected = np.pad(IMAGES, ((0, 0), (0, 0), (top, bottom), (left, right)), mode)
    np.testing.assert_array_equal(make(widths)(treadle.tensor(IMAGES)).numpy(), expected)
    even = make(1)(treadle.tensor(IMAGES))
    assert even.shape == (2, 8, 8, 6)
    with pytest.raises(ValueError, match=r"Pad2d: got padding \(1, 2\); it takes an int, or 4 of"):
        make((1, 2))


def test_padding_of_other_shapes():
    rows = treadle.tensor(ROWS)
    expected = np.pad(ROWS, ((0, 0), (0, 0), (1, 2)), constant_values=3)
    np.testing.assert_array_equal(nn.ConstantPad1d((1, 2), 3.0)(rows).numpy(), expected)
    volume = treadle.tensor(IMAGES[None])
    expected = np.pad(IMAGES[None], ((0, 0), (0, 0), (1, 1), (1, 1), (1, 1)), "edge")
    np.testing.assert_array_equal(nn.ReplicationPad3d(1)(volume).numpy(), expected)
    with pytest.raises(ShapeError, match=r"ReflectionPad1d: got an input of shape \(2, 8, 6, 4\)"):
        nn.ReflectionPad1d(1)(treadle.tensor(IMAGES))


def test_shuffles():
    x = IMAGES.reshape(2, 2, 2, 2, 6, 4)
    expected = x.transpose(0, 1, 4, 2, 5, 3).reshape(2, 2, 12, 8)
    larger = F.pixel_shuffle(treadle.tensor(IMAGES), 2)
    np.testing.assert_array_equal(larger.numpy(), expected)
    np.testing.assert_array_equal(F.pixel_unshuffle(larger, 2).numpy(), IMAGES)
    order = [0, 4, 1, 5, 2, 6, 3, 7]
    found = F.channel_shuffle(treadle.tensor(IMAGES), 2).numpy()
    np.testing.assert_array_equal(found, IMAGES[:, order])
    for call in (
        lambda x: F.pixel_shuffle(x, 3), lambda x: F.pixel_unshuffle(x, 4),
        lambda x: F.channel_shuffle(x, 3),
    ):  # fmt: skip
        with pytest.raises(ShapeError, match=r"it must be a positive int that divides \d"):
            call(treadle.tensor(IMAGES))


def test_unfold_and_fold():
    x = treadle.tensor(IMAGES, requires_grad=True)
    columns = F.unfold(x, (2, 3), (2, 1), (1, 2), (2, 1))
    padded = np.pad(IMAGES, ((0, 0), (0, 0), (1, 1), (2, 2)))
    expected = [
        padded[:, :, r : r + 3 : 2, c : c + 3].reshape(2, -1)
        for r in range(0, 6, 2) for c in range(6)
    ]  # fmt: skip
    np.testing.assert_array_equal(columns.detach().numpy(), np.stack(expected, -1))
    back = F.fold(columns, (6, 4), (2, 3), (2, 1), (1, 2), (2, 1))
    counts = F.fold(
        F.unfold(treadle.ones(1, 1, 6, 4), (2, 3), (2, 1), (1, 2), (2, 1)),
        (6, 4), (2, 3), (2, 1), (1, 2), (2, 1),
    )  # fmt: skip
    np.testing.assert_allclose(back.detach().numpy(), IMAGES * counts.numpy(), rtol=1e-12)
    kernel = RNG.normal(size=(3, 8 * 4))  # a convolution is a product with the columns
    found = treadle.tensor(kernel) @ F.unfold(treadle.tensor(IMAGES), 2)
    wanted = F.conv2d(treadle.tensor(IMAGES), treadle.tensor(kernel.reshape(3, 8, 2, 2)))
    np.testing.assert_allclose(found.numpy(), wanted.flatten(2).numpy(), rtol=1e-12)
    with pytest.raises(ShapeError, match=r"unfold: got images of \(6, 4\) .* no window fits in"):
        F.unfold(x, 7)
    with pytest.raises(ShapeError, match=r"for images of \(3, 3\) it must be \(N, C \* 4, 4\)"):
        F.fold(treadle.zeros(1, 4, 5), 3, 2)


def test_maxima_are_put_back():
    x = treadle.tensor(IMAGES)
    pooled, places = F.max_pool2d(x, 2, return_indices=True)
    whole = nn.MaxUnpool2d(2)(pooled, places)
    assert whole.shape == x.shape
    np.testing.assert_array_equal(whole.numpy(), np.where(whole.numpy() != 0, IMAGES, 0))
    np.testing.assert_array_equal(F.max_pool2d(whole.clamp(min=-9), 2).numpy(),
                                  np.maximum(pooled.numpy(), 0))  # fmt: skip
    rows, at = F.max_pool1d(treadle.tensor(ROWS), 3, return_indices=True)
    assert nn.MaxUnpool1d(3)(rows, at, output_size=(2, 4, 13)).shape == (2, 4, 13)
    with pytest.raises(ShapeError, match="max_unpool2d: got an input of shape"):
        F.max_unpool2d(pooled, places[0:1], 2)


def test_local_response_norm():
    squares = np.pad(IMAGES**2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    total = squares[:, :-2] + squares[:, 1:-1] + squares[:, 2:]
    expected = IMAGES / (1.2 + 0.5 * total / 3) ** 0.6
    found = F.local_response_norm(treadle.tensor(IMAGES), 3, 0.5, 0.6, 1.2)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


# --- grids ----------------------------------------------------------------------------------------


def sampled(image, x, y, padding, align):
    """One place of one image (C, H, W), by the definition."""
    pixels = []
    for at, size in ((x, image.shape[2]), (y, image.shape[1])):
        place = (at + 1) / 2 * (size - 1) if align else ((at + 1) * size - 1) / 2
        if padding == "reflection":
            low, high = (0, size - 1) if align else (-0.5, size - 0.5)
            while not low <= place <= high:
                place = 2 * low - place if place < low else 2 * high - place
        pixels.append(place if padding == "zeros" else min(max(place, 0), size - 1))
    x, y = pixels
    total = np.zeros(len(image))
    for row in (int(np.floor(y)), int(np.floor(y)) + 1):
        for column in (int(np.floor(x)), int(np.floor(x)) + 1):
            share = max(0, 1 - abs(x - column)) * max(0, 1 - abs(y - row))
            if 0 <= row < image.shape[1] and 0 <= column < image.shape[2]:
                total += share * image[:, row, column]
    return total


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_grid_sample(padding, align):
    grid = RNG.uniform(-1.6, 1.6, (2, 3, 5, 2))
    expected = np.stack([
        np.stack([[sampled(image, *at, padding, align) for at in row] for row in places], 0)
        for image, places in zip(IMAGES, grid, strict=True)
    ]).transpose(0, 3, 1, 2)  # fmt: skip
    x, at = (treadle.tensor(z, requires_grad=True) for z in (IMAGES, grid))
    found = F.grid_sample(x, at, "bilinear", padding, align)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-9, atol=1e-12)
    check_grads(lambda x, at: F.grid_sample(x, at, "bilinear", padding, align), [x, at], order=1)


def test_an_affine_grid_of_the_identity_reads_the_image():
    turn = treadle.tensor([[[1.0, 0, 0], [0, 1, 0]], [[0.0, 1, 0], [-1, 0, 0]]])
    for align in (False, True):
        square = treadle.tensor(IMAGES[:, :, :4]).float()
        grid = F.affine_grid(turn, (2, 8, 4, 4), align)
        for mode in ("bilinear", "nearest"):
            found = F.grid_sample(square, grid, mode, align_corners=align).numpy()
            np.testing.assert_allclose(found[0], square.numpy()[0], rtol=1e-5, atol=1e-6)
            turned = np.rot90(square.numpy()[1], -1, (1, 2))
            np.testing.assert_allclose(found[1], turned, rtol=1e-5, atol=1e-6)


def test_errors_of_grids():
    image = treadle.zeros(2, 3, 4, 4)
    with pytest.raises(ShapeError, match=r"affine_grid: got theta of shape \(2, 2\)"):
        F.affine_grid(treadle.zeros(2, 2), (2, 3, 4, 4))
    with pytest.raises(ShapeError, match=r"grid_sample: .* a grid of shape \(1, 2, 2, 2\)"):
        F.grid_sample(image, treadle.zeros(1, 2, 2, 2))
    with pytest.raises(ValueError, match="got mode 'cubic' and padding_mode 'zeros'; the mode is"):
        F.grid_sample(image, treadle.zeros(2, 2, 2, 2), "cubic")


# --- bags and forms -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_embedding_bags(mode):
    table, index = RNG.normal(size=(10, 4)), np.array([1, 2, 4, 5, 4, 3, 2, 9])
    reduce = {"sum": np.sum, "mean": np.mean, "max": np.max}[mode]
    bags = [[1, 2, 4], [], [5, 4], [3, 2, 9]]
    expected = [reduce(table[bag], 0) if bag else np.zeros(4) for bag in bags]
    w = treadle.tensor(table, requires_grad=True)
    offsets = treadle.tensor([0, 3, 3, 5])
    found = F.embedding_bag(treadle.tensor(index), w, offsets, mode=mode)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-12)
    ended = F.embedding_bag(treadle.tensor(index), w, treadle.tensor([0, 3, 3, 5, 8]), mode=mode,
                            include_last_offset=True)  # fmt: skip
    assert ended.tolist() == found.tolist()
    pairs = F.embedding_bag(treadle.tensor(index.reshape(4, 2)), w, mode=mode, padding_idx=4)
    expected = [reduce(table[[i for i in bag if i != 4]], 0) for bag in index.reshape(4, 2)]
    np.testing.assert_allclose(pairs.detach().numpy(), expected, rtol=1e-12)
    check_grads(lambda w: F.embedding_bag(treadle.tensor(index), w, offsets, mode=mode), [w])


def test_weights_and_errors_of_bags():
    layer = nn.EmbeddingBag(5, 3, mode="sum", padding_idx=-1)
    assert layer.weight[4].tolist() == [0.0, 0.0, 0.0]
    index, shares = treadle.tensor([[0, 1]]), treadle.tensor([[2.0, -1.0]])
    found = layer(index, per_sample_weights=shares)
    expected = 2 * layer.weight[0] - layer.weight[1]
    np.testing.assert_allclose(found[0].detach().numpy(), expected.detach().numpy(), rtol=1e-6)
    with pytest.raises(ValueError, match="got mode 'mean' and weights; it is 'sum', 'mean', 'max'"):
        F.embedding_bag(index, layer.weight, per_sample_weights=shares)
    with pytest.raises(ShapeError, match=r"it takes \(bags, n\) without offsets, or a vector with"):
        F.embedding_bag(index[0], layer.weight)


def test_bilinear():
    layer = nn.Bilinear(3, 4, 2)
    x, y = treadle.randn(5, 3), treadle.randn(5, 4)
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    expected = np.einsum("ni,kij,nj->nk", x.numpy(), weight, y.numpy()) + bias
    np.testing.assert_allclose(layer(x, y).detach().numpy(), expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(ShapeError, match=r"bilinear: got inputs of shapes \(5, 4\) and \(5, 3\)"):
        layer(y, x)


# --- random ones ----------------------------------------------------------------------------------


def test_alpha_dropout_keeps_mean_and_variance():
    treadle.manual_seed(0)
    x = treadle.randn(200, 500)
    for p in (0.1, 0.5):
        y = nn.AlphaDropout(p)(x)
        assert abs(y.mean().item()) < 0.02
        assert abs(y.std().item() - 1) < 0.02
        _, counts = np.unique(y.numpy(), return_counts=True)  # one value is there again and again
        assert counts.max() / counts.sum() == pytest.approx(p, abs=0.01)
    assert nn.AlphaDropout(0.5).eval()(x) is x


@pytest.mark.parametrize(
    "layer, shape, axes",
    [
        (nn.Dropout1d(0.5), (8, 16, 5), (2,)),
        (nn.Dropout3d(0.5), (8, 16, 2, 3, 2), (2, 3, 4)),
        (nn.FeatureAlphaDropout(0.5), (8, 16, 3, 4), (2, 3)),
    ],
)
def test_whole_channels_are_dropped(layer, shape, axes):
    treadle.manual_seed(0)
    y = layer(treadle.ones(shape)).numpy()
    assert (y.max(axes) == y.min(axes)).all()
    values, counts = np.unique(y.max(axes), return_counts=True)
    assert len(values) == 2
    assert counts.min() > 40


def test_rrelu_and_gumbel_softmax():
    treadle.manual_seed(0)
    slopes = -nn.RReLU(0.2, 0.4)(-treadle.ones(1000))
    assert 0.2 <= slopes.min().item() < 0.21 < 0.39 < slopes.max().item() <= 0.4
    logits = treadle.tensor([0.0, 1.0, 2.0], requires_grad=True)
    hard = F.gumbel_softmax(logits.expand(20000, 3), tau=0.5, hard=True)
    assert (hard.sum(-1) == 1).all()
    expected = np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()
    np.testing.assert_allclose(hard.mean(0).detach().numpy(), expected, atol=0.02)
    hard[:, 0].sum().backward()
    assert (logits.grad != 0).all()
    soft = F.gumbel_softmax(logits, dim=0)
    assert soft.sum().item() == pytest.approx(1)


def test_activations_in_place():
    for name in ("relu_", "elu_", "selu_", "celu_", "leaky_relu_", "hardtanh_", "rrelu_"):
        x = treadle.tensor([-2.0, 0.5])
        y = getattr(F, name)(x)
        assert y is x
        assert x.tolist() == getattr(F, name[:-1])(treadle.tensor([-2.0, 0.5])).tolist()
