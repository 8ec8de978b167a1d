"""Checkpoints: nested dicts and lists of tensors and plain values, in one safetensors file.

The tensors are stored under names such as ``model.fc.weight``, so that any reader of the format
finds them. How they are nested, and all other values, is a JSON text under ``treadle.structure`` in
the metadata: numbers, texts, bools, None and lists stand for themselves; everything else is an
object with one name, the kind.
"""

from __future__ import annotations

import json
import math
import os
from collections import OrderedDict
from typing import Any

import numpy as np

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.io import safetensors
from treadle.io.safetensors import SafetensorsError
from treadle.ir.node import located
from treadle.tensor.tensor import Device, Size, Tensor, check_device

STRUCTURE = "treadle.structure"
MAX_DEPTH = 100
_PLAIN = (bool, int, str, type(None))


def save(obj: Any, f: Any) -> None:
    """Saves dicts, lists and tuples of tensors and plain values.

    Plain values are None, bools, numbers, texts, dtypes, devices and NumPy arrays. A tensor that
    occurs twice is saved once and is one tensor again when loaded; of gradients only
    ``requires_grad`` is kept. An existing file is replaced as a whole (see ``save_file``).

    Args:
        obj: what to save, such as ``{"model": model.state_dict(), "epoch": 3}``.
        f: a path, or a file opened for writing bytes.

    Raises TypeError for values of other types, saying where they are.

    >>> import io, treadle
    >>> file = io.BytesIO()
    >>> save({"weights": [treadle.ones(2)], "epoch": 3}, file)
    >>> _ = file.seek(0)
    >>> load(file)
    {'weights': [tensor([1., 1.])], 'epoch': 3}
    """
    packer = _Packer()
    structure = json.dumps(packer.pack(obj, ()))
    metadata = {STRUCTURE: structure}
    if hasattr(f, "write"):
        f.write(safetensors.save_bytes(packer.tensors, metadata))
    else:
        safetensors.save_file(packer.tensors, f, metadata)


def load(f: Any, map_location: Any = None, *, weights_only: bool = True) -> Any:
    """What ``save`` saved, or the dict of tensors of any safetensors file.

    No code is ever run by loading, so ``weights_only=False`` is refused.

    Args:
        f: a path, or a file opened for reading bytes.
        map_location: the device to load to.
    """
    if not weights_only:
        raise located(ValueError(
            "load: got weights_only=False; Treadle's files hold data only; leave it out"
        ))  # fmt: skip
    if map_location is not None:
        check_device(map_location)
    if hasattr(f, "read"):
        source = str(getattr(f, "name", "the file"))
        tensors, metadata = safetensors.read_bytes(f.read(), source)
    else:
        source = os.fspath(f)
        tensors, metadata = safetensors.read_path(f)
    text = metadata.get(STRUCTURE)
    if text is None:
        return tensors
    try:
        return _Unpacker(tensors).unpack(json.loads(text))
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise located(SafetensorsError(
            f"{source}: the text {STRUCTURE!r} of its metadata is damaged: {error}; get or write "
            f"the file again"
        )) from None  # fmt: skip


class _Packer:
    """Values to JSON; collects the tensors by name."""

    def __init__(self) -> None:
        self.tensors: dict[str, Any] = {}
        self._names: dict[int, str] = {}

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
            leaf = value.requires_grad and value.is_leaf
            return {"parameter" if leaf else "tensor": self._named(value, path)}
        if kind is np.ndarray:
            return {"array": self._named(value, path)}
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
            f"save: {_place(path)} is a {kind.__name__}; it takes tensors, None, bools, ints, "
            f"floats, texts, NumPy arrays, dtypes, devices, and dicts, lists and tuples of these; "
            f"convert it, for example with .item() or .state_dict()"
        ))  # fmt: skip

    def _items(self, values: Any, path: tuple[Any, ...]) -> list[Any]:
        return [self.pack(x, (*path, i)) for i, x in enumerate(values)]

    def _key(self, key: Any, path: tuple[Any, ...]) -> Any:
        if type(key) in _PLAIN or type(key) in (float, tuple):
            return self.pack(key, (*path, "key"))
        raise located(TypeError(
            f"save: {_place(path)} has the key {key!r}; keys are texts, numbers, bools, None and "
            f"tuples of these"
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
        self._names[id(value)] = name
        return name


class _Unpacker:
    """JSON to values."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def unpack(self, said: Any) -> Any:
        if isinstance(said, list):
            return [self.unpack(x) for x in said]
        if not isinstance(said, dict):
            return said
        ((kind, content),) = said.items()
        match kind:
            case "tensor":
                return self.tensors[content]
            case "parameter":
                return self.tensors[content].requires_grad_()
            case "array":
                return self.tensors[content].numpy(copy=True)
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


def _place(path: tuple[Any, ...]) -> str:
    """``obj['model'][0]``."""
    return "obj" + "".join(f"[{key!r}]" for key in path)
