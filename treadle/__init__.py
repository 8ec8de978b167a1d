"""Treadle: a deep learning framework.

You write plain Python with PyTorch's names; it runs on kernels that Treadle generates itself.

>>> import treadle
>>> x = treadle.tensor([1.0, 2.0, 3.0], requires_grad=True)
>>> (x**2).sum().backward()
>>> x.grad
tensor([2., 4., 6.])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from treadle.base.dtypes import (
    DType,
    bfloat16,
    float16,
    float32,
    float64,
    get_default_dtype,
    int8,
    int16,
    int32,
    int64,
    promote_types,
    set_default_dtype,
    uint8,
)
from treadle.base.dtypes import DType as dtype
from treadle.base.dtypes import bool_ as bool
from treadle.base.dtypes import float16 as half
from treadle.base.dtypes import float32 as float
from treadle.base.dtypes import float64 as double
from treadle.base.dtypes import int16 as short
from treadle.base.dtypes import int32 as int
from treadle.base.dtypes import int64 as long
from treadle.random import (
    Generator,
    bernoulli,
    default_generator,
    get_rng_state,
    initial_seed,
    manual_seed,
    multinomial,
    normal,
    rand,
    rand_like,
    randint,
    randint_like,
    randn,
    randn_like,
    randperm,
    seed,
    set_rng_state,
)
from treadle.runtime import cpu as _cpu
from treadle.runtime.memory import empty_cache, memory_stats
from treadle.runtime.pool import get_num_threads, set_num_threads
from treadle.tensor.arithmetic import (
    abs,
    add,
    addcdiv,
    addcmul,
    bitwise_and,
    bitwise_left_shift,
    bitwise_not,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
    ceil,
    clamp,
    cos,
    div,
    eq,
    erf,
    exp,
    expm1,
    floor,
    floor_divide,
    fmod,
    ge,
    gt,
    isfinite,
    isinf,
    isnan,
    le,
    lerp,
    log,
    log1p,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    lt,
    maximum,
    minimum,
    mul,
    ne,
    neg,
    pow,
    reciprocal,
    relu,
    remainder,
    round,
    sigmoid,
    sign,
    sin,
    sqrt,
    square,
    sub,
    tanh,
    trunc,
)
from treadle.tensor.closeness import allclose, equal, isclose, nan_to_num
from treadle.tensor.contraction import addmm, bmm, dot, matmul, mm, mv, outer
from treadle.tensor.counting import *  # noqa: F403
from treadle.tensor.creation import (
    arange,
    as_tensor,
    asarray,
    empty,
    empty_like,
    eye,
    from_numpy,
    full,
    full_like,
    is_tensor,
    linspace,
    numel,
    ones,
    ones_like,
    tensor,
    zeros,
    zeros_like,
)
from treadle.tensor.cumulative import *  # noqa: F403
from treadle.tensor.exchange import from_dlpack
from treadle.tensor.functions import *  # noqa: F403
from treadle.tensor.grad_mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
)
from treadle.tensor.joining import *  # noqa: F403
from treadle.tensor.memory import memory_by_owner, memory_summary, reset_peak_memory_stats
from treadle.tensor.movement import *  # noqa: F403
from treadle.tensor.printing import get_printoptions, printoptions, set_printoptions
from treadle.tensor.reduction import (
    all,
    amax,
    amin,
    any,
    argmax,
    argmin,
    count_nonzero,
    log_softmax,
    logsumexp,
    max,
    mean,
    min,
    norm,
    prod,
    softmax,
    std,
    std_mean,
    sum,
    var,
    var_mean,
)
from treadle.tensor.selection import *  # noqa: F403
from treadle.tensor.sorting import *  # noqa: F403
from treadle.tensor.tensor import Device as device
from treadle.tensor.tensor import Size, Tensor

if TYPE_CHECKING:
    from treadle import (
        autograd,
        cuda,
        data,
        io,
        nn,
        optim,
        random,
        special,
        testing,
        train,
        utils,
        vision,
    )
    from treadle.io import load, save

__version__ = "0.1.0"

multiply, divide, subtract, negative, absolute, clip = mul, div, sub, neg, abs, clamp
true_divide = div

_LAZY = frozenset({
    "autograd", "cuda", "data", "io", "nn", "optim", "random", "special", "testing",
    "train", "utils", "vision",
})  # fmt: skip
_FROM_IO = frozenset({"load", "save"})


def __getattr__(name: str) -> Any:
    """Rooms that a program may not need are imported when they are first named."""
    if name in _LAZY:
        return importlib.import_module(f"treadle.{name}")
    if name in _FROM_IO:
        return getattr(importlib.import_module("treadle.io"), name)
    raise AttributeError(f"module 'treadle' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_FROM_IO})
