"""Parameters as functions of others: ``weight = f(original)``, computed where it is read."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from treadle.base.errors import DTypeError, ShapeError
from treadle.ir.node import located
from treadle.nn.containers import ModuleDict, ModuleList
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.tensor.grad_mode import no_grad
from treadle.tensor.tensor import Tensor


class _Cache:
    """The values computed inside ``cached``."""

    depth = 0
    values: dict[tuple[int, str], Tensor] = {}


@contextmanager
def cached() -> Iterator[None]:
    """Inside the block every parametrised tensor is computed once."""
    _Cache.depth += 1
    try:
        yield
    finally:
        _Cache.depth -= 1
        if not _Cache.depth:
            _Cache.values = {}


class ParametrizationList(ModuleList):
    """The functions of one tensor, applied in order, and what they are applied to.

    That is ``original``; or ``original0``, ``original1`` ... where ``right_inverse`` gives several.
    """

    def __init__(
        self, modules: list[Module], original: Tensor | Parameter, unsafe: bool = False
    ) -> None:
        super().__init__(modules)
        self.unsafe = unsafe
        value: Any = original.detach() if isinstance(original, Tensor) else original
        with no_grad():
            for module in reversed(list(self)):
                if hasattr(module, "right_inverse"):
                    value = module.right_inverse(value)
        self.is_tensor = isinstance(value, Tensor)
        parts = [("original", value)] if self.is_tensor else [
            (f"original{i}", part) for i, part in enumerate(value)
        ]  # fmt: skip
        self.ntensors = len(parts)
        for name, part in parts:
            self._keep(name, part.detach().clone(), original)
        if not unsafe:
            self._check(original)

    def _keep(self, name: str, value: Tensor, original: Tensor) -> None:
        if not isinstance(original, Parameter):
            self.register_buffer(name, value)
            return
        needs = original.requires_grad and value.is_floating_point()
        self.register_parameter(name, Parameter(value, requires_grad=needs))

    def _check(self, original: Tensor) -> None:
        with no_grad():
            found = self()
        if not isinstance(found, Tensor):
            raise located(ValueError(
                f"register_parametrization: got a {type(found).__name__} from the functions; they "
                f"must give a tensor"
            ))  # fmt: skip
        if found.dtype is not original.dtype:
            raise located(DTypeError(
                f"register_parametrization: the functions turn dtype {original.dtype.name} into "
                f"{found.dtype.name}; pass unsafe=True to allow that"
            ))  # fmt: skip
        if found.shape != original.shape:
            raise located(ShapeError(
                f"register_parametrization: the functions turn the shape {tuple(original.shape)} "
                f"into {tuple(found.shape)}; pass unsafe=True to allow that"
            ))  # fmt: skip

    def _originals(self) -> list[Tensor]:
        if self.is_tensor:
            return [self.original]
        return [getattr(self, f"original{i}") for i in range(self.ntensors)]

    def right_inverse(self, value: Tensor) -> None:
        """Sets the originals so that the functions give ``value``, as far as they can."""
        with no_grad():
            given: Any = value
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise located(RuntimeError(
                        f"parametrize: {type(module).__name__} has no right_inverse(), so that the "
                        f"tensor cannot be assigned; define it, or assign its original"
                    ))  # fmt: skip
                given = module.right_inverse(given)
            parts = [given] if self.is_tensor else list(given)
            for original, part in zip(self._originals(), parts, strict=True):
                original.copy_(part)

    def forward(self) -> Any:
        """The tensor."""
        first, *rest = self
        value = first(*self._originals())
        for module in rest:
            value = module(value)
        return value


def _property(name: str) -> property:
    def read(self: Any) -> Any:
        key = id(self), name
        if _Cache.depth and key in _Cache.values:
            return _Cache.values[key]
        value = self.parametrizations[name]()
        if _Cache.depth:
            _Cache.values[key] = value
        return value

    def write(self: Any, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    return property(read, write)


def _make_parametrized(module: Module) -> None:
    """Gives the module a class of its own, which can have properties."""
    cls = type(module)

    def copied(self: Any, memo: dict[int, Any]) -> Any:
        made = self.__new__(type(self))
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made

    def refused(self: Any) -> Any:
        raise located(RuntimeError(
            "parametrize: got a parametrised module to pickle, whose class exists only here; save "
            "its state_dict()"
        ))  # fmt: skip

    made = type(
        f"Parametrized{cls.__name__}", (cls,), {"__deepcopy__": copied, "__getstate__": refused}
    )
    module.__class__ = made
    module.parametrizations = ModuleDict()


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether a module has parametrised tensors, or one of that name."""
    found = module._modules.get("parametrizations")
    if not isinstance(found, ModuleDict):
        return False
    return len(found) > 0 if tensor_name is None else tensor_name in found


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """Makes a parameter or buffer a function of an original, which is trained in its place.

    ``parametrization`` is a module of one tensor; with ``right_inverse(value)`` the tensor can be
    assigned, and the original is what it gives for the present value. Several are applied in order.

    >>> import treadle
    >>> from treadle import nn
    >>> class Doubled(nn.Module):
    ...     def forward(self, x):
    ...         return 2 * x
    >>> layer = register_parametrization(nn.Linear(1, 1), "weight", Doubled())
    >>> (layer.weight / layer.parametrizations.weight.original).item()
    2.0
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        functions: Any = module.parametrizations[tensor_name]
        if not unsafe:
            with no_grad():
                before = getattr(module, tensor_name)
                after = parametrization(before)
            if after.dtype is not before.dtype or after.shape != before.shape:
                raise located(ValueError(
                    f"register_parametrization: got a function that turns {before.dtype.name} of "
                    f"shape {tuple(before.shape)} into {after.dtype.name} of shape "
                    f"{tuple(after.shape)}; pass unsafe=True to allow that"
                ))  # fmt: skip
        functions.append(parametrization)
        return module
    original = module._parameters.get(tensor_name)
    if original is None:
        original = module._buffers.get(tensor_name)
    if original is None:
        raise located(ValueError(
            f"register_parametrization: got the name {tensor_name!r}, but "
            f"{type(module).__name__} has no such parameter or buffer"
        ))  # fmt: skip
    functions = ParametrizationList([parametrization], original, unsafe)
    delattr(module, tensor_name)
    if not is_parametrized(module):
        _make_parametrized(module)
    setattr(type(module), tensor_name, _property(tensor_name))
    module.parametrizations[tensor_name] = functions
    return module


def remove_parametrizations(
    module: Module, tensor_name: str, leave_parametrized: bool = True
) -> Module:
    """Takes the functions of a tensor away; it keeps its value, or gets the original's."""
    if not is_parametrized(module, tensor_name):
        raise located(ValueError(
            f"remove_parametrizations: {type(module).__name__} has no parametrised {tensor_name!r}"
        ))  # fmt: skip
    functions: Any = module.parametrizations[tensor_name]
    first = functions._originals()[0]
    if leave_parametrized:
        with no_grad():
            value = getattr(module, tensor_name).detach()
    elif functions.is_tensor:
        value = first.detach()
    else:
        raise located(ValueError(
            f"remove_parametrizations: {tensor_name!r} is a function of several tensors; it can "
            f"only be left as it is: leave_parametrized=True"
        ))  # fmt: skip
    del module.parametrizations[tensor_name]
    delattr(type(module), tensor_name)
    if isinstance(first, Parameter):
        module.register_parameter(tensor_name, Parameter(value, first.requires_grad))
    else:
        module.register_buffer(tensor_name, value)
    if not is_parametrized(module):
        delattr(module, "parametrizations")
        module.__class__ = type(module).__bases__[0]
    return module


def type_before_parametrizations(module: Module) -> type:
    """The class of a module without its parametrisations."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def transfer_parametrizations_and_params(
    from_module: Module, to_module: Module, tensor_name: str | None = None
) -> Module:
    """Gives another module the parametrised tensors of a module, or the one of that name."""
    if not is_parametrized(from_module):
        return to_module
    every: Any = from_module.parametrizations
    for name in list(every) if tensor_name is None else [tensor_name]:
        if not hasattr(to_module, name):
            setattr(to_module, name, Parameter(getattr(from_module, name).detach().clone()))
        for function in every[name]:
            register_parametrization(to_module, name, copy.deepcopy(function), unsafe=True)
        target: Any = to_module.parametrizations
        with no_grad():
            pairs = zip(target[name]._originals(), every[name]._originals(), strict=True)
            for new, old in pairs:
                new.copy_(old)
    return to_module


__all__ = [
    "ParametrizationList", "cached", "is_parametrized", "register_parametrization",
    "remove_parametrizations", "transfer_parametrizations_and_params",
    "type_before_parametrizations",
]  # fmt: skip
