"""The bytes of a file that is read here and there, and how it is checked to be one."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from typing import IO, Any

from treadle.io.atomic import Path
from treadle.ir.node import located


class CheckpointError(ValueError):
    """A checkpoint that is damaged, or that holds what Treadle does not build."""


class Source:
    """A file opened for reading bytes, from where it stands to its end.

    ``name`` is for error texts, ``size`` how many bytes there are.
    """

    def __init__(self, stream: IO[bytes], name: str) -> None:
        if not _can_seek(stream):
            stream = io.BytesIO(stream.read())
        self.stream = stream
        self.name = name
        self.start = stream.tell()
        self.size = stream.seek(0, os.SEEK_END) - self.start

    def read(self, offset: int, count: int) -> bytes:
        """``count`` bytes at ``offset``, or as many as there are before the end."""
        if offset >= self.size:
            return b""
        self.stream.seek(self.start + offset)
        return self.stream.read(min(count, self.size - offset))

    def read_into(self, offset: int, target: Any) -> int:
        """Fills an array of bytes; how many there were."""
        self.stream.seek(self.start + offset)
        if hasattr(self.stream, "readinto"):
            return self.stream.readinto(target)
        data = self.stream.read(len(target))
        target[: len(data)] = memoryview(data)
        return len(data)


def _can_seek(stream: Any) -> bool:
    return all(hasattr(stream, name) for name in ("seek", "tell")) and (
        not hasattr(stream, "seekable") or stream.seekable()
    )


@contextlib.contextmanager
def opened(f: Any) -> Iterator[Source]:
    """A path or an open file as a Source; CheckpointError for what would block or is no file."""
    if hasattr(f, "read"):
        yield Source(f, str(getattr(f, "name", "the file")))
        return
    place = os.fspath(f)
    check_is_file(place, CheckpointError)
    with open(place, "rb") as stream:
        yield Source(stream, str(place))


def check_is_file(place: Path, kind: type[ValueError]) -> os.stat_result:
    """FileNotFoundError where there is nothing, ``kind`` for folders, devices and pipes."""
    try:
        status = os.stat(place)
    except FileNotFoundError:
        raise located(FileNotFoundError(f"cannot read {place}: there is no such file")) from None
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or pipe"
        raise located(kind(f"cannot read {place}: it is {what}; expected a file"))
    return status
