"""Averages of the weights of a model over its training."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from treadle.base import dtypes
from treadle.ir.node import located
from treadle.nn.module import Module
from treadle.nn.normalization import _BatchNorm
from treadle.optim.optimizer import Optimizer
from treadle.optim.scheduler import LRScheduler
from treadle.tensor.creation import tensor
from treadle.tensor.grad_mode import no_grad
from treadle.tensor.tensor import Tensor

Average = Callable[[Tensor, Tensor, Any], Tensor]
MultiAverage = Callable[[Sequence[Tensor], Sequence[Tensor], Any], None]


def _check_decay(name: str, decay: float) -> None:
    if not 0 <= decay <= 1:
        raise located(ValueError(f"{name}: got decay={decay}; it must be from 0 to 1"))


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """``decay * average + (1 - decay) * new``."""
    _check_decay("get_ema_avg_fn", decay)

    def ema_update(average: Tensor, new: Tensor, num_averaged: Any) -> Tensor:
        return decay * average + (1 - decay) * new

    return no_grad()(ema_update)


def get_swa_avg_fn() -> Average:
    """The mean of all: ``average + (new - average) / (num_averaged + 1)``."""

    def swa_update(average: Tensor, new: Tensor, num_averaged: Any) -> Tensor:
        return average + (new - average) / (num_averaged + 1)

    return no_grad()(swa_update)


def _on_all(function: Average) -> MultiAverage:
    def update(averages: Sequence[Tensor], new: Sequence[Tensor], num_averaged: Any) -> None:
        for average, value in zip(averages, new, strict=True):
            result = function(average, value, num_averaged)
            average.copy_(result if average.is_floating_point() else value)

    return no_grad()(update)


def get_ema_multi_avg_fn(decay: float = 0.999) -> MultiAverage:
    """``get_ema_avg_fn`` of many tensors, in place."""
    _check_decay("get_ema_multi_avg_fn", decay)
    return _on_all(get_ema_avg_fn(decay))


def get_swa_multi_avg_fn() -> MultiAverage:
    """``get_swa_avg_fn`` of many tensors, in place."""
    return _on_all(get_swa_avg_fn())


class AveragedModel(Module):
    """A copy of a model with the averages of its weights (Izmailov et al., 2018).

    Call ``update_parameters(model)`` from time to time. The average is the mean of all unless
    ``avg_fn(average, new, num_averaged)`` or ``multi_avg_fn``, which changes lists of them in
    place, says otherwise. Buffers are averaged with ``use_buffers``, else copied.

    >>> import treadle
    >>> model = treadle.nn.Linear(1, 1)
    >>> average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    >>> average.update_parameters(model)
    >>> average.n_averaged.item()
    1
    """

    def __init__(
        self, model: Module, device: Any = None, avg_fn: Average | None = None,
        multi_avg_fn: MultiAverage | None = None, use_buffers: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise located(ValueError("AveragedModel: got avg_fn and multi_avg_fn; give one"))
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", tensor(0, dtype=dtypes.int64))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the averaged model computes."""
        return self.module(*args, **kwargs)

    @no_grad()
    def update_parameters(self, model: Module) -> None:
        """Takes the weights of now into the averages."""
        averages: list[Tensor] = [*self.module.parameters()]
        new: list[Tensor] = [*model.parameters()]
        if self.use_buffers:
            averages += self.module.buffers()
            new += model.buffers()
        if int(self.n_averaged) == 0:
            for average, value in zip(averages, new, strict=True):
                average.copy_(value.detach())
        elif self.multi_avg_fn is not None:
            self.multi_avg_fn(averages, [x.detach() for x in new], self.n_averaged)
        else:
            update = _on_all(self.avg_fn or get_swa_avg_fn())
            update(averages, [x.detach() for x in new], self.n_averaged)
        if not self.use_buffers:
            for kept, seen in zip(self.module.buffers(), model.buffers(), strict=True):
                kept.copy_(seen.detach())
        self.n_averaged.add_(1)


@no_grad()
def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Computes the statistics of all batch norms anew: plain averages over the batches.

    A batch is a tensor, or a list or tuple that begins with one.
    """
    momenta = {m: m.momentum for m in model.modules() if isinstance(m, _BatchNorm)}
    if not momenta:
        return
    for norm in momenta:
        norm.reset_running_stats()
        norm.momentum = None
    was_training = model.training
    model.train()
    try:
        for batch in loader:
            input = batch[0] if isinstance(batch, (list, tuple)) else batch
            model(input if device is None else input.to(device))
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        model.train(was_training)


class SWALR(LRScheduler):
    """Brings the rates to ``swa_lr`` within ``anneal_epochs`` steps and keeps them there."""

    def __init__(
        self, optimizer: Optimizer, swa_lr: Any, anneal_epochs: int = 10,
        anneal_strategy: str = "cos", last_epoch: int = -1,
    ) -> None:  # fmt: skip
        if anneal_strategy not in ("cos", "linear") or anneal_epochs < 0:
            raise located(ValueError(
                f"SWALR: got anneal_strategy={anneal_strategy!r} and "
                f"anneal_epochs={anneal_epochs}; the strategy is 'cos' or 'linear', and the epochs "
                f"are not negative"
            ))  # fmt: skip
        count = len(optimizer.param_groups)
        rates = list(swa_lr) if isinstance(swa_lr, (list, tuple)) else [swa_lr] * count
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["swa_lr"] = rate
        self.anneal_strategy = anneal_strategy
        self.anneal_epochs = anneal_epochs
        super().__init__(optimizer, last_epoch)

    def _share(self, epoch: int) -> float:
        t = max(0.0, min(1.0, epoch / max(1, self.anneal_epochs)))
        return (1 - math.cos(math.pi * t)) / 2 if self.anneal_strategy == "cos" else t

    def get_lr(self) -> list[float]:
        """The point between the rates of before and ``swa_lr``."""
        step = self.last_epoch if self.anneal_epochs else max(1, self.last_epoch)
        before, now = self._share(max(0, step - 1)), self._share(step)
        rates = []
        for group in self.optimizer.param_groups:
            target, rate = group["swa_lr"], group["lr"]
            # The rate at the start, from that of the last step; at the end it is the target's.
            start = target if before == 1 else (rate - before * target) / (1 - before)
            rates.append(target * now + start * (1 - now))
        return rates


__all__ = [
    "SWALR", "AveragedModel", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn",
    "get_swa_multi_avg_fn", "update_bn",
]  # fmt: skip
