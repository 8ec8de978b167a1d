"""Makes a WebAssembly module that runs of the object file that LLVM writes.

The object is complete in itself, so that there is little to link: data gets addresses, functions
whose address is taken get places in the table, and the places that refer to them are filled in.
The memory begins with the stack, then the data; the rest, from ``__heap_base``, is the caller's.

Source: https://github.com/WebAssembly/tool-conventions/blob/main/Linking.md
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from treadle.base.errors import CompileError
from treadle.base.record import Record

_STACK = 1 << 20
_PAGE = 1 << 16
_LINE = 64
TYPE, IMPORT, FUNCTION, TABLE, MEMORY, GLOBAL, EXPORT, ELEMENT, CODE, DATA, COUNT = (
    1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12,
)  # fmt: skip
_I32, _FUNCREF, _END = 0x7F, 0x70, b"\x0b"
_UNDEFINED, _NAMED = 0x10, 0x40  # flags of symbols
_FUNCTION_SYMBOL, _DATA_SYMBOL, _SECTION_SYMBOL = 0, 1, 3
# Relocations: which are 5 bytes of LEB128 and which a word, and what they refer to.
_TO_FUNCTION, _TO_TABLE, _TO_MEMORY, _TO_TYPE, _TO_GLOBAL = {0}, {1, 2}, {3, 4, 5}, {6}, {7}
_SIGNED, _WORDS, _TO_TABLE_NUMBER = {1, 4}, {2, 5}, {20}


class _Reader:
    """Reads what a section holds."""

    def __init__(self, data: bytes | bytearray, at: int = 0) -> None:
        self.data = data
        self.at = at

    def number(self) -> int:
        """An unsigned LEB128 number."""
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def signed(self) -> int:
        """A signed one."""
        start = self.at
        value = self.number()
        bits = 7 * (self.at - start)
        return value - (1 << bits) if value >> (bits - 1) else value

    def text(self) -> str:
        """A text with its length before it."""
        length = self.number()
        self.at += length
        return bytes(self.data[self.at - length : self.at]).decode()


class _Symbol(Record):
    kind: int
    is_defined: bool
    name: str
    index: int  # type: ignore[assignment]  # of a function or global; the segment of data
    offset: int  # into the segment


class _Relocation(Record):
    kind: int
    offset: int
    index: int  # type: ignore[assignment]  # of the symbol, or the type
    addend: int


class _Segment(Record):
    start: int  # in its section
    length: int
    alignment: int


def link(code: bytes, exports: Sequence[str]) -> bytes:
    """The module; it exports its memory, ``__heap_base`` and the functions named."""
    return _Linker(code).module(exports)


class _Linker:
    def __init__(self, code: bytes) -> None:
        self.sections: dict[int, bytearray] = {}
        self.order: list[int] = []
        self.relocations: dict[int, list[_Relocation]] = {}
        self.symbols: list[_Symbol] = []
        self.alignments: list[int] = []
        reader = _Reader(code, 8)
        while reader.at < len(code):
            kind = code[reader.at]
            reader.at += 1
            size = reader.number()
            body = code[reader.at : reader.at + size]
            reader.at += size
            self._section(kind, body)
        self.segments = self._segments()
        self.addresses, self.end = self._placed()
        self.places: dict[int, int] = {}  # of functions in the table

    def _section(self, kind: int, body: bytes) -> None:
        if kind:
            self.order.append(kind)
            self.sections[kind] = bytearray(body)
            return
        reader = _Reader(body)
        self.order.append(kind)
        name = reader.text()
        if name == "linking":
            self._linking(reader)
        elif name.startswith("reloc."):
            self._relocations(reader)

    def _linking(self, reader: _Reader) -> None:
        reader.number()  # the version
        while reader.at < len(reader.data):
            kind = reader.data[reader.at]
            reader.at += 1
            end = reader.number() + reader.at
            if kind == 5:
                for _ in range(reader.number()):
                    reader.text()
                    self.alignments.append(1 << reader.number())
                    reader.number()
            elif kind == 8:
                self.symbols = [self._symbol(reader) for _ in range(reader.number())]
            reader.at = end

    def _symbol(self, reader: _Reader) -> _Symbol:
        kind = reader.data[reader.at]
        reader.at += 1
        flags = reader.number()
        is_defined = not flags & _UNDEFINED
        if kind == _SECTION_SYMBOL:
            return _Symbol(kind, True, "", reader.number(), 0)
        if kind == _DATA_SYMBOL:
            name = reader.text()
            if not is_defined:
                return _Symbol(kind, False, name, -1, 0)
            index, offset, _ = reader.number(), reader.number(), reader.number()
            return _Symbol(kind, True, name, index, offset)
        index = reader.number()
        name = reader.text() if is_defined or flags & _NAMED else ""
        return _Symbol(kind, is_defined, name, index, 0)

    def _relocations(self, reader: _Reader) -> None:
        found = self.relocations.setdefault(self.order[reader.number()], [])
        for _ in range(reader.number()):
            kind = reader.data[reader.at]
            reader.at += 1
            offset, index = reader.number(), reader.number()
            addend = reader.signed() if kind in _TO_MEMORY else 0
            found.append(_Relocation(kind, offset, index, addend))

    # --- places -----------------------------------------------------------------------------------

    def _segments(self) -> list[_Segment]:
        reader = _Reader(self.sections.get(DATA, b"\0"))
        found = []
        for number in range(reader.number()):
            reader.number()  # the memory
            reader.at += 1  # i32.const
            reader.signed()
            reader.at += 1  # the end of the expression
            length = reader.number()
            found.append(_Segment(reader.at, length, self.alignments[number]))
            reader.at += length
        return found

    def _placed(self) -> tuple[list[int], int]:
        """The addresses of the segments, and the end of the last."""
        at, found = _STACK, []
        for s in self.segments:
            at = -(-at // s.alignment) * s.alignment
            found.append(at)
            at += s.length
        return found, -(-at // _LINE) * _LINE

    def _function_place(self, function: int) -> int:
        """Its place in the table; the first stays empty, as that of NULL."""
        return self.places.setdefault(function, len(self.places) + 1)

    def _value(self, r: _Relocation) -> int:
        if r.kind in _TO_TYPE:
            return r.index
        if r.kind in _TO_TABLE_NUMBER:
            return 0
        symbol = self.symbols[r.index]
        if r.kind in _TO_GLOBAL and not symbol.is_defined:
            return 0  # the stack pointer
        if not symbol.is_defined:
            raise CompileError(f"the library for wasm32 needs {symbol.name!r}, which it lacks")
        if r.kind in _TO_FUNCTION:
            return symbol.index
        if r.kind in _TO_TABLE:
            return self._function_place(symbol.index)
        if r.kind in _TO_MEMORY:
            return self.addresses[symbol.index] + symbol.offset + r.addend
        raise CompileError(f"the library for wasm32 has a relocation of kind {r.kind}")

    def _relocate(self) -> None:
        for section, relocations in self.relocations.items():
            body = self.sections.get(section)
            if body is None:
                continue  # of a section that is left out
            for r in relocations:
                value = self._value(r)
                if r.kind in _WORDS:
                    body[r.offset : r.offset + 4] = value.to_bytes(4, "little")
                else:
                    body[r.offset : r.offset + 5] = _padded(value, r.kind in _SIGNED)

    # --- the module -------------------------------------------------------------------------------

    def module(self, exports: Sequence[str]) -> bytes:
        """All sections in their order."""
        self._check_imports()
        self._relocate()
        pages = -(-self.end // _PAGE)
        functions = {s.name: s.index for s in self.symbols if s.kind == _FUNCTION_SYMBOL}
        told = [("memory", 2, 0), ("__heap_base", 3, 1)]
        told += [(name, 0, functions[name]) for name in exports]
        rows = [_text(name) + bytes([kind]) + _number(index) for name, kind, index in told]
        table = len(self.places) + 1
        globals_ = [
            bytes([_I32, 1, 0x41]) + _signed(_STACK) + _END,
            bytes([_I32, 0, 0x41]) + _signed(self.end) + _END,
        ]
        elements = [b"\0\x41\x01" + _END + _vector(map(_number, self.places))]
        parts = [
            b"\0asm\1\0\0\0",
            _section(TYPE, self.sections[TYPE]),
            _section(FUNCTION, self.sections[FUNCTION]),
            _section(TABLE, _vector([bytes([_FUNCREF, 0]) + _number(table)])),
            _section(MEMORY, _vector([b"\0" + _number(pages)])),
            _section(GLOBAL, _vector(globals_)),
            _section(EXPORT, _vector(rows)),
            _section(ELEMENT, _vector(elements)) if self.places else b"",
            _section(CODE, self.sections[CODE]),
            _section(DATA, _vector(self._data())),
        ]
        return b"".join(parts)

    def _data(self) -> Iterable[bytes]:
        body = bytes(self.sections.get(DATA, b""))
        for s, address in zip(self.segments, self.addresses, strict=True):
            head = b"\0\x41" + _signed(address) + _END + _number(s.length)
            yield head + body[s.start : s.start + s.length]

    def _check_imports(self) -> None:
        """Nothing but what the module now has itself may be missing."""
        missing = [s.name for s in self.symbols if not s.is_defined and s.kind in (0, 1)]
        if missing:
            raise CompileError(
                f"the library for wasm32 needs {', '.join(missing)}, which it lacks; this is a "
                f"defect: please report it with the program file"
            )


def _number(value: int) -> bytes:
    made = bytearray()
    while True:
        value, low = value >> 7, value & 127
        made.append(low | 128 * (value > 0))
        if not value:
            return bytes(made)


def _signed(value: int) -> bytes:
    made = bytearray()
    while True:
        low, value = value & 127, value >> 7
        is_last = value == -(low >> 6)
        made.append(low | 128 * (not is_last))
        if is_last:
            return bytes(made)


def _padded(value: int, is_signed: bool) -> bytes:
    """A number of 32 bits in 5 bytes."""
    if is_signed and value >= 1 << 31:
        value -= 1 << 32
    return bytes([(value >> shift) & 127 | 128 * (shift < 28) for shift in range(0, 35, 7)])


def _text(text: str) -> bytes:
    return _number(len(text.encode())) + text.encode()


def _vector(items: Iterable[bytes]) -> bytes:
    rows = list(items)
    return _number(len(rows)) + b"".join(rows)


def _section(kind: int, body: bytes | bytearray) -> bytes:
    return bytes([kind]) + _number(len(body)) + body


__all__ = ["link"]
