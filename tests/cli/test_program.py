"""``treadle run``, ``train`` and ``inspect``, as a person types them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from treadle.cli.main import app
from treadle.export import load

FILE = Path(__file__).parents[1] / "export" / "files" / "v1.treadle"


@pytest.fixture
def place(tmp_path):
    shutil.copy(FILE, tmp_path / "p.treadle")
    known = np.load(FILE.with_suffix(".npz"))
    np.save(tmp_path / "x.npy", known["x"])
    np.savetxt(tmp_path / "x.csv", known["x"].reshape(3, -1), delimiter=",")
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 256)
    x = rng.standard_normal((256, 1, 8, 8)) * 0.1 + y[:, None, None, None]
    np.savez(tmp_path / "data.npz", x=x.astype(np.float32), y=y)
    return tmp_path


def typed(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    return done.exit_code, done.output


def test_inspect_says_what_is_inside(place):
    status, told = typed("inspect", place / "p.treadle")
    assert status == 0
    assert re.search(r"predict: \d+ operations", told)
    assert "takes   x f32[N,1,8,8]" in told
    assert "returns  f32[N,4]" in told
    assert "optimizer AdamW(lr=0.01" in told
    assert re.search(r"conv_forward +1 +2,304 ", told)  # 2 * 2 * 9 * 64 of one picture
    status, text = typed("inspect", place / "p.treadle", "--text")
    assert 'graph "train"' in text
    assert "draw" not in text
    status, told = typed("inspect", place / "p.treadle", "--size", "N=10")
    assert re.search(r"conv_forward +1 +23,040 ", told)


def test_inspect_draws(place):
    drawn, page = place / "net.svg", place / "net.html"
    status, told = typed("inspect", place / "p.treadle", "--svg", drawn, "--html", page)
    assert status == 0 and f"drawn to {drawn}" in told.replace("\n", "")
    assert drawn.read_text("utf-8").startswith("<svg")
    assert page.read_text("utf-8").startswith("<!doctype html>")


def test_inspect_says_what_export_did(place):
    status, told = typed("inspect", FILE.with_name("v2.treadle"))
    assert status == 0 and "optimised at export: fold_batch_norm, 1" in told


@pytest.mark.parametrize("source", ["x.npy", "x=x.npy", "x.csv"])
def test_run_writes_what_the_program_gives(place, source, monkeypatch):
    monkeypatch.chdir(place)
    status, told = typed("run", "p.treadle", "-i", source, "-o", "out.npy")
    assert status == 0, told
    expected = np.load(FILE.with_suffix(".npz"))["predicted"]
    assert np.load("out.npy").tobytes() == expected.tobytes()
    status, told = typed("run", "p.treadle", "-i", source)
    assert told.count("[") == 4


def test_run_reads_pictures(place):
    image = pytest.importorskip("PIL.Image")
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
    image.fromarray(pixels).save(place / "a.png")
    status, told = typed("run", place / "p.treadle", "-i", place / "a.png", "-o", place / "o.npy")
    assert status == 0, told
    expected = load(place / "p.treadle").run("predict", np.float32(pixels[None, None]) / 255)
    assert np.load(place / "o.npy").tobytes() == expected.numpy().tobytes()


def test_train_goes_on_and_saves(place):
    arguments = ("train", place / "p.treadle", "-d", place / "data.npz", "--epochs", 8)
    status, told = typed(*arguments, "--batch-size", 32, "-o", place / "q.treadle")
    assert status == 0, told
    losses = [float(x) for x in re.findall(r"epoch \d+/8  loss ([\d.]+)", told)]
    assert len(losses) >= 8
    assert losses[-1] < losses[0] / 2
    assert "64 steps; saved to" in told
    assert load(place / "q.treadle").optimizers[0].steps == 64
    again = typed(*arguments, "--batch-size", 32, "-o", place / "r.treadle")[1]
    assert (place / "r.treadle").read_bytes() == (place / "q.treadle").read_bytes(), again


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "none.treadle"), "No such file"),
        (("run", "x.npy"), "it is not a program file"),
        (("run", "p.treadle"), "got nothing for x f32[N,1,8,8]; give --input FILE"),
        (("run", "p.treadle", "-i", "z=x.npy"), "got the input 'z'; the inputs are x"),
        (("run", "p.treadle", "-i", "x.txt"), "expected .npy, .npz, .csv or a picture"),
        (("run", "p.treadle", "--graph", "no"), "got the graph 'no'; the file has train, predict"),
        (("run", "p.treadle", "-i", "x.npy", "-o", "o.txt"), ".npz takes any number"),
        (("train", "p.treadle", "-d", "x.npy"), "got nothing for y i64[N]"),
        (("train", "p.treadle", "-d", "data.npz", "--batch-size", "999"), "got 256 examples for"),
        (("inspect", "p.treadle", "--size", "N"), "got --size N; expected NAME=NUMBER"),
        (("inspect", "p.treadle", "--size", "M=3"), "the open sizes of the file are: N"),
        (("inspect", "p.treadle", "--svg", "no/net.svg"), "No such file or directory"),
    ],
)
def test_mistakes_are_told_in_a_line(place, monkeypatch, arguments, message):
    monkeypatch.chdir(place)
    (place / "x.txt").write_text("1")
    status, told = typed(*arguments)
    assert status == 1
    assert message in told
    assert "Traceback" not in told
