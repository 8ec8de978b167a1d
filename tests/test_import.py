"""What ``import treadle`` brings along, and that rooms loaded later are visible all the same."""

from __future__ import annotations

import ast
import importlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import treadle
from tools import public_names
from treadle.random import sampling
from treadle.tensor.names import FUNCTIONS, METHODS

FILE = Path(treadle.__file__)
LAZY_PACKAGES = (
    "numpy", "llvmlite", "ml_dtypes", "safetensors", "rich", "typer", "matplotlib", "tensorboard",
    "PIL", "torch", "asyncio", "unittest", "multiprocessing",
    # of the standard library, what takes a millisecond and more
    "argparse", "dataclasses", "decimal", "difflib", "fractions", "hashlib", "inspect", "pathlib",
    "pickle", "platform", "subprocess", "tempfile",
)  # fmt: skip
LAZY_ROOMS = (
    "autograd", "backends", "cuda", "data", "io", "nn", "optim", "profiler", "random", "signal",
    "special",
    "testing", "train", "utils", "vision",
)  # fmt: skip
# by ``tensor/later.py``
FAMILIES = tuple(f"tensor.{module.rpartition('.')[2]}" for module in {*FUNCTIONS, *METHODS})
# by an import in the function that builds or plans a kernel
COMPILING = ("codegen", "compiler.lower", "ir.loop", "ops.mathlib")
LATER = "LaterMethods"
_OF_CLASSES = {
    *vars(type("Empty", (), {})), "__slots__", "__firstlineno__", "__static_attributes__",
}  # fmt: skip
HOW = '`import treadle` loads {}; docs/architecture.md, "What is loaded when", says how not to'


def _run(code: str) -> str:
    """What a fresh interpreter prints; -W error shows that importing warns of nothing."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=FILE.parents[1], check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """The modules that importing treadle brings along."""
    code = "import sys; known = {*sys.modules}; import treadle; print(*{*sys.modules} - known)"
    return set(_run(code).split())


@pytest.mark.parametrize("package", LAZY_PACKAGES)
def test_packages_are_imported_when_needed(loaded, package):
    assert package not in loaded, HOW.format(package)


@pytest.mark.parametrize("room", [*LAZY_ROOMS, "cli", *sorted(FAMILIES), *COMPILING])
def test_rooms_are_imported_when_named(loaded, room):
    assert f"treadle.{room}" not in loaded, HOW.format(f"treadle.{room}")


def test_all_public_names_resolve():
    out = _run("import treadle; print([n for n in dir(treadle) if not hasattr(treadle, n)])")
    assert out == "[]\n"


def test_importing_makes_no_named_tuples():
    out = _run(
        "import treadle\n"
        "kinds = [c for c in tuple.__subclasses__() if c.__module__.startswith('treadle')]\n"
        "print(sorted(c.__name__ for c in kinds))\n"
    )
    assert out == "['Record', 'Size']\n", "derive it from treadle.base.record.Record"


# --- functions and methods that are loaded later -------------------------------------------------


def test_the_table_of_names_is_up_to_date():
    assert public_names.FILE.read_text() == public_names.text(), "run python -m tools.public_names"


def test_every_function_and_method_is_where_the_table_says():
    for module, names in FUNCTIONS.items():
        loaded = importlib.import_module(module)
        assert all(getattr(treadle, name) is getattr(loaded, name) for name in names.split())
        assert {*names.split()} <= {*dir(treadle)} & _type_checker_names()
    for module, names in METHODS.items():
        methods = vars(importlib.import_module(module).Methods)
        assert all(getattr(treadle.Tensor, name) is methods[name] for name in names.split())


def test_random_methods_are_those_of_their_module():
    assert treadle._RANDOM_METHODS.split() == sorted({*vars(sampling.Methods)} - _OF_CLASSES)


def test_type_checkers_see_every_method():
    tree = ast.parse((FILE.parent / "tensor" / "tensor.py").read_text())
    (shown,) = (x for x in ast.walk(tree) if isinstance(x, ast.ClassDef) and x.name == LATER)
    assert {ast.unparse(base) for base in shown.bases} == {
        f"{module.rpartition('.')[2]}.Methods" for module in METHODS
    }


def test_functions_in_place_are_the_methods():
    x = treadle.tensor([-1.0, 4.0])
    assert treadle.relu_(x) is x
    assert treadle.sqrt_(x).tolist() == [0.0, 2.0]


def test_methods_are_loaded_by_the_first_look_up():
    out = _run(
        "import sys, treadle\n"
        "x = treadle.tensor([3, 1])\n"
        "print('sort' in dir(x), 'treadle.tensor.sorting' in sys.modules)\n"
        "print(treadle.Tensor.argsort(x).tolist(), x.sort().values.tolist(), x[0].item())\n"
        "class Mine(treadle.Tensor):\n"
        "    def __repr__(self): return 'mine: ' + super().__repr__()\n"
        "print(Mine([1.0]))\n"
    )
    assert out == "True False\n[1, 0] [1, 3] 3\nmine: tensor([1.])\n"


# --- NumPy ----------------------------------------------------------------------------------------


def test_the_lazy_numpy_is_numpy():
    out = _run(
        "import sys; from treadle.base.lazy_numpy import np; print('numpy' in sys.modules)\n"
        "print(np.add is sys.modules.get('numpy').add, np.testing.__name__)\n"
    )
    assert out == "False\nTrue numpy.testing\n"


def test_numpy_is_loaded_once_by_many_threads():
    out = _run(
        "import threading, treadle\n"
        "barrier, sums = threading.Barrier(8), []\n"
        "def work():\n"
        "    barrier.wait()\n"
        "    sums.append(treadle.tensor([1, 2]).numpy().sum().item())\n"
        "threads = [threading.Thread(target=work) for _ in range(8)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "print(sums)\n"
    )
    assert out == f"{[3] * 8}\n"


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="sends a signal to a thread")
def test_ctrl_c_while_numpy_loads_does_no_harm():
    out = _run(
        "import signal, sys, threading\n"
        "from treadle.base.lazy_numpy import np\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'numpy.lib':\n"
        "            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "try:\n"
        "    np.ones(2)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', np.ones(2).sum())\n"
    )
    assert out == "interrupted 2.0\n"


def test_a_numpy_that_cannot_be_loaded_says_so():
    out = _run(
        "import sys; sys.modules['numpy._globals'] = None\n"
        "import treadle\n"
        "try:\n"
        "    treadle.tensor([1.0])\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    assert "numpy._globals" in out


# --- rooms ----------------------------------------------------------------------------------------


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
                if statement.names[0].name == "*":
                    names |= {*FUNCTIONS[statement.module].split()}
                else:
                    names |= {alias.asname or alias.name for alias in statement.names}
    return names


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'treadle' has no attribute 'tensr'"):
        treadle.tensr  # noqa: B018


def test_the_package_says_that_it_is_typed():
    assert (FILE.parent / "py.typed").exists()
