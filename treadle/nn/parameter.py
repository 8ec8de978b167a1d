"""Parameters: the tensors that a module learns; buffers; and those whose shape is not known yet."""

from __future__ import annotations

from typing import Any, NoReturn

from treadle.ir.node import Leaf, Node, located
from treadle.ops.movement import detach
from treadle.tensor.creation import empty, tensor, zeros
from treadle.tensor.handle import Handle, make_leaf
from treadle.tensor.tensor import Tensor


def _filled(made: Any, data: Any) -> Any:
    """``made``, a bare instance, with the values of ``data``."""
    source = zeros(0) if data is None else data if isinstance(data, Handle) else tensor(data)
    made._base, made._chain, made._version, made._grad = None, (), 0, None
    made._node = detach(source.node) if source.node.needs_grad else source.node
    return made


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
        self = _filled(super().__new__(cls), data)
        if requires_grad:
            self.requires_grad_()
        return self

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


class Buffer(Tensor):
    """A tensor that becomes a buffer of the module that it is assigned to.

    ``persistent`` buffers are part of ``state_dict``.

    >>> from treadle import nn
    >>> module = nn.Module()
    >>> module.scale = nn.Buffer([1.0, 2.0])
    >>> list(module.state_dict())
    ['scale']
    """

    __slots__ = ()

    persistent: bool

    def __new__(cls, data: Any = None, *, persistent: bool = True) -> Any:
        """A tensor with the values of ``data``."""
        self = _filled(super().__new__(cls), data)
        self.persistent = persistent
        return self


def replace_value(target: Tensor, node: Node) -> None:
    """Gives a tensor a value of any shape and dtype; what required a gradient still does."""
    leaf = isinstance(target._node, Leaf)
    target._base, target._chain = None, ()
    target._node = make_leaf(node, target) if leaf and node.dtype.is_inexact else node
    target._version += 1


# --- shapes that the first input tells ------------------------------------------------------------


class _Uninitialized(Tensor):
    """What lazy parameters and buffers share: they have a dtype, but no shape and no values."""

    __slots__ = ()

    becomes: type[Tensor]

    def materialize(self, shape: Any, device: Any = None, dtype: Any = None) -> None:
        """Gives it a shape, and values that are still to be set."""
        value = empty(shape, dtype=self.dtype if dtype is None else dtype, device=device)
        self.__class__ = self.becomes  # type: ignore[assignment]
        replace_value(self, value.node)

    def _refused(self, what: str) -> NoReturn:
        raise located(ValueError(
            f"{type(self).__name__}: got a request for {what} of a tensor that has no shape yet; "
            f"run the module once on an input, which tells the shape, or call materialize(shape)"
        ))  # fmt: skip

    @property
    def shape(self) -> Any:
        """Raises ValueError: there is no shape yet."""
        self._refused("the shape")

    def numel(self) -> int:
        """Raises ValueError: there is no shape yet."""
        self._refused("the number of elements")

    def numpy(self, **options: Any) -> Any:
        """Raises ValueError: there are no values yet."""
        self._refused("the values")

    def tolist(self) -> Any:
        """Raises ValueError: there are no values yet."""
        self._refused("the values")

    def __deepcopy__(self, memo: dict[Any, Any]) -> Any:
        copied = type(self)(self.requires_grad, dtype=self.dtype)
        memo[id(self)] = copied
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _made_again, (type(self), self.requires_grad, self.dtype)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class UninitializedParameter(_Uninitialized, Parameter):
    """A parameter whose shape is not known yet: see the lazy layers."""

    __slots__ = ()

    becomes = Parameter

    def __new__(cls, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> Any:
        """A parameter without a shape."""
        return Parameter.__new__(cls, empty(0, dtype=dtype, device=device), requires_grad)


class UninitializedBuffer(_Uninitialized, Buffer):
    """A buffer whose shape is not known yet: see the lazy layers."""

    __slots__ = ()

    becomes = Buffer

    def __new__(
        cls, requires_grad: bool = False, device: Any = None, dtype: Any = None,
        persistent: bool = True,
    ) -> Any:  # fmt: skip
        """A buffer without a shape."""
        return Buffer.__new__(cls, empty(0, dtype=dtype, device=device), persistent=persistent)


def _made_again(cls: Any, requires_grad: bool, dtype: Any) -> Any:
    return cls(requires_grad, dtype=dtype)


def is_lazy(param: Any) -> bool:
    """True for parameters and buffers that have no shape yet."""
    return isinstance(param, _Uninitialized)


__all__ = [
    "Buffer", "Parameter", "UninitializedBuffer", "UninitializedParameter", "is_lazy",
    "replace_value",
]  # fmt: skip
