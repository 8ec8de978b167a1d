"""Files that are replaced as a whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Path = str | os.PathLike[str]
_NAME = 64  # characters of the file's name that its temporary one begins with


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[str]:
    """A place to write a file that takes the place of ``path`` when the ``with`` block ends well.

    It lies beside ``path``; what was written is brought to the disk and renamed, so whoever reads
    ``path`` sees the old content or the new, also after a crash. A full disk or any exception
    leaves the old file as it was. The new one keeps the old one's permissions; a symbolic link
    stays one. What a killed process left of writing the same file is removed.
    """
    place = os.path.realpath(os.fspath(path))
    mode = _mode_of(place)
    folder, name = os.path.split(place)
    temporary = os.path.join(folder, f".{name[:_NAME]}.{secrets.token_hex(8)}.tmp")
    try:
        with _among_writers(folder, name), _removed_on_error(temporary):
            with open(temporary, "xb") as file:
                if mode is None:  # what the system gives a new file
                    mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            yield temporary
            with open(temporary, "rb+") as file:
                os.chmod(temporary, mode)
                os.fsync(file.fileno())
            os.replace(temporary, place)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot write {place}: {error.strerror or error}; what was there is "
            f"unchanged; make room, or choose a folder that exists and that you may write to"
        ) from error  # fmt: skip
    _sync_folder(folder)


@contextlib.contextmanager
def _among_writers(folder: str, name: str) -> Iterator[None]:
    """Removes what killed writers left of this file, where nobody writes in the folder now.

    All who write hold a shared lock on the folder, which the system takes back when they die.
    """
    with contextlib.ExitStack() as owned:
        with contextlib.suppress(OSError):  # a folder that cannot be listed, or without locks
            if fcntl is not None:
                descriptor = os.open(folder, os.O_RDONLY)
                owned.callback(os.close, descriptor)
                with contextlib.suppress(BlockingIOError):  # somebody is writing
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove_left_overs(folder, name)
                fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield


def _remove_left_overs(folder: str, name: str) -> None:
    pattern = re.compile(re.escape(f".{name[:_NAME]}.") + r"[0-9a-f]{16}\.tmp")
    for entry in filter(pattern.fullmatch, os.listdir(folder)):
        os.unlink(os.path.join(folder, entry))


@contextlib.contextmanager
def _removed_on_error(path: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def _mode_of(place: str) -> int | None:
    """The permissions of the file to be replaced, None where there is none."""
    try:
        status = os.stat(place)
    except OSError:  # not there; other reasons show when it is written
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"cannot write {place}: it is a folder; name a file in it")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"cannot write {place}: it is a device or pipe; name a file")
    return stat.S_IMODE(status.st_mode)


def _sync_folder(folder: str) -> None:
    """Brings the new name to the disk, where the system can do that for a folder."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
