"""A softmax over very many classes, of which few are frequent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.base.errors import ShapeError
from treadle.base.record import Record
from treadle.ir.node import located
from treadle.nn import functional as F
from treadle.nn.containers import ModuleList, Sequential
from treadle.nn.linear import Linear
from treadle.nn.module import Module
from treadle.tensor.joining import cat
from treadle.tensor.reduction import log_softmax
from treadle.tensor.selection import gather, where
from treadle.tensor.tensor import Tensor


class _ASMoutput(Record):
    """The log-probabilities of the targets, and the loss: their mean, negated."""

    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """Classes sorted by frequency, in a short list and clusters of rarer ones (Grave et al., 2017).

    ``cutoffs`` are the first classes of the clusters. The head tells the classes of the short list
    and the clusters; cluster i projects the features to ``in_features / div_value^(i + 1)``.

    >>> import treadle
    >>> layer = AdaptiveLogSoftmaxWithLoss(8, 20, [5, 10])
    >>> out = layer(treadle.randn(3, 8), treadle.tensor([0, 7, 19]))
    >>> tuple(out.output.shape), tuple(out.loss.shape)
    ((3,), ())
    """

    def __init__(
        self, in_features: int, n_classes: int, cutoffs: Sequence[int], div_value: float = 4.0,
        head_bias: bool = False, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        cuts = list(cutoffs)
        if not cuts or cuts != sorted(set(cuts)) or cuts[0] < 1 or cuts[-1] > n_classes - 1:
            raise located(ValueError(
                f"AdaptiveLogSoftmaxWithLoss: got cutoffs {cuts} for {n_classes} classes; they "
                f"must rise, from 1 to {n_classes - 1}, and be at least one"
            ))  # fmt: skip
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = [*cuts, n_classes]
        self.div_value = div_value
        self.head_bias = head_bias
        self.shortlist_size = cuts[0]
        self.n_clusters = len(self.cutoffs) - 1
        self.head_size = self.shortlist_size + self.n_clusters
        kind = {"device": device, "dtype": dtype}
        self.head = Linear(in_features, self.head_size, head_bias, **kind)
        self.tail = ModuleList()
        for i in range(self.n_clusters):
            inner = int(in_features // div_value ** (i + 1))
            size = self.cutoffs[i + 1] - self.cutoffs[i]
            self.tail.append(Sequential(
                Linear(in_features, inner, False, **kind), Linear(inner, size, False, **kind)
            ))  # fmt: skip

    def reset_parameters(self) -> None:
        """Draws the parameters anew."""
        for module in self.modules():
            if isinstance(module, Linear):
                module.reset_parameters()

    def _checked(self, input: Tensor) -> Tensor:
        if input.ndim not in (1, 2) or input.shape[-1] != self.in_features:
            raise located(ShapeError(
                f"AdaptiveLogSoftmaxWithLoss: got an input of shape {tuple(input.shape)}; it must "
                f"be (N, {self.in_features}) or ({self.in_features},)"
            ))  # fmt: skip
        return input if input.ndim == 2 else input.unsqueeze(0)

    def log_prob(self, input: Tensor) -> Tensor:
        """The log-probabilities of all classes: (N, in_features) -> (N, n_classes)."""
        x = self._checked(input)
        head = log_softmax(self.head(x), 1)
        parts = [head[:, : self.shortlist_size]]
        for i, cluster in enumerate(self.tail):
            of_cluster = head[:, self.shortlist_size + i].unsqueeze(1)
            parts.append(log_softmax(cluster(x), 1) + of_cluster)
        out = cat(parts, 1)
        return out if input.ndim == 2 else out.squeeze(0)

    def forward(self, input_: Tensor, target_: Tensor) -> _ASMoutput:
        """The log-probabilities of the targets (N,), and the loss."""
        x = self._checked(input_)
        if tuple(target_.shape) != tuple(input_.shape[:-1]):
            raise located(ShapeError(
                f"AdaptiveLogSoftmaxWithLoss: got an input of shape {tuple(input_.shape)} and a "
                f"target of shape {tuple(target_.shape)}; it must be {tuple(input_.shape[:-1])}"
            ))  # fmt: skip
        target = target_ if input_.ndim == 2 else target_.unsqueeze(0)
        head = log_softmax(self.head(x), 1)
        place = target  # in the head
        rest = 0.0 * head[:, 0]  # in the cluster
        for i, cluster in enumerate(self.tail):
            low, high = self.cutoffs[i], self.cutoffs[i + 1]
            inside = (target >= low) & (target < high)
            place = where(inside, self.shortlist_size + i, place)
            at = where(inside, target - low, 0).unsqueeze(1)
            of_cluster = gather(log_softmax(cluster(x), 1), 1, at).squeeze(1)
            rest = rest + where(inside, of_cluster, 0.0)
        # A target out of range is told by nll_loss.
        output = rest - F.nll_loss(head, place, reduction="none")
        loss = -output.mean()
        return _ASMoutput(output if input_.ndim == 2 else output.squeeze(0), loss)

    def predict(self, input: Tensor) -> Tensor:
        """The most likely classes (N,)."""
        return self.log_prob(input).argmax(-1)


__all__ = ["AdaptiveLogSoftmaxWithLoss"]
