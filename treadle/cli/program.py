"""``treadle run``, ``train`` and ``inspect``: program files, without the code that made them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

import treadle
from treadle.base.errors import MissingExtraError, TreadleError
from treadle.export import ExportedProgram, load, save
from treadle.export import drawing
from treadle.export.parts import costs
from treadle.ir.graph import Graph, Input, Ref, filled, type_text
from treadle.ir.size import Size
from treadle.tensor.handle import Handle
from treadle.train.progress import Progress

Arrays = dict[str, np.ndarray[Any, Any]]
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm")


class TaskError(TreadleError, ValueError):
    """What a command was given does not fit: what, and what to give instead."""


def guarded(task: Any, *arguments: Any) -> int:
    """Runs a task; an error that is the user's becomes a line and the exit status 1."""
    try:
        task(*arguments)
    except MissingExtraError:
        raise
    except (TreadleError, ValueError, TypeError, OSError) as error:
        Console(stderr=True, highlight=False).print(f"Error: {error}", markup=False, soft_wrap=True)
        return 1
    return 0


def _graph(program: ExportedProgram, name: str | None, trains: bool) -> Graph:
    """The graph that a command is about: the one named, or the first that does what it should."""
    if name is None:
        for graph in program.graphs.values():
            if any(n.rule == "optimizer" for n in graph.numbers) is trains:
                return graph
        if trains:
            raise TaskError(
                "the file has no training step; export one: a function that calls backward() and "
                "optimizer.step()"
            )
        return program.graph
    if name not in program.graphs:
        raise TaskError(f"got the graph {name!r}; the file has {', '.join(program.graphs)}")
    return program.graphs[name]


# --- reading --------------------------------------------------------------------------------------


def read_arrays(graph: Graph, sources: Sequence[str]) -> Arrays:
    """The arrays for inputs, from ``FILE`` (in the order of the inputs) or ``NAME=FILE``."""
    found: Arrays = {}
    by_name = {x.name: x for x in graph.inputs}
    for source in sources:
        name, _, path = source.rpartition("=")
        if name and name not in by_name:
            raise TaskError(f"got the input {name!r}; the inputs are {', '.join(by_name)}")
        if path.endswith(".npz"):
            with np.load(path, allow_pickle=False) as archive:
                found.update({key: archive[key] for key in archive.files})
            continue
        free = [n for n in by_name if n not in found]
        if not name and not free:
            raise TaskError(f"got {path} for an input more; the inputs are {', '.join(by_name)}")
        name = name or free[0]
        found[name] = _read(Path(path), by_name[name])
    for name in found:
        if name not in by_name:
            raise TaskError(f"got an array {name!r}; the inputs are {', '.join(by_name)}")
    missing = [
        f"{x.name} {type_text(x.dtype, x.shape)}" for x in graph.inputs if x.name not in found
    ]
    if missing:
        raise TaskError(
            f"got nothing for {'; '.join(missing)}; give --input FILE for each (or NAME=FILE): "
            f".npy, .npz, .csv or a picture"
        )
    return {name: found[name].astype(by_name[name].dtype.numpy, copy=False) for name in by_name}


def _read(path: Path, told: Input) -> np.ndarray[Any, Any]:
    kind = path.suffix.lower()
    if kind == ".npy":
        return np.asarray(np.load(path, allow_pickle=False))
    if kind == ".csv":
        return _shaped(np.loadtxt(path, delimiter=",", ndmin=2), told, path)
    if kind in _PICTURES:
        return _picture(path, told)
    raise TaskError(f"got {path}; expected .npy, .npz, .csv or a picture ({', '.join(_PICTURES)})")


def _shaped(table: np.ndarray[Any, Any], told: Input, path: Path) -> np.ndarray[Any, Any]:
    """Rows of numbers as the input's shape: a row is an element of its first dimension."""
    inner = told.shape[1:]
    if len(told.shape) == 2 or any(isinstance(s, Size) for s in inner):
        return table
    if len(told.shape) <= 1:
        return table.reshape(-1) if told.shape else table.reshape(())
    sizes = [s for s in inner if isinstance(s, int)]
    if math.prod(sizes) != table.shape[1]:
        raise TaskError(
            f"got {table.shape[1]} numbers a line in {path}; the input {told.name!r} is "
            f"{type_text(told.dtype, told.shape)}"
        )
    return table.reshape(-1, *sizes)


def _picture(path: Path, told: Input) -> np.ndarray[Any, Any]:
    """A picture as the input's shape: (N, C, H, W), (C, H, W) or (H, W), floats from 0 to 1."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError("pillow", "vision", "reading pictures") from None
    rank = len(told.shape)
    if rank not in (2, 3, 4):
        raise TaskError(
            f"got the picture {path} for the input {told.name!r}, which is "
            f"{type_text(told.dtype, told.shape)}; pictures fit (N, C, H, W), (C, H, W) and (H, W)"
        )
    channels = told.shape[-3] if rank > 2 else 1
    pixels: np.ndarray[Any, Any]
    with Image.open(path) as image:
        picture = image.convert("L" if channels == 1 else "RGB")
        height, width = (
            n if isinstance(s, Size) else int(s)
            for s, n in zip(told.shape[-2:], (image.height, image.width), strict=True)
        )
        pixels = np.asarray(picture.resize((width, height)), np.float32)
    if told.dtype.is_floating_point:
        pixels = pixels / 255
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return pixels.reshape([1] * (rank - 3) + list(pixels.shape)) if rank > 2 else pixels[0]


# --- treadle run ----------------------------------------------------------------------------------


def run(path: Path, inputs: list[str], graph_name: str | None, output: Path | None) -> int:
    """Runs a program file on arrays; prints what comes out, or writes it; the exit status."""
    return guarded(_run, path, inputs, graph_name, output)


def _run(path: Path, inputs: list[str], graph_name: str | None, output: Path | None) -> None:
    program = load(path)
    graph = _graph(program, graph_name, trains=False)
    arrays = read_arrays(graph, inputs)
    results = dict(_named(_call(program, graph, arrays)))
    console = Console(highlight=False)
    if output is not None:
        _write(output, results)
        for name, array in results.items():
            console.print(f"{name or 'output'} {array.dtype} {array.shape}", markup=False)
        console.print(f"written to {output}", markup=False, soft_wrap=True)
        return
    for name, array in results.items():
        if len(results) > 1 or name:
            console.print(f"{name}:", markup=False)
        with np.printoptions(precision=6, suppress=True, threshold=200):
            console.print(np.array2string(array), markup=False, soft_wrap=True)


def _call(program: ExportedProgram, graph: Graph, arrays: Arrays) -> Any:

    values: dict[int, Any] = dict(enumerate(map(treadle.as_tensor, arrays.values())))
    return program.run(
        graph.name, *filled(graph.arguments, values), **filled(graph.keywords, values)
    )


def _named(result: Any, name: str = "") -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """The tensors of a result, by their place in it."""
    if isinstance(result, Handle):
        yield name, np.asarray(result)
    elif isinstance(result, dict):
        for key, value in result.items():
            yield from _named(value, f"{name}.{key}".lstrip("."))
    elif isinstance(result, (tuple, list)):
        for number, value in enumerate(result):
            yield from _named(value, f"{name}.{number}".lstrip("."))


def _write(path: Path, results: Mapping[str, np.ndarray[Any, Any]]) -> None:
    kind = path.suffix.lower()
    first = next(iter(results.values()))
    if kind == ".npz":
        np.savez(path, **{name or "output": array for name, array in results.items()})  # type: ignore[arg-type]
    elif kind == ".npy" and len(results) == 1:
        np.save(path, first)
    elif kind == ".csv" and len(results) == 1:
        np.savetxt(path, first.reshape(len(first) if first.ndim else 1, -1), "%.9g", ",")
    else:
        raise TaskError(
            f"got {path} for {len(results)} outputs; .npz takes any number, .npy and .csv take one"
        )


# --- treadle train --------------------------------------------------------------------------------


def train(
    path: Path, data: list[str], graph_name: str | None, output: Path | None, epochs: int,
    batch: int | None, rate: float | None, seed: int,
) -> int:  # fmt: skip
    """Goes on training a saved step; the exit status."""
    return guarded(_train, path, data, graph_name, output, epochs, batch, rate, seed)


def _train(
    path: Path, data: list[str], graph_name: str | None, output: Path | None, epochs: int,
    batch: int | None, rate: float | None, seed: int,
) -> None:  # fmt: skip
    program = load(path)
    graph = _graph(program, graph_name, trains=True)
    arrays = read_arrays(graph, data)
    lengths = {len(a) if a.ndim else 0 for a in arrays.values()}
    if len(lengths) != 1 or lengths == {0}:
        told = ", ".join(f"{name} {a.shape}" for name, a in arrays.items())
        raise TaskError(f"got arrays of different lengths ({told}); a row is an example")
    size = _batch_size(graph, batch)
    (length,) = lengths
    if length < size:
        raise TaskError(f"got {length} examples for batches of {size}")
    if rate is not None:
        for optimizer in program.optimizers:
            optimizer.settings["lr"] = rate
    treadle.manual_seed(seed)
    steps = length // size
    with Progress(epochs=epochs, steps=steps, unit="examples") as progress:
        for epoch in range(epochs):
            order = np.random.default_rng((seed, epoch)).permutation(length)
            for step in range(steps):
                rows = order[step * size : (step + 1) * size]
                result = _call(program, graph, {k: a[rows] for k, a in arrays.items()})
                progress.step(size, loss=_loss(graph, result))
            progress.end_epoch()
    place = output or path
    save(program, place)
    taken = ", ".join(map(repr, program.optimizers))
    Console(highlight=False).print(f"{taken}; saved to {place}", markup=False, soft_wrap=True)


def _batch_size(graph: Graph, wanted: int | None) -> int:
    sizes = {str(x.shape[0]) for x in graph.inputs if x.shape}
    if len(sizes) == 1:
        size = next(x.shape[0] for x in graph.inputs if x.shape)
        if isinstance(size, int):
            if wanted not in (None, size):
                raise TaskError(
                    f"got --batch-size {wanted}; the step was exported for {size} (leave the size "
                    f"open with dynamic_shapes)"
                )
            return size
        least, most = graph.sizes[str(size)]
        if wanted is not None and not least <= wanted <= most:
            raise TaskError(f"got --batch-size {wanted}; the step takes {least} to {most}")
        return wanted or min(64, most)
    raise TaskError(
        f"the inputs of {graph.name!r} have the first sizes {', '.join(sorted(sizes))}; expected "
        f"one that all share, the size of a batch"
    )


def _loss(graph: Graph, result: Any) -> float:
    """The one number that a step returned: what is called loss, or the first."""
    numbers = {name: a for name, a in _named(result) if a.size == 1}
    if not numbers:
        raise TaskError(f"the step {graph.name!r} returns no number; export one that returns loss")
    name = next((n for n in numbers if "loss" in n), next(iter(numbers)))
    return float(numbers[name].reshape(()))


# --- treadle inspect ------------------------------------------------------------------------------


def inspect(
    path: Path, shows_text: bool, sizes: list[str], svg: Path | None, html: Path | None
) -> int:
    """Prints what a program file holds, or draws it; the exit status."""
    return guarded(_inspect, path, shows_text, sizes, svg, html)


def _inspect(
    path: Path, shows_text: bool, sizes: list[str], svg: Path | None, html: Path | None
) -> None:
    program = load(path)
    console = Console(highlight=False)
    given = given_sizes(sizes, program)
    if svg is not None:
        svg.write_text(drawing.svg(program, given), "utf-8")
        console.print(f"drawn to {svg}", markup=False, soft_wrap=True)
    if html is not None:
        html.write_text(drawing.html(program, path.name, given), "utf-8")
        console.print(f"drawn to {html}", markup=False, soft_wrap=True)
    if svg is not None or html is not None:
        return
    if shows_text:
        console.print(str(program), markup=False, soft_wrap=True)
        return
    count = sum(w.numel() for w in program.weights.values())
    nbytes = sum(w.nbytes for w in program.weights.values())
    console.print(
        f"{os.fspath(path)}: {path.stat().st_size / 2**20:.2f} MB; {len(program.weights)} weights "
        f"of {count:,} numbers, {nbytes / 2**20:.2f} MB", markup=False, soft_wrap=True,
    )  # fmt: skip
    for optimizer in program.optimizers:
        console.print(f"optimizer {optimizer!r}", markup=False, soft_wrap=True)
    for graph in program.graphs.values():
        _describe(console, program, graph, given)


def given_sizes(sizes: Sequence[str], program: ExportedProgram) -> dict[str, int]:
    """Sizes from texts such as ``N=16``."""
    found = {}
    known = program.range_constraints
    for told in sizes:
        name, _, value = told.partition("=")
        if not value.isdigit():
            raise TaskError(f"got --size {told}; expected NAME=NUMBER")
        if name not in known:
            raise TaskError(
                f"got --size {told}; the open sizes of the file are: {', '.join(known) or 'none'}"
            )
        found[name] = int(value)
    return found


def _describe(
    console: Console, program: ExportedProgram, graph: Graph, given: Mapping[str, int]
) -> None:
    sizes = {name: given.get(name, least) for name, (least, _) in graph.sizes.items()}
    console.print(f"\n{graph.name}: {len(graph.operations)} operations", style="bold")
    for x in graph.inputs:
        console.print(f"  takes   {x.name} {type_text(x.dtype, x.shape)}", markup=False)
    outputs = dict(_named_types(graph))
    for name, kind in outputs.items():
        console.print(f"  returns {name} {kind}".rstrip(), markup=False)
    if graph.updates:
        console.print(f"  updates {len(graph.updates)} weights", markup=False)
    for kind, times in program.optimizations.get(graph.name, {}).items():
        console.print(f"  optimised at export: {kind}, {times}", markup=False)
    for name, (least, most) in graph.sizes.items():
        console.print(
            f"  {name} is from {least} to {most}; counted here for {sizes[name]}", markup=False
        )
    table = Table(box=box.SIMPLE)
    table.add_column("operation")
    for title in ("times", "flops", "MB read and written"):
        table.add_column(title, justify="right")
    rows = _costs(graph, sizes)
    for name, (times, flops, nbytes) in sorted(rows.items(), key=lambda r: -r[1][1]):
        table.add_row(name, str(times), f"{flops:,}", f"{nbytes / 1e6:,.2f}")
    total = [sum(column) for column in zip(*rows.values(), strict=True)] or [0, 0, 0]
    table.add_section()
    table.add_row("all", str(total[0]), f"{total[1]:,}", f"{total[2] / 1e6:,.2f}")
    console.print(table)


def _named_types(graph: Graph) -> Iterator[tuple[str, str]]:

    def walk(structure: Any, name: str) -> Iterator[tuple[str, str]]:
        if isinstance(structure, Ref):
            yield name, _type_of(graph, structure.value)
        elif isinstance(structure, dict):
            for key, value in structure.items():
                yield from walk(value, f"{name}.{key}".lstrip("."))
        elif isinstance(structure, (tuple, list)):
            for number, value in enumerate(structure):
                yield from walk(value, f"{name}.{number}".lstrip("."))

    return walk(graph.outputs, "")


def _type_of(graph: Graph, value: int) -> str:
    if value >= graph.first:
        types = graph.operations[value - graph.first].types
        return "" if types is None else type_text(*types[0])
    told: Any = (*graph.inputs, *graph.weights, *graph.numbers)[value]
    return type_text(told.dtype, getattr(told, "shape", ()))


def _costs(graph: Graph, sizes: Mapping[str, int]) -> dict[str, tuple[int, int, int]]:
    """Of each kind of operation: how often it is there, its operations, its bytes."""
    found: dict[str, tuple[int, int, int]] = {}
    for operation, (more_flops, more_bytes) in zip(
        graph.operations, costs(graph, sizes), strict=True
    ):
        times, flops, nbytes = found.get(operation.op, (0, 0, 0))
        found[operation.op] = times + 1, flops + more_flops, nbytes + more_bytes
    return found


__all__ = ["TaskError", "given_sizes", "guarded", "inspect", "read_arrays", "run", "train"]
