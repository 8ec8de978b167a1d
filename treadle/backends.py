"""PyTorch's switches for its backends: accepted, and nothing hangs on them.

They choose between speed and reproducible or precise results, which are never at odds here.

>>> import treadle
>>> treadle.backends.cudnn.benchmark = True
>>> treadle.backends.cudnn.is_available()
False
"""

from __future__ import annotations

from typing import Any

from treadle.ir.node import located


class Backend:
    """A backend of PyTorch's that is not there: its switches can be set and read."""

    def __init__(self, **switches: Any) -> None:
        self.__dict__.update(switches)

    def is_available(self) -> bool:
        """False: Treadle has kernels of its own."""
        return False

    is_built = is_available

    def version(self) -> None:
        """None: there is none."""


cudnn = Backend(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
cuda = Backend(matmul=Backend(allow_tf32=False), cufft_plan_cache=Backend())
mps, mkl, mkldnn, openmp = Backend(), Backend(), Backend(enabled=True), Backend()

_PRECISIONS = ("highest", "high", "medium")
_chosen = {"precision": _PRECISIONS[0]}


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Accepted: all algorithms are deterministic, whatever ``mode`` says."""


def are_deterministic_algorithms_enabled() -> bool:
    """True: there are no others."""
    return True


def set_float32_matmul_precision(precision: str) -> None:
    """Allows products of float32 matrices to be less precise; they are not.

    ``precision`` is "highest", "high" or "medium".
    """
    if precision not in _PRECISIONS:
        raise located(ValueError(
            f"set_float32_matmul_precision: got {precision!r}; it is one of "
            f"{', '.join(map(repr, _PRECISIONS))}"
        ))  # fmt: skip
    _chosen["precision"] = precision


def get_float32_matmul_precision() -> str:
    """What ``set_float32_matmul_precision`` was last given."""
    return _chosen["precision"]


__all__ = [
    "are_deterministic_algorithms_enabled", "cuda", "cudnn", "get_float32_matmul_precision", "mkl",
    "mkldnn", "mps", "openmp", "set_float32_matmul_precision", "use_deterministic_algorithms",
]  # fmt: skip
