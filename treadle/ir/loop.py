"""The loop IR: what a kernel is before a printer turns it into LLVM or OpenCL.

A kernel is a tree of statements over named values, each assigned once. Every kernel has the
implicit ``i64`` values ``%begin``, ``%end`` (its share of the parallel range) and ``%thread``,
and reads its parameters (pointers and ``i64`` sizes or strides) in order from one table.

    kernel add_f32(%out: ptr f32, %a: ptr f32, %b: ptr f32) {
      for %i in %begin..%end step 1 vector {
        %0 = load %a[%i]
        %1 = load %b[%i]
        %2 = add f32 %0, %1
        store %out[%i], %2
      }
    }

Statements: ``Assign`` (arithmetic), ``Load``, ``Store``, ``Local`` (a small scratch array, kept in
registers where its indices are constant), ``Transpose`` (a square block into a Local), ``Loop``,
``If``, ``Fail`` (stop with a code).

Loop kinds are promises of whoever builds the loop, not requests to an optimiser:
``serial``; ``unrolled`` (constant bounds, the body is repeated); ``vector`` (iterations are
independent, no iteration reads or stores what another stores, so any number of them may run as
lanes).
Arithmetic is IEEE, each operation rounded to its dtype, never contracted or reordered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from treadle.base import dtypes
from treadle.base.dtypes import DType

I64 = dtypes.int64
BOOL = dtypes.bool_

# name -> number of operands. All operands of one statement have its dtype unless said otherwise.
ARITHMETIC: dict[str, int] = {
    # floats and integers; integers wrap
    "add": 2, "sub": 2, "mul": 2, "neg": 1, "abs": 1,
    # floats: IEEE division. Integers: truncates towards zero; x/0 is 0 and MIN/-1 is MIN
    "div": 2,
    # C remainder: the sign of the dividend (fmod for floats, exact). Integers: x rem 0 is 0
    "rem": 2,
    # floats only; "roundeven" rounds halves to even; fma(a, b, c) = a*b + c rounded once
    "sqrt": 1, "floor": 1, "ceil": 1, "trunc": 1, "roundeven": 1, "fma": 3,
    # IEEE-754-2019 minimum and maximum (NaN wins, -0 < +0); on integers and b1 as usual
    "minimum": 2, "maximum": 2,
    # comparisons: the dtype of the statement is that of the operands; the result is b1
    "eq": 2, "ne": 2, "lt": 2, "le": 2, "gt": 2, "ge": 2,
    # integers and b1
    "and": 2, "or": 2, "xor": 2, "not": 1,
    # integers; shr is arithmetic for signed dtypes; an amount >= the width gives 0 (shr: the sign)
    # (the amount is read as unsigned, so that a negative one is beyond the width)
    "shl": 2, "shr": 2,
    # select(b1, x, y)
    "select": 3,
    # to the statement's dtype. float->int truncates, saturates, NaN -> 0; float->float and
    # int->float round to nearest even (int -> f16 or bf16 by way of f32); int->int wraps; to b1
    # means != 0
    "convert": 1,
    # the same bits as the statement's dtype of equal width; not from or to b1
    "bitcast": 1,
}  # fmt: skip
COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})
LOOP_KINDS = ("serial", "unrolled", "vector")


@dataclass(frozen=True, slots=True)
class Const:
    """A literal, already rounded to its dtype."""

    value: float | int | bool
    dtype: DType


@dataclass(frozen=True, slots=True)
class Value:
    """A scalar (a lane, inside vector loops) assigned once."""

    name: str
    dtype: DType


@dataclass(frozen=True, slots=True)
class Pointer:
    """Memory: a parameter, or a Local. Indices count elements of ``dtype``."""

    name: str
    dtype: DType


Operand = Value | Const


@dataclass(slots=True)
class Assign:
    """``result = op dtype args``; ``dtype`` is that of the operands for comparisons."""

    result: Value
    op: str
    dtype: DType
    args: tuple[Operand, ...]


@dataclass(slots=True)
class Load:
    """``result = pointer[index]``. b1 is stored as one byte, 0 or 1."""

    result: Value
    pointer: Pointer
    index: Operand


@dataclass(slots=True)
class Store:
    """``pointer[index] = value``.

    ``streams`` says that nobody reads it soon: vectors may go past the caches. A kernel that has
    such stores has no Fail.
    """

    pointer: Pointer
    index: Operand
    value: Operand
    streams: bool = False


@dataclass(slots=True)
class Local:
    """A scratch array of ``size`` elements, undefined until stored to.

    Declared inside a vector loop, every lane has its own, and indices into it are uniform.
    """

    pointer: Pointer
    size: int


@dataclass(slots=True)
class Choose:
    """``result = choices[index]``: one of several parameters of one dtype.

    The choices are evenly spaced among the parameters; never inside a vector loop.
    """

    result: Value | Pointer
    choices: tuple[Value | Pointer, ...]
    index: Operand


@dataclass(slots=True)
class Transpose:
    """``target[j * size + i] = source[index + i * stride + j]`` for i, j < size, a power of two.

    The target is a Local; never inside a vector loop. So registers hold the columns of what lies
    in rows: rows become lanes.
    """

    target: Pointer
    source: Pointer
    index: Operand
    stride: Operand
    size: int


@dataclass(slots=True)
class Loop:
    """``for var in lo..hi step step kind``; runs no iteration where lo >= hi."""

    var: Value
    lo: Operand
    hi: Operand
    step: int
    kind: str
    body: list[Statement]


@dataclass(slots=True)
class If:
    """Runs its body where the b1 condition holds.

    Where the condition depends on the lane of a vector loop, the body holds only arithmetic and
    Ifs, and reads and writes only Locals of that loop: it costs nothing where no lane needs it.
    """

    condition: Operand
    body: list[Statement]


@dataclass(slots=True)
class Fail:
    """Stops this call of the kernel, which returns ``code`` (1..255)."""

    code: int


Statement = Assign | Load | Store | Local | Choose | Transpose | Loop | If | Fail


@dataclass(slots=True)
class Kernel:
    """A named kernel; ``params`` are Pointers and i64 Values in table order."""

    name: str
    params: list[Pointer | Value]
    body: list[Statement] = field(default_factory=list)


BEGIN, END, THREAD = Value("begin", I64), Value("end", I64), Value("thread", I64)


class Builder:
    """Writes a kernel statement by statement.

    >>> k = Builder("twice")
    >>> out, a = k.pointer("out", dtypes.float32), k.pointer("a", dtypes.float32)
    >>> with k.loop(BEGIN, END, kind="vector") as i:
    ...     x = k.load(a, i)
    ...     k.store(out, i, k.add(x, x))
    >>> len(k.kernel.body)
    1

    Integer arithmetic on constants folds, so that sizes known when the kernel is built cost
    nothing. Floats never fold: constants are computed by the same kernels as everything else.
    """

    def __init__(self, name: str) -> None:
        self.kernel = Kernel(name, [])
        self._block = self.kernel.body
        self._count = 0

    # parameters
    def pointer(self, name: str, dtype: DType) -> Pointer:
        """The next parameter, a pointer to elements of ``dtype``."""
        param = Pointer(name, dtype)
        self.kernel.params.append(param)
        return param

    def size(self, name: str) -> Value:
        """The next parameter, an i64."""
        param = Value(name, I64)
        self.kernel.params.append(param)
        return param

    # values
    def fresh(self, dtype: DType, stem: str = "") -> Value:
        """A value with a name not yet used."""
        self._count += 1
        return Value(f"{stem}{self._count - 1}", dtype)

    def const(self, value: float | int | bool, dtype: DType) -> Const:
        """A literal, rounded to ``dtype``."""
        if dtype.kind == "f":
            from treadle.ir.loop_arithmetic import round_float  # which imports this module

            return Const(round_float(float(value), dtype), dtype)
        return Const(bool(value) if dtype.kind == "b" else int(value), dtype)

    def op(self, name: str, *args: Operand | int, dtype: DType | None = None) -> Operand:
        """Any arithmetic operation; ``dtype`` is that of the last operand unless given."""
        known = dtype or next(a.dtype for a in reversed(args) if not isinstance(a, int))
        operands = tuple(self.const(a, known) if isinstance(a, int) else a for a in args)
        folded = fold(name, operands) if known is I64 else None
        if folded is not None:
            return folded
        result = self.fresh(BOOL if name in COMPARISONS else known)
        self._block.append(Assign(result, name, known, operands))
        return result

    def add(self, a: Operand | int, b: Operand | int) -> Operand:
        """``a + b``."""
        return self.op("add", a, b)

    def sub(self, a: Operand | int, b: Operand | int) -> Operand:
        """``a - b``."""
        return self.op("sub", a, b)

    def mul(self, a: Operand | int, b: Operand | int) -> Operand:
        """``a * b``."""
        return self.op("mul", a, b)

    def div(self, a: Operand | int, b: Operand | int) -> Operand:
        """``a / b``; of integers, towards zero."""
        return self.op("div", a, b)

    def rem(self, a: Operand | int, b: Operand | int) -> Operand:
        """The remainder of ``div``, with the sign of ``a``."""
        return self.op("rem", a, b)

    def fma(self, a: Operand, b: Operand, c: Operand) -> Operand:
        """``a * b + c``, rounded once."""
        return self.op("fma", a, b, c)

    def minimum(self, a: Operand | int, b: Operand | int) -> Operand:
        """The smaller one; NaN if either is."""
        return self.op("minimum", a, b)

    def maximum(self, a: Operand | int, b: Operand | int) -> Operand:
        """The larger one; NaN if either is."""
        return self.op("maximum", a, b)

    def compare(self, name: str, a: Operand | int, b: Operand | int) -> Operand:
        """``name`` is one of COMPARISONS; the result is b1."""
        return self.op(name, a, b)

    def select(self, condition: Operand, a: Operand | int, b: Operand | int) -> Operand:
        """``a`` where the condition holds, else ``b``."""
        dtype = next(x.dtype for x in (a, b) if not isinstance(x, int))
        return self.op("select", condition, self._as(a, dtype), self._as(b, dtype), dtype=dtype)

    def convert(self, a: Operand, dtype: DType) -> Operand:
        """The value in another dtype."""
        return a if a.dtype is dtype else self.op("convert", a, dtype=dtype)

    def bitcast(self, a: Operand, dtype: DType) -> Operand:
        """The bits read as another dtype of the same size."""
        return a if a.dtype is dtype else self.op("bitcast", a, dtype=dtype)

    def _as(self, a: Operand | int, dtype: DType) -> Operand:
        return self.const(a, dtype) if isinstance(a, int) else a

    # memory
    def load(self, pointer: Pointer, index: Operand | int) -> Value:
        """The element at ``index``."""
        result = self.fresh(pointer.dtype)
        self._block.append(Load(result, pointer, self._as(index, I64)))
        return result

    def store(
        self, pointer: Pointer, index: Operand | int, value: Operand, streams: bool = False
    ) -> None:
        """Writes the element at ``index``."""
        self._block.append(Store(pointer, self._as(index, I64), value, streams))

    def local(self, dtype: DType, size: int) -> Pointer:
        """Memory of ``size`` elements that lives as long as the kernel runs."""
        pointer = Pointer(self.fresh(dtype, "m").name, dtype)
        self._block.append(Local(pointer, size))
        return pointer

    def choose_pointer(self, choices: Sequence[Pointer], index: Operand) -> Pointer:
        """The parameter at ``index`` among ``choices``."""
        result = Pointer(self.fresh(choices[0].dtype, "c").name, choices[0].dtype)
        self._block.append(Choose(result, tuple(choices), index))
        return result

    def choose_size(self, choices: Sequence[Value], index: Operand) -> Value:
        """The parameter at ``index`` among ``choices``."""
        result = self.fresh(I64)
        self._block.append(Choose(result, tuple(choices), index))
        return result

    def transpose(
        self, target: Pointer, source: Pointer, index: Operand | int, stride: Operand | int,
        size: int,
    ) -> None:  # fmt: skip
        """``target[j * size + i] = source[index + i * stride + j]`` for i, j < size."""
        at, by = self._as(index, I64), self._as(stride, I64)
        self._block.append(Transpose(target, source, at, by, size))

    # control
    @contextmanager
    def loop(
        self, lo: Operand | int, hi: Operand | int, step: int = 1, kind: str = "serial"
    ) -> Iterator[Value]:
        """``with k.loop(0, n, kind="vector") as i:`` builds the body."""
        var = self.fresh(I64, "i")
        loop = Loop(var, self._as(lo, I64), self._as(hi, I64), step, kind, [])
        self._block.append(loop)
        outer, self._block = self._block, loop.body
        try:
            yield var
        finally:
            self._block = outer

    @contextmanager
    def when(self, condition: Operand) -> Iterator[None]:
        """``with k.when(condition):`` builds the body of an If."""
        branch = If(condition, [])
        self._block.append(branch)
        outer, self._block = self._block, branch.body
        try:
            yield
        finally:
            self._block = outer

    def fail(self, code: int) -> None:
        """Ends the kernel with an error code."""
        self._block.append(Fail(code))


def fold(name: str, args: tuple[Operand, ...]) -> Operand | None:
    """i64 identities and constants: the arithmetic of indices."""
    a, b = args[0], args[1] if len(args) > 1 else None
    if name == "add" and isinstance(a, Const) and a.value == 0:
        return b
    if name in ("add", "sub") and isinstance(b, Const) and b.value == 0:
        return a
    if name == "mul":
        for factor, other in ((a, b), (b, a)):
            if isinstance(factor, Const) and factor.value in (0, 1):
                return factor if factor.value == 0 else other
    if name == "div" and isinstance(b, Const) and b.value == 1:
        return a
    if not (isinstance(a, Const) and isinstance(b, Const)):
        return None
    x, y = int(a.value), int(b.value)
    if name in COMPARISONS:
        holds = {"eq": x == y, "ne": x != y, "lt": x < y, "le": x <= y, "gt": x > y, "ge": x >= y}
        return Const(holds[name], BOOL)
    if name in ("add", "sub", "mul", "minimum", "maximum"):
        table = {"add": x + y, "sub": x - y, "mul": x * y, "minimum": min(x, y),
                 "maximum": max(x, y)}  # fmt: skip
        return Const(wrapped(table[name]), I64)
    if name in ("div", "rem") and y != 0:
        quotient = abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)
        return Const(wrapped(quotient if name == "div" else x - quotient * y), I64)
    return None


def wrapped(value: int) -> int:
    """The number that i64 arithmetic leaves of ``value``."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)
