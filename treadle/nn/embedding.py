"""Tables of vectors, and random removal."""

from __future__ import annotations

from typing import Any

from treadle.base.errors import ShapeError
from treadle.ir.node import located
from treadle.nn import functional as F
from treadle.nn import init
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.tensor.creation import empty
from treadle.tensor.grad_mode import no_grad
from treadle.tensor.tensor import Tensor


class Embedding(Module):
    """Row i of ``weight`` (num_embeddings, embedding_dim) for every index i.

    The weight starts normal; row ``padding_idx`` starts as zeros and gets no gradient.

    >>> import treadle
    >>> tuple(Embedding(10, 3)(treadle.tensor([[1, 2], [3, 4]])).shape)
    (2, 2, 3)
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None,
        max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False,
        sparse: bool = False, _weight: Tensor | None = None, _freeze: bool = False,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise located(ValueError(
                f"Embedding: got padding_idx {padding_idx} for {num_embeddings} rows; it must be "
                f"one of them"
            ))  # fmt: skip
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.sparse = sparse
        if _weight is not None and tuple(_weight.shape) != (num_embeddings, embedding_dim):
            raise located(ShapeError(
                f"Embedding: got _weight of shape {tuple(_weight.shape)}; it must be "
                f"{(num_embeddings, embedding_dim)}"
            ))  # fmt: skip
        table = empty(num_embeddings, embedding_dim, device=device, dtype=dtype)
        self.weight = Parameter(table if _weight is None else _weight, requires_grad=not _freeze)
        if _weight is None:
            self.reset_parameters()

    @classmethod
    def from_pretrained(
        cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None,
        max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Embedding:  # fmt: skip
        """A layer with these rows; ``freeze`` means that they are not trained."""
        rows, size = embeddings.shape
        return cls(
            rows, size, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse,
            _weight=embeddings, _freeze=freeze,
        )  # fmt: skip

    def reset_parameters(self) -> None:
        """Draws the rows anew."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0

    def forward(self, input: Tensor) -> Tensor:
        """(*) integers -> (*, embedding_dim)."""
        return F.embedding(
            input, self.weight, self.padding_idx, self.max_norm, self.norm_type,
            self.scale_grad_by_freq, self.sparse,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """The sizes."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


class _Dropout(Module):
    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise located(ValueError(
                f"{type(self).__name__}: got p={p}; a probability is from 0 to 1"
            ))  # fmt: skip
        self.p = p
        self.inplace = inplace

    def extra_repr(self) -> str:
        """The settings."""
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """In training every element becomes 0 with probability p, the others ``x / (1 - p)``.

    In evaluation nothing happens (Srivastava et al., 2014).
    """

    def forward(self, input: Tensor) -> Tensor:
        """The tensor with elements removed."""
        return F.dropout(input, self.p, self.training, self.inplace)


class Dropout2d(_Dropout):
    """``Dropout`` of whole channels of (N, C, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        """The tensor with channels removed."""
        return F.dropout2d(input, self.p, self.training, self.inplace)


class Dropout1d(_Dropout):
    """``Dropout`` of whole channels of (N, C, L)."""

    def forward(self, input: Tensor) -> Tensor:
        """The tensor with channels removed."""
        return F.dropout1d(input, self.p, self.training, self.inplace)


class Dropout3d(_Dropout):
    """``Dropout`` of whole channels of (N, C, D, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        """The tensor with channels removed."""
        return F.dropout3d(input, self.p, self.training, self.inplace)


class AlphaDropout(_Dropout):
    """``Dropout`` that keeps mean and variance after ``SELU`` (Klambauer et al., 2017)."""

    def forward(self, input: Tensor) -> Tensor:
        """The tensor with elements at SELU's lowest value."""
        return F.alpha_dropout(input, self.p, self.training, self.inplace)


class FeatureAlphaDropout(_Dropout):
    """``AlphaDropout`` of whole channels of (N, C, ...)."""

    def forward(self, input: Tensor) -> Tensor:
        """The tensor with channels at SELU's lowest value."""
        return F.feature_alpha_dropout(input, self.p, self.training, self.inplace)


__all__ = [
    "AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "Embedding",
    "FeatureAlphaDropout",
]  # fmt: skip
