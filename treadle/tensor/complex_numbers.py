"""Complex numbers: made of parts and shown as parts.

Everything else that can be done with them is done by the functions of real tensors, which take
complex ones too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from treadle.base import dtypes
from treadle.base.errors import DTypeError, ShapeError
from treadle.ir.node import located
from treadle.ops import complex_functions as f
from treadle.ops.complex import as_complex, as_real, join, parts
from treadle.ops.movement import reshape, slice_
from treadle.tensor import arithmetic as a
from treadle.tensor.handle import Handle, view_of, wrap
from treadle.tensor.methods import in_place
from treadle.tensor.movement import matrix_transpose, node_of
from treadle.tensor.places import storage_offset

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor


def _pair(name: str, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two tensors of one real dtype, in their common shape."""
    dtype = node_of(name, x).dtype
    if node_of(name, y).dtype is not dtype or dtype not in (dtypes.float32, dtypes.float64):
        raise located(DTypeError(
            f"{name}: got tensors of dtypes {dtype.name} and {y.dtype.name}; both must be float32, "
            f"or both float64: convert them with .to(dtype) first"
        ))  # fmt: skip
    first, second = a.operand_nodes(name, dtype, x, y)
    return wrap(first), wrap(second)


def complex(real: Tensor, imag: Tensor) -> Tensor:
    """``real + i imag``, of float32 or float64 parts.

    >>> import treadle
    >>> treadle.complex(treadle.tensor([1.0]), treadle.tensor([2.0]))
    tensor([1.+2.j])
    """
    x, y = _pair("complex", real, imag)
    return wrap(join(x.node, y.node))


def polar(abs: Tensor, angle: Tensor) -> Tensor:
    """``abs (cos(angle) + i sin(angle))``."""
    size, turn = _pair("polar", abs, angle)
    return wrap(join(a.mul(size, a.cos(turn)).node, a.mul(size, a.sin(turn)).node))


def view_as_real(input: Tensor) -> Tensor:
    """The parts of complex numbers along a new last dimension of size 2, sharing memory."""
    node_of("view_as_real", input)
    return view_of(input, as_real)


def view_as_complex(input: Tensor) -> Tensor:
    """The pairs along the last dimension as complex numbers, sharing memory.

    >>> import treadle
    >>> view_as_complex(treadle.tensor([[1.0, 2.0], [3.0, -4.0]]))
    tensor([1.+2.j, 3.-4.j])
    """
    node_of("view_as_complex", input)
    if input._base is not None and storage_offset(input) % 2:
        raise located(ShapeError(
            f"view_as_complex: got a view whose first element is number {storage_offset(input)} of "
            f"its memory; pairs begin at even numbers: call .clone() first"
        ))  # fmt: skip
    return view_of(input, as_complex)


def _part(input: Tensor, index: int) -> Tensor:
    shape = input.node.shape
    pairs = view_of(input, as_real)
    rank = len(shape)
    one = view_of(
        pairs, slice_, starts=(0,) * rank + (index,), sizes=(*shape, 1), steps=(1,) * (rank + 1)
    )
    return view_of(one, reshape, shape=shape)


def real(input: Tensor) -> Tensor:
    """The real part, sharing memory; a real tensor itself."""
    return _part(input, 0) if node_of("real", input).dtype.kind == "c" else input


def imag(input: Tensor) -> Tensor:
    """The imaginary part of a complex tensor, sharing memory."""
    dtype = node_of("imag", input).dtype
    if dtype.kind != "c":
        raise located(DTypeError(
            f"imag: got a tensor of dtype {dtype.name}; it takes complex64 and complex128"
        ))  # fmt: skip
    return _part(input, 1)


def conj_physical(input: Tensor) -> Tensor:
    """``x - iy``; a real tensor itself."""
    node = node_of("conj", input)
    return wrap(f.conj(node)) if node.dtype.kind == "c" else input


conj = conj_physical  # nothing is put off here


def adjoint(input: Tensor) -> Tensor:
    """Every matrix transposed and conjugated."""
    return conj(matrix_transpose(input))


def angle(input: Tensor) -> Tensor:
    """The angle of a number in the complex plane; of real ones pi where negative, else 0."""
    node = node_of("angle", input)
    if node.dtype.kind == "c":
        return wrap(f.angle(node))
    x = input if node.dtype.is_floating_point else input.to(dtypes.get_default_dtype())
    turned = a.mul(a.lt(x, 0).to(x.dtype), math.pi)
    return a.where(a.isnan(x), x, turned)


def isreal(input: Tensor) -> Tensor:
    """True where the imaginary part is zero."""
    node = node_of("isreal", input)
    if node.dtype.kind == "c":
        return a.eq(wrap(parts(node)[1]), 0)
    return wrap(a.e.full_like(a.cast(node, dtypes.bool_), True))


# --- what PyTorch puts off and this framework does not ------------------------------------------


def resolve_conj(input: Tensor) -> Tensor:
    """The tensor itself: no conjugation waits to be carried out."""
    node_of("resolve_conj", input)
    return input


def resolve_neg(input: Tensor) -> Tensor:
    """The tensor itself: no negation waits to be carried out."""
    node_of("resolve_neg", input)
    return input


def is_conj(input: Tensor) -> bool:
    """False: no conjugation waits to be carried out."""
    node_of("is_conj", input)
    return False


def is_neg(input: Tensor) -> bool:
    """False: no negation waits to be carried out."""
    node_of("is_neg", input)
    return False


def _writable(part: Any) -> property:
    """A part as an attribute that can be assigned to."""

    def write(self: Tensor, value: Any) -> None:
        part(self)[...] = value

    return property(part, write, doc=part.__doc__)


class Methods(Handle):
    """The functions of this module as methods of tensors."""

    __slots__ = ()

    conj, conj_physical, resolve_conj, resolve_neg = conj, conj_physical, resolve_conj, resolve_neg
    angle, is_conj, is_neg, adjoint, isreal = angle, is_conj, is_neg, adjoint, isreal
    (conj_physical_,) = map(in_place, (conj_physical,))
    real, imag = _writable(real), _writable(imag)
    H, mH = property(adjoint), property(adjoint)

    def cfloat(self: Any, memory_format: Any = None) -> Tensor:
        """In complex64."""
        return self.to(dtypes.complex64)

    def cdouble(self: Any, memory_format: Any = None) -> Tensor:
        """In complex128."""
        return self.to(dtypes.complex128)


__all__ = [
    "adjoint", "angle", "complex", "conj", "conj_physical", "imag", "is_conj", "is_neg", "isreal",
    "polar", "real", "resolve_conj", "resolve_neg", "view_as_complex", "view_as_real",
]  # fmt: skip
