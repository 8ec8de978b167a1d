"""Tensors from data and from nothing."""

from __future__ import annotations

import functools
import math
import reprlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import DeviceError, ShapeError
from treadle.base.lazy_numpy import np
from treadle.base.shapes import Shape, as_shape
from treadle.ir.node import Node, located
from treadle.ops import elementwise as e
from treadle.ops.movement import expand
from treadle.ops.source import iota, number
from treadle.tensor.handle import Handle, wrap
from treadle.tensor.storage import node_from_array
from treadle.tensor.tensor import Tensor, check_device

F = TypeVar("F", bound=Callable[..., Any])
_OURS = {ValueError, TypeError, OverflowError, ShapeError, DeviceError}


def _checked(function: F) -> F:
    """Errors of what ``function`` was given name it, and the user's line."""

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if type(error) not in _OURS or hasattr(error, "site"):
                raise
            raise located(type(error)(f"{function.__name__}: {error}")) from None

    return checked  # type: ignore[return-value]


def _finish(node: Node, requires_grad: bool, device: Any = None) -> Tensor:
    if device is not None:
        check_device(device)
    made = wrap(node)
    return made.requires_grad_() if requires_grad else made


def _array_from(data: Any) -> np.ndarray[Any, Any]:
    """Data as an array."""
    if isinstance(data, (np.ndarray, np.generic)):
        return np.asarray(data)
    if isinstance(data, (list, tuple)) and data and isinstance(data[0], Handle):
        data = [np.asarray(x.detach()) if isinstance(x, Tensor) else x for x in data]
        return np.asarray(data)
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise ValueError(
            f"got nested sequences of unequal lengths ({error}); pad them to one length"
        ) from None
    if array.dtype.kind in "OUSV":  # NumPy's ways to hold what is no number
        raise TypeError(
            f"got {reprlib.repr(data)}, not all of which are numbers that a dtype can hold; it "
            f"takes numbers, bools, arrays, and nested sequences of them"
        )
    return array


def _check_range(array: np.ndarray[Any, Any], target: DType) -> None:
    """Refuses whole numbers that an integer dtype cannot hold."""
    if target.kind not in "iu" or array.dtype.kind not in "iu" or not array.size:
        return
    limits = np.iinfo(target.numpy)
    low, high = int(array.min()), int(array.max())
    if low < limits.min or high > limits.max:
        raise OverflowError(
            f"the number {low if low < limits.min else high} does not fit {target.name} "
            f"({limits.min} to {limits.max}); use a wider dtype"
        )


@_checked
def tensor(
    data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A tensor with a copy of ``data``: a number, nested sequences, a NumPy array.

    >>> tensor([[1, 2], [3, 4]]).dtype
    treadle.int64
    """
    target = None if dtype is None else dtypes.as_dtype(dtype)
    if isinstance(data, Tensor):
        node = data.detach().clone().node
        if target is not None:
            node = e.convert(node, dtype=target)
        return _finish(node, requires_grad, device)
    array = _array_from(data)
    if not isinstance(data, (np.ndarray, np.generic)):
        if target is dtypes.uint64 and array.dtype.kind == "f":  # from beyond int64, mixed
            array = np.asarray(data, object)
        if target is not None:
            _check_range(array, target)
        elif array.dtype == np.float64:  # Python's floats; rounded once, to the dtype they get
            target = dtypes.get_default_dtype()
        elif array.dtype == np.complex128:
            target = dtypes.get_default_dtype().to_complex()
    return _finish(node_from_array(array, target), requires_grad, device)


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """``data`` itself where it is a tensor of that dtype, else a new tensor."""
    if isinstance(data, Tensor):
        return data.to(dtype=dtype, device=device)
    return tensor(data, dtype=dtype, device=device)


def asarray(data: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """``as_tensor`` under the array API's name."""
    return as_tensor(data, dtype, device)


def from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor with a copy of the array: later changes of the array do not show."""
    if not isinstance(array, np.ndarray):
        raise located(TypeError(
            f"from_numpy: got a {type(array).__name__}; it takes a NumPy array; use tensor(data)"
        ))  # fmt: skip
    return tensor(array)


def _filled(
    shape: Shape, value: Any, dtype: Any, requires_grad: bool, device: Any = None
) -> Tensor:
    target = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    # The conversion gives the tensor memory of its own: what is made to be computed with should be
    # read at full speed.
    filled = e.convert(expand(number(value, target), shape=shape), dtype=target)
    return _finish(filled, requires_grad, device)


@_checked
def full(
    size: Sequence[int], fill_value: Any, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """A tensor with all elements ``fill_value``, whose type gives the dtype unless named."""
    value = fill_value.item() if isinstance(fill_value, Handle) else fill_value  # type: ignore[attr-defined]
    if not isinstance(value, (bool, int, float, complex, np.number, np.bool_)):
        raise TypeError(f"got the value {value!r}; it must be a number")
    if dtype is None:
        dtype = dtypes.as_dtype(type(value)) if isinstance(value, (bool, int, complex)) else None
    return _filled(as_shape(size), value, dtype, requires_grad, device)


@_checked
def zeros(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros of a shape: ``zeros(2, 3)`` or ``zeros((2, 3))``."""
    return _filled(as_shape(size), 0, dtype, requires_grad, device)


@_checked
def ones(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones of a shape."""
    return _filled(as_shape(size), 1, dtype, requires_grad, device)


@_checked
def empty(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros: memory is never shown before it is written."""
    return _filled(as_shape(size), 0, dtype, requires_grad, device)


def _like(input: Tensor, value: Any, dtype: Any, device: Any, requires_grad: bool) -> Tensor:
    return _filled(tuple(input.shape), value, dtype or input.dtype, requires_grad, device)


def zeros_like(
    input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Zeros in the shape and dtype of ``input``."""
    return _like(input, 0, dtype, device, requires_grad)


def ones_like(
    input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Ones in the shape and dtype of ``input``."""
    return _like(input, 1, dtype, device, requires_grad)


def empty_like(
    input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Zeros in the shape and dtype of ``input``."""
    return _like(input, 0, dtype, device, requires_grad)


def full_like(
    input: Tensor, fill_value: Any, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """``fill_value`` in the shape and dtype of ``input``."""
    return _like(input, fill_value, dtype, device, requires_grad)


@_checked
def arange(
    start: Any, end: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """``start + step * i`` for as long as it is before ``end`` (0 to ``start`` if end is None).

    Of integers, ``start`` and ``step`` are cut to whole numbers; as in PyTorch ``end`` is too
    where the dtype is int64, while for the others it is the numbers given that are counted.
    """
    if end is None:
        start, end = 0, start
    start, end, step = (x.item() if isinstance(x, Tensor) else x for x in (start, end, step))
    if not all(map(math.isfinite, (start, end, step))):
        raise ValueError(f"got start {start}, end {end} and step {step}; they must be finite")
    whole = all(isinstance(x, int) for x in (start, end, step))
    target = dtypes.as_dtype(dtype or (int if whole else float))
    if target is dtypes.int64:
        start, end, step, whole = int(start), int(end), int(step), True
    if step == 0 or (end - start) / step < 0:
        raise ValueError(
            f"got start {start}, end {end} and step {step}; the step must lead from start to end "
            f"and not be 0"
        )
    count = -((start - end) // step) if whole else int(np.ceil((end - start) / step))
    if not target.is_inexact:
        start, step, whole = int(start), int(step), True
    if whole and (start, step) == (0, 1):
        return _finish(iota(shape=(count,), axis=0, dtype=target), requires_grad, device)
    values = start + step * np.arange(count, dtype=np.int64 if whole else np.float64)
    return _finish(node_from_array(values, target), requires_grad, device)


@_checked
def linspace(
    start: float, end: float, steps: int, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """``steps`` evenly spaced numbers from ``start`` to ``end``, both included."""
    target = dtypes.as_dtype(dtype or float)
    if steps < 0:
        raise ValueError(f"got {steps} steps; their number must not be negative")
    values = np.linspace(float(start), float(end), int(steps))
    return _finish(node_from_array(values, target), requires_grad, device)


@_checked
def eye(
    n: int, m: int | None = None, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Ones on the diagonal of an n x m matrix, zeros elsewhere."""
    shape = as_shape((n, n if m is None else m))
    rows = iota(shape=shape, axis=0, dtype=dtypes.int64)
    same = e.eq(rows, iota(shape=shape, axis=1, dtype=dtypes.int64))
    return _finish(e.convert(same, dtype=dtypes.as_dtype(dtype or float)), requires_grad, device)


def is_tensor(value: object) -> bool:
    """True for tensors."""
    return isinstance(value, Tensor)


def numel(input: Tensor) -> int:
    """The number of elements."""
    return input.numel()


def _new(name: str) -> Any:
    make = {"zeros": zeros, "ones": ones, "empty": empty}[name]

    def method(self: Tensor, *size: Any, dtype: DType | None = None, **options: Any) -> Tensor:
        return make(*size, dtype=dtype or self.dtype, **options)

    method.__name__ = f"new_{name}"
    method.__doc__ = f"``{name}`` of this shape in the dtype of the tensor."
    return method


def new_full(
    self: Tensor, size: Sequence[int], fill_value: Any, *, dtype: Any = None, **options: Any
) -> Tensor:
    """``full`` of this shape in the dtype of the tensor."""
    return full(size, fill_value, dtype=dtype or self.dtype, **options)


def new_tensor(self: Tensor, data: Any, *, dtype: Any = None, **options: Any) -> Tensor:
    """``tensor(data)`` in the dtype of the tensor."""
    return tensor(data, dtype=dtype or self.dtype, **options)


for _name in ("zeros", "ones", "empty"):
    setattr(Tensor, f"new_{_name}", _new(_name))
Tensor.new_full = new_full  # type: ignore[attr-defined]
Tensor.new_tensor = new_tensor  # type: ignore[attr-defined]
