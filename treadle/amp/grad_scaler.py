"""Losses scaled so that gradients in float16 neither vanish nor overflow."""

from __future__ import annotations

import enum
import math
import warnings
from collections.abc import Iterable
from typing import Any

from treadle.ir.node import located
from treadle.optim.optimizer import Optimizer
from treadle.tensor.arithmetic import isfinite
from treadle.tensor.grad_mode import no_grad
from treadle.tensor.joining import stack
from treadle.tensor.tensor import Tensor


class OptState(enum.Enum):
    """What has been done with an optimizer since the last ``update``."""

    READY = 0
    UNSCALED = 1
    STEPPED = 2


class GradScaler:
    """Scales losses, and steps where the gradients are finite.

    ::

        scaler.scale(loss).backward();  scaler.step(optimizer);  scaler.update()

    ``step`` divides the gradients by the scale and skips the step where one is infinite or NaN;
    ``update`` then multiplies the scale by ``backoff_factor``, and by ``growth_factor`` after
    ``growth_interval`` steps without. bfloat16 does not need it: its range is that of float32.
    Where the device is not there ("cuda"), it warns and does nothing.

    >>> import treadle
    >>> p = treadle.nn.Parameter([1.0])
    >>> optimizer, scaler = treadle.optim.SGD([p], lr=0.5), GradScaler("cpu")
    >>> scaler.scale(p.sum()).backward()
    >>> scaler.step(optimizer)
    >>> scaler.update()
    >>> p.tolist()
    [0.5]
    """

    def __init__(
        self, device: str = "cuda", init_scale: float = 2.0**16, growth_factor: float = 2.0,
        backoff_factor: float = 0.5, growth_interval: int = 2000, enabled: bool = True,
    ) -> None:  # fmt: skip
        if growth_factor <= 1 or not 0 < backoff_factor < 1:
            raise located(ValueError(
                f"GradScaler: got growth_factor={growth_factor} and "
                f"backoff_factor={backoff_factor}; the first must be above 1, the second between 0 "
                f"and 1"
            ))  # fmt: skip
        if enabled and device != "cpu":
            warnings.warn(
                f"GradScaler: the device {device!r} is not there, so it does nothing; use 'cpu'",
                stacklevel=2,
            )
            enabled = False
        self._device = device
        self._enabled = enabled
        self._scale = float(init_scale)
        self._growth_factor = growth_factor
        self._backoff_factor = backoff_factor
        self._growth_interval = growth_interval
        self._growth_tracker = 0
        self._states: dict[int, OptState] = {}
        self._found_inf: dict[int, bool] = {}

    def scale(self, outputs: Any) -> Any:
        """A tensor, or tensors in lists and tuples, times the scale."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            return outputs * self._scale
        if isinstance(outputs, Iterable):
            scaled = [self.scale(x) for x in outputs]
            return type(outputs)(scaled) if isinstance(outputs, (list, tuple)) else scaled
        raise located(ValueError(
            f"GradScaler.scale: got a {type(outputs).__name__}; it takes tensors"
        ))  # fmt: skip

    @no_grad()
    def unscale_(self, optimizer: Optimizer) -> None:
        """Divides the gradients of an optimizer's parameters by the scale, to clip them say."""
        if not self._enabled:
            return
        state = self._states.get(id(optimizer), OptState.READY)
        if state is not OptState.READY:
            done = "unscale_()" if state is OptState.UNSCALED else "step()"
            raise located(RuntimeError(
                f"GradScaler.unscale_: {done} was called for this optimizer since the last "
                f"update(); call update() first"
            ))  # fmt: skip
        grads = [
            p.grad for group in optimizer.param_groups for p in group["params"]
            if p.grad is not None
        ]  # fmt: skip
        if not grads:
            raise located(AssertionError(
                "GradScaler: got an optimizer whose parameters have no gradients; call backward() "
                "first"
            ))  # fmt: skip
        finite = stack([isfinite(g).all() for g in grads]).all()
        for g in grads:
            g.mul_(1.0 / self._scale)
        self._found_inf[id(optimizer)] = not bool(finite)
        self._states[id(optimizer)] = OptState.UNSCALED

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        """A step of the optimizer, unless a gradient is infinite or NaN; closures are refused."""
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs or args:
            raise located(RuntimeError(
                "GradScaler.step: got a closure, which would have to scale its loss; call "
                "optimizer.step(closure) without a scaler"
            ))  # fmt: skip
        state = self._states.get(id(optimizer), OptState.READY)
        if state is OptState.STEPPED:
            raise located(RuntimeError(
                "GradScaler.step: step() was called for this optimizer since the last update(); "
                "call update() first"
            ))  # fmt: skip
        if state is OptState.READY:
            self.unscale_(optimizer)
        result = None
        if not self._found_inf[id(optimizer)]:
            result = optimizer.step(*args, **kwargs)
        self._states[id(optimizer)] = OptState.STEPPED
        return result

    def update(self, new_scale: Any = None) -> None:
        """Changes the scale by what ``step`` found, or sets it."""
        if not self._enabled:
            return
        if new_scale is not None:
            self._scale = float(new_scale)
        elif not self._found_inf:
            raise located(AssertionError(
                "GradScaler.update: no gradients were looked at; call step(optimizer) first"
            ))  # fmt: skip
        elif any(self._found_inf.values()):
            self._scale *= self._backoff_factor
            self._growth_tracker = 0
        else:
            self._growth_tracker += 1
            if self._growth_tracker == self._growth_interval:
                grown = self._scale * self._growth_factor
                self._scale = grown if math.isfinite(grown) else self._scale
                self._growth_tracker = 0
        self._states.clear()
        self._found_inf.clear()

    # --- settings --------------------------------------------------------------------------------

    def get_scale(self) -> float:
        """The scale; 1 where it is disabled."""
        return self._scale if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        """By what the scale grows."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Sets by what the scale grows."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """By what the scale shrinks."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Sets by what the scale shrinks."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """After how many steps the scale grows."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Sets after how many steps the scale grows."""
        self._growth_interval = new_interval

    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """The scale and the settings; empty where it is disabled."""
        if not self._enabled:
            return {}
        return {
            "scale": self._scale, "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor, "growth_interval": self._growth_interval,
            "_growth_tracker": self._growth_tracker,
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what ``state_dict`` gave."""
        if not self._enabled:
            return
        if not state_dict:
            raise located(RuntimeError(
                "GradScaler.load_state_dict: got an empty state, which a disabled scaler saved; "
                "use enabled=False"
            ))  # fmt: skip
        self._scale = float(state_dict["scale"])
        self._growth_factor = state_dict["growth_factor"]
        self._backoff_factor = state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._growth_tracker = state_dict["_growth_tracker"]


__all__ = ["GradScaler", "OptState"]
