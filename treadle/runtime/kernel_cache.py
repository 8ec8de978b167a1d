"""Compiled kernels on disk: one file per key, shared by any number of processes.

A file is a magic number, the SHA-256 of what follows, the kernel's name, a line's end, and the
object code. It is written beside its place and renamed into it, so a reader sees a whole file or
none; what was damaged later fails the checksum and counts as absent, and so does a file of another
version of this format. The cache only saves time: whatever goes wrong here is told once as a
warning and the kernel is compiled again.

Beside the kernels lie notes in files of the same form: which kernel a spec comes to (see
``runtime.short_key``), which way of a product won; and programs (``compiler.program_cache``). They
come and go as the kernels do.

The folder holds code that will run, so it must belong to this user and be writable by nobody else.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import threading
import time
import warnings
from pathlib import Path

from treadle.base.flags import flags
from treadle.base.record import Record

_FORMAT = b"TRDLKRN"
_MAGIC = _FORMAT + b"2"
_HEADER = len(_MAGIC) + hashlib.sha256().digest_size
KERNEL, NOTE, PROGRAM = ".kernel", ".note", ".program"
_ALL = (KERNEL, NOTE, PROGRAM)
_TEMPORARY = ".tmp"
_LONGEST_NAME = 200  # of a kernel, as far as it is kept
_STALE_SECONDS = 3600  # a temporary file this old belongs to a process that was killed
_STORES_PER_SWEEP = 64
_KEPT_SHARE = 0.75  # a sweep frees more than it must, so that sweeps stay rare

_stores = itertools.count()
_warned: set[tuple[str, str]] = set()
_unwritable: set[str] = set()


class Entry(Record):
    """A kernel on disk; ``used`` is when it was last stored or loaded (seconds since 1970)."""

    key: str
    path: Path
    nbytes: int
    used: float

    def name(self) -> str:
        """What the kernel is called; "" where the file cannot be read or is of another version."""
        with contextlib.suppress(OSError), open(self.path, "rb") as file:
            blob = file.read(_HEADER + _LONGEST_NAME + 1)
            if blob.startswith(_MAGIC):
                return blob[_HEADER:].split(b"\n")[0].decode(errors="replace")
        return ""


def folder() -> Path:
    """Where the kernels lie."""
    return Path(flags.CACHE_DIR) / "kernels"


def load(key: str, kind: str = KERNEL) -> bytes | None:
    """The object code, or the text of the note, stored under ``key``; or None."""
    if flags.CACHE_LIMIT_MB == 0:
        return None
    where = folder()
    path = where / (key + kind)
    try:
        blob = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        _warn_once("read", f"cannot read the kernel cache {where}: {error}")
        return None
    if not _is_private(where):
        return None
    if len(blob) >= _HEADER and blob.startswith(_FORMAT) and not blob.startswith(_MAGIC):
        return None
    content = blob[_HEADER:]
    if blob[:_HEADER] != _header(content):
        _warn_once(
            "damaged",
            f"a damaged file in the kernel cache is ignored and written anew: {path}; "
            "if this comes back, check the disk",
        )
        return None
    with contextlib.suppress(OSError):  # a cache that cannot be written can still be read
        os.utime(path)
    return content.partition(b"\n")[2]


def store(key: str, code: bytes, name: str = "", kind: str = KERNEL) -> None:
    """Keeps ``code`` under ``key``, and now and then removes what was not used for longest."""
    where = folder()
    if flags.CACHE_LIMIT_MB == 0 or str(where) in _unwritable:
        return
    temporary = where / f".{key}.{os.getpid()}.{threading.get_ident()}{_TEMPORARY}"
    try:
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(where):
            return
        try:
            content = name[:_LONGEST_NAME].encode("ascii", "replace") + b"\n" + code
            temporary.write_bytes(_header(content) + content)
            temporary.replace(where / (key + kind))
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if next(_stores) % _STORES_PER_SWEEP == 0:
            _sweep(where)
    except OSError as error:
        _unwritable.add(str(where))
        _warn_once(
            "write",
            f"cannot write the kernel cache {where}: {error}; kernels will be compiled again by "
            "every process; set TREADLE_CACHE_DIR to a folder with space that you can write",
        )


def entries(*kinds: str) -> list[Entry]:
    """All kernels on disk (or files of these kinds), the one not used for longest first."""
    found = []
    for path in _listing(folder()):
        if path.suffix in (kinds or (KERNEL,)):
            with contextlib.suppress(FileNotFoundError):  # another process removed it just now
                status = path.stat()
                found.append(Entry(path.stem, path, status.st_size, status.st_mtime))
    return sorted(found, key=lambda entry: entry.used)


def total_size() -> int:
    """Bytes of all kernels on disk."""
    return sum(entry.nbytes for entry in entries())


def clear() -> int:
    """Removes all that is on disk; returns how many kernels. Those in use stay in memory."""
    removed = entries(*_ALL)
    for entry in removed:
        entry.path.unlink(missing_ok=True)
    return sum(entry.path.suffix == KERNEL for entry in removed)


def _header(content: bytes) -> bytes:
    return _MAGIC + hashlib.sha256(content).digest()


def _listing(where: Path) -> list[Path]:
    try:
        return list(where.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_private(where: Path) -> bool:
    """True where nobody else can put code into the folder (on Windows the profile sees to it)."""
    if not hasattr(os, "geteuid"):
        return True
    status = where.stat()
    if status.st_uid in (0, os.geteuid()) and status.st_mode & 0o022 == 0:
        return True
    _warn_once(
        "private",
        f"the kernel cache {where} is not used: other users could put code into it; make it "
        f"yours alone (chown, chmod 700) or set TREADLE_CACHE_DIR to another folder",
    )
    return False


def _sweep(where: Path) -> None:
    """Removes left-overs of killed writers and, beyond the limit, what was not used for longest."""
    limit = flags.CACHE_LIMIT_MB << 20
    now = time.time()
    for path in _listing(where):
        if path.suffix == _TEMPORARY:
            with contextlib.suppress(FileNotFoundError):
                if now - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()
    present = entries(*_ALL)
    size = sum(entry.nbytes for entry in present)
    if size <= limit:
        return
    for entry in present:
        if size <= limit * _KEPT_SHARE:
            return
        entry.path.unlink(missing_ok=True)
        size -= entry.nbytes


def _warn_once(kind: str, text: str) -> None:
    if (kind, str(folder())) not in _warned:
        _warned.add((kind, str(folder())))
        warnings.warn(text, RuntimeWarning, stacklevel=3)
