"""Modules: layers and networks as trees of parameters, buffers and further modules."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Self

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import DeviceError, TreadleError
from treadle.ir.node import located
from treadle.nn.module_hooks import Everywhere, HookedModule, registered
from treadle.nn.module_state import LoadResult, ModuleState
from treadle.nn.parameter import Buffer, Parameter, replace_value
from treadle.tensor.grad_mode import no_grad
from treadle.tensor.hooks import RemovableHandle
from treadle.tensor.tensor import Device, Tensor, check_device


class Module(HookedModule, ModuleState):
    """The base of all layers and networks.

    A subclass assigns parameters and modules to attributes in ``__init__`` (after
    ``super().__init__()``) and computes its result in ``forward``. Calling the module runs it.

    >>> from treadle import nn
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.hidden = nn.Linear(3, 4)
    ...         self.out = nn.Linear(4, 2)
    ...     def forward(self, x):
    ...         return self.out(self.hidden(x).relu())
    >>> [name for name, _ in Net().named_parameters()]
    ['hidden.weight', 'hidden.bias', 'out.weight', 'out.bias']
    """

    training: bool  # whether it is being trained: what dropout and batch norm look at
    dump_patches = False  # PyTorch's, without a meaning here
    call_super_init = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args or kwargs:
            raise located(TypeError(
                f"{type(self).__name__}: Module.__init__() got {len(args)} arguments and the names "
                f"{sorted(kwargs)}; it takes none"
            ))  # fmt: skip
        # Straight into __dict__: __setattr__ below needs them.
        self.__dict__.update(
            training=True, _parameters={}, _buffers={}, _modules={},
            _non_persistent_buffers_set=set(), _forward_hooks={}, _forward_pre_hooks={},
            _backward_hooks={}, _backward_pre_hooks={},
            _hook_options={"kwargs": set(), "always": set()},
            _state_hooks={"before_saving": {}, "after_saving": {}, "before_loading": {},
                          "after_loading": {}},
        )  # fmt: skip

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """To be defined by subclasses: what the module computes."""
        raise NotImplementedError(
            f"{type(self).__name__} has no forward(); define what it computes there"
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs ``forward`` between the hooks; errors get the path of the layer."""
        try:
            if not (
                self._forward_hooks or self._forward_pre_hooks or self._backward_hooks
                or self._backward_pre_hooks or Everywhere.used
            ):  # fmt: skip
                return self.forward(*args, **kwargs)
            return self._call_with_hooks(args, kwargs)
        except TreadleError as error:
            _tell_path(error, self)
            raise

    # --- attributes ------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if isinstance(value, Parameter):
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self.add_module(name, value)
        elif isinstance(value, Buffer):
            self.register_buffer(name, value, value.persistent)
        elif name in own.get("_parameters", ()):
            if value is not None:
                raise located(TypeError(
                    f"{type(self).__name__}.{name}: got a {type(value).__name__} for a parameter; "
                    f"assign an nn.Parameter or None"
                ))  # fmt: skip
            own["_parameters"][name] = None
        elif name in own.get("_modules", ()) and value is None:
            own["_modules"][name] = None
        elif name in own.get("_buffers", ()) and (value is None or isinstance(value, Tensor)):
            own["_buffers"][name] = value
        else:
            if name in own.get("_modules", ()) or name in own.get("_buffers", ()):
                self._forget(name)
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        for kind in ("_parameters", "_modules", "_buffers"):
            if kind in own and name in own[kind]:
                return own[kind][name]
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for kind in ("_parameters", "_modules", "_buffers"):
            if name in self.__dict__[kind]:
                self._forget(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._parameters, *self._modules, *self._buffers})

    def _forget(self, name: str, but: str = "") -> None:
        """Removes whatever has that name (``but`` names the kind that keeps its place)."""
        own = self.__dict__
        own.pop(name, None)
        for kind in ("_parameters", "_modules", "_buffers"):
            if kind != but:
                own[kind].pop(name, None)
        own["_non_persistent_buffers_set"].discard(name)

    def _registry(self, what: str, name: str) -> None:
        """Checks that ``what`` can be registered under this name."""
        if "_modules" not in self.__dict__:
            raise located(AttributeError(
                f"{type(self).__name__}.{name}: got {what} before Module.__init__() was called; "
                f"call super().__init__() first in __init__"
            ))  # fmt: skip
        if not isinstance(name, str) or not name or "." in name:
            raise KeyError(
                f"{type(self).__name__}: got the name {name!r} for {what}; a name is a string that "
                f"is not empty and has no dot"
            )

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Adds a parameter (or the place for one) under ``name``."""
        self._registry("a parameter", name)
        if param is not None and not isinstance(param, Parameter):
            raise located(TypeError(
                f"{type(self).__name__}.{name}: got a {type(param).__name__} for a parameter; wrap "
                f"it in nn.Parameter"
            ))  # fmt: skip
        if Everywhere.used:
            param = registered("parameter", self, name, param)
        self._forget(name, but="_parameters")
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Adds a tensor that is no parameter; ``state_dict`` holds it if it is persistent."""
        self._registry("a buffer", name)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise located(TypeError(
                f"{type(self).__name__}.{name}: got a {type(tensor).__name__} for a buffer; make a "
                f"tensor with treadle.tensor(value)"
            ))  # fmt: skip
        if Everywhere.used:
            tensor = registered("buffer", self, name, tensor)
        self._forget(name, but="_buffers")
        self._buffers[name] = tensor
        if not persistent:
            self._non_persistent_buffers_set.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Adds a module under ``name``."""
        if module is not None and not isinstance(module, Module):
            raise located(TypeError(
                f"{type(self).__name__}.{name}: got a {type(module).__name__}; it takes an "
                f"nn.Module"
            ))  # fmt: skip
        self._registry("a module", name)
        if Everywhere.used:
            module = registered("module", self, name, module)
        self._forget(name, but="_modules")
        self._modules[name] = module

    register_module = add_module

    # --- the tree --------------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules assigned to this one, each once."""
        seen: set[int] = set()
        for name, module in self._modules.items():
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def children(self) -> Iterator[Module]:
        """The modules assigned to this one, each once."""
        return (module for _, module in self.named_children())

    def named_modules(
        self, memo: set[int] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This module and all below it with their paths, parents first."""
        seen = set() if memo is None else memo
        todo = [(prefix, self)]
        while todo:
            path, module = todo.pop()
            if remove_duplicate and id(module) in seen:
                continue
            seen.add(id(module))
            yield path, module
            below = [
                (f"{path}.{name}" if path else name, child)
                for name, child in module._modules.items()
                if child is not None
            ]
            todo.extend(reversed(below))

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def _named(
        self, kind: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        """Members of one kind, with their paths."""
        seen: set[int] = set()
        places = (
            self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
            if recurse
            else iter([(prefix, self)])
        )
        for path, module in places:
            for name, member in module.__dict__[kind].items():
                if member is None or (remove_duplicate and id(member) in seen):
                    continue
                seen.add(id(member))
                yield (f"{path}.{name}" if path else name), member

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """The parameters with their paths; one that is used in several places comes once."""
        return self._named("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, each once."""
        return (p for _, p in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """The buffers with their paths."""
        return self._named("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers, each once."""
        return (b for _, b in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The module at a path such as ``"encoder.2.linear"``; the empty path is this module."""
        module = self
        for step in target.split(".") if target else ():
            child = module._modules.get(step)
            if child is None:
                names = ", ".join(module._modules) or "none"
                raise located(AttributeError(
                    f"get_submodule: got the path {target!r}, but {type(module).__name__} has no "
                    f"module {step!r}; it has {names}"
                ))  # fmt: skip
            module = child
        return module

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Puts a module at a path; with ``strict`` there must be one already."""
        path, _, name = target.rpartition(".")
        parent = self.get_submodule(path)
        if not name or not isinstance(module, Module) or (strict and name not in parent._modules):
            raise located(AttributeError(
                f"set_submodule: got the path {target!r} and a {type(module).__name__}; it takes a "
                f"path that is not empty (with strict=True, of a module that is there) and a module"
            ))  # fmt: skip
        parent.add_module(name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a path."""
        return self._member(target, "_parameters", "parameter")

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a path."""
        return self._member(target, "_buffers", "buffer")

    def _member(self, target: str, kind: str, what: str) -> Any:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        member = module.__dict__[kind].get(name)
        if member is None:
            names = ", ".join(module.__dict__[kind]) or "none"
            raise located(AttributeError(
                f"get_{what}: got the path {target!r}, but {type(module).__name__} has no {what} "
                f"{name!r}; it has {names}"
            ))  # fmt: skip
        return member

    def num_parameters(self, only_trainable: bool = False) -> int:
        """How many numbers the parameters hold together."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not only_trainable)

    # --- modes and conversions -------------------------------------------------------------------

    def apply(self, function: Callable[[Module], Any]) -> Self:
        """Calls ``function`` with every module below and then with this one."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def train(self, mode: bool = True) -> Self:
        """Switches this module and all below it to training (or, with False, to evaluation)."""
        if not isinstance(mode, bool):
            raise located(TypeError(f"train: got {mode!r} for mode; it is True or False"))
        self.training = mode
        for child in self.children():
            child.train(mode)
        return self

    def eval(self) -> Self:
        """Switches to evaluation: ``train(False)``."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Whether the parameters ask for gradients."""
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients of the parameters, or sets them to zero."""
        for p in self.parameters():
            if set_to_none:
                p._grad = None
            elif p._grad is not None:
                p._grad.detach_().zero_()

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Converts the inexact parameters and buffers: ``to(dtype)``, ``to('cpu')``."""
        dtype: DType | None = None
        given = [*args, *(kwargs.get(key) for key in ("device", "dtype", "tensor"))]
        for value in given:
            if isinstance(value, Tensor):
                dtype = value.dtype
            elif isinstance(value, (str, Device)):
                check_device(value)
            elif value is not None and not isinstance(value, bool):
                dtype = dtypes.as_dtype(value)
        if dtype is None:
            return self
        if not dtype.is_inexact:
            raise located(TypeError(
                f"to: got dtype {dtype.name}; a module's parameters are floating-point or complex"
            ))  # fmt: skip
        return self._apply(lambda t: t.to(dtype) if t.dtype.is_inexact else t)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Gives every parameter, its gradient and every buffer the value that ``fn`` makes of it.

        The tensors stay the same objects.
        """
        with no_grad():
            members = (self.parameters(recurse), self.buffers(recurse))
            for t in itertools.chain.from_iterable(members):
                value = fn(t)
                gradient = t._grad
                if value is not t:
                    replace_value(t, value.node)
                    t._grad = None if gradient is None else fn(gradient)
        return self

    def type(self, dst_type: Any) -> Self:
        """All parameters and buffers in a dtype."""
        return self._apply(lambda t: t.to(dtypes.as_dtype(dst_type)))

    def to_empty(self, *, device: Any, recurse: bool = True) -> Self:
        """Accepted for PyTorch's sake: the module on the device, with any values (here its own)."""
        check_device(device)
        return self

    def share_memory(self) -> Self:
        """Accepted for PyTorch's sake: threads share all memory anyway."""
        return self

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Accepted for PyTorch's sake: whatever repeats is compiled without being asked."""

    def float(self) -> Self:
        """In float32."""
        return self.to(dtypes.float32)

    def double(self) -> Self:
        """In float64."""
        return self.to(dtypes.float64)

    def half(self) -> Self:
        """In float16."""
        return self.to(dtypes.float16)

    def bfloat16(self) -> Self:
        """In bfloat16."""
        return self.to(dtypes.bfloat16)

    def cpu(self) -> Self:
        """On the CPU."""
        return self.to("cpu")

    def cuda(self, device: Any = None) -> Self:
        """Raises DeviceError: there is no CUDA device yet."""
        return self.to("cuda")

    def _absent(self, device: Any = None) -> Self:
        """Raises DeviceError: PyTorch's further devices are not there."""
        raise located(DeviceError(
            "this version of Treadle runs on the CPU only; use .to('cpu'), or leave the device out"
        ))  # fmt: skip

    xpu, ipu, mtia = _absent, _absent, _absent

    # --- text ------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What the text form shows between the parentheses: the settings of the layer."""
        return ""

    def __repr__(self) -> str:
        settings = self.extra_repr()
        lines = settings.split("\n") if settings else []
        below = [f"({name}): {_indented(repr(m))}" for name, m in self._modules.items()]
        if not below and len(lines) <= 1:
            return f"{type(self).__name__}({settings})"
        inside = "".join(f"  {line}\n" for line in (*lines, *below))
        return f"{type(self).__name__}(\n{inside})"


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")


def _tell_path(error: TreadleError, module: Module) -> None:
    """Puts the layer's path in front of the error's text, once more for every module passed.

    The error keeps the modules that it has passed, the innermost first; the last one to come, the
    outermost, knows the path.
    """
    passed: list[Module] = getattr(error, "modules", [])
    if any(m is module for m in passed):
        return  # the same error, raised again
    if not passed:
        error.text = str(error)  # type: ignore[attr-defined]
    passed = [*passed, module]
    error.modules = passed  # type: ignore[attr-defined]
    error.args = (f"{_path(passed)} > {error.text}",)  # type: ignore[attr-defined]


def _path(passed: list[Module]) -> str:
    """``lenet.features.0`` for modules from the innermost to the outermost."""
    outermost = passed[-1]
    steps = [type(outermost).__name__.lower()]
    for inner, outer in zip(reversed(passed[:-1]), reversed(passed), strict=False):
        names = (name for name, m in outer.named_modules() if m is inner)
        steps.append(next(names, type(inner).__name__.lower()))
    return ".".join(steps)


__all__ = ["LoadResult", "Module", "RemovableHandle"]
