"""Hostile checkpoints: each refused with its reason, nothing run, in little time and memory."""

import importlib.util
import io
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import treadle
from treadle.io import CheckpointError
from treadle.io.pickle_machine import FLOOR, TIMES_THE_FILE

FOLDER = Path(__file__).parent


def _hostile_files() -> Any:
    spec = importlib.util.spec_from_file_location("hostile_files", FOLDER / "hostile_files.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


files = _hostile_files()
CORPUS = files.corpus()
seen: list[str] = []
watching = False


def _watch(event: str, args: Any) -> None:
    if watching:
        seen.append(event)


def load(data: bytes) -> Any:
    return treadle.load(io.BytesIO(data))


def test_there_are_enough() -> None:
    assert len(CORPUS) >= 100
    for made in files.good_files().values():
        loaded = load(made)
        assert loaded["w"].tolist() == [[0, 0], [0, 0]]
        assert loaded["n"].tolist() == [0, 0]


@pytest.mark.parametrize("name", CORPUS)
def test_it_is_refused_with_the_reason(name: str) -> None:
    data, reason = CORPUS[name]
    begin = time.thread_time()
    with pytest.raises(CheckpointError) as caught:
        load(data)
    said = str(caught.value)
    assert reason in said
    assert said.startswith("the file was refused: ")
    assert "Nothing in it was run." in said
    assert len(said) < 1000
    assert time.thread_time() - begin < 10


def test_nothing_is_run_opened_or_imported() -> None:
    """Python's own audit of what happens: none of it, for any of these files."""
    global watching
    sys.addaudithook(_watch)
    for name in CORPUS:
        data = CORPUS[name][0]
        if len(data) > files.MB:
            continue
        stream = io.BytesIO(data)
        watching = True
        try:
            treadle.load(stream)
        except CheckpointError:
            pass
        finally:
            watching = False
    assert set(seen) <= {"builtins.id", "sys._getframe", "object.__getattr__"}
    assert seen  # the hook works


@pytest.mark.parametrize("name", [n for n, (data, _) in CORPUS.items() if len(data) > 100_000])
def test_large_ones_take_little_memory(name: str) -> None:
    data = CORPUS[name][0]
    stream = io.BytesIO(data)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError):
            treadle.load(stream)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= FLOOR + (TIMES_THE_FILE + 2) * len(data)
