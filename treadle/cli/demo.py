"""``treadle demo``: a convolutional network learns real digits, start to end, in about a minute."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

import treadle
from treadle import nn, optim
from treadle.base.errors import MissingExtraError
from treadle.data import DataLoader
from treadle.io import save_file
from treadle.train import Progress, save_image_grid, save_learning_curves
from treadle.train.tensorboard import SummaryWriter
from treadle.vision import MNIST, RandomAffine

Pixels = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Settings:
    """What was chosen for the demo, on 1,000 digits held out of the 8,000 (``--validate``)."""

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 3e-3
    warmup_steps: int = 100
    dropout: float = 0.5
    degrees: float = 10.0
    translate: float = 0.07  # of 28 pixels: two
    scale: float = 0.1


@dataclass(frozen=True)
class Examples:
    """Digits (N, 1, 28, 28) with their labels (N,), and what to call them."""

    name: str
    images: Pixels
    labels: Labels


class LeNet(nn.Sequential):
    """LeNet-5's successor: two convolutions with pooling, then two linear layers.

    Shapes: (N, 1, 28, 28) to scores (N, 10). Pooling comes before normalisation, which then has
    a quarter of the work.
    """

    def __init__(self, dropout: float) -> None:
        super().__init__(
            nn.Conv2d(1, 20, 5),  # (N, 20, 24, 24)
            nn.MaxPool2d(2),
            nn.BatchNorm2d(20),
            nn.ReLU(),
            nn.Conv2d(20, 50, 5),  # (N, 50, 8, 8)
            nn.MaxPool2d(2),
            nn.BatchNorm2d(50),
            nn.ReLU(),
            nn.Flatten(),  # (N, 800)
            nn.Linear(800, 500),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(500, 10),
        )


class Varied:
    """Collates digits into a batch, each turned, shifted and scaled by a little."""

    def __init__(self, settings: Settings, seed: int) -> None:
        reach = (settings.translate, settings.translate)
        self.vary = RandomAffine(
            settings.degrees, reach, (1 - settings.scale, 1 + settings.scale), seed
        )

    def __call__(self, batch: Sequence[tuple[Pixels, int]]) -> tuple[Any, Any]:
        """Tensors (N, 1, 28, 28) and (N,)."""
        images = self.vary(np.stack([image for image, _ in batch]))
        labels = np.array([label for _, label in batch], np.int64)
        return treadle.tensor(images), treadle.tensor(labels)


def learning_rate(step: int, steps: int, settings: Settings) -> float:
    """Rises from 0 over the first steps, then falls along half a cosine to 0 at the end."""
    warmup = min(1.0, (step + 1) / settings.warmup_steps)
    return settings.learning_rate * warmup * (1 + math.cos(math.pi * step / steps)) / 2


def predict(net: nn.Module, images: Pixels, batch_size: int = 500) -> Labels:
    """The digit that the network reads in each image (N, 1, 28, 28): an array (N,)."""
    net.eval()
    with treadle.no_grad():
        guesses = [
            net(treadle.tensor(images[at : at + batch_size])).argmax(1).numpy()
            for at in range(0, len(images), batch_size)
        ]
    net.train()
    return np.concatenate(guesses)


def train(
    net: nn.Module,
    digits: MNIST,
    test: Examples,
    settings: Settings,
    seed: int,
    console: Console,
) -> Iterator[dict[str, float]]:
    """Trains ``net``; yields loss and accuracies after each epoch."""
    loader: DataLoader[Any] = DataLoader(
        digits,
        batch_size=settings.batch_size,
        shuffle=True,
        collate_fn=Varied(settings, seed),
        drop_last=True,
    )
    steps = settings.epochs * len(loader)
    optimizer = optim.Adam(net.parameters(), lr=settings.learning_rate)
    loss_of = nn.CrossEntropyLoss()
    with Progress(settings.epochs, len(loader), console=console) as progress:
        for epoch in range(settings.epochs):
            for step, (images, labels) in enumerate(loader, epoch * len(loader)):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(step, steps, settings)
                scores = net(images)
                loss = loss_of(scores, labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                right = (scores.argmax(1) == labels).sum().item()
                progress.step(len(labels), loss=loss.item(), accuracy=right / len(labels))
            accuracy = float((predict(net, test.images) == test.labels).mean())
            yield progress.end_epoch(**{f"{test.name}_accuracy": accuracy})


def report(
    net: nn.Module,
    test: Examples,
    history: list[dict[str, float]],
    writer: SummaryWriter,
    out: Path,
) -> str:
    """Writes weights and pictures into ``out``; returns how well the test digits were read."""
    save_file(net.state_dict(), out / "lenet.safetensors")
    images, labels = test.images, test.labels
    guesses = predict(net, images)
    wrong = np.flatnonzero(guesses != labels)
    all_of_them = f"{len(labels):,} {test.name} digits"
    result = f"{1 - len(wrong) / len(labels):.2%} of {all_of_them} read right"
    if history:
        save_learning_curves(history, out / "curves.png", f"LeNet on MNIST: {result}")
    captions = [f"{labels[i]}, read as {guesses[i]}" for i in wrong]
    title = f"The {len(wrong)} of {all_of_them} that were read wrong"
    save_image_grid(images[wrong], captions, out / "wrong_digits.png", title)
    if len(wrong):
        writer.add_images("wrong digits", 1 - images[wrong], len(history))
    return result


def run(seed: int, epochs: int | None, out: Path, validate: bool = False) -> int:
    """Runs the demo, writing into ``out``; returns the exit status of the process."""
    if find_spec("matplotlib") is None:  # told now rather than after the training
        raise MissingExtraError("matplotlib", "plot", "treadle demo")
    settings = Settings(epochs=epochs) if epochs else Settings()
    console = Console(highlight=False)
    treadle.manual_seed(seed)
    digits, test = _examples(validate)
    net = LeNet(settings.dropout)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    console.print(
        f"LeNet, {parameters:,} parameters, learns {len(digits):,} digits; seed {seed}.",
        markup=False,
    )
    history: list[dict[str, float]] = []
    begin = time.monotonic()
    status, ending = 0, "Trained"
    for old in out.glob("events/events.out.tfevents.*"):  # TensorBoard would draw both runs
        old.unlink()
    with SummaryWriter(out / "events") as writer:
        writer.add_text("settings", "\n".join(f"    {k}: {v}" for k, v in asdict(settings).items()))
        try:
            for metrics in train(net, digits, test, settings, seed, console):
                history.append(metrics)
                for name, value in metrics.items():
                    writer.add_scalar(name, value, len(history))
        except KeyboardInterrupt:
            status, ending = 130, f"Stopped in epoch {len(history) + 1}, after training"
        seconds = time.monotonic() - begin
        result = report(net, test, history, writer, out)
    console.print(f"{ending} for {seconds:.0f} s: {result}.", markup=False, soft_wrap=True)
    console.print(
        f"In {out}: lenet.safetensors (weights), {'curves.png, ' if history else ''}"
        f"wrong_digits.png, events (tensorboard --logdir {out})",
        markup=False,
        soft_wrap=True,
    )
    return status


def _examples(validate: bool) -> tuple[MNIST, Examples]:
    """What to train with and what to test on: the test digits are kept out of ``validate``."""
    digits = MNIST(train=True)
    if not validate:
        test = MNIST(train=False)
        return digits, Examples("test", test.data, test.targets)
    held = Examples("held-out", digits.data[-1000:], digits.targets[-1000:])
    digits.data, digits.targets = digits.data[:-1000], digits.targets[:-1000]
    return digits, held
