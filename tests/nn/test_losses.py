"""Losses against NumPy in float64, at the edges, and refusing what is wrong."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

import treadle
import treadle.nn.functional as F
from treadle import nn
from treadle.base.errors import DTypeError, ShapeError
from treadle.testing.gradients import check_grads

RNG = np.random.default_rng(0)
REDUCTIONS = ("none", "mean", "sum")
CLOSE = {"rtol": 3e-5, "atol": 1e-6}


def log_softmax(x, axis):
    shifted = x - x.max(axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


def reduced(losses, reduction, count=None):
    if reduction == "none":
        return losses
    total = losses.sum()
    return total if reduction == "sum" else total / (losses.size if count is None else count)


def cross_entropy(x, target, weight, ignore, reduction, smoothing):
    """One example at a time, straight from the definition."""
    logs = np.moveaxis(log_softmax(x, 1), 1, -1).reshape(-1, x.shape[1])
    losses, count = np.zeros(len(logs)), 0.0
    classes = x.shape[1]
    for i, (row, label) in enumerate(zip(logs, target.reshape(-1), strict=True)):
        if label == ignore:
            continue
        share = np.full(classes, smoothing / classes)
        share[label] += 1 - smoothing
        losses[i] = -(row * share * weight).sum()
        count += weight[label]
    return reduced(losses.reshape(target.shape), reduction, count)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 2), (2, 4, 3, 2)])
def test_cross_entropy_of_classes(shape, smoothing, reduction):
    x = RNG.normal(size=shape)
    target = RNG.integers(0, 4, (shape[0], *shape[2:]))
    target.reshape(-1)[1] = -100
    weight = RNG.uniform(0.5, 2, 4)
    for w in (np.ones(4), weight):
        wanted = cross_entropy(x, target, w, -100, reduction, smoothing)
        loss = nn.CrossEntropyLoss(
            None if w is not weight else treadle.tensor(w), reduction=reduction,
            label_smoothing=smoothing,
        )  # fmt: skip
        got = loss(treadle.tensor(x, dtype=treadle.float32), treadle.tensor(target))
        np.testing.assert_allclose(got.numpy(), wanted, **CLOSE)


def test_cross_entropy_of_one_example_and_of_other_integers():
    x = treadle.tensor([1.0, 2.0, 0.5])
    wanted = -log_softmax(np.array([1, 2, 0.5]), 0)[2]
    for dtype in (treadle.int64, treadle.int32, treadle.uint8):
        assert F.cross_entropy(x, treadle.tensor(2, dtype=dtype)).item() == pytest.approx(wanted)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy_of_probabilities(reduction):
    x, shares = RNG.normal(size=(5, 3, 2)), RNG.dirichlet(np.ones(3), (5, 2)).transpose(0, 2, 1)
    weight = np.array([0.5, 1.0, 2.0])
    mixed = shares * 0.9 + 0.1 / 3
    losses = -(log_softmax(x, 1) * mixed * weight[:, None]).sum(1)
    got = F.cross_entropy(
        *(treadle.tensor(v) for v in (x, shares, weight)), reduction=reduction,
        label_smoothing=0.1,
    )  # fmt: skip
    np.testing.assert_allclose(got.numpy(), reduced(losses, reduction), rtol=1e-10)


def test_cross_entropy_is_safe_for_large_scores():
    x = treadle.tensor([[1e4, 0.0], [0.0, -1e4]], requires_grad=True)
    loss = F.cross_entropy(x, treadle.tensor([1, 0]))
    loss.backward()
    assert loss.item() == 5000.0
    assert x.grad.tolist() == [[0.5, -0.5], [0.0, 0.0]]


def test_cross_entropy_gradients():
    x = treadle.tensor(RNG.normal(size=(4, 3)), requires_grad=True)
    target = treadle.tensor([0, 2, -100, 1])
    check_grads(lambda x: F.cross_entropy(x, target, label_smoothing=0.1), [x])


def test_only_ignored_targets_have_no_mean():
    x = treadle.zeros(2, 3)
    loss = F.cross_entropy(x, treadle.tensor([-100, -100]))
    assert math.isnan(loss.item())
    assert F.cross_entropy(x, treadle.tensor([1, 1]), ignore_index=1, reduction="sum").item() == 0


def test_16_bit_losses_are_computed_in_f32():
    x = treadle.tensor(RNG.normal(size=(64, 10))).to(treadle.bfloat16)
    target = treadle.tensor(RNG.integers(0, 10, 64))
    loss = F.cross_entropy(x, target)
    assert loss.dtype is treadle.bfloat16
    assert loss.item() == F.cross_entropy(x.float(), target).to(treadle.bfloat16).item()


@pytest.mark.parametrize("label", [3, -1])
def test_labels_out_of_range_are_index_errors_with_the_line(label):
    loss = nn.CrossEntropyLoss()(treadle.zeros(2, 3), treadle.tensor([0, label]))
    with pytest.raises(IndexError) as caught:
        loss.item()
    assert re.fullmatch(
        rf"cross_entropy: target {label} is out of range for 3 classes \(0..2, or ignore_index=-10"
        r"0\) at \[1\]; number the classes from 0, and give the input one score for each "
        r"\[test_losses.py:\d+\]",
        str(caught.value),
    )


def test_an_ignored_class_is_not_offered_and_a_single_label_has_no_place():
    loss = F.nll_loss(treadle.zeros(4), treadle.tensor(7), ignore_index=2)
    with pytest.raises(IndexError, match=r"^nll_loss: target 7 is out of range for 4 classes \(0..3"
                       r"\); number"):  # fmt: skip
        loss.item()


def test_a_bad_label_leaves_the_parameters_alone():
    layer = nn.Linear(2, 3)
    optimizer = treadle.optim.SGD(layer.parameters(), lr=0.1)
    before = layer.weight.tolist()
    for label, kind in ((3, IndexError), (2, None)):
        loss = F.cross_entropy(layer(treadle.ones(1, 2)), treadle.tensor([label]))
        optimizer.zero_grad()
        loss.backward()
        if kind is not None:
            with pytest.raises(kind, match="target 3 is out of range"):
                optimizer.step()
            assert layer.weight.tolist() == before
        else:
            optimizer.step()
            assert layer.weight.tolist() != before


def test_class_target_errors():
    x = treadle.zeros(4, 3)
    cases = (
        (treadle.zeros(4, 1).long(), ShapeError, r"cross_entropy: got an input of shape \(4, 3\) a"
         r"nd class indices of shape \(4, 1\); with 3 classes in dimension 1 the target must have "
         r"the shape \(4,\); reshape it, for example with .squeeze\(\)"),
        (treadle.zeros(4, 3).long(), ShapeError, r"class indices of shape \(4, 3\)"),
        (treadle.zeros(4), DTypeError, r"cross_entropy: got a target of dtype float32 and shape "
         r"\(4,\) for an input of shape \(4, 3\); class indices are integers of shape \(4,\): "
         r"convert the target with .long\(\)"),
    )  # fmt: skip
    for target, kind, text in cases:
        with pytest.raises(kind, match=text):
            F.cross_entropy(x, target)
    good = treadle.zeros(4).long()
    with pytest.raises(DTypeError, match="nll_loss: got a target of dtype bool"):
        F.nll_loss(x, good > 0)
    with pytest.raises(ShapeError, match=r"got a weight of shape \(4,\) for 3 classes"):
        F.cross_entropy(x, good, treadle.ones(4))
    with pytest.raises(DTypeError, match="cross_entropy: got an input of dtype int64"):
        F.cross_entropy(x.long(), good)
    with pytest.raises(ValueError, match="label_smoothing 2; it is from 0 to 1"):
        F.cross_entropy(x, good, label_smoothing=2)
    with pytest.raises(ValueError, match="got reduction 'avg'; it is one of 'none', 'mean', 'sum'"):
        F.cross_entropy(x, good, reduction="avg")
    with pytest.raises(ShapeError, match="cross_entropy: got an input without dimensions"):
        F.cross_entropy(treadle.tensor(1.0), good)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nll_loss(reduction):
    logs, target = log_softmax(RNG.normal(size=(5, 3)), 1), np.array([0, 2, 1, 1, 2])
    weight = np.array([1.0, 2.0, 0.5])
    losses = -logs[np.arange(5), target] * weight[target]
    losses[target == 1] = 0
    count = weight[target][target != 1].sum()
    got = nn.NLLLoss(treadle.tensor(weight), ignore_index=1, reduction=reduction)(
        treadle.tensor(logs), treadle.tensor(target)
    )
    np.testing.assert_allclose(got.numpy(), reduced(losses, reduction, count), rtol=1e-12)


# --- numbers ------------------------------------------------------------------------------------


def _huber(d, delta):
    return np.where(d <= delta, 0.5 * d * d, delta * (d - delta / 2))


NUMBERS = {
    "mse": (nn.MSELoss, {}, lambda x, y: (x - y) ** 2),
    "l1": (nn.L1Loss, {}, lambda x, y: abs(x - y)),
    "smooth_l1": (nn.SmoothL1Loss, {"beta": 0.5}, lambda x, y: _huber(abs(x - y), 0.5) / 0.5),
    "smooth_l1 at 0": (nn.SmoothL1Loss, {"beta": 0.0}, lambda x, y: abs(x - y)),
    "huber": (nn.HuberLoss, {"delta": 0.7}, lambda x, y: _huber(abs(x - y), 0.7)),
    "bce": (nn.BCELoss, {}, lambda x, y: -(y * np.log(x) + (1 - y) * np.log(1 - x))),
    "bce logits": (
        nn.BCEWithLogitsLoss, {}, lambda x, y: np.log1p(np.exp(-x)) + (1 - y) * x
    ),
    "kl": (nn.KLDivLoss, {}, lambda x, y: y * (np.log(y) - x)),
    "kl logs": (nn.KLDivLoss, {"log_target": True}, lambda x, y: np.exp(y) * (y - x)),
}  # fmt: skip


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", NUMBERS)
def test_losses_of_numbers(name, reduction):
    make, settings, reference = NUMBERS[name]
    x, y = RNG.uniform(0.05, 0.95, (4, 5)), RNG.uniform(0.05, 0.95, (4, 5))
    loss = make(reduction=reduction, **settings)
    a, b = treadle.tensor(x, requires_grad=True), treadle.tensor(y, requires_grad=True)
    wanted = reduced(reference(x, y), reduction)
    np.testing.assert_allclose(loss(a, b).detach().numpy(), wanted, rtol=1e-9)
    check_grads(loss, [a, b])
    half = loss(a.detach().half(), b.detach().half())
    assert half.dtype is treadle.float16
    np.testing.assert_allclose(half.float().numpy(), wanted, rtol=1e-2, atol=1e-2)


def test_losses_refuse_what_does_not_fit():
    x = treadle.zeros(4, 1)
    for function in (
        F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.binary_cross_entropy,
        F.binary_cross_entropy_with_logits, F.kl_div,
    ):  # fmt: skip
        text = rf"{function.__name__}: got an input of shape \(4, 1\) and a target of shape \(4,\)"
        with pytest.raises(ShapeError, match=text):
            function(x, treadle.zeros(4))
        with pytest.raises(DTypeError, match=f"{function.__name__}: got a target of dtype int64"):
            function(x, x.long())
        with pytest.raises(ValueError, match=f"{function.__name__}: got reduction 'median'"):
            function(x, x, reduction="median")
    with pytest.raises(ValueError, match="huber_loss: got delta 0; it must be positive"):
        F.huber_loss(x, x, delta=0)
    with pytest.raises(ValueError, match="smooth_l1_loss: got beta -1; it must not be negative"):
        F.smooth_l1_loss(x, x, beta=-1)


@pytest.mark.parametrize("name", [*NUMBERS, "cross_entropy"])
def test_a_nan_in_the_target_is_an_error_and_one_in_the_input_is_not(name):
    make, settings, _ = NUMBERS.get(name, (nn.CrossEntropyLoss, {}, None))
    loss = make(**settings)
    good = np.full((2, 3), 0.5, np.float32)
    bad = good.copy()
    bad[1, 0] = bad[1, 2] = math.nan
    assert math.isnan(loss(treadle.tensor(bad), treadle.tensor(good)).item())
    with pytest.raises(RuntimeError) as caught:
        loss(treadle.tensor(good), treadle.tensor(bad)).item()
    assert re.fullmatch(
        r"\w+: the target has a NaN at \[1, 0\] \(and 1 more\); leave such elements out, or "
        r"replace them with treadle.nan_to_num\(\) \[test_losses.py:\d+\]",
        str(caught.value),
    )


@pytest.mark.parametrize("bad", [1.5, -0.25])
def test_binary_cross_entropy_of_what_is_no_probability(bad):
    loss = F.binary_cross_entropy(treadle.tensor([0.5, bad]), treadle.ones(2))
    with pytest.raises(RuntimeError) as caught:
        loss.item()
    assert re.fullmatch(
        rf"binary_cross_entropy: got the input {bad} at \[1\], outside \[0, 1\]; apply sigmoid\(\) "
        r"first, or use binary_cross_entropy_with_logits, which takes any score "
        r"\[test_losses.py:\d+\]",
        str(caught.value),
    )


def test_binary_cross_entropy_is_finite_at_0_and_1():
    x = treadle.tensor([0.0, 1.0, 0.0, 1.0], requires_grad=True)
    loss = F.binary_cross_entropy(x, treadle.tensor([0.0, 1.0, 1.0, 0.0]), reduction="none")
    assert loss.tolist() == [0.0, 0.0, 100.0, 100.0]
    loss.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [0, 0, -1e12, 1e12])


def test_binary_cross_entropy_weights():
    x, y, w = (RNG.uniform(0.1, 0.9, (3, 4)) for _ in range(3))
    p = np.array([1.0, 2.0, 3.0, 4.0])
    t = [treadle.tensor(v) for v in (x, y, w, p)]
    log_loss = -(y * np.log(x) + (1 - y) * np.log(1 - x)) * w
    np.testing.assert_allclose(F.binary_cross_entropy(*t[:3]).item(), log_loss.mean())
    sigmoid = 1 / (1 + np.exp(-x))
    wanted = -(p * y * np.log(sigmoid) + (1 - y) * np.log(1 - sigmoid)) * w[0]
    loss = nn.BCEWithLogitsLoss(t[2][0], reduction="sum", pos_weight=t[3])
    np.testing.assert_allclose(loss(t[0], t[1]).item(), wanted.sum())
    assert "pos_weight" in dict(loss.named_buffers())


def test_scores_of_any_size_have_finite_losses():
    x = treadle.tensor([-1e4, 1e4, 0.0], requires_grad=True)
    loss = F.binary_cross_entropy_with_logits(x, treadle.tensor([1.0, 1.0, 0.0]), reduction="none")
    np.testing.assert_allclose(loss.detach().numpy(), [1e4, 0, math.log(2)], rtol=1e-6)
    loss.sum().backward()
    assert x.grad.tolist() == [-1.0, 0.0, 0.5]


def test_kl_div_of_impossible_events_and_by_batch():
    logs = treadle.tensor(np.log([[0.5, 0.5], [0.25, 0.75]]), requires_grad=True)
    target = treadle.tensor([[1.0, 0.0], [0.5, 0.5]], dtype=treadle.float64)
    loss = F.kl_div(logs, target, reduction="batchmean")
    wanted = (math.log(2) + 0.5 * math.log(2) + 0.5 * math.log(2 / 3)) / 2
    assert loss.item() == pytest.approx(wanted)
    loss.backward()
    assert logs.grad.tolist() == [[-0.5, 0.0], [-0.25, -0.25]]
