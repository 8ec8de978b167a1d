"""Loop IR to LLVM IR, with explicit vectors of any width.

A ``vector`` loop is printed ``lanes`` iterations at a time, then one at a time for what is left.
Inside it a value is *uniform* (one scalar), *consecutive* (base + lane: what makes a load or store
a vector one) or a *vector*. Loops marked ``unrolled``, and vector loops with short constant bounds,
are written out with constant indices, so that LLVM keeps their ``Local`` arrays in registers.

The text is ordinary LLVM with opaque pointers. What is particular to a processor stays in LLVM:
the same text, at other widths, serves x86-64, AArch64 and whatever else LLVM prints.
"""

from __future__ import annotations

from treadle.codegen.llvm_values import Text, ValuePrinter, literal
from treadle.ir.loop import (
    BEGIN,
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

_WRITE_OUT = 64  # vector loops with constant bounds up to this length are written out


def print_llvm(kernel: Kernel, vector_bits: int) -> str:
    """The kernel as an LLVM module with one function of the kernel's name.

    The function is ``i32 name(ptr args, i64 begin, i64 end, i64 thread)``; ``args`` points to one
    64-bit word per parameter. ``vector_bits`` is the width of the target's registers.
    """
    return _Printer(kernel, vector_bits).module()


class _Printer(ValuePrinter):
    def __init__(self, kernel: Kernel, vector_bits: int) -> None:
        super().__init__(kernel)
        self.lanes = max(vector_bits // 32, 2)
        self.bits = vector_bits
        self.allocas: list[str] = []
        self.values: dict[str, Text] = {
            v.name: Text(f"%{v.name}", I64) for v in (BEGIN, END, THREAD)
        }
        self.places: dict[str, tuple[str, int]] = {}  # of pointers: address, lanes of an element

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

    # types and operands
    def operand(self, operand: Operand) -> Text:
        if isinstance(operand, Const):
            return Text(literal(operand), operand.dtype)
        try:
            return self.values[operand.name]
        except KeyError:
            raise self.fail(f"%{operand.name} is used before it is assigned") from None

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


def _is_int(text: str) -> bool:
    return text.lstrip("-").isdigit()


