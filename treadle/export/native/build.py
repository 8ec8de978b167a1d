"""``build``: from a program to an object file and its header."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence

from treadle.base.record import Record
from treadle.export.native.driver import Driver, EntryText, constant
from treadle.export.native.entry import BuiltEntry, Surroundings, build_entry, check_operations
from treadle.export.native.header import Header, Signature, signature
from treadle.export.native.kernels import Kernels, as_device
from treadle.export.native.layout import Numbers, StateLayout, aligned
from treadle.export.native.module import compiled
from treadle.export.native.wasm import link
from treadle.export.native.targets import BuildError, Machine, machine
from treadle.export.program import ExportedProgram
from treadle.ir.graph import Graph

Says = Callable[[str], None]


class Built(Record):
    """A library: its object file, its header, the weights where they lie beside it, and for
    WebAssembly the module that runs as it is."""

    name: str
    machine: Machine
    object_code: bytes
    header: str
    weights: bytes | None
    module: bytes | None
    signatures: tuple[Signature, ...]
    state: int  # bytes of these two
    arena: int
    kernels: int


def build(
    program: ExportedProgram, target: str = "host", *, name: str = "program",
    entries: Sequence[str] | None = None, sizes: Mapping[str, int] | None = None,
    threads: int = 8, weights_inside: bool = True, says: Says = lambda text: None,
) -> Built:  # fmt: skip
    """Builds the ``entries`` (all graphs unless named) of a program for a target.

    ``sizes`` gives the sizes that the program leaves open. ``threads`` is in how many pieces a
    kernel may be cut. ``says`` is told what is being done.

    Raises:
        BuildError: for an unknown target, entry or size; for an operation without native code.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise BuildError(f"got the name {name!r}; expected one that C allows, as lenet_v2")
    if not 1 <= threads <= 256:
        raise BuildError(f"got {threads} threads; expected 1 to 256")
    on = machine(target)
    graphs = [_graph(program, entry) for entry in entries or program.graphs]
    given = _sizes(graphs, sizes or {})
    for graph in graphs:
        check_operations(graph)
    signatures = tuple([
        signature(g, s) for g, s in zip(graphs, given, strict=True)
    ])  # fmt: skip
    layout = StateLayout(program)
    mutable = frozenset(weight for g in graphs for weight in g.updates)
    used = dict.fromkeys(w.name for g in graphs for w in g.weights) | dict.fromkeys(mutable)
    layout.place_weights(sorted(used, key=list(program.weights).index), mutable)
    numbers = [layout.numbers(g, s) for g, s in zip(graphs, given, strict=True)]
    threads = 1 if on.is_wasm else threads
    levels: list[Kernels] = []
    made: list[list[BuiltEntry]] = []
    weights = {k.name: k.at for k in layout.kept.values()}
    for number, processor in enumerate(on.levels):
        kernels = Kernels(number, processor, threads)
        levels.append(kernels)
        says(f"planning for {processor.cpu}")
        made.append([
            build_entry(g, s, Surroundings(weights, n.at, mutable), as_device(kernels), threads)
            for g, s, n in zip(graphs, given, numbers, strict=True)
        ])  # fmt: skip
    texts = [
        _entry_text(s, [row[i] for row in made], numbers[i], layout)
        for i, s in enumerate(signatures)
    ]
    image = b"".join(layout.image)
    stamp = _stamp(program, graphs, given, target, image)
    driver = Driver(name, on, stamp, threads, weights_inside)
    symbols = [[k.symbol(n) for n in range(len(k.specs))] for k in levels]
    text = driver.module(texts, symbols, layout.copies)
    table = bytes(layout.table)
    text += f"@table = internal constant [{len(table)} x i8] {constant(table)}, align 64\n"
    code = compiled(text, levels, on, image if weights_inside else None, says)
    functions = ("init", "seed", "error", *(s.name for s in signatures))
    module = link(code, [f"{name}_{f}" for f in functions]) if on.is_wasm else None
    header = Header(name, on, target, signatures, layout, texts, weights_inside)
    beside = stamp.to_bytes(8, "little", signed=True).ljust(64, b"\0") + image
    return Built(
        name, on, code, header.text(), None if weights_inside else beside, module, signatures,
        layout.state, max(e.arena for e in texts), sum(len(k.specs) for k in levels),
    )  # fmt: skip


def _graph(program: ExportedProgram, name: str) -> Graph:
    if name not in program.graphs:
        raise BuildError(f"got the entry {name!r}; the program has {', '.join(program.graphs)}")
    return program.graphs[name]


def _sizes(graphs: Sequence[Graph], given: Mapping[str, int]) -> list[dict[str, int]]:
    """The sizes of each graph."""
    known = {size: limits for g in graphs for size, limits in g.sizes.items()}
    for size, value in given.items():
        if size not in known:
            told = f"the open sizes are {', '.join(known)}" if known else "no size is open"
            raise BuildError(f"got the size {size}={value}; {told}")
    missing = [size for size in known if size not in given]
    if missing:
        told = ", ".join(f"{size} ({known[size][0]} to {known[size][1]})" for size in missing)
        raise BuildError(
            f"a build has fixed sizes, and {told} {'is' if len(missing) == 1 else 'are'} open; "
            f"give --size {missing[0]}=NUMBER for each"
        )
    for g in graphs:
        for size, (least, most) in g.sizes.items():
            if not least <= given[size] <= most:
                raise BuildError(
                    f"got the size {size}={given[size]}; graph {g.name!r} takes {least} to {most}"
                )
    return [{size: given[size] for size in g.sizes} for g in graphs]


def _entry_text(
    told: Signature, levels: Sequence[BuiltEntry], numbers: Numbers, layout: StateLayout
) -> EntryText:
    """An entry with its room in the state."""
    arguments = (*told.inputs, *told.outputs)
    return EntryText(
        told.name, tuple([(e.once, e.calls) for e in levels]), len(arguments),
        frozenset(i for i, a in enumerate(arguments) if not a.nbytes),
        layout.room(max(e.packed for e in levels)), aligned(max(e.arena for e in levels)),
        numbers.draws, numbers.steps,
    )  # fmt: skip


def _stamp(
    program: ExportedProgram, graphs: Sequence[Graph], sizes: Sequence[Mapping[str, int]],
    target: str, image: bytes,
) -> int:  # fmt: skip
    """What tells the states and weights of this build from those of others."""
    digest = hashlib.sha256(f"{target} {sizes}".encode())
    for text in (*map(str, graphs), *map(repr, program.optimizers)):
        digest.update(text.encode())
    digest.update(image)
    return int.from_bytes(digest.digest()[:8], "little", signed=True)


__all__ = ["Built", "build"]
