"""All random numbers of a program, from one NumPy generator, so that frameworks can be compared.

While a program is timed its dropout and its noise are the framework's own; where ``is_given`` they
come from the generator too.
"""

from __future__ import annotations

from math import prod, sqrt
from typing import Any

import numpy as np

from bench.models.framework import IS_TUNED, F, torch


class Draws:
    """Weights, batches, masks and noise, in the order in which a program asks for them.

    ``dtype`` is that of all floating-point numbers; they are drawn as float32 in any case.
    """

    def __init__(self, seed: int = 0, is_given: bool = False, dtype: str = "float32") -> None:
        self.rng = np.random.default_rng(seed)
        self.is_given = is_given
        self.dtype = dtype

    def _tensor(self, numbers: np.ndarray) -> Any:
        return torch.from_numpy(numbers.astype(self.dtype))

    def normal(self, *shape: int, scale: float = 1.0) -> Any:
        """A tensor of normal numbers."""
        return self._tensor(self.rng.standard_normal(shape, np.float32) * np.float32(scale))

    def uniform(self, *shape: int) -> Any:
        """A tensor of numbers in [0, 1)."""
        return self._tensor(self.rng.random(shape, np.float32))

    def integers(self, high: int, *shape: int) -> Any:
        """A tensor of whole numbers below ``high``."""
        return torch.from_numpy(self.rng.integers(0, high, shape))

    def order(self, count: int, steps: int = 4096) -> list[int]:
        """Which of ``count`` batches each step takes: every epoch in an order of its own."""
        epochs = [self.rng.permutation(count) for _ in range(-(-steps // count))]
        return np.concatenate(epochs).tolist()

    def fill(self, net: Any) -> Any:
        """Gives ``net`` its initial weights: normal ones by fan-in; norms start at one."""
        with torch.no_grad():
            for name, weight in net.named_parameters():
                shape = tuple(weight.shape)
                if len(shape) > 1:
                    scale = sqrt(2 / prod(shape[1:]))
                    weight.copy_(self.normal(*shape, scale=scale))
                elif "weight" not in name or "_hh" in name or "_ih" in name:
                    weight.copy_(self.normal(*shape, scale=0.01))
            for name, buffer in net.named_buffers():
                if name.endswith("running_mean"):
                    buffer.copy_(self.normal(*buffer.shape, scale=0.1))
                elif name.endswith("running_var"):
                    buffer.copy_(self.uniform(*buffer.shape) + 0.5)
        return net.to(memory_format=torch.channels_last) if IS_TUNED else net

    # --- while a step runs ------------------------------------------------------------------------

    def dropout(self, x: Any, p: float, training: bool = True) -> Any:
        """``x`` with a share ``p`` of its elements set to zero."""
        if not (self.is_given and training):
            return F.dropout(x, p, training)
        kept = self.rng.random(tuple(x.shape), np.float32) >= p
        return x * self._tensor(kept / (1 - p))

    def noise_like(self, x: Any) -> Any:
        """Normal noise in the shape of ``x``."""
        return self.normal(*x.shape) if self.is_given else torch.randn_like(x)
