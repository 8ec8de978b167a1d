"""PyTorch's paths of the layers, such as ``nn.modules.batchnorm._BatchNorm``.

>>> from treadle import nn
>>> isinstance(nn.BatchNorm2d(3), nn.modules.batchnorm._BatchNorm)
True
"""

from __future__ import annotations

import importlib
from typing import Any

from treadle.base.paths import add_paths

_PATHS = {
    "activation": "activation attention", "adaptive": "adaptive", "batchnorm": "normalization lazy",
    "channelshuffle": "arrangement", "container": "containers", "conv": "convolution lazy",
    "distance": "arrangement", "dropout": "embedding", "flatten": "linear", "fold": "arrangement",
    "instancenorm": "normalization lazy", "lazy": "lazy", "linear": "linear bilinear lazy",
    "loss": "loss margin_loss", "module": "module module_hooks module_state parameter",
    "normalization": "normalization", "padding": "padding", "pixelshuffle": "arrangement",
    "pooling": "pooling", "rnn": "recurrent", "sparse": "embedding bilinear",
    "transformer": "transformer", "upsampling": "upsampling", "utils": "tuples",
}  # fmt: skip
# Classes that programs ask for although they are private.
_NAMES = {
    "_NormBase": "_ChannelNorm", "_ConvNd": "_Convolution", "_ConvTransposeNd": "_Transposed",
    "_DropoutNd": "_Dropout", "_Loss": "Loss", "_WeightedLoss": "WeightedLoss",
}  # fmt: skip
add_paths(
    __name__,
    {k: " ".join(f"treadle.nn.{m}" for m in v.split()) for k, v in _PATHS.items()},
    _NAMES,
)


def __getattr__(name: str) -> Any:
    """The layers, which are in ``treadle.nn``."""
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("treadle.nn"), name)
