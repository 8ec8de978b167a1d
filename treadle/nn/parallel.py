"""PyTorch's way to use several devices in one process: there is one."""

from __future__ import annotations

from typing import Any

from treadle.nn.module import Module


class DataParallel(Module):
    """The module itself, as ``module``: batches are cut for threads anyway."""

    def __init__(
        self, module: Module, device_ids: Any = None, output_device: Any = None, dim: int = 0
    ) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """What the module computes."""
        return self.module(*inputs, **kwargs)


def data_parallel(
    module: Module, inputs: Any, device_ids: Any = None, output_device: Any = None, dim: int = 0,
    module_kwargs: dict[str, Any] | None = None,
) -> Any:  # fmt: skip
    """``module(*inputs)``."""
    items = inputs if isinstance(inputs, tuple) else (inputs,)
    return module(*items, **(module_kwargs or {}))


__all__ = ["DataParallel", "data_parallel"]
