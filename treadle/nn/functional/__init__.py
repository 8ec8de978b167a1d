"""PyTorch's ``torch.nn.functional``: layers and losses as functions."""

from treadle.nn.functional.activation import *  # noqa: F403
from treadle.nn.functional.arrangement import *  # noqa: F403
from treadle.nn.functional.attention import *  # noqa: F403
from treadle.nn.functional.bags import *  # noqa: F403
from treadle.nn.functional.combined import *  # noqa: F403
from treadle.nn.functional.convolution import *  # noqa: F403
from treadle.nn.functional.ctc import *  # noqa: F403
from treadle.nn.functional.embedding import *  # noqa: F403
from treadle.nn.functional.fractional import *  # noqa: F403
from treadle.nn.functional.further_pooling import *  # noqa: F403
from treadle.nn.functional.grid import *  # noqa: F403
from treadle.nn.functional.loss import *  # noqa: F403
from treadle.nn.functional.margin_loss import *  # noqa: F403
from treadle.nn.functional.normalization import *  # noqa: F403
from treadle.nn.functional.pooling import *  # noqa: F403
from treadle.nn.functional.upsampling import *  # noqa: F403
from treadle.nn.functional.volume_pooling import *  # noqa: F403
from treadle.tensor.contraction import linear as linear
from treadle.tensor.further import pdist as pdist
from treadle.tensor.joining import pad as pad
from treadle.tensor.selection import one_hot as one_hot
