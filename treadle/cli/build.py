"""``treadle build``: a program file becomes a library that needs neither Python nor Treadle."""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from treadle.cli.program import TaskError, given_sizes, guarded
from treadle.export import load
from treadle.export.native import Built, build

_COMPILERS = ("cc", "gcc", "clang")  # of this machine's own kind


def run(
    path: Path, target: str, name: str | None, graphs: Sequence[str], sizes: Sequence[str],
    output: Path | None, weights: str, threads: int,
) -> int:  # fmt: skip
    """Builds, writes the files and prints what they are; the exit status."""
    return guarded(_run, path, target, name, graphs, sizes, output, weights, threads)


def _run(
    path: Path, target: str, name: str | None, graphs: Sequence[str], sizes: Sequence[str],
    output: Path | None, weights: str, threads: int,
) -> None:  # fmt: skip
    if weights not in ("inside", "beside"):
        raise TaskError(f"got --weights {weights}; expected inside or beside")
    start = time.monotonic()
    console = Console(highlight=False)
    with console.status("reading the program") as status:

        def says(text: str) -> None:
            status.update(text)

        program = load(path)
        built = build(
            program, target, name=_name(path) if name is None else name,
            entries=graphs or None, sizes=given_sizes(sizes, program), threads=threads,
            weights_inside=weights == "inside", says=says,
        )  # fmt: skip
        says("writing")
        files = write(built, output or Path())
    _show(console, built, files)
    console.print(f"built for {target} in {time.monotonic() - start:.1f} s", markup=False)


def _name(path: Path) -> str:
    """The file's name as C allows it."""
    made = "".join(c if c.isascii() and c.isalnum() else "_" for c in path.stem)
    return f"_{made}" if made[:1].isdigit() else made


def write(built: Built, folder: Path) -> dict[Path, str]:
    """Writes the library's files into a folder: what each of them is."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / built.name
    parts: list[tuple[str, bytes | None, str]] = [
        (".o", built.object_code, "object file, to be linked to your program"),
        (".h", built.header.encode(), "C header"),
        (".wasm", built.module, "WebAssembly module, which runs as it is"),
        (".weights", built.weights, "weights, for the init function"),
    ]
    files = {}
    for suffix, data, told in parts:
        if data is not None:
            file = place.with_name(place.name + suffix)
            file.write_bytes(data)
            files[file] = told
    library = _shared(built, folder)
    if library is not None:
        files[library] = "shared library of the same"
    return files


def _shared(built: Built, folder: Path) -> Path | None:
    """The shared library, where a C compiler for the target is at hand."""
    if built.module is not None:
        return None
    cpu = built.machine.triple.split("-")[0]
    names = _COMPILERS if platform.machine() == cpu else (f"{cpu}-linux-gnu-gcc",)
    compiler = next((found for name in names if (found := shutil.which(name))), None)
    if compiler is None:
        return None
    library = folder / f"lib{built.name}.so"
    command = [compiler, "-shared", "-o", str(library), str(folder / f"{built.name}.o"), "-pthread"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TaskError(f"{compiler} makes no shared library of the object file: {done.stderr}")
    return library


def _show(console: Console, built: Built, files: dict[Path, str]) -> None:
    table = Table(box=box.SIMPLE)
    table.add_column("file", overflow="fold")
    table.add_column("size", justify="right")
    table.add_column("what it is")
    for file, told in files.items():
        table.add_row(str(file), f"{file.stat().st_size / 1024:,.1f} kB", told)
    console.print(table)
    for s in built.signatures:
        given = ", ".join(a.name for a in s.inputs)
        made = ", ".join(a.name for a in s.outputs)
        console.print(f"{built.name}_{s.name}: {given} -> {made}", markup=False, soft_wrap=True)
    console.print(
        f"{built.kernels} kernels; a state of {built.state / 1024:,.1f} kB, "
        f"an arena of {built.arena / 1024:,.1f} kB", markup=False,
    )  # fmt: skip


__all__ = ["run", "write"]
