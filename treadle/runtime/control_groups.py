"""Which control groups of Linux this process is in: they may allow it less than the machine has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def control_groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the groups that bound ``controller`` ("cpu", "memory"), ours and those above.

    ``root`` is the root of the file system (another one in tests).
    """
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in groups:
        _, controllers, path = line.split(":", 2)
        base = root / "sys/fs/cgroup"
        if controllers:
            if controller not in controllers.split(","):
                continue
            base /= controller
        group = base / path.lstrip("/")
        while group.is_relative_to(base):
            yield group
            group = group.parent


def smallest(root: Path, controller: str, names: tuple[str, ...], number: int) -> int:
    """The smallest number in the groups' files of these names, at most ``number``."""
    for group in control_groups(root, controller):
        for name in names:
            with suppress(OSError, ValueError):  # no such file, or "max"
                number = min(number, int((group / name).read_text()))
    return number


__all__ = ["control_groups", "smallest"]
