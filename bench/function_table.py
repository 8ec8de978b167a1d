"""The functions that ``bench/functions.py`` times, in PyTorch's dialect. Imports no framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

# Of one tensor of numbers from 0.1 to 0.9.
_ONE = (
    "abs neg sign sgn square reciprocal sqrt rsqrt exp exp2 expm1 log log2 log10 log1p sin cos "
    "tan asin acos atan sinh cosh tanh asinh atanh sigmoid erf erfc erfinv lgamma digamma sinc "
    "logit floor ceil round trunc frac deg2rad rad2deg isnan isinf isfinite isposinf isneginf "
    "signbit positive nan_to_num relu logical_not i0 clone zeros_like ones_like rand_like"
)
_OF_NN = (
    "relu6 elu selu celu gelu silu mish softplus softsign tanhshrink hardtanh hardsigmoid "
    "hardswish leaky_relu logsigmoid softshrink hardshrink"
)
_TWO = (
    "add sub mul div pow maximum minimum fmax fmin fmod remainder floor_divide atan2 hypot "
    "copysign heaviside nextafter logaddexp logaddexp2 xlogy eq ne lt le gt ge isclose "
    "logical_and logical_or logical_xor"
)
_WHOLE = (
    "sum mean prod amax amin max min argmax argmin var std norm count_nonzero any all logsumexp "
    "nansum nanmean median aminmax"
)
_ROWS = (
    "sum mean prod amax amin max argmax var std norm logsumexp softmax log_softmax cumsum "
    "cumprod cummax logcumsumexp sort argsort median flip"
)
_NEEDS_DIM = {"logsumexp"}

Case = Callable[[Any, "Operands"], Any]


class Operands:
    """What the cases of one size work on: n elements, also as a matrix, and places in them."""

    def __init__(self, T: Any, n: int) -> None:
        rng = np.random.default_rng(0)
        self.n = n

        def numbers(count: int) -> Any:
            return T.from_numpy(rng.uniform(0.1, 0.9, count).astype(np.float32))

        self.x, self.y, self.z = numbers(n), numbers(n), numbers(n)
        self.mask = T.from_numpy(rng.random(n) < 0.5)
        self.places = T.from_numpy(rng.integers(0, n, n))
        self.whole = T.from_numpy(rng.integers(1, 100, n))
        columns = max(int(n**0.5), 1)
        rows = n // columns
        self.rows = self.x[: rows * columns].reshape(rows, columns)
        self.at = T.from_numpy(rng.integers(0, columns, (rows, columns)))
        self.some = T.from_numpy(rng.integers(0, rows, rows))


_FURTHER: dict[str, Case] = {
    "add a number": lambda T, o: o.x + 1.5,
    "multiply by a number": lambda T, o: o.x * 1.5,
    "x ** 2": lambda T, o: o.x**2,
    "add int64": lambda T, o: o.whole + o.whole,
    "floor_divide int64": lambda T, o: o.whole // 7,
    "bitwise_and int64": lambda T, o: o.whole & 12,
    "to float64": lambda T, o: o.x.to(T.float64),
    "to int64": lambda T, o: o.x.to(T.int64),
    "clamp": lambda T, o: T.clamp(o.x, 0.2, 0.8),
    "where": lambda T, o: T.where(o.mask, o.x, o.y),
    "masked_fill": lambda T, o: o.x.masked_fill(o.mask, 0.0),
    "lerp": lambda T, o: T.lerp(o.x, o.y, 0.3),
    "addcmul": lambda T, o: T.addcmul(o.x, o.y, o.z),
    "addcdiv": lambda T, o: T.addcdiv(o.x, o.y, o.z),
    "take": lambda T, o: T.take(o.x, o.places),
    "x[places]": lambda T, o: o.x[o.places],
    "x[mask]": lambda T, o: o.x[o.mask],
    "index_select rows": lambda T, o: T.index_select(o.rows, 0, o.some),
    "gather": lambda T, o: T.gather(o.rows, 1, o.at),
    "scatter": lambda T, o: o.rows.scatter(1, o.at, o.rows),
    "scatter_add": lambda T, o: o.rows.scatter_add(1, o.at, o.rows),
    "index_add": lambda T, o: o.x.index_add(0, o.places, o.y),
    "nonzero": lambda T, o: T.nonzero(o.mask),
    "searchsorted": lambda T, o: T.searchsorted(T.linspace(0, 1, 1000), o.x),
    "bincount": lambda T, o: T.bincount(o.whole),
    "histc": lambda T, o: T.histc(o.x, 100, 0.0, 1.0),
    "unique": lambda T, o: T.unique(o.whole),
    "topk rows": lambda T, o: T.topk(o.rows, min(10, o.rows.shape[1])),
    "transposed copy": lambda T, o: o.rows.t().contiguous(),
    "cat": lambda T, o: T.cat([o.x, o.y]),
    "stack": lambda T, o: T.stack([o.x, o.y]),
    "repeat": lambda T, o: o.x.repeat(2),
    "roll": lambda T, o: T.roll(o.x, 7),
    "tril": lambda T, o: T.tril(o.rows),
    "diff": lambda T, o: T.diff(o.x),
    "outer sum": lambda T, o: o.rows + o.rows[:1],
    "dot": lambda T, o: T.dot(o.x, o.y),
    "zeros": lambda T, o: T.zeros(o.n),
    "full": lambda T, o: T.full((o.n,), 1.5),
    "arange": lambda T, o: T.arange(o.n),
    "randn": lambda T, o: T.randn(o.n),
}


def _along(name: str) -> Case:
    if name == "flip":
        return lambda T, o: T.flip(o.rows, (1,))
    return lambda T, o: getattr(T, name)(o.rows, dim=1)


def _whole(name: str) -> Case:
    if name in _NEEDS_DIM:
        return lambda T, o: getattr(T, name)(o.x, dim=0)
    return lambda T, o: getattr(T, name)(o.x)


CASES: dict[str, Case] = {
    **{name: (lambda T, o, name=name: getattr(T, name)(o.x)) for name in _ONE.split()},
    **{
        name: (lambda T, o, name=name: getattr(T.nn.functional, name)(o.x))
        for name in _OF_NN.split()
    },
    **{name: (lambda T, o, name=name: getattr(T, name)(o.x, o.y)) for name in _TWO.split()},
    **{f"{name} of all": _whole(name) for name in _WHOLE.split()},
    **{f"{name} of rows": _along(name) for name in _ROWS.split()},
    **_FURTHER,
}


class Functions:
    """The cases of one size at a time, each as a call without arguments."""

    def __init__(self, T: Any) -> None:
        self._framework = T
        self._operands: Operands | None = None

    def call(self, name: str, n: int) -> Callable[[], Any]:
        """What computes the case once."""
        T = self._framework
        if self._operands is None or self._operands.n != n:
            self._operands = Operands(T, n)
        case, operands = CASES[name], self._operands

        def once() -> Any:
            with T.no_grad():
                return case(T, operands)

        return once
