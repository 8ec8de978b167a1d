"""Values in LLVM's text: types, constants, arithmetic and conversions of one width."""

from __future__ import annotations

import struct

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import CompileError
from treadle.base.record import Record
from treadle.codegen.llvm_text import TextPrinter
from treadle.ir.loop import COMPARISONS, Const, Kernel

_TYPES = {
    "f64": "double", "f32": "float", "f16": "half", "bf16": "i16", "i64": "i64", "i32": "i32",
    "i16": "i16", "i8": "i8", "u8": "i8", "u16": "i16", "u32": "i32", "u64": "i64", "b1": "i1",
}  # fmt: skip
_FLOAT_COMPARE = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
_FLOAT_BINARY = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv", "rem": "frem"}
_INT_BINARY = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}
_INTRINSICS = frozenset(
    {"sqrt", "floor", "ceil", "trunc", "roundeven", "fma", "minimum", "maximum"}
)


class Text(Record):
    """A value as printed: one for all lanes (uniform), or a vector."""

    text: str
    dtype: DType
    uniform: bool = True


class ValuePrinter(TextPrinter):
    """Prints operations on values of ``width`` lanes; who derives from it prints statements."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel
        self.width = 1  # lanes of the code being printed
        self.declared: dict[str, str] = {}

    def fail(self, text: str) -> CompileError:
        """The error for a kernel that cannot be printed."""
        return CompileError(f"kernel {self.kernel.name}: {text}; this is a defect of its builder")

    def type(self, dtype: DType, width: int | None = None) -> str:
        """LLVM's type of a value."""
        width = self.width if width is None else width
        scalar = _TYPES[dtype.short]
        return scalar if width == 1 else f"<{width} x {scalar}>"

    def memory_type(self, dtype: DType, width: int | None = None) -> str:
        """LLVM's type of a value in memory, where a bool is a byte."""
        return self.type(dtypes.int8 if dtype.kind == "b" else dtype, width)

    def vector(self, value: Text) -> str:
        """The value in all lanes of the current width."""
        if self.width == 1 or not value.uniform:
            return value.text
        ty, scalar, width = self.type(value.dtype), self.type(value.dtype, 1), self.width
        if value.text[0] != "%":
            return f"splat ({scalar} {value.text})"
        first = self.emit(f"insertelement {ty} poison, {scalar} {value.text}, i64 0")
        return self.emit(
            f"shufflevector {ty} {first}, {ty} poison, <{width} x i32> zeroinitializer"
        )

    def intrinsic(self, name: str, result: str, *typed: tuple[str, str]) -> str:
        """Calls (and declares) an overloaded LLVM intrinsic."""
        kinds = ", ".join(t for t, _ in typed)
        self.declared[name] = f"declare {result} @{name}({kinds})"
        return self.emit(f"call {result} @{name}({', '.join(f'{t} {v}' for t, v in typed)})")

    def select(self, texts: list[str], dtype: DType) -> str:
        """``texts[1]`` where ``texts[0]`` holds, else ``texts[2]``."""
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
        """An arithmetic operation on values of ``dtype``."""
        if dtype.kind == "f":
            return self.float_operation(op, dtype, x)
        return self.int_operation(op, dtype, x)

    def float_operation(self, op: str, dtype: DType, x: list[str]) -> str:
        """The same for floats: IEEE, each rounded once."""
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
        """How an intrinsic names the type it is overloaded for."""
        width = self.width if width is None else width
        scalar = f"{'f' if dtype.kind == 'f' else 'i'}{dtype.bits}"
        return scalar if width == 1 else f"v{width}{scalar}"

    def int_operation(self, op: str, dtype: DType, x: list[str]) -> str:
        """The same for integers, which wrap, and for bools."""
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
            return self.intrinsic(f"llvm.abs.{self.suffix(dtype)}", ty, (ty, x[0]), ("i1", "false"))
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
        """A constant in all lanes."""
        scalar = literal(Const(value if dtype.kind != "b" else bool(value), dtype))
        if self.width == 1:
            return scalar
        return f"splat ({_TYPES[dtype.short]} {scalar})"

    def shift(self, op: str, dtype: DType, x: list[str]) -> str:
        """A shift; an amount beyond the width gives 0, or the sign."""
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

    def convert(self, x: str, source: DType, target: DType) -> str:
        """A value in another dtype, as the statement ``convert`` defines it."""
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

    def widen_bf16(self, x: str) -> str:
        """bf16 to f32: its bits are the upper half."""
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
