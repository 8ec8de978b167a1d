"""What is done with the parameters of networks: clipping, norms, pruning, parametrisations.

What a program may not use is loaded when it is first named.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from treadle.nn.utils import rnn as rnn
from treadle.nn.utils.clip_grad import *  # noqa: F403
from treadle.nn.utils.convert_parameters import *  # noqa: F403

if TYPE_CHECKING:
    from treadle.nn.utils import parametrizations as parametrizations
    from treadle.nn.utils import parametrize as parametrize
    from treadle.nn.utils import prune as prune
    from treadle.nn.utils import stateless as stateless
    from treadle.nn.utils.fusion import *  # noqa: F403
    from treadle.nn.utils.init import *  # noqa: F403
    from treadle.nn.utils.memory_format import *  # noqa: F403
    from treadle.nn.utils.spectral_norm_hook import *  # noqa: F403
    from treadle.nn.utils.weight_norm_hook import *  # noqa: F403

_MODULES = ("parametrizations", "parametrize", "prune", "stateless")
_WHERE = {
    name: module
    for module, names in {
        "fusion": "fuse_conv_bn_eval fuse_conv_bn_weights fuse_linear_bn_eval "
                  "fuse_linear_bn_weights",
        "init": "skip_init",
        "memory_format": "convert_conv2d_weight_memory_format convert_conv3d_weight_memory_format",
        "spectral_norm_hook": "remove_spectral_norm spectral_norm",
        "weight_norm_hook": "remove_weight_norm weight_norm",
    }.items()
    for name in names.split()
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Modules and functions are loaded when they are first named."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _WHERE:
        found = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
        globals()[name] = found  # also where a module has the function's name
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE, *_MODULES})
