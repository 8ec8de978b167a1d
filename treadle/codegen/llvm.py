"""Loop IR to LLVM IR, with explicit vectors of any width.

A ``vector`` loop is printed ``lanes`` iterations at a time, then one at a time for what is left.
Inside it a value is *uniform* (one scalar), a ``Sum`` that steps from lane to lane (by one: what
makes a load or store a vector one) or a vector. Loops marked ``unrolled``, and vector loops with
short constant bounds, are written out with constant indices, so that LLVM keeps their ``Local``
arrays in registers.

The text is ordinary LLVM with opaque pointers. What is particular to a processor stays in LLVM:
the same text, at other widths, serves x86-64, AArch64 and whatever else LLVM prints.
"""

from __future__ import annotations

from treadle.base import dtypes
from treadle.codegen.llvm_index import IndexPrinter, Sum
from treadle.codegen.llvm_induction import WRITE_OUT, is_worth_reducing
from treadle.codegen.llvm_transpose import transposed
from treadle.codegen.llvm_values import Text, literal
from treadle.ir.loop import (
    BEGIN,
    END,
    I64,
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
    fold,
)

# Arithmetic in a vector loop from which two vectors go side by side, to wait for each other's
# results and to share constants; and up to which, since it is compiled once more.
_LONG = range(16, 64)


def print_llvm(kernel: Kernel, vector_bits: int) -> str:
    """The kernel as an LLVM module with one function of the kernel's name.

    The function is ``i32 name(ptr args, i64 begin, i64 end, i64 thread)``; ``args`` points to one
    64-bit word per parameter. ``vector_bits`` is the width of the target's registers.
    """
    return _Printer(kernel, vector_bits).module()


class _Printer(IndexPrinter):
    def __init__(self, kernel: Kernel, vector_bits: int) -> None:
        super().__init__(kernel)
        self.lanes = max(vector_bits // 32, 2)
        self.bits = vector_bits
        self.allocas: list[str] = []
        self.depths.update(dict.fromkeys(("%args", "%begin", "%end", "%thread"), 0))
        self.values: dict[str, Text | Sum] = {
            v.name: Sum(((f"%{v.name}", 1),)) for v in (BEGIN, END, THREAD)
        }
        self.params = {param.name: place for place, param in enumerate(kernel.params)}
        self.has_streams = False
        self.mask = ""  # the lanes that the If around holds for, where that depends on the lane

    # text
    def module(self) -> str:
        for index, param in enumerate(self.kernel.params):
            address = self.emit(f"getelementptr i8, ptr %args, i64 {8 * index}")
            if isinstance(param, Pointer):
                self.places[param.name] = (self.read(f"load ptr, ptr {address}, align 8"), 1)
            else:
                size = self.read(f"load i64, ptr {address}, align 8")
                self.values[param.name] = Sum(((size, 1),))
        self.statements(self.kernel.body)
        attributes = (
            f'nounwind "min-legal-vector-width"="{self.bits}" "prefer-vector-width"="{self.bits}"'
        )
        head = (
            f"define i32 @{self.kernel.name}(ptr noalias %args, i64 %begin, i64 %end, i64 %thread) "
            f"{attributes} {{\nentry:"
        )
        lines = self.leave()
        end = ["  ret i32 0", "}", *self.declared.values(), ""]
        if self.has_streams:  # that the kernel is done is told by stores that overtake streams
            end = ["  fence seq_cst", *end, "!0 = !{i32 1}", ""]
        return "\n".join([head, *self.allocas, *lines, *end])

    # operands
    def operand(self, operand: Operand) -> Text | Sum:
        if isinstance(operand, Const):
            if operand.dtype is I64:
                return Sum((), int(operand.value))
            return Text(literal(operand), operand.dtype)
        try:
            return self.values[operand.name]
        except KeyError:
            raise self.fail(f"%{operand.name} is used before it is assigned") from None

    def bound(self, operand: Operand) -> Sum:
        """A bound of a loop, or another number that is the same in all lanes."""
        value = self.as_sum(self.operand(operand))
        if value is None or value.lane:
            raise self.fail("a bound or a stride depends on the lane of a vector loop")
        return value

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
                case Choose():
                    self.choose(statement)
                case Transpose():
                    self.transpose(statement)
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
        self.depths[name] = 0
        self.places[local.pointer.name] = (name, self.width)

    def is_private(self, pointer: Pointer) -> bool:
        """A Local of the vector loop being printed."""
        return self.width > 1 and self.places[pointer.name][1] > 1

    def index(self, operand: Operand) -> Sum | Text:
        """An index: a sum, or a vector of numbers that have nothing in common."""
        value = self.operand(operand)
        return self.as_sum(value) or self.text(value)

    def load(self, load: Load) -> None:
        index, dtype = self.index(load.index), load.pointer.dtype
        align = dtype.itemsize
        step = index.lane if isinstance(index, Sum) else None
        private = self.is_private(load.pointer)
        if step in (0, 1) and isinstance(index, Sum):
            width = self.width if step or private else 1
            ty = self.memory_type(dtype, width)
            text = self.read(f"load {ty}, ptr {self.address(load.pointer, index)}, align {align}")
        elif step == 2 and isinstance(index, Sum) and not private:
            width, text = self.width, self.every_second(load.pointer, index)
        else:
            width = self.width
            scalar, ty = self.memory_type(dtype, 1), self.memory_type(dtype)
            text = "poison"
            for lane, pointer in enumerate(self.addresses(load.pointer, index)):
                value = self.read(f"load {scalar}, ptr {pointer}, align {align}")
                text = self.emit(f"insertelement {ty} {text}, {scalar} {value}, i64 {lane}")
        if dtype.kind == "b":
            text = self.emit(f"trunc {ty} {text} to {self.type(dtype, width)}")
        self.values[load.result.name] = Text(text, dtype, width == 1)

    def every_second(self, pointer: Pointer, index: Sum) -> str:
        """Two loads that end with the last lane's element, and a shuffle."""
        width, dtype = self.width, pointer.dtype
        ty, align = self.memory_type(dtype), dtype.itemsize
        first = index._replace(lane=0)
        low, high = (
            self.read(f"load {ty}, ptr {self.address(pointer, at)}, align {align}")
            for at in (first, self.add(first, Sum((), width - 1)))
        )
        lanes = (*range(0, width, 2), *range(width + 1, 2 * width, 2))
        mask = ", ".join(f"i32 {lane}" for lane in lanes)
        return self.emit(f"shufflevector {ty} {low}, {ty} {high}, <{width} x i32> <{mask}>")

    def store(self, store: Store) -> None:
        index, value = self.index(store.index), self.text(self.operand(store.value))
        dtype = store.pointer.dtype
        step = index.lane if isinstance(index, Sum) else None
        if self.width > 1 and step == 0 and not self.is_private(store.pointer):
            raise self.fail(f"a vector loop stores all lanes to one of {store.pointer.name}")
        text, ty = self.vector(value), self.memory_type(dtype)
        if dtype.kind == "b":
            text = self.emit(f"zext {self.type(dtype)} {text} to {ty}")
        if self.mask:
            text = self.masked(store, text, ty)
        if step in (0, 1) and isinstance(index, Sum):
            pointer = self.address(store.pointer, index)
            if store.streams and self.width > 1:
                self.stream(f"{ty} {text}, ptr {pointer}", dtype.itemsize)
            else:
                self.line(f"store {ty} {text}, ptr {pointer}, align {dtype.itemsize}")
            return
        scalar = self.memory_type(dtype, 1)
        for lane, pointer in enumerate(self.addresses(store.pointer, index)):
            one = self.emit(f"extractelement {ty} {text}, i64 {lane}")
            self.line(f"store {scalar} {one}, ptr {pointer}, align {dtype.itemsize}")

    def stream(self, what: str, itemsize: int) -> None:
        """A store past the caches where the address allows it, as it nearly always does."""
        self.has_streams = True
        nbytes = self.width * itemsize
        address = self.emit(f"ptrtoint {what[what.index(', ') + 2 :]} to i64")
        odd = self.emit(f"icmp ne i64 {self.emit(f'and i64 {address}, {nbytes - 1}')}, 0")
        through, past, after = (self.name(stem) for stem in ("through", "past", "after"))
        self.line(f"br i1 {odd}, label %{through}, label %{past}")
        self.label(through)
        self.line(f"store {what}, align {itemsize}")
        self.line(f"br label %{after}")
        self.label(past)
        self.line(f"store {what}, align {nbytes}, !nontemporal !0")
        self.line(f"br label %{after}")
        self.label(after)

    def choose(self, statement: Choose) -> None:
        """Parameters lie side by side, so a choice is read where it lies."""
        places = [self.params[choice.name] for choice in statement.choices]
        step = places[1] - places[0] if len(places) > 1 else 1
        index = self.text(self.scaled(self.bound(statement.index), step)).text
        first = self.emit(f"getelementptr i8, ptr %args, i64 {8 * places[0]}")
        address = self.emit(f"getelementptr i64, ptr {first}, i64 {index}")
        if isinstance(statement.result, Pointer):
            text = self.read(f"load ptr, ptr {address}, align 8")
            self.places[statement.result.name] = (text, 1)
        else:
            size = self.read(f"load i64, ptr {address}, align 8")
            self.values[statement.result.name] = Sum(((size, 1),))

    def transpose(self, statement: Transpose) -> None:
        source, dtype, size = statement.source, statement.source.dtype, statement.size
        index, stride = self.bound(statement.index), self.bound(statement.stride)
        rows = [self.add(index, self.scaled(stride, i)) for i in range(size)]

        def address(i: int, j: int) -> str:
            return self.address(source, self.add(rows[i], Sum((), j)))

        for j, column in enumerate(transposed(self, dtype, size, address)):
            place = self.address(statement.target, Sum((), j * size))
            self.line(
                f"store {self.type(dtype, size)} {column}, ptr {place}, align {dtype.itemsize}"
            )

    def branch(self, branch: If) -> None:
        condition = self.text(self.operand(branch.condition))
        if condition.text in ("true", "false"):
            if condition.text == "true":
                self.statements(branch.body)
            return
        outer, holds = self.mask, condition.text
        if not condition.uniform:
            flags = self.type(dtypes.bool_)
            if outer:
                holds = self.emit(f"and {flags} {outer}, {holds}")
            self.mask = holds
            name = f"llvm.vector.reduce.or.v{self.width}i1"
            holds = self.intrinsic(name, "i1", (flags, holds))
        then, after = self.name("then"), self.name("after")
        self.enter(then, is_loop=False)
        self.statements(branch.body)
        self.line(f"br label %{after}")
        body = self.leave()
        self.line(f"br i1 {holds}, label %{then}, label %{after}")
        self.lines(body)
        self.label(after)
        self.mask = outer

    def masked(self, store: Store, text: str, ty: str) -> str:
        """What a store puts into a Local of the vector loop: lanes outside the mask keep theirs."""
        index = self.index(store.index)
        if not self.is_private(store.pointer) or isinstance(index, Text):
            raise self.fail(f"an If that depends on the lane stores to {store.pointer.name}")
        place = self.address(store.pointer, index)
        before = self.read(f"load {ty}, ptr {place}, align {store.pointer.dtype.itemsize}")
        flags = self.type(dtypes.bool_)
        return self.emit(f"select {flags} {self.mask}, {ty} {text}, {ty} {before}")

    # loops
    def loop(self, loop: Loop) -> None:
        lo, hi = self.bound(loop.lo), self.bound(loop.hi)
        first, last = lo.number, hi.number
        if loop.kind == "unrolled":
            if first is None or last is None:
                raise self.fail("an unrolled loop needs constant bounds")
            for at in range(first, last, loop.step):
                self.values[loop.var.name] = Sum((), at)
                self.statements(loop.body)
        elif loop.kind != "vector" or self.width > 1:
            self.counted(loop, lo, hi, loop.step, 0)
        elif first is not None and last is not None and last - first <= WRITE_OUT:
            self.written_out(loop, first, last)
        else:
            self.vector_loop(loop, lo, hi)

    def written_out(self, loop: Loop, lo: int, hi: int) -> None:
        """A short vector loop as straight-line code: full vectors, then halves of them."""
        width = self.lanes
        while lo < hi:
            while width > hi - lo:
                width //= 2
            self.width = width
            self.values[loop.var.name] = Sum((), lo, int(width > 1))
            self.statements(loop.body)
            lo += width
        self.width = 1

    def vector_loop(self, loop: Loop, lo: Sum, hi: Sum) -> None:
        """Full vectors while they fit, two at a time in a long body; then single iterations."""
        for width in (2 * self.lanes, self.lanes) if _is_long(loop.body) else (self.lanes,):
            length = self.text(self.add(hi, lo, -1)).text
            rest = Sum(((self.emit(f"srem i64 {length}, {width}"), 1),))
            middle = Sum(((self.text(self.add(hi, rest, -1)).text, 1),))
            self.width = width
            self.counted(loop, lo, middle, width, 1)
            self.width, lo = 1, middle
        self.counted(loop, lo, hi, 1, 0)

    def counted(self, loop: Loop, lo: Sum, hi: Sum, step: int, lane: int) -> None:
        """``for (i = lo; i < hi; i += step)`` with the test at the end."""
        start, stop = self.text(lo).text, self.text(hi).text
        nonempty = self.emit(f"icmp slt i64 {start}, {stop}")
        head, body, after = self.name("head"), self.name("body"), self.name("after")
        self.enter(body, is_loop=True)
        var = self.new()
        self.values[loop.var.name] = Sum(((var, 1),), 0, lane)
        self.statements(loop.body)
        is_rest = loop.kind == "vector" and self.width == 1
        depth = sum(level.is_loop for level in self.levels)
        is_shown = not is_rest and is_worth_reducing(loop, depth, self.width > 1)
        before = var if is_shown else self.hidden(var)
        following = self.emit(f"add nsw i64 {before}, {step}")
        again = self.emit(f"icmp slt i64 {following}, {stop}")
        last = self.block
        self.line(f"br i1 {again}, label %{body}, label %{after}")
        label, *lines = self.leave()
        self.line(f"br i1 {nonempty}, label %{head}, label %{after}")
        self.label(head)
        self.line(f"br label %{body}")
        phi = f"  {var} = phi i64 [{start}, %{head}], [{following}, %{last}]"
        self.lines([label, phi, *lines])
        self.label(after)

    def hidden(self, value: str) -> str:
        """The same i64, of which LLVM does not see that it is (``llvm_induction``)."""
        name = "llvm.launder.invariant.group.p0"
        self.declared[name] = f"declare ptr @{name}(ptr)"
        pointer = self.read(f"call ptr @{name}(ptr {self.emit(f'inttoptr i64 {value} to ptr')})")
        return self.emit(f"ptrtoint ptr {pointer} to i64")

    # arithmetic
    def assign(self, statement: Assign) -> None:
        args = [self.operand(a) for a in statement.args]
        result: Text | Sum | None = None
        if statement.dtype is I64:
            result = self.index_arithmetic(statement.op, args)
        if result is None:
            result = self.arithmetic(statement, [self.text(a) for a in args])
        self.values[statement.result.name] = result

    def index_arithmetic(self, op: str, args: list[Text | Sum]) -> Text | Sum | None:
        """Sums stay sums and constants fold; None where neither applies."""
        sums = [self.as_sum(a) for a in args]
        if None in sums:
            return None
        numbers = [s.number for s in sums if s is not None]
        if None not in numbers:
            folded = fold(op, tuple(Const(n, I64) for n in numbers if n is not None))
            if isinstance(folded, Const):
                if folded.dtype is I64:
                    return Sum((), int(folded.value))
                return Text(literal(folded), folded.dtype)
        if op not in ("add", "sub", "mul"):
            return None
        a, b = sums
        if a is None or b is None:
            return None
        if op == "mul":
            return self.multiply(a, b)
        return self.add(a, b, 1 if op == "add" else -1)

    def as_sum(self, value: Text | Sum) -> Sum | None:
        if isinstance(value, Sum):
            return value
        if not value.uniform or value.dtype is not I64:
            return None
        return Sum(((value.text, 1),)) if value.text[0] == "%" else Sum((), int(value.text))

    def arithmetic(self, statement: Assign, args: list[Text]) -> Text:
        uniform = all(a.uniform for a in args)
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
        return Text(text, result, uniform or width == 1)


def _is_long(body: list[Statement]) -> bool:
    """True for a body of much arithmetic, all of it on elements of four bytes."""
    if any(isinstance(s, Loop | If | Local) for s in body):
        return False
    widths = [s.dtype.bits for s in body if isinstance(s, Assign) and s.dtype is not I64]
    return len(widths) in _LONG and set(widths) <= {dtypes.bool_.bits, 32}
