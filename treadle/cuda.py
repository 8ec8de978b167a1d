"""What programs written for PyTorch ask of ``torch.cuda``: there is no such device yet.

>>> import treadle
>>> treadle.device("cuda" if treadle.cuda.is_available() else "cpu")
device('cpu')
"""

from __future__ import annotations


def is_available() -> bool:
    """False: this version of Treadle runs on the CPU only."""
    return False


def device_count() -> int:
    """0, as ``is_available`` says."""
    return 0


__all__ = ["device_count", "is_available"]
