"""Parameters: the tensors that a module learns."""

from __future__ import annotations

from typing import Any

from treadle.ir.node import Leaf, Node
from treadle.ops.movement import detach
from treadle.tensor.creation import tensor, zeros
from treadle.tensor.handle import Handle, make_leaf
from treadle.tensor.tensor import Tensor


class Parameter(Tensor):
    """A tensor that becomes a parameter of the module that it is assigned to.

    It takes the values of ``data`` as they are now (the two share no memory afterwards) and asks
    for gradients unless ``requires_grad`` is False.

    >>> Parameter([1.0, 2.0]).requires_grad
    True
    """

    __slots__ = ()

    def __new__(cls, data: Any = None, requires_grad: bool = True) -> Any:
        """A leaf with the values of ``data``, an empty one without it."""
        source = zeros(0) if data is None else data if isinstance(data, Handle) else tensor(data)
        self = super().__new__(cls)
        self._base, self._chain, self._version, self._grad = None, (), 0, None
        self._node = detach(source.node) if source.node.needs_grad else source.node
        if requires_grad:
            self.requires_grad_()
        return self

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


def replace_value(target: Tensor, node: Node) -> None:
    """Gives a tensor a value of any shape and dtype; what required a gradient still does."""
    leaf = isinstance(target._node, Leaf)
    target._base, target._chain = None, ()
    target._node = make_leaf(node, target) if leaf and node.dtype.is_floating_point else node
    target._version += 1


__all__ = ["Parameter", "replace_value"]
