"""Where the parts of a zip file lie, for files whose parts are stored as they are.

PyTorch does not compress, so what is compressed, encrypted, spread over files, overlapping or named
like a place outside is refused: no part can be larger than the file, and nothing is unpacked.
"""

from __future__ import annotations

import itertools
import struct

from treadle.io.pickle_machine import Refusal
from treadle.io.source import Source

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s4B4HL2L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_TAIL = _END.size + (1 << 16)
_FULL = 0xFFFFFFFF  # stands for "see the 64-bit field"
_ZIP64 = 1
_ENCRYPTED, _MASKED = 1, 1 << 13

Parts = dict[str, tuple[int, int]]


def parts_of(source: Source) -> Parts:
    """The (offset, size) of each part by name."""
    count, at, size = _directory(source)
    directory = source.read(at, size)
    found: list[tuple[int, int, int, str]] = []  # where the header begins, the data, its size
    position = 0
    for _ in range(count):
        header, length, name, position = _entry(directory, position)
        begin = _data_of(source, header, name)
        if begin + length > at:
            raise Refusal(f"the part {name!r} of the zip file reaches into its directory")
        found.append((header, begin, length, name))
    if position != len(directory):
        raise Refusal("the directory of the zip file is longer than what it lists")
    found.sort()
    for (_, begin, length, name), (header, _, _, other) in itertools.pairwise(found):
        if begin + length > header:
            raise Refusal(f"the parts {name!r} and {other!r} of the zip file overlap")
    parts = {name: (begin, length) for _, begin, length, name in found}
    if len(parts) < count:
        raise Refusal("the zip file has two parts of one name")
    return parts


def _directory(source: Source) -> tuple[int, int, int]:
    """How many parts there are, where the directory begins, and its length."""
    begin = max(0, source.size - _TAIL)
    tail = source.read(begin, _TAIL)
    place = tail.rfind(b"PK\5\6")
    if place < 0 or len(tail) - place < _END.size:
        raise Refusal("the zip file has no directory at its end; it is not whole")
    _, disk, first, here, count, size, at, comment = _END.unpack_from(tail, place)
    end = begin + place
    if place + _END.size + comment != len(tail):
        raise Refusal("the zip file does not end where it says")
    locator = source.read(end - _LOCATOR.size, _LOCATOR.size) if end >= _LOCATOR.size else b""
    if locator.startswith(b"PK\6\7"):
        end = _LOCATOR.unpack(locator)[2]
        record = source.read(end, _END64.size)
        if len(record) < _END64.size or not record.startswith(b"PK\6\6"):
            raise Refusal("the directory of the zip file is not where it says")
        _, _, _, _, disk, first, here, count, size, at = _END64.unpack(record)
    if disk or first or here != count:
        raise Refusal("the zip file is one of several; PyTorch writes one")
    if at + size > end or count * _ENTRY.size > size:
        raise Refusal("the directory of the zip file does not fit in it")
    return count, at, size


def _entry(directory: bytes, position: int) -> tuple[int, int, str, int]:
    """Of one part: its header's offset, its size, its name, and where the next one begins."""
    if len(directory) - position < _ENTRY.size:
        raise Refusal("the directory of the zip file ends early")
    fields = _ENTRY.unpack_from(directory, position)
    signature, flags, method = fields[0], fields[5], fields[6]
    packed, size, name_length, extra_length, comment_length = fields[10:15]
    header = fields[18]
    start = position + _ENTRY.size
    end = start + name_length + extra_length + comment_length
    if signature != b"PK\1\2" or end > len(directory):
        raise Refusal("the directory of the zip file is damaged")
    name = _checked_name(directory[start : start + name_length])
    extra = directory[start + name_length : start + name_length + extra_length]
    wide = iter(_wide_fields(extra))
    size, packed, header = (
        next(wide, _FULL) if value == _FULL else value for value in (size, packed, header)
    )
    if flags & (_ENCRYPTED | _MASKED):
        raise Refusal(f"the part {name!r} of the zip file is encrypted")
    if method or packed != size:
        raise Refusal(
            f"the part {name!r} of the zip file is compressed; only archives of code (TorchScript) "
            f"are"
        )
    return header, size, name, end


def _wide_fields(extra: bytes) -> list[int]:
    """The 64-bit numbers of a part, in the order of the fields that they stand for."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        position += 4
        if kind == _ZIP64:
            content = extra[position : position + length]
            return [n for (n,) in struct.iter_unpack("<Q", content[: len(content) // 8 * 8])]
        position += length
    return []


def _checked_name(data: bytes) -> str:
    try:
        name = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal("a part of the zip file has a name that is not UTF-8") from None
    steps = name.split("/")
    if not name or not steps[0] or ".." in steps or "\\" in name or ":" in name or "\0" in name:
        raise Refusal(f"a part of the zip file is named {name!r:.80}, a place outside")
    return name


def _data_of(source: Source, header: int, name: str) -> int:
    """Where the data of a part begin."""
    local = source.read(header, _LOCAL.size)
    if len(local) < _LOCAL.size or not local.startswith(b"PK\3\4"):
        raise Refusal(f"the part {name!r} of the zip file is not where its directory says")
    name_length, extra_length = _LOCAL.unpack(local)[9:11]
    begin = header + _LOCAL.size
    if source.read(begin, name_length) != name.encode():
        raise Refusal(f"the part {name!r} of the zip file has another name where it lies")
    return begin + name_length + extra_length
