"""Attention, resizing and what else is composed for small models, against plain NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

import treadle
import treadle.nn.functional as F
from treadle import nn
from treadle.base.errors import ShapeError
from treadle.testing.gradients import check_grads

RNG = np.random.default_rng(0)


def floats(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def _attention(q, k, v, bias):
    scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]) + bias
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def test_attention_against_numpy():
    q, k, v = floats(2, 3, 5, 8), floats(2, 3, 7, 8), floats(2, 3, 7, 4)
    tensors = [treadle.from_numpy(x) for x in (q, k, v)]
    mask = RNG.random((5, 7)) < 0.7
    mask[:, 0] = True
    for bias, options in (
        (0.0, {}),
        (np.where(mask, 0, -np.inf), {"attn_mask": treadle.from_numpy(mask)}),
        (floats(5, 7), None),
        (np.where(np.tri(5, 7) > 0, 0, -np.inf), {"is_causal": True}),
    ):
        given = {"attn_mask": treadle.from_numpy(bias)} if options is None else options
        out = F.scaled_dot_product_attention(*tensors, **given)
        assert np.allclose(out.numpy(), _attention(q, k, v, bias), atol=1e-5)


def test_a_causal_query_does_not_depend_on_later_keys():
    q, k, v = (treadle.from_numpy(floats(6, 4)) for _ in range(3))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    k[4:], v[4:] = 9.0, float("inf")
    changed = F.scaled_dot_product_attention(q[:4], k[:4], v[:4], is_causal=True)
    assert out[:4].allclose(changed)


def test_attention_errors():
    x = treadle.zeros(2, 4)
    with pytest.raises(ShapeError, match=r"a key of \(2, 4\) and a value of \(3, 4\)"):
        F.scaled_dot_product_attention(x, x, treadle.zeros(3, 4))
    with pytest.raises(ValueError, match="got attn_mask and is_causal=True"):
        F.scaled_dot_product_attention(x, x, x, treadle.zeros(2, 2), is_causal=True)


def test_nearest_repeats_elements():
    x = floats(2, 3, 4, 5)
    big = F.interpolate(treadle.from_numpy(x), scale_factor=2).numpy()
    assert np.array_equal(big, x.repeat(2, 2).repeat(2, 3))
    small = F.interpolate(treadle.from_numpy(x), size=(2, 3)).numpy()
    assert np.array_equal(small, x[:, :, [0, 2]][:, :, :, [0, 1, 3]])


@pytest.mark.parametrize("corners", [False, True])
def test_bilinear_against_numpys_interpolation(corners):
    x = floats(1, 2, 4, 5)
    got = F.interpolate(treadle.from_numpy(x), (7, 9), mode="bilinear", align_corners=corners)
    expected = x.astype(np.float64)
    for axis, new in ((2, 7), (3, 9)):
        old = x.shape[axis]
        at = np.arange(new)
        at = at * (old - 1) / (new - 1) if corners else (at + 0.5) * old / new - 0.5
        expected = np.apply_along_axis(
            lambda line, at=at: np.interp(at, np.arange(len(line)), line), axis, expected
        )
    assert np.allclose(got.numpy(), expected, atol=1e-6)


def keys(x, slope=-0.75):
    """Keys' cubic kernel."""
    x = abs(x)
    if x <= 1:
        return (slope + 2) * x**3 - (slope + 3) * x**2 + 1
    return slope * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


@pytest.mark.parametrize("corners", [False, True])
def test_bicubic_by_the_kernel(corners):
    x = RNG.normal(size=(2, 2, 4, 5))
    got = F.interpolate(
        treadle.from_numpy(x), (7, 3), mode="bicubic", align_corners=corners
    ).numpy()
    expected = x
    for axis, new in ((2, 7), (3, 3)):
        old, rows = x.shape[axis], np.zeros((new, x.shape[axis]))
        for i in range(new):
            at = i * (old - 1) / (new - 1) if corners else (i + 0.5) * old / new - 0.5
            for tap in range(math.floor(at) - 1, math.floor(at) + 3):
                rows[i, min(max(tap, 0), old - 1)] += keys(at - tap)
        expected = np.moveaxis(np.tensordot(rows, expected, (1, axis)), 0, axis)
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)


def test_other_ways_of_resizing():
    x = RNG.normal(size=(1, 2, 3, 4, 5))
    got = F.interpolate(treadle.from_numpy(x), (6, 2, 5), mode="trilinear", align_corners=True)
    expected = x
    for axis, new in ((2, 6), (3, 2)):
        at = np.linspace(0, x.shape[axis] - 1, new)
        expected = np.apply_along_axis(
            lambda line, at=at: np.interp(at, np.arange(len(line)), line), axis, expected
        )
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-10, atol=1e-12)
    images = treadle.from_numpy(x[:, :, 0])
    exact = F.interpolate(images, (3, 2), mode="nearest-exact").numpy()
    np.testing.assert_array_equal(exact, x[:, :, 0][:, :, [0, 2, 3]][:, :, :, [1, 3]])
    area = F.interpolate(images, (2, 5), mode="area").numpy()
    np.testing.assert_allclose(area, x[:, :, 0].reshape(1, 2, 2, 2, 5).mean(3), rtol=1e-12)
    check_grads(lambda x: F.interpolate(x, (3, 6), mode="bicubic"), [images.requires_grad_()])


def test_resizing_has_gradients_and_a_layer():
    x = treadle.from_numpy(RNG.normal(size=(1, 1, 3, 4))).requires_grad_()
    check_grads(lambda x: F.interpolate(x, scale_factor=1.5), [x])
    check_grads(lambda x: F.interpolate(x, (2, 7), mode="bilinear"), [x])
    assert tuple(nn.Upsample(size=(2, 2))(x).shape) == (1, 1, 2, 2)


def test_resizing_errors():
    x = treadle.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="got size None and scale_factor None for an image of"):
        F.interpolate(x)
    with pytest.raises(ValueError, match="got mode 'cubic'"):
        F.interpolate(x, size=3, mode="cubic")


def test_glu_and_cosine_similarity():
    x, y = floats(3, 6), floats(3, 6)
    a, b = x[:, :3], x[:, 3:]
    assert np.allclose(F.glu(treadle.from_numpy(x)).numpy(), a / (1 + np.exp(-b)), atol=1e-6)
    with pytest.raises(ShapeError, match="the size 3 of dimension 0 must be even"):
        F.glu(treadle.from_numpy(x), 0)
    cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    got = F.cosine_similarity(treadle.from_numpy(x), treadle.from_numpy(y))
    assert np.allclose(got.numpy(), cosine, atol=1e-6)
    zero = treadle.zeros(1, 4, requires_grad=True)
    F.cosine_similarity(zero, treadle.ones(1, 4)).sum().backward()
    assert zero.grad.isfinite().all()


def test_adaptive_means_see_only_their_own_elements():
    """Neither NaN nor infinity leaks into a mean of other elements."""
    x = np.ones((1, 1, 4, 5), np.float32)
    x[0, 0, 0, 0], x[0, 0, 3, 4] = np.nan, np.inf
    out = F.adaptive_avg_pool2d(treadle.from_numpy(x), 3).numpy()[0, 0]
    assert np.isnan(out[0, 0])
    assert np.isinf(out[2, 2])
    assert (np.delete(out.ravel(), [0, 8]) == 1).all()
