"""Elementary functions written in loop IR, for f32 and f64, at most 2 ulp over the whole range.

Each takes a Builder and operands and emits straight-line code without branches, so it vectorises
at any width and gives the same bits at every width. f16 and bf16 are widened to f32 by the caller.

The bounds in the docstrings hold for every f32 (``python -m tools.sweep_math`` tries them all; pow
and every f64 function were measured on millions of points). ``python -m tools.minimax`` derives the
polynomials.
"""

from treadle.ops.mathlib.error_function import erf
from treadle.ops.mathlib.exponential import exp, exp2, expm1, sigmoid, tanh
from treadle.ops.mathlib.logarithm import log, log1p, log2
from treadle.ops.mathlib.power import pow
from treadle.ops.mathlib.trigonometric import cos, sin

__all__ = [
    "cos", "erf", "exp", "exp2", "expm1", "log", "log1p", "log2", "pow", "sigmoid", "sin", "tanh",
]  # fmt: skip
