"""What distributions share: broadcasting, logits and probabilities, properties kept."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from treadle.base.dtypes import get_default_dtype
from treadle.base.lazy_numpy import np
from treadle.ir.node import located
from treadle.tensor.creation import tensor, zeros
from treadle.tensor.functions import logaddexp
from treadle.tensor.grad_mode import enable_grad
from treadle.tensor.movement import broadcast_tensors
from treadle.tensor.reduction import log_softmax, softmax
from treadle.tensor.tensor import Tensor

euler_constant = 0.57721566490153286060


def broadcast_all(*values: Any) -> tuple[Tensor, ...]:
    """Numbers and tensors as tensors of one shape; numbers in the dtype of the tensors.

    >>> import treadle
    >>> a, b = broadcast_all(treadle.zeros(2), 1.0)
    >>> b.tolist()
    [1.0, 1.0]
    """
    if not all(isinstance(v, (Tensor, int, float)) for v in values):
        names = ", ".join(type(v).__name__ for v in values)
        raise located(ValueError(
            f"broadcast_all: got {names}; it takes numbers and tensors; make tensors of them with "
            f"treadle.tensor(value)"
        ))  # fmt: skip
    kinds = [v.dtype for v in values if isinstance(v, Tensor)]
    kind = kinds[0] if kinds else get_default_dtype()
    made = [v if isinstance(v, Tensor) else tensor(v, dtype=kind) for v in values]
    if all(v.shape == made[0].shape for v in made):
        return tuple(made)
    return tuple(broadcast_tensors(*made))


def softplus(x: Tensor) -> Tensor:
    """``log(1 + exp(x))``."""
    return logaddexp(x, zeros((), dtype=x.dtype))


def eps_of(x: Tensor) -> float:
    """The distance from 1 to the next number of a dtype."""
    bits = {64: 52, 32: 23}.get(x.dtype.bits, 10 if x.dtype.short == "f16" else 7)
    return float(2.0**-bits)


def tiny_of(x: Tensor) -> float:
    """The smallest normal number of a dtype."""
    return float(np.finfo(np.float64).tiny) if x.dtype.bits == 64 else 1.1754943508222875e-38


def clamp_probs(probs: Tensor) -> Tensor:
    """Probabilities away from 0 and 1 by the spacing of their dtype."""
    eps = eps_of(probs)
    return probs.clamp(eps, 1 - eps)


def logits_to_probs(logits: Tensor, is_binary: bool = False) -> Tensor:
    """``sigmoid``, or ``softmax`` along the last dimension."""
    return logits.sigmoid() if is_binary else softmax(logits, -1)


def probs_to_logits(probs: Tensor, is_binary: bool = False) -> Tensor:
    """``log p``, or ``log p - log(1 - p)``; p is kept away from 0 and 1."""
    clamped = clamp_probs(probs)
    return clamped.log() - (-clamped).log1p() if is_binary else clamped.log()


def normalized_logits(logits: Tensor) -> Tensor:
    """Scores as logarithms of probabilities along the last dimension."""
    return log_softmax(logits, -1)


class lazy_property:
    """A property that is computed once, with gradients whatever the mode, and then kept."""

    def __init__(self, wrapped: Callable[[Any], Any]) -> None:
        self.wrapped = wrapped
        functools.update_wrapper(self, wrapped)  # type: ignore[arg-type]

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        with enable_grad():
            value = self.wrapped(instance)
        setattr(instance, self.wrapped.__name__, value)
        return value


def tril_matrix_to_vec(mat: Tensor, diag: int = 0) -> Tensor:
    """The elements on and below a diagonal of (..., n, n), row by row."""
    n = mat.shape[-1]
    if not -n <= diag < n:
        raise located(ValueError(
            f"tril_matrix_to_vec: got diag {diag} for matrices of {n} rows; it is from {-n} to "
            f"{n - 1}"
        ))  # fmt: skip
    rows, columns = np.tril_indices(n, diag)
    return mat.flatten(-2).index_select(-1, tensor(rows * n + columns))


def vec_to_tril_matrix(vec: Tensor, diag: int = 0) -> Tensor:
    """The matrices (..., n, n) of which ``tril_matrix_to_vec`` made a vector."""
    # With n rows there are n (n + 1) / 2 elements for diag 0, and so on.
    d = diag + 1
    n = (-(1 + 2 * diag) + ((1 + 2 * diag) ** 2 + 8 * vec.shape[-1] + 4 * abs(diag) * d) ** 0.5) / 2
    if not round(n) - n == 0:
        raise located(ValueError(
            f"vec_to_tril_matrix: got {vec.shape[-1]} elements, which fill no triangle below "
            f"diagonal {diag}"
        ))  # fmt: skip
    size = round(n)
    rows, columns = np.tril_indices(size, diag)
    places = np.full(size * size, vec.shape[-1])
    places[rows * size + columns] = np.arange(vec.shape[-1])
    from treadle.tensor.joining import cat

    padded = cat([vec, zeros(*vec.shape[:-1], 1, dtype=vec.dtype)], -1)
    return padded.index_select(-1, tensor(places)).reshape(*vec.shape[:-1], size, size)


__all__ = [
    "broadcast_all", "clamp_probs", "lazy_property", "logits_to_probs", "probs_to_logits",
    "tril_matrix_to_vec", "vec_to_tril_matrix",
]  # fmt: skip
