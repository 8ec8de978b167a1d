"""PyTorch as its experts run it: MKL's fast paths on any CPU, and memory in huge pages."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

_STUB = "int mkl_serv_intel_cpu_true(void) { return 1; }\n"
_MALLOC = {
    "hugetlb": 1,  # transparent huge pages
    "mmap_max": 0,  # memory that was freed is used again, and not given back
    "trim_threshold": 1 << 36,
    "top_pad": 1 << 26,
}


def tuned_variables(folder: Path) -> dict[str, str] | None:
    """The environment of such a process, its stub built into ``folder``; None where there is no C
    compiler to build it."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    source, library = folder / "intel.c", folder / "intel.so"
    source.write_text(_STUB)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    preloaded = os.environ.get("LD_PRELOAD", "")
    return {
        "BENCH_TUNED": "1",
        "LD_PRELOAD": f"{library} {preloaded}".strip(),
        "GLIBC_TUNABLES": ":".join(f"glibc.malloc.{k}={v}" for k, v in _MALLOC.items()),
    }
