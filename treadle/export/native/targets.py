"""What programs are built for: processors, by the names that users give."""

from __future__ import annotations

import platform
import sys
from functools import lru_cache
from typing import Any

from treadle.base.errors import TreadleError
from treadle.base.record import Record
from treadle.runtime.object_code import LOCK, Target, binding, native


class BuildError(TreadleError, ValueError):
    """What cannot be built: the operation and its line, or the target, and what can."""


class Machine(Record):
    """A kind of machine; ``levels`` are those of its processors that code is made for, best last.

    ``needs`` says what a processor must have for each: 0 nothing, or the number of an x86-64 level.
    """

    name: str
    levels: tuple[Target, ...]
    needs: tuple[int, ...]

    @property
    def triple(self) -> str:
        """LLVM's name for the kind of machine."""
        return self.levels[0].triple

    @property
    def is_wasm(self) -> bool:
        """WebAssembly has no libc: memory is handed in, and calls run on one thread."""
        return self.triple.startswith("wasm")

    @property
    def has_fma(self) -> bool:
        """Whether all levels have the instruction; where one lacks it, it is computed."""
        return all(
            "+fma" in t.features or t.cpu in ("x86-64-v3", "x86-64-v4") or "aarch64" in t.triple
            for t in self.levels
        )

    @property
    def has_threads(self) -> bool:
        """Whether the build may start threads of its own."""
        return "linux" in self.triple


_X86 = "x86_64-unknown-linux-gnu"
_LEVELS = {
    2: Target("x86-64-v2", "", 128, _X86),
    3: Target("x86-64-v3", "", 256, _X86),
    4: Target("x86-64-v4", "", 512, _X86),
}
TARGETS = ("host", "x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64", "wasm32")


def machine(name: str) -> Machine:
    """The machine of that name.

    Raises BuildError where there is none, or this installation makes no code for it.
    """
    if name not in TARGETS:
        raise BuildError(f"got the target {name!r}; expected one of {', '.join(TARGETS)}")
    if name == "host":
        return _host()
    if name == "aarch64":
        made = Machine(name, (Target("generic", "+neon", 128, "aarch64-unknown-linux-gnu"),), (0,))
    elif name == "wasm32":
        features = "+simd128,+bulk-memory,+sign-ext,+nontrapping-fptoint"
        made = Machine(name, (Target("generic", features, 128, "wasm32-unknown-unknown"),), (0,))
    else:
        levels = (3, 4) if name == "x86-64" else (int(name[-1]),)
        made = Machine(name, tuple(_LEVELS[n] for n in levels), levels)
    backends()
    try:
        binding().Target.from_triple(made.triple)
    except RuntimeError as error:
        raise BuildError(
            f"got the target {name!r}; this machine's LLVM makes no code for {made.triple} "
            f"({error}); build on another machine, or install llvmlite's own wheel"
        ) from None
    return made


def _host() -> Machine:
    """The processor of this machine; other ones may lack what its code needs."""
    if platform.machine() not in ("x86_64", "aarch64") or sys.platform != "linux":
        raise BuildError(
            f"got the target 'host', which is {platform.machine()} on {sys.platform}; builds are "
            f"made for Linux on x86-64 and AArch64, and for wasm32"
        )
    target = native()
    level = 0
    if platform.machine() == "x86_64":
        level = {128: 2, 256: 3, 512: 4}[target.vector_bits]
    return Machine("host", (target,), (level,))


@lru_cache(maxsize=None)
def backends() -> Any:
    """llvmlite, ready to make code for other machines."""
    llvm = binding()
    with LOCK:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        llvm.initialize_native_asmparser()
    return llvm


__all__ = ["TARGETS", "BuildError", "Machine", "backends", "machine"]
