"""Where the elements of a view lie, as PyTorch counts it.

How a value really lies in memory is the engine's matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treadle.ir.launch import Layout

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor


def placed(input: Tensor) -> tuple[Layout, int]:
    """Where the elements would lie if every view only re-read the memory of its base.

    That is a layout and the place of the first element.
    """
    base = input if input._base is None else input._base
    kind: Any = base._node.type
    layout, start = placed(base) if base._chain else (kind.layout, 0)
    for step, attrs in input._chain:
        kind = step.infer((kind,), attrs)
        moved = step.lower.move(layout, kind, **attrs)  # type: ignore[union-attr]
        if moved is None:
            layout, start = kind.layout, 0
        else:  # in elements, whose size may have changed
            start = start * layout.dtype.itemsize // kind.dtype.itemsize + moved[1]
            layout = Layout(kind.dtype, kind.shape, moved[0])
    return layout, start


def layout_of(input: Tensor) -> Layout:
    """How the elements would lie if every view only re-read the memory of its base."""
    return placed(input)[0]


def storage_offset(input: Tensor) -> int:
    """The place of the first element in the memory shared with the base, as PyTorch counts it."""
    return placed(input)[1]


__all__ = ["layout_of", "placed", "storage_offset"]
