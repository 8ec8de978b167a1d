"""Functions that are called around the steps of optimizers, and around their state."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from treadle.nn.module_hooks import added
from treadle.tensor.hooks import RemovableHandle

HOOKS = (
    "before_step", "after_step", "before_saving", "after_saving", "before_loading", "after_loading",
)  # fmt: skip
_everywhere: dict[str, dict[int, Any]] = {"before_step": {}, "after_step": {}}
Hook = Callable[..., Any]


def _hooked(step: Hook) -> Hook:
    """A ``step`` between its hooks; one that calls another counts once."""

    @functools.wraps(step)
    def wrapped(self: HookedOptimizer, *args: Any, **kwargs: Any) -> Any:
        hooks, everywhere = self._hooks, _everywhere
        before = [*everywhere["before_step"].values(), *hooks["before_step"].values()]
        after = [*hooks["after_step"].values(), *everywhere["after_step"].values()]
        if self._steps or not (before or after):
            return step(self, *args, **kwargs)
        for hook in before:
            changed = hook(self, args, kwargs)
            if changed is not None:
                args, kwargs = changed
        self._steps = True
        try:
            result = step(self, *args, **kwargs)
        finally:
            self._steps = False
        for hook in after:
            hook(self, args, kwargs)
        return result

    return wrapped


class HookedOptimizer:
    """The part of ``Optimizer`` that calls hooks."""

    _hooks: dict[str, dict[int, Any]]
    _steps = False  # whether a step is being taken

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "step" in cls.__dict__:
            cls.step = _hooked(cls.__dict__["step"])  # type: ignore[attr-defined]

    def register_step_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Calls ``hook(optimizer, args, kwargs)`` before a step; a pair replaces the arguments.

        >>> import treadle
        >>> optimizer = treadle.optim.SGD([treadle.nn.Parameter([1.0])], lr=1.0)
        >>> handle = optimizer.register_step_pre_hook(lambda *args: print("now"))
        >>> optimizer.step()
        now
        """
        return RemovableHandle(self._hooks["before_step"], hook)

    def register_step_post_hook(self, hook: Hook) -> RemovableHandle:
        """Calls ``hook(optimizer, args, kwargs)`` after a step."""
        return RemovableHandle(self._hooks["after_step"], hook)

    def register_state_dict_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Calls ``hook(optimizer)`` before the state is collected."""
        return added(self._hooks["before_saving"], hook, prepend)

    def register_state_dict_post_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Calls ``hook(optimizer, state_dict)``; a result replaces the state."""
        return added(self._hooks["after_saving"], hook, prepend)

    def register_load_state_dict_pre_hook(
        self, hook: Hook, prepend: bool = False
    ) -> RemovableHandle:
        """Calls ``hook(optimizer, state_dict)`` before loading; a result replaces the state."""
        return added(self._hooks["before_loading"], hook, prepend)

    def register_load_state_dict_post_hook(
        self, hook: Hook, prepend: bool = False
    ) -> RemovableHandle:
        """Calls ``hook(optimizer)`` after loading."""
        return added(self._hooks["after_loading"], hook, prepend)

    def _call_hooks(self, kind: str) -> None:
        for hook in list(self._hooks[kind].values()):
            hook(self)

    def _changed(self, kind: str, state: Any) -> Any:
        """The state as the hooks leave it."""
        for hook in list(self._hooks[kind].values()):
            changed = hook(self, state)
            state = state if changed is None else changed
        return state


def register_optimizer_step_pre_hook(hook: Hook) -> RemovableHandle:
    """Calls ``hook(optimizer, args, kwargs)`` before the steps of all optimizers."""
    return RemovableHandle(_everywhere["before_step"], hook)


def register_optimizer_step_post_hook(hook: Hook) -> RemovableHandle:
    """Calls ``hook(optimizer, args, kwargs)`` after the steps of all optimizers."""
    return RemovableHandle(_everywhere["after_step"], hook)


__all__ = [
    "HOOKS", "HookedOptimizer", "register_optimizer_step_post_hook",
    "register_optimizer_step_pre_hook",
]  # fmt: skip
