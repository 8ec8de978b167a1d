"""Tensors to and from other libraries: DLPack and NumPy's protocols; shallow copies.

What leaves is a read-only view of the tensor's memory, which stays untouched for as long as the
receiver holds it. What comes in is copied, so that an operation uses the value of the moment it was
written.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from treadle.base import dtypes
from treadle.base.errors import DeviceError, GradientError
from treadle.base.lazy_numpy import np
from treadle.ir.node import Leaf, located
from treadle.ops.movement import detach
from treadle.tensor.handle import Handle, make_leaf, view_of, wrap
from treadle.tensor.storage import array_of, node_from_array

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor

Array: TypeAlias = "np.ndarray[Any, Any]"

CPU = (1, 0)  # kDLCPU, device 0
_READABLE = {1, 3, 11, 13}  # the CPU, and host memory of CUDA, ROCm and CUDA managed
_READABLE_NAMES = "memory that the CPU can read"
_BFLOAT, _UNSIGNED = 4, 1  # DLDataTypeCode


class Methods(Handle):
    """``__dlpack__``, what NumPy asks of operands, and ``copy.copy``."""

    __slots__ = ()

    # NumPy's operators leave `array + tensor` to the tensor.
    __array_priority__ = 1000

    def __array_wrap__(
        self, array: Array, context: Any = None, return_scalar: bool = False
    ) -> Tensor:
        """The result of a NumPy function of tensors, as a tensor (``np.sin(x)``)."""
        return wrap(node_from_array(array))

    def __dlpack_device__(self) -> tuple[int, int]:
        """Where the elements are, in DLPack's numbers."""
        return CPU

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule of the value: its memory, marked as read-only, or a copy.

        A copy is made if asked for, if the receiver's version of DLPack (before 1.0) has no mark
        for read-only memory, and for negative strides, which few receivers take. Raises BufferError
        where that contradicts ``copy=False``, for a tensor that requires a gradient, and for a
        device or stream that is not the CPU's.
        """
        if self.node.needs_grad:
            raise located(BufferError(
                "__dlpack__: got a tensor that requires a gradient, which would be lost; export "
                "x.detach()"
            ))  # fmt: skip
        if stream is not None:
            raise located(BufferError(
                f"__dlpack__: got stream={stream!r}; the CPU has no streams; leave it out"
            ))  # fmt: skip
        if dl_device is not None and tuple(map(int, dl_device)) != CPU:
            raise located(BufferError(
                f"__dlpack__: got dl_device={tuple(dl_device)}; the tensor is on the CPU, {CPU}"
            ))  # fmt: skip
        array = array_of(self.node)
        versioned = max_version is not None and max_version >= (1, 0)
        must_copy = not versioned or any(s < 0 for s in array.strides)
        if must_copy and copy is False:
            raise located(BufferError(
                "__dlpack__: got copy=False, but the memory is read-only, which only max_version "
                "1.0 or newer can express, and its strides must not be negative; leave copy out"
            ))  # fmt: skip
        if must_copy or copy:
            array = array.copy(order="C")
        return _capsule(array, (1, 0) if versioned else None)

    def __copy__(self) -> Self:
        """A tensor that shares this one's memory, as ``copy.copy`` of PyTorch's does."""
        node = self.node
        if node.needs_grad and not isinstance(node, Leaf):
            raise located(GradientError(
                "copy: got a tensor that was computed from others and requires a gradient; copy it "
                "with .clone() or .detach().clone()"
            ))  # fmt: skip
        view = view_of(self, detach)
        copied = object.__new__(type(self))
        for name in ("_node", "_base", "_chain", "_version", "_grad"):
            setattr(copied, name, getattr(view, name))
        copied.__dict__.update(self.__dict__)
        if node.needs_grad:
            copied._node = make_leaf(copied._node, copied)
        return copied


# --- DLPack ---------------------------------------------------------------------------------------


class _DLTensor(ctypes.Structure):
    """``DLTensor`` of dlpack.h."""

    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16), ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    ]  # fmt: skip


class _Versioned(ctypes.Structure):
    """``DLManagedTensorVersioned``; the unversioned struct begins with its ``DLTensor``."""

    _fields_ = [
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("manager_ctx", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p), ("flags", ctypes.c_uint64), ("dl_tensor", _DLTensor),
    ]  # fmt: skip


_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.argtypes = [ctypes.py_object, ctypes.c_char_p]
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_pointer.restype = ctypes.c_void_p


def _struct(capsule: Any) -> _DLTensor:
    """The ``DLTensor`` inside a capsule that nobody has consumed yet."""
    if _is_valid(capsule, b"dltensor_versioned"):
        address = _pointer(capsule, b"dltensor_versioned")
        return _Versioned.from_address(address).dl_tensor
    if _is_valid(capsule, b"dltensor"):
        return _DLTensor.from_address(_pointer(capsule, b"dltensor"))
    raise located(TypeError(
        f"from_dlpack: got a {type(capsule).__name__}, which is no DLPack capsule or one already "
        f"used; pass the array or tensor itself"
    ))  # fmt: skip


def _capsule(array: Array, version: tuple[int, int] | None) -> Any:
    """NumPy's capsule; bfloat16 travels as 16 bits whose type is put right afterwards."""
    is_bfloat = array.dtype == dtypes.bfloat16.numpy
    exported = array.view(np.uint16) if is_bfloat else array
    capsule = exported.__dlpack__(max_version=version)
    if is_bfloat:
        _struct(capsule).code = _BFLOAT
    return capsule


class _Export:
    """A capsule in the clothes in which NumPy takes it."""

    def __init__(self, capsule: Any) -> None:
        self.capsule = capsule

    def __dlpack__(self, **options: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU


def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor with a copy of another library's array, through DLPack.

    ``ext_tensor`` has ``__dlpack__`` and ``__dlpack_device__`` (an array of NumPy, PyTorch, JAX,
    CuPy ...) or is a capsule. Its memory must be the CPU's. The value is always copied, so
    ``copy=False`` is refused.

    >>> import numpy as np
    >>> from_dlpack(np.arange(3))
    tensor([0, 1, 2])
    """
    from treadle.tensor.tensor import check_device

    if device is not None:
        check_device(device)
    if copy is False:
        raise located(ValueError(
            "from_dlpack: got copy=False; memory of other libraries is always copied, so that "
            "later changes to it do not show; leave copy out"
        ))  # fmt: skip
    capsule = _received(ext_tensor)
    described = _struct(capsule)
    if described.device_type not in _READABLE:
        raise _elsewhere(described.device_type, described.device_id)
    is_bfloat = (described.code, described.bits) == (_BFLOAT, 16)
    if is_bfloat:
        described.code = _UNSIGNED
    array = np.from_dlpack(_Export(capsule))
    if is_bfloat:
        array = array.view(dtypes.bfloat16.numpy)
    try:
        return wrap(node_from_array(array))
    except TypeError as error:
        raise located(TypeError(f"from_dlpack: {error}")) from None


def _received(source: Any) -> Any:
    """The capsule that ``source`` is or gives."""
    if type(source).__name__ == "PyCapsule":
        return source
    if not hasattr(source, "__dlpack__") or not hasattr(source, "__dlpack_device__"):
        raise located(TypeError(
            f"from_dlpack: got a {type(source).__name__}, which has no __dlpack__; use "
            f"treadle.tensor(data) for sequences and numbers"
        ))  # fmt: skip
    kind, index = source.__dlpack_device__()
    if int(kind) not in _READABLE:
        raise _elsewhere(int(kind), int(index))
    try:
        return source.__dlpack__(max_version=(1, 0))
    except TypeError:  # a library older than DLPack 1.0
        return source.__dlpack__()


def _elsewhere(kind: int, index: int) -> Exception:
    return located(DeviceError(
        f"from_dlpack: got memory of DLPack device ({kind}, {index}), expected "
        f"{_READABLE_NAMES}; copy it to the CPU in the library it comes from"
    ))  # fmt: skip


__all__ = ["from_dlpack"]
