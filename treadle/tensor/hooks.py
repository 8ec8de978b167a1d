"""Functions that are called with a gradient when it is known."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from treadle.autodiff.reverse import Hooks, hooks_of_nodes
from treadle.base.errors import GradientError, ShapeError
from treadle.ir.node import Leaf, Node, located, recorder
from treadle.tensor.arithmetic import cast
from treadle.tensor.handle import Handle, wrap

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor


class RemovableHandle:
    """What registering a hook returns: ``remove()`` takes the hook away again."""

    _ids = itertools.count()

    def __init__(self, hooks: dict[int, Any], hook: Any) -> None:
        self._hooks = hooks
        self._id = next(self._ids)
        hooks[self._id] = hook

    def remove(self) -> None:
        """Takes the hook away; a second call does nothing."""
        self._hooks.pop(self._id, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def register_hook(input: Tensor, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Calls ``hook(gradient)`` whenever the gradient of the tensor is known.

    That is in ``backward`` and ``grad``, before the gradient flows on and before it is added to
    ``grad``. A tensor that the hook returns takes the gradient's place; hooks are called in the
    order in which they were registered. A hook of a computed tensor belongs to its value of now.

    >>> import treadle
    >>> x = treadle.tensor([1.0, 2.0], requires_grad=True)
    >>> handle = x.register_hook(lambda gradient: gradient * 10)
    >>> x.sum().backward()
    >>> x.grad.tolist()
    [10.0, 10.0]
    """
    node = input.node
    if not node.needs_grad:
        raise located(GradientError(
            "register_hook: got a tensor that does not require a gradient; call requires_grad_()"
        ))  # fmt: skip
    if not isinstance(node, Leaf):
        hooks = hooks_of_nodes.get(node) or hooks_of_nodes.setdefault(node, Hooks())
    elif (known := getattr(input, "_hooks", None)) is None:
        hooks = input._hooks = Hooks()
    else:
        hooks = known
    return RemovableHandle(hooks.calls, lambda adjoint: _called(hook, adjoint))


def _called(hook: Callable[[Tensor], Tensor | None], adjoint: Node) -> Node:
    """The adjoint, or what the hook puts in its place."""
    site, recorder.state.site = recorder.state.site, None  # what the hook does is on its own lines
    try:
        given: Any = hook(wrap(adjoint))
    finally:
        recorder.state.site = site
    if given is None:
        return adjoint
    if not isinstance(given, Handle):
        raise located(TypeError(
            f"register_hook: the hook returned a {type(given).__name__}; it returns a tensor or "
            f"None"
        ))  # fmt: skip
    if given.node.shape != adjoint.shape:
        raise located(ShapeError(
            f"register_hook: the hook returned a tensor of shape {given.node.shape} for a gradient "
            f"of shape {adjoint.shape}; they must be equal"
        ))  # fmt: skip
    return cast(given.node, adjoint.dtype)


def register_post_accumulate_grad_hook(
    input: Tensor, hook: Callable[[Tensor], None]
) -> RemovableHandle:
    """Calls ``hook(tensor)`` after ``backward`` has added to the ``grad`` of this leaf."""
    if not isinstance(input.node, Leaf):
        raise located(GradientError(
            "register_post_accumulate_grad_hook: got a tensor that is no leaf with a gradient; "
            "only these accumulate gradients"
        ))  # fmt: skip
    known: dict[int, Any] | None = getattr(input, "_after", None)
    if known is None:
        known = input._after = {}
    return RemovableHandle(known, hook)


class Methods(Handle):
    """The functions of this module, which are methods only."""

    __slots__ = ()

    register_hook = register_hook
    register_post_accumulate_grad_hook = register_post_accumulate_grad_hook
