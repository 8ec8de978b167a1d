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


def manual_seed(seed: int) -> None:
    """Accepted: there is no device whose generator could be seeded; use ``treadle.manual_seed``."""


manual_seed_all = manual_seed


def empty_cache() -> None:
    """Accepted: no device has memory to give back."""


__all__ = ["device_count", "empty_cache", "is_available", "manual_seed", "manual_seed_all"]
