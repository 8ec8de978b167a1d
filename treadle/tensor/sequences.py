"""Tensors of numbers in a row: logspace, range, window functions, and differences of samples."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from treadle.base import dtypes
from treadle.base.lazy_numpy import np
from treadle.ir.node import located
from treadle.tensor import arithmetic as a
from treadle.tensor.creation import full, tensor
from treadle.tensor.cumulative import trapezoid
from treadle.tensor.handle import Handle
from treadle.tensor.joining import cat
from treadle.tensor.movement import axis_of, narrow, needs_dims, reshape, whole

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor


def logspace(
    start: float, end: float, steps: int, base: float = 10.0, *, dtype: Any = None,
    device: Any = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """``steps`` numbers from ``base**start`` to ``base**end``, evenly spaced in their exponents.

    >>> import treadle
    >>> treadle.logspace(0, 2, 3).tolist()
    [1.0, 10.0, 100.0]
    """
    if whole("logspace", steps, "steps") < 0:
        raise located(ValueError(
            f"logspace: got {steps} steps; their number must not be negative"
        ))  # fmt: skip
    values = np.logspace(float(start), float(end), steps, base=base)
    target = dtypes.get_default_dtype() if dtype is None else dtype
    return tensor(values, dtype=target, device=device, requires_grad=requires_grad)


def range(
    start: float = 0, end: float | None = None, step: float = 1, *, dtype: Any = None,
    device: Any = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """``start``, ``start + step``, ... up to ``end``, which is included: ``arange`` is not so.

    Floating-point unless a dtype is named, as in PyTorch, which advises against it.
    """
    first, last = (0, start) if end is None else (start, end)
    if step == 0 or (last - first) / step < 0:
        raise located(ValueError(
            f"range: got start {first}, end {last} and step {step}; the step must lead from start "
            f"to end and not be 0"
        ))  # fmt: skip
    count = math.floor((last - first) / step) + 1
    values = first + step * np.arange(count, dtype=np.float64)
    target = dtypes.get_default_dtype() if dtype is None else dtype
    return tensor(values, dtype=target, device=device, requires_grad=requires_grad)


def scalar_tensor(
    s: float, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A tensor without dimensions, of the default dtype unless one is named."""
    target = dtypes.get_default_dtype() if dtype is None else dtype
    return full((), s, dtype=target, device=device, requires_grad=requires_grad)


# --- windows --------------------------------------------------------------------------------------


def _window(
    name: str, length: int, periodic: bool, values: Callable[[Any, int], Any], dtype: Any,
    device: Any, requires_grad: bool,
) -> Tensor:  # fmt: skip
    """``values(n, last)`` for n = 0..last; a periodic window leaves out the last one."""
    if whole(name, length, "window_length") < 0:
        raise located(ValueError(f"{name}: got window_length {length}; it must not be negative"))
    target = dtypes.as_dtype(dtypes.get_default_dtype() if dtype is None else dtype)
    if not target.is_floating_point:
        raise located(TypeError(
            f"{name}: got dtype {target.name}; a window is of floating-point numbers"
        ))  # fmt: skip
    last = length if periodic else length - 1
    n = np.arange(length, dtype=np.float64)
    weights = np.ones(length) if length < 2 else values(n, last)
    return tensor(weights, dtype=target, device=device, requires_grad=requires_grad)


def _cosines(*shares: float) -> Callable[[Any, int], Any]:
    """``shares[0] - shares[1] cos(2 pi n / N) + shares[2] cos(4 pi n / N)``."""

    def values(n: Any, last: int) -> Any:
        return sum((-1) ** k * share * np.cos(2 * math.pi * k * n / last)
                   for k, share in enumerate(shares))  # fmt: skip

    return values


def hann_window(
    window_length: int, periodic: bool = True, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """``sin(pi n / N)^2`` with N the length, or one less where not ``periodic``."""
    return _window(
        "hann_window", window_length, periodic, _cosines(0.5, 0.5), dtype, device, requires_grad
    )


def hamming_window(
    window_length: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46, *,
    dtype: Any = None, device: Any = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """``alpha - beta cos(2 pi n / N)``."""
    return _window("hamming_window", window_length, periodic, _cosines(alpha, beta), dtype, device,
                   requires_grad)  # fmt: skip


def blackman_window(
    window_length: int, periodic: bool = True, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """``0.42 - 0.5 cos(2 pi n / N) + 0.08 cos(4 pi n / N)``."""
    return _window("blackman_window", window_length, periodic, _cosines(0.42, 0.5, 0.08), dtype,
                   device, requires_grad)  # fmt: skip


def bartlett_window(
    window_length: int, periodic: bool = True, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """``1 - |2 n / N - 1|``: a triangle."""
    return _window(
        "bartlett_window", window_length, periodic, lambda n, last: 1 - np.abs(2 * n / last - 1),
        dtype, device, requires_grad,
    )  # fmt: skip


def kaiser_window(
    window_length: int, periodic: bool = True, beta: float = 12.0, *, dtype: Any = None,
    device: Any = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """``i0(beta sqrt(1 - (2 n / N - 1)^2)) / i0(beta)``."""
    return _window(
        "kaiser_window", window_length, periodic,
        lambda n, last: np.i0(beta * np.sqrt(1 - (2 * n / last - 1) ** 2)) / np.i0(beta),
        dtype, device, requires_grad,
    )  # fmt: skip


# --- samples --------------------------------------------------------------------------------------


def gradient(
    input: Tensor, *, spacing: Any = 1, dim: Any = None, edge_order: int = 1
) -> tuple[Tensor, ...]:
    """Slopes along each dimension of ``dim`` (all if None), from samples ``spacing`` apart.

    ``spacing`` is a number, a number for each dimension, or for each a tensor of the places of the
    samples. Central differences inside; at the edges one-sided ones of two samples, or with
    ``edge_order`` 2 of three.

    >>> import treadle
    >>> treadle.gradient(treadle.tensor([1.0, 4.0, 9.0, 16.0]))[0].tolist()
    [3.0, 4.0, 6.0, 7.0]
    """
    shape = needs_dims("gradient", input)
    given = list(map(int, dim)) if isinstance(dim, (list, tuple)) else [dim]
    dims = [*builtins.range(len(shape))] if dim is None else given
    gaps = list(spacing) if isinstance(spacing, (list, tuple)) else [spacing] * len(dims)
    few = edge_order not in (1, 2) or any(shape[d] <= edge_order for d in dims)
    if few or len(gaps) != len(dims):
        raise located(ValueError(
            f"gradient: got edge_order {edge_order} and {len(gaps)} spacings for a tensor of shape "
            f"{shape}; the order is 1 or 2, every dimension needs more samples than that, and "
            f"there is a spacing for each"
        ))  # fmt: skip
    return tuple(
        _slope(input, axis_of("gradient", d, len(shape)), 1 if gap is None else gap, edge_order)
        for d, gap in zip(dims, gaps, strict=True)
    )


def _slope(x: Tensor, axis: int, spacing: Any, edge_order: int) -> Tensor:
    """The slopes along one axis: each from three samples, weighed by the gaps between them."""
    size = x.shape[axis]
    shape = tuple(-1 if i == axis else 1 for i in builtins.range(x.ndim))
    places: Any = spacing if isinstance(spacing, Handle) else _steps(size, x, float(spacing))
    places = reshape(places, shape)
    gaps = a.sub(narrow(places, axis, 1, size - 1), narrow(places, axis, 0, size - 1))
    steps = a.sub(narrow(x, axis, 1, size - 1), narrow(x, axis, 0, size - 1))
    slopes = a.div(steps, gaps)  # between neighbours

    def at(source: Tensor, start: int, count: int = 1) -> Tensor:
        return narrow(source, axis, start, count)

    inner = max(size - 2, 0)
    before, after = at(gaps, 0, inner), at(gaps, 1, inner)
    weighed = a.add(a.mul(at(slopes, 0, inner), after), a.mul(at(slopes, 1, inner), before))
    inside = a.div(weighed, a.add(before, after))
    if edge_order == 1:
        edges = at(slopes, 0), at(slopes, size - 2)
    else:
        edges = (
            _edge(at(slopes, 0), at(slopes, 1), at(gaps, 0), at(gaps, 1)),
            _edge(*[at(y, size - k) for y in (slopes, gaps) for k in (2, 3)]),
        )
    return cat([edges[0], inside, edges[1]], axis)


def _edge(near: Tensor, far: Tensor, near_gap: Tensor, far_gap: Tensor) -> Tensor:
    """The slope at an end of the parabola through three samples."""
    bend = a.div(a.sub(near, far), a.add(near_gap, far_gap))
    return a.add(near, a.mul(bend, near_gap))


def _steps(size: int, like: Tensor, spacing: float) -> Tensor:
    """0, spacing, 2 spacing, ..."""
    real = like.dtype.to_real()
    dtype = real if real.is_floating_point else dtypes.get_default_dtype()
    return tensor(np.arange(size) * spacing, dtype=dtype)


trapz = trapezoid

__all__ = [
    "bartlett_window", "blackman_window", "gradient", "hamming_window", "hann_window",
    "kaiser_window", "logspace", "range", "scalar_tensor", "trapz",
]  # fmt: skip
