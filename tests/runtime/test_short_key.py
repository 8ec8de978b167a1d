"""The short way to a kernel on disk: quick where nothing changed, never stale."""

import math
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

import treadle
from treadle.base import dtypes
from treadle.base.flags import flags
from treadle.compiler.lower import map_kernel
from treadle.compiler.recipe import Recipe, Statement
from treadle.ir.launch import KernelSpec
from treadle.ir.nest import Nest, coalesce
from treadle.ir.op import Elementwise
from treadle.ops import registry
from treadle.runtime import jit, kernel_cache, short_key
from treadle.runtime.short_key import spec_text


def text(*key):
    return spec_text(KernelSpec(coalesce, key))


def test_different_keys_have_different_texts():
    keys = [
        (), (1,), (True,), (1.0,), ("1",), (None,), ("None",), ((1,),), (1, ()), ((1, ()),),
        (0.0,), (-0.0,), (math.inf,), (math.nan,), ("a", "b"), ("a','b",), (Nest(1, "cc"),),
        (tuple(Nest(1, "cc")),), (dtypes.float32,), ("f32",), (Nest,), (coalesce,),
    ]  # fmt: skip
    assert len({text(*key) for key in keys}) == len(keys)
    assert None not in {text(*key) for key in keys}


def test_text_tells_builder_types_and_functions():
    recipe = Recipe(("f32",), (Statement("convert", (("dtype", dtypes.int8),), (0,), "i8"),))
    assert spec_text(KernelSpec(map_kernel, (recipe, (1,), Nest(1, "cc")))) == (
        "treadle.compiler.lower.map_kernel(treadle.compiler.recipe.Recipe(('f32',),("
        "treadle.compiler.recipe.Statement('convert',(('dtype',i8,),),(0,),'i8',),),),"
        "(1,),treadle.ir.nest.Nest(1,'cc',0,-1,False,),)"
    )


@dataclass(frozen=True)
class Foreign:
    size: int


@pytest.mark.parametrize(
    "thing", [lambda k: k, partial(coalesce, ()), Foreign(1), spec_text.__get__(1), time.time,
              test_different_keys_have_different_texts, treadle.add, object()],
)  # fmt: skip
def test_what_cannot_be_named_for_good_has_no_text(thing):
    assert text(thing) is None
    assert text((1, (thing,))) is None
    assert spec_text(KernelSpec(thing, ())) is None


def test_ops_that_somebody_else_registers_have_no_text(monkeypatch):
    mine = lambda k, x: k.op("neg", x)  # noqa: E731
    wrapped = lambda k, x: mine(k, x)  # noqa: E731
    wrapped.__module__ = registry.__name__  # as if a function of Treadle had made it
    for emit in (mine, wrapped, partial(registry.get, mine), partial(wrapped)):
        monkeypatch.setitem(registry.OPS, "mine", SimpleNamespace(lower=Elementwise(emit)))
        assert text("mine") is None
        short_key._is_ours.cache_clear()
    assert all(text(name) for name in registry.OPS if name != "mine")


STEP = """
import sys, treadle
x, y = treadle.tensor([5.0, 7.0]), treadle.tensor([1.0, 2.0])
if len(sys.argv) > 1:  # edits the source while it runs
    exec(sys.argv[1])
difference = (x - y).tolist()
print(difference, "printed" if "treadle.ir.loop_text" in sys.modules else "short")
"""


@pytest.fixture
def copied(tmp_path):
    """A copy of the sources, and what runs a step on it in a process of its own."""
    shutil.copytree(
        Path(treadle.__file__).parent, tmp_path / "treadle",
        ignore=shutil.ignore_patterns("__pycache__"),
    )  # fmt: skip
    environment = {**os.environ, "TREADLE_CACHE_DIR": str(tmp_path / "cache")}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"

    def step(*edit):
        time.sleep(0.1)  # a file written just now may have been written after it was read
        done = subprocess.run(
            [sys.executable, "-c", STEP, *edit], cwd=tmp_path, env=environment,
            check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        return done.stdout.strip()

    return tmp_path / "treadle" / "compiler" / "recipe.py", step


def test_a_second_process_builds_no_loop_ir(copied):
    _, step = copied
    assert step() == "[4.0, 5.0] printed"
    assert step() == "[4.0, 5.0] short"


SWAP = """
import os
path = {path!r}
source, status = open(path).read(), os.stat(path)
swapped = source.replace("emit(k, *args,", "emit(k, *args[::-1],")
assert swapped != source
swapped = swapped.replace("The result of one", "The result ")  # as long as before
assert len(swapped) == len(source)
open(path, "w").write(swapped)
os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
"""


def test_an_edited_source_is_never_missed(copied):
    """Though its size and time stay the same."""
    path, step = copied
    assert step() == "[4.0, 5.0] printed"
    exec(SWAP.format(path=str(path)))
    assert step() == "[-4.0, -5.0] printed"
    assert step() == "[-4.0, -5.0] short"


def test_a_source_edited_while_the_process_runs(copied):
    """What was built from the old source is not found by the new one."""
    path, step = copied
    edit = "import treadle.compiler.recipe\n" + SWAP.format(path=str(path))
    assert step(edit) == "[4.0, 5.0] printed"
    assert step() == "[-4.0, -5.0] printed"


def test_without_sources_there_is_no_stamp(monkeypatch, tmp_path):
    for root in (tmp_path, tmp_path / "absent"):
        monkeypatch.setattr(short_key, "_ROOT", str(root))
        assert short_key.code_stamp.__wrapped__() is None


ANSWER = "define i32 @noted(ptr %args, i64 %begin, i64 %end, i64 %thread) { ret i32 42 }"


def test_a_note_leads_to_its_kernel(tmp_path, capfd):
    note, other = jit.Note("spec", "stamp"), jit.Note("spec", "another stamp")
    with flags.context(cache_dir=tmp_path):
        assert jit.load_kernel(note) is None
        address = jit.compile_kernel("noted", "noted", lambda: ANSWER, note)
        assert jit.load_kernel(note) == address
        assert jit.load_kernel(other) is None
        assert [entry.name() for entry in kernel_cache.entries()] == ["noted"]
        assert len(kernel_cache.entries(kernel_cache.NOTE)) == 1
        with flags.context(debug="source"):
            assert jit.load_kernel(note) is None
        (kernel,) = kernel_cache.entries()
        kernel.path.unlink()
        jit._addresses.clear()
        assert jit.load_kernel(note) is None
        jit.compile_kernel("noted", "noted", lambda: ANSWER, other)
        assert jit.load_kernel(note) is None
        assert jit.load_kernel(other)
        assert kernel_cache.clear() == 1
        assert list(kernel_cache.folder().iterdir()) == []


def test_notes_are_swept_with_the_kernels(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel_cache, "_STORES_PER_SWEEP", 1)
    with flags.context(cache_dir=tmp_path, cache_limit_mb=1):
        kernel_cache.store("a", bytes(600_000), kind=kernel_cache.NOTE)
        os.utime(kernel_cache.folder() / "a.note", (0, 0))
        kernel_cache.store("b", bytes(600_000))
        assert [p.name for p in kernel_cache.folder().iterdir()] == ["b.kernel"]
