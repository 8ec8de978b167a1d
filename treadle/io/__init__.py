"""Files of tensors: safetensors, and checkpoints on top of it. Loading a file never runs code."""

from treadle.io.safetensors import (
    SafetensorsError,
    load_bytes,
    load_file,
    load_metadata,
    save_bytes,
    save_file,
)
from treadle.io.source import CheckpointError
from treadle.io.state import load, save

__all__ = [
    "CheckpointError", "SafetensorsError", "load", "load_bytes", "load_file", "load_metadata",
    "save", "save_bytes", "save_file",
]  # fmt: skip
