"""Further names of modules: PyTorch's paths, such as ``nn.modules.conv``, that stand for ours."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any


class Path(ModuleType):
    """A module that shows what is in others, some of it under another name."""

    def __init__(self, name: str, sources: Sequence[str], names: Mapping[str, str]) -> None:
        super().__init__(name, f"PyTorch's path of {' and '.join(sources)}.")
        self.sources = sources
        self.names = names

    def __getattr__(self, name: str) -> Any:
        for source in () if name.startswith("__") else self.sources:
            found = getattr(importlib.import_module(source), self.names.get(name, name), None)
            if found is not None:
                return found
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


def add_paths(
    package: str, paths: Mapping[str, str], names: Mapping[str, str] | None = None
) -> None:
    """Gives a package submodules: ``paths`` from their names to the modules that they stand for.

    These are separated by spaces and relative to ``package`` where they begin with a dot.
    """
    for name, sources in paths.items():
        full = [package + s if s.startswith(".") else s for s in sources.split()]
        path = Path(f"{package}.{name}", full, names or {})
        sys.modules[path.__name__] = path
        setattr(sys.modules[package], name, path)


__all__ = ["Path", "add_paths"]
