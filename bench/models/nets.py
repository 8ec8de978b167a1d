"""The networks of ``python -m bench inference``: well-known shapes, random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from bench.models import vision
from bench.models.draws import Draws
from bench.models.framework import F, nn, torch


def _lenet() -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    )  # fmt: skip


def _alexnet() -> Any:
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten(),
        nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096),
        nn.ReLU(), nn.Linear(4096, 1000),
    )  # fmt: skip


def _vgg16() -> Any:
    layers: list[Any] = []
    given = 3
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            layers += [nn.Conv2d(given, width, 3, padding=1), nn.ReLU()]
            given = width
        layers.append(nn.MaxPool2d(2))
    head = [nn.Linear(25088, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(),
            nn.Dropout(), nn.Linear(4096, 1000)]  # fmt: skip
    return nn.Sequential(*layers, nn.Flatten(), *head)


def _resnet50() -> Any:
    return vision._resnet50(64, 1000, (3, 4, 6, 3))


def _mobilenet() -> Any:
    return vision._mobilenet(vision._MOBILE, 1280, 1000)


class _Fire(nn.Module):
    """Squeezed to few channels, then widened by 1x1 and by 3x3 windows side by side."""

    def __init__(self, given: int, few: int, wanted: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(given, few, 1)
        self.one = nn.Conv2d(few, wanted, 1)
        self.three = nn.Conv2d(few, wanted, 3, padding=1)

    def forward(self, x: Any) -> Any:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.one(x)), F.relu(self.three(x))], 1)


def _squeezenet() -> Any:
    """Version 1.1 (Iandola et al.)."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2), _Fire(64, 16, 64),
        _Fire(128, 16, 64), nn.MaxPool2d(3, 2), _Fire(128, 32, 128), _Fire(256, 32, 128),
        nn.MaxPool2d(3, 2), _Fire(256, 48, 192), _Fire(384, 48, 192), _Fire(384, 64, 256),
        _Fire(512, 64, 256), nn.Dropout(), nn.Conv2d(512, 1000, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


class _Encoder(nn.Module):
    """A layer of BERT (Devlin et al.): attention and a wide layer, norms behind them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out, self.norm1 = nn.Linear(width, width), nn.LayerNorm(width)
        self.rise, self.fall = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Any) -> Any:
        """(N, T, width) to the same."""
        n, t, width = x.shape
        q, k, v = (
            part(x).view(n, t, self.heads, width // self.heads).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, width)
        x = self.norm1(x + self.out(y))
        return self.norm2(x + self.fall(F.gelu(self.rise(x))))


def _bert() -> Any:
    return nn.Sequential(*(_Encoder(768, 12) for _ in range(6)))


class _LSTM(nn.Module):
    """The last output of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(256, 256, 2, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.lstm(x)[0][:, -1]


class Net(NamedTuple):
    """``shape`` is that of one example; ``steps`` are asked in a round at batch 1."""

    make: Callable[[], Any]
    shape: tuple[int, ...]
    steps: int
    text: str


_IMAGE = (3, 224, 224)

NETS: dict[str, Net] = {
    "lenet": Net(_lenet, (1, 28, 28), 200, "LeNet"),
    "alexnet": Net(_alexnet, _IMAGE, 5, "AlexNet"),
    "vgg16": Net(_vgg16, _IMAGE, 1, "VGG-16"),
    "resnet50": Net(_resnet50, _IMAGE, 2, "ResNet-50"),
    "mobilenet": Net(_mobilenet, _IMAGE, 5, "MobileNet v2"),
    "squeezenet": Net(_squeezenet, _IMAGE, 5, "SqueezeNet 1.1"),
    "bert": Net(_bert, (128, 768), 2, "6-layer encoder, d 768, T 128"),
    "lstm": Net(_LSTM, (64, 256), 20, "2-layer LSTM, d 256, T 64"),
}


def make(name: str, batch: int) -> tuple[Any, Any]:
    """The network of this name with its weights, and an input for it."""
    draws = Draws()
    net = draws.fill(NETS[name].make()).eval()
    return net, draws.normal(batch, *NETS[name].shape)
