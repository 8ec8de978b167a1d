"""Products of matrices and vectors with something added, and of several factors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treadle.base import dtypes
from treadle.base.errors import ShapeError
from treadle.ir.node import located
from treadle.tensor import arithmetic as a
from treadle.tensor.autocast import lowered
from treadle.tensor.complex_numbers import conj
from treadle.tensor.contraction import addmm, bmm, dot, mv, outer
from treadle.tensor.joining import stack
from treadle.tensor.methods import in_place
from treadle.tensor.movement import axis_of, broadcast_tensors, node_of, unbind
from treadle.tensor.reduction import sum as sum_over

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor


def _added(input: Tensor, product: Tensor, beta: float, alpha: float) -> Tensor:
    """``beta * input + alpha * product``; with beta 0 the input does not count at all.

    Of integers the weights are integers, of masks whether they are not 0.
    """
    dtype = dtypes.promote_types(input.dtype, product.dtype)
    if not dtype.is_inexact:
        beta, alpha = (x != 0 if dtype is dtypes.bool_ else int(x) for x in (beta, alpha))
    if alpha != 1:
        product = a.mul(product, alpha)
    if beta == 0:
        return product
    return a.add(input if beta == 1 else a.mul(input, beta), product)


def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """``beta * input + alpha * (mat @ vec)``: (m,), (m, k), (k,) -> (m,)."""
    return _added(input, mv(mat, vec), beta, alpha)


def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """``beta * input + alpha * outer(vec1, vec2)``: (m, n), (m,), (n,) -> (m, n)."""
    return _added(input, outer(vec1, vec2), beta, alpha)


@lowered
def baddbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """``beta * input + alpha * (batch1 @ batch2)``, matrix by matrix.

    Shapes: (b, m, n), (b, m, k), (b, k, n) -> (b, m, n).
    """
    return _added(input, bmm(batch1, batch2), beta, alpha)


@lowered
def addbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """``beta * input + alpha * sum(batch1 @ batch2)`` over the batch: the result is (m, n)."""
    return _added(input, sum_over(bmm(batch1, batch2), 0), beta, alpha)


def vdot(input: Tensor, other: Tensor) -> Tensor:
    """(k,) @ (k,) -> (); for complex numbers the first is conjugated."""
    return dot(conj(input), other)


def chain_matmul(*matrices: Tensor) -> Tensor:
    """The product of several matrices, in the order that needs the fewest multiplications."""
    from treadle.tensor.einsum import einsum

    if not matrices:
        raise located(ValueError("chain_matmul: got no matrices; it takes at least one"))
    for x in matrices:
        if len(node_of("chain_matmul", x).shape) != 2:
            raise located(ShapeError(
                f"chain_matmul: got a tensor of shape {tuple(x.shape)}; it takes matrices"
            ))  # fmt: skip
    terms = [item for i, x in enumerate(matrices) for item in (x, [i, i + 1])]
    return einsum(*terms, [0, len(matrices)])  # type: ignore[arg-type]


def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The vector product along ``dim``, of size 3 (the first such dimension if None).

    >>> import treadle
    >>> treadle.cross(treadle.tensor([1, 0, 0]), treadle.tensor([0, 1, 0])).tolist()
    [0, 0, 1]
    """
    shapes = node_of("cross", input).shape, node_of("cross", other).shape
    x, y = broadcast_tensors(input, other)
    shape = tuple(x.shape)
    axis = (*shape, 3).index(3) if dim is None else axis_of("cross", dim, len(shape))
    if axis == len(shape) or shape[axis] != 3:
        raise located(ShapeError(
            f"cross: got shapes {shapes[0]} and {shapes[1]} and dim={dim}; the dimension must have "
            f"the size 3"
        ))  # fmt: skip
    (x0, x1, x2), (y0, y1, y2) = unbind(x, axis), unbind(y, axis)
    turned = ((x1, y2, x2, y1), (x2, y0, x0, y2), (x0, y1, x1, y0))
    return stack([a.sub(a.mul(p, q), a.mul(r, s)) for p, q, r, s in turned], axis)


ger = outer


class Methods:
    """The functions of this module as methods, and their in-place forms."""

    __slots__ = ()

    addmv, addr, baddbmm, addbmm = addmv, addr, baddbmm, addbmm
    vdot, cross, ger = vdot, cross, ger
    addmv_, addr_, baddbmm_, addbmm_ = map(in_place, (addmv, addr, baddbmm, addbmm))
    (addmm_,) = map(in_place, (addmm,))


__all__ = [
    "addbmm", "addmv", "addr", "baddbmm", "chain_matmul", "cross", "ger", "vdot",
]  # fmt: skip
