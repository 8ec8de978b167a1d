"""Questions about tensors and dtypes whose answers take (almost) no computing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import ShapeError
from treadle.base.lazy_numpy import np
from treadle.ir.node import located
from treadle.tensor import arithmetic as a
from treadle.tensor.handle import Handle
from treadle.tensor.movement import common_shape, node_of, reshape, sizes_of
from treadle.tensor.reduction import any as any_of
from treadle.tensor.storage import array_of

if TYPE_CHECKING:
    from treadle.tensor.tensor import Size, Tensor


# --- numbers --------------------------------------------------------------------------------------


class _Limits:
    """What the numbers of a dtype can be."""

    def __init__(self, dtype: Any, kinds: str, what: str) -> None:
        self._dtype = dtypes.as_dtype(dtype)
        if "f" in kinds:
            self._dtype = self._dtype.to_real()
        if self._dtype.kind not in kinds:
            raise located(TypeError(
                f"{type(self).__name__}: got {self._dtype.name}; it takes {what} dtypes"
            ))  # fmt: skip

    @property
    def dtype(self) -> str:
        """The name of the dtype."""
        return self._dtype.name

    @property
    def bits(self) -> int:
        """The bits of one number."""
        return self._dtype.bits

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._dtype is self._dtype

    def __hash__(self) -> int:
        return hash((type(self), self._dtype))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)}" for name in self._shown)
        return f"{type(self).__name__}({fields}, dtype={self.dtype})"

    _shown: tuple[str, ...] = ()


class finfo(_Limits):
    """The limits of a floating dtype (the default one): ``eps``, ``max``, ``min``, ``tiny`` ...

    ``eps`` is the distance from 1 to the next number, ``tiny`` (``smallest_normal``) the least
    positive number of full precision, ``resolution`` 10 to the power of minus the decimal digits.

    >>> import treadle
    >>> treadle.finfo(treadle.float32).eps
    1.1920928955078125e-07
    """

    _shown = ("resolution", "min", "max", "eps", "smallest_normal", "tiny")

    def __init__(self, type: Any = None) -> None:
        super().__init__(dtypes.get_default_dtype() if type is None else type, "f", "floating")
        if self._dtype.short == "bf16":
            import ml_dtypes

            known: Any = ml_dtypes.finfo(self._dtype.numpy)
        else:
            known = np.finfo(self._dtype.numpy)
        self.eps, self.max, self.min = float(known.eps), float(known.max), float(known.min)
        self.tiny = self.smallest_normal = float(known.tiny)
        self.resolution = 10.0**-known.precision


class iinfo(_Limits):
    """The limits of an integer dtype: ``min``, ``max`` and ``bits``.

    >>> import treadle
    >>> treadle.iinfo(treadle.int8).max
    127
    """

    _shown = ("min", "max")

    def __init__(self, type: Any) -> None:
        super().__init__(type, "iu", "integer")
        self.min = -(1 << self.bits - 1) if self._dtype.kind == "i" else 0
        self.max = (1 << self.bits - (self._dtype.kind == "i")) - 1


# --- dtypes ---------------------------------------------------------------------------------------


def is_floating_point(input: Tensor) -> bool:
    """True for a floating dtype."""
    return node_of("is_floating_point", input).dtype.is_floating_point


def is_complex(input: Tensor) -> bool:
    """True for a complex dtype."""
    return node_of("is_complex", input).dtype.is_complex


def is_signed(input: Tensor) -> bool:
    """True for a dtype with negative numbers."""
    return node_of("is_signed", input).dtype.is_signed


def result_type(tensor1: Any, tensor2: Any) -> DType:
    """The dtype of an arithmetic operation with the two tensors or numbers.

    >>> import treadle
    >>> treadle.result_type(treadle.tensor([1, 2]), 1.0)
    treadle.float32
    """
    return a.common_dtype("result_type", tensor1, tensor2)


def can_cast(from_: DType, to: DType) -> bool:
    """True unless the conversion would lose the kind of number: float to int, int to bool ...

    >>> import treadle
    >>> treadle.can_cast(treadle.float64, float), treadle.can_cast(treadle.float32, int)
    (True, False)
    """
    source, target = dtypes.as_dtype(from_), dtypes.as_dtype(to)
    order = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}
    return order[source.kind] <= order[target.kind]


def typename(obj: Any) -> str:
    """The name of a value's type with its module; for tensors ``treadle.FloatTensor`` and so on."""
    from treadle.tensor.spellings import name_of

    if isinstance(obj, Handle):
        return name_of(obj.node.dtype)
    kind = type(obj)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


# --- shapes ---------------------------------------------------------------------------------------


def is_same_size(input: Tensor, other: Tensor) -> bool:
    """True where both have the same shape."""
    return node_of("is_same_size", input).shape == node_of("is_same_size", other).shape


def broadcast_shapes(*shapes: Any) -> Size:
    """The shape that tensors of these shapes broadcast to.

    >>> import treadle
    >>> treadle.broadcast_shapes((2, 1), (3,))
    treadle.Size([2, 3])
    """
    from treadle.tensor.tensor import Size

    sizes = [(s,) if isinstance(s, int) else sizes_of("broadcast_shapes", (s,)) for s in shapes]
    return Size(common_shape("broadcast_shapes", *sizes))


# --- values ---------------------------------------------------------------------------------------


def is_nonzero(input: Tensor) -> bool:
    """Whether the only element is not zero."""
    node = node_of("is_nonzero", input)
    if node.type.size != 1:
        raise located(ShapeError(
            f"is_nonzero: got a tensor of shape {node.shape}; it takes a tensor of one element"
        ))  # fmt: skip
    return bool(array_of(node).item())


def isin(
    elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False
) -> Tensor:
    """True for the elements that are among ``test_elements`` (``invert``: are not).

    >>> import treadle
    >>> treadle.isin(treadle.tensor([1, 2, 3]), treadle.tensor([3, 1])).tolist()
    [True, False, True]
    """
    from treadle.tensor.creation import as_tensor

    x, among = as_tensor(elements), as_tensor(test_elements)
    column = reshape(x, (*x.shape, 1))
    found = any_of(a.eq(column, reshape(among, (-1,))), -1)
    return a.logical_not(found) if invert else found


class Methods:
    """The functions of this module that PyTorch has as methods."""

    __slots__ = ()

    is_complex, is_signed = is_complex, is_signed
    is_same_size, is_nonzero = is_same_size, is_nonzero


__all__ = [
    "broadcast_shapes", "can_cast", "finfo", "iinfo", "is_complex", "is_floating_point",
    "is_nonzero", "is_same_size", "is_signed", "isin", "result_type", "typename",
]  # fmt: skip
