"""The program file: graphs as readable text, then weights as they lie in memory.

``docs/program-file.md`` is the specification. Reading a file runs nothing of it: the text becomes
graphs (``ir/graph_syntax.py``), the weights are mapped into memory and read when they are used.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from treadle.base import dtypes
from treadle.base.errors import TreadleError
from treadle.export.bind import GraphError
from treadle.export.program import ExportedProgram, Steps
from treadle.ir.graph import Graph, type_text, value_text
from treadle.ir.graph_syntax import GraphSyntaxError, fail, parse_graph, parse_type, parse_value
from treadle.ir.size import Size
from treadle.ops.registry import OPS, find
from treadle.runtime.memory import wrap as wrap_memory
from treadle.tensor.handle import wrap
from treadle.tensor.storage import array_of, node_from_memory
from treadle.tensor.tensor import Tensor

if TYPE_CHECKING:
    from treadle.io.atomic import Path

VERSION = 2
ALIGNMENT = 64
MOST_TEXT = 1 << 26
_HEAD = re.compile(rb"treadle program (\d{1,6}) (\d{10}) (\d{16})\n")
_HEAD_SIZE = len("treadle program 1 0000000000 0000000000000000\n")
_WEIGHT = re.compile(r'weight ("(?:[^"\\]|\\.)*") (\S+) at (\d{1,16})')
_OPTIMIZER = re.compile(r'optimizer "(\w{1,64})" steps (\d{1,15}) (\{.*\})')
_OPTIMIZED = re.compile(r'optimized ("(?:[^"\\]|\\.)*") (\{.*\})')
_PRODUCER = re.compile(r'producer "([^"\\]*)" numerics (\d{1,6})')
_OP = re.compile(r"op (\w{1,64}) (\d{1,6})")
NUMERICS = 1


class ProgramFileError(TreadleError, ValueError):
    """A file that is no program file, a damaged one, or one from a newer version."""


def save(program: ExportedProgram, path: Path) -> None:
    """Writes the program as one file, which replaces an existing one when it is complete.

    Its weights, and the counts and settings of its optimizers, are saved as they are now.
    """
    from treadle.io.atomic import replacing

    with replacing(path) as temporary, open(temporary, "wb") as file:
        write(program, file)


def write(program: ExportedProgram, file: BinaryIO) -> None:
    """Writes the program into an open file."""
    arrays = [(name, array_of(t.node)) for name, t in program.weights.items()]
    text, places, size = _text(program, arrays)
    body = text.encode()
    length = _HEAD_SIZE + len(body)
    if length > MOST_TEXT:
        raise ValueError(f"save: the graphs take {length} bytes as text; at most {MOST_TEXT}")
    file.write(f"treadle program {VERSION} {length:010d} {size:016d}\n".encode())
    file.write(body)
    start = _aligned(length)
    at = length
    for (_, array), place in zip(arrays, places, strict=True):
        file.write(bytes(start + place - at))
        contiguous = np.ascontiguousarray(array)
        file.write(contiguous.reshape(-1).view(np.uint8).data)
        at = start + place + contiguous.nbytes
    file.write(bytes(start + size - at))


def _text(program: ExportedProgram, arrays: Any) -> tuple[str, list[int], int]:
    """Everything after the first line, where the weights lie, and how many bytes they take."""
    from importlib.metadata import version

    producer = f"treadle {version('treadle')}"
    lines = [f'producer "{producer}" numerics {NUMERICS}']
    used = {o.op for g in program.graphs.values() for o in g.operations}
    lines += [f"op {name} {OPS[name].version}" for name in sorted(used) if OPS[name].version > 1]
    places = []
    size = 0
    for (name, array), tensor in zip(arrays, program.weights.values(), strict=True):
        places.append(size)
        kind = type_text(tensor.dtype, tuple(tensor.shape))
        lines.append(f"weight {json.dumps(name)} {kind} at {size}")
        size = _aligned(size + array.nbytes)
    for steps in program.optimizers:
        told = value_text(steps.own())
        lines.append(f'optimizer "{steps.kind}" steps {steps.steps} {told}')
    for name, done in program.optimizations.items():
        lines.append(f"optimized {json.dumps(name)} {value_text(done)}")
    lines += map(str, program.graphs.values())
    return "\n".join(lines) + "\n", places, size


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def load(path: Path) -> ExportedProgram:
    """The program of a file. Its weights are mapped, not copied: they are read when used.

    Raises:
        ProgramFileError: with what is wrong, and in which line.
        OSError: where the file cannot be read.
    """
    place = os.fspath(path)
    with open(place, "rb") as file:
        head = file.read(_HEAD_SIZE)
        length, size = _read_head(place, head, os.fstat(file.fileno()).st_size)
        body = file.read(length - len(head))
    start = _aligned(length)
    try:
        data = np.memmap(place, np.uint8, "c", start, (size,)) if size else np.zeros(0, np.uint8)
        return _parse(body.decode(), data)
    except (GraphSyntaxError, GraphError, UnicodeDecodeError) as error:
        raise ProgramFileError(f"{place}: {error}") from None


def _read_head(place: str, head: bytes, actual: int) -> tuple[int, int]:
    """The bytes of the text, with the first line, and of the weights."""
    match = _HEAD.match(head)
    if match is None:
        raise ProgramFileError(
            f"{place}: got {head[:20]!r} at its beginning; expected 'treadle program'; it is not a "
            f"program file (treadle.export.save writes them)"
        )
    found, length, size = map(int, match.groups())
    if found > VERSION:
        raise ProgramFileError(
            f"{place}: got a file of version {found}; this Treadle reads up to {VERSION}; update "
            f"it with: pip install --upgrade treadle"
        )
    whole = _aligned(length) + size
    if found < 1 or not _HEAD_SIZE <= length <= MOST_TEXT or actual != whole:
        raise ProgramFileError(
            f"{place}: got {actual} bytes; its first line says {length} of text and {size} of "
            f"weights, {whole} together; the file is damaged or cut off"
        )
    return length, size


class _Parts:
    """What the lines before the graphs say."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self.weights: dict[str, Tensor] = {}
        self.steps: list[Steps] = []
        self.optimizations: dict[str, dict[str, int]] = {}
        self.numerics: int | None = None
        self.end = 0  # of the weights so far

    def line(self, text: str, number: int) -> None:
        """Takes one line."""
        if match := _WEIGHT.fullmatch(text):
            self._weight(str(parse_value(match[1], number)), match[2], int(match[3]), number)
        elif match := _OPTIMIZER.fullmatch(text):
            settings = parse_value(match[3], number)
            self.steps.append(Steps(match[1], settings, int(match[2])))
        elif match := _OPTIMIZED.fullmatch(text):
            self._optimized(str(parse_value(match[1], number)), match[2], number)
        elif match := _OP.fullmatch(text):
            op = find(match[1])
            if op is None or int(match[2]) > op.version:
                fail(number, text, "ops and versions that this Treadle has; update it")
        elif (match := _PRODUCER.fullmatch(text)) and self.numerics is None:
            self.numerics = int(match[2])
            if self.numerics > NUMERICS:
                fail(number, text, f"numerics up to {NUMERICS}; update Treadle")
        else:
            fail(number, text, "'producer', 'op', 'weight', 'optimizer', 'optimized' or 'graph'")

    def _optimized(self, name: str, text: str, number: int) -> None:
        done = parse_value(text, number)
        kinds = {(type(k), type(v)) for k, v in done.items()}
        if name in self.optimizations or not kinds <= {(str, int)}:
            fail(number, text, "how often each optimization was done, once for each graph")
        self.optimizations[name] = done

    def _weight(self, name: str, kind: str, place: int, number: int) -> None:
        dtype, shape = parse_type(kind, number)
        if name in self.weights:
            fail(number, name, "a name for each weight")
        if any(isinstance(s, Size) for s in shape):
            fail(number, kind, "sizes that are numbers")
        sizes: tuple[int, ...] = tuple([int(s) for s in shape])  # type: ignore[arg-type]
        nbytes = int(np.prod(sizes, dtype=object)) * dtype.itemsize
        if place % ALIGNMENT or place < self.end or place + nbytes > self.data.size:
            fail(
                number, f"{nbytes} bytes at {place}",
                f"weights in order, at multiples of {ALIGNMENT}, within {self.data.size} bytes",
            )  # fmt: skip
        self.end = place + nbytes
        part = self.data[place : place + nbytes]
        if dtype is dtypes.bool_ and part.size and part.max() > 1:
            fail(number, name, "truth values that are 0 or 1")
        memory = wrap_memory(part, part.ctypes.data, nbytes)
        self.weights[name] = wrap(node_from_memory(memory, dtype, sizes))


def _parse(text: str, data: Any) -> ExportedProgram:
    lines = text.split("\n")
    begins = [i for i, line in enumerate(lines) if line.startswith("graph ")]
    if not begins:
        fail(len(lines), "the end of the text", "a graph")
    parts = _Parts(data)
    for i, line in enumerate(lines[: begins[0]]):
        parts.line(line, i + 2)  # the first line of the file is its head
    graphs: dict[str, Graph] = {}
    for begin, end in zip(begins, [*begins[1:], len(lines)], strict=True):
        graph = parse_graph("\n".join(lines[begin:end]), begin + 2)
        if graph.name in graphs:
            fail(begin + 2, graph.name, "a name for each graph")
        graphs[graph.name] = graph
    return ExportedProgram(graphs, parts.weights, parts.steps, parts.optimizations)


__all__ = ["ProgramFileError", "load", "save", "write"]
