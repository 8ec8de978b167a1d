"""Pruning: parameters times masks of zeros and ones.

A pruned ``weight`` is computed before every forward from the parameter ``weight_orig`` and the
buffer ``weight_mask``.
"""

from __future__ import annotations

import numbers
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

from treadle.base.errors import ShapeError
from treadle.ir.node import located
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.random.sampling import rand
from treadle.tensor.creation import ones_like, tensor
from treadle.tensor.joining import cat
from treadle.tensor.reduction import norm
from treadle.tensor.sorting import topk
from treadle.tensor.tensor import Tensor


class BasePruningMethod(ABC):
    """A way to prune: ``compute_mask(t, default_mask)`` says which elements stay.

    ``PRUNING_TYPE`` is "unstructured", "structured" (whole slices along ``dim``) or "global".
    """

    PRUNING_TYPE: str = "unstructured"
    _tensor_name: str

    @abstractmethod
    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask, which keeps what ``default_mask`` has pruned already."""

    def __call__(self, module: Module, inputs: Any) -> None:
        """Sets the tensor that the forward reads."""
        object.__setattr__(module, self._tensor_name, self.apply_mask(module))

    def apply_mask(self, module: Module) -> Tensor:
        """The original times the mask."""
        mask = getattr(module, f"{self._tensor_name}_mask")
        original: Tensor = getattr(module, f"{self._tensor_name}_orig")
        return mask.to(original.dtype) * original

    @classmethod
    def apply(
        cls, module: Module, name: str, *args: Any, importance_scores: Tensor | None = None,
        **kwargs: Any,
    ) -> BasePruningMethod:  # fmt: skip
        """Prunes a tensor of a module by this method, on top of what is pruned already."""
        key = _pruner(module, name)
        method: Any = cls(*args, **kwargs)
        method._tensor_name = name
        if key is not None:
            old = module._forward_pre_hooks.pop(key)
            container = old if isinstance(old, PruningContainer) else PruningContainer(old)
            container.add_pruning_method(method)
            method = container
        else:
            original = getattr(module, name)
            delattr(module, name)
            kept = original if isinstance(original, Parameter) else Parameter(original)
            module.register_parameter(f"{name}_orig", kept)
        original = getattr(module, f"{name}_orig")
        scores = original if importance_scores is None else importance_scores
        if scores.shape != original.shape:
            raise located(ShapeError(
                f"prune: got importance_scores of shape {tuple(scores.shape)} for {name!r} of "
                f"shape {tuple(original.shape)}; they must be equal"
            ))  # fmt: skip
        default = getattr(module, f"{name}_mask", None) if key is not None else None
        default = ones_like(original).detach() if default is None else default
        mask = method.compute_mask(scores.detach(), default_mask=default)
        module.register_buffer(f"{name}_mask", mask)
        method(module, ())
        module.register_forward_pre_hook(method)
        return method

    def prune(
        self, t: Tensor, default_mask: Tensor | None = None,
        importance_scores: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """A pruned copy of a tensor."""
        scores = t if importance_scores is None else importance_scores
        default = ones_like(t) if default_mask is None else default_mask
        return t * self.compute_mask(scores.detach(), default_mask=default)

    def remove(self, module: Module) -> None:
        """Makes the pruned tensor a parameter again; what was pruned stays 0."""
        name = self._tensor_name
        weight = self.apply_mask(module).detach()
        original = getattr(module, f"{name}_orig")
        for part in (name, f"{name}_orig", f"{name}_mask"):
            delattr(module, part)
        module.register_parameter(name, Parameter(weight, original.requires_grad))


def _pruner(module: Module, name: str) -> int | None:
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == name:
            return key
    return None


class PruningContainer(BasePruningMethod):
    """Several methods for one tensor, each of what the ones before it left."""

    def __init__(self, *args: Any) -> None:
        self._pruning_methods: list[BasePruningMethod] = []
        for method in args:
            self._tensor_name = method._tensor_name
            self.add_pruning_method(method)

    def add_pruning_method(self, method: Any) -> None:
        """Adds one; it must be for the same tensor."""
        if not isinstance(method, BasePruningMethod) or method._tensor_name != self._tensor_name:
            raise located(TypeError(
                f"PruningContainer: got {method!r}; it takes pruning methods of "
                f"{self._tensor_name!r}"
            ))  # fmt: skip
        self._pruning_methods.append(method)

    def __len__(self) -> int:
        return len(self._pruning_methods)

    def __iter__(self) -> Any:
        return iter(self._pruning_methods)

    def __getitem__(self, index: int) -> BasePruningMethod:
        return self._pruning_methods[index]

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask of the last method, computed on what is left."""
        method = self._pruning_methods[-1]
        kept = default_mask != 0
        if method.PRUNING_TYPE == "unstructured":
            mask = default_mask.clone()
            part = method.compute_mask(t[kept], default_mask=default_mask[kept])
            mask[kept] = part.to(mask.dtype)
            return mask
        if method.PRUNING_TYPE == "structured":
            dim = method.dim % t.ndim  # type: ignore[attr-defined]
            others = tuple(i for i in range(t.ndim) if i != dim)
            alive = kept.any(others) if others else kept
            places = [i for i, is_alive in enumerate(alive.tolist()) if is_alive]
            mask = default_mask.clone()
            index = tensor(places)
            part = method.compute_mask(
                t.index_select(dim, index), default_mask=default_mask.index_select(dim, index)
            )
            return mask.index_copy(dim, index, part.to(mask.dtype))
        return method.compute_mask(t, default_mask)


def _check_amount(amount: Any) -> None:
    is_share = isinstance(amount, float) and 0 <= amount <= 1
    is_count = isinstance(amount, numbers.Integral) and int(amount) >= 0
    if not is_share and not is_count:
        raise located(ValueError(
            f"prune: got amount={amount!r}; it is a share from 0.0 to 1.0, or a count"
        ))  # fmt: skip


def _count(amount: Any, size: int) -> int:
    _check_amount(amount)
    if isinstance(amount, numbers.Integral):
        if int(amount) > size:
            raise located(ValueError(
                f"prune: got amount={amount} for {size} elements; it must not be more"
            ))  # fmt: skip
        return int(amount)
    return round(amount * size)


class Identity(BasePruningMethod):
    """Prunes nothing."""

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask as it was."""
        return default_mask


class RandomUnstructured(BasePruningMethod):
    """Prunes elements at random."""

    def __init__(self, amount: Any) -> None:
        _check_amount(amount)
        self.amount = amount

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask without as many more."""
        count = _count(self.amount, t.numel())
        return _without(default_mask, rand(t.numel()), count)


class L1Unstructured(BasePruningMethod):
    """Prunes the elements of the least absolute values."""

    def __init__(self, amount: Any) -> None:
        _check_amount(amount)
        self.amount = amount

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask without as many more."""
        return _without(default_mask, t.abs().reshape(-1), _count(self.amount, t.numel()))


def _without(mask: Tensor, scores: Tensor, count: int) -> Tensor:
    """The mask with zeros where the ``count`` least scores are."""
    if not count:
        return mask.clone()
    places = topk(scores, count, largest=False)[1]
    return mask.clone().reshape(-1).index_fill(0, places, 0).reshape(tuple(mask.shape))


class _Structured(BasePruningMethod):
    """What the two below share: whole slices along a dimension are pruned."""

    PRUNING_TYPE = "structured"

    def __init__(self, amount: Any, dim: int = -1) -> None:
        _check_amount(amount)
        self.amount = amount
        self.dim = dim

    def _masked(self, t: Tensor, default_mask: Tensor, scores: Tensor) -> Tensor:
        count = _count(self.amount, t.shape[self.dim])
        kept = _without(ones_like(scores), scores, count)
        shape = [1] * t.ndim
        shape[self.dim] = -1
        return default_mask * kept.reshape(*shape).to(default_mask.dtype)


class RandomStructured(_Structured):
    """Prunes slices at random."""

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask without as many slices."""
        return self._masked(t, default_mask, rand(t.shape[self.dim]))


class LnStructured(_Structured):
    """Prunes the slices of the least norm."""

    def __init__(self, amount: Any, n: Any, dim: int = -1) -> None:
        super().__init__(amount, dim)
        self.n = n

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask without as many slices."""
        others = [i for i in range(t.ndim) if i != self.dim % t.ndim]
        return self._masked(t, default_mask, norm(t, self.n, others))


class CustomFromMask(BasePruningMethod):
    """Prunes by a mask."""

    PRUNING_TYPE = "global"

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Both masks together."""
        return default_mask * self.mask.to(default_mask.dtype)


# --- functions ------------------------------------------------------------------------------------


def identity(module: Module, name: str) -> Module:
    """Makes a tensor prunable without pruning it."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: Module, name: str, amount: Any) -> Module:
    """Prunes a share (or a number) of the elements, at random.

    >>> import treadle
    >>> layer = random_unstructured(treadle.nn.Linear(4, 5), "weight", 0.25)
    >>> int((layer.weight == 0).sum())
    5
    """
    RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(
    module: Module, name: str, amount: Any, importance_scores: Tensor | None = None
) -> Module:
    """Prunes a share (or a number) of the elements: those of the least absolute values."""
    L1Unstructured.apply(module, name, amount, importance_scores=importance_scores)
    return module


def random_structured(module: Module, name: str, amount: Any, dim: int) -> Module:
    """Prunes a share (or a number) of the slices along ``dim``, at random."""
    RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(
    module: Module, name: str, amount: Any, n: Any, dim: int,
    importance_scores: Tensor | None = None,
) -> Module:  # fmt: skip
    """Prunes a share (or a number) of the slices along ``dim``: those of the least n-norm."""
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def custom_from_mask(module: Module, name: str, mask: Tensor) -> Module:
    """Prunes where a mask is 0."""
    CustomFromMask.apply(module, name, mask)
    return module


def global_unstructured(
    parameters: Iterable[tuple[Module, str]], pruning_method: type[BasePruningMethod],
    importance_scores: dict[tuple[Module, str], Tensor] | None = None, **kwargs: Any,
) -> None:  # fmt: skip
    """Prunes several tensors, pairs (module, name), as if they were one vector."""
    pairs: Sequence[tuple[Module, str]] = list(parameters)
    scores = importance_scores or {}
    values = [scores.get(pair, getattr(*pair)).detach().reshape(-1) for pair in pairs]
    masks = [
        getattr(module, f"{name}_mask", ones_like(getattr(module, name))).reshape(-1)
        for module, name in pairs
    ]
    container = PruningContainer()
    container._tensor_name = "all"
    method: Any = pruning_method(**kwargs)
    method._tensor_name = "all"
    if method.PRUNING_TYPE != "unstructured":
        raise located(TypeError(
            f"global_unstructured: got {pruning_method.__name__}, whose PRUNING_TYPE is "
            f"{method.PRUNING_TYPE!r}; it takes 'unstructured' methods"
        ))  # fmt: skip
    container.add_pruning_method(method)
    mask, start = container.compute_mask(cat(values), cat(masks)), 0
    for module, name in pairs:
        shape = tuple(getattr(module, name).shape)
        count = getattr(module, name).numel()
        custom_from_mask(module, name, mask[start : start + count].reshape(shape))
        start += count


def is_pruned(module: Module) -> bool:
    """Whether anything in a module is pruned."""
    hooks = [h for m in module.modules() for h in m._forward_pre_hooks.values()]
    return any(isinstance(h, BasePruningMethod) for h in hooks)


def remove(module: Module, name: str) -> Module:
    """Makes a pruned tensor a parameter again; what was pruned stays 0."""
    key = _pruner(module, name)
    if key is None:
        raise located(ValueError(
            f"remove: {type(module).__name__} has no pruned tensor {name!r}"
        ))  # fmt: skip
    module._forward_pre_hooks.pop(key).remove(module)
    return module


__all__ = [
    "BasePruningMethod", "CustomFromMask", "Identity", "L1Unstructured", "LnStructured",
    "PruningContainer", "RandomStructured", "RandomUnstructured", "custom_from_mask",
    "global_unstructured", "identity", "is_pruned", "l1_unstructured", "ln_structured",
    "random_structured", "random_unstructured", "remove",
]  # fmt: skip
