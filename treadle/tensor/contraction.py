"""Products of matrices and vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treadle.base.errors import DTypeError, ShapeError
from treadle.base.shapes import Shape, broadcast_shapes, prod
from treadle.ir.node import Node, located
from treadle.ops.contraction import matmul as matmul_op
from treadle.ops.movement import permute, reshape
from treadle.tensor import arithmetic as a
from treadle.tensor.autocast import lowered
from treadle.tensor.composed import composed
from treadle.tensor.handle import Handle, wrap

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor


def _operand(name: str, x: Any) -> Node:
    if not isinstance(x, Handle):
        raise a.refuse(name, x)
    return x.node


def _check(name: str, x: Node, y: Node, inner: tuple[int, int]) -> None:
    if x.dtype is not y.dtype:
        raise located(DTypeError(
            f"{name}: got dtypes {x.dtype.name} and {y.dtype.name}; they must be equal; convert "
            f"one with .to(dtype)"
        ))  # fmt: skip
    if inner[0] != inner[1]:
        raise located(ShapeError(
            f"{name}: got {x.shape} @ {y.shape}; the inner sizes {inner[0]} and {inner[1]} must be "
            f"equal; transpose an operand, or change a layer's size"
        ))  # fmt: skip


def _batched(x: Node, batch: Shape) -> Node:
    """(…, m, k) as (prod(batch), m, k)."""
    matrix = x.shape[-2:]
    whole = a.stretch(x, batch + matrix)
    return whole if len(batch) == 1 else reshape(whole, shape=(prod(batch), *matrix))


@lowered
@composed
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product; 1-D operands are vectors, leading dimensions broadcast.

    Shapes: (..., m, k) @ (..., k, n) -> (..., m, n).
    """
    x, y = _operand("matmul", input), _operand("matmul", other)
    if not x.shape or not y.shape:
        raise located(ShapeError(
            f"matmul: got {x.shape} @ {y.shape}; both must have at least one dimension; multiply "
            f"by a number with *"
        ))  # fmt: skip
    _check("matmul", x, y, (x.shape[-1], y.shape[-2] if len(y.shape) > 1 else y.shape[0]))
    row, column = len(x.shape) == 1, len(y.shape) == 1
    x = reshape(x, shape=(1, *x.shape)) if row else x
    y = reshape(y, shape=(*y.shape, 1)) if column else y
    m, n = x.shape[-2], y.shape[-1]
    if len(y.shape) == 2:
        # One matrix for all rows: the batch is only more rows, with the same bits.
        batch = x.shape[:-2]
        flat = x if len(x.shape) == 2 else reshape(x, shape=(prod(x.shape[:-1]), x.shape[-1]))
        out = matmul_op(flat, y)
    else:
        try:
            batch = broadcast_shapes(x.shape[:-2], y.shape[:-2])
        except ShapeError as error:
            raise located(ShapeError(f"matmul: got {x.shape} @ {y.shape}: {error}")) from None
        out = matmul_op(_batched(x, batch), _batched(y, batch))
    shape = (*batch, *(() if row else (m,)), *(() if column else (n,)))
    return wrap(out if out.shape == shape else reshape(out, shape=shape))


def _fixed(name: str, input: Tensor, other: Tensor, dims: tuple[int, int]) -> Tensor:
    x, y = _operand(name, input), _operand(name, other)
    if (len(x.shape), len(y.shape)) != dims:
        raise located(ShapeError(
            f"{name}: got shapes {x.shape} and {y.shape}; it takes tensors of {dims[0]} and "
            f"{dims[1]} dimensions; matmul takes any"
        ))  # fmt: skip
    return matmul(input, other)


@lowered
@composed
def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """(m, k) @ (k, n) -> (m, n)."""
    return _fixed("mm", input, mat2, (2, 2))


@lowered
@composed
def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """(b, m, k) @ (b, k, n) -> (b, m, n)."""
    if input.shape[:1] != mat2.shape[:1]:
        raise located(ShapeError(
            f"bmm: got shapes {tuple(input.shape)} and {tuple(mat2.shape)}; the batches must be "
            f"equal"
        ))  # fmt: skip
    return _fixed("bmm", input, mat2, (3, 3))


@composed
def mv(input: Tensor, vec: Tensor) -> Tensor:
    """(m, k) @ (k,) -> (m,)."""
    return _fixed("mv", input, vec, (2, 1))


@composed
def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """(k,) @ (k,) -> ()."""
    return _fixed("dot", input, tensor, (1, 1))


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """(m,), (n,) -> (m, n)."""
    x, y = _operand("outer", input), _operand("outer", vec2)
    if len(x.shape) != 1 or len(y.shape) != 1:
        raise located(ShapeError(
            f"outer: got shapes {x.shape} and {y.shape}; it takes two vectors; flatten them, or "
            f"multiply with a new dimension, as in x[..., None] * y"
        ))  # fmt: skip
    return a.mul(wrap(reshape(x, shape=(*x.shape, 1))), wrap(reshape(y, shape=(1, *y.shape))))


@lowered
@composed
def addmm(
    input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """``beta * input + alpha * (mat1 @ mat2)``."""
    product = mm(mat1, mat2)
    if alpha != 1:
        product = a.mul(product, alpha)
    return a.add(input if beta == 1 else a.mul(input, beta), product)


@lowered
@composed
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias``: (..., in) and (out, in) -> (..., out)."""
    x, w = _operand("linear", input), _operand("linear", weight)
    if len(w.shape) != 2 or not x.shape or x.shape[-1] != w.shape[1]:
        expected = w.shape[1] if len(w.shape) == 2 else "in_features"
        raise located(ShapeError(
            f"linear: got an input of shape {x.shape} and a weight of shape {w.shape}; the input's "
            f"last size must be {expected}; flatten the input, or change in_features"
        ))  # fmt: skip
    _check("linear", x, w, (x.shape[-1], w.shape[1]))
    flat = reshape(x, shape=(1, prod(x.shape[:-1]), x.shape[-1]))
    across = permute(reshape(w, shape=(1, *w.shape)), axes=(0, 2, 1))
    out = wrap(reshape(matmul_op(flat, across), shape=(*x.shape[:-1], w.shape[0])))
    return out if bias is None else a.add(out, bias)


class Methods:
    """The products as methods."""

    __slots__ = ()

    matmul, mm, bmm, mv, dot, outer, addmm = matmul, mm, bmm, mv, dot, outer, addmm

    def __matmul__(self, other: Tensor) -> Tensor:
        return matmul(self, other)  # type: ignore[arg-type]

    def __rmatmul__(self, other: Tensor) -> Tensor:
        return matmul(other, self)  # type: ignore[arg-type]


__all__ = ["addmm", "bmm", "dot", "matmul", "mm", "mv", "outer"]
