"""A LeNet training step in its parts: recording, gradient, optimizer, evaluation."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np

import treadle
from bench.clock import Clock
from bench.harness import Options, Row, alternate
from treadle import nn, optim
from treadle.cli.demo import LeNet
from treadle.compiler.tier0 import Evaluator
from treadle.runtime import pool

_BATCH = 64


class _Training:
    """The demo's network at a batch of 64."""

    def __init__(self) -> None:
        treadle.manual_seed(0)
        self.net = LeNet(0.5)
        self.optimizer = optim.Adam(self.net.parameters())
        self.loss = nn.CrossEntropyLoss()
        rng = np.random.default_rng(0)
        images = rng.normal(size=(_BATCH, 1, 28, 28)).astype(np.float32)
        self.images, self.labels = (
            treadle.from_numpy(images),
            treadle.from_numpy(rng.integers(0, 10, _BATCH)),
        )

    def step(self) -> dict[str, float]:
        clock = Clock()
        with clock.on(Evaluator, "evaluate"), clock.on(pool, "run_tape"):
            times = [time.perf_counter()]
            loss = self.loss(self.net(self.images), self.labels)
            times.append(time.perf_counter())
            self.optimizer.zero_grad()
            loss.backward()
            times.append(time.perf_counter())
            self.optimizer.step()
            loss.item()
            times.append(time.perf_counter())
        forward, backward, rest = (e - s for s, e in pairwise(times))
        tape, run = clock.seconds["evaluate"], clock.seconds["run_tape"]
        return {"forward": forward, "backward": backward, "optimizer": rest - tape - run,
                "tape": tape, "run": run, "total": times[-1] - times[0]}  # fmt: skip


def run(options: Options) -> list[Row]:
    """The whole step beside PyTorch's, and where the time goes."""
    torch, training = options.torch, _Training()
    ours, theirs = alternate(
        3 * options.rounds, training.step, (lambda: torch.ask("step")) if torch else None
    )
    return [
        Row("a training step", ours["total"], theirs.get("total"),
            note=f"{_BATCH / ours['total']:,.0f} images a second"),
        Row("  forward: recording", ours["forward"], theirs.get("forward"),
            note="PyTorch computes here"),
        Row("  backward: recording", ours["backward"], theirs.get("backward"),
            note="PyTorch computes here"),
        Row("  optimizer: recording", ours["optimizer"], theirs.get("optimizer"),
            note="PyTorch computes here"),
        Row("  evaluation: making the tape", ours["tape"]),
        Row("  evaluation: running kernels", ours["run"]),
    ]  # fmt: skip
