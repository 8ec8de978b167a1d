"""Functions that are called when a module runs, and when gradients pass through it.

A module's own hooks come after those of all modules (``register_module_...``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from treadle.ir.node import located
from treadle.tensor.function import Function
from treadle.tensor.handle import Handle
from treadle.tensor.hooks import RemovableHandle
from treadle.tensor.tensor import Tensor

if TYPE_CHECKING:
    from treadle.nn.module import Module

Hook = Callable[..., Any]
Hooks = dict[int, Any]


class Everywhere:
    """The hooks of all modules, by what they are called for."""

    used = False  # whether there ever was one: looked at in every call
    hooks: dict[str, Hooks] = {
        name: {}
        for name in ("forward_pre", "forward", "backward_pre", "backward", "buffer", "module",
                     "parameter")
    }  # fmt: skip

    @classmethod
    def add(cls, kind: str, hook: Hook) -> RemovableHandle:
        """Registers a hook of one kind."""
        cls.used = True
        return RemovableHandle(cls.hooks[kind], hook)


def added(hooks: Hooks, hook: Hook, prepend: bool) -> RemovableHandle:
    """Registers a hook, before the others if ``prepend``."""
    others = dict(hooks)
    handle = RemovableHandle(hooks, hook)
    if prepend:
        for key, other in others.items():
            del hooks[key]
            hooks[key] = other
    return handle


class HookedModule:
    """The part of ``Module`` that calls hooks."""

    if TYPE_CHECKING:
        forward: Callable[..., Any]
        _forward_pre_hooks: Hooks
        _forward_hooks: Hooks
        _backward_pre_hooks: Hooks
        _backward_hooks: Hooks
        _hook_options: dict[str, set[int]]

    def register_forward_pre_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Calls ``hook(module, args)`` before forward; a result replaces the arguments.

        ``with_kwargs`` calls ``hook(module, args, kwargs)``, whose result is a pair.
        """
        handle = added(self._forward_pre_hooks, hook, prepend)
        if with_kwargs:
            self._hook_options["kwargs"].add(handle._id)
        return handle

    def register_forward_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:  # fmt: skip
        """Calls ``hook(module, args, output)`` after forward; a result replaces the output.

        ``with_kwargs`` calls ``hook(module, args, kwargs, output)``; with ``always_call`` it is
        called also where forward raises (the output is then None).
        """
        handle = added(self._forward_hooks, hook, prepend)
        if with_kwargs:
            self._hook_options["kwargs"].add(handle._id)
        if always_call:
            self._hook_options["always"].add(handle._id)
        return handle

    def register_full_backward_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Calls ``hook(module, grad_output)`` when the gradients of the output are known.

        ``grad_output`` is a tuple; a result replaces it.
        """
        return added(self._backward_pre_hooks, hook, prepend)

    def register_full_backward_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Calls ``hook(module, grad_input, grad_output)`` when those of the inputs are known.

        Both are tuples, ``grad_input`` with one entry for each positional argument, None where it
        has no gradient; a result replaces it.

        >>> import treadle
        >>> layer = treadle.nn.Linear(2, 1)
        >>> handle = layer.register_full_backward_hook(lambda m, gi, go: print(len(gi), len(go)))
        >>> layer(treadle.ones(1, 2, requires_grad=True)).sum().backward()
        1 1
        """
        return added(self._backward_hooks, hook, prepend)

    def register_backward_hook(self, hook: Hook) -> RemovableHandle:
        """PyTorch's older name for ``register_full_backward_hook``, which this is."""
        return self.register_full_backward_hook(hook)

    def _call_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``forward`` between the hooks."""
        called: set[int] = set()
        args, kwargs = self._prepared(args, kwargs)
        try:
            passage = _Passage(self)
            output = self.forward(*passage.enter(args), **kwargs)
            hooks = Everywhere.hooks["forward"]
            for key, hook in [*hooks.items(), *self._forward_hooks.items()]:
                called.add(key)
                changed = self._call_forward_hook(key, hook, args, kwargs, output)
                if changed is not None:
                    output = changed
            return passage.leave(output)
        except BaseException:
            for key in self._hook_options["always"] - called:
                if key in self._forward_hooks:
                    self._call_forward_hook(key, self._forward_hooks[key], args, kwargs, None)
            raise

    def _prepared(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments as the hooks before forward leave them."""
        hooks = Everywhere.hooks["forward_pre"]
        for key, hook in [*hooks.items(), *self._forward_pre_hooks.items()]:
            if key in self._hook_options["kwargs"]:
                changed = hook(self, args, kwargs)
                if changed is not None:
                    args, kwargs = changed
                continue
            changed = hook(self, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        return args, kwargs

    def _call_forward_hook(
        self, key: int, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        if key in self._hook_options["kwargs"]:
            return hook(self, args, kwargs, output)
        return hook(self, args, output)


# --- gradients through a module -------------------------------------------------------------------


class _Passage:
    """One call of a module whose backward hooks are to be called with its gradients.

    The inputs and the outputs pass through functions that change nothing but see the gradients.
    """

    def __init__(self, module: HookedModule) -> None:
        self.module = module
        hooks = Everywhere.hooks
        self.before = [*hooks["backward_pre"].values(), *module._backward_pre_hooks.values()]
        self.after = [*hooks["backward"].values(), *module._backward_hooks.values()]
        self.arguments = 0
        self.has_inputs = False  # whether any asks for a gradient
        self.grad_output: tuple[Any, ...] = ()

    def enter(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, through a function that calls the hooks of the inputs' gradients."""
        self.arguments = len(args)
        tensors = [x for x in args if isinstance(x, Handle)]
        self.has_inputs = any(x.node.needs_grad for x in tensors)
        if not self.after or not self.has_inputs:
            return args
        return _seen(args, self.entered)

    def leave(self, output: Any) -> Any:
        """The output, through a function that notes its gradients."""
        if not self.before and not self.after:
            return output
        results = output if isinstance(output, tuple) else (output,)
        if not any(isinstance(x, Handle) for x in results):
            return output
        passed = _seen(results, self.left)
        return passed if isinstance(output, tuple) else passed[0]

    def left(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        """The gradients of the output as the hooks leave them."""
        for hook in self.before:
            changed = hook(self.module, grads)
            if changed is not None:
                grads = changed if isinstance(changed, tuple) else (changed,)
        self.grad_output = grads
        if not self.has_inputs:
            for hook in self.after:
                hook(self.module, (None,) * self.arguments, grads)
        return grads

    def entered(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        """The gradients of the inputs as the hooks leave them."""
        for hook in self.after:
            changed = hook(self.module, grads, self.grad_output)
            if changed is not None:
                grads = changed if isinstance(changed, tuple) else (changed,)
        return grads


class _Seen(Function):
    """Tensors as they are, whose gradients are shown to ``call`` when all are known."""

    @staticmethod
    def forward(ctx: Any, call: Hook, places: list[int], count: int, *tensors: Tensor) -> Any:
        """The tensors, which stand at ``places`` among ``count`` values."""
        ctx.call, ctx.places, ctx.count = call, places, count
        ctx.set_materialize_grads(False)
        return tensors

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        """What ``call`` makes of the gradients."""
        shown: list[Any] = [None] * ctx.count
        for place, g in zip(ctx.places, grads, strict=True):
            shown[place] = g
        changed = ctx.call(tuple(shown))
        return None, None, None, *[changed[place] for place in ctx.places]


def _seen(items: tuple[Any, ...], call: Hook) -> tuple[Any, ...]:
    places = [i for i, x in enumerate(items) if isinstance(x, Handle)]
    passed = list(items)
    tensors = _Seen.apply(call, places, len(items), *[items[i] for i in places])
    for place, x in zip(places, tensors, strict=True):
        passed[place] = x
    return tuple(passed)


# --- hooks of all modules -------------------------------------------------------------------------


def register_module_forward_pre_hook(hook: Hook) -> RemovableHandle:
    """Calls ``hook(module, args)`` before the forward of every module."""
    return Everywhere.add("forward_pre", hook)


def register_module_forward_hook(
    hook: Hook, *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """Calls ``hook(module, args, output)`` after the forward of every module."""
    if with_kwargs or always_call:
        raise located(NotImplementedError(
            f"register_module_forward_hook: got with_kwargs={with_kwargs} and "
            f"always_call={always_call}; these are for the hooks of single modules: use "
            f"module.register_forward_hook"
        ))  # fmt: skip
    return Everywhere.add("forward", hook)


def register_module_full_backward_pre_hook(hook: Hook) -> RemovableHandle:
    """Calls ``hook(module, grad_output)`` for every module, as its own hooks are."""
    return Everywhere.add("backward_pre", hook)


def register_module_full_backward_hook(hook: Hook) -> RemovableHandle:
    """Calls ``hook(module, grad_input, grad_output)`` for every module, as its own hooks are."""
    return Everywhere.add("backward", hook)


register_module_backward_hook = register_module_full_backward_hook


def register_module_buffer_registration_hook(hook: Hook) -> RemovableHandle:
    """Calls ``hook(module, name, buffer)`` for every buffer registered; a result replaces it."""
    return Everywhere.add("buffer", hook)


def register_module_module_registration_hook(hook: Hook) -> RemovableHandle:
    """Calls ``hook(module, name, submodule)`` for every module added; a result replaces it."""
    return Everywhere.add("module", hook)


def register_module_parameter_registration_hook(hook: Hook) -> RemovableHandle:
    """Calls ``hook(module, name, parameter)`` for every one registered; a result replaces it."""
    return Everywhere.add("parameter", hook)


def registered(kind: str, module: Module, name: str, value: Any) -> Any:
    """What the registration hooks of all modules make of a new member."""
    for hook in list(Everywhere.hooks[kind].values()):
        changed = hook(module, name, value)
        if changed is not None:
            value = changed
    return value


__all__ = [
    "register_module_backward_hook", "register_module_buffer_registration_hook",
    "register_module_forward_hook", "register_module_forward_pre_hook",
    "register_module_full_backward_hook", "register_module_full_backward_pre_hook",
    "register_module_module_registration_hook", "register_module_parameter_registration_hook",
]  # fmt: skip
