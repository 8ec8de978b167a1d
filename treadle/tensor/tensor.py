"""The Tensor class: what a user holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary, ref

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import DeviceError, GradientError, ShapeError
from treadle.base.lazy_numpy import np
from treadle.base.shapes import normalize_axis
from treadle.ir.node import Leaf, Node, located
from treadle.ops.elementwise import full_like
from treadle.ops.movement import detach
from treadle.tensor import arithmetic as a
from treadle.tensor.handle import make_leaf, set_tensor_class, view_of, wrap
from treadle.tensor.methods import ElementwiseMethods
from treadle.tensor.operators import Operators
from treadle.tensor.storage import array_of, node_from_array

if TYPE_CHECKING:
    from treadle.tensor import (
        absent,
        assembly,
        closeness,
        complex_numbers,
        contraction,
        counting,
        cumulative,
        einsum,
        exchange,
        functions,
        further,
        hooks,
        indexing,
        joining,
        movement,
        printing,
        products,
        queries,
        reduction,
        scattering,
        selection,
        sorting,
        spellings,
        statistics,
        strided,
        turning,
    )

    class LaterMethods(
        functions.Methods, movement.Methods, joining.Methods, indexing.Methods, selection.Methods,
        reduction.Methods, closeness.Methods, contraction.Methods, printing.Methods,
        exchange.Methods, cumulative.Methods, sorting.Methods, counting.Methods,
        einsum.Methods, products.Methods, queries.Methods, spellings.Methods, hooks.Methods,
        turning.Methods, statistics.Methods, assembly.Methods, complex_numbers.Methods,
        strided.Methods, scattering.Methods, further.Methods, absent.Methods,
    ):  # fmt: skip
        """For type checkers: what the modules above have."""

        __slots__ = ()
else:
    from treadle.tensor.later import LaterMethods


class Size(tuple[int, ...]):
    """A shape: a tuple of ints that also counts elements."""

    __slots__ = ()

    def numel(self) -> int:
        """The number of elements."""
        return int(np.prod(self, dtype=np.int64))

    def __repr__(self) -> str:
        return f"treadle.Size({list(self)})"


class Device:
    """The name of a device: ``Device("cpu")``, ``Device("cuda", 0)``."""

    __slots__ = ("index", "type")

    def __init__(self, name: str | Device, index: int | None = None) -> None:
        kind, _, number = str(name).partition(":")
        if kind not in ("cpu", "cuda", "opencl", "null"):
            raise located(ValueError(
                f"got the device {str(name)!r}; expected 'cpu', 'cuda', 'opencl' or 'null', with "
                f"a number as in 'cuda:0' where there are several"
            ))  # fmt: skip
        self.type = kind
        self.index = int(number) if number else index

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        return f"device({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (Device, str)) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


_CPU = Device("cpu")


def check_device(device: Any) -> Device:
    """The device, if it is there; DeviceError for one that is not."""
    known = device if isinstance(device, Device) else Device(device)
    if known.type != "cpu":
        raise located(DeviceError(
            f"the device {str(known)!r} is not there: this version of Treadle runs on the CPU "
            f"only; use .to('cpu') or leave the device out"
        ))  # fmt: skip
    return _CPU


class Tensor(Operators, ElementwiseMethods, LaterMethods):
    """A multi-dimensional array of one dtype, with gradients.

    Made by ``treadle.tensor(data)``, ``treadle.zeros(2, 3)`` and so on. Operations are recorded and
    run when a value is needed; ``requires_grad`` asks for gradients.

    >>> import treadle
    >>> x = treadle.tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad.tolist()
    [2.0, 4.0]
    """

    __slots__ = ()

    def __new__(cls, data: Any = None, *args: Any, **kwargs: Any) -> Any:
        """``Tensor(data)``: float32 from nested sequences, as in PyTorch."""
        self = super().__new__(cls)
        if data is not None:
            if isinstance(data, int) and not isinstance(data, bool):
                node = node_from_array(np.zeros((data, *args)), dtypes.get_default_dtype())
            elif isinstance(data, Tensor):
                node = data.node
            else:
                node = node_from_array(data, dtypes.get_default_dtype())
            self._node = node
            self._base = None
            self._chain = ()
            self._version = 0
            self._grad = None
        return self

    # --- what it is ------------------------------------------------------------------------------

    @property
    def shape(self) -> Size:
        """The sizes of all dimensions."""
        return Size(self.node.type.shape)

    @property
    def dtype(self) -> DType:
        """The type of the elements."""
        return self.node.type.dtype

    @property
    def device(self) -> Device:
        """Where the elements are."""
        return _CPU

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self.node.type.ndim

    def dim(self) -> int:
        """The number of dimensions."""
        return self.ndim

    ndimension = dim

    def size(self, dim: int | None = None) -> Any:
        """The sizes of all dimensions, or of one."""
        shape = self.node.type.shape
        return Size(shape) if dim is None else shape[normalize_axis(dim, len(shape))]

    def numel(self) -> int:
        """The number of elements."""
        return self.node.type.size

    nelement = numel

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize

    def element_size(self) -> int:
        """Bytes of one element."""
        return self.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.numel() * self.itemsize

    def is_floating_point(self) -> bool:
        """True for the floating dtypes."""
        return self.dtype.is_floating_point

    # --- values -----------------------------------------------------------------------------------

    def item(self) -> Any:
        """The value of a tensor of one element as a Python number."""
        if self.numel() != 1:
            raise located(ShapeError(
                f"item: got a tensor of shape {tuple(self.shape)} with {self.numel()} elements; it "
                f"takes a tensor of one; reduce it first, for example with .mean(), or use "
                f".tolist()"
            ))  # fmt: skip
        return array_of(self.node).item()

    def tolist(self) -> Any:
        """The values as nested lists, or a number for a tensor without dimensions."""
        return array_of(self.node).tolist()

    def numpy(self, *, force: bool = False, copy: bool = False) -> np.ndarray[Any, Any]:
        """The values as a NumPy array: read-only without copying, or a writable copy.

        A tensor that requires a gradient is refused, as in PyTorch, unless ``force``.
        """
        if self.requires_grad and not force:
            raise located(GradientError(
                "numpy: got a tensor that requires a gradient; call .detach().numpy()"
            ))  # fmt: skip
        array = array_of(self.node)
        return array.copy() if copy else array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self.numpy(), dtype, copy=copy)

    def __bool__(self) -> bool:
        if self.numel() != 1:
            raise located(ShapeError(
                f"the truth value of a tensor of shape {tuple(self.shape)} is ambiguous; use "
                f".any() or .all()"
            ))  # fmt: skip
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __index__(self) -> int:
        if self.dtype.is_inexact:
            raise located(TypeError(
                f"an index must be an integer; got a tensor of dtype {self.dtype.name}"
            ))  # fmt: skip
        return int(self.item())

    def __len__(self) -> int:
        if not self.ndim:
            raise located(TypeError("len() of a tensor without dimensions"))
        return self.node.type.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.ndim:
            raise located(TypeError("a tensor without dimensions cannot be iterated over"))
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).any())

    # --- gradients --------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """True where gradients flow to or through this tensor."""
        return self.node.needs_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Asks (or no longer asks) for the gradient of this tensor."""
        node = self.node
        if requires_grad == node.needs_grad:
            return self
        if not requires_grad:
            if not isinstance(node, Leaf):
                raise located(GradientError(
                    "requires_grad_(False): got a tensor that was computed from others; only "
                    "leaves can stop requiring a gradient; call .detach()"
                ))  # fmt: skip
            self._node = detach(node)
            return self
        if not node.dtype.is_inexact:
            raise located(GradientError(
                f"requires_grad_: got a tensor of dtype {node.dtype.name}; only floating-point "
                f"and complex tensors have gradients; convert it with .float() first"
            ))  # fmt: skip
        self._node = make_leaf(node, self)
        return self

    @property
    def is_leaf(self) -> bool:
        """True where the gradient stops: no history, or asked for by ``requires_grad``."""
        node = self.node
        return not node.needs_grad or isinstance(node, Leaf)

    @property
    def grad(self) -> Tensor | None:
        """The gradient that ``backward()`` calls have added up, or None."""
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None and value.node.type.layout != self.node.type.layout:
            raise located(ShapeError(
                f"grad: got {value.node.type} for a tensor {self.node.type}; they must be equal"
            ))  # fmt: skip
        self._grad = value

    @property
    def grad_fn(self) -> Node | None:
        """The node that computed this tensor, where a gradient flows through it."""
        node = self.node
        return node if node.needs_grad and not isinstance(node, Leaf) else None

    def retain_grad(self) -> None:
        """Keeps the gradient of a computed tensor too, in ``grad``."""
        node = self.node
        if not node.needs_grad:
            raise located(GradientError(
                "retain_grad: got a tensor that does not require a gradient"
            ))  # fmt: skip
        if not isinstance(node, Leaf):
            retained[node] = ref(self)

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Sequence[Tensor] | None = None,
    ) -> None:
        """Adds d(self)/d(leaf) to the ``grad`` of every leaf.

        ``gradient`` weighs the elements (needed unless there is one element only).
        ``create_graph`` makes the gradients differentiable themselves.
        """
        from treadle.tensor.gradients import accumulate_gradients

        accumulate_gradients([self], [gradient], retain_graph, create_graph, inputs)

    def detach(self) -> Tensor:
        """The same values, sharing memory, through which no gradient flows."""
        return view_of(self, detach)

    def detach_(self) -> Self:
        """Cuts this tensor off from its history."""
        self._node = detach(self.node)
        return self

    @property
    def data(self) -> Tensor:
        """The same values, sharing memory, without history; assigning replaces the values."""
        return view_of(self, detach)

    @data.setter
    def data(self, value: Tensor) -> None:
        if value.dtype is not self.dtype and self.requires_grad:
            raise located(ShapeError(
                f"data: got dtype {value.dtype.name} for a tensor of dtype {self.dtype.name}; "
                f"convert it with .to(...) first"
            ))  # fmt: skip
        node = detach(value.node)
        leaf = isinstance(self._node, Leaf)
        self._base, self._chain = None, ()
        self._node = make_leaf(node, self) if leaf else node
        self._version += 1

    # --- copies and conversions -------------------------------------------------------------------

    def clone(self, *, memory_format: Any = None) -> Tensor:
        """A copy with memory of its own; the gradient flows through."""
        return wrap(a.e.convert(self.node, dtype=self.dtype))

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """In another dtype or on another device: ``x.to(dtype)``, ``.to('cpu')``, ``.to(y)``."""
        dtype, device = kwargs.get("dtype"), kwargs.get("device")
        for argument in args:
            if isinstance(argument, Tensor):
                dtype = argument.dtype
            elif isinstance(argument, (str, Device)) and not _names_dtype(argument):
                device = argument
            elif argument is not None and not isinstance(argument, bool):
                dtype = argument
        if device is not None:
            check_device(device)
        if dtype is None or dtypes.as_dtype(dtype) is self.dtype:
            return self.clone() if kwargs.get("copy") else self
        return wrap(a.cast(self.node, dtypes.as_dtype(dtype)))

    def cpu(self) -> Tensor:
        """The tensor on the CPU."""
        return self

    def cuda(self, device: Any = None) -> Tensor:
        """Raises DeviceError: there is no CUDA device yet."""
        return self.to("cuda")

    def type(self, dtype: Any = None) -> Any:
        """``"treadle.FloatTensor"`` for float32 and so on, or the tensor in another dtype.

        ``dtype`` may be one of these names, or ``FloatTensor`` itself.
        """
        from treadle.tensor.spellings import dtype_named, name_of  # names of PyTorch's old days

        return name_of(self.dtype) if dtype is None else self.to(dtype_named(dtype))

    def type_as(self, other: Tensor) -> Tensor:
        """In the dtype of ``other``."""
        return self.to(other.dtype)

    def float(self, memory_format: Any = None) -> Tensor:
        """In float32."""
        return self.to(dtypes.float32)

    def double(self, memory_format: Any = None) -> Tensor:
        """In float64."""
        return self.to(dtypes.float64)

    def half(self, memory_format: Any = None) -> Tensor:
        """In float16."""
        return self.to(dtypes.float16)

    def bfloat16(self, memory_format: Any = None) -> Tensor:
        """In bfloat16."""
        return self.to(dtypes.bfloat16)

    def long(self, memory_format: Any = None) -> Tensor:
        """In int64."""
        return self.to(dtypes.int64)

    def int(self, memory_format: Any = None) -> Tensor:
        """In int32."""
        return self.to(dtypes.int32)

    def bool(self, memory_format: Any = None) -> Tensor:
        """In bool: True where not zero."""
        return self.to(dtypes.bool_)

    def copy_(self, src: Tensor) -> Self:
        """Takes the values of ``src`` (broadcast, converted)."""
        node = a.cast(a.stretch(src.node, self.node.type.shape), self.dtype)
        self._write(a.e.convert(node, dtype=self.dtype))
        return self

    def fill_(self, value: Any) -> Self:
        """Sets all elements to one number."""
        number = value.item() if isinstance(value, Tensor) else value
        self._write(full_like(self.node, number))
        return self

    def zero_(self) -> Self:
        """Sets all elements to 0."""
        return self.fill_(0)

    def __deepcopy__(self, memo: dict[Any, Any]) -> Tensor:
        known = memo.get(id(self))
        if known is not None:
            return known
        if not self.is_leaf:
            raise located(GradientError(
                "deepcopy: got a tensor that was computed from others and requires a gradient; "
                "copy it with .detach().clone()"
            ))  # fmt: skip
        import copy

        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        _restore(copied, wrap(detach(self.node)).clone().node, self.requires_grad)
        if self._grad is not None:
            copied._grad = copy.deepcopy(self._grad, memo)
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        array = array_of(detach(self.node) if self.requires_grad else self.node)
        return _unpickled, (
            type(self), array.tobytes(), self.dtype, tuple(self.shape),
            self.requires_grad and self.is_leaf, self.__dict__,
        )  # fmt: skip


# Computed tensors that want their gradient, by node. Weak on both sides: a tensor refers to its
# node, so that a table that held tensors would keep every one of them, and its graph, for ever.
retained: WeakKeyDictionary[Node, ref[Tensor]] = WeakKeyDictionary()


def _names_dtype(text: Any) -> bool:
    return isinstance(text, str) and text.removeprefix("treadle.") in dtypes._BY_NAME


def _restore(tensor: Tensor, node: Node, requires_grad: bool) -> None:
    """Fills a bare tensor."""
    tensor._node = node
    tensor._base, tensor._chain, tensor._version, tensor._grad = None, (), 0, None
    if requires_grad:
        tensor._node = make_leaf(node, tensor)


def _unpickled(
    cls: type[Tensor], data: bytes, dtype: DType, shape: tuple[int, ...], requires_grad: bool,
    attributes: dict[str, Any],
) -> Tensor:  # fmt: skip
    tensor = cls.__new__(cls)
    array = np.frombuffer(data, dtype.numpy).reshape(shape)
    _restore(tensor, node_from_array(array, dtype), requires_grad)
    tensor.__dict__.update(attributes)
    return tensor


set_tensor_class(Tensor)
