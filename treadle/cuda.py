"""What programs written for PyTorch ask of ``torch.cuda``: there is no such device yet.

>>> import treadle
>>> treadle.device("cuda" if treadle.cuda.is_available() else "cpu")
device('cpu')
"""

from __future__ import annotations

from typing import Any, NoReturn

from treadle.base.errors import DeviceError
from treadle.base.paths import add_paths
from treadle.ir.node import located


def is_available() -> bool:
    """False: this version of Treadle runs on the CPU only."""
    return False


def is_initialized() -> bool:
    """False, as ``is_available`` says."""
    return False


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """False, as ``is_available`` says."""
    return False


def device_count() -> int:
    """0, as ``is_available`` says."""
    return 0


def _absent(*args: Any, **kwargs: Any) -> NoReturn:
    """Raises DeviceError: there is no CUDA device yet."""
    raise located(DeviceError(
        "there is no CUDA device: this version of Treadle runs on the CPU only; ask "
        "treadle.cuda.is_available() first"
    ))  # fmt: skip


current_device = get_device_name = get_device_properties = get_device_capability = _absent
set_device = current_stream = default_stream = Stream = Event = device = stream = init = _absent
get_rng_state = set_rng_state = mem_get_info = _absent


def manual_seed(seed: int) -> None:
    """Accepted: there is no device whose generator could be seeded; use ``treadle.manual_seed``."""


manual_seed_all = manual_seed


def empty_cache() -> None:
    """Accepted: no device has memory to give back."""


def synchronize(device: Any = None) -> None:
    """Accepted: there is nothing to wait for."""


def ipc_collect() -> None:
    """Accepted: no device has memory to give back."""


def reset_peak_memory_stats(device: Any = None) -> None:
    """Accepted: no device has memory; ``treadle.reset_peak_memory_stats`` is the CPU's."""


def memory_allocated(device: Any = None) -> int:
    """0: no device has memory; ``treadle.memory_stats`` is the CPU's."""
    return 0


max_memory_allocated = memory_reserved = max_memory_reserved = memory_allocated

add_paths(
    __name__, {"amp": "treadle.amp"}, {"autocast": "cuda_autocast", "GradScaler": "CudaGradScaler"}
)

__all__ = [
    "current_device", "device_count", "empty_cache", "get_device_name", "get_device_properties",
    "is_available", "is_bf16_supported", "is_initialized", "manual_seed", "manual_seed_all",
    "max_memory_allocated", "max_memory_reserved", "memory_allocated", "memory_reserved",
    "reset_peak_memory_stats", "set_device", "synchronize",
]  # fmt: skip
