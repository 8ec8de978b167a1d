"""The base of learning-rate schedules, and schedules made of others."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
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
                group.setdefault("initial_lr", group["lr"])
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

    def step(self, epoch: int | None = None) -> None:
        """Goes on to the next rate; or to that of ``epoch`` (PyTorch's older way)."""
        if epoch is not None and epoch != self.last_epoch + 1:
            self._go_to(epoch)
            return
        self.last_epoch += 1
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _go_to(self, epoch: int) -> None:
        """Takes all steps from the start (or from here, if that is earlier) to ``epoch``."""
        if epoch < self.last_epoch:
            self._restart()
        while self.last_epoch < epoch:
            LRScheduler.step(self)
        self._last_lr = self._current()

    def _restart(self) -> None:
        """Begins anew from the initial rates."""
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base
        self.last_epoch = -1
        self.step()

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


class _Several(LRScheduler):
    """Schedulers of one optimizer that work together."""

    def __init__(self, name: str, schedulers: Iterable[Any], optimizer: Optimizer | None) -> None:
        self._schedulers = list(schedulers)
        owners = [s.optimizer for s in self._schedulers]
        if not owners or any(o is not (optimizer or owners[0]) for o in owners):
            raise located(ValueError(
                f"{name}: got {len(owners)} schedulers; there must be at least one, and all of "
                f"them for the same optimizer"
            ))  # fmt: skip
        self.optimizer = owners[0]
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer; the schedulers by their own states."""
        kept = {k: v for k, v in self.__dict__.items() if k not in ("optimizer", "_schedulers")}
        return {**kept, "_schedulers": [s.state_dict() for s in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what ``state_dict`` gave."""
        for scheduler, state in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            scheduler.load_state_dict(state)
        self.__dict__.update({k: v for k, v in state_dict.items() if k != "_schedulers"})


class ChainedScheduler(_Several):
    """Several schedulers, each of which changes the rate at every step."""

    def __init__(self, schedulers: Sequence[Any], optimizer: Optimizer | None = None) -> None:
        super().__init__("ChainedScheduler", schedulers, optimizer)

    def step(self, epoch: int | None = None) -> None:
        """All of them go on to the next rate, in order."""
        for scheduler in self._schedulers:
            scheduler.step(epoch)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


class SequentialLR(_Several):
    """One scheduler after the other: the next one takes over, from its start, at a milestone.

    >>> import treadle
    >>> optimizer = treadle.optim.SGD([treadle.nn.Parameter([1.0])], lr=1.0)
    >>> schedules = treadle.optim.lr_scheduler
    >>> warm_up = schedules.LinearLR(optimizer, 0.5, total_iters=2)
    >>> decay = schedules.ExponentialLR(optimizer, 0.5)
    >>> scheduler = SequentialLR(optimizer, [warm_up, decay], [2])
    >>> for _ in range(3):
    ...     scheduler.step()
    >>> scheduler.get_last_lr()
    [0.5]
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[Any], milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        super().__init__("SequentialLR", schedulers, optimizer)
        if len(milestones) != len(self._schedulers) - 1:
            raise located(ValueError(
                f"SequentialLR: got {len(self._schedulers)} schedulers and {len(milestones)} "
                f"milestones; there must be one milestone less"
            ))  # fmt: skip
        self._milestones = list(milestones)
        self.last_epoch = last_epoch + 1
        self._schedulers[0]._restart()  # the others have changed the rate when they were made
        self._last_lr = self._schedulers[0].get_last_lr()

    def step(self, epoch: int | None = None) -> None:
        """The scheduler whose turn it is goes on, or begins."""
        if epoch is not None and epoch != self.last_epoch + 1:
            raise located(ValueError(
                f"SequentialLR: got epoch={epoch} after {self.last_epoch}; it goes on by one: call "
                f"step() without an argument"
            ))  # fmt: skip
        self.last_epoch += 1
        turn = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[turn]
        if turn and self._milestones[turn - 1] == self.last_epoch:
            scheduler._restart()
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()


__all__ = ["ChainedScheduler", "LRScheduler", "SequentialLR"]
