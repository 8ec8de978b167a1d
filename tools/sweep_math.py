"""Measures the f32 elementary functions on every one of the 2**32 bit patterns.

``python -m tools.sweep_math`` takes a few minutes per function; names choose among them, and
``--stride N`` takes every N-th pattern. The reference is the f64 function of the same name, whose
own error (the tests hold it to 2 ulp against mpmath) is 2**-28 of what is measured here. For pow
and atan2 each x meets a random y. Ends with exit code 1 where an error is above 2 ulp (the core
functions) or 4 ulp.
"""

from __future__ import annotations

import argparse
import sys
from typing import NamedTuple

import numpy as np

from treadle.base.dtypes import float32, float64
from treadle.ops import mathlib
from treadle.testing.elementary import Array, compiled, ulp_errors

CORE = {"exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "sigmoid", "erf", "pow"}
_CHUNK = 1 << 18  # elements at a time, so that all of it stays in the cache


class Worst(NamedTuple):
    """The largest error found, and where."""

    error: float
    arguments: tuple[float, ...]


def sweep(name: str, stride: int = 1) -> Worst:
    """The largest error (above 1/2) of an f32 function over every ``stride``-th bit pattern."""
    function, reference = compiled(name, float32), compiled(name, float64)
    random = np.random.default_rng(0)
    worst = Worst(0.5, ())
    for start in range(0, 1 << 32, _CHUNK * stride):
        stop = min(start + _CHUNK * stride, 1 << 32)
        operands = [np.arange(start, stop, stride, np.uint64).astype(np.uint32).view(np.float32)]
        if name in mathlib.BINARY:
            operands.append(_exponents(operands[0], random))
        result = function(*operands)
        with np.errstate(all="ignore"):
            exact = reference(*(a.astype(np.float64) for a in operands))
            doubtful = np.flatnonzero(
                result.view(np.int32) != exact.astype(np.float32).view(np.int32)
            )
        if doubtful.size:  # the others are correctly rounded
            errors = ulp_errors(result[doubtful], exact[doubtful])
            at = int(errors.argmax())
            if errors[at] > worst.error:
                worst = Worst(float(errors[at]), tuple(float(a[doubtful[at]]) for a in operands))
    return worst


def _exponents(x: Array, random: np.random.Generator) -> Array:
    """For each x a y with a finite x**y more often than not: of every size, some integers."""
    with np.errstate(all="ignore"):
        largest = 150 / np.abs(np.log2(np.abs(x.astype(np.float64))))
    y = random.uniform(-1, 1, x.size) * np.where(np.isfinite(largest), largest, 10)
    return np.where(random.integers(0, 4, x.size) == 0, np.rint(y), y).astype(np.float32)


def main() -> int:
    """Prints a line per function."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "names", nargs="*", default=[*mathlib.UNARY, *mathlib.BINARY], metavar="name"
    )
    parser.add_argument("--stride", type=int, default=1)
    options = parser.parse_args()
    failed = False
    for name in options.names:
        worst = sweep(name, options.stride)
        where = ", ".join(f"{a!r}" for a in worst.arguments)
        print(f"{name:8} {worst.error:.3f} ulp at {where}", flush=True)
        failed |= not worst.error <= (2 if name in CORE else 4)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
