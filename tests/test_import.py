"""What ``import treadle`` brings along, and that rooms loaded later are visible all the same."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import treadle

FILE = Path(treadle.__file__)
LAZY_PACKAGES = (
    "llvmlite", "ml_dtypes", "safetensors", "rich", "typer", "matplotlib", "tensorboard", "PIL",
    "torch", "asyncio", "unittest", "multiprocessing",
)  # fmt: skip
LAZY_ROOMS = (
    "autograd", "cuda", "data", "io", "nn", "optim", "train", "utils", "vision", "testing",
)  # fmt: skip


def _run(code: str) -> str:
    """What a fresh interpreter prints; -W error shows that importing warns of nothing."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=FILE.parents[1], check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """The modules in a process that has only imported treadle."""
    return set(_run("import sys, treadle; print(*sys.modules)").split())


@pytest.mark.parametrize("package", LAZY_PACKAGES)
def test_packages_are_imported_when_needed(loaded, package):
    assert package not in loaded


@pytest.mark.parametrize("room", [*LAZY_ROOMS, "cli", "codegen", "compiler.lower"])
def test_rooms_are_imported_when_named(loaded, room):
    assert f"treadle.{room}" not in loaded


def test_utils_need_no_import_of_their_own():
    out = _run(
        "import treadle; print(treadle.utils.data.DataLoader is treadle.data.DataLoader);"
        "print('tensorboard' in dir(treadle.utils), hasattr(treadle.utils, 'dta'))"
    )
    assert out == "True\nTrue False\n"


def test_making_and_printing_a_tensor_needs_no_compiler():
    out = _run(
        "import sys, treadle; print(treadle.tensor([1.5, 2.0])); print('llvmlite' in sys.modules)"
    )
    assert out == "tensor([1.5000, 2.0000])\nFalse\n"


def test_importing_starts_no_thread_and_writes_nothing():
    out = _run(
        "import threading, tempfile, os\n"
        "from treadle.base.flags import flags\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    flags.CACHE_DIR = folder\n"
        "    import treadle\n"
        "    print(threading.active_count(), os.listdir(folder))\n"
    )
    assert out == "1 []\n"


def test_a_room_is_there_when_named():
    names = ", ".join(f"treadle.{room}.__name__" for room in LAZY_ROOMS)
    out = _run(f"import treadle; print({names})")
    assert out.split() == [f"treadle.{room}" for room in LAZY_ROOMS]


@pytest.mark.parametrize("room", LAZY_ROOMS)
def test_lazy_rooms_are_visible(room):
    assert room in dir(treadle)
    assert room in _type_checker_names(), f"name {room} in the TYPE_CHECKING block"


@pytest.mark.parametrize("name", ["load", "save"])
def test_names_of_lazy_rooms(name):
    assert getattr(treadle, name) is getattr(treadle.io, name)
    assert name in dir(treadle)
    assert name in _type_checker_names()


def _type_checker_names() -> set[str]:
    """What the block under ``if TYPE_CHECKING`` imports."""
    names: set[str] = set()
    for node in ast.parse(FILE.read_text()).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for statement in node.body:
                names |= {alias.asname or alias.name for alias in statement.names}
    return names


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'treadle' has no attribute 'tensr'"):
        treadle.tensr  # noqa: B018


def test_the_package_says_that_it_is_typed():
    assert (FILE.parent / "py.typed").exists()
