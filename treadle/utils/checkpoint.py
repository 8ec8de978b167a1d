"""PyTorch's path to ``checkpoint`` and ``checkpoint_sequential``."""

from treadle.autograd.checkpointing import (
    checkpoint,
    checkpoint_sequential,
    noop_context_fn,
)

__all__ = ["checkpoint", "checkpoint_sequential", "noop_context_fn"]
