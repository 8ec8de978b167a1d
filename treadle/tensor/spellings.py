"""PyTorch's older and other names: ``FloatTensor(...)``, ``greater``, ``conj``, ``data_ptr`` ...

What a CPU framework without quantised or sparse tensors answers to the questions that
programs ask of tensors is here too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.ir.node import located
from treadle.ops.movement import detach as detach_op
from treadle.tensor import arithmetic as a
from treadle.tensor.creation import tensor, zeros
from treadle.tensor.handle import Handle, view_of
from treadle.tensor.methods import in_place
from treadle.tensor.movement import chunk, node_of, split
from treadle.tensor.storage import array_of
from treadle.tensor.tensor import Tensor, retained

if TYPE_CHECKING:
    from collections.abc import Callable

_NAMES = {
    dtypes.float32: "FloatTensor", dtypes.float64: "DoubleTensor", dtypes.float16: "HalfTensor",
    dtypes.bfloat16: "BFloat16Tensor", dtypes.uint8: "ByteTensor", dtypes.int8: "CharTensor",
    dtypes.int16: "ShortTensor", dtypes.int32: "IntTensor", dtypes.int64: "LongTensor",
    dtypes.bool_: "BoolTensor", dtypes.complex64: "ComplexFloatTensor",
    dtypes.complex128: "ComplexDoubleTensor", dtypes.uint16: "UInt16Tensor",
    dtypes.uint32: "UInt32Tensor", dtypes.uint64: "UInt64Tensor",
}  # fmt: skip


def name_of(dtype: DType) -> str:
    """``treadle.FloatTensor`` for float32, and so on."""
    return f"treadle.{_NAMES[dtype]}"


class LegacyTensor:
    """A class of PyTorch's older days: a dtype by another name.

    Called with sizes it gives zeros, with anything else a tensor of that data; tensors of the dtype
    are its instances, and ``x.type(...)`` takes it.
    """

    def __init__(self, dtype: DType) -> None:
        self.dtype = dtype
        self.__name__ = self.__qualname__ = _NAMES[dtype]

    def __call__(self, *args: Any) -> Tensor:
        if len(args) == 1 and not isinstance(args[0], int):
            return tensor(args[0], dtype=self.dtype)
        return zeros(*args, dtype=self.dtype)

    def __instancecheck__(self, value: object) -> bool:
        return isinstance(value, Tensor) and value.dtype is self.dtype

    def __repr__(self) -> str:
        return f"<class 'treadle.{self.__name__}'>"


(
    FloatTensor, DoubleTensor, HalfTensor, BFloat16Tensor, ByteTensor, CharTensor, ShortTensor,
    IntTensor, LongTensor, BoolTensor, *_,
) = map(LegacyTensor, _NAMES)  # fmt: skip


def dtype_named(kind: Any) -> DType:
    """The dtype of ``"treadle.FloatTensor"``, of ``FloatTensor``, or of what names a dtype."""
    if isinstance(kind, LegacyTensor):
        return kind.dtype
    if isinstance(kind, str):
        for dtype, name in _NAMES.items():
            if kind.rpartition(".")[2] == name:
                return dtype
    return dtypes.as_dtype(kind)


def set_default_tensor_type(t: Any) -> None:
    """``set_default_dtype`` by a name such as ``FloatTensor``."""
    dtypes.set_default_dtype(dtype_named(t))


class memory_format:
    """PyTorch's wish how elements should lie in memory: accepted, the engine sees to it itself."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"treadle.{self._name}"


contiguous_format, preserve_format = map(memory_format, ("contiguous_format", "preserve_format"))
strided = memory_format("strided")  # PyTorch's layout of dense tensors, the only one here
channels_last, channels_last_3d = map(memory_format, ("channels_last", "channels_last_3d"))


# --- functions under other names ------------------------------------------------------------------

greater, greater_equal, less, less_equal, not_equal = a.gt, a.ge, a.lt, a.le, a.ne


def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy with memory of its own; the gradient flows through."""
    node_of("clone", input)
    return input.clone()


def detach(input: Tensor) -> Tensor:
    """The same values, sharing memory, through which no gradient flows."""
    node_of("detach", input)
    return view_of(input, detach_op)


def rsub(input: Tensor, other: Any, *, alpha: float = 1) -> Tensor:
    """``other - alpha * input``."""
    return a.sub(other, input, alpha=alpha)


def clamp_min(input: Tensor, min: Any) -> Tensor:
    """``clamp(input, min=min)``."""
    return a.clamp(input, min=min)


def clamp_max(input: Tensor, max: Any) -> Tensor:
    """``clamp(input, max=max)``."""
    return a.clamp(input, max=max)


def fill(input: Tensor, value: Any) -> Tensor:
    """``value`` in the shape and dtype of ``input``."""
    return clone(input).fill_(value)


unsafe_chunk, unsafe_split, unsafe_split_with_sizes = chunk, split, split


# --- questions with one answer --------------------------------------------------------------------


def _never(what: str) -> Any:
    def answer(self: Any) -> bool:
        return False

    answer.__doc__ = f"False: {what}."
    return property(answer)


class Methods(Handle):
    """Tensor methods and attributes of these names."""

    __slots__ = ()

    greater, greater_equal, less, less_equal = greater, greater_equal, less, less_equal
    not_equal = not_equal
    eq_, ne_, lt_, le_, gt_, ge_ = map(in_place, (a.eq, a.ne, a.lt, a.le, a.gt, a.ge))
    greater_, greater_equal_, less_, less_equal_ = gt_, ge_, lt_, le_
    not_equal_ = ne_
    clamp_min_, clamp_max_ = map(in_place, (clamp_min, clamp_max))
    unsafe_chunk, unsafe_split = unsafe_chunk, unsafe_split
    unsafe_split_with_sizes = unsafe_split_with_sizes
    is_cpu = property(lambda self: True, doc="True: this version runs on the CPU only.")
    is_cuda = _never("this version runs on the CPU only")
    is_mps = is_xpu = is_xla = is_ipu = is_vulkan = is_cuda
    is_meta = _never("every tensor has memory")
    is_sparse = is_sparse_csr = _never("there are no sparse tensors")
    is_quantized = is_mkldnn = is_nested = _never("there are no such tensors")

    def short(self: Any, memory_format: Any = None) -> Tensor:
        """In int16."""
        return self.to(dtypes.int16)

    def byte(self: Any, memory_format: Any = None) -> Tensor:
        """In uint8."""
        return self.to(dtypes.uint8)

    def char(self: Any, memory_format: Any = None) -> Tensor:
        """In int8."""
        return self.to(dtypes.int8)

    @property
    def retains_grad(self: Any) -> bool:
        """Whether ``retain_grad`` was called for this computed tensor."""
        return self.node in retained

    def apply_(self: Any, callable: Callable[[Any], Any]) -> Any:
        """Replaces every element by ``callable(element)``: Python's speed, and no gradient."""
        values = [callable(x) for x in array_of(self.node).reshape(-1).tolist()]
        return self.copy_(tensor(values, dtype=self.dtype).reshape(self.shape))

    def map_(self: Any, tensor: Tensor, callable: Callable[[Any, Any], Any]) -> Any:
        """Replaces every element by ``callable(element, element of tensor)``; no gradient."""
        others = iter(array_of(tensor.expand(self.shape).node).reshape(-1).tolist())
        return self.apply_(lambda x: callable(x, next(others)))

    def __reversed__(self: Any) -> Tensor:
        return self.flip(0) if self.ndim else self

    def data_ptr(self: Any) -> int:
        """The address of the first element (evaluates the tensor)."""
        return array_of(self.node).ctypes.data

    def get_device(self: Any) -> int:
        """-1: on the CPU."""
        return -1

    def pin_memory(self) -> Self:
        """The tensor itself: there is no device that copies."""
        return self

    def is_pinned(self) -> bool:
        """False: there is no device that copies."""
        return False

    def share_memory_(self) -> Self:
        """Refused: a tensor's memory belongs to one process."""
        raise located(NotImplementedError(
            "share_memory_: a tensor's memory belongs to one process; send the tensor itself: "
            "it is copied"
        ))  # fmt: skip

    def is_shared(self) -> bool:
        """False: a tensor's memory belongs to one process."""
        return False

    def is_inference(self) -> bool:
        """False: what is made in ``inference_mode`` is a tensor like any."""
        return False

    def new(self: Any, *args: Any) -> Tensor:
        """A tensor of this dtype: of the data given, or zeros of the sizes given."""
        return LegacyTensor(self.dtype)(*args)


__all__ = [
    "BFloat16Tensor", "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "FloatTensor",
    "HalfTensor", "IntTensor", "LongTensor", "ShortTensor", "channels_last", "channels_last_3d",
    "clamp_max", "clamp_min", "clone", "contiguous_format", "detach", "fill", "greater",
    "greater_equal", "less", "less_equal", "memory_format", "not_equal", "preserve_format", "rsub",
    "set_default_tensor_type", "strided", "unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes",
]  # fmt: skip
