"""Loop IR as text: ``print_kernel`` and its inverse, ``parse_kernel``.

The text is exact and canonical: one statement a line, floats as hex floats, so equal kernels print
equally and different ones that ``verify_kernel`` accepts differently. It is therefore also the key
of the kernel cache.

    line       is
    ---------  ------------------------------------------------------------
    Assign     ``%2 = add f32 %0, 0x1.8p+1``
    Load       ``%0 = load %a[%i]``
    Store      ``store %out[%i], %2``; with ``streams``: ``stream %out[%i], %2``
    Local      ``local %m: f32[16]``
    Choose     ``%p = choose (%a, %b, %c), %i``
    Transpose  ``transpose %m, %a[%i], %stride, 8``
    Loop       ``for %i in 0..%n step 1 vector {`` ... ``}``
    If         ``if %c {`` ... ``}``
    Fail       ``fail 3``

A constant is ``true``, ``-7``, ``0x1.8p+1``, ``inf`` or ``nan``; its dtype follows (``-7:i64``)
only where the statement does not imply it: in ``convert`` and ``bitcast``.
"""

from __future__ import annotations

import re

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import TreadleError
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

REINTERPRETING = frozenset({"convert", "bitcast"})  # their operand has a dtype of its own


class KernelSyntaxError(TreadleError, ValueError):
    """Text that is not a kernel: the line, what was found there and what was expected."""


# printing


def print_kernel(kernel: Kernel) -> str:
    """The kernel as text, ending in a newline.

    >>> from treadle.ir.loop import Builder
    >>> k = Builder("first")
    >>> out = k.pointer("out", dtypes.float32)
    >>> k.store(out, 0, k.const(1.5, dtypes.float32))
    >>> print(print_kernel(k.kernel), end="")
    kernel first(%out: ptr f32) {
      store %out[0], 0x1.8p+0
    }
    """
    params = ", ".join(
        f"%{p.name}: {'ptr ' if type(p) is Pointer else ''}{p.dtype.short}" for p in kernel.params
    )
    lines = [f"kernel {kernel.name}({params}) {{"]
    indent = "  "
    blocks = [iter(kernel.body)]
    while blocks:
        for statement in blocks[-1]:
            lines.append(indent + statement_text(statement))
            if isinstance(statement, (Loop, If)):
                blocks.append(iter(statement.body))
                indent += "  "
                break
        else:
            blocks.pop()
            indent = indent[2:]
            lines.append(indent + "}")
    return "\n".join(lines) + "\n"


def statement_text(statement: Statement) -> str:
    """The statement's line; of a Loop or an If only the line that opens it."""
    if isinstance(statement, Assign):
        op, dtype = statement.op, statement.dtype
        implied = None if op in REINTERPRETING else dtype
        args = ", ".join([_operand_text(a, implied) for a in statement.args])
        return f"%{statement.result.name} = {op} {dtype.short} {args}"
    if isinstance(statement, Load):
        index = _operand_text(statement.index, I64)
        return f"%{statement.result.name} = load %{statement.pointer.name}[{index}]"
    if isinstance(statement, Store):
        index = _operand_text(statement.index, I64)
        value = _operand_text(statement.value, statement.pointer.dtype)
        verb = "stream" if statement.streams else "store"
        return f"{verb} %{statement.pointer.name}[{index}], {value}"
    if isinstance(statement, Loop):
        lo, hi = _operand_text(statement.lo, I64), _operand_text(statement.hi, I64)
        var, step, kind = statement.var.name, statement.step, statement.kind
        return f"for %{var} in {lo}..{hi} step {step} {kind} {{"
    if isinstance(statement, If):
        return f"if {_operand_text(statement.condition, BOOL)} {{"
    if isinstance(statement, Local):
        pointer = statement.pointer
        return f"local %{pointer.name}: {pointer.dtype.short}[{statement.size}]"
    if isinstance(statement, Choose):
        choices = ", ".join([f"%{choice.name}" for choice in statement.choices])
        index = _operand_text(statement.index, I64)
        return f"%{statement.result.name} = choose ({choices}), {index}"
    if isinstance(statement, Transpose):
        index = _operand_text(statement.index, I64)
        stride = _operand_text(statement.stride, I64)
        source = f"%{statement.source.name}[{index}]"
        return f"transpose %{statement.target.name}, {source}, {stride}, {statement.size}"
    return f"fail {statement.code}"


def _operand_text(operand: Operand, implied: DType | None) -> str:
    if isinstance(operand, Value):
        return "%" + operand.name
    dtype = operand.dtype
    if dtype is BOOL:
        return "true" if operand.value else "false"
    text = _float_text(float(operand.value)) if dtype.kind == "f" else str(int(operand.value))
    return text if dtype is implied else f"{text}:{dtype.short}"


def _float_text(value: float) -> str:
    """``float.hex`` without trailing zeros; ``inf``, ``-inf``, ``nan``."""
    if value - value != 0:
        return "nan" if value != value else str(value)
    mantissa, _, exponent = value.hex().partition("p")
    return f"{mantissa.rstrip('0').rstrip('.')}p{exponent}"


# parsing

_TOKEN = re.compile(
    r"(?P<name>%\w+)"
    r"|(?P<float>-?0x[01](?:\.[0-9a-f]{1,13})?p[+-][0-9]{1,4}(?!\w)|-?inf\b|nan\b)"
    r"|(?P<int>-?[0-9]{1,20}(?!\w))"
    r"|(?P<word>[A-Za-z_]\w*)"
    r"|(?P<mark>\.\.|[][(){},:=])",
    re.ASCII,
)
_DTYPES = tuple(d.short for d in (*dtypes.ALL, dtypes.uint32, dtypes.uint64))
_FLOAT_LIMIT = 1100  # exponents beyond it are in no dtype


def parse_kernel(text: str) -> Kernel:
    """The kernel that prints as ``text``; ``print_kernel(parse_kernel(t)) == t`` for printed t.

    Blank lines and the amount of space do not matter. Names must be defined above their use;
    whether the kernel is sound beyond that is for ``verify_kernel``.

    Raises:
        KernelSyntaxError: with the line, what was found and what was expected.
    """
    lines = [line for n, row in enumerate(text.split("\n"), 1) if (line := _Line(row, n)).tokens]
    if not lines:
        raise KernelSyntaxError("line 1: found no text; expected 'kernel NAME(...) {'")
    names: dict[str, Value | Pointer] = {v.name: v for v in (BEGIN, END, THREAD)}
    kernel = _parse_header(lines[0], names)
    blocks = [kernel.body]
    for line in lines[1:]:
        if not blocks:
            raise line.error("the end of the text after the kernel's '}'")
        if line.accept("}"):
            line.finish()
            blocks.pop()
            continue
        statement = _parse_statement(line, names)
        line.finish()
        blocks[-1].append(statement)
        if isinstance(statement, (Loop, If)):
            blocks.append(statement.body)
    if blocks:
        raise KernelSyntaxError(
            f"line {lines[-1].number}: found the end of the text; expected {len(blocks)} more '}}'"
        )
    return kernel


class _Line:
    """The tokens of one line, as (kind, text), and a place among them."""

    def __init__(self, text: str, number: int) -> None:
        self.number = number
        self.tokens: list[tuple[str, str]] = []
        self.place = 0
        text = text.strip(" \t\r")
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                self.place = len(self.tokens)
                self.tokens.append(("unknown", text[position : position + 20]))
                raise self.error("a name, a number, a word or one of .. [ ] ( ) { } , : =")
            self.tokens.append((str(match.lastgroup), match.group()))
            position = match.end()
            while position < len(text) and text[position] in " \t\r":
                position += 1

    def error(self, expected: str) -> KernelSyntaxError:
        """The error that the token here is not what was expected."""
        here = self.place < len(self.tokens)
        found = repr(self.tokens[self.place][1]) if here else "the end of the line"
        return KernelSyntaxError(f"line {self.number}: found {found}; expected {expected}")

    def peek(self) -> str:
        """The token here, '' at the end of the line."""
        return self.tokens[self.place][1] if self.place < len(self.tokens) else ""

    def accept(self, *texts: str) -> bool:
        """Steps over these tokens if they come next."""
        ahead = self.tokens[self.place : self.place + len(texts)]
        if tuple(text for _, text in ahead) != texts:
            return False
        self.place += len(texts)
        return True

    def expect(self, *texts: str) -> None:
        """Steps over these tokens, which must come next."""
        for text in texts:
            if not self.accept(text):
                raise self.error(repr(text))

    def take(self, kind: str, expected: str) -> str:
        """Steps over a token of this kind and returns it."""
        if self.place >= len(self.tokens) or self.tokens[self.place][0] != kind:
            raise self.error(expected)
        self.place += 1
        return self.tokens[self.place - 1][1]

    def finish(self) -> None:
        """Nothing may follow."""
        if self.place < len(self.tokens):
            raise self.error("the end of the line")

    def integer(self, expected: str) -> int:
        return int(self.take("int", expected))

    def new_name(self) -> str:
        return self.take("name", "a name such as %x")[1:]

    def dtype(self) -> DType:
        if self.peek() not in _DTYPES:
            raise self.error(f"a dtype, one of {', '.join(_DTYPES)}")
        return dtypes.by_short(self.take("word", "a dtype"))

    def pointer(self, names: dict[str, Value | Pointer]) -> Pointer:
        found = names.get(self.peek().removeprefix("%"))
        if not isinstance(found, Pointer):
            raise self.error("a pointer defined above")
        self.place += 1
        return found

    def operand(self, names: dict[str, Value | Pointer], implied: DType | None) -> Operand:
        """A value defined above, or a constant; ``implied`` is the dtype of one without suffix."""
        if self.peek().startswith("%"):
            found = names.get(self.peek()[1:])
            if not isinstance(found, Value):
                raise self.error("a value defined above")
            self.place += 1
            return found
        start = self.place
        kind, text = self.tokens[start] if start < len(self.tokens) else ("", "")
        if text in ("true", "false"):
            self.place += 1
            return Const(text == "true", BOOL)
        if kind not in ("int", "float"):
            raise self.error("a value such as %x or a constant")
        self.place += 1
        if self.accept(":"):
            implied = self.dtype()
        elif implied is None:
            raise self.error("a dtype after the constant, such as 5:i64")
        self.place, end = start, self.place
        constant = self._constant(kind, text, implied)
        self.place = end
        return constant

    def _constant(self, kind: str, text: str, dtype: DType) -> Const:
        if dtype.kind == "b":
            raise self.error("true or false")
        if dtype.kind != "f":
            if kind != "int":
                raise self.error(f"an integer, the constant being {dtype.short}")
            return Const(int(text), dtype)
        if kind != "float":
            raise self.error(
                f"a hex float such as 0x1.8p+1, inf or nan, the constant being {dtype.short}"
            )
        if "x" in text and abs(int(text.partition("p")[2])) > _FLOAT_LIMIT:
            raise self.error(f"an exponent within -{_FLOAT_LIMIT}..{_FLOAT_LIMIT}")
        try:
            return Const(float.fromhex(text), dtype)
        except OverflowError:
            raise self.error("a float within the range of f64") from None


def _parse_header(line: _Line, names: dict[str, Value | Pointer]) -> Kernel:
    line.expect("kernel")
    kernel = Kernel(line.take("word", "the kernel's name"), [])
    line.expect("(")
    while not line.accept(")"):
        if kernel.params:
            line.expect(",")
        name = line.new_name()
        line.expect(":")
        is_pointer = line.accept("ptr")
        dtype = line.dtype()
        param = Pointer(name, dtype) if is_pointer else Value(name, dtype)
        names[name] = param
        kernel.params.append(param)
    line.expect("{")
    line.finish()
    return kernel


def _parse_statement(line: _Line, names: dict[str, Value | Pointer]) -> Statement:
    if line.peek().startswith("%"):
        return _parse_assignment(line, names)
    streams = line.accept("stream")
    if streams or line.accept("store"):
        pointer = line.pointer(names)
        line.expect("[")
        index = line.operand(names, I64)
        line.expect("]", ",")
        return Store(pointer, index, line.operand(names, pointer.dtype), streams)
    if line.accept("for"):
        return _parse_loop(line, names)
    if line.accept("if"):
        condition = line.operand(names, BOOL)
        line.expect("{")
        return If(condition, [])
    if line.accept("local"):
        name = line.new_name()
        line.expect(":")
        pointer = Pointer(name, line.dtype())
        line.expect("[")
        size = line.integer("the number of elements")
        line.expect("]")
        names[name] = pointer
        return Local(pointer, size)
    if line.accept("transpose"):
        target = line.pointer(names)
        line.expect(",")
        source = line.pointer(names)
        line.expect("[")
        index = line.operand(names, I64)
        line.expect("]", ",")
        stride = line.operand(names, I64)
        line.expect(",")
        return Transpose(target, source, index, stride, line.integer("the size, a power of two"))
    if line.accept("fail"):
        return Fail(line.integer("a code, 1 to 255"))
    raise line.error("a statement: %x = ..., store, for, if, local, transpose, fail or '}'")


def _parse_loop(line: _Line, names: dict[str, Value | Pointer]) -> Loop:
    var = Value(line.new_name(), I64)
    line.expect("in")
    lo = line.operand(names, I64)
    line.expect("..")
    hi = line.operand(names, I64)
    line.expect("step")
    step = line.integer("the step, a positive integer")
    if line.peek() not in LOOP_KINDS:
        raise line.error(f"a loop kind, one of {', '.join(LOOP_KINDS)}")
    kind = line.take("word", "a loop kind")
    line.expect("{")
    names[var.name] = var
    return Loop(var, lo, hi, step, kind, [])


def _parse_choice(line: _Line, name: str, names: dict[str, Value | Pointer]) -> Choose:
    line.expect("(")
    choices: list[Value | Pointer] = []
    while not line.accept(")"):
        if choices:
            line.expect(",")
        found = names.get(line.peek().removeprefix("%"))
        if found is None or (choices and type(found) is not type(choices[0])):
            raise line.error("a parameter, all of them pointers or all i64")
        line.place += 1
        choices.append(found)
    line.expect(",")
    if not choices:
        raise line.error("at least one parameter before it")
    result = type(choices[0])(name, choices[0].dtype)
    index = line.operand(names, I64)
    names[name] = result
    return Choose(result, tuple(choices), index)


def _parse_assignment(line: _Line, names: dict[str, Value | Pointer]) -> Assign | Load | Choose:
    name = line.new_name()
    line.expect("=")
    if line.accept("load"):
        pointer = line.pointer(names)
        line.expect("[")
        index = line.operand(names, I64)
        line.expect("]")
        result = Value(name, pointer.dtype)
        names[name] = result
        return Load(result, pointer, index)
    if line.accept("choose"):
        return _parse_choice(line, name, names)
    op = line.peek()
    if op not in ARITHMETIC:
        raise line.error(f"an operation: load, choose, {', '.join(ARITHMETIC)}")
    line.expect(op)
    dtype = line.dtype()
    args: list[Operand] = []
    for position in range(ARITHMETIC[op]):
        if position:
            line.expect(",")
        args.append(line.operand(names, operand_dtype(op, dtype, position)))
    result = Value(name, BOOL if op in COMPARISONS else dtype)
    names[name] = result
    return Assign(result, op, dtype, tuple(args))


def operand_dtype(op: str, dtype: DType, position: int) -> DType | None:
    """What operand ``position`` of ``op dtype`` must be; None where it may be of any dtype."""
    if op in REINTERPRETING:
        return None
    return BOOL if op == "select" and position == 0 else dtype
