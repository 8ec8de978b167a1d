"""The disk cache: whatever happens to its files, only time is lost."""

import os
import resource
import signal
import subprocess
import sys
import time
import warnings

import pytest

from treadle.base.flags import flags
from treadle.runtime import kernel_cache

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")


@pytest.fixture(autouse=True)
def cache_dir(tmp_path):
    with flags.context(cache_dir=tmp_path / "cache"):
        yield tmp_path / "cache"


@pytest.fixture
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_round_trip(no_warning):
    assert kernel_cache.load("a") is None
    kernel_cache.store("a", b"code of a")
    kernel_cache.store("b", b"")
    assert kernel_cache.load("a") == b"code of a"
    assert kernel_cache.load("b") == b""
    assert {entry.key for entry in kernel_cache.entries()} == {"a", "b"}
    assert kernel_cache.total_size() == sum(e.nbytes for e in kernel_cache.entries()) > 9
    assert kernel_cache.clear() == 2
    assert kernel_cache.entries() == []
    assert kernel_cache.load("a") is None


def test_names():
    kernel_cache.store("a", b"two\nlines", "gemm_f32")
    kernel_cache.store("b", b"x", "n" * 1000)
    assert kernel_cache.load("a") == b"two\nlines"
    names = {entry.key: entry.name() for entry in kernel_cache.entries()}
    assert names == {"a": "gemm_f32", "b": "n" * 200}


def test_another_version_of_the_format_is_ignored_without_a_word(no_warning):
    kernel_cache.store("a", b"0123456789" * 10)
    (entry,) = kernel_cache.entries()
    blob = entry.path.read_bytes()
    for version in (b"1", b"3"):
        entry.path.write_bytes(blob[:7] + version + blob[8:])
        assert kernel_cache.load("a") is None
        assert entry.name() == ""
    kernel_cache.store("a", b"new")
    assert kernel_cache.load("a") == b"new"


SAME = """
import sys
sys.stdin.readline()
import numpy as np, treadle
x = treadle.from_numpy(np.arange(10000, dtype=np.float32))
print(((x * 3 + 1) @ x).item().hex())
"""


def test_two_processes_compile_the_same_kernels(cache_dir):
    environment = {**os.environ, "TREADLE_CACHE_DIR": str(cache_dir)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SAME], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(3)
    ]  # fmt: skip
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [process.communicate() for process in running]
    assert {error for _, error in results} == {""}
    assert len({result for result, _ in results}) == 1
    assert all(kernel_cache.load(entry.key) for entry in kernel_cache.entries())
    assert not [p for p in kernel_cache.folder().iterdir() if p.suffix == ".tmp"]


def test_folder_is_private(cache_dir):
    kernel_cache.store("a", b"x")
    assert (cache_dir / "kernels").stat().st_mode & 0o077 == 0


def test_folder_others_can_write_is_not_used(cache_dir):
    kernel_cache.store("a", b"x")
    (cache_dir / "kernels").chmod(0o777)
    with pytest.warns(RuntimeWarning, match=r"not used: other users could put code.*chmod 700"):
        assert kernel_cache.load("a") is None
    kernel_cache.store("b", b"x")
    assert [entry.key for entry in kernel_cache.entries()] == ["a"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "header", "longer"])
def test_damaged_file_is_ignored_and_replaced(damage):
    kernel_cache.store("a", b"0123456789" * 10)
    path = kernel_cache.entries()[0].path
    blob = path.read_bytes()
    path.write_bytes(
        {
            "flip": blob[:60] + bytes([blob[60] ^ 1]) + blob[61:],
            "truncate": blob[:-5],
            "empty": b"",
            "header": blob[:20],
            "longer": blob + b"x",
        }[damage]
    )
    with pytest.warns(RuntimeWarning, match="a damaged file in the kernel cache is ignored"):
        assert kernel_cache.load("a") is None
    with warnings.catch_warnings():  # told once only
        warnings.simplefilter("error")
        assert kernel_cache.load("a") is None
        kernel_cache.store("a", b"new")
        assert kernel_cache.load("a") == b"new"


def test_file_in_place_of_the_folder(cache_dir):
    cache_dir.write_text("not a folder")
    assert kernel_cache.load("a") is None
    with pytest.warns(RuntimeWarning, match=r"cannot write the kernel cache .*TREADLE_CACHE_DIR"):
        kernel_cache.store("a", b"x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernel_cache.store("b", b"x")
    assert kernel_cache.entries() == []
    assert kernel_cache.clear() == 0


def test_full_disk(cache_dir):
    kernel_cache.store("a", b"kept")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.warns(RuntimeWarning, match="cannot write the kernel cache"):
            kernel_cache.store("big", bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert kernel_cache.load("big") is None
    assert kernel_cache.load("a") == b"kept"
    assert len(list((cache_dir / "kernels").iterdir())) == 1  # no left-over of the failed write


def test_least_recently_used_go_first(monkeypatch):
    monkeypatch.setattr(kernel_cache, "_STORES_PER_SWEEP", 1)
    now = time.time()
    with flags.context(cache_limit_mb=1):
        for i in range(3):
            kernel_cache.store(f"k{i}", bytes(300_000))
            path = kernel_cache.folder() / f"k{i}.kernel"
            os.utime(path, (now - 100 + i, now - 100 + i))
        kernel_cache.load("k0")  # now the one used last
        kernel_cache.store("k3", bytes(300_000))
        assert {entry.key for entry in kernel_cache.entries()} == {"k0", "k3"}
        assert kernel_cache.total_size() <= 1 << 20


def test_limit_zero_turns_it_off():
    kernel_cache.store("a", b"x")
    with flags.context(cache_limit_mb=0):
        kernel_cache.store("b", b"x")
        assert kernel_cache.load("a") is None
    assert kernel_cache.load("b") is None


WRITER = """
import itertools, sys
from treadle.base.flags import flags
from treadle.runtime import kernel_cache
flags.CACHE_DIR = sys.argv[1]
print("ready", flush=True)
for i in itertools.count():
    kernel_cache.store(f"k{i % 5}", bytes([i % 256]) * 3_000_000)
"""


def test_writer_killed_in_the_middle(cache_dir, monkeypatch, no_warning):
    for delay in (0.02, 0.05):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(cache_dir)], stdout=subprocess.PIPE
        )
        writer.stdout.readline()
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    for entry in kernel_cache.entries():  # each is whole: no warning, one byte throughout
        assert len(set(kernel_cache.load(entry.key))) == 1
    left = kernel_cache.folder() / ".k.1.2.tmp"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    monkeypatch.setattr(kernel_cache, "_STORES_PER_SWEEP", 1)
    kernel_cache.store("new", b"x")
    assert not left.exists()
