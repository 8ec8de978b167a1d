"""The tensors of a PyTorch checkpoint: what its pickle says of them, and then their values.

A pickle names storages (runs of numbers elsewhere in the file) and describes tensors as windows on
them. While it is read, every tensor is an empty handle with a note of its window; when all of it
is known to be sound, the values are read, each storage once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from math import prod
from typing import Any

import numpy as np

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.record import Record
from treadle.compiler.device import get_device
from treadle.io.pickle_machine import Budget, Maker, Refusal
from treadle.io.pickle_names import TypeName, sizes
from treadle.ir.node import Node
from treadle.nn.parameter import Parameter
from treadle.tensor.creation import empty
from treadle.tensor.handle import wrap
from treadle.tensor.storage import node_from_array, node_from_memory
from treadle.tensor.tensor import Tensor

Array = np.ndarray[Any, Any]
_MOST = 1 << 47  # elements that an address space could hold
_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16",
    "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8",
    "Bool": "bool", "ComplexDouble": "complex128", "ComplexFloat": "complex64",
}  # fmt: skip
_KNOWN = {d.name: d for d in (*dtypes.ALL, *dtypes.COMPLEX)}
_PARAMETER = "torch.nn.parameter.Parameter"


class StorageType:
    """``torch.FloatStorage`` and its like: the dtype of a storage, None for bytes of any."""

    def __init__(self, name: str, dtype: DType | None) -> None:
        self.name = name
        self.dtype = dtype

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize if self.dtype else 1


class Storage:
    """Numbers in the file: ``count`` of ``kind``, from element ``start`` of what ``key`` names."""

    def __init__(self, kind: StorageType, key: str, count: int, start: int = 0) -> None:
        self.kind = kind
        self.key = key
        self.count = count
        self.start = start


class Window(Record):
    """A tensor's elements: ``offset + sum(index * stride)`` of a storage, in elements of dtype."""

    storage: Storage
    dtype: DType
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    requires_grad: bool

    @property
    def place(self) -> tuple[Any, ...]:
        """Equal for windows on the same elements."""
        start = self.storage.start * self.storage.kind.itemsize
        return (self.storage.key, start, self.offset, self.dtype, self.shape, self.strides)

    @property
    def nbytes(self) -> int:
        """The bytes of all its elements."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def is_whole(self) -> bool:
        """Whether it shows exactly its storage, row-major."""
        step, steps = 1, []
        for n in reversed(self.shape):
            steps.append(step if n > 1 else 0)
            step *= n
        held = self.storage.count * self.storage.kind.itemsize
        return self.offset == 0 and self.nbytes == held and self.strides == tuple(steps[::-1])


class Tensors:
    """Collects the tensors of one checkpoint, and fills them."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.windows: dict[int, Window] = {}  # by the handle's identity
        self.handles: list[Tensor] = []  # which keeps them alive
        self.dropped: set[str] = set()  # attributes that were left out

    def names(self) -> dict[str, Any]:
        """What PyTorch's own names stand for."""
        functions: dict[str, Callable[..., Any]] = {
            "torch._utils._rebuild_tensor": self._rebuild,
            "torch._utils._rebuild_tensor_v2": self._rebuild_v2,
            "torch._utils._rebuild_tensor_v3": self._rebuild_v3,
            "torch._utils._rebuild_parameter": self._rebuild_parameter,
            "torch._utils._rebuild_parameter_with_state": self._rebuild_parameter,
            "torch._tensor._rebuild_from_type_v2": self._rebuild_from_type,
        }
        names: dict[str, Any] = {name: Maker(name, make) for name, make in functions.items()}
        names |= {name: TypeName(name) for name in ("torch.Tensor", _PARAMETER)}
        for name in ("torch.UntypedStorage", "torch.storage.UntypedStorage"):
            names[name] = StorageType(name, None)
        for short, dtype in _STORAGES.items():
            if dtype in _KNOWN:
                name = f"torch.{short}Storage"
                names[name] = StorageType(name, _KNOWN[dtype])
        return names

    # --- while the pickle is read -----------------------------------------------------------------

    def _rebuild(self, storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
        return self._rebuild_v2(storage, offset, shape, strides, False, None)

    def _rebuild_v2(
        self, storage: Any, offset: Any, shape: Any, strides: Any, requires_grad: Any,
        hooks: Any, metadata: Any = None,
    ) -> Tensor:  # fmt: skip
        if type(storage) is not Storage or storage.kind.dtype is None:
            raise Refusal("it describes a tensor on something that is no storage of numbers")
        dtype = storage.kind.dtype
        return self._described(
            storage, dtype, offset, shape, strides, requires_grad, hooks, metadata
        )

    def _rebuild_v3(
        self, storage: Any, offset: Any, shape: Any, strides: Any, requires_grad: Any,
        hooks: Any, dtype: Any, metadata: Any = None,
    ) -> Tensor:  # fmt: skip
        if type(storage) is not Storage or type(dtype) is not DType:
            raise Refusal("it describes a tensor without a storage or without a dtype")
        return self._described(
            storage, dtype, offset, shape, strides, requires_grad, hooks, metadata
        )

    def _described(
        self, storage: Storage, dtype: DType, offset: Any, shape: Any, strides: Any,
        requires_grad: Any, hooks: Any, metadata: Any,
    ) -> Tensor:  # fmt: skip
        """A handle for a window, once that lies within its storage."""
        flags = metadata.values() if type(metadata) is dict else [metadata]
        if not _is_empty(hooks) or not all(map(_is_empty, flags)):
            raise Refusal("it describes a tensor with hooks or lazy conjugation; data have neither")
        shape = sizes(shape, "the shape of a tensor")
        strides = sizes(strides, "the strides of a tensor")
        (offset,) = sizes((offset,), "the offset of a tensor")
        if len(strides) != len(shape) or prod(max(n, 1) for n in shape) > _MOST:
            raise Refusal(f"it describes a tensor of shape {shape} and strides {strides}")
        if type(requires_grad) is not bool or (requires_grad and not dtype.is_floating_point):
            raise Refusal(f"it asks for the gradient ({requires_grad!r}) of a {dtype.name} tensor")
        strides = tuple(s if n > 1 else 0 for n, s in zip(shape, strides, strict=True))
        held = storage.count * storage.kind.itemsize // dtype.itemsize
        reach = sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        if 0 not in shape and offset + reach >= held:
            raise Refusal(
                f"it describes a tensor of shape {shape} and strides {strides} at {offset}, which "
                f"reaches outside its storage of {held:,} elements"
            )
        return self._handle(wrap(_NOTHING), Window(
            storage=storage, dtype=dtype, offset=offset, shape=shape, strides=strides,
            requires_grad=requires_grad,
        ))  # fmt: skip

    def _handle(self, handle: Tensor, window: Window) -> Tensor:
        self.budget.charge(1000)
        self.windows[id(handle)] = window
        self.handles.append(handle)
        return handle

    def _rebuild_parameter(
        self, data: Any, requires_grad: Any, hooks: Any = None, state: Any = None
    ) -> Tensor:
        window = self.windows.get(id(data))
        if window is None or type(requires_grad) is not bool or not _is_empty(hooks):
            raise Refusal("it describes a parameter without a tensor, or with hooks")
        if requires_grad and not window.dtype.is_floating_point:
            raise Refusal(f"it asks for the gradient of a {window.dtype.name} parameter")
        self._drop(state)
        parameter = Parameter(wrap(_NOTHING), requires_grad=False)
        return self._handle(parameter, window._replace(requires_grad=requires_grad))

    def _rebuild_from_type(self, function: Any, kind: Any, args: Any, state: Any) -> Any:
        """A tensor that had attributes of its own, which are left out."""
        if type(function) is not Maker or type(kind) is not TypeName:
            raise Refusal("it describes a tensor of a class of its own")
        if kind.kind is not None or "_from_type" in function.name:
            raise Refusal(f"it makes a {kind.name} by {function.name}")
        self._drop(state)
        return function(args)

    def _drop(self, state: Any) -> None:
        for part in state if type(state) is tuple else [state]:
            if not _is_empty(part):
                self.dropped.update(map(str, part) if isinstance(part, dict) else ["(unnamed)"])

    # --- when it is sound -------------------------------------------------------------------------

    def fill(self, used: Iterable[Tensor], read: Callable[[Storage, Array], None]) -> None:
        """Reads the values of the tensors in use; ``read`` fills bytes with those of a storage."""
        groups: dict[tuple[str, int, int], list[tuple[Tensor, Window]]] = {}
        shown: dict[Any, Tensor] = {}
        for handle in used:
            window = self.windows[id(handle)]
            first = shown.setdefault(window.place, handle)
            if first is handle:
                self.budget.charge(window.nbytes)
                storage = window.storage
                group = (storage.key, storage.start, storage.count * storage.kind.itemsize)
                if group not in groups:
                    self.budget.charge(group[2])
                groups.setdefault(group, []).append((handle, window))
        for members in groups.values():
            for handle, node in _values(members, read):
                handle._node = node
        for handle in used:
            window = self.windows[id(handle)]
            first = shown[window.place]
            if first is not handle:  # the same elements: an alias, as it was
                _show(handle, first)
        for handle in used:
            handle.requires_grad_(self.windows[id(handle)].requires_grad)
        if self.dropped:
            warnings.warn(
                f"load: the attributes {sorted(self.dropped)} of tensors were left out; Treadle "
                f"reads their values only",
                stacklevel=6,
            )


_NOTHING = empty(0).node


def _is_empty(value: Any) -> bool:
    """Whether it says nothing: None, False, or a container without elements."""
    return value is None or value is False or (isinstance(value, (dict, list, tuple)) and not value)


def _show(handle: Tensor, first: Tensor) -> None:
    view = first.detach()
    for slot in ("_node", "_base", "_chain", "_version"):
        setattr(handle, slot, getattr(view, slot))


def _values(
    group: list[tuple[Tensor, Window]], read: Callable[[Storage, Array], None]
) -> list[tuple[Tensor, Node]]:
    """The nodes of the windows on one storage."""
    storage = group[0][1].storage
    size = storage.count * storage.kind.itemsize
    if len(group) == 1 and group[0][1].is_whole:
        handle, window = group[0]
        memory: Any = get_device("cpu").allocate(size)
        target = memory.array(window.dtype, window.shape)
        read(storage, target.reshape(-1).view(np.uint8))
        _check_bools(target)
        return [(handle, node_from_memory(memory, window.dtype, window.shape))]
    data = np.empty(size, np.uint8)
    read(storage, data)
    found = []
    for handle, window in group:
        numbers = data[: size // window.dtype.itemsize * window.dtype.itemsize]
        array = np.lib.stride_tricks.as_strided(
            numbers.view(window.dtype.numpy)[window.offset :],
            window.shape, [s * window.dtype.itemsize for s in window.strides], writeable=False,
        )  # fmt: skip
        _check_bools(array)
        found.append((handle, node_from_array(array)))
    return found


def _check_bools(array: Array) -> None:
    if array.dtype == np.bool_ and array.size and array.view(np.uint8).max() > 1:
        raise Refusal("the bools of a tensor in it are not all 0 or 1")
