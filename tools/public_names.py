"""Writes ``treadle/tensor/names.py``: which module each function and method of a tensor is in.

    python -m tools.public_names

after a function or method was added, renamed or moved. Public are the names in the ``__all__`` of
the modules that ``treadle/__init__.py`` shows to type checkers by ``import *``, and those that a
module's class ``Methods`` binds. The modules are read, not imported: they cannot be without the
file.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "treadle" / "tensor"
FILE = FOLDER / "names.py"
_HEAD = '''"""In which module each function and method of tensors is, for ``later.py`` to load it.

Written by ``python -m tools.public_names``; ``tests/test_import.py`` compares.
"""

from __future__ import annotations
'''
_WIDTH = 100


def _bound(body: list[ast.stmt]) -> Iterator[str]:
    """The names that a class's statements bind."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef):
            yield statement.name
        elif isinstance(statement, ast.Assign):
            for target in statement.targets:
                yield from (x.id for x in ast.walk(target) if isinstance(x, ast.Name))


def _starred() -> set[str]:
    """The modules whose names are the package's."""
    every = ast.walk(ast.parse((FOLDER.parent / "__init__.py").read_text()))
    return {
        str(x.module).rpartition(".")[2] for x in every
        if isinstance(x, ast.ImportFrom) and x.names[0].name == "*"
    }  # fmt: skip


def _public(path: Path, starred: set[str]) -> tuple[set[str], set[str]]:
    """The functions and the methods of a module."""
    functions: set[str] = set()
    methods: set[str] = set()
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            functions |= set(ast.literal_eval(statement.value)) if path.stem in starred else set()
        elif isinstance(statement, ast.ClassDef) and statement.name == "Methods":
            methods |= {*_bound(statement.body)} - {"__slots__"}
    return functions, methods


def _entry(module: str, names: set[str]) -> str:
    """One module's part of a table."""
    key, words = f'    "treadle.tensor.{module}": ', " ".join(sorted(names))
    if len(key) + len(words) + 3 <= _WIDTH:
        return f'{key}"{words}",\n'
    lines = textwrap.wrap(words, _WIDTH - 11, break_long_words=False)
    parts = [f'        "{line} "\n' for line in lines[:-1]]
    return "".join([f"{key}(\n", *parts, f'        "{lines[-1]}"\n    ),\n'])


def text() -> str:
    """What the file should say."""
    starred = _starred()
    found = {path.stem: _public(path, starred) for path in sorted(FOLDER.glob("[a-z]*.py"))}
    text = _HEAD
    for kind, table in enumerate(("FUNCTIONS", "METHODS")):
        entries = [_entry(module, names[kind]) for module, names in found.items() if names[kind]]
        text += f"\n{table} = {{\n{''.join(entries)}}}\n"
    return text


if __name__ == "__main__":
    FILE.write_text(text())
