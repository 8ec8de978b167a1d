"""The house rules, read off the source: who may import whom, sizes, and what must not be there."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from treadle.ir.op import Op, Source
from treadle.ops import bundle, contraction, indexing, project, random, window  # noqa: F401
from treadle.ops.registry import OPS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "treadle"
MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = [*MODULES, *(p for folder in ("tests", "bench", "tools", "examples")
                       for p in sorted((ROOT / folder).rglob("*.py")))]  # fmt: skip

# A room may import those before it. `treadle/__init__.py` and `cli` may import any.
ROOMS = (
    "base", "ir", "ops", "autodiff", "codegen", "compiler", "runtime", "tensor", "autograd",
    "random", "linalg", "fft", "func", "special", "signal", "distributions", "nn", "optim",
    "amp", "data",
    "io", "export", "train", "graph", "interop", "vision", "distributed", "profiler", "testing",
    "cli", "utils",
)  # fmt: skip
MAY_IMPORT_ANY = {"", "cli"}

# Where PyTorch and its like are imported: the corpus is written for PyTorch, and run for both.
_COMPARED = ("bench/", "tests/programs/corpus/", "tools/torch_cases.py")
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60
# What is too long, with its length today. The lists are to shrink: a file or function leaves when
# it is cut into its parts, and may not grow while it is here.
LONG_FILES: dict[str, int] = {}
LONG_FUNCTIONS: dict[str, int] = {}


@lru_cache(maxsize=None)
def _walk(path: Path) -> list[ast.AST]:
    """Every node of the file's syntax tree."""
    return list(ast.walk(ast.parse(path.read_text(), str(path))))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _room(path: Path) -> str:
    """``ir`` for treadle/ir/op.py; empty for the files of the package's own folder."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def _is_module(dotted: str) -> bool:
    path = ROOT.joinpath(*dotted.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import of the file, those inside functions too."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in _walk(path):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) + 1 - node.level]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                yield node.lineno, inner if _is_module(inner) else module


def test_every_room_has_a_place_in_the_order():
    rooms = {_room(path) for path in MODULES} - {""}
    assert rooms <= set(ROOMS), f"not in the order of rooms: {sorted(rooms - set(ROOMS))}"


def test_rooms_import_only_those_above():
    wrong = []
    for path in MODULES:
        room = _room(path)
        if room in MAY_IMPORT_ANY:
            continue
        for line, module in _imports(path):
            if module == "treadle":
                wrong.append(f"{_name(path)}:{line} imports treadle, which is all rooms at once")
            elif module.startswith("treadle."):
                other = module.split(".")[1]
                if other in ROOMS and ROOMS.index(other) > ROOMS.index(room):
                    wrong.append(f"{_name(path)}:{line} ({room}) imports {module}, a lower room")
    assert not wrong, "\n".join(wrong)


def test_imports_are_resolved():
    """The rule above sees what it should: imports in functions, submodules, attributes."""
    found = set(_imports(PACKAGE / "runtime" / "cpu.py"))
    modules = {module for _, module in found}
    assert {"treadle.compiler.device", "treadle.runtime.jit", "treadle.codegen.llvm"} <= modules
    assert "treadle.compiler.device.register_device" not in modules


def test_only_the_flags_read_the_environment():
    wrong = []
    for path in MODULES:
        if path == PACKAGE / "base" / "flags.py":
            continue
        for node in _walk(path):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb"):
                wrong.append(f"{_name(path)}:{node.lineno}")
            if isinstance(node, ast.ImportFrom) and node.module == "os":
                names = {alias.name for alias in node.names}
                if names & {"environ", "getenv", "environb"}:
                    wrong.append(f"{_name(path)}:{node.lineno}")
    assert not wrong, f"read the environment through base/flags.py: {wrong}"


def _check_lengths(lengths: dict[str, int], most: int, known: dict[str, int]) -> None:
    too_long = {name: length for name, length in lengths.items() if length > most}
    new = {name: length for name, length in too_long.items() if length > known.get(name, 0)}
    assert not new, f"more than {most} lines: {new}"
    gone = sorted(set(known) - set(too_long))
    assert not gone, f"short now: take off the list of what is too long: {gone}"


def test_files_are_short():
    lengths = {_name(path): len(path.read_text().splitlines()) for path in SOURCES}
    _check_lengths(lengths, MAX_FILE_LINES, LONG_FILES)


def test_functions_are_short():
    lengths: dict[str, int] = {}
    for path in SOURCES:
        for node in _walk(path):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = node.end_lineno - node.lineno + 1
                name = f"{_name(path)}:{node.name}"
                lengths[name] = max(length, lengths.get(name, 0))
    _check_lengths(lengths, MAX_FUNCTION_LINES, LONG_FUNCTIONS)


def test_no_assert_for_users():
    wrong = [
        f"{_name(path)}:{node.lineno}"
        for path in MODULES
        if _room(path) != "testing"
        for node in _walk(path)
        if isinstance(node, ast.Assert)
    ]
    assert not wrong, f"raise an error that says how to mend it instead of assert: {wrong}"


def test_no_prints_are_left_over():
    """Printing to a named stream (``file=``) is meant; the command line prints for a living."""
    wrong = [
        f"{_name(path)}:{node.lineno}"
        for path in MODULES
        if _room(path) != "cli"
        for node in _walk(path)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("print", "breakpoint")
        and not any(k.arg == "file" for k in node.keywords)
    ]
    assert not wrong, f"prints: {wrong}"


@pytest.mark.parametrize("package", ["torch", "jax", "tensorflow", "onnxruntime"])
def test_other_frameworks_appear_only_where_they_are_compared_with(package):
    wrong = [
        f"{_name(path)}:{line}"
        for path in SOURCES
        if not _name(path).startswith(_COMPARED)
        for line, module in _imports(path)
        if module.split(".")[0] == package
    ]
    assert not wrong, f"{package} is imported where nothing is compared: {wrong}"


def _variables(op_name: str) -> set[str]:
    """The names of module-level variables that hold the op."""
    op = OPS[op_name]
    modules = [m for name, m in sys.modules.items() if name.startswith("treadle.")]
    return {name for module in modules for name, value in vars(module).items() if value is op}


def _names_used(path: Path) -> set[str]:
    used = set()
    for node in _walk(path):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            used.add(node.id)
        elif isinstance(node, ast.Attribute):
            used.add(node.attr)
    return used


def test_every_op_is_used():
    """A primitive that no function and no gradient uses is dead weight."""
    used = set().union(*map(_names_used, MODULES))
    dead = [op_name for op_name in OPS if not _variables(op_name) & used]
    assert not dead, f"ops that nothing uses: {dead}"


def _is_sampled(op: Op) -> bool:
    return isinstance(op.lower, Source) or any(True for _ in op.samples())


def test_every_op_is_tested():
    """By samples that the op table runs, or by name in a test."""
    texts = [path.read_text() for path in (ROOT / "tests").rglob("*.py")]
    untested = [
        op.name for op in OPS.values()
        if not _is_sampled(op) and not any(op.name in text for text in texts)
    ]  # fmt: skip
    assert not untested, f"ops without samples that no test names: {untested}"
