"""Orthogonal polynomials: ``chebyshev_polynomial_t(x, n)`` and its like, by their recurrences.

``n`` is a number or a tensor of whole numbers, which is evaluated to know how far to go. There are
no gradients, as in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.base import dtypes
from treadle.tensor import arithmetic as a
from treadle.tensor.creation import tensor
from treadle.tensor.tensor import Tensor

# P(n+1) from x, P(n), P(n-1) and n.
Step = Callable[[Any, Any, Any, int], Any]


def _define(
    name: str, formula: str, first: Callable[[Any], Any], step: Step, shift: bool = False
) -> Any:
    def polynomial(input: Any, n: Any) -> Tensor:
        dtype = a.common_dtype(name, input, n)
        real = dtype if dtype.is_floating_point else dtypes.get_default_dtype()
        x, order = (
            tensor(y, dtype=real) if not isinstance(y, Tensor) else y.detach().to(real)
            for y in (input, n)
        )
        x = 2 * x - 1 if shift else x
        whole = a.trunc(order)
        before, now = x * 0 + 1, first(x)
        out = a.where(a.lt(whole, 0), 0.0, before)
        highest = int(whole.max().item()) if whole.numel() else 0
        for k in range(1, highest + 1):
            out = a.where(a.eq(whole, k), now, out)
            before, now = now, step(x, now, before, k)
        return out + whole * 0

    polynomial.__name__ = polynomial.__qualname__ = name
    polynomial.__doc__ = f"{formula}; 0 for a negative n."
    return polynomial


def _chebyshev(x: Any, now: Any, before: Any, k: int) -> Any:
    return 2 * x * now - before


_FIRST: dict[str, Callable[[Any], Any]] = {
    "t": lambda x: x, "u": lambda x: 2 * x, "v": lambda x: 2 * x - 1, "w": lambda x: 2 * x + 1,
}  # fmt: skip
(
    chebyshev_polynomial_t, chebyshev_polynomial_u, chebyshev_polynomial_v, chebyshev_polynomial_w
) = (
    _define(f"chebyshev_polynomial_{kind}", f"Chebyshev's polynomial {kind.upper()}_n(x)", first,
            _chebyshev)
    for kind, first in _FIRST.items()
)  # fmt: skip
(
    shifted_chebyshev_polynomial_t, shifted_chebyshev_polynomial_u,
    shifted_chebyshev_polynomial_v, shifted_chebyshev_polynomial_w,
) = (
    _define(f"shifted_chebyshev_polynomial_{kind}",
            f"Chebyshev's polynomial {kind.upper()}_n(2x - 1)", first, _chebyshev, shift=True)
    for kind, first in _FIRST.items()
)  # fmt: skip
hermite_polynomial_h = _define(
    "hermite_polynomial_h", "Hermite's polynomial H_n(x), of physics", lambda x: 2 * x,
    lambda x, now, before, k: 2 * x * now - 2 * k * before,
)  # fmt: skip
hermite_polynomial_he = _define(
    "hermite_polynomial_he", "Hermite's polynomial He_n(x), of probability", lambda x: x,
    lambda x, now, before, k: x * now - k * before,
)  # fmt: skip
laguerre_polynomial_l = _define(
    "laguerre_polynomial_l", "Laguerre's polynomial L_n(x)", lambda x: 1 - x,
    lambda x, now, before, k: ((2 * k + 1 - x) * now - k * before) / (k + 1),
)  # fmt: skip
legendre_polynomial_p = _define(
    "legendre_polynomial_p", "Legendre's polynomial P_n(x)", lambda x: x,
    lambda x, now, before, k: ((2 * k + 1) * x * now - k * before) / (k + 1),
)  # fmt: skip

__all__ = [
    "chebyshev_polynomial_t", "chebyshev_polynomial_u", "chebyshev_polynomial_v",
    "chebyshev_polynomial_w", "hermite_polynomial_h", "hermite_polynomial_he",
    "laguerre_polynomial_l", "legendre_polynomial_p", "shifted_chebyshev_polynomial_t",
    "shifted_chebyshev_polynomial_u", "shifted_chebyshev_polynomial_v",
    "shifted_chebyshev_polynomial_w",
]  # fmt: skip
