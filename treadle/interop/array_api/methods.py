"""What tensors have for the array API standard."""

from __future__ import annotations

from typing import Any

from treadle.interop import array_api
from treadle.ir.node import located
from treadle.tensor.handle import Handle
from treadle.tensor.tensor import check_device


class Methods(Handle):
    """The namespace of an array, and moving it."""

    __slots__ = ()

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        """The namespace ``treadle.array_api``."""
        if api_version is not None and api_version > array_api.__array_api_version__:
            raise located(ValueError(
                f"__array_namespace__: got api_version={api_version!r}; this is "
                f"{array_api.__array_api_version__}"
            ))  # fmt: skip
        return array_api

    def to_device(self, device: Any, /, *, stream: Any = None) -> Any:
        """The tensor on a device: itself, on the CPU."""
        check_device(device)
        return self


__all__: list[str] = []
