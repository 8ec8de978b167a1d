"""Loop IR to LLVM IR, with explicit vectors of any width.

A ``vector`` loop is printed ``lanes`` iterations at a time, then one at a time for what is left.
Inside it a value is *uniform* (one scalar), *consecutive* (base + lane: what makes a load or store
a vector one) or a *vector*. Loops marked ``unrolled``, and vector loops with short constant bounds,
are written out with constant indices, so that LLVM keeps their ``Local`` arrays in registers.

The text is ordinary LLVM with opaque pointers. What is particular to a processor stays in LLVM:
the same text, at other widths, serves x86-64, AArch64 and whatever else LLVM prints.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import CompileError
from treadle.ir.loop import (
    BEGIN,
    COMPARISONS,
    END,
    I64,
    THREAD,
    Assign,
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
    Value,
    fold,
)

_TYPES = {
    "f64": "double", "f32": "float", "f16": "half", "bf16": "i16", "i64": "i64", "i32": "i32",
    "i16": "i16", "i8": "i8", "u8": "i8", "u32": "i32", "u64": "i64", "b1": "i1",
}  # fmt: skip
_FLOAT_COMPARE = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
_FLOAT_BINARY = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv", "rem": "frem"}
_INT_BINARY = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}
_INTRINSICS = frozenset(
    {"sqrt", "floor", "ceil", "trunc", "roundeven", "fma", "minimum", "maximum"}
)
_WRITE_OUT = 64  # vector loops with constant bounds up to this length are written out


@dataclass(slots=True)
class Text:
    """A value as printed: ``form`` is uniform, consecutive (text is lane 0) or vector."""

    text: str
    dtype: DType
    form: str = "uniform"


def print_llvm(kernel: Kernel, vector_bits: int) -> str:
    """The kernel as an LLVM module with one function of the kernel's name.

    The function is ``i32 name(ptr args, i64 begin, i64 end, i64 thread)``; ``args`` points to one
    64-bit word per parameter. ``vector_bits`` is the width of the target's registers.
    """
    return _Printer(kernel, vector_bits).module()


class _Printer:
    def __init__(self, kernel: Kernel, vector_bits: int) -> None:
        self.kernel = kernel
        self.lanes = max(vector_bits // 32, 2)
        self.bits = vector_bits
        self.width = 1  # lanes of the code being printed
        self.lines: list[str] = []
        self.allocas: list[str] = []
        self.declared: dict[str, str] = {}
        self.values: dict[str, Text] = {
            v.name: Text(f"%{v.name}", I64) for v in (BEGIN, END, THREAD)
        }
        self.places: dict[str, tuple[str, int]] = {}  # of pointers: address, lanes of an element
        self.count = 0
        self.block = "entry"

    # text
    def module(self) -> str:
        for index, param in enumerate(self.kernel.params):
            address = self.emit(f"getelementptr i8, ptr %args, i64 {8 * index}")
            if isinstance(param, Pointer):
                self.places[param.name] = (self.emit(f"load ptr, ptr {address}, align 8"), 1)
            else:
                self.values[param.name] = Text(self.emit(f"load i64, ptr {address}, align 8"), I64)
        self.statements(self.kernel.body)
        attributes = (
            f'nounwind "min-legal-vector-width"="{self.bits}" "prefer-vector-width"="{self.bits}"'
        )
        head = (
            f"define i32 @{self.kernel.name}(ptr noalias %args, i64 %begin, i64 %end, i64 %thread) "
            f"{attributes} {{\nentry:"
        )
        body = [head, *self.allocas, *self.lines, "  ret i32 0", "}"]
        return "\n".join([*body, *self.declared.values(), ""])

    def line(self, text: str) -> None:
        self.lines.append("  " + text)

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def emit(self, text: str) -> str:
        result = "%" + self.name("v")
        self.line(f"{result} = {text}")
        return result

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")
        self.block = name

    def fail(self, text: str) -> CompileError:
        return CompileError(f"kernel {self.kernel.name}: {text}; this is a defect of its builder")

    # types and operands
    def type(self, dtype: DType, width: int | None = None) -> str:
        width = self.width if width is None else width
        scalar = _TYPES[dtype.short]
        return scalar if width == 1 else f"<{width} x {scalar}>"

    def memory_type(self, dtype: DType, width: int | None = None) -> str:
        return self.type(dtypes.int8 if dtype.kind == "b" else dtype, width)

    def operand(self, operand: Operand) -> Text:
        if isinstance(operand, Const):
            return Text(literal(operand), operand.dtype)
        try:
            return self.values[operand.name]
        except KeyError:
            raise self.fail(f"%{operand.name} is used before it is assigned") from None

    def vector(self, value: Text) -> str:
        """The value in all lanes of the current width."""
        if self.width == 1 or value.form == "vector":
            return value.text
        ty, width = self.type(value.dtype), self.width
        first = self.emit(
            f"insertelement {ty} poison, {self.type(value.dtype, 1)} {value.text}, i64 0"
        )
        splat = self.emit(
            f"shufflevector {ty} {first}, {ty} poison, <{width} x i32> zeroinitializer"
        )
        if value.form == "uniform":
            return splat
        lanes = ", ".join(f"i64 {lane}" for lane in range(width))
        return self.emit(f"add {ty} {splat}, <{lanes}>")

    def intrinsic(self, name: str, result: str, *typed: tuple[str, str]) -> str:
        """Calls (and declares) an overloaded LLVM intrinsic."""
        kinds = ", ".join(t for t, _ in typed)
        self.declared[name] = f"declare {result} @{name}({kinds})"
        return self.emit(f"call {result} @{name}({', '.join(f'{t} {v}' for t, v in typed)})")

    # statements
    def statements(self, body: list[Statement]) -> None:
        for statement in body:
            match statement:
                case Assign():
                    self.assign(statement)
                case Load():
                    self.load(statement)
                case Store():
                    self.store(statement)
                case Loop():
                    self.loop(statement)
                case Local():
                    self.local(statement)
                case If():
                    self.branch(statement)
                case Fail():
                    self.line(f"ret i32 {statement.code}")
                    self.label(self.name("dead"))

    def local(self, local: Local) -> None:
        """Inside a vector loop an element is a vector: every lane has its own."""
        name, dtype = "%" + self.name("m"), local.pointer.dtype
        text = f"[{local.size} x {self.memory_type(dtype)}]"
        self.allocas.append(f"  {name} = alloca {text}, align 64")
        self.places[local.pointer.name] = (name, self.width)

    def address(self, pointer: Pointer, index: str) -> str:
        name, width = self.places[pointer.name]
        if index == "0":
            return name
        return self.emit(
            f"getelementptr {self.memory_type(pointer.dtype, width)}, ptr {name}, i64 {index}"
        )

    def is_private(self, pointer: Pointer) -> bool:
        """A Local of the vector loop being printed."""
        return self.width > 1 and self.places[pointer.name][1] > 1

    def load(self, load: Load) -> None:
        index, dtype = self.operand(load.index), load.pointer.dtype
        align = dtype.itemsize
        private = self.is_private(load.pointer)
        if index.form == "vector":
            result = self.gather(load, index)
            self.values[load.result.name] = Text(result, dtype, "vector")
            return
        consecutive = index.form == "consecutive" or private
        width = self.width if consecutive else 1
        ty = self.memory_type(dtype, width)
        text = self.emit(f"load {ty}, ptr {self.address(load.pointer, index.text)}, align {align}")
        if dtype.kind == "b":
            text = self.emit(f"trunc {ty} {text} to {self.type(dtype, width)}")
        self.values[load.result.name] = Text(text, dtype, "vector" if consecutive else "uniform")

    def gather(self, load: Load, index: Text) -> str:
        dtype = load.pointer.dtype
        scalar, ty = self.memory_type(dtype, 1), self.memory_type(dtype)
        result = "poison"
        for lane in range(self.width):
            at = self.emit(f"extractelement {self.type(I64)} {index.text}, i64 {lane}")
            pointer = self.address(load.pointer, at)
            value = self.emit(f"load {scalar}, ptr {pointer}, align {dtype.itemsize}")
            result = self.emit(f"insertelement {ty} {result}, {scalar} {value}, i64 {lane}")
        if dtype.kind == "b":
            result = self.emit(f"trunc {ty} {result} to {self.type(dtype)}")
        return result

    def store(self, store: Store) -> None:
        index, value = self.operand(store.index), self.operand(store.value)
        dtype = store.pointer.dtype
        private = self.is_private(store.pointer)
        if self.width > 1 and index.form == "uniform" and not private:
            raise self.fail(f"a vector loop stores all lanes to {store.pointer.name}[{index.text}]")
        text, ty = self.vector(value), self.memory_type(dtype)
        if dtype.kind == "b":
            text = self.emit(f"zext {self.type(dtype)} {text} to {ty}")
        if index.form == "vector":
            scalar = self.memory_type(dtype, 1)
            for lane in range(self.width):
                at = self.emit(f"extractelement {self.type(I64)} {index.text}, i64 {lane}")
                one = self.emit(f"extractelement {ty} {text}, i64 {lane}")
                pointer = self.address(store.pointer, at)
                self.line(f"store {scalar} {one}, ptr {pointer}, align {dtype.itemsize}")
            return
        pointer = self.address(store.pointer, index.text)
        self.line(f"store {ty} {text}, ptr {pointer}, align {dtype.itemsize}")

    def branch(self, branch: If) -> None:
        condition = self.operand(branch.condition)
        if condition.text in ("true", "false"):
            if condition.text == "true":
                self.statements(branch.body)
            return
        if condition.form != "uniform":
            raise self.fail("an If depends on the lane of a vector loop")
        then, after = self.name("then"), self.name("after")
        self.line(f"br i1 {condition.text}, label %{then}, label %{after}")
        self.label(then)
        self.statements(branch.body)
        self.line(f"br label %{after}")
        self.label(after)

    # loops
    def loop(self, loop: Loop) -> None:
        lo, hi = self.operand(loop.lo), self.operand(loop.hi)
        if lo.form != "uniform" or hi.form != "uniform":
            raise self.fail("a loop's bounds depend on the lane of a vector loop")
        constant = _is_int(lo.text) and _is_int(hi.text)
        vector = loop.kind == "vector" and self.width == 1
        if loop.kind == "unrolled":
            if not constant:
                raise self.fail("an unrolled loop needs constant bounds")
            for at in range(int(lo.text), int(hi.text), loop.step):
                self.values[loop.var.name] = Text(str(at), I64)
                self.statements(loop.body)
        elif vector and constant and int(hi.text) - int(lo.text) <= _WRITE_OUT:
            self.written_out(loop, int(lo.text), int(hi.text))
        elif vector:
            self.vector_loop(loop, lo.text, hi.text)
        else:
            self.counted(loop, lo.text, hi.text, loop.step)

    def written_out(self, loop: Loop, lo: int, hi: int) -> None:
        """A short vector loop as straight-line code: full vectors, then halves of them."""
        width = self.lanes
        while lo < hi:
            while width > hi - lo:
                width //= 2
            self.width = width
            form = "consecutive" if width > 1 else "uniform"
            self.values[loop.var.name] = Text(str(lo), I64, form)
            self.statements(loop.body)
            lo += width
        self.width = 1

    def vector_loop(self, loop: Loop, lo: str, hi: str) -> None:
        """Full vectors while they fit, then single iterations."""
        length = self.emit(f"sub i64 {hi}, {lo}")
        rest = self.emit(f"srem i64 {length}, {self.lanes}")
        middle = self.emit(f"sub i64 {hi}, {rest}")
        self.width = self.lanes
        self.counted(loop, lo, middle, self.lanes)
        self.width = 1
        self.counted(loop, middle, hi, 1)

    def counted(self, loop: Loop, lo: str, hi: str, step: int) -> None:
        """``for (i = lo; i < hi; i += step)`` with the test at the end."""
        head, body, after = self.name("head"), self.name("body"), self.name("after")
        nonempty = self.emit(f"icmp slt i64 {lo}, {hi}")
        self.line(f"br i1 {nonempty}, label %{head}, label %{after}")
        self.label(head)
        self.line(f"br label %{body}")
        self.label(body)
        slot = len(self.lines)
        var = "%" + self.name("i")
        self.lines.append("")
        in_vector = self.width > 1 and loop.kind == "vector"
        self.values[loop.var.name] = Text(var, I64, "consecutive" if in_vector else "uniform")
        self.statements(loop.body)
        following = self.emit(f"add nsw i64 {var}, {step}")
        self.lines[slot] = f"  {var} = phi i64 [{lo}, %{head}], [{following}, %{self.block}]"
        again = self.emit(f"icmp slt i64 {following}, {hi}")
        self.line(f"br i1 {again}, label %{body}, label %{after}")
        self.label(after)

    # arithmetic
    def assign(self, statement: Assign) -> None:
        args = [self.operand(a) for a in statement.args]
        result = self.index_arithmetic(statement, args) if statement.dtype is I64 else None
        if result is None:
            result = self.arithmetic(statement, args)
        self.values[statement.result.name] = result

    def index_arithmetic(self, statement: Assign, args: list[Text]) -> Text | None:
        """Constants fold, and base + lane stays what it is; None where neither applies."""
        forms = [a.form for a in args]
        if all(f == "uniform" and _is_int(a.text) for f, a in zip(forms, args, strict=True)):
            consts: tuple[Operand, ...] = tuple(Const(int(a.text), I64) for a in args)
            folded = fold(statement.op, consts)
            if isinstance(folded, Const):
                return Text(literal(folded), folded.dtype)
        if len(args) == 2 and statement.op in ("add", "sub", "mul"):
            folded = fold(statement.op, tuple(self._as_operand(a, i) for i, a in enumerate(args)))
            if isinstance(folded, Value):
                return args[int(folded.name)]
            if isinstance(folded, Const):
                return Text(literal(folded), I64)
        if statement.op == "add" and sorted(forms) == ["consecutive", "uniform"]:
            base = self.emit(f"add i64 {args[0].text}, {args[1].text}")
            return Text(base, I64, "consecutive")
        if statement.op == "sub" and forms == ["consecutive", "uniform"]:
            base = self.emit(f"sub i64 {args[0].text}, {args[1].text}")
            return Text(base, I64, "consecutive")
        return None

    def _as_operand(self, value: Text, position: int) -> Operand:
        if value.form == "uniform" and _is_int(value.text):
            return Const(int(value.text), I64)
        return Value(str(position), I64)

    def arithmetic(self, statement: Assign, args: list[Text]) -> Text:
        uniform = all(a.form == "uniform" for a in args)
        width, self.width = self.width, 1 if uniform else self.width
        texts = [self.vector(a) for a in args]
        result = statement.result.dtype
        if statement.op == "select":
            text = self.select(texts, statement.dtype)
        elif statement.op == "convert":
            text = self.convert(texts[0], args[0].dtype, result)
        elif statement.op == "bitcast":
            source, target = self.type(args[0].dtype), self.type(result)
            text = self.emit(f"bitcast {source} {texts[0]} to {target}")
        elif statement.dtype.short == "bf16":
            text = self.in_f32(statement.op, texts, statement.dtype)
        else:
            text = self.operation(statement.op, statement.dtype, texts)
        self.width = width
        return Text(text, result, "uniform" if uniform or width == 1 else "vector")

    def select(self, texts: list[str], dtype: DType) -> str:
        ty = self.type(dtype)
        condition = f"{self.type(dtypes.bool_)} {texts[0]}"
        return self.emit(f"select {condition}, {ty} {texts[1]}, {ty} {texts[2]}")

    def in_f32(self, op: str, texts: list[str], dtype: DType) -> str:
        """bf16 through f32: one operation and one rounding more is exact for all but fma."""
        if op == "fma":
            raise self.fail("fma in bf16 would round twice; widen to f32 first")
        wide = [self.convert(t, dtype, dtypes.float32) for t in texts]
        text = self.operation(op, dtypes.float32, wide)
        return text if op in COMPARISONS else self.convert(text, dtypes.float32, dtype)

    def operation(self, op: str, dtype: DType, x: list[str]) -> str:
        if dtype.kind == "f":
            return self.float_operation(op, dtype, x)
        return self.int_operation(op, dtype, x)

    def float_operation(self, op: str, dtype: DType, x: list[str]) -> str:
        ty = self.type(dtype)
        if op in _FLOAT_BINARY:
            return self.emit(f"{_FLOAT_BINARY[op]} {ty} {x[0]}, {x[1]}")
        if op in COMPARISONS:
            return self.emit(f"fcmp {_FLOAT_COMPARE[op]} {ty} {x[0]}, {x[1]}")
        if op == "neg":
            return self.emit(f"fneg {ty} {x[0]}")
        if op == "abs":
            return self.intrinsic(f"llvm.fabs.{self.suffix(dtype)}", ty, (ty, x[0]))
        if op == "fma" and dtype.short == "f16":
            raise self.fail("fma in f16 would round twice; widen to f32 first")
        if op in _INTRINSICS:
            name = f"llvm.{op}.{self.suffix(dtype)}"
            return self.intrinsic(name, ty, *((ty, v) for v in x))
        raise self.fail(f"{op} is not an operation on {dtype.name}")

    def suffix(self, dtype: DType, width: int | None = None) -> str:
        width = self.width if width is None else width
        scalar = f"{'f' if dtype.kind == 'f' else 'i'}{dtype.bits}"
        return scalar if width == 1 else f"v{width}{scalar}"

    def int_operation(self, op: str, dtype: DType, x: list[str]) -> str:
        ty, signed = self.type(dtype), dtype.kind == "i"
        if op in _INT_BINARY:
            return self.emit(f"{_INT_BINARY[op]} {ty} {x[0]}, {x[1]}")
        if op in COMPARISONS:
            sign = "" if op in ("eq", "ne") else "s" if signed else "u"
            return self.emit(f"icmp {sign}{op} {ty} {x[0]}, {x[1]}")
        if op == "not":
            return self.emit(f"xor {ty} {x[0]}, {self.splat(dtype, -1)}")
        if op == "neg":
            return self.emit(f"sub {ty} {self.splat(dtype, 0)}, {x[0]}")
        if op == "abs":
            if not signed:
                return x[0]
            return self.intrinsic(
                f"llvm.abs.{self.suffix(dtype)}", ty, (ty, x[0]), ("i1", "false")
            )
        if op in ("minimum", "maximum"):
            if dtype.kind == "b":
                return self.emit(f"{'and' if op == 'minimum' else 'or'} {ty} {x[0]}, {x[1]}")
            name = f"llvm.{'s' if signed else 'u'}{op[:3]}.{self.suffix(dtype)}"
            return self.intrinsic(name, ty, (ty, x[0]), (ty, x[1]))
        if op in ("shl", "shr"):
            return self.shift(op, dtype, x)
        if op in ("div", "rem"):
            return self.division(op, dtype, x)
        raise self.fail(f"{op} is not an operation on {dtype.name}")

    def splat(self, dtype: DType, value: int) -> str:
        scalar = literal(Const(value if dtype.kind != "b" else bool(value), dtype))
        if self.width == 1:
            return scalar
        return f"splat ({_TYPES[dtype.short]} {scalar})"

    def shift(self, op: str, dtype: DType, x: list[str]) -> str:
        ty, signed = self.type(dtype), dtype.kind == "i"
        last = self.splat(dtype, dtype.bits - 1)
        beyond = self.emit(f"icmp ugt {ty} {x[1]}, {last}")
        amount = self.select([beyond, last, x[1]], dtype)
        opcode = "shl" if op == "shl" else "ashr" if signed else "lshr"
        moved = self.emit(f"{opcode} {ty} {x[0]}, {amount}")
        if opcode == "ashr":
            return moved
        return self.select([beyond, self.splat(dtype, 0), moved], dtype)

    def division(self, op: str, dtype: DType, x: list[str]) -> str:
        """Never traps: x/0 = 0, x rem 0 = 0; MIN/-1 = MIN and MIN rem -1 = 0."""
        ty, signed = self.type(dtype), dtype.kind == "i"
        flag = self.type(dtypes.bool_)
        zero, one = self.splat(dtype, 0), self.splat(dtype, 1)
        special = by_zero = self.emit(f"icmp eq {ty} {x[1]}, {zero}")
        if signed:
            by_minus_one = self.emit(f"icmp eq {ty} {x[1]}, {self.splat(dtype, -1)}")
            special = self.emit(f"or {flag} {by_zero}, {by_minus_one}")
        divisor = self.select([special, one, x[1]], dtype)
        opcode = ("s" if signed else "u") + op
        result = self.emit(f"{opcode} {ty} {x[0]}, {divisor}")
        if op == "rem":
            return result  # x rem 1 = 0, which is right for the special divisors too
        if signed:
            negated = self.emit(f"sub {ty} {zero}, {x[0]}")
            result = self.select([by_minus_one, negated, result], dtype)
        return self.select([by_zero, zero, result], dtype)

    # conversions
    def convert(self, x: str, source: DType, target: DType) -> str:
        if source is target:
            return x
        if source.short == "bf16":
            return self.convert(self.widen_bf16(x), dtypes.float32, target)
        if target.kind == "b":
            if source.kind == "f":
                zero = "0.0" if self.width == 1 else "zeroinitializer"
                return self.emit(f"fcmp une {self.type(source)} {x}, {zero}")
            return self.emit(f"icmp ne {self.type(source)} {x}, {self.splat(source, 0)}")
        if target.kind == "f" and target.bits == 16:
            return self.to_16_bits(x, source, target)
        a, b = self.type(source), self.type(target)
        if source.kind == "f" and target.kind == "f":
            name = "fpext" if target.bits > source.bits else "fptrunc"
            return self.emit(f"{name} {a} {x} to {b}")
        if source.kind == "f":
            sign = "s" if target.kind == "i" else "u"
            suffix = f"{self.suffix(target)}.{self.suffix(source)}"
            return self.intrinsic(f"llvm.fpto{sign}i.sat.{suffix}", b, (a, x))
        if target.kind == "f":
            return self.emit(f"{'sitofp' if source.kind == 'i' else 'uitofp'} {a} {x} to {b}")
        narrow = 1 if source.kind == "b" else source.bits
        if target.bits == narrow:
            return x
        if target.bits < narrow:
            return self.emit(f"trunc {a} {x} to {b}")
        return self.emit(f"{'sext' if source.kind == 'i' else 'zext'} {a} {x} to {b}")

    def widen_bf16(self, x: str) -> str:
        word, half = self.type(dtypes.int32), self.type(dtypes.int16)
        wide = self.emit(f"zext {half} {x} to {word}")
        moved = self.emit(f"shl {word} {wide}, {self.splat(dtypes.int32, 16)}")
        return self.emit(f"bitcast {word} {moved} to {self.type(dtypes.float32)}")

    def to_16_bits(self, x: str, source: DType, target: DType) -> str:
        """Through f32. Where that step rounds it does so to odd, so that two roundings are one."""
        f32, f64 = dtypes.float32, dtypes.float64
        if source.kind in "iu" and source.bits > 16:
            x, source = self.convert(self.keep_53_bits(x, source), source, f64), f64
        x = self.round_to_odd(x) if source is f64 else self.convert(x, source, f32)
        if target.short == "f16":
            return self.emit(f"fptrunc {self.type(f32)} {x} to {self.type(target)}")
        return self.narrow_bf16(x)

    def narrow_bf16(self, x: str) -> str:
        """f32 to bf16, to nearest even: add half an ulp less the even bit, and cut."""
        i32 = dtypes.int32
        word, half = self.type(i32), self.type(dtypes.int16)
        bits = self.emit(f"bitcast {self.type(dtypes.float32)} {x} to {word}")
        high = self.emit(f"lshr {word} {bits}, {self.splat(i32, 16)}")
        even = self.emit(f"and {word} {high}, {self.splat(i32, 1)}")
        bias = self.emit(f"add {word} {even}, {self.splat(i32, 0x7FFF)}")
        rounded = self.emit(f"add {word} {bits}, {bias}")
        cut = self.emit(f"lshr {word} {rounded}, {self.splat(i32, 16)}")
        quiet = self.emit(f"or {word} {high}, {self.splat(i32, 0x40)}")
        nan = self.emit(f"fcmp uno {self.type(dtypes.float32)} {x}, {x}")
        chosen = self.select([nan, quiet, cut], i32)
        return self.emit(f"trunc {word} {chosen} to {half}")

    def keep_53_bits(self, x: str, source: DType) -> str:
        """An integer that f64 holds: of 64 bits the lower 11 are or-ed into the next one.

        That one is far below the last bit of a 16-bit float, where all it tells is "inexact". Small
        numbers, for which it would not be, stay as they are.
        """
        if source.bits < 64:
            return x
        word = self.type(source)
        low = self.emit(f"and {word} {x}, {self.splat(source, 2047)}")
        carried = self.emit(f"add {word} {low}, {self.splat(source, 2047)}")
        sticky = self.emit(f"or {word} {carried}, {x}")
        cut = self.emit(f"and {word} {sticky}, {self.splat(source, -2048)}")
        moved = self.emit(f"add {word} {x}, {self.splat(source, 1 << 52)}")
        small = self.emit(f"icmp ult {word} {moved}, {self.splat(source, 1 << 53)}")
        return self.select([small, x, cut], source)

    def round_to_odd(self, x: str) -> str:
        """f64 to f32 towards zero with the last bit set where inexact."""
        f64, f32, i32 = dtypes.float64, dtypes.float32, dtypes.int32
        word, single, double = self.type(i32), self.type(f32), self.type(f64)
        near = self.emit(f"fptrunc {double} {x} to {single}")
        back = self.emit(f"fpext {single} {near} to {double}")
        name = f"llvm.fabs.{self.suffix(f64)}"
        size = self.intrinsic(name, double, (double, x))
        near_size = self.intrinsic(name, double, (double, back))
        bits = self.emit(f"bitcast {single} {near} to {word}")
        above = self.emit(f"fcmp ogt {double} {near_size}, {size}")
        lower = self.emit(f"sub {word} {bits}, {self.splat(i32, 1)}")
        towards_zero = self.select([above, lower, bits], i32)
        odd = self.emit(f"or {word} {towards_zero}, {self.splat(i32, 1)}")
        inexact = self.emit(f"fcmp one {double} {back}, {x}")
        chosen = self.select([inexact, odd, bits], i32)
        return self.emit(f"bitcast {word} {chosen} to {single}")


def _is_int(text: str) -> bool:
    return text.lstrip("-").isdigit()


def literal(const: Const) -> str:
    """A constant in LLVM's notation; floats by their exact bits."""
    dtype, value = const.dtype, const.value
    if dtype.kind == "b":
        return "true" if value else "false"
    if dtype.short == "bf16":
        return str(struct.unpack("<I", struct.pack("<f", value))[0] >> 16)
    if dtype.short == "f16":
        return f"0xH{struct.unpack('<H', struct.pack('<e', value))[0]:04X}"
    if dtype.kind == "f":
        # LLVM writes f32 constants as the f64 of the same value.
        return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
    return str(value)
