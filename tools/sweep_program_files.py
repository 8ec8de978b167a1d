"""``make sweep-program-files``: reads program files mutated at random, and runs those that load.

Every file must be read or refused with ``ProgramFileError``, within a second of a core; what loads
must run or raise one of Treadle's errors. The work is done in a process of its own, so that a crash
is counted and not suffered.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ALIGNMENT = 64
_TOKENS = (
    b"0", b"-1", b"1", b"2", b"3", b"7", b"99999999999999", b"N", b"2*N", b"f32", b"i64", b"b1",
    b"%0", b"%300", b"(", b")", b"None", b"True", b"1e308", b"nan", b'""', b"0.5",
)  # fmt: skip


def mutate(data: bytes, draw: random.Random) -> bytes:
    """The file with a few bytes, words or lines changed, or cut off."""
    head, _, rest = data.partition(b"\n")
    length, size = int(head.split()[3]), int(head.split()[4])
    kind = draw.randrange(6)
    if kind == 0:
        changed = bytearray(data)
        for _ in range(draw.randrange(1, 4)):
            end = length if draw.random() < 0.9 else len(data)
            changed[draw.randrange(end)] = draw.randrange(256)
        return bytes(changed)
    if kind == 1:
        return data[: draw.randrange(len(data))]
    text = rest[: length - len(head) - 1]
    for _ in range(draw.randrange(1, 3)):
        lines = text.split(b"\n")
        i, j = draw.randrange(len(lines)), draw.randrange(len(lines))
        if kind == 2:
            lines[i], lines[j] = lines[j], lines[i]
        elif kind == 3:
            lines[i] = lines[j]
        else:
            words = list(re.finditer(rb"[\w.%*-]+", lines[i]))
            if words:
                word = draw.choice(words)
                lines[i] = lines[i][: word.start()] + draw.choice(_TOKENS) + lines[i][word.end() :]
        text = b"\n".join(lines)
    made = b"treadle program 1 %010d %016d\n" % (len(head) + 1 + len(text), size) + text
    return made + bytes(-len(made) % ALIGNMENT) + (data[-size:] if size else b"")


def work(path: Path, first: int, count: int) -> None:
    """Goes through mutations ``first`` to ``first + count - 1`` of a file; prints each number."""
    import numpy as np

    import treadle
    from treadle.base.errors import TreadleError
    from treadle.export import ProgramFileError, load

    data = path.read_bytes()
    place = path.with_suffix(f".{first}.mutated")
    inputs = {name: np.load(path.with_suffix(".npz"))[name] for name in ("x", "y")}
    for number in range(first, first + count):
        place.write_bytes(mutate(data, random.Random(number)))
        print(number, flush=True)
        begin = time.process_time()
        try:
            program = load(place)
        except ProgramFileError:
            continue
        finally:
            seconds = time.process_time() - begin
            if seconds > 1:
                print(f"slow {number} {seconds:.1f}", flush=True)
        for graph in program.graphs.values():
            given = [inputs[x.name] for x in graph.inputs if x.name in inputs]
            try:
                result = program.run(graph.name, *given)
                for t in result.values() if isinstance(result, dict) else [result]:
                    if isinstance(t, treadle.Tensor):
                        t.numpy()
            except (TreadleError, ValueError, TypeError, IndexError, MemoryError, OverflowError):
                continue
    place.unlink()


def main() -> int:
    """Runs the sweep; the exit status is 1 where a file crashed, hung or raised what it may not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--work", nargs=3, metavar=("FILE", "FIRST", "COUNT"), help="(inner use)")
    options = parser.parse_args()
    if options.work:
        work(Path(options.work[0]), int(options.work[1]), int(options.work[2]))
        return 0
    source = Path(__file__).parents[1] / "tests/export/files/v2.treadle"
    failures = []
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.treadle"
        path.write_bytes(source.read_bytes())
        path.with_suffix(".npz").write_bytes(source.with_suffix(".npz").read_bytes())
        number, end = options.first, options.first + options.count
        while number < end:
            batch = min(2000, end - number)
            command = [sys.executable, __file__, "--work", str(path), str(number), str(batch)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            lines = done.stdout.split("\n")
            failures += [line for line in lines if line.startswith("slow")]
            last = max((int(x) for x in lines if x.isdigit()), default=number)
            if done.returncode:
                told = done.stderr.strip().split("\n")[-1]
                failures.append(f"mutation {last}: exit {done.returncode}: {told}")
                number = last + 1
            else:
                number += batch
            print(f"{number - options.first} files, {len(failures)} failures, "
                  f"{time.monotonic() - begin:.0f} s", flush=True)  # fmt: skip
    print("\n".join(failures) or "no failure")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
