"""An LSTM over 1,000 steps by ``scan``, forward and gradient, beside the same as a Python loop."""

from __future__ import annotations

import time

import numpy as np

import treadle
from bench.harness import Options, Row, alternate
from treadle.compiler import control
from treadle.ir.node import Signature

_STEPS, _BATCH, _SIZE = 1000, 16, 128


class _Lstm:
    """One layer in plain tensor code."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)

        def drawn(*shape: int, scale: float = 0.05) -> treadle.Tensor:
            return treadle.from_numpy((rng.normal(size=shape) * scale).astype(np.float32))

        self.weights = [drawn(_SIZE, 4 * _SIZE), drawn(_SIZE, 4 * _SIZE), drawn(4 * _SIZE)]
        for w in self.weights:
            w.requires_grad_()
        self.x = drawn(_STEPS, _BATCH, _SIZE, scale=1.0)
        self.start = (treadle.zeros(_BATCH, _SIZE), treadle.zeros(_BATCH, _SIZE))

    def cell(
        self, carry: tuple[treadle.Tensor, treadle.Tensor], x: treadle.Tensor
    ) -> tuple[tuple[treadle.Tensor, treadle.Tensor], treadle.Tensor]:
        h, c = carry
        wx, wh, bias = self.weights
        i, f, o, u = (x @ wx + h @ wh + bias).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * u.tanh()
        h = o.sigmoid() * c.tanh()
        return (h, c), h

    def timed(self, outputs: treadle.Tensor) -> tuple[float, float]:
        """The loss with its gradient in the weights."""
        for w in self.weights:
            w.grad = None
        loss = outputs.square().mean()
        loss.backward()
        return loss.item(), self.weights[0].grad.sum().item()

    def scan(self) -> dict[str, float]:
        begin = time.perf_counter()
        found = self.timed(treadle.scan(self.cell, self.start, self.x)[1])
        return {"total": time.perf_counter() - begin, "loss": found[0]}

    def unrolled(self) -> dict[str, float]:
        begin = time.perf_counter()
        carry, outputs = self.start, []
        for x in self.x:
            carry, h = self.cell(carry, x)
            outputs.append(h)
        found = self.timed(treadle.stack(outputs))
        return {"total": time.perf_counter() - begin, "loss": found[0]}


def run(options: Options) -> list[Row]:
    """What compiling the bodies takes, then steps by turns."""
    lstm = _Lstm()
    seconds = []
    prepare = control.prepare_control

    def watched(sig: Signature, *rest: object) -> object:
        begin = time.perf_counter()
        found = prepare(sig, *rest)
        seconds.append(time.perf_counter() - begin)
        return found

    control.prepare_control = watched
    try:
        lstm.scan()
    finally:
        control.prepare_control = prepare
    lstm.unrolled()
    ours, theirs = alternate(max(options.rounds // 3, 3), lstm.scan, lstm.unrolled)
    return [
        Row("compiling an LSTM's cell and its gradient", sum(seconds), bound=1.0),
        Row("an LSTM over 1,000 steps by scan", ours["total"]),
        Row("the same as a Python loop", theirs["total"]),
        Row("scan / loop", ours["total"] / theirs["total"], unit="ratio", bound=1.0),
    ]
