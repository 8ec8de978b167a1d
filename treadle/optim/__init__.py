"""Optimizers and learning-rate schedules. Names, arguments and formulas are PyTorch's.

>>> import treadle
>>> from treadle import nn, optim
>>> layer = nn.Linear(2, 1)
>>> optimizer = optim.SGD(layer.parameters(), lr=0.1)
>>> loss = layer(treadle.ones(4, 2)).square().mean()
>>> optimizer.zero_grad()
>>> loss.backward()
>>> optimizer.step()
>>> bool(layer(treadle.ones(4, 2)).square().mean() < loss)
True
"""

from treadle.optim import hooks, lr_scheduler, swa_utils
from treadle.optim.adadelta import Adadelta
from treadle.optim.adafactor import Adafactor
from treadle.optim.adam import Adam, AdamW
from treadle.optim.adam_relatives import Adamax, NAdam, RAdam
from treadle.optim.adaptive import Adagrad, RMSprop
from treadle.optim.asgd import ASGD
from treadle.optim.lbfgs import LBFGS
from treadle.optim.muon import Muon, SparseAdam
from treadle.optim.optimizer import Optimizer
from treadle.optim.rprop import Rprop
from treadle.optim.sgd import SGD

__all__ = [
    "ASGD", "LBFGS", "SGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Muon",
    "NAdam", "Optimizer", "RAdam", "RMSprop", "Rprop", "SparseAdam", "hooks", "lr_scheduler",
    "swa_utils",
]  # fmt: skip
