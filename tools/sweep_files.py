"""Loads many thousands of damaged files: each must load or be refused, soon and in little memory.

``python -m tools.sweep_files [--count N] [--first K]``: changes checkpoints (PyTorch's zip and
legacy layouts, safetensors with a structure) at random and loads them, in child processes that get
little more memory than they have and two seconds of the processor a file. File number n depends on
n alone. Ends with exit code 1 where a file was met with anything but a value or a refusal.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import resource
import signal
import struct
import subprocess
import sys
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import treadle
from treadle.base.errors import DeviceError
from treadle.io import CheckpointError, SafetensorsError
from treadle.io.pickle_machine import FLOOR

ROOT = Path(__file__).resolve().parents[1]
FILES = ROOT / "tests" / "io" / "files"
_SECONDS = 2
_SLACK = 64 << 20  # what the allocator may map besides
_CHUNK = 5_000  # files of one child
_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1)
_OPCODES = b"(.NJKMGTUXBC])}aestubqrhjcRQ\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x8f\x90\x93\x94\x95"
_REFUSALS = (CheckpointError, SafetensorsError, DeviceError)
Change = Callable[[random.Random, bytearray], None]


def originals() -> list[bytes]:
    """Whole files: PyTorch's, and one of ours."""
    found = [path.read_bytes() for path in sorted(FILES.glob("*.pt"))]
    ours = io.BytesIO()
    x = treadle.arange(6).reshape(2, 3)
    treadle.save(
        {"a": [x, x.t(), 1.5, None, "text", b"bytes", {1, 2}], "b": {"c": (x * 2, x)}}, ours
    )
    return [*found, ours.getvalue()]


def damaged(number: int, files: list[bytes]) -> bytes:
    """File ``number``: one of the files, changed at a few places."""
    rng = random.Random(number)
    data = bytearray(rng.choice(files))
    is_zip = data.startswith(b"PK")
    if is_zip and rng.random() < 0.6:  # the pickle inside, with a sound zip file around it
        return _with_pickle(data, lambda part: _changed(rng, part))
    return bytes(_changed(rng, data))


def _changed(rng: random.Random, data: bytearray) -> bytearray:
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8, 40))):
        if data:
            rng.choice(_CHANGES)(rng, data)
    return data


def _with_pickle(data: bytes, change: Callable[[bytearray], bytearray]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(made, "w") as target:
        for name in source.namelist():
            part = source.read(name)
            if name.endswith("/data.pkl"):
                part = bytes(change(bytearray(part)))
            target.writestr(zipfile.ZipInfo(name), part)
    return made.getvalue()


def _flip(rng: random.Random, data: bytearray) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _byte(rng: random.Random, data: bytearray) -> None:
    data[rng.randrange(len(data))] = rng.randrange(256)


def _opcode(rng: random.Random, data: bytearray) -> None:
    data[rng.randrange(len(data))] = rng.choice(_OPCODES)


def _number(rng: random.Random, data: bytearray) -> None:
    width = rng.choice((1, 2, 4, 8))
    at = rng.randrange(len(data))
    data[at : at + width] = struct.pack("<Q", rng.choice(_NUMBERS))[:width]


def _delete(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 2, 5, 50))]


def _repeat(rng: random.Random, data: bytearray) -> None:
    at, to = rng.randrange(len(data)), rng.randrange(len(data))
    data[to:to] = data[at : at + rng.choice((1, 4, 20, 200))] * rng.choice((1, 1, 1, 100))


def _swap(rng: random.Random, data: bytearray) -> None:
    at, to, size = rng.randrange(len(data)), rng.randrange(len(data)), rng.choice((1, 4, 30))
    data[at : at + size] = data[to : to + size]


def _cut(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


_CHANGES: tuple[Change, ...] = (
    _flip, _flip, _byte, _opcode, _opcode, _number, _number, _delete, _repeat, _swap, _cut,
)  # fmt: skip


def outcome(data: bytes) -> str:
    """``"loaded"``, the kind of refusal, or what went wrong."""
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    try:
        value = treadle.load(io.BytesIO(data), map_location="cpu")
        repr(value)
        return "loaded"
    except _REFUSALS as error:
        return type(error).__name__
    except BaseException as error:  # whatever else comes is a defect
        return f"DEFECT {type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def run(first: int, count: int) -> Counter[str]:
    """The outcomes of ``count`` files, with the memory that they may take bounded."""
    warnings.simplefilter("ignore")
    files = originals()
    for data in files:  # what is imported when first needed
        with contextlib.suppress(*_REFUSALS):
            repr(treadle.load(io.BytesIO(data)))
    signal.signal(signal.SIGPROF, _too_long)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + FLOOR + _SLACK
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    found: Counter[str] = Counter()
    try:
        for number in range(first, first + count):
            said = outcome(damaged(number, files))
            found[said.split(":")[0]] += 1
            if said.startswith("DEFECT"):
                print(f"file {number}: {said}", file=sys.stderr, flush=True)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    return found


def _too_long(signal_number: int, frame: Any) -> None:
    raise TimeoutError(f"not done after {_SECONDS} s")


def _in_child(first: int, count: int) -> Counter[str]:
    """``run`` in a process of its own; a crash is an outcome too."""
    arguments = ["--first", str(first), "--count", str(count), "--here"]
    done = subprocess.run(
        [sys.executable, "-m", "tools.sweep_files", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    lines = [line.rsplit(" ", 1) for line in done.stdout.splitlines()]
    found = Counter({what: int(number) for what, number in lines})
    if done.returncode or found.total() != count:
        found[f"DEFECT crash with exit code {done.returncode} from file {first} on"] += 1
    return found


def main() -> int:
    """Loads the files and prints the outcomes."""
    parser = argparse.ArgumentParser(prog="python -m tools.sweep_files", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="how many files (100,000)")
    parser.add_argument("--first", type=int, default=0, help="the number of the first (0)")
    parser.add_argument("--here", action="store_true", help="in this process")
    options = parser.parse_args()
    if options.here:
        for what, number in run(options.first, options.count).items():
            print(what, number)
        return 0
    found: Counter[str] = Counter()
    end = options.first + options.count
    for first in range(options.first, end, _CHUNK):
        found += _in_child(first, min(_CHUNK, end - first))
        print(f"{first + _CHUNK - options.first:,} files: {dict(found)}", flush=True)
    return int(any(what.startswith("DEFECT") for what in found))


if __name__ == "__main__":
    sys.exit(main())
