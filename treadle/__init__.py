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
from math import e, inf, nan, pi
from typing import TYPE_CHECKING, Any

from treadle.base.dtypes import (
    DType,
    bfloat16,
    complex64,
    complex128,
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
    uint16,
    uint32,
    uint64,
)
from treadle.base.dtypes import DType as dtype
from treadle.base.dtypes import bool_ as bool
from treadle.base.dtypes import complex64 as cfloat
from treadle.base.dtypes import complex128 as cdouble
from treadle.base.dtypes import float16 as half
from treadle.base.dtypes import float32 as float
from treadle.base.dtypes import float64 as double
from treadle.base.dtypes import int16 as short
from treadle.base.dtypes import int32 as int
from treadle.base.dtypes import int64 as long
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
from treadle.tensor.grad_mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
)
from treadle.tensor.later import WHERE as _FUNCTIONS
from treadle.tensor.later import hand_over as _hand_over
from treadle.tensor.tensor import Device as device
from treadle.tensor.tensor import Size, Tensor

if TYPE_CHECKING:
    from treadle import (
        amp,
        array_api,
        autograd,
        backends,
        cuda,
        data,
        distributions,
        fft,
        func,
        io,
        linalg,
        nn,
        optim,
        profiler,
        random,
        signal,
        special,
        testing,
        train,
        utils,
        vision,
    )
    from treadle.amp import (
        GradScaler,
        autocast,
        clear_autocast_cache,
        get_autocast_cpu_dtype,
        get_autocast_dtype,
        get_autocast_gpu_dtype,
        is_autocast_cache_enabled,
        is_autocast_cpu_enabled,
        is_autocast_enabled,
        set_autocast_cache_enabled,
        set_autocast_cpu_dtype,
        set_autocast_cpu_enabled,
        set_autocast_dtype,
        set_autocast_enabled,
        set_autocast_gpu_dtype,
    )
    from treadle.backends import (
        are_deterministic_algorithms_enabled,
        get_float32_matmul_precision,
        set_float32_matmul_precision,
        use_deterministic_algorithms,
    )
    from treadle.compiler.explain import explain
    from treadle.fft.short_time import istft, stft
    from treadle.func import vmap
    from treadle.io import load, save
    from treadle.linalg.aliases import (
        cholesky,
        cholesky_inverse,
        cholesky_solve,
        det,
        frobenius_norm,
        geqrf,
        inverse,
        logdet,
        lstsq,
        lu,
        lu_solve,
        lu_unpack,
        matrix_exp,
        matrix_power,
        matrix_rank,
        nuclear_norm,
        orgqr,
        ormqr,
        pinverse,
        qr,
        slogdet,
        svd,
        triangular_solve,
    )
    from treadle.linalg.lowrank import lobpcg, pca_lowrank, svd_lowrank
    from treadle.nn.functional import (
        adaptive_avg_pool1d,
        alpha_dropout,
        avg_pool1d,
        bilinear,
        celu,
        channel_shuffle,
        conv1d,
        conv2d,
        conv3d,
        conv_transpose1d,
        conv_transpose2d,
        conv_transpose3d,
        cosine_similarity,
        dropout,
        feature_alpha_dropout,
        group_norm,
        hardshrink,
        layer_norm,
        max_pool1d,
        max_pool2d,
        pairwise_distance,
        pixel_shuffle,
        pixel_unshuffle,
        prelu,
        rms_norm,
        rrelu,
        selu,
        threshold,
    )
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
    from treadle.random.gamma import binomial, poisson
    from treadle.tensor.assembly import *  # noqa: F403
    from treadle.tensor.closeness import *  # noqa: F403
    from treadle.tensor.complex_numbers import *  # noqa: F403
    from treadle.tensor.contraction import *  # noqa: F403
    from treadle.tensor.control import *  # noqa: F403
    from treadle.tensor.copies import *  # noqa: F403
    from treadle.tensor.counting import *  # noqa: F403
    from treadle.tensor.cumulative import *  # noqa: F403
    from treadle.tensor.einsum import *  # noqa: F403
    from treadle.tensor.exchange import *  # noqa: F403
    from treadle.tensor.functions import *  # noqa: F403
    from treadle.tensor.further import *  # noqa: F403
    from treadle.tensor.joining import *  # noqa: F403
    from treadle.tensor.memory import *  # noqa: F403
    from treadle.tensor.movement import *  # noqa: F403
    from treadle.tensor.printing import *  # noqa: F403
    from treadle.tensor.products import *  # noqa: F403
    from treadle.tensor.queries import *  # noqa: F403
    from treadle.tensor.reduction import *  # noqa: F403
    from treadle.tensor.scattering import *  # noqa: F403
    from treadle.tensor.selection import *  # noqa: F403
    from treadle.tensor.sequences import *  # noqa: F403
    from treadle.tensor.sorting import *  # noqa: F403
    from treadle.tensor.spellings import *  # noqa: F403
    from treadle.tensor.statistics import *  # noqa: F403
    from treadle.tensor.strided import *  # noqa: F403

__version__ = "0.1.0"

multiply, divide, subtract, negative, absolute, clip = mul, div, sub, neg, abs, clamp
true_divide = div
newaxis = None

_ROOMS = frozenset({
    "amp", "array_api", "autograd", "backends", "cuda", "data", "distributions", "export", "fft",
    "func", "io", "linalg", "nn", "optim", "profiler", "random", "signal", "special", "testing",
    "train", "utils", "vision",
})  # fmt: skip
_OF_ROOMS = {
    "amp": "GradScaler autocast clear_autocast_cache get_autocast_cpu_dtype get_autocast_dtype "
           "get_autocast_gpu_dtype is_autocast_cache_enabled is_autocast_cpu_enabled "
           "is_autocast_enabled set_autocast_cache_enabled set_autocast_cpu_dtype "
           "set_autocast_cpu_enabled set_autocast_dtype set_autocast_enabled "
           "set_autocast_gpu_dtype",
    "backends": "are_deterministic_algorithms_enabled get_float32_matmul_precision "
                "set_float32_matmul_precision use_deterministic_algorithms",
    "compiler.explain": "explain",
    "func": "vmap",
    "tensor.compiling": "compile",
    "io": "load save",
    "fft.short_time": "istft stft",
    "linalg.lowrank": "lobpcg pca_lowrank svd_lowrank",
    "linalg.aliases": "cholesky cholesky_inverse cholesky_solve det frobenius_norm geqrf inverse "
                      "logdet lstsq lu lu_solve lu_unpack matrix_exp matrix_power matrix_rank "
                      "nuclear_norm orgqr ormqr pinverse qr slogdet svd triangular_solve",
    "nn.functional": "adaptive_avg_pool1d alpha_dropout avg_pool1d bilinear celu channel_shuffle "
                     "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d "
                     "cosine_similarity dropout feature_alpha_dropout group_norm hardshrink "
                     "layer_norm max_pool1d max_pool2d pairwise_distance pixel_shuffle "
                     "pixel_unshuffle prelu rms_norm rrelu selu threshold",
    "random": "Generator bernoulli default_generator get_rng_state initial_seed manual_seed "
              "multinomial normal rand rand_like randint randint_like randn randn_like randperm "
              "seed set_rng_state",
    "random.gamma": "binomial poisson",
}  # fmt: skip
_RANDOM_METHODS = (
    "bernoulli bernoulli_ cauchy_ exponential_ geometric_ log_normal_ multinomial normal_ random_ "
    "uniform_"
)
_LINALG_METHODS = (
    "cholesky cholesky_inverse cholesky_solve det geqrf inverse logdet lstsq lu lu_solve "
    "matrix_exp matrix_power orgqr ormqr pinverse qr slogdet svd triangular_solve"
)
_hand_over("treadle.random.sampling", _RANDOM_METHODS)
_hand_over("treadle.linalg.aliases", _LINALG_METHODS)
_hand_over("treadle.fft.short_time", "istft stft")
_hand_over("treadle.interop.array_api.methods", "__array_namespace__ to_device")
_MODULES = _FUNCTIONS | {
    name: f"treadle.{room}" for room, names in _OF_ROOMS.items() for name in names.split()
}


def __getattr__(name: str) -> Any:
    """What a program may not need is imported when it is first named."""
    if name in _ROOMS:
        return importlib.import_module(f"treadle.{name}")
    if name in _MODULES:
        found = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
        return found
    if name.endswith("_") and not name.startswith("_") and hasattr(Tensor, name):
        return getattr(Tensor, name)  # in place: ``relu_(x)`` is ``x.relu_()``
    from treadle.tensor.absent import why_absent

    why = why_absent(name)
    raise AttributeError(f"module 'treadle' has no attribute {name!r}{f': {why}' if why else ''}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS, *_MODULES})
