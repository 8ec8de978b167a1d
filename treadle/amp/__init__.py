"""Automatic mixed precision: products in bfloat16, losses and sums in float32.

>>> import treadle
>>> layer = treadle.nn.Linear(3, 2)
>>> with treadle.autocast("cpu"):
...     y = layer(treadle.ones(1, 3))
>>> y.dtype, layer.weight.dtype
(treadle.bfloat16, treadle.float32)
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, Self

from treadle.amp.grad_scaler import GradScaler
from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.paths import add_paths
from treadle.ir.node import located, recorder
from treadle.tensor.autocast import cast_tensors

_DTYPES = (dtypes.bfloat16, dtypes.float16)
_KNOWN = ("cpu", "cuda", "xpu", "mps", "hpu", "mtia", "xla", "ipu", "opencl")


class Settings:
    """The dtypes that autocast takes unless one is given, by the device."""

    dtypes: dict[str, DType] = {"cpu": dtypes.bfloat16, "cuda": dtypes.float16}
    cache_enabled = True


def is_autocast_available(device_type: str) -> bool:
    """Whether autocast works on a device: on the CPU."""
    _check_device("is_autocast_available", device_type)
    return device_type == "cpu"


def _check_device(name: str, device_type: Any) -> None:
    if device_type not in _KNOWN:
        raise located(ValueError(
            f"{name}: got the device {device_type!r}; it is one of "
            f"{', '.join(map(repr, _KNOWN))}, without a number"
        ))  # fmt: skip


class autocast:
    """Mixed precision inside a ``with`` block, or of a function that it decorates.

    Products, convolutions and attention convert float32 tensors to ``dtype`` (bfloat16 unless
    given, or float16); losses and others that need the range convert to float32, as PyTorch does on
    the CPU (``tensor/autocast.py``). Everything else runs in the dtypes it gets. Blocks nest;
    ``enabled=False`` switches it off inside. Call ``backward`` outside. For devices that are not
    there it warns and does nothing.
    """

    def __init__(
        self, device_type: str, dtype: Any = None, enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:  # fmt: skip
        _check_device("autocast", device_type)
        kind = get_autocast_dtype(device_type) if dtype is None else dtypes.as_dtype(dtype)
        if enabled and device_type != "cpu":
            warnings.warn(
                f"autocast: the device {device_type!r} is not there, so it does nothing; use 'cpu'",
                stacklevel=2,
            )
            enabled = False
        if enabled and kind not in _DTYPES:
            warnings.warn(
                f"autocast: got dtype {kind.name}, so it does nothing; it takes bfloat16 or "
                f"float16",
                stacklevel=2,
            )
            enabled = False
        self.device = device_type
        self.fast_dtype = kind
        self._enabled = enabled
        self._before: list[DType | None] = []

    def __enter__(self) -> Self:
        self._before.append(recorder.state.autocast)
        recorder.state.autocast = self.fast_dtype if self._enabled else None
        return self

    def __exit__(self, *exc: object) -> None:
        recorder.state.autocast = self._before.pop()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, run in mixed precision."""

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return wrapped


class cpu_autocast(autocast):
    """PyTorch's older ``torch.cpu.amp.autocast``: ``autocast("cpu", ...)``."""

    def __init__(
        self, enabled: bool = True, dtype: Any = dtypes.bfloat16, cache_enabled: bool = True
    ) -> None:
        super().__init__("cpu", dtype, enabled, cache_enabled)


class cuda_autocast(autocast):
    """PyTorch's older ``torch.cuda.amp.autocast``: ``autocast("cuda", ...)``."""

    def __init__(
        self, enabled: bool = True, dtype: Any = dtypes.float16, cache_enabled: bool = True
    ) -> None:
        super().__init__("cuda", dtype, enabled, cache_enabled)


class CudaGradScaler(GradScaler):
    """PyTorch's older ``torch.cuda.amp.GradScaler``: ``GradScaler("cuda", ...)``."""

    def __init__(
        self, init_scale: float = 2.0**16, growth_factor: float = 2.0, backoff_factor: float = 0.5,
        growth_interval: int = 2000, enabled: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(
            "cuda", init_scale, growth_factor, backoff_factor, growth_interval, enabled
        )


class CpuGradScaler(GradScaler):
    """PyTorch's older ``torch.cpu.amp.GradScaler``: ``GradScaler("cpu", ...)``."""

    def __init__(
        self, init_scale: float = 2.0**16, growth_factor: float = 2.0, backoff_factor: float = 0.5,
        growth_interval: int = 2000, enabled: bool = True,
    ) -> None:  # fmt: skip
        super().__init__("cpu", init_scale, growth_factor, backoff_factor, growth_interval, enabled)


# --- functions of users' own ----------------------------------------------------------------------


def custom_fwd(
    fwd: Callable[..., Any] | None = None, *, device_type: str = "cpu", cast_inputs: Any = None
) -> Any:
    """Decorates ``forward`` of an ``autograd.Function``.

    With ``cast_inputs`` its tensors are converted to that dtype inside autocast, and autocast is
    off while it runs; without, it runs in the mode it is called in. ``custom_bwd`` restores that.
    """
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)
    _check_device("custom_fwd", device_type)

    @functools.wraps(fwd)
    def wrapped(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        active = recorder.state.autocast
        ctx._autocast = active if cast_inputs is None else None
        if active is None or cast_inputs is None:
            return fwd(ctx, *args, **kwargs)
        kind = dtypes.as_dtype(cast_inputs)
        with autocast(device_type, enabled=False):
            return fwd(ctx, *cast_tensors(args, kind), **cast_tensors(kwargs, kind))

    return wrapped


def custom_bwd(bwd: Callable[..., Any] | None = None, *, device_type: str = "cpu") -> Any:
    """Decorates ``backward``: it runs in the mode that ``forward`` ran in."""
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)

    @functools.wraps(bwd)
    def wrapped(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        before, recorder.state.autocast = recorder.state.autocast, ctx._autocast
        try:
            return bwd(ctx, *args, **kwargs)
        finally:
            recorder.state.autocast = before

    return wrapped


# --- PyTorch's functions of the state -------------------------------------------------------------


def is_autocast_enabled(device_type: str = "cpu") -> bool:
    """Whether autocast is on for a device."""
    _check_device("is_autocast_enabled", device_type)
    return device_type == "cpu" and recorder.state.autocast is not None


def set_autocast_enabled(device_type: Any, enabled: bool | None = None) -> None:
    """Switches autocast on or off: ``set_autocast_enabled("cpu", True)``."""
    if enabled is None:
        device_type, enabled = "cpu", device_type
    if device_type == "cpu":
        recorder.state.autocast = get_autocast_dtype("cpu") if enabled else None


def get_autocast_dtype(device_type: str) -> DType:
    """The dtype that autocast takes unless one is given."""
    _check_device("get_autocast_dtype", device_type)
    if device_type == "cpu" and recorder.state.autocast is not None:
        return recorder.state.autocast
    return Settings.dtypes.get(device_type, dtypes.bfloat16)


def set_autocast_dtype(device_type: str, dtype: Any) -> None:
    """Sets the dtype that autocast takes unless one is given."""
    _check_device("set_autocast_dtype", device_type)
    Settings.dtypes[device_type] = dtypes.as_dtype(dtype)


def is_autocast_cpu_enabled() -> bool:
    """``is_autocast_enabled("cpu")``."""
    return is_autocast_enabled("cpu")


def set_autocast_cpu_enabled(enabled: bool) -> None:
    """``set_autocast_enabled("cpu", enabled)``."""
    set_autocast_enabled("cpu", enabled)


def get_autocast_cpu_dtype() -> DType:
    """``get_autocast_dtype("cpu")``."""
    return get_autocast_dtype("cpu")


def set_autocast_cpu_dtype(dtype: Any) -> None:
    """``set_autocast_dtype("cpu", dtype)``."""
    set_autocast_dtype("cpu", dtype)


def get_autocast_gpu_dtype() -> DType:
    """``get_autocast_dtype("cuda")``."""
    return get_autocast_dtype("cuda")


def set_autocast_gpu_dtype(dtype: Any) -> None:
    """``set_autocast_dtype("cuda", dtype)``."""
    set_autocast_dtype("cuda", dtype)


def clear_autocast_cache() -> None:
    """Accepted for PyTorch's sake: a conversion that repeats is done once without a cache."""


def is_autocast_cache_enabled() -> bool:
    """What ``set_autocast_cache_enabled`` set, which changes nothing."""
    return Settings.cache_enabled


def set_autocast_cache_enabled(enabled: bool) -> None:
    """Accepted for PyTorch's sake, as ``clear_autocast_cache``."""
    Settings.cache_enabled = enabled


add_paths(__name__, {"autocast_mode": __name__})

__all__ = [
    "GradScaler", "autocast", "clear_autocast_cache", "custom_bwd", "custom_fwd",
    "get_autocast_cpu_dtype", "get_autocast_dtype", "get_autocast_gpu_dtype",
    "is_autocast_available", "is_autocast_cache_enabled", "is_autocast_cpu_enabled",
    "is_autocast_enabled", "set_autocast_cache_enabled", "set_autocast_cpu_dtype",
    "set_autocast_cpu_enabled", "set_autocast_dtype", "set_autocast_enabled",
    "set_autocast_gpu_dtype",
]  # fmt: skip
