"""Neural networks: modules, layers, losses. Names and arguments are PyTorch's.

>>> import treadle
>>> from treadle import nn
>>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
>>> tuple(net(treadle.zeros(3, 4)).shape)
(3, 2)
"""

import importlib
from typing import Any

from treadle.nn import functional as functional
from treadle.nn import init as init
from treadle.nn import utils as utils
from treadle.nn.activation import *  # noqa: F403
from treadle.nn.adaptive import *  # noqa: F403
from treadle.nn.arrangement import *  # noqa: F403
from treadle.nn.attention import *  # noqa: F403
from treadle.nn.bilinear import *  # noqa: F403
from treadle.nn.containers import *  # noqa: F403
from treadle.nn.convolution import *  # noqa: F403
from treadle.nn.embedding import *  # noqa: F403
from treadle.nn.lazy import *  # noqa: F403
from treadle.nn.linear import *  # noqa: F403
from treadle.nn.loss import *  # noqa: F403
from treadle.nn.margin_loss import *  # noqa: F403
from treadle.nn.module import Module as Module
from treadle.nn.normalization import *  # noqa: F403
from treadle.nn.padding import *  # noqa: F403
from treadle.nn.parallel import DataParallel as DataParallel
from treadle.nn.parameter import Buffer as Buffer
from treadle.nn.parameter import Parameter as Parameter
from treadle.nn.parameter import UninitializedBuffer as UninitializedBuffer
from treadle.nn.parameter import UninitializedParameter as UninitializedParameter
from treadle.nn.pooling import *  # noqa: F403
from treadle.nn.recurrent import *  # noqa: F403
from treadle.nn.transformer import *  # noqa: F403
from treadle.nn.upsampling import *  # noqa: F403

NLLLoss2d = NLLLoss  # PyTorch's older name  # noqa: F405


def __getattr__(name: str) -> Any:
    """PyTorch's paths, and what few programs use."""
    if name in ("common_types", "grad", "modules", "parallel"):
        return importlib.import_module(f"treadle.nn.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
