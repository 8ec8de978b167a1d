"""Values in and out: NumPy arrays to nodes, nodes to arrays."""

from __future__ import annotations

from typing import Any

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.lazy_numpy import np
from treadle.compiler.device import Owners, array_at, get_device
from treadle.compiler.tier0 import value_of
from treadle.ir.node import Node, from_value, recorder, type_of, user_site
from treadle.ops.source import buffer


def _owners() -> dict[str, int]:
    from treadle.tensor.memory import memory_by_owner  # only where the memory is short

    return memory_by_owner()


Owners.ask = _owners


def node_from_array(array: Any, dtype: DType | None = None) -> Node:
    """A node with a copy of the array: an operation sees the value of the moment it was written."""
    array = np.asarray(array)
    target = dtypes.from_numpy(array.dtype) if dtype is None else dtype
    memory: Any = get_device("cpu").allocate(array.size * target.itemsize)
    if array.size:
        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(memory.array(target, array.shape), array, casting="unsafe")
    return node_from_memory(memory, target, array.shape)


def node_from_memory(memory: Any, dtype: DType, shape: tuple[int, ...]) -> Node:
    """A node over memory that already holds the value, row-major."""
    kind = type_of(dtype, tuple(shape))
    node = from_value(buffer, kind, (memory, kind.layout, memory.address), user_site())
    node.keep = True
    return node


def array_of(node: Node) -> np.ndarray[Any, Any]:
    """The value as a read-only NumPy view of its memory (evaluates what is pending)."""
    array = array_at(*value_of(node))
    array.flags.writeable = False
    return array


def settle(view: Node, source: Node) -> None:
    """Evaluates a view of ``source`` whose place a tensor decided (``data[i : i + 8]``), where
    nothing else is pending: what reads it is then the same graph at every step, wherever the view
    lies."""
    state = recorder.state
    is_alone = len(state.pending) <= 2 and state.outer is None and state.tracer is None
    if is_alone and not view.needs_grad and source.value is not None:
        value_of(view)
