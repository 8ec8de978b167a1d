"""Tensors in files: the safetensors format.

A file is the size of the header (8 bytes, little-endian), the header (JSON: dtype, shape and place
of each tensor, and texts under ``__metadata__``) and the bytes of the tensors, without gaps. So
whether a file is what it says is known from its header and its size, before any memory is taken.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.shapes import Shape, prod
from treadle.compiler.device import get_device
from treadle.io.atomic import Path, replacing
from treadle.ir.node import located
from treadle.tensor.handle import wrap
from treadle.tensor.storage import array_of, node_from_memory
from treadle.tensor.tensor import Tensor

MAX_HEADER = 100_000_000  # bytes; a limit of the format
MAX_NDIM = 64  # of NumPy
_METADATA = "__metadata__"
_NAMES = {
    dtypes.float64: "F64", dtypes.float32: "F32", dtypes.float16: "F16", dtypes.bfloat16: "BF16",
    dtypes.int64: "I64", dtypes.int32: "I32", dtypes.int16: "I16", dtypes.int8: "I8",
    dtypes.uint8: "U8", dtypes.bool_: "BOOL",
}  # fmt: skip
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


class SafetensorsError(ValueError):
    """A file that is no safetensors file, or a damaged one."""


class Entry(NamedTuple):
    """What a header says of one tensor."""

    name: str
    dtype: DType
    shape: Shape
    begin: int
    end: int


# --- writing --------------------------------------------------------------------------------------


def save_file(
    tensors: Mapping[str, Any], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes named tensors (or NumPy arrays) as one safetensors file.

    An existing file is replaced when the new one is complete on the disk: after an error, a full
    disk for example, the old one is there as before. ``metadata`` maps names to texts. Raises
    TypeError for other values and OSError where the file cannot be written.

    >>> import os, tempfile, treadle
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "weights.safetensors")
    ...     save_file({"weight": treadle.tensor([1.0, 2.0])}, path)
    ...     load_file(path)
    {'weight': tensor([1., 2.])}
    """
    checked = _checked(tensors, metadata)
    with replacing(path) as file:
        _write(file, *checked)


def save_bytes(tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> bytes:
    """What ``save_file`` writes, as bytes."""
    file = io.BytesIO()
    _write(file, *_checked(tensors, metadata))
    return file.getvalue()


Arrays = dict[str, tuple[DType, np.ndarray[Any, Any]]]


def _checked(tensors: Mapping[str, Any], metadata: Mapping[str, str] | None) -> tuple[Any, Any]:
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
    arrays: Arrays = {}
    for name, value in tensors.items():
        if not isinstance(name, str) or name == _METADATA:
            raise located(TypeError(
                f"save_file: got the name {name!r}; expected a text other than {_METADATA!r}"
            ))  # fmt: skip
        arrays[name] = _dtype_and_array(name, value)
    return arrays, metadata


def _dtype_and_array(name: str, value: Any) -> tuple[DType, np.ndarray[Any, Any]]:
    if isinstance(value, Tensor):
        return value.dtype, array_of(value.node)
    if isinstance(value, np.ndarray):
        try:
            dtype = dtypes.from_numpy(value.dtype)
        except TypeError as error:
            raise located(TypeError(f"save_file: {name!r}: {error}")) from None
        return dtype, value.astype(dtype.numpy, copy=False)  # the byte order of this machine
    raise located(TypeError(
        f"save_file: {name!r} is a {type(value).__name__}; expected tensors and NumPy arrays; make "
        f"a tensor of it, or use treadle.io.save, which takes numbers and texts too"
    ))  # fmt: skip


def _write(file: BinaryIO, arrays: Arrays, metadata: Mapping[str, str] | None) -> None:
    # The widest elements first, so that all are aligned.
    order = sorted(arrays, key=lambda name: (-arrays[name][0].itemsize, name))
    header: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    ends = list(itertools.accumulate((arrays[name][1].nbytes for name in order), initial=0))
    for name, begin, end in zip(order, ends, ends[1:], strict=False):
        dtype, array = arrays[name]
        header[name] = {
            "dtype": _NAMES[dtype], "shape": array.shape, "data_offsets": [begin, end]
        }  # fmt: skip
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise located(ValueError(
            f"save_file: the header needs {len(text):,} bytes; the format allows {MAX_HEADER:,}; "
            f"write several files, or less metadata"
        ))  # fmt: skip
    file.write(len(text).to_bytes(8, "little") + text)
    for name in order:
        file.write(_bytes_of(arrays[name][1]))


def _bytes_of(array: np.ndarray[Any, Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


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
    with _opened(path) as file:
        return read(file, os.fspath(path))


def load_bytes(data: bytes) -> dict[str, Tensor]:
    """The tensors of what ``save_bytes`` gave."""
    return read(io.BytesIO(data), f"{len(data)} bytes")[0]


def load_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; the tensors are not read."""
    with _opened(path) as file:
        return _read_header(file, os.fspath(path))[1]


def _opened(path: Path) -> BinaryIO:
    """The file, if it is one (a pipe would block, a device never ends)."""
    place = os.fspath(path)
    try:
        mode = os.stat(place).st_mode
    except FileNotFoundError:
        raise located(FileNotFoundError(f"cannot read {place}: there is no such file")) from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device or pipe"
        raise located(SafetensorsError(f"cannot read {place}: it is {kind}; expected a file"))
    return open(place, "rb")


def read(file: BinaryIO, source: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of an open file; ``source`` is for error texts."""
    entries, metadata = _read_header(file, source)
    return {entry.name: _read_tensor(file, entry, source) for entry in entries}, metadata


def _read_tensor(file: BinaryIO, entry: Entry, source: str) -> Tensor:
    nbytes = entry.end - entry.begin
    memory: Any = get_device("cpu").allocate(nbytes)
    target = memory.array(dtypes.uint8, (nbytes,))
    if file.readinto(target.data) != nbytes:  # type: ignore[attr-defined]
        raise _damaged(source, f"it ended inside tensor {entry.name!r}, and was changed meanwhile")
    if entry.dtype is dtypes.bool_ and nbytes and target.max() > 1:
        raise _damaged(source, f"the bools of tensor {entry.name!r} are not all 0 or 1")
    return wrap(node_from_memory(memory, entry.dtype, entry.shape))


def _read_header(file: BinaryIO, source: str) -> tuple[list[Entry], dict[str, str]]:
    """Reads and checks the header against the size of the file, and stops where the data begins."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    first = file.read(8)
    length = int.from_bytes(first, "little")
    if len(first) < 8 or length > min(size - 8, MAX_HEADER):
        if first.startswith((b"PK\x03\x04", b"\x80")):
            raise located(SafetensorsError(
                f"{source} is a zip or pickle file, such as PyTorch's; expected safetensors; "
                f"convert it where PyTorch is, with safetensors.torch.save_file"
            ))  # fmt: skip
        raise _damaged(
            source, f"it has {size:,} bytes, and the first 8 promise a header of {length:,}"
        )
    try:
        header = json.loads(file.read(length), object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise _damaged(source, f"its header is no JSON text: {error}") from None
    if not isinstance(header, dict):
        raise _damaged(source, "its header is no JSON object")
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(x, str) for x in metadata.values()):
        raise _damaged(source, "its metadata are not all texts")
    entries = sorted(_entries(header, source), key=lambda entry: (entry.begin, entry.end))
    ends = [0, *(entry.end for entry in entries)]
    for entry, end in zip(entries, ends, strict=False):
        if entry.begin != end:
            what = "leaves a gap" if entry.begin > end else "overlaps another"
            raise _damaged(source, f"tensor {entry.name!r} {what}")
    if ends[-1] != size - 8 - length:
        raise _damaged(
            source, f"the header promises {ends[-1]:,} bytes of tensors, and {size - 8 - length:,} "
            f"follow it"
        )  # fmt: skip
    return entries, metadata


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError for a name that comes twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _entries(header: dict[str, Any], source: str) -> Iterator[Entry]:
    for name, said in header.items():
        match said:
            case {"dtype": str(text), "shape": list(shape), "data_offsets": [begin, end], **rest}:
                numbers = [*shape, begin, end]
            case _:
                numbers, rest = [None], {}
        if rest or not all(type(x) is int and 0 <= x < 1 << 63 for x in numbers):
            raise _damaged(source, f"the header says of tensor {name!r}: {str(said)[:200]}")
        if text not in _DTYPES:
            raise located(SafetensorsError(
                f"{source}: tensor {name!r} has the dtype {text}, which Treadle has not; there are "
                f"{', '.join(_DTYPES)}; convert it with the library that wrote it"
            ))  # fmt: skip
        dtype = _DTYPES[text]
        if len(shape) > MAX_NDIM or prod(shape) * dtype.itemsize != end - begin:
            raise _damaged(
                source, f"tensor {name!r} of dtype {text} and shape {str(shape)[:200]} cannot have "
                f"{end - begin:,} bytes"
            )  # fmt: skip
        yield Entry(name, dtype, tuple(shape), begin, end)


def _damaged(source: str, what: str) -> Exception:
    return located(SafetensorsError(
        f"{source} is no whole safetensors file: {what}; get or write it again"
    ))  # fmt: skip
