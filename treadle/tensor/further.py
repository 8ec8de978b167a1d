"""Rarer functions: incomplete gamma functions, ``frexp``, histograms, ``pdist``, ``frombuffer``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.base import dtypes
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.lazy_numpy import np
from treadle.base.record import Record
from treadle.ir.node import located, record
from treadle.ir.op import Op
from treadle.ops import host_elementwise as host
from treadle.ops.project import project
from treadle.tensor import arithmetic as a
from treadle.tensor.assembly import triu_indices
from treadle.tensor.creation import tensor
from treadle.tensor.handle import Handle, wrap
from treadle.tensor.methods import in_place
from treadle.tensor.movement import node_of
from treadle.tensor.reduction import norm

if TYPE_CHECKING:
    from collections.abc import Callable

    from treadle.tensor.tensor import Tensor


class Frexp(Record):
    """input = mantissa * 2^exponent."""

    mantissa: Tensor
    exponent: Tensor


class Histogram(Record):
    """What lies in every bin, and where the bins end."""

    hist: Tensor
    bin_edges: Any


def of_two(op: Op) -> Callable[[Any, Any], Tensor]:
    """The function of two operands that an op on equal types is."""

    def function(input: Any, other: Any) -> Tensor:
        dtype = a.common_dtype(op.name, input, other)
        real = dtype if dtype.is_floating_point else dtypes.get_default_dtype()
        return wrap(record(op, a.operand_nodes(op.name, real, input, other), {}))

    function.__name__ = function.__qualname__ = op.name
    function.__doc__ = f"{op.doc[0].upper()}{op.doc[1:]}, elementwise, with broadcasting."
    return function


igamma, igammac = map(of_two, (host.igamma, host.igammac))


def frexp(input: Tensor) -> Frexp:
    """Mantissas of at least 1/2 and below 1 and exponents of 2, whose product is ``input``.

    >>> import treadle
    >>> frexp(treadle.tensor([8.0, 3.0])).exponent.tolist()
    [4, 2]
    """
    both = host.frexp(node_of("frexp", input))
    return Frexp(wrap(project(both, index=0)), wrap(project(both, index=1)))


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm distances of all pairs of rows, as the upper triangle of ``cdist`` has them."""
    shape = node_of("pdist", input).shape
    if len(shape) != 2 or p < 0:
        raise located(ShapeError(
            f"pdist: got a tensor of shape {shape} and p={p}; it takes a matrix of rows, and a p "
            f"that is not negative"
        ))  # fmt: skip
    first, second = triu_indices(shape[0], shape[0], 1)
    return norm(a.sub(input[first], input[second]), p, -1)


def frombuffer(
    buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0, requires_grad: bool = False
) -> Tensor:
    """A tensor with a copy of the bytes of a buffer, as numbers of this dtype.

    >>> import treadle
    >>> frombuffer(bytearray([1, 0, 2, 0]), dtype=treadle.int16)
    tensor([1, 2], dtype=treadle.int16)
    """
    kind = dtypes.as_dtype(dtype)
    try:
        array = np.frombuffer(buffer, kind.numpy, count, offset)
    except ValueError as error:
        raise located(ValueError(f"frombuffer: {error}")) from None
    return tensor(array, requires_grad=requires_grad)


# --- histograms ---------------------------------------------------------------------------------


def _samples(name: str, input: Tensor, weight: Tensor | None) -> tuple[Any, Any, Any]:
    node = node_of(name, input)
    if node.dtype not in (dtypes.float32, dtypes.float64):
        raise located(DTypeError(
            f"{name}: got a tensor of dtype {node.dtype.name}; it takes float32 and float64; "
            f"convert it with .float() first"
        ))  # fmt: skip
    return input.detach().numpy(), None if weight is None else weight.detach().numpy(), node.dtype


def histogram(
    input: Tensor, bins: Any, *, range: Sequence[float] | None = None,
    weight: Tensor | None = None, density: bool = False,
) -> Histogram:  # fmt: skip
    """How many elements (or how much ``weight``) lie in each bin, and the edges of the bins.

    ``bins`` is their number, or their edges. The last bin has both its ends. It has no gradient.
    """
    edges = [bins] if isinstance(bins, (int, Handle)) else bins
    flat = input.reshape(-1, 1)
    found = histogramdd(
        flat, edges, range=range, weight=None if weight is None else weight.reshape(-1),
        density=density,
    )  # fmt: skip
    return Histogram(found.hist, found.bin_edges[0])


def histogramdd(
    input: Tensor, bins: Any, *, range: Sequence[float] | None = None,
    weight: Tensor | None = None, density: bool = False,
) -> Histogram:  # fmt: skip
    """``histogram`` of points in several dimensions, the last of ``input``."""
    x, w, dtype = _samples("histogramdd", input, weight)
    columns = x.shape[-1]
    points = x.reshape(-1, columns)
    numbers = [bins] * columns if isinstance(bins, int) else list(bins)
    if len(numbers) != columns:
        raise located(ShapeError(
            f"histogramdd: got {len(numbers)} bins for points of {columns} dimensions; there must "
            f"be as many"
        ))  # fmt: skip
    edges = [
        _edges(points[:, i], n, None if range is None else tuple(range[2 * i : 2 * i + 2]))
        for i, n in enumerate(numbers)
    ]
    where, inside = np.zeros((columns, len(points)), np.int64), np.ones(len(points), bool)
    for i, edge in enumerate(edges):
        where[i] = np.searchsorted(edge, points[:, i], "right") - 1
        where[i][points[:, i] == edge[-1]] = len(edge) - 2
        inside &= (points[:, i] >= edge[0]) & (points[:, i] <= edge[-1])
    shape = tuple(len(edge) - 1 for edge in edges)
    total = np.zeros(shape)
    flat = None if w is None else w.reshape(-1)[inside]
    np.add.at(total, tuple(where[:, inside]), 1.0 if flat is None else flat)
    if density:
        volume = np.ones(())
        for edge in edges:
            volume = np.multiply.outer(volume, np.diff(edge.astype(np.float64)))
        total = total / (total.sum() * volume)
    ends = tuple(tensor(edge, dtype=dtype) for edge in edges)
    return Histogram(tensor(total, dtype=dtype), ends)


def _edges(values: Any, bins: Any, limits: tuple[float, ...] | None) -> Any:
    """The ends of the bins, in the dtype of the values."""
    if isinstance(bins, Handle):
        return bins.detach().numpy()  # type: ignore[attr-defined]
    low, high = limits or ((values.min(), values.max()) if values.size else (0.0, 1.0))
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, int(bins) + 1).astype(values.dtype)


class Methods(Handle):
    """The functions of this module as methods of tensors."""

    __slots__ = ()

    igamma, igammac, frexp, histogram = igamma, igammac, frexp, histogram
    igamma_, igammac_ = map(in_place, (igamma, igammac))


__all__ = [
    "frexp", "frombuffer", "histogram", "histogramdd", "igamma", "igammac", "pdist",
]  # fmt: skip
