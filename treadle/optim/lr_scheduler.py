"""Learning rates that change as training goes on.

Call ``scheduler.step()`` after ``optimizer.step()``, once an epoch or once a batch as the schedule
counts. A scheduler changes the rate that it finds, so several can work on one optimizer. Formulas
and names are PyTorch's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from treadle.ir.node import located
from treadle.optim.optimizer import Optimizer
from treadle.optim.scheduler import ChainedScheduler, LRScheduler, SequentialLR


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
                f"{type(self).__name__}: got {len(self.lr_lambdas)} functions for {count} "
                f"parameter groups; give one, or one for each group"
            ))  # fmt: skip
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """``initial_lr * lr_lambda(last_epoch)``."""
        pairs = zip(self.base_lrs, self.lr_lambdas, strict=True)
        return [base * function(self.last_epoch) for base, function in pairs]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer and the functions."""
        return {k: v for k, v in super().state_dict().items() if k != "lr_lambdas"}


class MultiplicativeLR(LambdaLR):
    """Times ``lr_lambda(last_epoch)`` every step: one function, or one for each group."""

    def get_lr(self) -> list[float]:
        """The rate times the function's value."""
        if self.last_epoch == 0:
            return self._current()
        pairs = zip(self._current(), self.lr_lambdas, strict=True)
        return [rate * function(self.last_epoch) for rate, function in pairs]


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


class ConstantLR(LRScheduler):
    """The initial rate times ``factor``, for the first ``total_iters`` steps."""

    def __init__(
        self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        if not 0 < factor <= 1:
            raise located(ValueError(
                f"ConstantLR: got factor={factor}; it must be positive and at most 1"
            ))  # fmt: skip
        self.factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rate, times the factor at first and divided by it at the end."""
        if self.last_epoch == 0:
            return self._times(self.factor)
        return self._times(1 / self.factor if self.last_epoch == self.total_iters else 1.0)


class PolynomialLR(LRScheduler):
    """The initial rate times ``(1 - last_epoch / total_iters)^power``, then 0."""

    def __init__(
        self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1
    ) -> None:
        if total_iters < 1:
            raise located(ValueError(
                f"PolynomialLR: got total_iters={total_iters}; it must be positive"
            ))  # fmt: skip
        self.total_iters = total_iters
        self.power = power
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rate times the ratio of the polynomial of now and before."""
        if not 0 < self.last_epoch <= self.total_iters:
            return self._current()
        left = self.total_iters - self.last_epoch
        return self._times((left / (left + 1)) ** self.power)


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


class CosineAnnealingWarmRestarts(LRScheduler):
    """Down to ``eta_min`` along half a cosine, then up at once and down again, ``T_mult`` as long.

    The first descent takes ``T_0`` steps (Loshchilov and Hutter, 2017). ``step(epoch)`` may be
    given the time, also between whole numbers.
    """

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        if T_0 < 1 or T_mult < 1:
            raise located(ValueError(
                f"CosineAnnealingWarmRestarts: got T_0={T_0} and T_mult={T_mult}; both must be at "
                f"least 1"
            ))  # fmt: skip
        self.T_0 = T_0
        self.T_mult = T_mult
        self.eta_min = eta_min
        self.T_i, self.T_cur = float(T_0), float(last_epoch)
        super().__init__(optimizer, last_epoch)

    def step(self, epoch: float | None = None) -> None:
        """Goes on by one, or to the time ``epoch``."""
        now = self.last_epoch + 1 if epoch is None else epoch
        if now < 0:
            raise located(ValueError(
                f"CosineAnnealingWarmRestarts: got epoch={epoch}; it must not be negative"
            ))  # fmt: skip
        self.T_cur, self.T_i = float(now), float(self.T_0)
        while self.T_cur >= self.T_i:
            self.T_cur -= self.T_i
            self.T_i *= self.T_mult
        self.last_epoch = math.floor(now) - 1
        super().step()

    def get_lr(self) -> list[float]:
        """The point of the descent."""
        share = (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (base - self.eta_min) * share for base in self.base_lrs]


class CyclicLR(LRScheduler):
    """Up and down in a line between ``base_lr`` and ``max_lr`` (Smith, 2017).

    ``step_size_up`` steps up, ``step_size_down`` (as many if None) down. In mode "triangular2" the
    height halves every cycle, in "exp_range" it shrinks by ``gamma`` every step; or ``scale_fn``
    scales it, by the cycle (from 1) or the step as ``scale_mode`` says. With ``cycle_momentum`` the
    momentum (or beta1) goes the other way, from ``max_momentum`` to ``base_momentum``.
    """

    def __init__(
        self, optimizer: Optimizer, base_lr: Any, max_lr: Any, step_size_up: int = 2000,
        step_size_down: int | None = None, mode: str = "triangular", gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None, scale_mode: str = "cycle",
        cycle_momentum: bool = True, base_momentum: float = 0.8, max_momentum: float = 0.9,
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        modes, scales = ("triangular", "triangular2", "exp_range"), ("cycle", "iterations")
        if mode not in modes or scale_mode not in scales:
            raise located(ValueError(
                f"CyclicLR: got mode={mode!r} and scale_mode={scale_mode!r}; the mode is "
                f"{', '.join(map(repr, modes))}, the scale_mode {' or '.join(map(repr, scales))}"
            ))  # fmt: skip
        check_momentum("CyclicLR", optimizer, cycle_momentum)
        count = len(optimizer.param_groups)
        low, high = _for_groups(base_lr, count), _for_groups(max_lr, count)
        self.max_lrs = high
        self.total_size = float(step_size_up + (step_size_down or step_size_up))
        self.step_ratio = step_size_up / self.total_size
        self.mode = mode
        self.gamma = gamma
        self.scale_fn = scale_fn
        self.scale_mode = scale_mode if scale_fn is not None else None
        self.momenta = (base_momentum, max_momentum) if cycle_momentum else None
        if last_epoch == -1:
            for group, rate in zip(optimizer.param_groups, low, strict=True):
                group["lr"] = rate
        super().__init__(optimizer, last_epoch)
        self.base_lrs = low

    def get_lr(self) -> list[float]:
        """The point of the cycle; sets the momentum too."""
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1 + self.last_epoch / self.total_size - cycle
        ratio = self.step_ratio
        height = x / ratio if x <= ratio else (x - 1) / (ratio - 1)
        scale = height * self._scale(cycle)
        if self.momenta is not None:
            low, high = self.momenta
            for group in self.optimizer.param_groups:
                set_momentum(group, high - (high - low) * scale)
        pairs = zip(self.base_lrs, self.max_lrs, strict=True)
        return [low + (high - low) * scale for low, high in pairs]

    def _scale(self, cycle: int) -> float:
        if self.scale_fn is not None:
            return self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.mode == "exp_range":
            return float(self.gamma**self.last_epoch)
        return 1 / 2 ** (cycle - 1) if self.mode == "triangular2" else 1.0

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer and the function."""
        return {k: v for k, v in super().state_dict().items() if k != "scale_fn"}


class OneCycleLR(LRScheduler):
    """Up to ``max_lr`` and down to almost nothing within ``total_steps`` (Smith and Topin, 2019).

    From max_lr / div_factor to max_lr in the first ``pct_start`` of the steps, then to
    max_lr / div_factor / final_div_factor; "cos" or "linear". With ``three_phase`` the way down to
    the first rate takes as long as the way up, and the rest goes to the last one. With
    ``cycle_momentum`` the momentum (or beta1) goes the other way, from ``max_momentum`` to
    ``base_momentum`` and back.
    """

    def __init__(
        self, optimizer: Optimizer, max_lr: Any, total_steps: int | None = None,
        epochs: int | None = None, steps_per_epoch: int | None = None, pct_start: float = 0.3,
        anneal_strategy: str = "cos", cycle_momentum: bool = True, base_momentum: Any = 0.85,
        max_momentum: Any = 0.95, div_factor: float = 25.0, final_div_factor: float = 1e4,
        three_phase: bool = False, last_epoch: int = -1,
    ) -> None:  # fmt: skip
        if total_steps is None and epochs is not None and steps_per_epoch is not None:
            total_steps = epochs * steps_per_epoch
        if total_steps is None or total_steps < 1 or not 0 <= pct_start <= 1:
            raise located(ValueError(
                f"OneCycleLR: got total_steps={total_steps}, epochs={epochs}, "
                f"steps_per_epoch={steps_per_epoch} and pct_start={pct_start}; give total_steps or "
                f"both of epochs and steps_per_epoch, all positive, and pct_start from 0 to 1"
            ))  # fmt: skip
        if anneal_strategy not in ("cos", "linear"):
            raise located(ValueError(
                f"OneCycleLR: got anneal_strategy={anneal_strategy!r}; it is 'cos' or 'linear'"
            ))  # fmt: skip
        check_momentum("OneCycleLR", optimizer, cycle_momentum)
        count = len(optimizer.param_groups)
        peaks = _for_groups(max_lr, count)
        self.total_steps = total_steps
        self.anneal_strategy = anneal_strategy
        first = [peak / div_factor for peak in peaks]
        last = [rate / final_div_factor for rate in first]
        low, high = _for_groups(base_momentum, count), _for_groups(max_momentum, count)
        top, end = float(pct_start * total_steps) - 1, float(total_steps - 1)
        # Where each phase ends, and its rates and momenta at its start and at its end.
        self.phases: list[tuple[float, list[float], list[float], list[float], list[float]]]
        self.phases = [(top, first, peaks, high, low), (end, peaks, last, low, high)]
        if three_phase:
            down = 2 * pct_start * total_steps - 2
            self.phases[1:] = [(down, peaks, first, low, high), (end, first, last, high, high)]
        self.cycle_momentum = cycle_momentum
        if last_epoch == -1:
            for group, rate, momentum in zip(optimizer.param_groups, first, high, strict=True):
                group["lr"] = rate
                if cycle_momentum:
                    set_momentum(group, momentum)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The point of the cycle; sets the momentum too."""
        now, start = float(self.last_epoch), 0.0
        if now > self.total_steps:
            raise located(ValueError(
                f"OneCycleLR: got step {self.last_epoch} of {self.total_steps}; call step() "
                f"once a batch, and give it all of them as total_steps"
            ))  # fmt: skip
        *earlier, phase = self.phases
        for other in reversed(earlier):
            if now <= other[0]:
                phase = other
            else:
                start = max(start, other[0])
        end, before, after, momentum_before, momentum_after = phase
        share = (now - start) / (end - start) if end != start else 1.0
        if self.cycle_momentum:
            momenta = self._between(momentum_before, momentum_after, share)
            for group, momentum in zip(self.optimizer.param_groups, momenta, strict=True):
                set_momentum(group, momentum)
        return self._between(before, after, share)

    def _between(self, start: list[float], end: list[float], share: float) -> list[float]:
        pairs = list(zip(start, end, strict=True))
        if self.anneal_strategy == "linear":
            return [(b - a) * share + a for a, b in pairs]
        rest = (math.cos(math.pi * share) + 1) / 2
        return [b + (a - b) * rest for a, b in pairs]


def _for_groups(value: Any, count: int) -> list[float]:
    """A value for every group: one, or as many as there are."""
    return list(value) if isinstance(value, (list, tuple)) else [value] * count


def check_momentum(name: str, optimizer: Optimizer, is_cycled: bool) -> None:
    """ValueError where the momentum is to be cycled and there is none."""
    settings = optimizer.param_groups[0]
    if is_cycled and "momentum" not in settings and "betas" not in settings:
        raise located(ValueError(
            f"{name}: got cycle_momentum=True for {type(optimizer).__name__}, which has no "
            f"momentum; pass cycle_momentum=False"
        ))  # fmt: skip


def set_momentum(group: dict[str, Any], momentum: float) -> None:
    """Sets the momentum of a group, or its beta1."""
    if "betas" in group:
        group["betas"] = (momentum, *group["betas"][1:])
    else:
        group["momentum"] = momentum


class ReduceLROnPlateau:
    """Times ``factor`` when a figure has not improved for more than ``patience`` calls.

    Call ``step(figure)``. Better means by more than ``threshold`` ("rel": of the best, "abs": as it
    is), downwards with mode "min", upwards with "max". After a change ``cooldown`` calls are not
    counted; rates stay above ``min_lr``, and changes smaller than ``eps`` are not made.
    """

    def __init__(
        self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10,
        threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0,
        min_lr: Any = 0.0, eps: float = 1e-8,
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
        self.min_lrs = _for_groups(min_lr, len(optimizer.param_groups))
        self.eps = eps
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        self.last_epoch = 0

    def step(self, metrics: Any, epoch: int | None = None) -> None:
        """Looks at the figure of this epoch."""
        value = float(metrics)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self._is_better(value):
            self.best = value
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group, least in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
                rate = max(group["lr"] * self.factor, least)
                if group["lr"] - rate > self.eps:
                    group["lr"] = rate
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0

    def _is_better(self, value: float) -> bool:
        margin = self.threshold * (self.best if self.threshold_mode == "rel" else 1.0)
        if math.isinf(self.best):
            margin = 0.0
        return value < self.best - margin if self.mode == "min" else value > self.best + margin

    @property
    def in_cooldown(self) -> bool:
        """Whether calls are not counted just now."""
        return self.cooldown_counter > 0

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
    "ChainedScheduler", "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts",
    "CyclicLR", "ExponentialLR", "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR",
    "MultiplicativeLR", "OneCycleLR", "PolynomialLR", "ReduceLROnPlateau", "SequentialLR",
    "StepLR",
]  # fmt: skip
