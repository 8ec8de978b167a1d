"""The standard's functions that make arrays, ask about dtypes, and convert."""

from __future__ import annotations

from math import e, inf, nan, pi
from typing import Any

from treadle.base import dtypes
from treadle.base.dtypes import (
    DType,
    complex64,
    complex128,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)
from treadle.base.dtypes import bool_ as bool
from treadle.base.lazy_numpy import np
from treadle.interop.array_api.functions import t
from treadle.ir.node import located
from treadle.tensor.tensor import Device, Tensor, check_device

newaxis = None
_KINDS = {
    "bool": (bool,), "signed integer": (int8, int16, int32, int64),
    "unsigned integer": (uint8, uint16, uint32, uint64), "real floating": (float32, float64),
    "complex floating": (complex64, complex128),
}  # fmt: skip
_KINDS["integral"] = _KINDS["signed integer"] + _KINDS["unsigned integer"]
_KINDS["numeric"] = (
    _KINDS["integral"] + _KINDS["real floating"] + _KINDS["complex floating"]
)  # fmt: skip


def asarray(
    obj: Any, /, *, dtype: Any = None, device: Any = None, copy: Any = None
) -> Tensor:  # fmt: skip
    """An array of numbers, sequences, or another array; what is no tensor is always copied."""
    if isinstance(obj, Tensor):
        made = obj.to(dtype=dtype, device=device)
        if copy is False and made is not obj:
            raise located(ValueError(
                f"asarray: got copy=False and dtype={dtype}, which takes a copy; leave one out"
            ))  # fmt: skip
        return made.clone() if copy and made is obj else made
    if copy is False:
        raise located(ValueError(
            f"asarray: got copy=False for a {type(obj).__name__}; only tensors are taken as they "
            f"are; leave it out"
        ))  # fmt: skip
    return t.tensor(obj, dtype=dtype, device=device)


def arange(
    start: Any, /, stop: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None
) -> Tensor:
    """``start``, ``start + step``, ... for as long as it is before ``stop``."""
    if stop is None:
        start, stop = 0, start
    if (stop - start) / step < 0:
        return t.zeros(0, dtype=dtype or _of_numbers(start, stop, step), device=device)
    return t.arange(start, stop, step, dtype=dtype, device=device)


def _of_numbers(*values: Any) -> Any:
    return int64 if all(isinstance(x, int) for x in values) else dtypes.get_default_dtype()


def linspace(
    start: Any, stop: Any, /, num: int, *, dtype: Any = None, device: Any = None,
    endpoint: Any = True,
) -> Tensor:  # fmt: skip
    """``num`` evenly spaced numbers, with or without ``stop``."""
    if isinstance(start, complex) or isinstance(stop, complex):
        values = np.linspace(start, stop, num, endpoint=endpoint)
        return t.tensor(values, dtype=dtype or dtypes.get_default_dtype().to_complex())
    if endpoint:
        return t.linspace(start, stop, num, dtype=dtype, device=device)
    return t.linspace(start, stop, num + 1, dtype=dtype, device=device)[:-1]


def eye(
    n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: Any = None,
    device: Any = None,
) -> Tensor:  # fmt: skip
    """Ones on the ``k``-th diagonal, zeros elsewhere."""
    columns = n_rows if n_cols is None else n_cols
    rows = t.arange(n_rows).reshape(n_rows, 1)
    made = t.eq(rows + k, t.arange(columns).reshape(1, columns))
    return made.to(dtype=dtype or dtypes.get_default_dtype(), device=device)


def zeros(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Zeros of a shape, which is a number or a tuple."""
    return t.zeros(shape, dtype=dtype, device=device)


def ones(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Ones of a shape."""
    return t.ones(shape, dtype=dtype, device=device)


def empty(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Zeros of a shape: memory is never shown before it is written."""
    return t.empty(shape, dtype=dtype, device=device)


def full(shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """``fill_value``, whose type gives the dtype unless named, in a shape."""
    size = (shape,) if isinstance(shape, int) else shape
    return t.full(size, fill_value, dtype=dtype, device=device)


def zeros_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Zeros in the shape and dtype of ``x``."""
    return t.zeros_like(x, dtype=dtype, device=device)


def ones_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Ones in the shape and dtype of ``x``."""
    return t.ones_like(x, dtype=dtype, device=device)


def empty_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Zeros in the shape and dtype of ``x``."""
    return t.empty_like(x, dtype=dtype, device=device)


def full_like(x: Tensor, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """``fill_value`` in the shape and dtype of ``x``."""
    return t.full_like(x, fill_value, dtype=dtype, device=device)


def tril(x: Tensor, /, *, k: int = 0) -> Tensor:
    """The elements on and below the ``k``-th diagonal, zeros elsewhere."""
    return t.tril(x, k)


def triu(x: Tensor, /, *, k: int = 0) -> Tensor:
    """The elements on and above the ``k``-th diagonal, zeros elsewhere."""
    return t.triu(x, k)


def meshgrid(*arrays: Tensor, indexing: str = "xy") -> tuple[Tensor, ...]:
    """The coordinates of a grid, one array for each dimension."""
    return tuple(t.meshgrid(*arrays, indexing=indexing))


def from_dlpack(x: Any, /, *, device: Any = None, copy: Any = None) -> Tensor:
    """A copy of another library's array, through DLPack."""
    return t.from_dlpack(x, device=device, copy=copy)


def astype(x: Tensor, dtype: Any, /, *, copy: Any = True, device: Any = None) -> Tensor:
    """``x`` in another dtype; a copy unless ``copy`` is False and nothing changes."""
    if x.dtype.is_complex and not dtypes.as_dtype(dtype).is_complex:
        raise located(TypeError(
            f"astype: got an array of dtype {x.dtype.name} for {dtypes.as_dtype(dtype).name}; take "
            f"its real or imag part first"
        ))  # fmt: skip
    return x.to(dtype=dtype, device=device, copy=copy)


def can_cast(from_: Any, to: Any, /) -> Any:
    """Whether promotion leads from a dtype (or an array's) to another."""
    source = from_.dtype if isinstance(from_, Tensor) else dtypes.as_dtype(from_)
    target = dtypes.as_dtype(to)
    return dtypes.promote_types(source, target) is target


def result_type(*arrays_and_dtypes: Any) -> DType:
    """The dtype that arrays, dtypes and numbers are promoted to together."""
    found: DType | None = None
    for value in arrays_and_dtypes:
        if isinstance(value, (Tensor, DType)):
            dtype = value.dtype if isinstance(value, Tensor) else value
            found = dtype if found is None else dtypes.promote_types(found, dtype)
    if found is None:
        raise located(TypeError("result_type: got no array and no dtype; expected one at least"))
    return found


def finfo(type: Any, /) -> Any:
    """The limits of a floating dtype."""
    return t.finfo(_dtype_of(type).to_real())


def iinfo(type: Any, /) -> Any:
    """The limits of an integer dtype."""
    return t.iinfo(_dtype_of(type))


def _dtype_of(value: Any) -> DType:
    return value.dtype if isinstance(value, Tensor) else dtypes.as_dtype(value)


class Info:
    """What ``__array_namespace_info__()`` gives."""

    def capabilities(self) -> dict[str, Any]:
        """Boolean indexing and shapes that depend on data are there."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> Device:
        """The CPU."""
        return check_device("cpu")

    def devices(self) -> list[Device]:
        """The devices that are there."""
        return [check_device("cpu")]

    def default_dtypes(self, *, device: Any = None) -> dict[str, DType]:
        """The dtype of numbers of each kind."""
        floating = dtypes.get_default_dtype()
        return {"real floating": floating, "complex floating": floating.to_complex(),
                "integral": int64, "indexing": int64}  # fmt: skip

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, DType]:
        """The dtypes by name, of one kind, of several, or all."""
        if kind is None:
            kind = ("bool", "numeric")
        kinds = kind if isinstance(kind, tuple) else (kind,)
        return {d.name: d for one in kinds for d in _KINDS[one]}


def __array_namespace_info__() -> Info:
    """Devices, dtypes and capabilities."""
    return Info()


__all__ = [
    "__array_namespace_info__", "arange", "asarray", "astype", "bool", "can_cast", "complex128",
    "complex64", "e", "empty", "empty_like", "eye", "finfo", "float32", "float64", "from_dlpack",
    "full", "full_like", "iinfo", "inf", "int16", "int32", "int64", "int8", "linspace", "meshgrid",
    "nan", "newaxis", "ones", "ones_like", "pi", "result_type", "tril", "triu", "uint16", "uint32",
    "uint64", "uint8", "zeros", "zeros_like",
]  # fmt: skip
