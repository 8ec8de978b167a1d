"""PyTorch's older spectral norm: a parameter ``weight_orig``, a buffer ``weight_u``, and a hook."""

from __future__ import annotations

from typing import Any

from treadle.ir.node import located
from treadle.nn import functional as F
from treadle.nn.convolution import _Transposed
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.nn.utils.weight_norm_hook import hook_of
from treadle.random.sampling import randn
from treadle.tensor.grad_mode import no_grad
from treadle.tensor.tensor import Tensor


class SpectralNorm:
    """The hook that divides the weight by its largest singular value before every forward."""

    def __init__(self, name: str, n_power_iterations: int, dim: int, eps: float) -> None:
        if n_power_iterations < 1:
            raise located(ValueError(
                f"spectral_norm: got n_power_iterations={n_power_iterations}; there must be one"
            ))  # fmt: skip
        self.name = name
        self.n_power_iterations = n_power_iterations
        self.dim = dim
        self.eps = eps

    def reshape_weight_to_matrix(self, weight: Tensor) -> Tensor:
        """The weight with ``dim`` as rows."""
        order = (self.dim, *[i for i in range(weight.ndim) if i != self.dim])
        return weight.permute(*order).flatten(1)

    def compute_weight(self, module: Module, do_power_iteration: bool) -> Any:
        """The weight by its singular value; the vectors move on if asked to."""
        weight = getattr(module, f"{self.name}_orig")
        u, v = getattr(module, f"{self.name}_u"), getattr(module, f"{self.name}_v")
        matrix = self.reshape_weight_to_matrix(weight)
        if do_power_iteration:
            with no_grad():
                for _ in range(self.n_power_iterations):
                    v.copy_(F.normalize(matrix.t().mv(u), dim=0, eps=self.eps))
                    u.copy_(F.normalize(matrix.mv(v), dim=0, eps=self.eps))
        return weight / u.clone().dot(matrix.mv(v.clone()))

    def __call__(self, module: Module, inputs: Any) -> None:
        """Sets the tensor that the forward reads."""
        weight = self.compute_weight(module, module.training)
        object.__setattr__(module, self.name, weight)


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12,
    dim: int | None = None,
) -> Module:  # fmt: skip
    """Divides a weight by its largest singular value (Miyato et al., 2018).

    ``nn.utils.parametrizations.spectral_norm`` is the newer way, with other names of parameters.
    """
    if hook_of(module, SpectralNorm, name) is not None:
        raise located(RuntimeError(f"spectral_norm: {name!r} has one already"))
    if dim is None:
        dim = 1 if isinstance(module, _Transposed) else 0
    hook = SpectralNorm(name, n_power_iterations, dim, eps)
    weight = getattr(module, name)
    with no_grad():
        rows, columns = hook.reshape_weight_to_matrix(weight).shape
        u, v = (F.normalize(randn(n, dtype=weight.dtype), dim=0, eps=eps) for n in (rows, columns))
    delattr(module, name)
    module.register_parameter(f"{name}_orig", weight)
    module.register_buffer(f"{name}_u", u)
    module.register_buffer(f"{name}_v", v)
    object.__setattr__(module, name, weight.detach())
    module.register_forward_pre_hook(hook)
    return module


def remove_spectral_norm(module: Module, name: str = "weight") -> Module:
    """Makes the weight, as it is now, a parameter again."""
    key = hook_of(module, SpectralNorm, name)
    if key is None:
        raise located(ValueError(
            f"remove_spectral_norm: {type(module).__name__} has no spectral norm of {name!r}"
        ))  # fmt: skip
    hook = module._forward_pre_hooks.pop(key)
    with no_grad():
        weight = hook.compute_weight(module, do_power_iteration=False)
    for part in (name, f"{name}_orig", f"{name}_u", f"{name}_v"):
        delattr(module, part)
    module.register_parameter(name, Parameter(weight.detach()))
    return module


__all__ = ["SpectralNorm", "remove_spectral_norm", "spectral_norm"]
