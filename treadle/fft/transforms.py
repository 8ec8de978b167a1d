"""The discrete Fourier transforms of ``torch.fft``: one dimension, two, or any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.base import dtypes
from treadle.base.errors import DTypeError, ShapeError
from treadle.ir.node import Node, located, type_of
from treadle.ops import elementwise as e
from treadle.ops.complex import REALS
from treadle.ops.complex_functions import conj
from treadle.ops.fft import OPPOSITE, fft_c2c, fft_c2r, fft_r2c
from treadle.ops.movement import concatenate, slice_, zeros_of
from treadle.tensor.handle import wrap
from treadle.tensor.movement import axis_of, node_of

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor

Sizes = int | Sequence[int] | None


# --- arguments ----------------------------------------------------------------------------------


def _norm(name: str, norm: str | None) -> str:
    chosen = norm or "backward"
    if chosen not in OPPOSITE:
        raise located(ValueError(
            f"{name}: got norm={norm!r}; it is 'backward', 'ortho', 'forward' or None"
        ))  # fmt: skip
    return chosen


def _input(name: str, input: Any, kind: str) -> Node:
    """The operand as what the transform takes: complex ("c"), or real ("f")."""
    node = node_of(name, input)
    dtype = node.dtype
    if kind == "f" and dtype.kind == "c":
        raise located(DTypeError(
            f"{name}: got a tensor of dtype {dtype.name}; it takes real tensors: use the function "
            f"without the r (or ih) in its name"
        ))  # fmt: skip
    if dtype.kind in "iub":
        dtype = dtypes.get_default_dtype()
    if dtype.to_real() not in REALS:
        raise located(DTypeError(
            f"{name}: got a tensor of dtype {dtype.name}; it takes float32 and float64, real or "
            f"complex: convert it with .float() first"
        ))  # fmt: skip
    return e.cast(node, dtype.to_complex() if kind == "c" else dtype)


def _fitted(name: str, node: Node, axes: Sequence[int], sizes: Sequence[int]) -> Node:
    """The node cut, or continued with zeros, to these sizes along these axes."""
    for axis, size in zip(axes, sizes, strict=True):
        if size < 1:
            raise located(ShapeError(
                f"{name}: got {size} elements along dimension {axis} of a tensor of shape "
                f"{node.shape}; a transform takes at least 1"
            ))  # fmt: skip
        shape, have = node.shape, node.shape[axis]
        resized = (*shape[:axis], min(size, have), *shape[axis + 1 :])
        if size < have:
            rank = len(shape)
            node = slice_(node, starts=(0,) * rank, sizes=resized, steps=(1,) * rank)
        elif size > have:
            missing = (*shape[:axis], size - have, *shape[axis + 1 :])
            node = concatenate(node, zeros_of(type_of(node.dtype, missing)), axis=axis)
    return node


def _axes(name: str, node: Node, s: Sizes, dim: Sizes) -> tuple[tuple[int, ...], list[int]]:
    """The axes, and the sizes asked for (-1 where none is)."""
    rank = len(node.shape)
    sizes = None if s is None else [s] if isinstance(s, int) else list(s)
    if dim is None:
        if sizes is not None and len(sizes) > rank:
            raise located(ShapeError(
                f"{name}: got s={tuple(sizes)} for a tensor of shape {node.shape}; it has fewer "
                f"dimensions"
            ))  # fmt: skip
        axes = tuple(range(rank if sizes is None else len(sizes)))
        axes = axes if sizes is None else tuple(a + rank - len(sizes) for a in axes)
    else:
        given = [dim] if isinstance(dim, int) else dim
        axes = tuple([axis_of(name, d, rank) for d in given])
    if len(set(axes)) != len(axes) or (sizes is not None and len(sizes) != len(axes)):
        raise located(ShapeError(
            f"{name}: got s={s} and dim={dim}; every dimension may be named once, and there must "
            f"be a size for each"
        ))  # fmt: skip
    return axes, [-1] * len(axes) if sizes is None else sizes


# --- the transforms -----------------------------------------------------------------------------


def _complex(name: str, x: Any, s: Sizes, dim: Sizes, norm: str | None, forward: bool) -> Tensor:
    node, scale = _input(name, x, "c"), _norm(name, norm)
    axes, sizes = _axes(name, node, s, dim)
    if not axes:
        return wrap(node)
    wanted = [node.shape[a] if n == -1 else n for a, n in zip(axes, sizes, strict=True)]
    node = _fitted(name, node, axes, wanted)
    return wrap(fft_c2c(node, axes=axes, norm=scale, forward=forward))


def _from_real(name: str, x: Any, s: Sizes, dim: Sizes, scale: str) -> Node:
    node = _input(name, x, "f")
    axes, sizes = _axes(name, node, s, dim)
    if not axes:
        raise located(ShapeError(f"{name}: got no dimension to transform; it takes at least one"))
    wanted = [node.shape[a] if n == -1 else n for a, n in zip(axes, sizes, strict=True)]
    return fft_r2c(_fitted(name, node, axes, wanted), axes=axes, norm=scale)


def _to_real(name: str, x: Any, s: Sizes, dim: Sizes, scale: str, conjugated: bool) -> Tensor:
    node = _input(name, x, "c")
    axes, sizes = _axes(name, node, s, dim)
    if not axes:
        raise located(ShapeError(f"{name}: got no dimension to transform; it takes at least one"))
    wanted = [node.shape[a] if n == -1 else n for a, n in zip(axes, sizes, strict=True)]
    size = 2 * (node.shape[axes[-1]] - 1) if sizes[-1] == -1 else sizes[-1]
    if size < 1:
        raise located(ShapeError(
            f"{name}: got a tensor of shape {node.shape}, which gives {size} elements; name their "
            f"number, which must be at least 1"
        ))  # fmt: skip
    wanted[-1] = size // 2 + 1
    node = _fitted(name, conj(node) if conjugated else node, axes, wanted)
    return wrap(fft_c2r(node, axes=axes, norm=scale, size=size))


def _several(function: Any, default: Any, doc: str) -> Any:
    def transform(
        input: Tensor, s: Sizes = None, dim: Sizes = default, norm: str | None = None
    ) -> Tensor:
        return function(input, s, dim, norm)

    transform.__doc__ = doc
    return transform


def fft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """``X[k] = sum_j x[j] e^(-2 pi i jk/n)`` along ``dim``, cut or continued with zeros to ``n``.

    >>> import treadle
    >>> fft(treadle.tensor([1.0, 0.0, 0.0, 0.0]))
    tensor([1.+0.j, 1.+0.j, 1.+0.j, 1.+0.j])
    """
    return _complex("fft", input, n, dim, norm, True)


def ifft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The inverse of ``fft``: ``x[j] = 1/n sum_k X[k] e^(2 pi i jk/n)``."""
    return _complex("ifft", input, n, dim, norm, False)


def rfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The first ``n // 2 + 1`` numbers of the transform of a real tensor, which tell the rest."""
    return wrap(_from_real("rfft", input, n, dim, _norm("rfft", norm)))


def irfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The inverse of ``rfft``: ``n`` real numbers (``2 (m - 1)`` of m unless given)."""
    return _to_real("irfft", input, n, dim, _norm("irfft", norm), False)


def hfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The transform, which is real, of what ``ihfft`` gives half of."""
    return _to_real("hfft", input, n, dim, OPPOSITE[_norm("hfft", norm)], True)


def ihfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The inverse of ``hfft``."""
    return wrap(conj(_from_real("ihfft", input, n, dim, OPPOSITE[_norm("ihfft", norm)])))


def fftn(input: Tensor, s: Sizes = None, dim: Sizes = None, norm: str | None = None) -> Tensor:
    """``fft`` along several dimensions (all unless given)."""
    return _complex("fftn", input, s, dim, norm, True)


def ifftn(input: Tensor, s: Sizes = None, dim: Sizes = None, norm: str | None = None) -> Tensor:
    """The inverse of ``fftn``."""
    return _complex("ifftn", input, s, dim, norm, False)


def rfftn(input: Tensor, s: Sizes = None, dim: Sizes = None, norm: str | None = None) -> Tensor:
    """``fftn`` of a real tensor: half of the last dimension."""
    return wrap(_from_real("rfftn", input, s, dim, _norm("rfftn", norm)))


def irfftn(input: Tensor, s: Sizes = None, dim: Sizes = None, norm: str | None = None) -> Tensor:
    """The inverse of ``rfftn``."""
    return _to_real("irfftn", input, s, dim, _norm("irfftn", norm), False)


def hfftn(input: Tensor, s: Sizes = None, dim: Sizes = None, norm: str | None = None) -> Tensor:
    """``hfft`` along several dimensions."""
    return _to_real("hfftn", input, s, dim, OPPOSITE[_norm("hfftn", norm)], True)


def ihfftn(input: Tensor, s: Sizes = None, dim: Sizes = None, norm: str | None = None) -> Tensor:
    """The inverse of ``hfftn``."""
    return wrap(conj(_from_real("ihfftn", input, s, dim, OPPOSITE[_norm("ihfftn", norm)])))


_PAIR = (-2, -1)
fft2, ifft2, rfft2, irfft2, hfft2, ihfft2 = (
    _several(function, _PAIR, f"``{function.__name__}`` along two dimensions.")
    for function in (fftn, ifftn, rfftn, irfftn, hfftn, ihfftn)
)

__all__ = [
    "fft", "fft2", "fftn", "hfft", "hfft2", "hfftn", "ifft", "ifft2", "ifftn", "ihfft", "ihfft2",
    "ihfftn", "irfft", "irfft2", "irfftn", "rfft", "rfft2", "rfftn",
]  # fmt: skip
