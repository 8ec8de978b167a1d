"""Modules without initial values."""

from __future__ import annotations

from typing import Any

from treadle.nn.module import Module


def skip_init(module_cls: type[Module], *args: Any, **kwargs: Any) -> Module:
    """A module whose initial values do not matter: here just the module.

    Its values are drawn when they are first read, so what is replaced before costs nothing.
    """
    return module_cls(*args, **kwargs)


__all__ = ["skip_init"]
