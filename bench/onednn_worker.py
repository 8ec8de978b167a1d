"""oneDNN's side of the kernel benchmark: its ``dnnl_sgemm``, called as its C interface says."""

from __future__ import annotations

import ctypes
import json
import os
import random
import sys
import sysconfig
from array import array
from pathlib import Path
from typing import Any

from timing import seconds_per_call


def _library() -> ctypes.CDLL:
    roots = [Path(sys.prefix) / "lib", *(Path(sysconfig.get_path(p)) for p in ("purelib", "data"))]
    for root in roots:
        for path in sorted(root.rglob("libdnnl.so*")):
            return ctypes.CDLL(str(path))
    raise SystemExit(f"there is no libdnnl.so under {', '.join(map(str, roots))}")


_operands: dict[str, Any] = {}


def _random_floats(count: int) -> array[float]:
    piece = array("f", [random.uniform(-1, 1) for _ in range(min(count, 4096))])
    return (piece * (count // len(piece) + 1))[:count]


def kernel(case: dict[str, Any]) -> dict[str, float]:
    """Seconds of one call."""
    m, n, k = case["m"], case["n"], case["k"]
    key = f"{m} {n} {k}"
    if key not in _operands:
        _operands.clear()
        sizes = (m * k, k * n, m * n)
        _operands[key] = [_random_floats(size) for size in sizes]
    a, b, c = ((ctypes.c_float * 1).from_buffer(x) for x in _operands[key])
    ta, tb = (form == "t" for form in case["form"])
    i64, one, zero = ctypes.c_int64, ctypes.c_float(1), ctypes.c_float(0)
    arguments = (
        ctypes.c_char(b"T" if ta else b"N"), ctypes.c_char(b"T" if tb else b"N"),
        i64(m), i64(n), i64(k), one, a, i64(m if ta else k), b, i64(k if tb else n), zero, c,
        i64(n),
    )  # fmt: skip

    def multiply() -> None:
        if _dnnl.dnnl_sgemm(*arguments):
            raise SystemExit("dnnl_sgemm refused its arguments")

    return {"seconds": seconds_per_call(multiply)}


def version() -> str:
    """``3.2.0``."""
    _dnnl.dnnl_version.restype = ctypes.POINTER(ctypes.c_int * 3)
    return ".".join(map(str, _dnnl.dnnl_version().contents))


os.environ["OMP_NUM_THREADS"] = sys.argv[1]
_dnnl = _library()
for line in sys.stdin:
    request = json.loads(line)
    task = {"kernel": kernel, "version": version}[request.pop("task")]
    print(json.dumps(task(**request)), flush=True)
