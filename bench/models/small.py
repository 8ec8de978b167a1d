"""Small programs: a network by hand, an MLP, LeNet, a VAE, and a chain of elementwise work."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from bench.models.draws import Draws
from bench.models.framework import F, nn, torch
from bench.models.program import Program, Training

_CLASSES = 10


class TwoLayer(Program):
    """Two layers whose gradients are written out by hand, without autograd."""

    def __init__(self, draws: Draws, batch: int = 64, inputs: int = 1000, hidden: int = 100,
                 outputs: int = 10, rate: float = 1e-6, batches: int = 8) -> None:  # fmt: skip
        self.w1 = draws.normal(inputs, hidden)
        self.w2 = draws.normal(hidden, outputs)
        self.batches = [
            (draws.normal(batch, inputs), draws.normal(batch, outputs)) for _ in range(batches)
        ]
        self.rate = rate

    def update(self, x: Any, y: Any, w1: Any, w2: Any) -> tuple[Any, Any, Any]:
        """The loss and the new weights."""
        h = x.mm(w1)
        h_relu = h.clamp(min=0)
        y_pred = h_relu.mm(w2)
        loss = (y_pred - y).pow(2).sum()
        grad_y_pred = 2.0 * (y_pred - y)
        grad_w2 = h_relu.t().mm(grad_y_pred)
        grad_h = grad_y_pred.mm(w2.t())
        grad_h[h < 0] = 0
        grad_w1 = x.t().mm(grad_h)
        return loss, w1 - self.rate * grad_w1, w2 - self.rate * grad_w2

    def step(self, i: int) -> float:
        x, y = self.batches[i % len(self.batches)]
        loss, self.w1, self.w2 = self.update(x, y, self.w1, self.w2)
        return loss.item()

    def compile(self, compiler: Callable[[Any], Any]) -> None:
        self.update = compiler(self.update)  # type: ignore[method-assign]


class _Classifier(Training):
    """Images, as rows or with channels, into ten classes."""

    def loss(self, images: Any, labels: Any) -> Any:
        return F.cross_entropy(self.net(images), labels)


def _labelled(draws: Draws, count: int, *shape: int) -> list[tuple[Any, Any]]:
    return [
        (draws.normal(*shape), draws.integers(_CLASSES, shape[0])) for _ in range(count)
    ]  # fmt: skip


def mlp(draws: Draws, batch: int = 128, widths: tuple[int, ...] = (784, 512, 256, 10),
        rate: float = 1e-3, batches: int = 8) -> Training:  # fmt: skip
    """Linear layers with ReLU between them, and Adam."""
    layers: list[Any] = []
    for i, (given, wanted) in enumerate(pairwise(widths)):
        layers += [nn.ReLU()] * (i > 0) + [nn.Linear(given, wanted)]
    data = _labelled(draws, batches, batch, widths[0])
    return _Classifier(draws, nn.Sequential(*layers), "Adam", data, lr=rate)


def lenet(draws: Draws, batch: int = 64, channels: tuple[int, int] = (20, 50), hidden: int = 500,
          batches: int = 8) -> Training:  # fmt: skip
    """Two convolutions with max pooling, two linear layers, and momentum."""
    net = nn.Sequential(
        nn.Conv2d(1, channels[0], 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(channels[0], channels[1], 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(channels[1] * 16, hidden), nn.ReLU(), nn.Linear(hidden, _CLASSES),
    )  # fmt: skip
    data = _labelled(draws, batches, batch, 1, 28, 28)
    return _Classifier(draws, net, "SGD", data, lr=0.01, momentum=0.9)


class _Autoencoder(nn.Module):
    """Pixels to the mean and the log-variance of a code, and back to logits of pixels."""

    def __init__(self, draws: Draws, pixels: int, hidden: int, code: int) -> None:
        super().__init__()
        self.draws = draws
        self.rise, self.fall = nn.Linear(pixels, hidden), nn.Linear(hidden, pixels)
        self.mean, self.spread = nn.Linear(hidden, code), nn.Linear(hidden, code)
        self.open = nn.Linear(code, hidden)

    def forward(self, x: Any) -> tuple[Any, Any, Any]:
        h = F.relu(self.rise(x))
        mean, spread = self.mean(h), self.spread(h)
        z = mean + self.draws.noise_like(spread) * torch.exp(0.5 * spread)
        return self.fall(F.relu(self.open(z))), mean, spread


class VAE(Training):
    """A variational autoencoder (Kingma and Welling), with Adam."""

    def __init__(self, draws: Draws, batch: int = 128, pixels: int = 784, hidden: int = 400,
                 code: int = 20, rate: float = 1e-3, batches: int = 8) -> None:  # fmt: skip
        data = [(draws.uniform(batch, pixels),) for _ in range(batches)]
        super().__init__(draws, _Autoencoder(draws, pixels, hidden, code), "Adam", data, lr=rate)

    def loss(self, x: Any) -> Any:
        logits, mean, spread = self.net(x)
        likelihood = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        divergence = -0.5 * torch.sum(1 + spread - mean.pow(2) - spread.exp())
        return (likelihood + divergence) / x.shape[0]


class Chain(Program):
    """gelu, layer norm, dropout and softmax on a matrix, forward and backward."""

    def __init__(self, draws: Draws, rows: int = 4096, columns: int = 1024) -> None:
        self.draws = draws
        self.x = draws.normal(rows, columns).requires_grad_()
        self.norm = draws.fill(nn.LayerNorm(columns))
        self.adjoint = draws.normal(rows, columns)

    def forward(self, x: Any) -> Any:
        """The four, one after another."""
        return F.softmax(self.draws.dropout(self.norm(F.gelu(x)), 0.1), -1)

    def step(self, i: int) -> float:
        leaves = [self.x, *self.norm.parameters()]
        for leaf in leaves:
            leaf.grad = None
        y = self.forward(self.x)
        y.backward(self.adjoint)
        if self.draws.is_given:  # all of it in one number
            with torch.no_grad():
                return sum((leaf.grad.abs().sum() for leaf in leaves), (y * y).sum()).item()
        return self.norm.bias.grad[0].item()

    def compile(self, compiler: Callable[[Any], Any]) -> None:
        self.forward = compiler(self.forward)  # type: ignore[method-assign]
