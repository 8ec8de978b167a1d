"""One NumPy generator in the place of a framework's own random numbers.

The programs of ``tests/programs/corpus`` draw as any program does: layers with initial weights,
``torch.randn``, dropout, shuffling loaders, samples of distributions. ``given(framework, seed)``
replaces all that they use, by the same public names in either framework, so that both see the
same numbers.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

# The layers that draw their weights when they are made.
LAYERS = (
    "Linear", "Bilinear", "Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d", "Embedding",
    "RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell", "MultiheadAttention",
    "TransformerEncoderLayer", "TransformerDecoderLayer",
)  # fmt: skip


class Draws:
    """Stand-ins for a framework's random functions; the names are the framework's."""

    def __init__(self, torch: Any, seed: int) -> None:
        self.torch = torch
        self.rng = np.random.default_rng(seed)

    def _made(self, numbers: Any) -> Any:
        numbers = np.asarray(numbers)
        if numbers.dtype.kind == "f":
            numbers = numbers.astype(str(self.torch.get_default_dtype()).rpartition(".")[2])
        return self.torch.from_numpy(np.ascontiguousarray(numbers))

    def _normal(self, shape: Any) -> Any:
        return self._made(self.rng.standard_normal(tuple(shape), np.float32))

    def _uniform(self, shape: Any) -> Any:
        return self._made(self.rng.random(tuple(shape), np.float32))

    # --- functions --------------------------------------------------------------------------------

    def rand(self, *size: Any, **_: Any) -> Any:
        """Numbers of [0, 1)."""
        return self._uniform(_shape(size))

    def randn(self, *size: Any, **_: Any) -> Any:
        """Normal numbers."""
        return self._normal(_shape(size))

    def rand_like(self, input: Any) -> Any:
        """Numbers of [0, 1) in the shape of another tensor."""
        return self._uniform(input.shape)

    def randn_like(self, input: Any) -> Any:
        """Normal numbers in the shape of another tensor."""
        return self._normal(input.shape)

    def randint(self, *bounds_and_size: Any, device: Any = None) -> Any:
        """Whole numbers: ``randint(high, size)`` or ``randint(low, high, size)``."""
        *bounds, size = bounds_and_size
        low, high = bounds if len(bounds) == 2 else (0, *bounds)
        return self._made(self.rng.integers(low, high, tuple(size)))

    def randperm(self, n: int, generator: Any = None) -> Any:
        """An order of n things."""
        return self._made(self.rng.permutation(n))

    def normal(self, mean: Any, std: Any, size: Any = None, generator: Any = None) -> Any:
        """Normal numbers of given means and deviations."""
        return mean + std * self._normal(mean.shape if size is None else size)

    def multinomial(self, input: Any, num_samples: int, replacement: bool = False) -> Any:
        """Indices drawn by weights, by inverting the running sum in float32."""
        if num_samples > 1 and not replacement:
            raise NotImplementedError("multinomial: several without replacement are not drawn here")
        weights = input.detach().numpy().astype(np.float32)
        running = weights.cumsum(-1) / weights.sum(-1, keepdims=True)
        u = self.rng.random((*weights.shape[:-1], num_samples), np.float32)
        found = (running[..., None, :] <= u[..., :, None]).sum(-1)
        return self._made(np.minimum(found, weights.shape[-1] - 1))

    def dropout(
        self, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Any:
        """Zeros in the place of a share p of the elements."""
        if not training or p == 0:
            return input
        kept = self._uniform(input.shape) >= p
        return input * kept.to(input.dtype) / (1 - p)

    def trunc_normal_(
        self, tensor: Any, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0
    ) -> Any:
        """Fills with normal numbers, those outside of [a, b] put at its ends."""
        with self.torch.no_grad():
            return tensor.copy_((mean + std * self._normal(tensor.shape)).clamp(a, b))

    # --- methods ----------------------------------------------------------------------------------

    def normal_(self, tensor: Any, mean: float = 0.0, std: float = 1.0, **_: Any) -> Any:
        """Fills with normal numbers."""
        with self.torch.no_grad():
            return tensor.copy_(mean + std * self._normal(tensor.shape))

    def uniform_(self, tensor: Any, a: float = 0.0, b: float = 1.0, **_: Any) -> Any:
        """Fills with numbers of [a, b)."""
        with self.torch.no_grad():
            return tensor.copy_(a + (b - a) * self._uniform(tensor.shape))

    def bernoulli_(self, tensor: Any, p: float = 0.5) -> Any:
        """Fills with ones, of probability p, and zeros."""
        with self.torch.no_grad():
            return tensor.copy_(self._uniform(tensor.shape) < p)

    def shuffled(self, sampler: Any) -> Iterator[int]:
        """The places of a data set in a random order: a ``RandomSampler``'s pass."""
        return iter(self.rng.permutation(len(sampler.data_source)).tolist())

    def categories(self, categorical: Any, sample_shape: Any = ()) -> Any:
        """A ``Categorical``'s sample: one index for each distribution of the batch."""
        return self.multinomial(categorical.probs, 1)[..., 0]

    def fill(self, layer: Any) -> None:
        """A new layer's parameters: uniform by fan-in, or normal (embeddings); norms stay."""
        bound = 0.0
        with self.torch.no_grad():
            for name, p in layer.named_parameters():
                if "norm" in name:
                    continue
                if type(layer).__name__ == "Embedding":
                    p.copy_(self._normal(p.shape))
                    continue
                if p.dim() > 1:
                    bound = 1 / math.sqrt(math.prod(p.shape[1:]))
                p.copy_((self._uniform(p.shape) * 2 - 1) * bound)


def _shape(size: Any) -> tuple[int, ...]:
    return tuple(size) if len(size) != 1 or isinstance(size[0], int) else tuple(size[0])


_FUNCTIONS = (
    "rand", "randn", "rand_like", "randn_like", "randint", "randperm", "normal", "multinomial",
)  # fmt: skip
_METHODS = ("normal_", "uniform_", "bernoulli_")


class _Replaced:
    """What was put in the place of what in a framework, so that it can be put back."""

    def __init__(self, package: str) -> None:
        self.package = package
        self._attributes: list[tuple[type, str, Any]] = []
        self._functions: list[tuple[Any, Any]] = []

    def attribute(self, owner: type, name: str, value: Any) -> None:
        """Of a class; one that was inherited is inherited again afterwards."""
        self._attributes.append((owner, name, vars(owner).get(name)))
        setattr(owner, name, value)

    def function(self, original: Any, value: Any) -> None:
        """Wherever a module of the framework has that function under any name."""
        self._functions.append((original, value))
        self._put(original, value)

    def _put(self, old: Any, new: Any) -> None:
        for module_name, module in list(sys.modules.items()):
            if module_name.partition(".")[0] == self.package:
                for name, found in list(vars(module).items()):
                    if found is old:
                        setattr(module, name, new)

    def undo(self) -> None:
        """Everything as it was, also in modules that were loaded since."""
        for owner, name, value in reversed(self._attributes):
            if value is None:
                delattr(owner, name)
            else:
                setattr(owner, name, value)
        for original, value in reversed(self._functions):
            self._put(value, original)


def _as_method(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the object it is asked of, as a method (bound methods do not bind again)."""
    return lambda self, *args, **options: function(self, *args, **options)


def _filling(draws: Draws, init: Callable[..., None]) -> Callable[..., None]:
    """A layer's ``__init__`` that draws nothing itself; the outermost layer is filled when made."""

    def made(self: Any, *args: Any, **options: Any) -> None:
        rng, draws.rng = draws.rng, np.random.default_rng(0)  # what is drawn inside is not kept
        try:
            init(self, *args, **options)
        finally:
            draws.rng = rng
        draws.fill(self)

    return made


def _attention(draws: Draws, original: Callable[..., Any]) -> Callable[..., Any]:
    """``scaled_dot_product_attention``: with dropout by its formula, so that the mask is given."""
    torch = draws.torch

    def attention(
        query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0,
        is_causal: bool = False, **options: Any,
    ) -> Any:  # fmt: skip
        if dropout_p == 0:
            return original(query, key, value, attn_mask, dropout_p, is_causal, **options)
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -math.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        return draws.dropout(scores.softmax(-1), dropout_p) @ value

    return attention


@contextmanager
def given(torch: Any, seed: int) -> Iterator[None]:
    """While it lasts, ``torch`` (a framework that has PyTorch's names) draws from NumPy."""
    draws, replaced = Draws(torch, seed), _Replaced(torch.__name__)
    functional = torch.nn.functional
    try:
        for name in _FUNCTIONS:
            replaced.function(getattr(torch, name), getattr(draws, name))
        replaced.function(functional.dropout, draws.dropout)
        replaced.function(torch.nn.init.trunc_normal_, draws.trunc_normal_)
        attention = functional.scaled_dot_product_attention
        replaced.function(attention, _attention(draws, attention))
        for name in _METHODS:
            replaced.attribute(torch.Tensor, name, _as_method(getattr(draws, name)))
        sampler, categorical = torch.utils.data.RandomSampler, torch.distributions.Categorical
        replaced.attribute(sampler, "__iter__", _as_method(draws.shuffled))
        replaced.attribute(categorical, "sample", _as_method(draws.categories))
        for name in LAYERS:
            layer = getattr(torch.nn, name)
            replaced.attribute(layer, "__init__", _filling(draws, layer.__init__))
        yield
    finally:
        replaced.undo()
