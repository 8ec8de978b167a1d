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

    ``kind`` is ``'c'`` (complex), ``'f'`` (floating), ``'i'`` (signed), ``'u'`` (unsigned) or
    ``'b'`` (bool); ``short`` is the name in printed graphs and loop IR (``f32``).
    """

    __slots__ = ("__weakref__", "_numpy", "bits", "kind", "name", "short")

    def __init__(self, name: str, short: str, kind: str, bits: int) -> None:
        self.name = name
        self.short = short
        self.kind = kind
        self.bits = bits
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
        """True for the complex types."""
        return self.kind == "c"

    @property
    def is_inexact(self) -> bool:
        """True for the types that gradients exist for: floating and complex ones."""
        return self.kind in "fc"

    @property
    def is_signed(self) -> bool:
        """True where negative values exist."""
        return self.kind in "fic"

    def to_complex(self) -> DType:
        """The complex dtype whose parts hold what this one does (complex64 for 16 bits)."""
        return self if self.kind == "c" else complex128 if self is float64 else complex64

    def to_real(self) -> DType:
        """The dtype of the real and imaginary parts; a real dtype itself."""
        return self if self.kind != "c" else float64 if self is complex128 else float32

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


float64 = DType("float64", "f64", "f", 64)
float32 = DType("float32", "f32", "f", 32)
float16 = DType("float16", "f16", "f", 16)
bfloat16 = DType("bfloat16", "bf16", "f", 16)
int64 = DType("int64", "i64", "i", 64)
int32 = DType("int32", "i32", "i", 32)
int16 = DType("int16", "i16", "i", 16)
int8 = DType("int8", "i8", "i", 8)
uint8 = DType("uint8", "u8", "u", 8)
bool_ = DType("bool", "b1", "b", 8)
uint16 = DType("uint16", "u16", "u", 16)
uint32 = DType("uint32", "u32", "u", 32)
uint64 = DType("uint64", "u64", "u", 64)
# Of tensors only: no kernel knows them (``ops/complex.py``).
complex128 = DType("complex128", "c128", "c", 128)
complex64 = DType("complex64", "c64", "c", 64)

FLOATS = (float64, float32, float16, bfloat16)
INTS = (int64, int32, int16, int8, uint8, uint16, uint32, uint64)
ALL = (*FLOATS, *INTS, bool_)  # what kernels compute with
COMPLEX = (complex128, complex64)
_BY_NAME = {d.name: d for d in (*ALL, *COMPLEX)} | {
    "float": float32, "double": float64, "half": float16, "long": int64, "int": int32,
    "short": int16, "cfloat": complex64, "cdouble": complex128,
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
            f"got {dtype!r} for a dtype; there are {', '.join(d.name for d in (*ALL, *COMPLEX))}"
        ) from None
    try:
        return _BY_NAME[name]
    except KeyError:
        raise TypeError(
            f"NumPy dtype {name} has no Treadle dtype; convert the array first, for example "
            f"with .astype('float32'); there are {', '.join(d.name for d in (*ALL, *COMPLEX))}"
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
    if value is complex:
        return _default_float.to_complex()
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
    if a.kind != b.kind and {a.kind, b.kind} != {"i", "u"}:
        high, low = (a, b) if _CATEGORY[a.kind] > _CATEGORY[b.kind] else (b, a)
        return promote_types(high, low.to_complex()) if (high.kind, low.kind) == _CF else high
    if a.kind == b.kind:
        return float32 if a.bits == b.bits else a if a.bits > b.bits else b  # f16 with bf16
    signed, unsigned = (a, b) if a.kind == "i" else (b, a)
    if signed.bits > unsigned.bits:
        return signed
    for wider in (int16, int32, int64):
        if wider.bits > unsigned.bits:
            return wider
    raise TypeError(
        f"got {signed.name} and uint64, which no integer dtype holds both of; convert one of them "
        f"with .to(dtype) first"
    )


_CATEGORY = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}
_CF = ("c", "f")


def result_type_of(tensors: list[tuple[DType, int]], scalars: list[type]) -> DType:
    """PyTorch's result type: ``tensors`` are (dtype, ndim); ``scalars`` Python types.

    Tensors with dimensions decide first; a 0-d tensor or a Python number counts only when its
    category (bool < integer < float < complex) is higher than what is there.
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
        dtype = as_dtype(kind)
        numbers = dtype if numbers is None else promote_types(numbers, dtype)
    result = dims
    for candidate in (zeros, numbers):
        if candidate is None:
            continue
        if result is None:
            result = candidate
        elif candidate.kind == "c" and result.kind == "f":
            result = result.to_complex()
        elif _CATEGORY[candidate.kind] > _CATEGORY[result.kind]:
            result = candidate
    if result is None:
        raise TypeError("result_type_of: got no operands; expected at least one")
    return result
