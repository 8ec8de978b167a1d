"""PyTorch's paths (``treadle.utils.data``, ``treadle.utils.checkpoint``): re-exports only."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treadle.utils import checkpoint, data, tensorboard

__all__ = ["checkpoint", "data", "tensorboard"]


def __getattr__(name: str) -> Any:
    """They are imported when they are first named."""
    if name in __all__:
        return importlib.import_module(f"treadle.utils.{name}")
    raise AttributeError(f"module 'treadle.utils' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
