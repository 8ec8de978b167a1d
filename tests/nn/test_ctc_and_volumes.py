"""CTC against the sum over all alignments; pooling of volumes against NumPy's windows."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import treadle
import treadle.nn.functional as F
from treadle import nn
from treadle.base.errors import ShapeError
from treadle.testing.gradients import check_grads
from treadle.testing.layers import check_layer

RNG = np.random.default_rng(0)


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


LOGS = log_softmax(RNG.normal(size=(5, 4, 3)))  # (T, N, C)
TARGETS, ENDS, SIZES = [[1, 2], [1, 1], [2, 0], [0, 0]], [5, 4, 3, 2], [2, 2, 1, 0]


def brute_force(logs, target, blank=0):
    """The probability of every alignment that collapses to the target, added up."""
    total = 0.0
    for path in itertools.product(range(logs.shape[1]), repeat=len(logs)):
        collapsed = [c for c, _ in itertools.groupby(path) if c != blank]
        if collapsed == list(target):
            total += math.exp(sum(logs[t, c] for t, c in enumerate(path)))
    return -math.log(total) if total else math.inf


def expected_losses():
    return np.array([
        brute_force(LOGS[:end, n], TARGETS[n][:size])
        for n, (end, size) in enumerate(zip(ENDS, SIZES, strict=True))
    ])  # fmt: skip


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_ctc_is_the_sum_over_all_alignments(reduction):
    losses = expected_losses()
    expected = {
        "none": losses, "sum": losses.sum(), "mean": (losses / np.maximum(SIZES, 1)).mean(),
    }[reduction]  # fmt: skip
    loss = nn.CTCLoss(reduction=reduction)
    found = loss(treadle.tensor(LOGS), treadle.tensor(TARGETS), ENDS, SIZES)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)
    in_a_row = treadle.tensor([1, 2, 1, 1, 2])
    again = loss(treadle.tensor(LOGS), in_a_row, treadle.tensor(ENDS), treadle.tensor(SIZES))
    assert again.tolist() == found.tolist()


def test_gradients_of_ctc():
    x = treadle.tensor(LOGS, requires_grad=True)
    check_grads(
        lambda x: F.ctc_loss(x.log_softmax(-1), treadle.tensor(TARGETS), ENDS, SIZES), [x], order=1
    )


def test_another_blank_and_a_single_example():
    found = F.ctc_loss(treadle.tensor(LOGS[:, 0]), treadle.tensor([0, 1]), 5, 2, 2, "none")
    assert found.item() == pytest.approx(brute_force(LOGS[:, 0], [0, 1], 2))


def test_targets_that_no_alignment_gives():
    x = treadle.tensor(LOGS, requires_grad=True)
    short = [5, 2, 3, 2]  # "1 1" takes three times
    losses = F.ctc_loss(x, treadle.tensor(TARGETS), short, SIZES, reduction="none")
    assert losses.isinf().tolist() == [False, True, False, False]
    F.ctc_loss(x, treadle.tensor(TARGETS), short, SIZES, zero_infinity=True).backward()
    assert np.isfinite(x.grad.numpy()).all()
    assert not x.grad[:, 1].any()


@pytest.mark.parametrize(
    "changes, error, text",
    [
        ({"targets": [[3, 0]] * 4}, ValueError, "got targets from 0 to 3; they are classes from 0"),
        ({"targets": [[0, 1]] * 4}, ValueError, "and not the blank 0"),
        ({"input_lengths": [6] * 4}, ValueError, "input_lengths up to 6 and blank 0 for 5 times"),
        ({"input_lengths": [5] * 3}, ShapeError, r"input_lengths of shape \(3,\) for 4 examples"),
        ({"targets": [1, 2]}, ShapeError, r"targets of shape \(2,\) for 4 examples of lengths"),
    ],
)
def test_errors_of_ctc(changes, error, text):
    given = {"targets": TARGETS, "input_lengths": ENDS, "target_lengths": [2] * 4, **changes}
    given["targets"] = treadle.tensor(given["targets"])
    if "targets" not in changes:
        given["targets"] = treadle.ones(4, 2).long()
    with pytest.raises(error, match=text):
        F.ctc_loss(treadle.tensor(LOGS), **given)


# --- volumes --------------------------------------------------------------------------------------

VOLUME = RNG.normal(size=(2, 3, 5, 6, 7))


def windows(x, kernel, stride):
    found = np.lib.stride_tricks.sliding_window_view(x, kernel, (2, 3, 4))
    return found[:, :, :: stride[0], :: stride[1], :: stride[2]]


@pytest.mark.parametrize(
    "kernel, stride, padding",
    [((2, 2, 2), (2, 2, 2), (0, 0, 0)), ((2, 3, 2), (1, 2, 2), (1, 1, 0))],
)
def test_volumes_are_pooled_by_windows(kernel, stride, padding):
    around = ((0, 0), (0, 0), *((p, p) for p in padding))
    x = treadle.tensor(VOLUME)
    lowest = windows(np.pad(VOLUME, around, constant_values=-9), kernel, stride)
    found = F.max_pool3d(x, kernel, stride, padding)
    np.testing.assert_array_equal(found.numpy(), lowest.max((-1, -2, -3)))
    zeros = windows(np.pad(VOLUME, around), kernel, stride)
    found = F.avg_pool3d(x, kernel, stride, padding)
    np.testing.assert_allclose(found.numpy(), zeros.mean((-1, -2, -3)), rtol=1e-12, atol=1e-14)
    counts = windows(np.pad(np.ones_like(VOLUME), around), kernel, stride).sum((-1, -2, -3))
    found = F.avg_pool3d(x, kernel, stride, padding, count_include_pad=False)
    expected = zeros.sum((-1, -2, -3)) / counts
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-14)


def test_adaptive_means_of_volumes():
    found = F.adaptive_avg_pool3d(treadle.tensor(VOLUME), (2, 3, None)).numpy()
    depths = VOLUME[:, :, 0:3].mean(2), VOLUME[:, :, 2:5].mean(2)  # parts overlap
    rows = np.stack(depths, 2).reshape(2, 3, 2, 3, 2, 7).mean(4)
    np.testing.assert_allclose(found, rows, rtol=1e-12, atol=1e-14)
    whole = nn.AdaptiveAvgPool3d(1)(treadle.tensor(VOLUME)).flatten(1).numpy()
    np.testing.assert_allclose(whole, VOLUME.mean((2, 3, 4)), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "make, out",
    [
        (lambda: nn.MaxPool3d(2), (2, 2, 2, 2, 3)),
        (lambda: nn.AvgPool3d(3, 1, 1), (2, 2, 4, 5, 6)),
        (lambda: nn.AdaptiveAvgPool3d((2, 5, 3)), (2, 2, 2, 5, 3)),
    ],
)
def test_layers_of_volumes(make, out):
    check_layer(make, (2, 2, 4, 5, 6), out)


def test_errors_of_volumes():
    with pytest.raises(ShapeError, match=r"max_pool3d: got an input of shape \(2, 3\)"):
        F.max_pool3d(treadle.zeros(2, 3), 2)
    with pytest.raises(
        TypeError, match=r"avg_pool3d: got kernel_size \(2, 2\); it takes an int or"
    ):
        F.avg_pool3d(treadle.tensor(VOLUME), (2, 2))
