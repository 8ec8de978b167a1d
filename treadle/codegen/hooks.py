"""Elementwise work that rides on a contraction: where an operand is read, where a result is stored.

A hook is a function of (builder, value, indices) that returns a value. A *prologue* sees each
element of an operand as it is read (indices are the operand's) and gives the element to multiply;
an *epilogue* sees each element of the result, rounded to the contraction's dtype (indices are the
result's), and gives the element to store, in the dtype of what is stored. Both compute what a
kernel of their own would: a hook changes where the work is done, never a bit of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from treadle.base.dtypes import DType
from treadle.base.errors import CompileError
from treadle.base.record import Record
from treadle.ir.launch import Argument
from treadle.ir.loop import I64, Builder, Const, Operand, Pointer

_SHORT = 24  # statements

# (batch, row, column), of a convolution (image, channel, pixel); any may differ between lanes
Indices = tuple[Operand, Operand, Operand]
Emit = Callable[[Builder, Operand, Indices, Sequence[Pointer], Sequence[Operand]], Operand]
Begin = Callable[[Builder, Operand, Operand, Sequence[Pointer], Sequence[Operand]], list[Operand]]


class Hook(Record):
    """What to emit: ``emit(k, value, indices, pointers, sizes) -> value``.

    ``pointers`` are the dtypes of the memory it reads beside the value, ``sizes`` the number of
    i64 parameters (strides, for the most part); both are parameters of the kernel. ``emit`` is part
    of the kernel's key, so it is a function of a module, not a lambda made anew for each plan.
    Where there is a ``begin(k, batch, row, pointers, sizes)``, emit gets what it gives instead of
    the sizes: what is the same for a whole row is then computed once.
    """

    name: str
    emit: Emit
    pointers: tuple[DType, ...] = ()
    sizes: int = 0
    begin: Begin | None = None


class Fused(Record):
    """A hook with the arguments of one launch."""

    hook: Hook
    addresses: tuple[Argument, ...] = ()
    numbers: tuple[int, ...] = ()


class Hooks(Record):
    """The hooks of a kernel: on both operands and on the result."""

    a: Hook | None = None
    b: Hook | None = None
    result: Hook | None = None


class Riders(Record):
    """The hooks of a plan, with their arguments."""

    a: Fused | None = None
    b: Fused | None = None
    result: Fused | None = None

    @property
    def hooks(self) -> Hooks:
        """What the kernel is made for."""
        return Hooks(*(fused and fused.hook for fused in self))

    @property
    def addresses(self) -> tuple[Argument, ...]:
        """Arguments in the order of ``Attached``."""
        return tuple(x for fused in self if fused for x in fused.addresses)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Arguments in the order of ``Attached.declare_sizes``."""
        return tuple(x for fused in self if fused for x in fused.numbers)


class Line(Record):
    """A row of the result, and what the hook needs of it."""

    batch: Operand
    row: Operand
    ahead: Sequence[Operand]


def _length(hook: Hook, dtype: DType) -> int:
    """The statements for one element."""
    k = Builder(hook.name)
    pointers = [k.pointer(f"pointer_{n}", kind) for n, kind in enumerate(hook.pointers)]
    sizes: Sequence[Operand] = [k.size(f"size_{n}") for n in range(hook.sizes)]
    row, zero = k.size("row"), Const(0, I64)
    if hook.begin:
        sizes = hook.begin(k, zero, row, pointers, sizes)
    ahead = len(k.kernel.body)
    hook.emit(k, k.fresh(dtype), (zero, row, zero), pointers, sizes)
    return len(k.kernel.body) - ahead


class Attached:
    """The hooks inside a kernel: declares their parameters, applies them.

    ``is_short`` tells whether the work on an element of the result, of ``dtype``, is so little that
    it may be written out for all elements of a register tile.
    """

    def __init__(self, k: Builder, hooks: Hooks, dtype: DType) -> None:
        """Declares the pointers."""
        self._k, self._hooks = k, hooks
        self.is_short = hooks.result is None or _length(hooks.result, dtype) <= _SHORT
        self._pointers = {
            part: [k.pointer(f"{part}_{n}", dtype) for n, dtype in enumerate(hook.pointers)]
            for part, hook in zip(hooks._fields, hooks, strict=True)
            if hook
        }
        self._sizes: dict[str, list[Operand]] = {}

    def declare_sizes(self) -> None:
        """Declares the i64 parameters, after all pointers of the kernel."""
        for part, hook in zip(self._hooks._fields, self._hooks, strict=True):
            if hook:
                names = [f"{part}_size_{n}" for n in range(hook.sizes)]
                self._sizes[part] = [self._k.size(name) for name in names]

    def finish(
        self, out: Pointer, at: Operand, total: Operand, dtype: DType, line: Line, column: Operand
    ) -> None:
        """Rounds a complete sum to ``dtype`` and stores what the hook of the result makes of it."""
        value = self._applied("result", self._k.convert(total, dtype), line, column, out.dtype)
        self._k.store(out, at, value)

    def line(self, batch: Operand, row: Operand, part: str = "result") -> Line:
        """What the hook of ``part`` needs of a row, which is computed here."""
        hook: Hook | None = getattr(self._hooks, part)
        ahead: Sequence[Operand] = self._sizes.get(part, ())
        if hook and hook.begin:
            ahead = hook.begin(self._k, batch, row, self._pointers[part], ahead)
        return Line(batch, row, ahead)

    def apply(self, part: str, value: Operand, indices: Indices, dtype: DType) -> Operand:
        """The value that the hook of ``part`` gives, which must be of ``dtype``."""
        batch, row, column = indices
        return self._applied(part, value, self.line(batch, row, part), column, dtype)

    def _applied(
        self, part: str, value: Operand, line: Line, column: Operand, dtype: DType
    ) -> Operand:
        hook: Hook | None = getattr(self._hooks, part)
        if hook is None:
            result = value
        else:
            place = (line.batch, line.row, column)
            result = hook.emit(self._k, value, place, self._pointers[part], line.ahead)
        if result.dtype is not dtype:
            who = "without a hook" if hook is None else f"the hook {hook.name}"
            raise CompileError(
                f"contraction kernel, {part}: {who} gives {result.dtype!r} where {dtype!r} is "
                "expected; convert inside the hook"
            )
        return result
