"""Functions whose rows are independent: a row has the same bits in a batch of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.record import Record
from treadle.nn import GRU, LSTM
from treadle.nn import functional as F
from treadle.random.generator import manual_seed
from treadle.tensor import arithmetic as a
from treadle.tensor import reduction
from treadle.tensor.creation import from_numpy
from treadle.tensor.gradients import backward
from treadle.tensor.tensor import Tensor
from treadle.testing.layouts import Array
from treadle.testing.programs import same_bits

_FLOATS = (dtypes.float32, dtypes.float64, dtypes.float16, dtypes.bfloat16)
_WIDE = (dtypes.float32, dtypes.float64)
BATCHES = (1, 2, 64)
"""Sizes whose rows are compared with those of ``_BATCH``."""
_BATCH = 7


class Rows(Record):
    """A function of a batch; ``weights`` are the shapes of what it takes beside it."""

    name: str
    function: Callable[..., Tensor]
    row: tuple[int, ...]
    weights: tuple[tuple[int, ...], ...] = ()
    dtypes: tuple[DType, ...] = _FLOATS
    classes: int = 0  # where not 0 the second argument is a batch of labels

    def check(self, dtype: DType, batches: tuple[int, ...] = BATCHES) -> str:
        """Where rows differ, for people; empty where none does. Their gradients are held too."""
        rng = np.random.default_rng(3)
        most = max(*batches, _BATCH)
        x = rng.normal(size=(most, *self.row)).astype(dtype.numpy)
        weights = [rng.normal(size=shape).astype(dtype.numpy) / 4 for shape in self.weights]
        labels = rng.integers(0, self.classes, (most, *self.row[1:])) if self.classes else None
        expected = self._run(x, weights, labels, _BATCH)
        for batch in batches:
            found = self._run(x, weights, labels, batch)
            shared = min(batch, _BATCH)
            for what, one, other in zip(("result", "gradient"), expected, found, strict=True):
                if not same_bits(one[:shared].copy(), other[:shared].copy()):
                    rows = [i for i in range(shared) if not same_bits(one[i], other[i])]
                    return f"the {what} of rows {rows} in a batch of {batch}"
        return ""

    def _run(
        self, x: Array, weights: list[Array], labels: Array | None, batch: int
    ) -> tuple[Array, Array]:
        """(results, gradients of the batch)."""
        inputs = from_numpy(x[:batch]).requires_grad_()
        extra = [from_numpy(w.astype(x.dtype)) for w in weights]
        if labels is not None:
            extra = [from_numpy(labels[:batch]), *extra]
        y = self.function(inputs, *extra)
        backward([y], [a.cos(y.detach() * 3)])
        gradient = inputs.grad
        if gradient is None:
            raise ValueError(f"{self.name} has no gradient for its batch")
        return y.detach().numpy().copy(), gradient.numpy().copy()


def _recurrent(layer: type[LSTM] | type[GRU]) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        manual_seed(1)
        net = layer(5, 6, num_layers=2, batch_first=True, bidirectional=True)
        return net(x)[0]

    return run


def _attention(x: Tensor) -> Tensor:
    q, k, v = x.chunk(3, -1)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def _norm_of_rows(x: Tensor) -> Tensor:
    mean = from_numpy(np.linspace(-1, 1, 6).astype(x.dtype.numpy))
    return F.batch_norm(x, mean, a.square(mean) + 0.5)


ROWS = (
    Rows("matmul", lambda x, w: x @ w, (600,), ((600, 10),)),
    Rows("matmul of a few columns", lambda x, w: x @ w, (70,), ((70, 3),)),
    Rows("matmul of matrices", lambda x, w: x @ w, (3, 40), ((40, 33),)),
    Rows("linear", F.linear, (1100,), ((40, 1100), (40,)), _WIDE),
    Rows("linear of a few columns", F.linear, (65,), ((3, 65), (3,))),
    Rows("conv1d", lambda x, w: F.conv1d(x, w, padding=2), (3, 40), ((5, 3, 4),)),
    Rows("conv2d", lambda x, w, b: F.conv2d(x, w, b), (1, 12, 12), ((20, 1, 5, 5), (20,))),
    Rows("conv2d of two blocks", lambda x, w: F.conv2d(x, w, padding=1), (70, 5, 6),
         ((9, 70, 3, 3),), (dtypes.float32,)),
    Rows("conv2d with groups and strides",
         lambda x, w: F.conv2d(x, w, stride=2, padding=1, groups=2), (4, 9, 8), ((6, 2, 3, 2),)),
    Rows("conv2d depthwise", lambda x, w: F.conv2d(x, w, padding=1, groups=9), (9, 7, 6),
         ((9, 1, 3, 3),)),
    Rows("conv_transpose2d", lambda x, w: F.conv_transpose2d(x, w, stride=2), (4, 5, 6),
         ((4, 3, 3, 2),)),
    Rows("softmax", lambda x: reduction.softmax(x, -1), (1000,)),
    Rows("log_softmax across", lambda x: reduction.log_softmax(x, 1), (11, 9)),
    Rows("sum", lambda x: x.sum((1, 2)), (30, 41)),
    Rows("mean of long rows", lambda x: x.mean(-1), (9000,), (), _WIDE),
    Rows("var", lambda x: x.var(-1), (300,), (), _WIDE),
    Rows("amax", lambda x: x.amax(-1), (130,)),
    Rows("cumsum", lambda x: x.cumsum(-1), (2100,), (), _WIDE),
    Rows("logsumexp", lambda x: reduction.logsumexp(x, -1), (150,)),
    Rows("layer_norm", lambda x, w, b: F.layer_norm(x, (70,), w, b), (3, 70), ((70,), (70,))),
    Rows("group_norm", lambda x: F.group_norm(x, 3), (6, 5, 7)),
    Rows("batch_norm of known moments", _norm_of_rows, (6, 5)),
    Rows("max_pool2d", lambda x: F.max_pool2d(x, 3, stride=2, padding=1), (3, 9, 11)),
    Rows("avg_pool2d", lambda x: F.avg_pool2d(x, 2), (3, 8, 10)),
    Rows("gelu", F.gelu, (77,)),
    Rows("cross_entropy", lambda x, t: F.cross_entropy(x, t, reduction="none"), (11,), (),
         _FLOATS, 11),
    Rows("cross_entropy of pixels", lambda x, t: F.cross_entropy(x, t, reduction="none"),
         (5, 4, 6), (), _WIDE, 5),
    Rows("nll_loss", lambda x, t: F.nll_loss(x, t, reduction="none"), (9,), (), _WIDE, 9),
    Rows("mse_loss", lambda x: F.mse_loss(x, x.detach() * 0.5, reduction="none"), (33,)),
    Rows("attention", _attention, (2, 20, 24)),
    Rows("attention of long rows", _attention, (1, 600, 12), (), (dtypes.float32,)),
    Rows("lstm", _recurrent(LSTM), (9, 5), (), (dtypes.float32,)),
    Rows("gru", _recurrent(GRU), (9, 5), (), (dtypes.float32,)),
)  # fmt: skip


def row_cases() -> Iterator[tuple[Rows, DType]]:
    """Every function in every dtype it is tried in."""
    for rows in ROWS:
        for dtype in rows.dtypes:
            yield rows, dtype


__all__ = ["BATCHES", "ROWS", "Rows", "row_cases"]
