"""Every layer keeps what layers promise."""

from __future__ import annotations

import pytest

from treadle import nn
from treadle.testing.layers import check_layer

LAYERS = {
    "linear": (lambda: nn.Linear(5, 3), (4, 5), (4, 3)),
    "linear without bias": (lambda: nn.Linear(5, 3, bias=False), (2, 4, 5), (2, 4, 3)),
    "identity": (nn.Identity, (4, 5), (4, 5)),
    "flatten": (nn.Flatten, (2, 3, 4), (2, 12)),
    "unflatten": (lambda: nn.Unflatten(1, (3, 4)), (2, 12), (2, 3, 4)),
    "conv2d": (lambda: nn.Conv2d(2, 3, 3, padding=1), (2, 2, 5, 6), (2, 3, 5, 6)),
    "conv2d strided": (
        lambda: nn.Conv2d(4, 6, (3, 2), stride=2, dilation=(1, 2), groups=2, bias=False),
        (2, 4, 7, 7), (2, 6, 3, 3),
    ),
    "conv2d reflecting": (
        lambda: nn.Conv2d(1, 2, 3, padding=(1, 2), padding_mode="reflect"), (1, 1, 5, 6),
        (1, 2, 5, 8),
    ),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3, padding="same"), (2, 2, 6), (2, 3, 6)),
    "conv_transpose2d": (
        lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1), (1, 2, 3, 4),
        (1, 3, 6, 8),
    ),
    "conv1d strided": (
        lambda: nn.Conv1d(2, 4, 3, stride=2, padding=2, dilation=2, groups=2), (2, 2, 7),
        (2, 4, 4),
    ),
    "conv2d depthwise": (
        lambda: nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3), (2, 3, 5, 6), (2, 6, 3, 3),
    ),
    "conv3d": (lambda: nn.Conv3d(2, 3, (1, 2, 3), padding=(0, 1, 1)), (1, 2, 2, 3, 4),
               (1, 3, 2, 4, 4)),
    "conv3d strided": (
        lambda: nn.Conv3d(2, 2, 2, stride=(1, 2, 2), groups=2, bias=False), (1, 2, 2, 4, 4),
        (1, 2, 1, 2, 2),
    ),
    "conv_transpose1d": (
        lambda: nn.ConvTranspose1d(2, 4, 3, stride=2, dilation=2, groups=2), (2, 2, 4),
        (2, 4, 11),
    ),
    "conv_transpose3d": (
        lambda: nn.ConvTranspose3d(2, 1, (1, 2, 2), stride=(1, 2, 1)), (1, 2, 2, 2, 3),
        (1, 1, 2, 4, 4),
    ),
    "max_pool2d": (lambda: nn.MaxPool2d(2), (2, 2, 4, 5), (2, 2, 2, 2)),
    "max_pool1d": (lambda: nn.MaxPool1d(3, 2, 1), (2, 2, 7), (2, 2, 4)),
    "avg_pool2d": (lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True), (2, 2, 6, 6), (2, 2, 4, 4)),
    "avg_pool1d": (lambda: nn.AvgPool1d(2), (2, 2, 6), (2, 2, 3)),
    "adaptive_avg_pool2d": (lambda: nn.AdaptiveAvgPool2d((2, 3)), (2, 2, 5, 7), (2, 2, 2, 3)),
    "adaptive_max_pool2d": (lambda: nn.AdaptiveMaxPool2d(2), (2, 2, 4, 6), (2, 2, 2, 2)),
    "batch_norm1d": (lambda: nn.BatchNorm1d(3), (6, 3), (6, 3)),
    "batch_norm1d of sequences": (lambda: nn.BatchNorm1d(3, momentum=None), (4, 3, 2), (4, 3, 2)),
    "batch_norm2d": (lambda: nn.BatchNorm2d(3), (4, 3, 2, 3), (4, 3, 2, 3)),
    "batch_norm2d plain": (
        lambda: nn.BatchNorm2d(3, affine=False, track_running_stats=False), (4, 3, 2, 3),
        (4, 3, 2, 3),
    ),
    "batch_norm3d": (lambda: nn.BatchNorm3d(2), (3, 2, 2, 1, 2), (3, 2, 2, 1, 2)),
    "instance_norm1d": (lambda: nn.InstanceNorm1d(3), (2, 3, 4), (2, 3, 4)),
    "instance_norm2d": (
        lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True), (4, 3, 2, 3),
        (4, 3, 2, 3),
    ),
    "instance_norm3d": (lambda: nn.InstanceNorm3d(2, affine=True), (2, 2, 3, 2), (2, 2, 3, 2)),
    "layer_norm": (lambda: nn.LayerNorm((3, 4)), (2, 3, 4), (2, 3, 4)),
    "layer_norm without bias": (lambda: nn.LayerNorm(4, bias=False), (2, 3, 4), (2, 3, 4)),
    "rms_norm": (lambda: nn.RMSNorm(4), (2, 3, 4), (2, 3, 4)),
    "group_norm": (lambda: nn.GroupNorm(2, 4), (2, 4, 3), (2, 4, 3)),
    "dropout": (lambda: nn.Dropout(0.4), (6, 7), (6, 7)),
    "dropout2d": (lambda: nn.Dropout2d(0.4), (3, 4, 2, 2), (3, 4, 2, 2)),
    "prelu": (lambda: nn.PReLU(3), (2, 3, 4), (2, 3, 4)),
    "threshold": (lambda: nn.Threshold(0.1, 20.0), (3, 4), (3, 4)),
    "gelu tanh": (lambda: nn.GELU("tanh"), (3, 4), (3, 4)),
    "sequential": (
        lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.BatchNorm1d(5), nn.Linear(5, 2)),
        (6, 4), (6, 2),
    ),
}  # fmt: skip

PLAIN_ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Hardtanh, nn.LeakyReLU, nn.ELU, nn.CELU, nn.GELU,
    nn.Sigmoid, nn.LogSigmoid, nn.Hardsigmoid, nn.Hardswish, nn.Mish, nn.Tanh, nn.Tanhshrink,
    nn.Softsign, nn.Softplus,
)  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    make, input_shape, output_shape = LAYERS[name]
    check_layer(make, input_shape, output_shape)


@pytest.mark.parametrize("make", PLAIN_ACTIVATIONS, ids=lambda c: c.__name__)
def test_activation(make):
    check_layer(make, (3, 5), (3, 5), order=2)


@pytest.mark.parametrize("make", (nn.Softmax, nn.Softmin, nn.LogSoftmax), ids=lambda c: c.__name__)
def test_softmax(make):
    check_layer(lambda: make(dim=1), (3, 5), (3, 5))


def test_embedding():
    check_layer(lambda: nn.Embedding(7, 3), (2, 4), (2, 4, 3), num_classes=7)


def test_conformance_notices_a_result_of_another_shape():
    with pytest.raises(AssertionError, match=r"has shape \(4, 2\), not \(4, 3\)"):
        check_layer(lambda: nn.Linear(3, 2), (4, 3), (4, 3))


class Cut(nn.Linear):
    def forward(self, input):
        return super().forward(input.detach())


class Restless(nn.Dropout):
    def forward(self, input):
        return nn.functional.dropout(input, self.p)


def test_conformance_notices_a_wrong_gradient():
    with pytest.raises(AssertionError, match="the gradient is wrong"):
        check_layer(lambda: Cut(3, 2), (4, 3), (4, 2))


def test_conformance_notices_evaluation_that_is_random():
    with pytest.raises(AssertionError, match="evaluation must give the same result twice"):
        check_layer(Restless, (4, 30), (4, 30))
