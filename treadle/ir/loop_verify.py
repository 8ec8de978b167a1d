"""``verify_kernel``: whether a kernel keeps the rules of the loop IR.

A kernel that fails here is a defect of whoever built it, never of the user, so the error names
the kernel and the statement. What can only be seen while running (indices in range, the
independence that a vector loop promises) is checked by ``interpret``.
"""

from __future__ import annotations

import re
from itertools import pairwise

from treadle.base.dtypes import DType
from treadle.base.errors import CompileError
from treadle.ir.loop import (
    ARITHMETIC,
    BEGIN,
    BOOL,
    COMPARISONS,
    END,
    I64,
    LOOP_KINDS,
    THREAD,
    Assign,
    Choose,
    Const,
    Fail,
    If,
    Kernel,
    Load,
    Local,
    Loop,
    Operand,
    Pointer,
    Statement,
    Store,
    Transpose,
    Value,
)
from treadle.ir.loop_arithmetic import round_float
from treadle.ir.loop_text import operand_dtype, statement_text

MAX_NESTING = 64  # loops and ifs inside one another: printers may recurse over them
MAX_LOCAL_BYTES = 1 << 20  # a Local lies on a thread's stack

_NAME = re.compile(r"\w+", re.ASCII)
_KERNEL_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_NUMBERS, _FLOATS, _BITS, _INTEGERS, _ANY = "fiu", "f", "iub", "iu", "fiub"
_KINDS = {
    "add": _NUMBERS, "sub": _NUMBERS, "mul": _NUMBERS, "neg": _NUMBERS, "abs": _NUMBERS,
    "div": _NUMBERS, "rem": _NUMBERS, "sqrt": _FLOATS, "floor": _FLOATS, "ceil": _FLOATS,
    "trunc": _FLOATS, "roundeven": _FLOATS, "fma": _FLOATS, "minimum": _ANY, "maximum": _ANY,
    "and": _BITS, "or": _BITS, "xor": _BITS, "not": _BITS, "shl": _INTEGERS, "shr": _INTEGERS,
    "select": _ANY, "convert": _ANY, "bitcast": _NUMBERS, **dict.fromkeys(COMPARISONS, _ANY),
}  # fmt: skip
_KIND_NAMES = {"f": "floating", "i": "signed", "u": "unsigned", "b": "b1"}


class KernelVerifyError(CompileError):
    """A kernel that breaks a rule of the loop IR: the kernel, the statement and the rule."""


def verify_kernel(kernel: Kernel) -> None:
    """Checks every rule that can be seen without running the kernel.

    Names: each is assigned once in the whole kernel, before its uses and in scope. Dtypes: those
    of the table in ``loop.py``; constants fit theirs. Vector loops: the bounds of loops inside are
    uniform (the same for every lane), loops inside are not themselves vector loops, and an If on a
    condition that is not uniform touches no memory but the Locals of the vector loop. Unrolled
    loops have constant bounds.

    Raises:
        KernelVerifyError: at the first statement that breaks a rule.
    """
    _Verifier(kernel).check()


class _Verifier:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.statement: Statement | None = None
        self.scope: dict[str, Value | Pointer] = {}
        self.assigned: set[str] = set()
        self.varying: set[str] = set()  # values that differ between the lanes of a vector loop
        self.vector = ""  # the variable of the vector loop around, if any
        self.private: set[str] = set()  # the Locals of that loop
        self.locals: dict[str, int] = {}  # elements of every Local
        self.masked = False  # inside an If that holds in some lanes only
        self.depth = 0
        self.unlike: set[str] = set()  # which of "stream" and "fail" the kernel has

    def check(self) -> None:
        kernel = self.kernel
        if not _KERNEL_NAME.fullmatch(kernel.name):
            raise self.error(f"the kernel's name is {kernel.name!r}; expected letters, digits, _")
        for value in (BEGIN, END, THREAD):
            self.define(value)
        for param in kernel.params:
            if isinstance(param, Value) and param.dtype is not I64:
                raise self.error(
                    f"parameter %{param.name} is {param.dtype.short}; parameters are pointers and "
                    "i64 values: pass other scalars through memory"
                )
            self.define(param)
        self.block(kernel.body)

    def error(self, problem: str) -> KernelVerifyError:
        where = f", statement '{statement_text(self.statement)}'" if self.statement else ""
        return KernelVerifyError(f"kernel {self.kernel.name}{where}: {problem}")

    def malformed(self, problem: str) -> KernelVerifyError:
        """The error of a statement that cannot even be printed."""
        return KernelVerifyError(
            f"kernel {self.kernel.name}, statement {self.statement!r}: {problem}"
        )

    def block(self, body: list[Statement]) -> None:
        if self.depth > MAX_NESTING:
            raise self.error(f"loops and ifs nest deeper than {MAX_NESTING}; nest fewer")
        outer = self.scope
        self.scope = dict(outer)
        self.depth += 1
        for statement in body:
            self.statement = statement
            self.visit(statement)
        self.depth -= 1
        self.scope = outer

    def visit(self, statement: Statement) -> None:
        if isinstance(statement, Assign):
            self.assign(statement)
        elif isinstance(statement, Load):
            self.load(statement)
        elif isinstance(statement, Store):
            self.pointer(statement.pointer)
            self.operand(statement.index, I64, "the index")
            self.operand(statement.value, statement.pointer.dtype, "the stored value")
            self.reachable(statement)
            if statement.streams:
                self.either("stream")
        elif isinstance(statement, Loop):
            self.loop(statement)
        elif isinstance(statement, If):
            self.operand(statement.condition, BOOL, "the condition")
            outer, self.masked = self.masked, self.masked or self.varies(statement.condition)
            self.block(statement.body)
            self.masked = outer
        elif isinstance(statement, Local):
            self.local(statement)
        elif isinstance(statement, Choose):
            self.choose(statement)
        elif isinstance(statement, Transpose):
            self.transpose(statement)
        elif isinstance(statement, Fail):
            self.unmasked("a Fail")
            self.either("fail")
            if not 1 <= statement.code <= 255:
                raise self.error(f"the code is {statement.code}; expected 1..255")
        else:
            raise self.malformed(
                "expected an Assign, Load, Store, Local, Choose, Transpose, Loop, If or Fail"
            )

    # names and operands
    def define(self, item: Value | Pointer) -> None:
        if not _NAME.fullmatch(item.name):
            raise self.error(f"the name {item.name!r} is not made of letters, digits and _")
        if item.name in self.assigned:
            raise self.error(f"%{item.name} is assigned a second time; each name is assigned once")
        self.assigned.add(item.name)
        self.scope[item.name] = item

    def known(self, item: Value | Pointer) -> None:
        found = self.scope.get(item.name)
        if found is None:
            seen = item.name in self.assigned
            state = "was assigned in a block that has ended" if seen else "is used before it is set"
            raise self.error(f"%{item.name} {state}; assign it above, in this block or around it")
        if found != item:
            raise self.error(f"%{item.name} is used as {_describe(item)} but is {_describe(found)}")

    def pointer(self, pointer: Pointer) -> None:
        if not isinstance(pointer, Pointer):
            raise self.malformed(f"the pointer is {pointer!r}; expected a Pointer")
        self.known(pointer)

    def operand(self, operand: Operand, dtype: DType | None, what: str) -> None:
        """Checks an operand; ``dtype`` is what it must be, None for any."""
        if not isinstance(operand, (Value, Const)):
            raise self.malformed(f"{what} is {operand!r}; expected a Value or a Const")
        if dtype is not None and operand.dtype is not dtype:
            raise self.error(
                f"{what} is {operand.dtype.short}; expected {dtype.short}: convert it first"
            )
        if isinstance(operand, Value):
            self.known(operand)
        elif not _fits(operand):
            raise self.error(
                f"{what}, the constant {operand.value!r}, is not a value of {operand.dtype.short}; "
                "round it first (Builder.const does)"
            )

    def varies(self, operand: Operand) -> bool:
        return isinstance(operand, Value) and operand.name in self.varying

    def unmasked(self, what: str) -> None:
        if self.masked:
            raise self.error(
                f"{what} lies inside an If that varies with %{self.vector}, the variable of the "
                "vector loop around; such an If holds arithmetic and Locals of that loop only"
            )

    def reachable(self, statement: Load | Store) -> None:
        """Memory that every lane has for itself has uniform indices; other memory is not masked."""
        if statement.pointer.name in self.private:
            self.uniform(statement.index, "the index into a local")
        else:
            self.unmasked(f"access to %{statement.pointer.name}")

    def either(self, verb: str) -> None:
        """What streams has arrived only when a kernel ends as it should."""
        self.unlike.add(verb)
        if len(self.unlike) > 1:
            raise self.error("a kernel that may fail streams nothing; use store")

    def uniform(self, operand: Operand, what: str) -> None:
        if isinstance(operand, Value) and operand.name in self.varying:
            raise self.error(
                f"{what} %{operand.name} varies with %{self.vector}, the variable of the vector "
                "loop around; it must be the same for every lane: use select, or a serial loop"
            )

    # statements
    def assign(self, statement: Assign) -> None:
        op, dtype, args = statement.op, statement.dtype, statement.args
        if op not in ARITHMETIC:
            raise self.error(f"there is no operation {op!r}; there are {', '.join(ARITHMETIC)}")
        if len(args) != ARITHMETIC[op]:
            raise self.error(f"{op} takes {ARITHMETIC[op]} operands, got {len(args)}")
        if dtype.kind not in _KINDS[op]:
            kinds = ", ".join(_KIND_NAMES[kind] for kind in _KINDS[op])
            raise self.error(f"{op} does not take {dtype.short}; it takes {kinds} dtypes")
        for position, arg in enumerate(args):
            self.operand(arg, operand_dtype(op, dtype, position), f"operand {position + 1}")
        if op == "bitcast" and (args[0].dtype.bits != dtype.bits or args[0].dtype is BOOL):
            raise self.error(
                f"bitcast from {args[0].dtype.short} to {dtype.short}; the dtypes must have "
                "the same number of bits, and b1 has none to cast: use convert"
            )
        result = BOOL if op in COMPARISONS else dtype
        if statement.result.dtype is not result:
            raise self.error(
                f"the result is declared {statement.result.dtype.short}; expected {result.short}"
            )
        self.define(statement.result)
        if any(isinstance(a, Value) and a.name in self.varying for a in args):
            self.varying.add(statement.result.name)

    def load(self, statement: Load) -> None:
        self.pointer(statement.pointer)
        self.operand(statement.index, I64, "the index")
        if statement.result.dtype is not statement.pointer.dtype:
            raise self.error(
                f"the result is declared {statement.result.dtype.short}; "
                f"expected {statement.pointer.dtype.short}"
            )
        self.define(statement.result)
        self.reachable(statement)
        if statement.pointer.name in self.private or self.varies(statement.index):
            self.varying.add(statement.result.name)

    def local(self, statement: Local) -> None:
        if self.vector:
            self.private.add(statement.pointer.name)
        size = statement.size * statement.pointer.dtype.itemsize
        if not 0 < size <= MAX_LOCAL_BYTES:
            raise self.error(
                f"the size is {statement.size} elements, {size} bytes; expected 1 to "
                f"{MAX_LOCAL_BYTES} bytes: use a workspace for more"
            )
        self.define(statement.pointer)
        self.locals[statement.pointer.name] = statement.size

    def choose(self, statement: Choose) -> None:
        if self.vector:
            raise self.error("a choice lies inside a vector loop; choose before it")
        self.operand(statement.index, I64, "the index")
        first, choices = statement.choices[0], statement.choices
        params = {param.name: place for place, param in enumerate(self.kernel.params)}
        places = [params.get(choice.name, -1) for choice in choices]
        steps = {b - a for a, b in pairwise(places)}
        if -1 in places or len(steps) > 1 or min(steps, default=1) <= 0:
            raise self.error("the choices are not parameters of the kernel, evenly spaced")
        alike = all(type(c) is type(first) and c.dtype is first.dtype for c in choices)
        result = statement.result
        if not alike or type(result) is not type(first) or result.dtype is not first.dtype:
            raise self.error("the choices and the result are not of one kind and dtype")
        self.define(result)

    def transpose(self, statement: Transpose) -> None:
        self.pointer(statement.target)
        self.pointer(statement.source)
        self.operand(statement.index, I64, "the index")
        self.operand(statement.stride, I64, "the stride")
        size, dtype = statement.size, statement.target.dtype
        if self.vector or dtype is not statement.source.dtype or dtype.kind == "b":
            raise self.error(
                "expected a target and a source of one dtype, not b1, outside vector loops"
            )
        if size < 2 or size & (size - 1):
            raise self.error(f"the size is {size}; expected a power of two, 2 or more")
        elements = self.locals.get(statement.target.name, 0)
        if elements < size * size:
            raise self.error(
                f"%{statement.target.name} has {elements} elements as a local; expected a local of "
                f"at least {size * size}"
            )

    def loop(self, loop: Loop) -> None:
        self.unmasked("a loop")
        if loop.kind not in LOOP_KINDS:
            raise self.error(f"the kind is {loop.kind!r}; expected one of {', '.join(LOOP_KINDS)}")
        if loop.step <= 0:
            raise self.error(f"the step is {loop.step}; it must be greater than 0")
        if loop.var.dtype is not I64:
            raise self.error(f"the loop variable is {loop.var.dtype.short}; expected i64")
        for bound, what in ((loop.lo, "the lower bound"), (loop.hi, "the upper bound")):
            self.operand(bound, I64, what)
            self.uniform(bound, what)
            if loop.kind == "unrolled" and isinstance(bound, Value):
                raise self.error(
                    f"{what} %{bound.name} of an unrolled loop is not a constant; "
                    "give a constant, or make the loop serial"
                )
        if loop.kind == "vector" and self.vector:
            raise self.error(
                f"a vector loop lies inside the vector loop over %{self.vector}; "
                "make one of them serial or unrolled"
            )
        outer = self.scope
        self.scope = dict(outer)
        self.define(loop.var)
        if loop.kind == "vector":
            self.vector = loop.var.name
            self.varying.add(loop.var.name)
        self.block(loop.body)
        if loop.kind == "vector":
            self.vector = ""
            self.private.clear()
        self.scope = outer


def _describe(item: Value | Pointer) -> str:
    return f"a {'pointer to ' if isinstance(item, Pointer) else ''}{item.dtype.short}"


def _fits(constant: Const) -> bool:
    """Whether the constant's value is of the right type and one that its dtype can hold."""
    value, dtype = constant.value, constant.dtype
    if dtype.kind == "b":
        return isinstance(value, bool)
    if dtype.kind == "f":
        return isinstance(value, float) and (value != value or round_float(value, dtype) == value)
    low = -(1 << (dtype.bits - 1)) if dtype.kind == "i" else 0
    return type(value) is int and low <= value < low + (1 << dtype.bits)
