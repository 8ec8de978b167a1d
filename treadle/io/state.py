"""Checkpoints: nested dicts and lists of tensors and plain values, in one safetensors file.

The tensors are stored under names such as ``model.fc.weight``, so that any reader of the format
finds them. How they are nested, and all other values, is a JSON text under ``treadle.structure`` in
the metadata: numbers, texts, bools, None and lists stand for themselves; everything else is an
object with one name, the kind.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from io import BytesIO
from typing import Any

import numpy as np

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.io import safetensors
from treadle.io.locations import locator
from treadle.io.pickle_machine import Budget, Refusal
from treadle.io.plain import MAX_DEPTH
from treadle.io.safetensors import SafetensorsError
from treadle.io.source import Source, opened
from treadle.ir.node import located
from treadle.tensor.storage import array_of
from treadle.tensor.tensor import Device, Size, Tensor

STRUCTURE = "treadle.structure"
_PLAIN = (bool, int, str, type(None))


def save(obj: Any, f: Any, pickle_module: Any = None, pickle_protocol: Any = None) -> None:
    """Saves dicts, lists, tuples and sets of tensors and plain values, as safetensors.

    Plain values are None, bools, numbers, texts, bytes, dtypes, devices, and NumPy's arrays and
    scalars. A tensor that occurs twice is saved once and is one tensor again when loaded; two
    tensors that show the same memory in the same way (tied weights in a ``state_dict``) share it
    again, and other views are saved by themselves. Of gradients only ``requires_grad`` is kept.
    An existing file is replaced as a whole (see ``save_file``).

    Args:
        obj: what to save, such as ``{"model": model.state_dict(), "epoch": 3}``.
        f: a path, or a file opened for writing bytes.
        pickle_module, pickle_protocol: refused, as nothing is pickled.

    Raises TypeError for values of other types, saying where they are.

    >>> import io, treadle
    >>> file = io.BytesIO()
    >>> save({"weights": [treadle.ones(2)], "epoch": 3}, file)
    >>> _ = file.seek(0)
    >>> load(file)
    {'weights': [tensor([1., 1.])], 'epoch': 3}
    """
    _refuse_pickle("save", pickle_module if pickle_module is not None else pickle_protocol)
    packer = _Packer()
    structure = json.dumps(packer.pack(obj, ()))
    metadata = {STRUCTURE: structure}
    if hasattr(f, "write"):
        f.write(safetensors.save_bytes(packer.tensors, metadata))
    else:
        safetensors.save_file(packer.tensors, f, metadata)


def load(
    f: Any,
    map_location: Any = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = None,
    mmap: bool | None = None,
    encoding: str = "utf-8",
) -> Any:
    """What ``save`` saved, the tensors of a safetensors file, or what ``torch.save`` saved.

    PyTorch's files, zip and legacy, are read by a reader that can build tensors, parameters and
    plain containers and nothing else. It raises CheckpointError, saying what it refused, for
    whatever asks for more. So no file that is loaded can run code.

    Args:
        f: a path, or a file opened for reading bytes.
        map_location: the device to load to, as in PyTorch: a device, a dict from saved devices to
            devices, or a function of a storage and a device.
        pickle_module: refused, as nothing is unpickled.
        weights_only, mmap: taken for PyTorch's sake, and without effect: all that is ever loaded
            is data, and large files are read part by part.
        encoding: of strings that Python 2 pickled.
    """
    _refuse_pickle("load", pickle_module)
    locator(map_location)  # a device that is not there is told before anything is read
    with opened(f) as source:
        first = source.read(0, 8)
        if safetensors.is_pytorch(first, source.size):
            from treadle.io.torch_file import load_torch

            return load_torch(source, map_location, encoding)
        if source.stream is f or isinstance(source.stream, BytesIO):
            tensors, metadata = safetensors.read_bytes(source.read(0, source.size), source.name)
        else:
            tensors, metadata = safetensors.read_path(f)
        text = metadata.get(STRUCTURE)
        return tensors if text is None else _unpacked(text, tensors, source)


def _unpacked(text: str, tensors: dict[str, Tensor], source: Source) -> Any:
    budget = Budget(source.size)
    try:
        budget.charge(64 * text.count("[") + 240 * text.count("{") + 40 * text.count(","))
        return _Unpacker(tensors, budget).unpack(json.loads(text))
    except (ValueError, TypeError, KeyError, RuntimeError, Refusal) as error:
        raise located(SafetensorsError(
            f"{source.name}: the text {STRUCTURE!r} of its metadata is damaged: {error}; get or "
            f"write the file again"
        )) from None  # fmt: skip


def _refuse_pickle(name: str, argument: Any) -> None:
    if argument is not None:
        raise located(ValueError(
            f"{name}: got {argument!r} for a pickle module or protocol; Treadle's files hold no "
            f"pickles; leave it out"
        ))  # fmt: skip


class _Packer:
    """Values to JSON; collects the tensors by name."""

    def __init__(self) -> None:
        self.tensors: dict[str, Any] = {}
        self._names: dict[int, str] = {}
        self._shown: dict[tuple[Any, ...], str] = {}  # which tensor shows that memory
        self._kept: list[Any] = []  # what was made here, whose identity must stay its own

    def pack(self, value: Any, path: tuple[Any, ...]) -> Any:
        if len(path) > MAX_DEPTH:
            raise located(ValueError(
                f"save: {_place(path[:5])}... is nested deeper than {MAX_DEPTH} levels, or "
                f"contains itself; flatten it"
            ))  # fmt: skip
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is float:
            return value if math.isfinite(value) else {"float": str(value)}
        if isinstance(value, Tensor):
            return self._pack_tensor(value, path)
        if kind is np.ndarray:
            return {"array": self._named(value, path)}
        if isinstance(value, np.generic):
            return {"scalar": self._named(np.asarray(value), path)}
        if kind is bytes:
            return {"bytes": value.decode("latin-1")}
        if kind is complex:
            return {"complex": [self.pack(value.real, path), self.pack(value.imag, path)]}
        if kind in (set, frozenset):
            return {kind.__name__: [self._key(x, path) for x in value]}
        if kind is list:
            return self._items(value, path)
        if kind in (tuple, Size):
            return {"tuple": self._items(value, path)}
        if kind in (dict, OrderedDict):
            name = "dict" if kind is dict else "ordered_dict"
            pairs = [[self._key(k, path), self.pack(x, (*path, k))] for k, x in value.items()]
            return {name: pairs}
        if kind is DType:
            return {"dtype": value.name}
        if kind is Device:
            return {"device": str(value)}
        raise located(TypeError(
            f"save: {_place(path)} is a {kind.__name__}; it takes tensors, None, bools, numbers, "
            f"texts, bytes, NumPy arrays, dtypes, devices, and dicts, lists, tuples and sets of "
            f"these; convert it, for example with .state_dict() or vars()"
        ))  # fmt: skip

    def _pack_tensor(self, value: Tensor, path: tuple[Any, ...]) -> Any:
        if not value.requires_grad and id(value) not in self._names:
            known = self._shown.get(_window(value))
            if known is not None:
                return {"alias": known}
        kind = "leaf" if value.requires_grad and value.is_leaf else "tensor"
        if type(value).__name__ == "Parameter":
            kind = "parameter" if value.requires_grad else "frozen"
        name = self._named(value, path)
        self._shown.setdefault(_window(value), name)
        return {kind: name}

    def _items(self, values: Any, path: tuple[Any, ...]) -> list[Any]:
        return [self.pack(x, (*path, i)) for i, x in enumerate(values)]

    def _key(self, key: Any, path: tuple[Any, ...]) -> Any:
        if type(key) in (*_PLAIN, float, tuple, bytes):
            return self.pack(key, (*path, "key"))
        raise located(TypeError(
            f"save: {_place(path)} has the key {key!r}; keys are texts, bytes, numbers, bools, "
            f"None and tuples of these"
        ))  # fmt: skip

    def _named(self, value: Any, path: tuple[Any, ...]) -> str:
        """The name under which the value is stored, the same for the same object."""
        known = self._names.get(id(value))
        if known is not None:
            return known
        wanted = ".".join(map(str, path)) or "tensor"
        name, count = wanted, 1
        while name in self.tensors or name == "__metadata__":
            count += 1
            name = f"{wanted}#{count}"
        self.tensors[name] = value
        self._kept.append(value)
        self._names[id(value)] = name
        return name


class _Unpacker:
    """JSON to values."""

    def __init__(self, tensors: dict[str, Tensor], budget: Budget) -> None:
        self.tensors = tensors
        self.budget = budget

    def unpack(self, said: Any) -> Any:
        if isinstance(said, list):
            return [self.unpack(x) for x in said]
        if not isinstance(said, dict):
            return said
        ((kind, content),) = said.items()
        match kind:
            case "tensor":
                return self.tensors[content]
            case "alias":
                return self.tensors[content].detach()
            case "leaf":
                return self.tensors[content].requires_grad_()
            case "parameter" | "frozen":
                return self._parameter(content, kind == "parameter")
            case "array":
                self.budget.charge(self.tensors[content].nbytes)
                return self.tensors[content].numpy(copy=True)
            case "scalar":
                return self.tensors[content].numpy()[()]
            case "bytes":
                return content.encode("latin-1")
            case "complex":
                real, imaginary = map(self.unpack, content)
                return complex(real, imaginary)
            case "set":
                return set(map(self.unpack, content))
            case "frozenset":
                return frozenset(map(self.unpack, content))
            case "tuple":
                return tuple(map(self.unpack, content))
            case "dict":
                return {self.unpack(k): self.unpack(x) for k, x in content}
            case "ordered_dict":
                return OrderedDict((self.unpack(k), self.unpack(x)) for k, x in content)
            case "float":
                return float(content)
            case "dtype":
                return dtypes.as_dtype(content)
            case "device":
                return Device(content)
        raise ValueError(f"there is no kind {kind!r}")

    def _parameter(self, name: str, requires_grad: bool) -> Tensor:
        """The parameter of that name, the same one each time."""
        from treadle.nn.parameter import Parameter

        found = self.tensors[name]
        if type(found) is not Parameter:
            found = self.tensors[name] = Parameter(found, requires_grad)
        return found


def _window(value: Tensor) -> tuple[Any, ...]:
    """Equal for tensors that show the same memory in the same way and see each other's writes."""
    root: Any = value
    while root._base is not None:
        root = root._base
    array = array_of(value.node)
    return (id(root), array.ctypes.data, array.shape, array.strides, value.dtype)


def _place(path: tuple[Any, ...]) -> str:
    """``obj['model'][0]``."""
    return "obj" + "".join(f"[{key!r}]" for key in path)
