"""Whether what is recorded can be differentiated."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from treadle.ir.node import recorder

F = TypeVar("F", bound=Callable[..., Any])


class _GradMode:
    """A context, a decorator, and (``set_grad_enabled``) a plain switch."""

    def __init__(self, mode: bool) -> None:
        self.mode = mode
        self.previous: Any = None  # (the mode before, the one before that)

    # No calls in what follows: after a call Ctrl-C could come between.

    def __enter__(self) -> None:
        self.previous = (recorder.state.grad_enabled, self.previous)
        recorder.state.grad_enabled = self.mode

    def __exit__(self, *exc: object) -> None:
        recorder.state.grad_enabled, self.previous = self.previous

    def __call__(self, function: F) -> F:
        import inspect  # not with treadle: it takes long

        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                return self._running(function(*args, **kwargs))

        else:

            @functools.wraps(function)
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                # Not a `with` block: Ctrl-C on entering its __exit__ would leave the mode changed.
                state = recorder.state
                before = state.grad_enabled
                state.grad_enabled = self.mode
                try:
                    return function(*args, **kwargs)
                finally:
                    state.grad_enabled = before

        return wrapped  # type: ignore[return-value]

    def _running(self, generator: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """``generator`` with the mode set while it runs, and not while it waits."""
        resume, sent = generator.send, None
        try:
            while True:
                with _GradMode(self.mode):
                    value = resume(sent)
                try:
                    resume, sent = generator.send, (yield value)
                except GeneratorExit:
                    raise
                except BaseException as error:  # thrown in by the consumer
                    resume, sent = generator.throw, error
        except StopIteration as end:
            return end.value
        finally:
            with _GradMode(self.mode):
                generator.close()


class no_grad(_GradMode):
    """Records without gradients.

    >>> import treadle
    >>> x = treadle.ones(2, requires_grad=True)
    >>> with treadle.no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """

    def __new__(cls, function: Any = None) -> Any:
        """``@no_grad`` without parentheses decorates too."""
        self = super().__new__(cls)
        if function is None:
            return self
        self.__init__()  # type: ignore[misc]
        return self(function)

    def __init__(self) -> None:
        super().__init__(False)


class enable_grad(_GradMode):
    """Records with gradients again, inside ``no_grad``."""

    def __init__(self) -> None:
        super().__init__(True)


class set_grad_enabled(_GradMode):
    """Switches at once, and back at the end of a ``with`` block."""

    def __init__(self, mode: bool) -> None:
        super().__init__(bool(mode))
        super().__enter__()

    def __enter__(self) -> None:
        recorder.state.grad_enabled = self.mode

    def __call__(self, function: F) -> F:
        """``@set_grad_enabled(mode)``."""
        """A decorated function; decorating switches nothing by itself."""
        self.__exit__()
        return super().__call__(function)


class inference_mode(no_grad):
    """Records without gradients, as ``no_grad``; ``inference_mode(False)`` records with them."""

    def __new__(cls, mode: Any = True) -> Any:
        """``@inference_mode`` without parentheses decorates too."""
        return super().__new__(cls, None if isinstance(mode, bool) else mode)

    def __init__(self, mode: Any = True) -> None:
        _GradMode.__init__(self, mode is False)


def is_grad_enabled() -> bool:
    """True where gradients are recorded."""
    return recorder.state.grad_enabled
