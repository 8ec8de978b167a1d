"""Elementary and special functions written in loop IR, for f32 and f64.

Each takes a Builder and operands and emits code that vectorises at any width and gives the same
bits at every width. Its only branches are Ifs around what few arguments need (large angles,
reflections). f16 and bf16 are widened to f32 by the caller.

The bounds in the docstrings hold for every f32 (``python -m tools.sweep_math`` tries them all; pow
and every f64 function were measured on millions of points). ``python -m tools.minimax`` and
``tools.minimax_special`` derive the polynomials.
"""

from treadle.ops.mathlib.bessel import (
    bessel_j0,
    bessel_j1,
    bessel_y0,
    bessel_y1,
    i0,
    i0e,
    i1,
    i1e,
    modified_bessel_k0,
    modified_bessel_k1,
    scaled_modified_bessel_k0,
    scaled_modified_bessel_k1,
)
from treadle.ops.mathlib.composed import (
    copysign,
    entr,
    hypot,
    logaddexp,
    logaddexp2,
    logit,
    nextafter,
    rsqrt,
    xlog1py,
    xlogy,
)
from treadle.ops.mathlib.error_function import (
    erf,
    erfc,
    erfcx,
    erfinv,
    log_ndtr,
    ndtr,
    ndtri,
)
from treadle.ops.mathlib.exponential import exp, exp2, expm1, sigmoid, tanh
from treadle.ops.mathlib.gamma_function import digamma, lgamma, polygamma
from treadle.ops.mathlib.inverse import (
    acos,
    acosh,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    cosh,
    sinh,
)
from treadle.ops.mathlib.logarithm import log, log1p, log2, log10
from treadle.ops.mathlib.power import pow
from treadle.ops.mathlib.trigonometric import cos, sin, sinc, tan

BINARY = ("atan2", "pow")
UNARY = (
    "acos", "acosh", "asin", "asinh", "atan", "atanh", "bessel_j0", "bessel_j1", "bessel_y0",
    "bessel_y1", "cos", "cosh", "digamma", "erf", "erfc", "erfcx", "erfinv", "exp", "exp2",
    "expm1", "i0", "i0e", "i1", "i1e", "lgamma", "log", "log10", "log1p", "log2", "log_ndtr",
    "modified_bessel_k0", "modified_bessel_k1", "ndtr", "ndtri", "scaled_modified_bessel_k0",
    "scaled_modified_bessel_k1", "sigmoid", "sin", "sinc", "sinh", "tan", "tanh",
)  # fmt: skip

__all__ = [
    "BINARY", "UNARY", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "bessel_j0",
    "bessel_j1", "bessel_y0", "bessel_y1", "copysign", "cos", "cosh", "digamma", "entr", "erf",
    "erfc", "erfcx", "erfinv", "exp", "exp2", "expm1", "hypot", "i0", "i0e", "i1", "i1e", "lgamma",
    "log", "log10", "log1p", "log2", "log_ndtr", "logaddexp", "logaddexp2", "logit",
    "modified_bessel_k0", "modified_bessel_k1", "ndtr", "ndtri", "nextafter", "polygamma", "pow",
    "rsqrt", "scaled_modified_bessel_k0", "scaled_modified_bessel_k1", "sigmoid", "sin", "sinc",
    "sinh", "tan", "tanh", "xlog1py", "xlogy",
]  # fmt: skip
