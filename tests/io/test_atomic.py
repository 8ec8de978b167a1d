"""What killed writers leave behind, and what must not be taken for it."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import treadle
from treadle import io
from treadle.io.atomic import replacing

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")

KILLED = """
import os, signal, sys
from treadle.io.atomic import replacing
with replacing(sys.argv[1]) as temporary:
    open(temporary, "wb").write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def _killed_while_writing(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("name", ["x.safetensors", "[a]*" + "long" * 40])
def test_a_killed_save_is_cleaned_up_by_the_next(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    io.save_file({"a": treadle.ones(2)}, path)
    _killed_while_writing(path)
    _killed_while_writing(path)
    others = [tmp_path / ".y.0123456789abcdef.tmp", tmp_path / f".{name[:64]}.backup.tmp"]
    for other in others:
        other.write_bytes(b"somebody else's")
    assert len(list(tmp_path.iterdir())) == 4  # the second one removed the first one's
    assert io.load_file(path)["a"].tolist() == [1.0, 1.0]
    io.save_file({"a": treadle.zeros(2)}, path)
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])
    assert io.load_file(path)["a"].tolist() == [0.0, 0.0]


def test_a_save_under_way_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with replacing(path) as slow:
        Path(slow).write_bytes(b"slow")
        with replacing(path) as quick:
            Path(quick).write_bytes(b"quick")
        assert path.read_bytes() == b"quick"
    assert path.read_bytes() == b"slow"
    assert list(tmp_path.iterdir()) == [path]


def test_many_threads_save_the_same_file(tmp_path: Path) -> None:
    path, failures = tmp_path / "x", []

    def save(mark: int) -> None:
        try:
            for _ in range(50):
                with replacing(path) as temporary:
                    Path(temporary).write_bytes(bytes([mark]) * 1000)
                if len(set(path.read_bytes())) != 1:
                    failures.append("mixed")
        except OSError as error:
            failures.append(str(error))

    threads = [threading.Thread(target=save, args=(mark,)) for mark in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert os.listdir(tmp_path) == ["x"]
