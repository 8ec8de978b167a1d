"""Neural networks: modules, layers, losses. Names and arguments are PyTorch's.

>>> import treadle
>>> from treadle import nn
>>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
>>> tuple(net(treadle.zeros(3, 4)).shape)
(3, 2)
"""

from treadle.nn import functional, init, utils
from treadle.nn.activation import *  # noqa: F403
from treadle.nn.containers import ModuleDict, ModuleList, ParameterDict, ParameterList, Sequential
from treadle.nn.convolution import Conv1d, Conv2d, ConvTranspose2d
from treadle.nn.embedding import Dropout, Dropout2d, Embedding
from treadle.nn.linear import Flatten, Identity, Linear, Unflatten
from treadle.nn.loss import *  # noqa: F403
from treadle.nn.module import Module
from treadle.nn.normalization import BatchNorm1d, BatchNorm2d, GroupNorm, LayerNorm, RMSNorm
from treadle.nn.parameter import Parameter
from treadle.nn.pooling import *  # noqa: F403
