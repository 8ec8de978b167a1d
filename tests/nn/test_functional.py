"""Functions of ``nn.functional`` against NumPy, at special values, and refusing what is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest

import treadle
import treadle.nn.functional as F
from treadle import nn
from treadle.base.errors import DTypeError, ShapeError

RNG = np.random.default_rng(0)


def floats(*shape):
    return RNG.uniform(-3, 3, shape).astype(np.float32)


def _erf(x):
    return np.vectorize(math.erf)(x.astype(np.float64))


ACTIVATIONS = {
    "relu": (F.relu, lambda x: np.maximum(x, 0)),
    "relu6": (F.relu6, lambda x: np.clip(x, 0, 6)),
    "hardtanh": (lambda x: F.hardtanh(x, -2, 0.5), lambda x: np.clip(x, -2, 0.5)),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2), lambda x: np.where(x > 0, x, 0.2 * x)),
    "elu": (lambda x: F.elu(x, 0.5), lambda x: np.where(x > 0, x, 0.5 * np.expm1(x))),
    "selu": (
        F.selu,
        lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    ),
    "celu": (lambda x: F.celu(x, 2.0), lambda x: np.where(x > 0, x, 2 * np.expm1(x / 2))),
    "gelu": (F.gelu, lambda x: 0.5 * x * (1 + _erf(x / np.sqrt(2)))),
    "gelu_tanh": (
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    ),
    "silu": (F.silu, lambda x: x / (1 + np.exp(-x))),
    "mish": (F.mish, lambda x: x * np.tanh(np.log1p(np.exp(x)))),
    "softplus": (lambda x: F.softplus(x, beta=2), lambda x: np.log1p(np.exp(2 * x)) / 2),
    "logsigmoid": (F.logsigmoid, lambda x: -np.log1p(np.exp(-x))),
    "softsign": (F.softsign, lambda x: x / (1 + np.abs(x))),
    "tanhshrink": (F.tanhshrink, lambda x: x - np.tanh(x)),
    "hardsigmoid": (F.hardsigmoid, lambda x: np.clip(x + 3, 0, 6) / 6),
    "hardswish": (F.hardswish, lambda x: x * np.clip(x + 3, 0, 6) / 6),
    "threshold": (lambda x: F.threshold(x, 1, 9), lambda x: np.where(x > 1, x, 9)),
    "softmin": (lambda x: F.softmin(x, 0), lambda x: np.exp(-x) / np.exp(-x).sum(0)),
    "normalize": (F.normalize, lambda x: x / np.sqrt((x**2).sum(1, keepdims=True))),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    function, reference = ACTIVATIONS[name]
    x = floats(4, 5)
    wanted = reference(x.astype(np.float64))
    np.testing.assert_allclose(function(treadle.tensor(x)).numpy(), wanted, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(
    "function", [F.elu, F.selu, F.celu, F.softplus, F.logsigmoid, F.mish, F.silu, F.gelu]
)
def test_large_inputs_have_finite_values_and_gradients(function):
    x = treadle.tensor([-300.0, -100.0, 0.0, 100.0, 300.0], requires_grad=True)
    y = function(x)
    y.sum().backward()
    assert np.isfinite(y.detach().numpy()).all()
    assert np.isfinite(x.grad.numpy()).all()


def test_activations_round_16_bits_once():
    x = treadle.tensor(floats(1000)).to(treadle.bfloat16)
    wanted = F.gelu(x.float()).to(treadle.bfloat16)
    assert F.gelu(x).tolist() == wanted.tolist()
    assert F.gelu(x).dtype is treadle.bfloat16


def test_in_place_activations_write_into_their_input():
    for function in (F.relu, F.silu, F.elu, F.leaky_relu, F.hardtanh):
        x = treadle.tensor([-0.5, 2.0])
        y = function(x.clone())
        assert function(x, inplace=True) is x
        assert x.tolist() == y.tolist()


def test_nan_stays_nan():
    x = treadle.tensor([math.nan])
    for function in (F.relu, F.relu6, F.hardtanh, F.leaky_relu, F.elu, F.softplus, F.gelu):
        assert math.isnan(function(x).item()), function


def test_activation_errors():
    with pytest.raises(DTypeError, match=r"gelu: got an input of dtype int64; it must be floating"):
        F.gelu(treadle.tensor([1]))
    with pytest.raises(ValueError, match="gelu: got approximate 'fast'; it is 'none' or 'tanh'"):
        F.gelu(treadle.ones(1), approximate="fast")
    with pytest.raises(ValueError, match="hardtanh: got min_val 2 and max_val 1"):
        F.hardtanh(treadle.ones(1), 2, 1)
    with pytest.raises(ShapeError, match=r"prelu: got a weight of shape \(2,\) for an input of sh"):
        F.prelu(treadle.ones(2, 3), treadle.ones(2))
    with pytest.raises(TypeError, match="softmax: dim is missing"):
        F.softmax(treadle.ones(2))
    with pytest.raises(TypeError, match=r"hardtanh: got a list; it takes tensors"):
        F.relu6([1.0])


# --- windows ------------------------------------------------------------------------------------


def test_same_padding_keeps_the_size():
    x = treadle.tensor(floats(1, 1, 6, 7))
    for window in (1, 2, 3, 4):
        for dilation in (1, 2):
            w = treadle.ones(1, 1, window, window)
            assert F.conv2d(x, w, padding="same", dilation=dilation).shape == x.shape


def test_convolution_of_one_image_is_that_of_a_batch():
    x, w, b = (treadle.tensor(floats(*s)) for s in ((2, 5, 5), (3, 2, 3, 3), (3,)))
    assert F.conv2d(x, w, b).tolist() == F.conv2d(x.unsqueeze(0), w, b)[0].tolist()


def test_conv1d_against_numpy():
    x, w = floats(1, 1, 8), floats(1, 1, 3)
    wanted = np.correlate(x[0, 0], w[0, 0])
    got = F.conv1d(treadle.tensor(x), treadle.tensor(w)).numpy()[0, 0]
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_transposed_convolution_is_the_adjoint():
    x, w, g = (treadle.tensor(floats(*s)) for s in ((2, 3, 7, 6), (4, 3, 3, 2), (2, 4, 4, 3)))
    kwargs = {"stride": 2, "padding": 1}
    back = F.conv_transpose2d(g, w, output_padding=(0, 0), **kwargs)
    assert tuple(back.shape) == (2, 3, 7, 4)
    back = F.conv_transpose2d(g, w, stride=2, padding=(1, 0), output_padding=0)
    forward = F.conv2d(x, w, stride=2, padding=(1, 0))
    np.testing.assert_allclose(
        (forward * g).sum().item(), (x * back).sum().item(), rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("rank", [1, 3])
def test_transposed_convolutions_are_adjoints(rank):
    conv, back = getattr(F, f"conv{rank}d"), getattr(F, f"conv_transpose{rank}d")
    x, w = (treadle.tensor(floats(*s)) for s in ((2, 4, *(7,) * rank), (6, 2, *(3,) * rank)))
    kwargs = {"stride": 2, "padding": 1, "dilation": 2, "groups": 2}
    y = conv(x, w, **kwargs)
    g = treadle.tensor(floats(*y.shape))
    up = back(g, w, output_padding=0, **kwargs)
    assert up.shape == x.shape
    np.testing.assert_allclose((y * g).sum().item(), (x * up).sum().item(), rtol=1e-4, atol=1e-3)


def test_output_padding_beyond_the_stride():
    """Allowed below the dilation: what it adds has terms where padding had cut them off."""
    x, w = (treadle.tensor(floats(*s)) for s in ((1, 2, 4), (2, 3, 3)))
    whole = F.conv_transpose1d(x, w, dilation=3)
    cut = F.conv_transpose1d(x, w, padding=2, output_padding=2, dilation=3)
    np.testing.assert_allclose(cut.numpy(), whole.numpy()[:, :, 2:], rtol=1e-5, atol=1e-6)


def test_output_padding_of_a_stride_beyond_the_last_tap():
    """Zeros, and the bias."""
    x, w, b = (treadle.tensor(floats(*s)) for s in ((1, 2, 4), (2, 3, 3), (3,)))
    short = F.conv_transpose1d(x, w, b, padding=1, dilation=4)
    long = F.conv_transpose1d(x, w, b, padding=1, output_padding=3, dilation=4).numpy()
    np.testing.assert_allclose(long[:, :, : short.shape[2]], short.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(long[0, :, -2:], b.numpy()[:, None].repeat(2, 1))


def test_conv3d_of_one_plane_is_conv2d():
    x, w = floats(2, 3, 5, 6), floats(4, 3, 3, 2)
    flat = F.conv2d(treadle.tensor(x), treadle.tensor(w), stride=2, padding=1)
    deep = F.conv3d(
        treadle.tensor(x[:, :, None]), treadle.tensor(w[:, :, None]), stride=(1, 2, 2),
        padding=(0, 1, 1),
    )  # fmt: skip
    assert deep[:, :, 0].tolist() == flat.tolist()


def test_output_size_of_a_transposed_layer():
    layer = nn.ConvTranspose2d(1, 1, 3, stride=2)
    x = treadle.zeros(1, 1, 4, 4)
    assert tuple(layer(x, output_size=(10, 9)).shape) == (1, 1, 10, 9)
    with pytest.raises(ValueError, match=r"got output_size \(11, 9\) .* from \(9, 9\) to \(10, 10"):
        layer(x, output_size=(11, 9))


def test_convolution_errors_name_the_function():
    with pytest.raises(ShapeError, match=r"conv3d: got an input of shape \(2, 2\); it must have 5"):
        F.conv3d(treadle.zeros(2, 2), treadle.zeros(1, 1, 1, 1, 1))
    with pytest.raises(TypeError, match=r"conv1d: got stride \(1, 2\); it takes an int"):
        F.conv1d(treadle.zeros(1, 1, 4), treadle.zeros(1, 1, 2), stride=(1, 2))
    with pytest.raises(ShapeError, match=r"the output would have the size \(-1,\); use less pad"):
        F.conv_transpose1d(treadle.zeros(1, 1, 2), treadle.zeros(1, 1, 2), padding=2)


def test_convolution_errors():
    x, w = treadle.zeros(1, 2, 4, 4), treadle.zeros(3, 2, 3, 3)
    with pytest.raises(ShapeError, match=r"conv2d: got an input of shape \(2, 2\); it must have 4"):
        F.conv2d(treadle.zeros(2, 2), w)
    with pytest.raises(ShapeError, match="got an input of 2 channels and a weight of shape"):
        F.conv2d(x, treadle.zeros(3, 1, 3, 3))
    with pytest.raises(ShapeError, match=r"conv2d: got a bias f32\[4\] for 3 output channels"):
        F.conv2d(x, w, treadle.zeros(4))
    with pytest.raises(ValueError, match="'same' needs a stride of 1"):
        F.conv2d(x, w, padding="same", stride=2)
    with pytest.raises(ValueError, match="got padding 'full'; it takes ints, 'same' or 'valid'"):
        F.conv2d(x, w, padding="full")
    with pytest.raises(TypeError, match=r"conv2d: got stride \(1, 2, 3\); it takes an int or two"):
        F.conv2d(x, w, stride=(1, 2, 3))
    with pytest.raises(ValueError, match=r"Conv2d: got in_channels=3, out_channels=4 and groups=2"):
        nn.Conv2d(3, 4, 1, groups=2)
    with pytest.raises(ValueError, match="Conv2d: got padding_mode 'mirror'; it is 'zeros' or"):
        nn.Conv2d(1, 1, 1, padding_mode="mirror")
    with pytest.raises(ValueError, match="the output padding must be smaller than the stride"):
        F.conv_transpose2d(x, treadle.zeros(2, 1, 3, 3), output_padding=1)


def _windows(x, window, stride, padding, fill):
    """Every window of a plane, cut from the padded plane with room for ceil_mode."""
    h, w = x.shape
    big = np.full((h + 2 * padding + window, w + 2 * padding + window), fill)
    big[padding : padding + h, padding : padding + w] = x
    return big


@pytest.mark.parametrize("size", [5, 6, 7, 8])
@pytest.mark.parametrize(
    ("window", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 1), (3, 3, 1)]
)
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_pooling_against_numpy(size, window, stride, padding, ceil_mode):
    x = floats(size, size)
    rounding = math.ceil if ceil_mode else math.floor
    count = rounding((size + 2 * padding - window) / stride) + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1
    highest = _windows(x, window, stride, padding, -np.inf)
    total = _windows(x, window, stride, padding, 0.0)
    inside = _windows(np.ones_like(x), window, stride, padding, 0.0)
    padded = _windows(np.ones((size + 2 * padding,) * 2), window, stride, 0, 0.0)
    shape = (count, count)
    best, mean, mean_inside = np.empty(shape), np.empty(shape), np.empty(shape)
    for i, j in np.ndindex(shape):
        part = np.s_[i * stride : i * stride + window, j * stride : j * stride + window]
        best[i, j] = highest[part].max()
        mean[i, j] = total[part].sum() / padded[part].sum()
        mean_inside[i, j] = total[part].sum() / inside[part].sum()
    t = treadle.tensor(x[None, None])
    args = (window, stride, padding)
    values, places = F.max_pool2d(t, *args, ceil_mode=ceil_mode, return_indices=True)
    np.testing.assert_array_equal(values.numpy()[0, 0], best)
    np.testing.assert_array_equal(x.reshape(-1)[places.numpy()[0, 0]], best)
    got = F.avg_pool2d(t, *args, ceil_mode=ceil_mode).numpy()[0, 0]
    np.testing.assert_allclose(got, mean, rtol=1e-5, atol=1e-6)
    got = F.avg_pool2d(t, *args, ceil_mode=ceil_mode, count_include_pad=False).numpy()[0, 0]
    np.testing.assert_allclose(got, mean_inside, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("parts", [(1, 1), (2, 3), (4, 5), (7, 6)])
def test_adaptive_pooling_against_numpy(parts):
    x = floats(2, 3, 7, 6)
    wanted = np.empty((2, 3, *parts))
    for i, j in np.ndindex(*parts):
        rows = slice(i * 7 // parts[0], -(-(i + 1) * 7 // parts[0]))
        columns = slice(j * 6 // parts[1], -(-(j + 1) * 6 // parts[1]))
        wanted[:, :, i, j] = x[:, :, rows, columns].mean((2, 3))
    got = F.adaptive_avg_pool2d(treadle.tensor(x), parts).numpy()
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_pooling_errors():
    x = treadle.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match=r"max_pool2d: got padding \(2, 2\) and kernel_size \(3"):
        F.max_pool2d(x, 3, padding=2)
    with pytest.raises(ShapeError, match="max_pool2d: got an input of shape"):
        F.max_pool2d(treadle.zeros(4, 4), 2)
    with pytest.raises(ValueError, match="divisor_override 0; it must not be 0"):
        F.avg_pool2d(x, 2, divisor_override=0)
    with pytest.raises(ValueError, match=r"got output_size \(0, 2\); it takes positive ints"):
        F.adaptive_avg_pool2d(x, (0, 2))


# --- normalisation ------------------------------------------------------------------------------


def test_batch_norm_moves_its_running_statistics():
    x = floats(6, 3, 4)
    for momentum in (0.1, None):
        norm = nn.BatchNorm1d(3, momentum=momentum)
        norm(treadle.tensor(x))
        norm(treadle.tensor(2 * x))
        mean, var = x.mean((0, 2)), x.var((0, 2), ddof=1)
        if momentum is None:
            wanted = (1.5 * mean, 2.5 * var)
        else:
            wanted = (0.9 * 0.1 * mean + 0.1 * 2 * mean, 0.81 + 0.09 * var + 0.1 * 4 * var)
        np.testing.assert_allclose(norm.running_mean.numpy(), wanted[0], rtol=1e-5)
        np.testing.assert_allclose(norm.running_var.numpy(), wanted[1], rtol=1e-5)
        assert norm.num_batches_tracked.item() == 2


def test_batch_norm_evaluates_with_running_statistics():
    x = floats(5, 2)
    norm = nn.BatchNorm1d(2).eval()
    norm.load_state_dict(
        {"running_mean": [1.0, 2.0], "running_var": [4.0, 9.0], "weight": [2.0, 3.0],
         "bias": [0.5, 1.5]}, strict=False,
    )  # fmt: skip
    wanted = (x - [1, 2]) / np.sqrt(np.array([4, 9]) + 1e-5) * [2, 3] + [0.5, 1.5]
    np.testing.assert_allclose(norm(treadle.tensor(x)).detach().numpy(), wanted, rtol=1e-5)
    assert norm(treadle.tensor(x[:1])).shape == (1, 2)


def test_untracked_batch_norm_always_uses_the_batch():
    x = treadle.tensor(floats(8, 2))
    norm = nn.BatchNorm1d(2, track_running_stats=False)
    assert norm(x).tolist() == norm.eval()(x).tolist()
    assert norm.running_mean is None


def test_norms_against_numpy():
    x, w, b = floats(3, 4, 5), floats(5), floats(5)

    def normal(v, axes):
        return (v - v.mean(axes, keepdims=True)) / np.sqrt(v.var(axes, keepdims=True) + 1e-5)

    t, tw, tb = map(treadle.tensor, (x, w, b))
    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(F.layer_norm(t, (5,), tw, tb), normal(x, 2) * w + b, **close)
    np.testing.assert_allclose(F.layer_norm(t, (4, 5)), normal(x, (1, 2)), **close)
    grouped = normal(x.reshape(3, 2, 10), 2).reshape(3, 4, 5)
    np.testing.assert_allclose(F.group_norm(t, 2), grouped, **close)
    mean_square = (x**2).mean(-1, keepdims=True)
    np.testing.assert_allclose(F.rms_norm(t, (5,), tw, 0.1), x / np.sqrt(mean_square + 0.1) * w,
                               **close)  # fmt: skip
    batch = normal(x, (0, 2))
    np.testing.assert_allclose(F.batch_norm(t, None, None, training=True), batch, **close)


def test_instance_norm_and_its_running_statistics():
    x = floats(3, 2, 4, 5)
    layer = nn.InstanceNorm2d(2, affine=True, track_running_stats=True)
    mean, var = x.mean((2, 3)), x.var((2, 3))
    wanted = (x - mean[..., None, None]) / np.sqrt(var + 1e-5)[..., None, None]
    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(layer(treadle.tensor(x)).detach(), wanted, **close)
    running, moved = 0.1 * mean.mean(0), 0.9 + 0.1 * var.mean(0) * 20 / 19
    np.testing.assert_allclose(layer.running_mean, running, **close)
    np.testing.assert_allclose(layer.running_var, moved, **close)
    column = (slice(None), None, None)
    used = (x - running[column]) / np.sqrt(moved[column] + 1e-5)
    np.testing.assert_allclose(layer.eval()(treadle.tensor(x)).detach(), used, **close)
    alone = nn.InstanceNorm2d(2)(treadle.tensor(x[1]))
    np.testing.assert_allclose(alone, wanted[1], **close)


def test_norms_keep_f32_statistics_for_16_bits():
    x = treadle.tensor(floats(64, 32) + 100).to(treadle.bfloat16)
    wanted = F.layer_norm(x.float(), (32,)).to(treadle.bfloat16)
    assert F.layer_norm(x, (32,)).tolist() == wanted.tolist()


def test_normalisation_errors():
    x = treadle.zeros(4, 3)
    with pytest.raises(ShapeError, match=r"BatchNorm1d: got an input of shape \(4, 3\); it must be "
                       r"\(N, C\) or \(N, C, L\) with C = 2"):  # fmt: skip
        nn.BatchNorm1d(2)(x)
    with pytest.raises(ShapeError, match="one value per channel; training needs more than one"):
        nn.BatchNorm1d(3)(x[:1])
    with pytest.raises(ValueError, match="got no running statistics and training=False"):
        F.batch_norm(x, None, None)
    with pytest.raises(
        ShapeError, match=r"layer_norm: got an input of shape \(4, 3\) and normaliz"
    ):
        F.layer_norm(x, (4,))
    with pytest.raises(ShapeError, match=r"layer_norm: got a weight of shape \(1,\) for an input"):
        F.layer_norm(x, (3,), treadle.ones(1))
    with pytest.raises(
        DTypeError, match="got a weight of dtype float64 for an input of dtype floa"
    ):
        F.layer_norm(x, (3,), treadle.ones(3, dtype=treadle.float64))
    with pytest.raises(
        ShapeError, match=r"group_norm: got an input of shape \(4, 3\) and 2 groups"
    ):
        F.group_norm(x, 2)
    with pytest.raises(
        ShapeError, match=r"InstanceNorm1d: got an input of shape \(4, 3\); it must be \(N, C, L\)"
    ):
        nn.InstanceNorm1d(2)(x)
    with pytest.raises(ShapeError, match=r"must be \(N, C, ...\) with more than one value per"):
        F.instance_norm(x.unsqueeze(2))
    with pytest.raises(ValueError, match="GroupNorm: got 3 channels and 2 groups"):
        nn.GroupNorm(2, 3)


# --- embedding and dropout ----------------------------------------------------------------------


def test_embedding_takes_rows_and_spares_the_padding():
    table = nn.Embedding(4, 2, padding_idx=-1)
    assert table.weight[3].tolist() == [0.0, 0.0]
    out = table(treadle.tensor([[0, 3], [0, 1]]))
    out.sum().backward()
    assert out[0, 0].tolist() == table.weight[0].tolist()
    assert table.weight.grad.tolist() == [[2.0, 2.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    assert table(treadle.tensor([1], dtype=treadle.int32)).shape == (1, 2)
    frozen = nn.Embedding.from_pretrained(treadle.ones(2, 3))
    assert not frozen.weight.requires_grad
    assert frozen(treadle.tensor(1)).tolist() == [1.0, 1.0, 1.0]


def test_embedding_errors():
    table = nn.Embedding(4, 2)
    with pytest.raises(IndexError, match=r"^embedding: index 4 is out of range for 4 rows \(0..3\) "
                       r"at \[0\]; make the table larger, or map unknown indices to one of its "
                       r"rows \[test_functional.py:\d+\]$"):  # fmt: skip
        table(treadle.tensor([4])).sum().item()
    with pytest.raises(
        DTypeError, match="embedding: got indices of dtype float32; they must be in"
    ):
        table(treadle.tensor([1.0]))
    with pytest.raises(ValueError, match="Embedding: got padding_idx 4 for 4 rows"):
        nn.Embedding(4, 2, padding_idx=4)


def test_dropout_keeps_the_mean_and_its_gradient():
    treadle.manual_seed(0)
    x = treadle.ones(200, 100, requires_grad=True)
    y = F.dropout(x, 0.25)
    values = y.detach().numpy()
    assert set(np.unique(values)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs(values.mean() - 1) < 0.02
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), values)
    assert F.dropout(x, 0.25, training=False) is x
    assert F.dropout(treadle.ones(5), 1.0).tolist() == [0.0] * 5
    treadle.manual_seed(1)
    first = F.dropout(x, 0.5).tolist()
    treadle.manual_seed(1)
    assert F.dropout(x, 0.5).tolist() == first


def test_dropout2d_drops_whole_channels():
    treadle.manual_seed(0)
    values = F.dropout2d(treadle.ones(8, 16, 3, 3), 0.5).numpy()
    channels = values.reshape(8 * 16, 9)
    assert (channels == channels[:, :1]).all()
    assert 30 < (channels[:, 0] == 0).sum() < 98


def test_dropout_errors():
    with pytest.raises(ValueError, match=r"dropout: got p=1.5; a probability is from 0 to 1"):
        F.dropout(treadle.ones(1), 1.5)
    with pytest.raises(ValueError, match=r"Dropout: got p=-1; a probability"):
        nn.Dropout(-1)
    with pytest.raises(DTypeError, match="dropout: got an input of dtype int64"):
        F.dropout(treadle.ones(1).long(), 0.5)
