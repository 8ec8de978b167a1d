"""PyTorch's checkpoints, the zip files of today and the pickles of before 1.6, as data.

What they hold is read by ``pickle_machine``, which builds tensors and plain containers and nothing
else; whatever asks for more is refused, and nothing of it is run.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any

from treadle.io.locations import Locate, locator
from treadle.io.pickle_machine import Budget, Machine, Maker, Refusal
from treadle.io.pickle_names import plain_names, plain_setters, sizes
from treadle.io.plain import check_plain
from treadle.io.source import CheckpointError, Source
from treadle.io.torch_tensors import Array, Storage, StorageType, Tensors
from treadle.io.zip_directory import parts_of
from treadle.ir.node import located

ZIP = b"PK\3\4"
PICKLE = b"\x80"
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


def load_torch(source: Source, map_location: Any, encoding: str) -> Any:
    """The value of a PyTorch checkpoint; CheckpointError says what was refused."""
    locate = locator(map_location)
    try:
        if source.read(0, 4) == ZIP:
            return _load_zip(source, locate, encoding)
        return _load_legacy(source, locate, encoding)
    except Refusal as error:
        raise located(CheckpointError(
            f"{source.name} was refused: {error}. Nothing in it was run. Save a state_dict() in "
            f"place of whole objects, or get the file again; where PyTorch is, "
            f"safetensors.torch.save_file writes what any reader takes"
        )) from None  # fmt: skip


class _Reader:
    """What both layouts share: the machine with its names, and the storages by key."""

    def __init__(self, size: int, locate: Locate, encoding: str, itself: Any) -> None:
        self.budget = Budget(size)
        self.tensors = Tensors(self.budget)
        self.locate = locate
        names = plain_names(self.budget.charge) | self.tensors.names()
        setters = plain_setters(self.budget.charge)
        self.machine = Machine(names, setters, itself, self.budget, encoding)

    def storage(self, said: Any) -> Storage:
        """The storage that a persistent id names: a tag, its type, key, location and size."""
        tag = said[0] if type(said) is tuple and said else said
        if type(tag) is not str or tag != "storage" or len(said) < 5:
            raise Refusal(f"it refers to a {tag!r:.40} outside the pickle; expected a 'storage'")
        _, kind, key, location, count = said[:5]
        if type(kind) is not StorageType:
            name = kind.name if isinstance(kind, Maker) else type(kind).__name__
            raise Refusal(f"it refers to a storage of type {name}")
        (count,) = sizes((count,), "the size of a storage")
        if type(key) is not str or type(location) is not str or len(location) > 64:
            raise Refusal("it refers to a storage by something else than short texts")
        storage = Storage(kind, key, count)
        self.locate(storage, location)
        return storage

    def finish(self, value: Any, read: Callable[[Storage, Array], None]) -> Any:
        """The value with its tensors filled, if it is all plain."""
        self.tensors.fill(check_plain(value), read)
        return value


# --- zip files ------------------------------------------------------------------------------------


def _load_zip(source: Source, locate: Locate, encoding: str) -> Any:
    parts = parts_of(source)
    roots = [m[1] for name in parts if (m := re.fullmatch(r"([^/]+)/data\.pkl", name))]
    if len(roots) != 1:
        raise Refusal("it is a zip file, but none of PyTorch's: data.pkl is not in it, once")
    root = roots[0]
    if f"{root}/constants.pkl" in parts or any(name.startswith(f"{root}/code/") for name in parts):
        raise Refusal("it is a TorchScript archive, which holds code")
    order = source.read(*parts[f"{root}/byteorder"]) if f"{root}/byteorder" in parts else b"little"
    if order not in (b"little", b"big"):
        raise Refusal(f"its byte order is {order!r:.40}")

    def named(said: Any) -> Storage:
        storage = reader.storage(said)
        part = parts.get(f"{root}/data/{storage.key}")
        expected = storage.count * storage.kind.itemsize
        if part is None:
            raise Refusal(f"it refers to the storage {storage.key!r:.40}, which the file has not")
        if part[1] != expected:
            raise Refusal(
                f"the storage {storage.key!r:.40} of {storage.count:,} elements has {part[1]:,} "
                f"bytes; expected {expected:,}"
            )
        return storage

    def read(storage: Storage, target: Array) -> None:
        offset = parts[f"{root}/data/{storage.key}"][0]
        _read_into(source, offset, target, storage.kind, order == b"little")

    reader = _Reader(source.size, locate, encoding, named)
    data = source.read(*parts[f"{root}/data.pkl"])
    return reader.finish(reader.machine.run(data)[0], read)


def _read_into(source: Source, offset: int, target: Array, kind: StorageType, little: bool) -> None:
    if source.read_into(offset, target) != len(target):
        raise Refusal("it became shorter while it was read")
    if not little:
        is_complex = kind.dtype is not None and kind.dtype.is_complex
        target.view(f"u{kind.itemsize // (2 if is_complex else 1)}").byteswap(inplace=True)


# --- before 1.6 -----------------------------------------------------------------------------------


def _load_legacy(source: Source, locate: Locate, encoding: str) -> Any:
    """Five pickles (a magic number, the version, the system, the value, the keys), then storages.

    A storage is its number of elements in 8 bytes, and the elements, in the order of the keys.
    """
    data = source.read(0, source.size)
    whole: dict[str, Storage] = {}

    def named(said: Any) -> Storage:
        storage = reader.storage(said)
        first = whole.setdefault(storage.key, storage)
        if (first.kind, first.count) != (storage.kind, storage.count):
            raise Refusal(f"it refers to the storage {storage.key!r:.40} in two ways")
        return _part(storage, said[5]) if len(said) > 5 and said[5] is not None else storage

    reader = _Reader(source.size, locate, encoding, named)
    run = reader.machine.run
    magic, position = run(data)
    if type(magic) is not int or magic != _MAGIC:
        raise Refusal("it is a pickle, but none of PyTorch's: the magic number is not there")
    version, position = run(data, position)
    system, position = run(data, position)
    if type(version) is not int or version != _PROTOCOL or type(system) is not dict:
        raise Refusal(f"it is of version {version!r:.40}; expected {_PROTOCOL}")
    value, position = run(data, position)
    keys, position = run(data, position)
    if type(keys) is not list or any(type(key) is not str for key in keys):
        raise Refusal("the list of its storages is damaged")
    places = _places(data, position, keys, whole)

    def read(storage: Storage, target: Array) -> None:
        offset = places[storage.key] + storage.start * storage.kind.itemsize
        _read_into(source, offset, target, storage.kind, system.get("little_endian", True) is True)

    return reader.finish(value, read)


def _part(storage: Storage, said: Any) -> Storage:
    """A stretch of a storage: its own key, where it begins, its size."""
    if type(said) is not tuple or len(said) != 3:
        raise Refusal("it refers to a part of a storage in another way than PyTorch does")
    start, count = sizes(said[1:], "a part of a storage")
    if start + count > storage.count:
        raise Refusal(f"a part of the storage {storage.key!r:.40} reaches outside it")
    return Storage(storage.kind, storage.key, count, start)


def _places(
    data: bytes, position: int, keys: list[str], whole: dict[str, Storage]
) -> dict[str, int]:
    """Where each storage's elements begin."""
    if len(keys) != len(whole) or set(keys) != set(whole):
        raise Refusal("the list of its storages is not the one that its tensors refer to")
    places = {}
    for key in keys:
        storage = whole[key]
        head = data[position : position + 8]
        count = struct.unpack("<q", head)[0] if len(head) == 8 else None
        end = position + 8 + storage.count * storage.kind.itemsize
        if count != storage.count or end > len(data):
            raise Refusal(
                f"the storage {key!r:.40} of {storage.count:,} elements has another size in the "
                f"file, or the file ends early"
            )
        places[key] = position + 8
        position = end
    return places
