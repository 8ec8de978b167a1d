"""``treadle build``, as a person types it, and docs/native-build.md, as a person follows it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import treadle
from tests.export.built import CC, needs_cc
from treadle import nn
from treadle.cli.main import app
from treadle.export import export, load, save

DOCUMENT = Path(__file__).parents[2] / "docs" / "native-build.md"


def typed(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    return done.exit_code, done.output


def block(kind: str) -> str:
    return re.search(rf"```{kind}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[1]


@needs_cc
def test_the_example_of_the_document(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block("python"), "example", "exec"), {})
    status, told = typed("build", "flower.treadle", "--size", "N=2")
    assert status == 0, told
    for name in ("flower.o", "flower.h", "libflower.so"):
        assert re.search(rf"{re.escape(name)} +[\d,.]+ kB", told)
    assert "flower_forward: input -> output" in told
    Path("main.c").write_text(block("c"))
    for library in ("flower.o", "./libflower.so"):
        subprocess.run([CC, "-Wall", "-Werror", "main.c", library, "-o", "main", "-pthread"],
                       check=True)  # fmt: skip
        done = subprocess.run(["./main"], capture_output=True, text=True, check=True)
        x = np.array([[0.25, -1.5, 0.75, 2], [1, 0.5, -0.25, 0]], np.float32)
        expected = np.asarray(load("flower.treadle")(treadle.from_numpy(x)))
        got = np.array(done.stdout.split(), np.float32).reshape(2, 3)
        assert got.tobytes() == expected.tobytes()


def test_files_of_a_module_for_the_web(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(export(nn.Linear(3, 2), (treadle.ones(1, 3),)), "2 small.treadle")
    arguments = ("--target", "wasm32", "--weights", "beside", "-o", "out", "--graph", "forward")
    status, told = typed("build", "2 small.treadle", *arguments)
    assert status == 0, told
    made = sorted(p.name for p in Path("out").iterdir())
    assert made == ["_2_small.h", "_2_small.o", "_2_small.wasm", "_2_small.weights"]
    assert Path("out/_2_small.wasm").read_bytes()[:4] == b"\0asm"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--target", "sparc"), "got the target 'sparc'; expected one of host, x86-64, "),
        (("--graph", "train"), "got the entry 'train'; the program has forward"),
        (("--size", "N"), "got --size N; expected NAME=NUMBER"),
        (("--weights", "away"), "got --weights away; expected inside or beside"),
    ],
)
def test_mistakes_are_told(arguments, words, tmp_path):
    path = tmp_path / "p.treadle"
    save(export(nn.Linear(3, 2), (treadle.ones(1, 3),)), path)
    status, told = typed("build", path, *arguments)
    assert status == 1
    assert words in told
