"""The open table of element types and PyTorch's promotion rules.

A ``DType`` is a singleton: compare with ``is``. ``bits`` is the width in storage.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from treadle.base.lazy_numpy import np

_TABLE: dict[str, DType] = {}


class DType:
    """An element type such as ``treadle.float32``.

    ``kind`` is ``'f'`` (floating), ``'i'`` (signed), ``'u'`` (unsigned) or ``'b'`` (bool);
    ``short`` is the name in printed graphs and loop IR (``f32``).
    """

    __slots__ = ("__weakref__", "_numpy", "bits", "kind", "name", "rank", "short")

    def __init__(self, name: str, short: str, kind: str, bits: int, rank: int) -> None:
        self.name = name
        self.short = short
        self.kind = kind
        self.bits = bits
        self.rank = rank  # place within its kind for promotion
        self._numpy: np.dtype[Any] | None = None
        _TABLE[short] = self

    @property
    def itemsize(self) -> int:
        """Bytes of one element in memory."""
        return (self.bits + 7) // 8

    @property
    def is_floating_point(self) -> bool:
        """True for the floating types."""
        return self.kind == "f"

    @property
    def is_complex(self) -> bool:
        """True for the complex types (none yet)."""
        return False

    @property
    def is_signed(self) -> bool:
        """True where negative values exist."""
        return self.kind in "fi"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype with the same bits (bfloat16 through ml_dtypes)."""
        if self._numpy is None:
            if self.short == "bf16":
                import ml_dtypes

                self._numpy = np.dtype(ml_dtypes.bfloat16)
            else:
                self._numpy = np.dtype(self.name)
        return self._numpy

    def __repr__(self) -> str:
        return f"treadle.{self.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return by_short, (self.short,)

    def __copy__(self) -> DType:
        return self

    def __deepcopy__(self, memo: object) -> DType:
        return self


float64 = DType("float64", "f64", "f", 64, 3)
float32 = DType("float32", "f32", "f", 32, 2)
float16 = DType("float16", "f16", "f", 16, 0)
bfloat16 = DType("bfloat16", "bf16", "f", 16, 0)
int64 = DType("int64", "i64", "i", 64, 3)
int32 = DType("int32", "i32", "i", 32, 2)
int16 = DType("int16", "i16", "i", 16, 1)
int8 = DType("int8", "i8", "i", 8, 0)
uint8 = DType("uint8", "u8", "u", 8, 0)
bool_ = DType("bool", "b1", "b", 8, 0)
# Inside kernels only (Philox words, bit patterns); not dtypes of tensors yet.
uint32 = DType("uint32", "u32", "u", 32, 2)
uint64 = DType("uint64", "u64", "u", 64, 3)

ALL = (float64, float32, float16, bfloat16, int64, int32, int16, int8, uint8, bool_)
FLOATS = (float64, float32, float16, bfloat16)
INTS = (int64, int32, int16, int8, uint8)
_BY_NAME = {d.name: d for d in ALL} | {
    "float": float32, "double": float64, "half": float16, "long": int64, "int": int32,
    "short": int16,
}  # fmt: skip


def by_short(short: str) -> DType:
    """The dtype printed as ``short`` (``'f32'``)."""
    return _TABLE[short]


def from_numpy(dtype: Any) -> DType:
    """The dtype of a NumPy array; raises TypeError where there is none."""
    try:
        name = np.dtype(dtype).name
    except TypeError:
        raise TypeError(
            f"got {dtype!r} for a dtype; there are {', '.join(d.name for d in ALL)}"
        ) from None
    try:
        return _BY_NAME[name]
    except KeyError:
        raise TypeError(
            f"NumPy dtype {name} has no Treadle dtype; convert the array first, for example "
            f"with .astype('float32'); there are {', '.join(d.name for d in ALL)}"
        ) from None


def as_dtype(value: Any) -> DType:
    """A DType from a DType, a name, a Python type or a NumPy dtype."""
    if type(value) is DType:
        return value
    if value is float:
        return _default_float
    if value is int:
        return int64
    if value is bool:
        return bool_
    if isinstance(value, str) and value.removeprefix("treadle.") in _BY_NAME:
        return _BY_NAME[value.removeprefix("treadle.")]
    return from_numpy(value)


_default_float = float32


def get_default_dtype() -> DType:
    """The dtype of float data that names none (float32 unless changed)."""
    return _default_float


def set_default_dtype(dtype: DType) -> None:
    """Sets the dtype of float data that names none; it must be a floating dtype."""
    global _default_float
    if not as_dtype(dtype).is_floating_point:
        raise TypeError(f"set_default_dtype takes a floating dtype, got {dtype!r}")
    _default_float = as_dtype(dtype)


@lru_cache(maxsize=None)
def promote_types(a: DType, b: DType) -> DType:
    """The smallest dtype that both convert to, by PyTorch's table.

    >>> promote_types(float16, bfloat16)
    treadle.float32
    >>> promote_types(uint8, int8)
    treadle.int16
    """
    if a is b:
        return a
    order = {"b": 0, "u": 1, "i": 1, "f": 2}
    if order[a.kind] != order[b.kind]:
        return a if order[a.kind] > order[b.kind] else b
    if a.rank != b.rank:
        return a if a.rank > b.rank else b
    return float32 if a.kind == "f" else int16  # f16 with bf16, u8 with i8


_CATEGORY = {"b": 0, "u": 1, "i": 1, "f": 2}


def result_type_of(tensors: list[tuple[DType, int]], scalars: list[type]) -> DType:
    """PyTorch's result type: ``tensors`` are (dtype, ndim); ``scalars`` Python types.

    Tensors with dimensions decide first; a 0-d tensor or a Python number counts only when its
    category (bool < integer < float) is higher than what is there.
    """
    dims: DType | None = None
    zeros: DType | None = None
    for dtype, ndim in tensors:
        if ndim:
            dims = dtype if dims is None else promote_types(dims, dtype)
        else:
            zeros = dtype if zeros is None else promote_types(zeros, dtype)
    numbers: DType | None = None
    for kind in scalars:
        dtype = bool_ if kind is bool else int64 if kind is int else _default_float
        numbers = dtype if numbers is None else promote_types(numbers, dtype)
    result = dims
    for candidate in (zeros, numbers):
        if candidate is None:
            continue
        if result is None or _CATEGORY[candidate.kind] > _CATEGORY[result.kind]:
            result = candidate
    if result is None:
        raise TypeError("result_type_of: got no operands; expected at least one")
    return result
