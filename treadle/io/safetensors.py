"""Tensors in files: the safetensors format, which the library of that name reads and writes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

import numpy as np
from safetensors import SafetensorError, deserialize, safe_open
from safetensors import numpy as library

from treadle.base import dtypes
from treadle.io.atomic import Path, replacing
from treadle.io.source import check_is_file
from treadle.ir.node import located
from treadle.tensor.handle import wrap
from treadle.tensor.storage import array_of, node_from_array
from treadle.tensor.tensor import Tensor

_METADATA = "__metadata__"
_DTYPES = {
    "F64": dtypes.float64, "F32": dtypes.float32, "F16": dtypes.float16, "BF16": dtypes.bfloat16,
    "I64": dtypes.int64, "I32": dtypes.int32, "I16": dtypes.int16, "I8": dtypes.int8,
    "U64": dtypes.uint64, "U32": dtypes.uint32, "U16": dtypes.uint16, "U8": dtypes.uint8,
    "BOOL": dtypes.bool_, "C64": dtypes.complex64,
}  # fmt: skip
Array = np.ndarray[Any, Any]
T = TypeVar("T")


class SafetensorsError(ValueError):
    """A file that is no safetensors file, or a damaged one."""


# --- writing --------------------------------------------------------------------------------------


def save_file(
    tensors: Mapping[str, Any], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes named tensors (or NumPy arrays) as one safetensors file.

    An existing file is replaced when the new one is complete on the disk: after an error, a full
    disk for example, the old one is there as before. ``metadata`` maps names to texts; the order
    of several in the file is not fixed. Raises TypeError for other values, ValueError where there
    are too many names and texts for the format, and OSError where the file cannot be written.

    >>> import os, tempfile, treadle
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "weights.safetensors")
    ...     save_file({"weight": treadle.tensor([1.0, 2.0])}, path)
    ...     load_file(path)
    {'weight': tensor([1., 2.])}
    """
    arrays, texts = _checked(tensors, metadata)
    with replacing(path) as temporary:
        try:
            library.save_file(arrays, temporary, texts)
        except SafetensorError as error:
            _raise_unsaved(error)


def save_bytes(tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> bytes:
    """What ``save_file`` writes, as bytes."""
    try:
        return library.save(*_checked(tensors, metadata))
    except SafetensorError as error:
        _raise_unsaved(error)


def _checked(
    tensors: Mapping[str, Any], metadata: Mapping[str, str] | None
) -> tuple[dict[str, Array], dict[str, str] | None]:
    if not isinstance(tensors, Mapping):
        raise located(TypeError(
            f"save_file: got a {type(tensors).__name__}; expected a dict of named tensors; for "
            f"other structures there is treadle.io.save"
        ))  # fmt: skip
    for key, text in (metadata or {}).items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise located(TypeError(
                f"save_file: got metadata {key!r}: {text!r}; expected texts; convert with str()"
            ))  # fmt: skip
    for name in tensors:
        if not isinstance(name, str) or name == _METADATA:
            raise located(TypeError(
                f"save_file: got the name {name!r}; expected a text other than {_METADATA!r}"
            ))  # fmt: skip
    arrays = {name: _array(name, value) for name, value in tensors.items()}
    return arrays, dict(metadata) if metadata else None


def _array(name: str, value: Any) -> Array:
    """The value row-major and in this machine's byte order, which the library takes for granted."""
    if isinstance(value, Tensor):
        return np.asarray(array_of(value.node), order="C")
    if isinstance(value, np.ndarray):
        try:
            dtype = dtypes.from_numpy(value.dtype)
        except TypeError as error:
            raise located(TypeError(f"save_file: {name!r}: {error}")) from None
        return np.asarray(value, dtype.numpy, order="C")
    raise located(TypeError(
        f"save_file: {name!r} is a {type(value).__name__}; expected tensors and NumPy arrays; make "
        f"a tensor of it, or use treadle.io.save, which takes numbers and texts too"
    ))  # fmt: skip


def _raise_unsaved(error: SafetensorError) -> NoReturn:
    """Raises what the library could not write; it keeps the system's error number in the text."""
    number = re.search(r"os error (\d+)", str(error))
    if number is not None:
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
    raise located(ValueError(
        f"save_file: the format cannot hold this: {error}; write several files, or less metadata"
    )) from error  # fmt: skip


# --- reading --------------------------------------------------------------------------------------


def load_file(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, in the file's order.

    Raises SafetensorsError, before any memory is taken for the tensors, where the header does not
    fit the file: too short, too long, overlapping or uncovered parts, unknown dtypes. Such a file
    can do no other harm; no code is ever run.
    """
    return read_path(path)[0]


def read_path(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file."""

    def read(file: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
        codes = {name: file.get_slice(name).get_dtype() for name in file.offset_keys()}
        known = _numpy_dtypes(codes, os.fspath(path))
        tensors = {name: _tensor(name, file.get_tensor(name)) for name in known}
        return tensors, file.metadata() or {}

    return _read_file(path, read)


def load_bytes(data: bytes) -> dict[str, Tensor]:
    """The tensors of what ``save_bytes`` gave."""
    return read_bytes(data, f"{len(data)} bytes")[0]


def read_bytes(data: bytes, source: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file's content; ``source`` is for error texts."""
    first = data[:8]
    try:
        entries = deserialize(data)
        known = _numpy_dtypes({name: entry["dtype"] for name, entry in entries}, source)
        tensors = {}
        for name, entry in entries:
            array = np.frombuffer(entry["data"], known[name])
            tensors[name] = _tensor(name, array.reshape(entry["shape"]))
        header = json.loads(data[8 : 8 + int.from_bytes(first, "little")])
        return tensors, header.get(_METADATA) or {}
    except (SafetensorError, ValueError) as error:
        raise _explained(error, source, len(data), first) from None


def load_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; the tensors are not read."""
    return _read_file(path, lambda file: file.metadata() or {})


def _read_file(path: Path, read: Callable[[Any], T]) -> T:
    """Reads a file that the library has opened, if it is one (a pipe would block)."""
    place = os.fspath(path)
    status = check_is_file(place, SafetensorsError)
    with open(place, "rb") as stream:
        first = stream.read(8)
    try:
        with safe_open(place, "np") as file:
            return read(file)
    except (SafetensorError, ValueError) as error:
        raise _explained(error, place, status.st_size, first) from None


def _explained(error: Exception, source: str, size: int, first: bytes) -> Exception:
    """What the library and NumPy say of a file of ``size`` bytes, as a SafetensorsError."""
    if isinstance(error, SafetensorsError):
        return error
    if is_pytorch(first, size):
        return located(SafetensorsError(
            f"{source} is a zip or pickle file, such as PyTorch's; expected safetensors; "
            f"treadle.load reads both"
        ))  # fmt: skip
    return located(SafetensorsError(
        f"{source} is no whole safetensors file: it has {size:,} bytes; {error}; get or write it "
        f"again"
    ))  # fmt: skip


def is_pytorch(first: bytes, size: int) -> bool:
    """Whether a file with these first 8 bytes is a zip or pickle, and no safetensors file.

    Taken for the length of a header they would be more than the file.
    """
    return first.startswith((b"PK\x03\x04", b"\x80")) and int.from_bytes(first, "little") > size


def _numpy_dtypes(codes: Mapping[str, str], source: str) -> dict[str, np.dtype[Any]]:
    """The dtypes of named tensors; NumPy itself knows bfloat16 only when that was asked for."""
    for name, code in codes.items():
        if code not in _DTYPES:
            raise located(SafetensorsError(
                f"{source}: tensor {name!r} has the dtype {code}, which Treadle has not; there are "
                f"{', '.join(_DTYPES)}; convert it with the library that wrote it"
            ))  # fmt: skip
    return {name: _DTYPES[code].numpy for name, code in codes.items()}


def _tensor(name: str, array: Array) -> Tensor:
    if array.dtype == np.bool_ and array.size and array.view(np.uint8).max() > 1:
        raise ValueError(f"the bools of tensor {name!r} are not all 0 or 1")
    return wrap(node_from_array(array))
