"""What the functions of linear algebra share: operands, batches, results with names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.base.dtypes import promote_types
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.record import Record
from treadle.base.shapes import broadcast_shapes
from treadle.ir.node import Node, located
from treadle.ops import elementwise as e
from treadle.ops.linalg import INEXACT
from treadle.ops.movement import expand
from treadle.ops.project import project
from treadle.tensor.handle import wrap
from treadle.tensor.movement import node_of

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor


class QR(Record):
    """A = Q R."""

    Q: Tensor
    R: Tensor


class SVD(Record):
    """A = U diag(S) Vh."""

    U: Tensor
    S: Tensor
    Vh: Tensor


class Eigen(Record):
    """A V = V diag(L)."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class SignAndLog(Record):
    """det A = sign exp(logabsdet)."""

    sign: Tensor
    logabsdet: Tensor


class WithInfo(Record):
    """A result, and for each matrix 0 or which step failed."""

    L: Tensor
    info: Tensor


class InverseInfo(Record):
    """The inverses, and for each matrix 0 or which pivot is 0."""

    inverse: Tensor
    info: Tensor


class SolveInfo(Record):
    """The solutions, and for each matrix 0 or which pivot is 0."""

    result: Tensor
    info: Tensor


class LU(Record):
    """A = P L U."""

    P: Tensor
    L: Tensor
    U: Tensor


class PackedLU(Record):
    """L and U in one matrix, and the rows exchanged."""

    LU: Tensor
    pivots: Tensor


class PackedLUInfo(Record):
    """As ``PackedLU``, and for each matrix 0 or which pivot is 0."""

    LU: Tensor
    pivots: Tensor
    info: Tensor


class LeastSquares(Record):
    """The solution of a least-squares problem and what is known of it."""

    solution: Tensor
    residuals: Tensor
    rank: Tensor
    singular_values: Tensor


class Reflectors(Record):
    """Householder vectors below the diagonal of R, and their factors."""

    a: Tensor
    tau: Tensor


def operand(name: str, input: Any) -> Node:
    """A tensor of inexact numbers, as linear algebra takes it."""
    node = node_of(name, input)
    if node.dtype not in INEXACT:
        raise located(DTypeError(
            f"{name}: got a tensor of dtype {node.dtype.name}; it takes float32 and float64, real "
            f"or complex: convert it with .float() first"
        ))  # fmt: skip
    return node


def matrix(name: str, input: Any, square: bool = False) -> Node:
    """A tensor of (square) matrices."""
    node = operand(name, input)
    if len(node.shape) < 2 or (square and node.shape[-1] != node.shape[-2]):
        raise located(ShapeError(
            f"{name}: got a tensor of shape {node.shape}; it takes {'square ' if square else ''}"
            f"matrices, in batches of any shape"
        ))  # fmt: skip
    return node


def together(name: str, a: Node, b: Node) -> tuple[Node, Node]:
    """Two operands in one batch and one dtype."""
    dtype = promote_types(a.dtype, b.dtype)
    try:
        batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ShapeError as error:
        raise located(ShapeError(f"{name}: of the batches, {error}")) from None
    nodes = []
    for x in (a, b):
        shape = (*batch, *x.shape[-2:])
        x = e.cast(x, dtype)
        nodes.append(x if x.shape == shape else expand(x, shape=shape))
    return nodes[0], nodes[1]


def results(node: Node) -> list[Tensor]:
    """All results of an op with several."""
    return [wrap(project(node, index=i)) for i in range(len(node.type))]


def fits(name: str, what: str, a: Sequence[int], b: Sequence[int], holds: bool) -> None:
    """ShapeError unless ``holds``."""
    if not holds:
        raise located(ShapeError(f"{name}: got the shapes {tuple(a)} and {tuple(b)}; {what}"))


__all__ = [
    "LU", "QR", "SVD", "Eigen", "InverseInfo", "LeastSquares", "PackedLU", "PackedLUInfo",
    "Reflectors", "SignAndLog", "SolveInfo", "WithInfo", "fits", "matrix", "operand", "results",
    "together",
]  # fmt: skip
