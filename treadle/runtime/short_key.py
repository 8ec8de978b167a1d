"""The short way to a kernel on disk: its spec as a text, and a stamp of the code that builds it.

The cache keeps kernels under their loop IR, which takes longer to build than the code to load. So
what a spec came to is noted beside the kernels under the spec's text, with the stamp of the code
that built it: sizes and times of the source files that have a say. Where anything was edited since,
or that cannot be told, the loop IR is built after all.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

from treadle.base import STARTED
from treadle.base.dtypes import DType
from treadle.ir.launch import KernelSpec
from treadle.ops.registry import OPS

_ROOMS = ("base", "ir", "ops", "codegen", "compiler", "runtime")
_PREFIXES = tuple(f"treadle.{room}." for room in _ROOMS)
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_TICK = 0.05  # seconds that the times of files may be behind
_PLAIN = (int, bool, type(None))


class _NamelessError(Exception):
    """A key holds what no text stands for in every process, such as a closure."""


def spec_text(spec: KernelSpec) -> str | None:
    """A text for this spec and no other, the same in every process; None where there is none.

    >>> from treadle.base import dtypes
    >>> from treadle.ir.nest import Nest, coalesce
    >>> spec_text(KernelSpec(coalesce, (dtypes.float32, 1, ("a", -0.0), Nest(1, "cc"))))
    "treadle.ir.nest.coalesce(f32,1,('a',-0x0.0p+0,),treadle.ir.nest.Nest(1,'cc',0,-1,False,),)"
    >>> spec_text(KernelSpec(lambda: None, ())) is None
    True
    """
    try:
        return _name(spec.build) + _text(spec.key)
    except _NamelessError:
        return None


@lru_cache(maxsize=1)
def code_stamp() -> str | None:
    """The same in two processes only if the code that builds kernels is.

    None where that cannot be told: there are no source files, or one was written after this process
    began to read them.
    """
    try:
        files = sorted(file for room in _ROOMS for file in _sources(os.path.join(_ROOT, room)))
    except OSError:
        return None
    latest = max((max(file[2:]) for file in files), default=float("inf"))
    if latest >= (STARTED - _TICK) * 1e9:
        return None
    return hashlib.sha256(f"{sys.version} {files}".encode()).hexdigest()


def _sources(folder: str) -> Iterator[tuple[str, int, int, int]]:
    """Path, size, and times of content and of status (no edit leaves that one as it was)."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".py"):
                status = entry.stat()
                yield entry.path, status.st_size, status.st_mtime_ns, status.st_ctime_ns
            elif entry.name != "__pycache__" and entry.is_dir():
                yield from _sources(entry.path)


def _text(value: Any) -> str:
    kind: Any = type(value)
    if kind is str:
        if value in OPS and not _is_ours(OPS[value].lower):
            raise _NamelessError  # an op that somebody registered: no stamp tells of its code
        return repr(value)
    if kind in _PLAIN:
        return repr(value)
    if kind is float:
        return str(value.hex())
    if kind is DType:
        return str(value.short)
    if isinstance(value, tuple):
        name = "" if kind is tuple else _name(kind)
        return f"{name}({''.join([_text(item) + ',' for item in value])})"
    if hasattr(kind, "__dataclass_fields__"):
        return _name(kind) + _text(tuple([getattr(value, f) for f in kind.__dataclass_fields__]))
    return _name(value)


@lru_cache(maxsize=None)
def _name(value: Any) -> str:
    """Where a function or class of the rooms that have a say is to be found."""
    module, path = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    found: Any = sys.modules.get(module) if isinstance(module, str) else None
    if path is None or found is None or not f"{module}.".startswith(_PREFIXES):
        raise _NamelessError
    for part in path.split("."):
        found = getattr(found, part, None)
    if found is not value:
        raise _NamelessError
    return f"{module}.{path}"


@lru_cache(maxsize=None)
def _is_ours(lower: tuple[Any, ...]) -> bool:
    """True where all functions of a lowering, and those they close over, are in these rooms."""
    seen: set[int] = set()
    left: list[Any] = [lower]
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, tuple):
            left += value
        elif isinstance(value, partial):
            left += (value.func, value.args, *value.keywords.values())
        elif callable(value):
            if not f"{value.__module__}.".startswith(_PREFIXES):
                return False
            left += [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
    return True


__all__ = ["code_stamp", "spec_text"]
