"""Signal processing under PyTorch's names: ``treadle.signal.windows``."""

from __future__ import annotations

from treadle.signal import windows

__all__ = ["windows"]
