"""Learning rates that change as training goes on.

Call ``scheduler.step()`` after ``optimizer.step()``, once an epoch or once a batch as the schedule
counts. A scheduler changes the rate that it finds, so several can work on one optimizer. Formulas
and names are PyTorch's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from treadle.ir.node import located
from treadle.optim.optimizer import Optimizer


class LRScheduler:
    """Base of the schedulers; subclasses define ``get_lr``.

    ``last_epoch`` counts the calls of ``step`` (0 after construction).
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise located(TypeError(
                f"{type(self).__name__}: got a {type(optimizer).__name__}; it takes an Optimizer"
            ))  # fmt: skip
        self.optimizer = optimizer
        self.last_epoch = last_epoch
        for group in optimizer.param_groups:
            if last_epoch == -1:
                group["initial_lr"] = group["lr"]
            elif "initial_lr" not in group:
                raise KeyError(
                    f"{type(self).__name__}: got last_epoch={last_epoch}, but the optimizer's "
                    f"groups have no 'initial_lr'; load the optimizer's state first"
                )
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self._last_lr = [group["lr"] for group in optimizer.param_groups]
        self.step()

    def get_lr(self) -> list[float]:
        """The rate of every group at ``last_epoch``."""
        raise NotImplementedError(f"{type(self).__name__} has no get_lr()")

    def get_last_lr(self) -> list[float]:
        """The rates set last."""
        return self._last_lr

    def step(self) -> None:
        """Goes on to the next rate."""
        self.last_epoch += 1
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _current(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def _times(self, factor: float) -> list[float]:
        return [rate * factor for rate in self._current()]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what ``state_dict`` gave."""
        self.__dict__.update(state_dict)


class LambdaLR(LRScheduler):
    """The initial rate times ``lr_lambda(last_epoch)``: one function, or one for each group.

    >>> import treadle
    >>> optimizer = treadle.optim.SGD([treadle.nn.Parameter([1.0])], lr=1.0)
    >>> scheduler = LambdaLR(optimizer, lambda epoch: 0.5**epoch)
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [0.5]
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Any, last_epoch: int = -1) -> None:
        count = len(optimizer.param_groups)
        several = isinstance(lr_lambda, (list, tuple))
        self.lr_lambdas: list[Callable[[int], float]] = (
            list(lr_lambda) if several else [lr_lambda] * count
        )
        if len(self.lr_lambdas) != count:
            raise located(ValueError(
                f"LambdaLR: got {len(self.lr_lambdas)} functions for {count} parameter groups; "
                f"give one, or one for each group"
            ))  # fmt: skip
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """``initial_lr * lr_lambda(last_epoch)``."""
        pairs = zip(self.base_lrs, self.lr_lambdas, strict=True)
        return [base * function(self.last_epoch) for base, function in pairs]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer and the functions."""
        return {k: v for k, v in super().state_dict().items() if k != "lr_lambdas"}


class StepLR(LRScheduler):
    """Times ``gamma`` every ``step_size`` steps."""

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        if step_size < 1:
            raise located(ValueError(f"StepLR: got step_size={step_size}; it must be positive"))
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rate, times gamma where the count is divisible by step_size."""
        turn = self.last_epoch > 0 and self.last_epoch % self.step_size == 0
        return self._times(self.gamma) if turn else self._current()


class MultiStepLR(LRScheduler):
    """Times ``gamma`` at each of the ``milestones``."""

    def __init__(
        self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        self.milestones = Counter(milestones)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rate, times gamma for every milestone that the count has reached just now."""
        reached = self.milestones[self.last_epoch]
        return self._times(self.gamma**reached) if reached else self._current()


class ExponentialLR(LRScheduler):
    """Times ``gamma`` every step."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rate times gamma."""
        return self._times(self.gamma) if self.last_epoch else self._current()


class LinearLR(LRScheduler):
    """The initial rate times a factor that goes in a line from start to end."""

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0,
        total_iters: int = 5, last_epoch: int = -1,
    ) -> None:  # fmt: skip
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise located(ValueError(
                f"LinearLR: got start_factor={start_factor} and end_factor={end_factor}; both must "
                f"be at most 1, the first positive and the second not negative"
            ))  # fmt: skip
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rate times the ratio of the factor of now and the one before."""
        if self.last_epoch == 0:
            return self._times(self.start_factor)
        if self.last_epoch > self.total_iters:
            return self._current()
        rise = self.end_factor - self.start_factor
        before = self.total_iters * self.start_factor + (self.last_epoch - 1) * rise
        return self._times(1.0 + rise / before)


class CosineAnnealingLR(LRScheduler):
    """Down to ``eta_min`` along half a cosine in ``T_max`` steps, and up again.

    ``eta_min + (initial_lr - eta_min) * (1 + cos(pi * last_epoch / T_max)) / 2`` (Loshchilov and
    Hutter, 2017), reached step by step from the rate before.
    """

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        if T_max < 1:
            raise located(ValueError(f"CosineAnnealingLR: got T_max={T_max}; it must be positive"))
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The distance from eta_min, times the ratio of the cosines of now and before."""
        now, low = self.last_epoch, self.eta_min
        if now == 0:
            return self._current()
        pairs = zip(self._current(), self.base_lrs, strict=True)
        if (now - 1 - self.T_max) % (2 * self.T_max) == 0:
            step = (1 - math.cos(math.pi / self.T_max)) / 2
            return [rate + (base - low) * step for rate, base in pairs]
        ratio = (1 + math.cos(math.pi * now / self.T_max)) / (
            1 + math.cos(math.pi * (now - 1) / self.T_max)
        )
        return [ratio * (rate - low) + low for rate, _ in pairs]


class OneCycleLR(LRScheduler):
    """Up to ``max_lr`` and down to almost nothing within ``total_steps`` (Smith and Topin, 2019).

    From max_lr / div_factor to max_lr in the first ``pct_start`` of the steps, then to
    max_lr / div_factor / final_div_factor; "cos" or "linear". Momentum stays as it is
    (PyTorch's ``cycle_momentum=False``).
    """

    def __init__(
        self, optimizer: Optimizer, max_lr: Any, total_steps: int | None = None,
        epochs: int | None = None, steps_per_epoch: int | None = None, pct_start: float = 0.3,
        anneal_strategy: str = "cos", cycle_momentum: bool = False, div_factor: float = 25.0,
        final_div_factor: float = 1e4, last_epoch: int = -1,
    ) -> None:  # fmt: skip
        if total_steps is None and epochs is not None and steps_per_epoch is not None:
            total_steps = epochs * steps_per_epoch
        if total_steps is None or total_steps < 1 or not 0 <= pct_start <= 1:
            raise located(ValueError(
                f"OneCycleLR: got total_steps={total_steps}, epochs={epochs}, "
                f"steps_per_epoch={steps_per_epoch} and pct_start={pct_start}; give total_steps or "
                f"both of epochs and steps_per_epoch, all positive, and pct_start from 0 to 1"
            ))  # fmt: skip
        if anneal_strategy not in ("cos", "linear") or cycle_momentum:
            raise located(ValueError(
                f"OneCycleLR: got anneal_strategy={anneal_strategy!r} and "
                f"cycle_momentum={cycle_momentum}; the strategy is 'cos' or 'linear', and momentum "
                f"is not cycled: pass cycle_momentum=False"
            ))  # fmt: skip
        count = len(optimizer.param_groups)
        peaks: Sequence[float] = max_lr if isinstance(max_lr, (list, tuple)) else [max_lr] * count
        self.total_steps = total_steps
        self.anneal_strategy = anneal_strategy
        self.turn = float(pct_start * total_steps) - 1
        self.max_lrs = list(peaks)
        self.first_lrs = [peak / div_factor for peak in peaks]
        self.final_lrs = [first / final_div_factor for first in self.first_lrs]
        if last_epoch == -1:
            for group, first in zip(optimizer.param_groups, self.first_lrs, strict=True):
                group["lr"] = first
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The point on the way up, or on the way down."""
        now, last = self.last_epoch, self.total_steps - 1
        if now > last:
            raise located(ValueError(
                f"OneCycleLR: got step {now + 1} of {self.total_steps}; call step() once a batch, "
                f"and give it all of them as total_steps"
            ))  # fmt: skip
        if now <= self.turn:
            share = now / self.turn if self.turn else 1.0
            return self._between(self.first_lrs, self.max_lrs, share)
        return self._between(self.max_lrs, self.final_lrs, (now - self.turn) / (last - self.turn))

    def _between(self, start: list[float], end: list[float], share: float) -> list[float]:
        pairs = list(zip(start, end, strict=True))
        if self.anneal_strategy == "linear":
            return [(b - a) * share + a for a, b in pairs]
        rest = (math.cos(math.pi * share) + 1) / 2
        return [b + (a - b) * rest for a, b in pairs]


class ReduceLROnPlateau:
    """Times ``factor`` when a figure has not improved for more than ``patience`` calls.

    Call ``step(figure)``. Better means by more than ``threshold`` ("rel": of the best, "abs": as it
    is), downwards with mode "min", upwards with "max". After a change ``cooldown`` calls are not
    counted; rates stay above ``min_lr``, and changes smaller than ``eps`` are not made.
    """

    def __init__(
        self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10,
        threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0,
        min_lr: float = 0.0, eps: float = 1e-8,
    ) -> None:  # fmt: skip
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs") or factor >= 1:
            raise located(ValueError(
                f"ReduceLROnPlateau: got mode={mode!r}, threshold_mode={threshold_mode!r} and "
                f"factor={factor}; mode is 'min' or 'max', threshold_mode 'rel' or 'abs' and the "
                f"factor below 1"
            ))  # fmt: skip
        self.optimizer = optimizer
        self.mode = mode
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.cooldown = cooldown
        self.min_lr = min_lr
        self.eps = eps
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        self.last_epoch = 0

    def step(self, metrics: Any) -> None:
        """Looks at the figure of this epoch."""
        value = float(metrics)
        self.last_epoch += 1
        if self._is_better(value):
            self.best = value
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group in self.optimizer.param_groups:
                rate = max(group["lr"] * self.factor, self.min_lr)
                if group["lr"] - rate > self.eps:
                    group["lr"] = rate
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0

    def _is_better(self, value: float) -> bool:
        margin = self.threshold * (self.best if self.threshold_mode == "rel" else 1.0)
        if math.isinf(self.best):
            margin = 0.0
        return value < self.best - margin if self.mode == "min" else value > self.best + margin

    def get_last_lr(self) -> list[float]:
        """The rates of now."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what ``state_dict`` gave."""
        self.__dict__.update(state_dict)


__all__ = [
    "CosineAnnealingLR", "ExponentialLR", "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR",
    "OneCycleLR", "ReduceLROnPlateau", "StepLR",
]  # fmt: skip
