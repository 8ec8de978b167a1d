"""Memory as PyTorch counts it: ``as_strided``, ``resize_``, ``set_`` and their like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.base.errors import GradientError, ShapeError
from treadle.base.shapes import as_shape, prod
from treadle.ir.node import Leaf, located, type_of
from treadle.ops.complex import as_complex, as_real
from treadle.ops.movement import concatenate, detach, reshape, slice_, zeros_of
from treadle.ops.strided import strided
from treadle.tensor.creation import empty
from treadle.tensor.handle import Handle, turn, view_of, wrap
from treadle.tensor.movement import node_of, permute
from treadle.tensor.places import placed

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor


def _root(x: Tensor) -> Tensor:
    while x._base is not None:
        x = x._base
    return x


def _memory(input: Tensor) -> Tensor:
    """The flat memory that a tensor shows, in elements of its own dtype."""
    root = _root(input)
    if root.dtype.kind != input.dtype.kind:
        root = view_of(root, as_real if root.dtype.kind == "c" else as_complex)
    return view_of(root, reshape, shape=(root.numel(),))


def as_strided(
    input: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
) -> Tensor:
    """A view of the tensor's memory by sizes and strides of one's own.

    Memory is that of the tensor it is a view of, row-major. Elements may overlap where they are
    only read; writing to such a view raises.

    >>> import treadle
    >>> as_strided(treadle.arange(4), (3, 2), (1, 1))
    tensor([[0, 1],
            [1, 2],
            [2, 3]])
    """
    node_of("as_strided", input)
    shape, steps = tuple(size), tuple(stride)
    if len(shape) != len(steps):
        raise located(ShapeError(
            f"as_strided: got size {shape} and stride {steps}; they must be equally long"
        ))  # fmt: skip
    offset = placed(input)[1] if storage_offset is None else storage_offset
    return view_of(_memory(input), strided, size=shape, stride=steps, offset=offset)


def as_strided_scatter(
    input: Tensor, src: Tensor, size: Sequence[int], stride: Sequence[int],
    storage_offset: int | None = None,
) -> Tensor:  # fmt: skip
    """A copy of ``input`` with ``src`` written to ``as_strided`` of it."""
    copied = input.clone()
    as_strided(copied, size, stride, storage_offset).copy_(src)
    return copied


def empty_strided(
    size: Sequence[int], stride: Sequence[int], *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False, **options: Any,
) -> Tensor:  # fmt: skip
    """Zeros with these strides."""
    reach = sum((n - 1) * s for n, s in zip(size, stride, strict=True)) + 1 if prod(size) else 0
    made = as_strided(empty(reach, dtype=dtype, device=device), size, stride)
    return made.requires_grad_() if requires_grad else made


def empty_permuted(
    size: Sequence[int], physical_layout: Sequence[int], *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False, **options: Any,
) -> Tensor:  # fmt: skip
    """Zeros whose dimensions lie in memory in the order of ``physical_layout``."""
    order = tuple(physical_layout)
    if sorted(order) != list(range(len(size))):
        raise located(ShapeError(
            f"empty_permuted: got the physical layout {order} for the size {tuple(size)}; every "
            f"dimension must be named once"
        ))  # fmt: skip
    made = empty(tuple(size[d] for d in order), dtype=dtype, device=device)
    made = permute(made, tuple(sorted(range(len(order)), key=order.__getitem__)))
    return made.requires_grad_() if requires_grad else made


# --- tensors that become others -----------------------------------------------------------------


def _become(self: Tensor, other: Tensor, name: str) -> Tensor:
    """Makes a tensor show what another one shows, with no history."""
    if self.node.needs_grad or isinstance(self._node, Leaf):
        raise located(GradientError(
            f"{name}: got a tensor that requires a gradient; use {name.rstrip('_')} of it, or do "
            f"it to x.detach()"
        ))  # fmt: skip
    for field in ("_node", "_base", "_chain"):
        setattr(self, field, getattr(other, field))
    self._version = other._version if other._base is not None else self._version + 1
    return self


def resize(input: Tensor, *sizes: Any) -> Tensor:
    """The first elements in another shape, continued with zeros."""
    node, shape = node_of("resize", input), as_shape(sizes)
    flat, count = reshape(node, shape=(node.type.size,)), prod(shape)
    if count <= node.type.size:
        flat = slice_(flat, starts=(0,), sizes=(count,), steps=(1,))
    else:
        more = zeros_of(type_of(node.dtype, (count - node.type.size,)))
        flat = concatenate(flat, more, axis=0)
    return wrap(reshape(flat, shape=shape))


def resize_as_(input: Tensor, the_template: Tensor, *, memory_format: Any = None) -> Tensor:
    """``input.resize_(the_template.shape)``."""
    return _become(input, resize(input.detach(), the_template.shape), "resize_as_")


class Methods(Handle):
    """The functions of this module as methods of tensors."""

    __slots__ = ()

    as_strided, as_strided_scatter, resize, resize_as_ = (
        as_strided, as_strided_scatter, resize, resize_as_,
    )  # fmt: skip

    def as_strided_(
        self: Any, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
    ) -> Tensor:
        """``as_strided`` in place: the tensor itself becomes the view."""
        return turn(self, as_strided(self, size, stride, storage_offset))

    def resize_(self: Any, *sizes: Any, memory_format: Any = None) -> Tensor:
        """The tensor itself in another shape: its first elements, continued with zeros."""
        return _become(self, resize(self.detach(), *sizes), "resize_")

    def resize_as(self: Any, the_template: Tensor) -> Tensor:
        """``resize`` to the shape of another tensor."""
        return resize(self, the_template.shape)

    def set_(self: Any, source: Tensor | None = None) -> Tensor:
        """Makes the tensor show what ``source`` shows, sharing memory; nothing without one."""
        other = empty(0, dtype=self.dtype) if source is None else view_of(source, detach)
        return _become(self, other, "set_")

    def is_set_to(self: Any, tensor: Tensor) -> bool:
        """True where both show the same elements of the same memory."""
        mine, theirs = _root(self), _root(tensor)
        return mine is theirs and placed(self) == placed(tensor)

    def dim_order(self: Any) -> tuple[int, ...]:
        """The dimensions from the one that is outermost in memory to the innermost."""
        strides = placed(self)[0].strides
        return tuple(sorted(range(len(strides)), key=lambda d: -strides[d]))

    def new_empty_strided(
        self: Any, size: Sequence[int], stride: Sequence[int], dtype: Any = None, **options: Any
    ) -> Tensor:
        """``empty_strided`` in the dtype of the tensor."""
        return empty_strided(size, stride, dtype=dtype or self.dtype, **options)


__all__ = [
    "as_strided", "as_strided_scatter", "empty_permuted", "empty_strided", "resize_as_",
]  # fmt: skip
