"""What the programs have in common: trainings, and passes forward only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bench.models.draws import Draws
from bench.models.framework import IS_TUNED, optim, torch


class Program:
    """``step(i)`` does one step and gives the number that tells whether it was right."""

    def step(self, i: int) -> float:
        """Step ``i``: its loss, read."""
        raise NotImplementedError

    def compile(self, compiler: Callable[[Any], Any]) -> None:
        """Has PyTorch's compiler take the part of the step that its users hand to it."""
        raise NotImplementedError


class Training(Program):
    """A network, an optimizer, and batches in an order drawn beforehand."""

    def __init__(
        self, draws: Draws, net: Any, optimizer: str, batches: Sequence[tuple[Any, ...]],
        **options: Any,
    ) -> None:  # fmt: skip
        if IS_TUNED:
            options["fused"] = True
        self.draws = draws
        self.net = draws.fill(net)
        self.optimizer = getattr(optim, optimizer)(self.net.parameters(), **options)
        self.batches = batches
        self.order = draws.order(len(batches))

    def loss(self, *batch: Any) -> Any:
        """The loss of a batch."""
        raise NotImplementedError

    def step(self, i: int) -> float:
        """Forward, backward, update."""
        loss = self.loss(*self.batches[self.order[i % len(self.order)]])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def compile(self, compiler: Callable[[Any], Any]) -> None:
        """The loss with its gradient; the update stays the optimizer's."""
        self.loss = compiler(self.loss)  # type: ignore[method-assign]


class Inference(Program):
    """A network that is only asked."""

    def __init__(self, draws: Draws, net: Any, batches: Sequence[Any]) -> None:
        self.net = draws.fill(net).eval()
        self.batches = batches

    def step(self, i: int) -> float:
        """One pass: the mean square of what comes out."""
        with torch.no_grad():
            y = self.net(self.batches[i % len(self.batches)])
        return y.square().mean().item()

    def compile(self, compiler: Callable[[Any], Any]) -> None:
        """The whole network."""
        self.net = compiler(self.net)
