"""What one op becomes on a device: kernels to launch, in order, on operands with given layouts.

A lowering (in an op's record, or in ``codegen/contraction.py``) turns layouts into a ``Plan``. The
plan names kernels by how to build them, so that a kernel already compiled is never built again,
and refers to memory by role; addresses are filled in when the plan runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from treadle.base.dtypes import DType
from treadle.base.lazy_numpy import np
from treadle.base.record import Record
from treadle.base.shapes import Shape, contiguous_strides, prod

if TYPE_CHECKING:
    from treadle.ir.loop import Kernel


class Layout(Record):
    """How an operand lies in memory: element [i, j] is at i*strides[0] + j*strides[1] elements."""

    dtype: DType
    shape: Shape
    strides: tuple[int, ...]

    @property
    def is_contiguous(self) -> bool:
        """True for row-major order without gaps (axes of size 1 do not count)."""
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1:
                if stride != expected:
                    return prod(self.shape) == 0
                expected *= size
        return True

    @property
    def touched(self) -> int:
        """The bytes of the elements, those that a stride of 0 repeats counted once."""
        pairs = zip(self.shape, self.strides, strict=True)
        return prod(n if step else min(n, 1) for n, step in pairs) * self.dtype.itemsize


def contiguous(dtype: DType, shape: Shape) -> Layout:
    """The row-major layout."""
    return Layout(dtype, shape, contiguous_strides(shape))


class In(Record):
    """The address of input ``index`` (plus ``offset`` elements)."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    offset: int = 0


class Out(Record):
    """The address of output ``index`` (plus ``offset`` elements)."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    offset: int = 0


class Work(Record):
    """The address of workspace ``index`` (plus ``offset`` bytes)."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    offset: int = 0


Argument = In | Out | Work | int


class KernelSpec(Record):
    """A kernel by how to build it: ``build(*key)`` gives its loop IR. ``key`` is hashable."""

    build: Callable[..., Kernel]
    key: tuple[Any, ...]


def host_call(
    call: Callable[..., Any], attrs: tuple[tuple[str, Any], ...], inputs: tuple[Layout, ...],
    outputs: tuple[Layout, ...],
) -> Kernel:  # fmt: skip
    """As the ``build`` of a spec: no kernel but Python on the host.

    ``call(*arrays, **attrs)`` takes arrays with the inputs' layouts and gives one, or several, with
    the outputs'. There is no loop IR for it; a device calls it from the tape.
    """
    raise TypeError(f"{call!r} runs on the host; it has no loop IR")


HOST_CALL = "what the host call raised"  # the message of its launch


class HostErrors:
    """What host calls have raised, by the codes that they stopped with, until somebody tells it."""

    raised: ClassVar[dict[int, BaseException]] = {}

    @classmethod
    def forget(cls) -> None:
        """Whoever ran them will run them again; but Ctrl-C must not be lost."""
        raised = list(cls.raised.values())
        cls.raised.clear()
        for error in raised:
            if not isinstance(error, Exception):
                raise error


class Refusal(Record):
    """Why a kernel stopped, told by what it looked at.

    ``tell(x)`` gives the error (without the line) for the contiguous operand that the launch's
    argument number ``argument`` is the address of; ``layout`` says what lies there.
    """

    argument: int
    layout: Layout
    tell: Callable[[np.ndarray[Any, Any]], Exception]


class Launch(Record):
    """One call of a kernel.

    ``args`` fill the kernel's parameters in order, addresses first, then numbers. The kernel is
    run for the range 0..units, in one piece, or cut into contiguous pieces for several threads
    where ``work`` (a rough number of scalar operations for the whole launch) makes that worth while
    and ``units`` > 1. Any cut must give the same bits. ``thread`` in a kernel is below the number
    of threads the plan was made for.
    """

    kernel: KernelSpec
    args: tuple[Argument, ...]
    units: int
    work: int
    message: str | Refusal = ""  # what a Fail in this kernel means, for the user


class Plan(Record):
    """Launches in order, and the bytes of each workspace they share."""

    launches: tuple[Launch, ...]
    workspaces: tuple[int, ...] = ()
