"""PyTorch's older weight norm: parameters ``weight_g`` and ``weight_v``, and a hook."""

from __future__ import annotations

from typing import Any

from treadle.ir.node import located
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.nn.utils.parametrizations import norm_except_dim


class WeightNorm:
    """The hook that computes the weight before every forward."""

    def __init__(self, name: str, dim: int | None) -> None:
        self.name = name
        self.dim = -1 if dim is None else dim

    def compute_weight(self, module: Module) -> Any:
        """``g v / |v|``."""
        g, v = getattr(module, f"{self.name}_g"), getattr(module, f"{self.name}_v")
        return v * (g / norm_except_dim(v, self.dim))

    def __call__(self, module: Module, inputs: Any) -> None:
        """Sets the tensor that the forward reads."""
        object.__setattr__(module, self.name, self.compute_weight(module))


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Trains a weight as length ``weight_g`` times direction ``weight_v``, per slice of ``dim``.

    ``nn.utils.parametrizations.weight_norm`` is the newer way, with other names of parameters.
    """
    if hook_of(module, WeightNorm, name) is not None:
        raise located(RuntimeError(f"weight_norm: {name!r} has one already"))
    hook = WeightNorm(name, dim)
    weight = getattr(module, name)
    delattr(module, name)
    length = norm_except_dim(weight.detach(), hook.dim)
    module.register_parameter(f"{name}_g", Parameter(length))
    module.register_parameter(f"{name}_v", Parameter(weight.detach()))
    hook(module, ())
    module.register_forward_pre_hook(hook)
    return module


def remove_weight_norm(module: Module, name: str = "weight") -> Module:
    """Makes the weight a parameter again."""
    key = hook_of(module, WeightNorm, name)
    if key is None:
        raise located(ValueError(
            f"remove_weight_norm: {type(module).__name__} has no weight norm of {name!r}"
        ))  # fmt: skip
    weight = module._forward_pre_hooks.pop(key).compute_weight(module)
    for part in (name, f"{name}_g", f"{name}_v"):
        delattr(module, part)
    module.register_parameter(name, Parameter(weight.detach()))
    return module


def hook_of(module: Module, kind: type, name: str) -> int | None:
    """The number of a module's hook of one kind for a tensor."""
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook, kind) and hook.name == name:  # type: ignore[attr-defined]
            return key
    return None


__all__ = ["WeightNorm", "remove_weight_norm", "weight_norm"]
