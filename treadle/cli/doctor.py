"""``treadle doctor``: what this machine and this installation have, and one kernel run."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version

import numpy as np
from rich.console import Console

import treadle
from treadle.base.flags import flags
from treadle.runtime import jit, kernel_cache, pool

_SHOWN_FEATURES = (
    "sse4.2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512bf16", "amx-tile",
    "neon", "fp-armv8", "fullfp16", "bf16", "sve",
)  # fmt: skip


def run() -> int:
    """Prints the findings; returns 0, or 1 where the kernel failed."""
    console = Console(highlight=False)
    sections = (
        ("Versions", versions()),
        ("Machine", machine()),
        ("Kernel cache", cache()),
        ("Extras", extras()),
        ("Flags", changed_flags()),
    )
    for title, lines in sections:
        _show(console, title, list(lines))
    works, line = kernel()
    _show(console, "One kernel", [line])
    return 0 if works else 1


def versions() -> Iterator[str]:
    """Treadle, Python, and the packages that Treadle always needs."""
    yield f"treadle {version('treadle')}"
    yield f"{platform.python_implementation()} {platform.python_version()}"
    for package, extra in _requirements():
        if not extra:
            yield f"{package} {_installed(package) or 'MISSING: reinstall treadle'}"


def machine() -> Iterator[str]:
    """System, CPU with what kernels may use of it, threads."""
    target = jit.host_target()
    present = {name[1:] for name in target.features.split(",") if name.startswith("+")}
    yield f"{platform.system()} {platform.release()}, {platform.machine()}"
    yield f"CPU {target.cpu}, vectors of {target.vector_bits} bits"
    yield f"CPU features: {' '.join(name for name in _SHOWN_FEATURES if name in present)}"
    yield f"threads for kernels: {pool.get_num_threads()}"


def cache() -> Iterator[str]:
    """Where compiled kernels are kept, how many, and how large they are."""
    entries = kernel_cache.entries()
    size = sum(entry.nbytes for entry in entries) / 2**20
    yield str(kernel_cache.folder())
    yield f"{len(entries)} kernels, {size:.1f} MB of at most {flags.CACHE_LIMIT_MB} MB"


def extras() -> Iterator[str]:
    """Each extra with its packages, and how to install it where one is missing."""
    packages: dict[str, list[str]] = {}
    for package, extra in _requirements():
        if extra:
            packages.setdefault(extra, []).append(package)
    for extra, names in packages.items():
        found = {name: _installed(name) for name in names}
        missing = [name for name in names if found[name] is None]
        if missing:
            yield f"{extra}: missing {', '.join(missing)}; pip install 'treadle[{extra}]'"
        else:
            yield f"{extra}: {', '.join(f'{name} {found[name]}' for name in names)}"


def changed_flags() -> Iterator[str]:
    """The flags that differ from their defaults, with their variables."""
    changed = [row for row in flags.table() if row["value"] != row["default"]]
    for row in changed:
        yield f"{row['variable']}={row['value']} ({row['help']})"
    if not changed:
        yield "all at their defaults"


def kernel() -> tuple[bool, str]:
    """Compiles one kernel, past the cache on disk, and runs it: whether it is right, and a line."""
    numbers = np.arange(1 << 20, dtype=np.float32)
    x = treadle.tensor(numbers)
    before = jit.statistics()
    with flags.context(cache_limit_mb=0):
        result = (x * 2).numpy()
    compiling = jit.statistics().milliseconds - before.milliseconds
    if not np.array_equal(result, numbers * 2):
        wrong = int(np.count_nonzero(result != numbers * 2))
        return False, f"FAILED: x * 2 over {len(numbers):,} float32 is wrong in {wrong:,} places"
    running = min(_milliseconds(lambda: (x * 2).numpy()) for _ in range(5))
    return True, (
        f"x * 2 over {len(numbers):,} float32 is right: compiled in {compiling:.0f} ms, "
        f"run in {running:.2f} ms"
    )


def _milliseconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1e3


def _requirements() -> Iterator[tuple[str, str]]:
    """(package, extra) of everything Treadle's metadata names; the extra is '' for the core."""
    for requirement in requires("treadle") or ():
        package = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if package != "treadle":  # an extra that brings other extras
            yield package, extra.group(1) if extra else ""


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _show(console: Console, title: str, lines: list[str]) -> None:
    console.print(title, style="bold")
    for line in lines:
        console.print(f"  {line}", markup=False, soft_wrap=True)
