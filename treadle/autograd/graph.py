"""PyTorch's ``autograd.graph``: hooks on what gradients keep, and on several gradients at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any

from treadle.autodiff.reverse import at_the_end
from treadle.ir.node import Node, located
from treadle.tensor.function import SavedHooks
from treadle.tensor.hooks import RemovableHandle, register_hook
from treadle.tensor.tensor import Tensor


class saved_tensors_hooks:
    """Hands tensors that a ``Function`` saves to ``pack_hook``, and gets them from ``unpack_hook``.

    These are the tensors given to ``save_for_backward``. What operations of Treadle keep for their
    gradients is decided when a graph is evaluated, and is not shown to hooks: to trade memory for
    time there, use ``treadle.utils.checkpoint``.
    """

    def __init__(
        self, pack_hook: Callable[[Tensor], Any], unpack_hook: Callable[[Any], Tensor]
    ) -> None:
        self.hooks = pack_hook, unpack_hook

    def __enter__(self) -> None:
        if (message := _Disabled.message) is not None:
            raise located(RuntimeError(message))
        SavedHooks.stack.append(self.hooks)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        SavedHooks.stack.pop()


class save_on_cpu(saved_tensors_hooks):
    """Keeps saved tensors on the CPU, where all of Treadle's are."""

    def __init__(self, pin_memory: bool = False, device_type: str = "cpu") -> None:
        super().__init__(lambda x: x, lambda x: x)


class _Disabled:
    message: str | None = None


@contextmanager
def disable_saved_tensors_hooks(error_message: str) -> Iterator[None]:
    """Makes ``saved_tensors_hooks`` raise a RuntimeError with this message."""
    before, _Disabled.message = _Disabled.message, error_message
    try:
        yield
    finally:
        _Disabled.message = before


@contextmanager
def allow_mutation_on_saved_tensors() -> Iterator[None]:
    """Nothing to allow: what a gradient keeps is never overwritten by writes in place."""
    yield


class MultiHandle:
    """What registering a hook of several tensors returns."""

    def __init__(self, handles: Sequence[RemovableHandle]) -> None:
        self.handles = handles

    def remove(self) -> None:
        """Takes the hook away."""
        for handle in self.handles:
            handle.remove()


def register_multi_grad_hook(
    tensors: Sequence[Tensor], fn: Callable[[Any], None], *, mode: str = "all"
) -> MultiHandle:
    """Calls ``fn`` with the gradients of all tensors once a backward pass knows them.

    They come as a list with None for tensors that the pass did not reach. With mode "any", ``fn``
    gets the first gradient that is known, at once.

    >>> import treadle
    >>> a, b = treadle.ones(1, requires_grad=True), treadle.ones(1, requires_grad=True)
    >>> handle = register_multi_grad_hook([a, b], lambda grads: print(grads))
    >>> (2 * a + 3 * b).sum().backward()
    [tensor([2.]), tensor([3.])]
    """
    if mode not in ("all", "any"):
        raise located(ValueError(
            f"register_multi_grad_hook: got mode={mode!r}; it is 'all' or 'any'"
        ))  # fmt: skip
    grads: dict[int, Tensor] = {}

    def end() -> None:
        found = [grads.get(i) for i in range(len(tensors))]
        grads.clear()
        if mode == "all":
            fn(found)

    def known(position: int, gradient: Tensor) -> None:
        if not grads:
            at_the_end.append(end)
            if mode == "any":
                fn(gradient)
        grads[position] = gradient

    return MultiHandle([register_hook(t, partial(known, i)) for i, t in enumerate(tensors)])


def get_gradient_edge(tensor: Tensor) -> Any:
    """Raises: gradients are asked for by tensors here."""
    raise located(NotImplementedError(
        "get_gradient_edge: a gradient is asked for by the tensor itself; pass the tensor to "
        "treadle.autograd.grad"
    ))  # fmt: skip


class GradientEdge:
    """Cannot be made: gradients are asked for by tensors here."""

    def __init__(self, *args: Any) -> None:
        get_gradient_edge(*args[:1])


__all__ = [
    "GradientEdge", "Node", "allow_mutation_on_saved_tensors", "disable_saved_tensors_hooks",
    "get_gradient_edge", "register_multi_grad_hook", "save_on_cpu", "saved_tensors_hooks",
]  # fmt: skip
