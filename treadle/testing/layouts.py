"""Ways to put an array into memory: where and how a tensor lies must never change a bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from treadle.ir.node import Node
from treadle.ops.movement import flip, permute, slice_
from treadle.tensor.creation import from_numpy
from treadle.tensor.handle import wrap
from treadle.tensor.storage import node_from_array
from treadle.tensor.tensor import Tensor

Array = np.ndarray[Any, Any]
Place = Callable[[Array], Tensor]


def strided_node(x: Array) -> Node:
    """The same values in memory that is reversed, transposed and has gaps."""
    if not x.ndim:
        return node_from_array(x)
    wide = np.zeros(tuple(2 * n + 1 for n in x.shape[::-1]), x.dtype)
    wide[tuple(slice(1, None, 2) for _ in x.shape)] = np.flip(x.T, 0)
    node = node_from_array(wide)
    sizes = x.shape[::-1]
    node = slice_(node, starts=(1,) * x.ndim, sizes=sizes, steps=(2,) * x.ndim)
    return permute(flip(node, axes=(0,)), axes=tuple(range(x.ndim))[::-1])


def strided(x: Array) -> Tensor:
    """In memory that is reversed, transposed and has gaps."""
    return wrap(strided_node(x))


def transposed(x: Array) -> Tensor:
    """The first axis is the fastest one."""
    return from_numpy(x.T.copy()).permute(*range(x.ndim)[::-1]).detach()


def shifted(x: Array) -> Tensor:
    """In rows, one element after where a vector would begin."""
    wide = np.zeros(x.size + 2, x.dtype)
    wide[1:-1] = x.ravel()
    return from_numpy(wide)[1:-1].reshape(x.shape).detach()


def misaligned(x: Array) -> Tensor:
    """From an array of NumPy at an address that is odd."""
    memory = np.zeros(x.nbytes + 1, np.uint8)
    view = memory[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return from_numpy(view)


def repeated(x: Array) -> Tensor:
    """Other values: the first slice again and again, written out."""
    return from_numpy(_stretched(x).copy())


def expanded(x: Array) -> Tensor:
    """The values of ``repeated``, by a stride of zero."""
    return from_numpy(x[:1]).expand(*x.shape).detach() if _can_stretch(x) else from_numpy(x)


def _stretched(x: Array) -> Array:
    return np.broadcast_to(x[:1], x.shape) if _can_stretch(x) else x


def _can_stretch(x: Array) -> bool:
    return x.ndim > 0 and x.shape[0] > 0


PLACES: dict[str, Place] = {
    "contiguous": from_numpy, "strided": strided, "transposed": transposed, "shifted": shifted,
    "misaligned": misaligned, "repeated": repeated, "expanded": expanded,
}  # fmt: skip

__all__ = ["PLACES", "Place", "strided_node"]
