"""The C header of a build."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from treadle.base.dtypes import DType
from treadle.base.record import Record
from treadle.base.shapes import Shape, prod
from treadle.export.bind import bind
from treadle.export.native.driver import EntryText, failures
from treadle.export.native.driver_code import ERRORS
from treadle.export.native.entry import STATE
from treadle.export.native.layout import StateLayout
from treadle.export.native.targets import BuildError, Machine
from treadle.ir.graph import Graph, Input, Ref, Weight, type_text
from treadle.ir.size import resolve

_C_TYPES = {
    "f64": "double", "f32": "float", "f16": "uint16_t", "bf16": "uint16_t", "i64": "int64_t",
    "i32": "int32_t", "i16": "int16_t", "i8": "int8_t", "u64": "uint64_t", "u32": "uint32_t",
    "u16": "uint16_t", "u8": "uint8_t", "b1": "uint8_t",
}  # fmt: skip


class Argument(Record):
    """An input or output of an entry: its name in C, and what it was called in Python."""

    name: str
    told: str
    dtype: DType
    shape: Shape

    @property
    def nbytes(self) -> int:
        """The bytes of the array."""
        return prod(self.shape) * self.dtype.itemsize


class Signature(Record):
    """A function of the library that runs a graph."""

    name: str
    graph: str
    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]


def signature(graph: Graph, sizes: Mapping[str, int], functions: set[str]) -> Signature:
    """What the function of a graph takes and gives; its name is none of ``functions``."""
    taken = {"state", "arena", "threads"}
    inputs = [
        _argument(x.name, x.dtype, resolve(x.shape, sizes), taken)  # type: ignore[arg-type]
        for x in graph.inputs
    ]
    bound = bind(graph, sizes)
    outside: list[Input | Weight] = [*graph.inputs, *graph.weights]
    types = [(x.dtype, resolve(x.shape, sizes)) for x in outside]
    types += [(n.dtype, ()) for n in graph.numbers]
    specs = () if bound.template is None else bound.template.specs
    types += [(spec.sig.types[0].dtype, spec.sig.types[0].shape) for spec in specs]
    outputs = [
        _argument(name or "output", *types[value], taken)  # type: ignore[arg-type]
        for name, value in named_refs(graph.outputs)
    ]
    return Signature(c_name(graph.name, functions), graph.name, tuple(inputs), tuple(outputs))


def named_refs(structure: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """The values in a structure, by their place in it: ``logits``, ``0.1``."""
    if isinstance(structure, Ref):
        yield name, structure.value
    elif isinstance(structure, dict):
        for key, item in structure.items():
            yield from named_refs(item, f"{name}.{key}".lstrip("."))
    elif isinstance(structure, (tuple, list)):
        for number, item in enumerate(structure):
            yield from named_refs(item, f"{name}.{number}".lstrip("."))


def _argument(told: str, dtype: DType, shape: Shape, taken: set[str]) -> Argument:
    if dtype.short not in _C_TYPES:
        raise BuildError(f"{told!r} is {dtype.name}; C has {', '.join(_C_TYPES)}")
    return Argument(c_name(told, taken), told, dtype, shape)


def c_name(told: str, taken: set[str]) -> str:
    """A name that C allows, and that nobody else has."""
    name = re.sub(r"\W", "_", told, flags=re.ASCII)
    if not name or name[0].isdigit():
        name = f"output_{name}".rstrip("_")
    while name in taken or name in _C_WORDS:
        name += "_"
    taken.add(name)
    return name


class Header:
    """The text of the header of one library."""

    def __init__(
        self, name: str, on: Machine, target: str, signatures: Sequence[Signature],
        layout: StateLayout, entries: Sequence[EntryText], weights_inside: bool,
    ) -> None:  # fmt: skip
        self.name = name
        self.upper = name.upper()
        self.machine = on
        self.target = target
        self.signatures = signatures
        self.layout = layout
        self.entries = entries
        self.weights_inside = weights_inside

    def text(self) -> str:
        """All of it."""
        parts = [self._intro(), self._sizes(), self._threads(), self._state()]
        parts += [self._entry(s) for s in self.signatures]
        parts += [self._errors(), self._weights(), _END.format(upper=self.upper)]
        return "\n".join(parts)

    def _intro(self) -> str:
        memory = "memory is handed in" if self.machine.is_wasm else "memory comes from libc"
        names = ", ".join(s.name for s in self.signatures)
        return _INTRO.format(
            name=self.name, upper=self.upper, target=self.target, memory=memory, names=names,
            init="" if self.weights_inside else ", weights", call=self._example(),
        )  # fmt: skip

    def _example(self) -> str:
        first = self.signatures[0]
        given = ["state", "NULL", "NULL", *(a.name for a in (*first.inputs, *first.outputs))]
        return f"{self.name}_{first.name}({', '.join(given)})"

    def _sizes(self) -> str:
        arena = max((e.arena for e in self.entries), default=0)
        lines = [
            f"#define {self.upper}_STATE_BYTES {self.layout.state}u",
            f"#define {self.upper}_ARENA_BYTES {arena}u  /* enough for every function */",
        ]
        if not self.weights_inside:
            nbytes = 64 + sum(map(len, self.layout.image))
            lines.append(f"#define {self.upper}_WEIGHTS_BYTES {nbytes}u  /* of the file */")
        return "\n".join(lines) + "\n"

    def _threads(self) -> str:
        own = _OWN_THREADS.format(name=self.name) if self.machine.has_threads else ""
        return _THREADS + own

    def _state(self) -> str:
        given = "" if self.weights_inside else ", const void *weights"
        more = "" if self.weights_inside else _BESIDE
        text = _STATE.format(name=self.name, given=given, more=more)
        if any(e.draws for e in self.entries):
            text += _SEED.format(name=self.name)
        return text

    def _entry(self, s: Signature) -> str:
        arguments = ["void *state", "void *arena", "const treadle_threads *threads"]
        arguments += [f"const {_C_TYPES[a.dtype.short]} *{a.name}" for a in s.inputs]
        arguments += [f"{_C_TYPES[a.dtype.short]} *{a.name}" for a in s.outputs]
        told = [_told(a, "takes") for a in s.inputs] + [_told(a, "gives") for a in s.outputs]
        entry = next(e for e in self.entries if e.name == s.name)
        more = "\n * A training step: weights change in the state." if entry.steps else ""
        lines = "\n".join(f" *   {line}" for line in told)
        body = ",\n    ".join(arguments)
        return f"/* {s.graph}{more}\n{lines} */\nint {self.name}_{s.name}(\n    {body});\n"

    def _errors(self) -> str:
        lines = [f" *   {code}  {text}" for code, text in enumerate(ERRORS)]
        lines += [f" *   {len(ERRORS) + n}  {_plain(t)}" for n, t in enumerate(
            failures(self.entries))]  # fmt: skip
        return (
            "/* What a code means; the text is constant.\n" + "\n".join(lines)
            + f" */\nconst char *{self.name}_error(int code);\n"
        )  # fmt: skip

    def _weights(self) -> str:
        changing = [k for k in self.layout.kept.values() if k.at[0] == STATE]
        if not changing:
            return ""
        weights = self.layout.program.weights
        rows = []
        for k in changing:
            w = weights[k.name]
            kind = type_text(w.dtype, tuple(w.shape))
            rows.append(f'    X("{_plain(k.name)}", "{kind}", {k.at[1]}u, {k.nbytes}u)')
        body = " \\\n".join(rows)
        return (
            "/* Weights that change: X(name, type, bytes into the state, bytes). */\n"
            f"#define {self.upper}_WEIGHTS(X) \\\n{body}\n"
        )


def _told(a: Argument, verb: str) -> str:
    sizes = " x ".join(map(str, a.shape)) or "one number"
    note = {"f16": ", IEEE half precision", "bf16": ", bfloat16", "b1": ", 0 or 1"}
    return f"{verb} {a.name}: {a.dtype.name}, {sizes}{note.get(a.dtype.short, '')}"


def _plain(text: str) -> str:
    """A text that does not end the comment, or the string, that it is in."""
    return text.replace("*/", "* /").replace("\\", "/").replace('"', "'").replace("\n", " ")


_C_WORDS = frozenset({
    "auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum",
    "extern", "float", "for", "goto", "if", "inline", "int", "long", "register", "restrict",
    "return", "short", "signed", "sizeof", "static", "struct", "switch", "typedef", "union",
    "unsigned", "void", "volatile", "while", "alignas", "alignof", "bool", "constexpr", "false",
    "nullptr", "true", "asm", "class", "delete", "new", "private", "public", "this", "throw", "try",
    "catch", "namespace", "template", "operator",
})  # fmt: skip
_INTRO = """/* {name}: a program built by Treadle for {target}. It needs nothing but this library
 * ({memory}).
 *
 *   void *state = aligned_alloc(64, {upper}_STATE_BYTES);
 *   int code = {name}_init(state{init});
 *   if (code == 0) code = {call};
 *   if (code != 0) puts({name}_error(code));
 *
 * Functions: {names}. Arrays are row-major and must not overlap. Every function returns 0, or a
 * code; after an error the state is as it was, and what the outputs hold is undefined.
 * Calls that only read the state may run at the same time, each with an arena of its own. */
#ifndef {upper}_H
#define {upper}_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif
"""
_THREADS = """#ifndef TREADLE_THREADS
#define TREADLE_THREADS
/* How the work of a call is spread over threads: ``parallel_for`` runs task(data, i) for every i
 * from 0 to n - 1, on threads of yours, and returns when all are done. ``count`` is their number.
 * NULL in a call's place of it: the calling thread does everything. The bits are the same. */
typedef struct treadle_threads {
    int count;
    void *context;
    void (*parallel_for)(void *context, void (*task)(void *data, int index), void *data, int n);
} treadle_threads;
#endif
"""
_OWN_THREADS = """
/* Starts threads of the library's own for ``threads``: ``count`` with the calling one, up to 256.
 * They wait for work until they are stopped. A call that finds them at work for another one does
 * its work itself. Link with -pthread. */
int {name}_threads_start(treadle_threads *threads, int count);
void {name}_threads_stop(treadle_threads *threads);
"""
_STATE = """\
/* Fills in the state: memory of yours, at a multiple of 64 bytes, that all calls share.{more} */
int {name}_init(void *state{given});
"""
_BESIDE = """
 * ``weights`` is the content of the .weights file, at a multiple of 64 bytes; it must stay."""
_SEED = """
/* Where random numbers start: as treadle.manual_seed(seed), where ``stream`` is 0. */
int {name}_seed(void *state, uint64_t seed, uint64_t stream);
"""
_END = """
#ifdef __cplusplus
}}
#endif
#endif /* {upper}_H */
"""

__all__ = ["Argument", "Header", "Signature", "signature"]
