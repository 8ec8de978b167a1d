"""Window functions: weights of ``M`` samples in a row that fall off towards both ends.

Symmetric, or with ``sym=False`` the first ``M`` of a symmetric one of ``M + 1``, which continues
periodically. In float32 or float64, computed in float64 and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from treadle.base import dtypes
from treadle.base.lazy_numpy import np
from treadle.ir.node import located
from treadle.tensor.creation import tensor
from treadle.tensor.tensor import Tensor


def _window(
    name: str, M: int, values: Callable[[Any, int], Any], *, sym: bool = True, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """``values(n, N)`` for n = 0 .. M - 1, of a symmetric window with the places 0 .. N."""
    if not isinstance(M, int) or M < 0:
        raise located(ValueError(f"{name}: got M={M!r}; it takes a length, not negative"))
    target = dtypes.as_dtype(dtypes.get_default_dtype() if dtype is None else dtype)
    if target not in (dtypes.float32, dtypes.float64):
        raise located(ValueError(
            f"{name}: got dtype {target.name}; a window is float32 or float64"
        ))  # fmt: skip
    n = np.arange(M, dtype=np.float64)
    made = values(n, M - 1 if sym or M == 1 else M)
    return tensor(made, dtype=target, device=device, requires_grad=requires_grad)


def general_cosine(M: int, *, a: Iterable[float], **options: Any) -> Tensor:
    """``a[0] - a[1] cos(2 pi n / N) + a[2] cos(4 pi n / N) - ...``; options as of ``hann``."""
    if not isinstance(a, Iterable):
        raise located(TypeError(f"general_cosine: got a={a!r}; it takes a list of numbers"))
    shares = list(a)
    if not shares:
        raise located(ValueError("general_cosine: got no coefficients a; it takes at least one"))

    def values(n: Any, last: int) -> Any:
        terms = ((-1) ** k * share * np.cos(2 * math.pi * k * n / last)
                 for k, share in enumerate(shares))  # fmt: skip
        return sum(terms) if len(n) != 1 else np.ones(1)

    return _window("general_cosine", M, values, **options)


def general_hamming(M: int, *, alpha: float = 0.54, **options: Any) -> Tensor:
    """``alpha - (1 - alpha) cos(2 pi n / N)``."""
    return general_cosine(M, a=[alpha, 1.0 - alpha], **options)


def hamming(M: int, **options: Any) -> Tensor:
    """``0.54 - 0.46 cos(2 pi n / N)``."""
    return general_hamming(M, **options)


def hann(
    M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """``(1 - cos(2 pi n / N)) / 2`` with N = M - 1, or M where not ``sym``.

    >>> hann(5).tolist()
    [0.0, 0.5, 1.0, 0.5, 0.0]
    >>> hann(4, sym=False).tolist()
    [0.0, 0.5, 1.0, 0.5]
    """
    return general_hamming(
        M, alpha=0.5, sym=sym, dtype=dtype, device=device, requires_grad=requires_grad
    )


def blackman(M: int, **options: Any) -> Tensor:
    """``0.42 - 0.5 cos(2 pi n / N) + 0.08 cos(4 pi n / N)``."""
    return general_cosine(M, a=[0.42, 0.5, 0.08], **options)


def nuttall(M: int, **options: Any) -> Tensor:
    """The four-term window with the lowest side lobes whose first derivative is continuous."""
    return general_cosine(M, a=[0.3635819, 0.4891775, 0.1365995, 0.0106411], **options)


def bartlett(M: int, **options: Any) -> Tensor:
    """``1 - |2 n / N - 1|``: a triangle."""
    return _window(
        "bartlett", M, lambda n, last: 1 - np.abs(2 * n / max(last, 1) - (last > 0)), **options
    )


def cosine(M: int, *, sym: bool = True, **options: Any) -> Tensor:
    """``sin(pi (n + 1/2) / (N + 1))``: half a wave."""
    return _window(
        "cosine", M, lambda n, last: np.sin(math.pi * (n + 0.5) / (last + 1)), sym=sym, **options
    )


def exponential(
    M: int, *, center: float | None = None, tau: float = 1.0, sym: bool = True, **options: Any
) -> Tensor:
    """``exp(-|n - center| / tau)``; the center is N / 2, or another place where not ``sym``."""
    if tau <= 0:
        raise located(ValueError(f"exponential: got tau={tau}; it must be positive"))
    if sym and center is not None:
        raise located(ValueError(
            f"exponential: got center={center} for a symmetric window; leave it out, or sym=False"
        ))  # fmt: skip

    def values(n: Any, last: int) -> Any:
        return np.exp(-np.abs(n - (last / 2 if center is None else center)) / tau)

    return _window("exponential", M, values, sym=sym, **options)


def gaussian(M: int, *, std: float = 1.0, **options: Any) -> Tensor:
    """``exp(-((n - N / 2) / std)^2 / 2)``."""
    if std <= 0:
        raise located(ValueError(f"gaussian: got std={std}; it must be positive"))
    return _window(
        "gaussian", M, lambda n, last: np.exp(-(((n - last / 2) / std) ** 2) / 2), **options
    )


def kaiser(M: int, *, beta: float = 12.0, **options: Any) -> Tensor:
    """``i0(beta sqrt(1 - (2 n / N - 1)^2)) / i0(beta)``."""
    if beta < 0:
        raise located(ValueError(f"kaiser: got beta={beta}; it must not be negative"))

    def values(n: Any, last: int) -> Any:
        if last < 1:
            return np.ones(len(n))
        off = 2 * n / last - 1
        return np.i0(beta * np.sqrt(np.maximum(1 - off * off, 0))) / np.i0(beta)

    return _window("kaiser", M, values, **options)


__all__ = [
    "bartlett", "blackman", "cosine", "exponential", "gaussian", "general_cosine",
    "general_hamming", "hamming", "hann", "kaiser", "nuttall",
]  # fmt: skip
