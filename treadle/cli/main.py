"""The ``treadle`` command: what it offers. Each task is imported when it is called."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from treadle.base.errors import MissingExtraError

app = typer.Typer(
    name="treadle",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Treadle, a deep learning framework that generates its own kernels.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"treadle {version('treadle')}")
        raise typer.Exit


@app.callback()
def _root(
    wants_version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and leave.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    seed: Annotated[int, typer.Option(min=0, help="What all random numbers follow from.")] = 0,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the digits: 10 unless named.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for what is written: runs/demo-seedN unless named.")
    ] = None,
    validate: Annotated[
        bool,
        typer.Option(
            "--validate",
            help="Hold 1,000 of the 8,000 out and test on these: for choosing settings.",
        ),
    ] = False,
) -> None:
    """Train a convolutional network on 8,000 real handwritten digits and test it on 2,000 more.

    Writes the weights, the learning curves, the digits it got wrong and TensorBoard event files.
    """
    from treadle.cli import demo as task

    out = out or Path(f"runs/demo-seed{seed}")
    raise typer.Exit(task.run(seed, epochs, out, validate))


@app.command()
def doctor() -> None:
    """Say what this machine and this installation have, and run one generated kernel."""
    from treadle.cli import doctor as task

    raise typer.Exit(task.run())


_FILE = Annotated[Path, typer.Argument(help="A program file (treadle.export.save writes them).")]
_GRAPH = Annotated[str | None, typer.Option("--graph", help="Which of the file's graphs.")]


@app.command()
def run(
    file: _FILE,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", "-i",
            help="FILE or NAME=FILE for an input: .npy, .npz, .csv (a line is a row) or a picture.",
        ),
    ] = None,
    graph: _GRAPH = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to: .npy, .npz or .csv.")
    ] = None,
) -> None:  # fmt: skip
    """Run a program file on arrays or pictures, without the code that made it."""
    from treadle.cli import program as task

    raise typer.Exit(task.run(file, inputs or [], graph, output))


@app.command()
def train(
    file: _FILE,
    data: Annotated[
        list[str],
        typer.Option(
            "--data", "-d", help="FILE or NAME=FILE with the examples of an input, a row each."
        ),
    ],
    graph: _GRAPH = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to save: FILE itself unless named.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the examples.")] = 1,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Examples a step; 64 where the file leaves it open.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate: the saved one.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="What all random numbers follow from.")] = 0,
) -> None:
    """Go on training a saved training step on new data."""
    from treadle.cli import program as task

    raise typer.Exit(task.train(file, data, graph, output, epochs, batch_size, lr, seed))


@app.command()
def inspect(
    file: _FILE,
    text: Annotated[bool, typer.Option("--text", help="Print the graphs as text.")] = False,
    size: Annotated[
        list[str] | None, typer.Option(help="NAME=NUMBER: count with this open size.")
    ] = None,
    svg: Annotated[
        Path | None, typer.Option(help="Draw the layers of every graph into this file.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Draw them as a page whose layers open by a click.")
    ] = None,
) -> None:
    """Say what a program file holds: inputs, outputs, weights, optimizers, operations, flops."""
    from treadle.cli import program as task

    raise typer.Exit(task.inspect(file, text, size or [], svg, html))


@app.command()
def build(
    file: _FILE,
    target: Annotated[
        str,
        typer.Option(
            help="host (this machine's processor), x86-64 (levels 3 and 4, chosen when it runs), "
            "x86-64-v2, x86-64-v3, x86-64-v4, aarch64 or wasm32."
        ),
    ] = "host",
    name: Annotated[
        str | None, typer.Option(help="What functions and files are called: as FILE.")
    ] = None,
    graph: Annotated[
        list[str] | None, typer.Option("--graph", help="Only this graph (may be given again).")
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(help="NAME=NUMBER for each size that the file leaves open."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder that is written to: this one.")
    ] = None,
    weights: Annotated[
        str, typer.Option(help="inside the object file, or beside it in a file.")
    ] = "inside",
    threads: Annotated[
        int, typer.Option(help="The most pieces that the work of a kernel is cut into.")
    ] = 8,
) -> None:
    """Build a program file into an object file and a C header that need no Python.

    Where a C compiler is at hand a shared library is made too; for wasm32 a module that runs.
    """
    from treadle.cli import build as task

    raise typer.Exit(
        task.run(file, target, name, graph or [], size or [], output, weights, threads)
    )


cache = typer.Typer(
    name="cache",
    no_args_is_help=True,
    help="The compiled kernels on disk: list them, compile ahead, clear them.",
)
app.add_typer(cache)


@cache.command("list")
def cache_list() -> None:
    """Show which kernels are there, how large they are, and when they were last used."""
    from treadle.cli import cache as task

    raise typer.Exit(task.show())


@cache.command("warm")
def cache_warm(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            help="demo (its training and test), ops (every operation in every dtype, some "
            "minutes), or a function that takes no arguments, say one training step, as "
            "FILE.py:FUNCTION or MODULE:FUNCTION."
        ),
    ] = None,
) -> None:
    """Compile kernels now, so that later runs find them: demo unless something is named."""
    from treadle.cli import cache as task

    raise typer.Exit(task.warm(what or ["demo"]))


@cache.command("clear")
def cache_clear() -> None:
    """Remove all compiled kernels; they are compiled again when they are needed."""
    from treadle.cli import cache as task

    raise typer.Exit(task.clear())


def main() -> None:
    """Runs the command line of this process."""
    try:
        app()
    except MissingExtraError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(1)
