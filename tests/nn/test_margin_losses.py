"""Losses by margins, distances and densities against NumPy, one example at a time."""

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
X, Y, Z = (RNG.normal(size=(5, 6)) for _ in range(3))
SIGNS, ROW_SIGNS = (np.where(RNG.random(s) < 0.5, 1.0, -1.0) for s in ((5, 6), 5))
CLASSES, WEIGHT = RNG.integers(0, 6, 5), RNG.uniform(0.5, 2, 6)
NAMES = np.array(
    [[0, 2, -1, 1, 1, 1], [1, -1, 0, 0, 0, 0], [-1] * 6, [5, 4, 3, 2, 1, 0], [3, 3, -1, 1, 2, 0]]
)


def above(x):
    return np.maximum(x, 0)


def distance(x, y, p=2.0, eps=1e-6):
    return (np.abs(x - y + eps) ** p).sum(-1) ** (1 / p)


def cosine(x, y):
    return (x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))


def multi_margin(x, target, p=1, margin=1.0, weight=None):
    weight = np.ones(x.shape[1]) if weight is None else weight
    return np.array([
        sum(weight[c] * max(0, margin - row[c] + row[i]) ** p for i in range(len(row)) if i != c)
        / len(row)
        for row, c in zip(x, target, strict=True)
    ])  # fmt: skip


def multilabel_margin(x, target):
    out = []
    for row, names in zip(x, target, strict=True):
        wanted = list(names[: list(names).index(-1)]) if -1 in names else list(names)
        others = [i for i in range(len(row)) if i not in wanted]
        out.append(sum(max(0, 1 - (row[j] - row[i])) for j in wanted for i in others) / len(row))
    return np.array(out)


def log_sigmoid(x):
    return -np.log1p(np.exp(-x))


def poisson(x, y, log_input=True, full=False, eps=1e-8):
    loss = np.exp(x) - y * x if log_input else x - y * np.log(x + eps)
    with np.errstate(divide="ignore", invalid="ignore"):
        extra = y * np.log(y) - y + 0.5 * np.log(2 * np.pi * y)
    return loss + np.where(y > 1, extra, 0) if full else loss


def gaussian(x, y, v, full=False, eps=1e-6):
    v = np.maximum(v, eps)
    return 0.5 * (np.log(v) + (x - y) ** 2 / v + (math.log(2 * math.pi) if full else 0))


# (layer, its arguments, the inputs, the reference); float inputs need gradients.
CASES = [
    (nn.MarginRankingLoss, {"margin": 0.3}, (X, Y, SIGNS),
     lambda x, y, t: above(-t * (x - y) + 0.3)),
    (nn.HingeEmbeddingLoss, {"margin": 0.7}, (X, SIGNS),
     lambda x, t: np.where(t == 1, x, above(0.7 - x))),
    (nn.CosineEmbeddingLoss, {"margin": 0.1}, (X, Y, ROW_SIGNS),
     lambda x, y, t: np.where(t == 1, 1 - cosine(x, y), above(cosine(x, y) - 0.1))),
    (nn.TripletMarginLoss, {"margin": 1.5}, (X, Y, Z),
     lambda a, p, n: above(distance(a, p) - distance(a, n) + 1.5)),
    (nn.TripletMarginLoss, {"p": 3.0, "swap": True}, (X, Y, Z),
     lambda a, p, n: above(distance(a, p, 3)
                           - np.minimum(distance(a, n, 3), distance(p, n, 3)) + 1)),
    (nn.TripletMarginWithDistanceLoss,
     {"distance_function": lambda x, y: (x - y).square().sum(-1)}, (X, Y, Z),
     lambda a, p, n: above(((a - p) ** 2).sum(-1) - ((a - n) ** 2).sum(-1) + 1)),
    (nn.MultiMarginLoss, {}, (X, CLASSES), multi_margin),
    (nn.MultiMarginLoss, {"p": 2, "margin": 0.5, "weight": treadle.tensor(WEIGHT)}, (X, CLASSES),
     lambda x, t: multi_margin(x, t, 2, 0.5, WEIGHT)),
    (nn.MultiLabelMarginLoss, {}, (X, NAMES), multilabel_margin),
    (nn.SoftMarginLoss, {}, (X, SIGNS), lambda x, t: np.log1p(np.exp(-t * x))),
    (nn.MultiLabelSoftMarginLoss, {"weight": treadle.tensor(WEIGHT)}, (X, SIGNS > 0),
     lambda x, t: -(WEIGHT * np.where(t, log_sigmoid(x), log_sigmoid(-x))).mean(-1)),
    (nn.PoissonNLLLoss, {"full": True}, (X, np.abs(3 * Y)),
     lambda x, y: poisson(x, y, full=True)),
    (nn.PoissonNLLLoss, {"log_input": False}, (np.abs(X), np.abs(3 * Y)),
     lambda x, y: poisson(x, y, False)),
    (nn.GaussianNLLLoss, {"full": True}, (X, Y, np.abs(Z)),
     lambda x, y, v: gaussian(x, y, v, True)),
    (nn.GaussianNLLLoss, {"eps": 0.01}, (X, Y, np.abs(Z[:, :1])),
     lambda x, y, v: gaussian(x, y, v, eps=0.01)),
]  # fmt: skip


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].__name__)
def test_losses(case, reduction):
    make, settings, arrays, reference = case
    expected = reference(*arrays)
    expected = {"none": expected, "mean": expected.mean(), "sum": expected.sum()}[reduction]
    layer = make(reduction=reduction, **settings)
    found = layer(*map(treadle.tensor, arrays))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    small = [treadle.tensor(x.astype(np.float32) if x.dtype == float else x).bfloat16()
             if x.dtype == float else treadle.tensor(x) for x in arrays]  # fmt: skip
    assert layer(*small).dtype is treadle.bfloat16


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].__name__)
def test_gradients(case):
    make, settings, arrays, _ = case
    are_targets = [a is SIGNS or a is ROW_SIGNS or a.dtype != float for a in arrays]
    tensors = [
        treadle.tensor(a, requires_grad=not fixed)
        for a, fixed in zip(arrays, are_targets, strict=True)
    ]
    check_grads(make(**settings), tensors, order=1)


def test_a_single_example():
    assert F.multi_margin_loss(treadle.tensor(X[0]), treadle.tensor(2)).item() == pytest.approx(
        multi_margin(X[:1], [2])[0]
    )
    assert F.multilabel_margin_loss(
        treadle.tensor(X[0]), treadle.tensor(NAMES[0])
    ).item() == pytest.approx(multilabel_margin(X[:1], NAMES[:1])[0])
    found = F.cosine_embedding_loss(*map(treadle.tensor, (X[0], Y[0], 1.0)))
    assert found.item() == pytest.approx(1 - cosine(X[0], Y[0]))


def test_pairwise_distance():
    found = nn.PairwiseDistance(3.0, keepdim=True)(treadle.tensor(X), treadle.tensor(Y))
    np.testing.assert_allclose(found.numpy(), distance(X, Y, 3)[:, None], rtol=1e-6)


def test_the_bound_of_a_variance_does_not_count_for_its_gradient():
    v = treadle.tensor([1e-9, 1.0], requires_grad=True)
    F.gaussian_nll_loss(treadle.zeros(2), treadle.ones(2), v, eps=0.5, reduction="sum").backward()
    np.testing.assert_allclose(v.grad.numpy(), [0.5 * (1 / 0.5 - 1 / 0.25), 0.0], atol=1e-6)


@pytest.mark.parametrize(
    "call, error, text",
    [
        (
            lambda x: F.soft_margin_loss(x, x, reduction="avg"),
            ValueError,
            "soft_margin_loss: got reduction",
        ),
        (lambda x: F.multi_margin_loss(x, x[0], p=3), ValueError, "got p=3; it is 1 or 2"),
        (lambda x: F.triplet_margin_loss(x, x, x, 0.0), ValueError, "margin 0.0; it must be pos"),
        (lambda x: F.multi_margin_loss(x[None], x), ShapeError, r"it is \(N, C\) or \(C,\)"),
        (lambda x: F.multilabel_margin_loss(x, x[0]), ShapeError, r"a target of shape \(6,\)"),
        (lambda x: F.cosine_embedding_loss(x, x, x), ShapeError, r"they are \(N, D\) and \(N,\)"),
        (lambda x: F.gaussian_nll_loss(x, x, x[0]), ShapeError, r"a var of shape \(6,\)"),
        (lambda x: F.hinge_embedding_loss([1.0], x), TypeError, "got a list"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call(treadle.tensor(X))
