"""``treadle.compile``: for those who want to wait for the compiler, and to be told."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, TypeVar

from treadle.compiler.tier0 import evaluate
from treadle.ir.node import located, recorder

F = TypeVar("F", bound=Callable[..., Any])


def compile(
    model: Any = None, *, fullgraph: bool = False, dynamic: bool | None = None,
    backend: str = "treadle", mode: str | None = None, options: Any = None, disable: bool = False,
) -> Any:  # fmt: skip
    """The function or module, run as fused programs from its first call on.

    Nobody has to call this: what repeats is compiled beside the run anyhow, with the same bits.
    Here the first call with arguments of new shapes waits until all its code is compiled and raises
    what prevents it, instead of going on operation by operation. What the function records is
    evaluated before it returns. A module is returned as a copy that shares its parameters.

    ``fullgraph``, ``dynamic``, ``mode`` and ``options`` are PyTorch's and change nothing;
    ``disable`` returns ``model`` as it is. Without ``model`` it returns a decorator. Source:
    PyTorch's ``torch.compile``.

    Raises:
        ValueError: for a ``backend`` other than ``"treadle"`` (or PyTorch's ``"inductor"``).
        CompileError: from the call, where a graph cannot be compiled.

    >>> import treadle
    >>> @treadle.compile
    ... def double(x):
    ...     return (x.exp().log() + x).relu()
    >>> double(treadle.tensor([1.0, -2.0])).tolist()
    [2.0, 0.0]
    """
    if backend not in ("treadle", "inductor"):
        raise located(ValueError(
            f"compile: got backend {backend!r}; there is one, 'treadle', which needs no naming"
        ))  # fmt: skip
    if model is None:
        return functools.partial(compile, disable=disable)
    if not callable(model):
        raise located(TypeError(
            f"compile: got a {type(model).__name__}; it takes a function or a module"
        ))  # fmt: skip
    if disable:
        return model
    if hasattr(model, "forward") and not isinstance(model, type):
        compiled = copy.copy(model)  # its dictionaries of parameters are those of the original
        object.__setattr__(compiled, "forward", _ahead(model.forward))
        return compiled
    return _ahead(model)


def _ahead(function: F) -> F:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        state = recorder.state
        evaluate()  # what is pending is not this function's
        before = state.is_ahead
        try:
            state.is_ahead = True
            result = function(*args, **kwargs)
            evaluate()
        finally:
            state.is_ahead = before
        return result

    return run  # type: ignore[return-value]


__all__ = ["compile"]
