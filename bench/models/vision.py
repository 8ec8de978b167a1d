"""Convolutional networks: ResNet (He et al.) and MobileNet v2 (Sandler et al.)."""

from __future__ import annotations

from typing import Any

from bench.models.draws import Draws
from bench.models.framework import F, nn
from bench.models.program import Inference, Training


def _conv(given: int, wanted: int, window: int, stride: int = 1, groups: int = 1) -> list[Any]:
    """A convolution that keeps the size (but for its stride), and batch norm."""
    return [
        nn.Conv2d(given, wanted, window, stride, window // 2, groups=groups, bias=False),
        nn.BatchNorm2d(wanted),
    ]


class _Residual(nn.Module):
    """relu(body(x) + x), with a convolution on the way around where the shape changes."""

    def __init__(self, body: list[Any], given: int, wanted: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)
        is_same = given == wanted and stride == 1
        self.around = nn.Sequential(*([] if is_same else _conv(given, wanted, 1, stride)))

    def forward(self, x: Any) -> Any:
        return F.relu(self.body(x) + self.around(x))


def _basic(given: int, width: int, stride: int) -> tuple[Any, int]:
    body = [*_conv(given, width, 3, stride), nn.ReLU(), *_conv(width, width, 3)]
    return _Residual(body, given, width, stride), width


def _bottleneck(given: int, width: int, stride: int) -> tuple[Any, int]:
    body = [
        *_conv(given, width, 1), nn.ReLU(), *_conv(width, width, 3, stride), nn.ReLU(),
        *_conv(width, 4 * width, 1),
    ]  # fmt: skip
    return _Residual(body, given, 4 * width, stride), 4 * width


def _stages(kind: Any, given: int, width: int, depths: tuple[int, ...]) -> tuple[list[Any], int]:
    blocks = []
    for stage, depth in enumerate(depths):
        for i in range(depth):
            stride = 2 if stage > 0 and i == 0 else 1
            block, given = kind(given, width << stage, stride)
            blocks.append(block)
    return blocks, given


def _head(width: int, classes: int) -> list[Any]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]


def _resnet18(width: int, classes: int) -> Any:
    """The form for images of 32x32: a 3x3 stem and no pooling behind it."""
    blocks, last = _stages(_basic, width, width, (2, 2, 2, 2))
    return nn.Sequential(*_conv(3, width, 3), nn.ReLU(), *blocks, *_head(last, classes))


def _resnet50(width: int, classes: int, depths: tuple[int, ...]) -> Any:
    blocks, last = _stages(_bottleneck, width, width, depths)
    stem = [*_conv(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *blocks, *_head(last, classes))


class _Inverted(nn.Module):
    """Widened, filtered channel by channel, narrowed; around it where the shape stays."""

    def __init__(self, given: int, wanted: int, stride: int, factor: int) -> None:
        super().__init__()
        width = given * factor
        rise = [*_conv(given, width, 1), nn.ReLU6()] if factor > 1 else []
        self.body = nn.Sequential(
            *rise, *_conv(width, width, 3, stride, width), nn.ReLU6(), *_conv(width, wanted, 1)
        )
        self.is_same = given == wanted and stride == 1

    def forward(self, x: Any) -> Any:
        return x + self.body(x) if self.is_same else self.body(x)


# factor, channels, blocks, stride of the first block
_MOBILE = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
           (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip


def _mobilenet(table: tuple[tuple[int, ...], ...], last: int, classes: int) -> Any:
    given = 32
    layers = [*_conv(3, given, 3, 2), nn.ReLU6()]
    for factor, wanted, blocks, first in table:
        for i in range(blocks):
            layers.append(_Inverted(given, wanted, first if i == 0 else 1, factor))
            given = wanted
    return nn.Sequential(*layers, *_conv(given, last, 1), nn.ReLU6(), *_head(last, classes))


class _Classifier(Training):
    """Images into classes, by SGD with momentum and weight decay."""

    def __init__(self, draws: Draws, net: Any, batch: int, side: int, classes: int,
                 batches: int, rate: float) -> None:  # fmt: skip
        data = [
            (draws.normal(batch, 3, side, side), draws.integers(classes, batch))
            for _ in range(batches)
        ]
        super().__init__(
            draws, net.train(), "SGD", data, lr=rate, momentum=0.9, weight_decay=1e-4
        )  # fmt: skip

    def loss(self, images: Any, labels: Any) -> Any:
        return F.cross_entropy(self.net(images), labels)


def resnet18(draws: Draws, batch: int = 32, side: int = 32, width: int = 64, classes: int = 10,
             batches: int = 8) -> Training:  # fmt: skip
    """Training ResNet-18 on small images."""
    return _Classifier(draws, _resnet18(width, classes), batch, side, classes, batches, 0.01)


def resnet50(draws: Draws, batch: int = 4, side: int = 224, width: int = 64, classes: int = 1000,
             depths: tuple[int, ...] = (3, 4, 6, 3), batches: int = 4) -> Training:  # fmt: skip
    """Training ResNet-50."""
    net = _resnet50(width, classes, depths)
    return _Classifier(draws, net, batch, side, classes, batches, 0.001)


def resnet50_inference(draws: Draws, side: int = 224, width: int = 64, classes: int = 1000,
                       depths: tuple[int, ...] = (3, 4, 6, 3),
                       batches: int = 8) -> Inference:  # fmt: skip
    """ResNet-50 asked about one image at a time."""
    images = [draws.normal(1, 3, side, side) for _ in range(batches)]
    return Inference(draws, _resnet50(width, classes, depths), images)


def mobilenet_inference(draws: Draws, side: int = 224, last: int = 1280, classes: int = 1000,
                        table: tuple[tuple[int, ...], ...] = _MOBILE,
                        batches: int = 8) -> Inference:  # fmt: skip
    """MobileNet v2 asked about one image at a time."""
    images = [draws.normal(1, 3, side, side) for _ in range(batches)]
    return Inference(draws, _mobilenet(table, last, classes), images)
