"""From LLVM text to the address of native code, through the kernel cache.

A kernel is ``define i32 @NAME(ptr %args, i64 %begin, i64 %end, i64 %thread)``: ``%args`` points to
64-bit words (pointers and sizes), ``%begin..%end`` is this call's share of the parallel range, and
the result is 0 or an error code. Code that was loaded stays for the life of the process.

Several kernels may be compiled at a time, each in a *slot*: the long phases, which work on a
context of their own, run side by side, and all else of llvmlite under one lock, phase by phase. The
locks are held across fork, so that a child never inherits LLVM half way through something; so
objects of LLVM are closed under them too, not left to the garbage collector.
"""

from __future__ import annotations

import hashlib
import itertools
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any

from treadle.base.errors import CompileError
from treadle.base.flags import flags
from treadle.base.forking import COMPILATION, hold_across_fork
from treadle.base.record import Record
from treadle.runtime import kernel_cache
from treadle.runtime.object_code import LOCK, Target, binding, native, object_code

GENERATOR_VERSION = 6  # raise it when the same loop IR comes to mean other native code
NUMERICS_VERSION = 1  # raise it when an op's exact result changes

SLOTS = 4  # kernels compiled at the same time; more gain little beside Python's own share

_slots = [threading.RLock() for _ in range(SLOTS)]
_mine = threading.local()  # .slot: the slot of a thread that helps to compile
_building: dict[str, threading.RLock] = {}
_addresses: dict[str, int] = {}
_origins: dict[int, tuple[str, str]] = {}  # by address: the key and the name
_libraries = itertools.count()  # numbers what is linked: the linker wants names it has not seen


class Statistics(Record):
    """What this process compiled and loaded from the disk cache, and the time for both."""

    compiled: int
    loaded: int
    milliseconds: float


_statistics = Statistics(0, 0, 0.0)


class Note(Record):
    """A spec's text, and the stamp of the code that builds kernels (``runtime.short_key``)."""

    text: str
    stamp: str


def host_target() -> Target:
    """The CPU of this machine; the flag VECTOR_BITS overrides the width of its vectors."""
    target = native()
    return target._replace(vector_bits=flags.VECTOR_BITS) if flags.VECTOR_BITS else target


def compile_kernel(
    name: str, ir_text: str, make_llvm: Callable[[], str], note: Note | None = None
) -> int:
    """The address of the native function ``name``.

    ``ir_text`` is all that the code depends on beside the target and the versions; where neither
    this process nor the disk cache has code for it, ``make_llvm()`` gives the LLVM module. With a
    ``note`` other processes find the code by ``load_kernel``, without the text.
    Raises CompileError where LLVM refuses the module.
    """
    key = _key(name, ir_text)
    address = _once(key, partial(_build, name, key, ir_text, make_llvm))
    if note is not None:
        found = f"{note.stamp}\n{key}\n{name}".encode()
        kernel_cache.store(_key("note", note.text), found, name, kernel_cache.NOTE)
    return address


def load_kernel(note: Note) -> int | None:
    """The address of the kernel that has this note, where the disk cache has its code."""
    if _wants_text():
        return None
    found = kernel_cache.load(_key("note", note.text), kernel_cache.NOTE)
    if found is None:
        return None
    stamp, key, name = found.decode().split("\n")
    return named_kernel(key, name) if stamp == note.stamp else None


def origin(address: int) -> tuple[str, str] | None:
    """The key and the name of the kernel at an address, by which ``named_kernel`` finds it."""
    return _origins.get(address)


def named_kernel(key: str, name: str) -> int | None:
    """The address of a kernel by its key, where this process or the disk cache has its code."""
    with suppress(_MissingError):
        return _once(key, partial(_from_disk, name, key))
    return None


def identity() -> str:
    """What all kernels depend on: versions and the machine."""
    return _identity(host_target()).decode()


def _once(key: str, make: Callable[[], int]) -> int:
    """``make()``, or what another call for the same key made."""
    address = _addresses.get(key)
    if address is None:
        # The slot first: whoever forks holds all slots, and so nobody else a kernel's lock.
        with (
            _slots[getattr(_mine, "slot", 0)],
            _building.setdefault(key, threading.RLock()),
        ):
            address = _addresses.get(key)  # who waited finds it done
            if address is None:
                address = _addresses[key] = make()
        _building.pop(key, None)
    return address


def side_by_side(jobs: Iterable[Callable[[], object]], threads: int) -> None:
    """Runs jobs that compile kernels, in this thread and in up to ``threads`` - 1 others.

    Errors are dropped: whoever needs that kernel asks for it again, and is told then.
    """
    todo = deque(jobs)

    def work(slot: int) -> None:
        _mine.slot = slot
        while todo:
            with suppress(Exception):  # also IndexError: another thread took the last job
                todo.popleft()()

    helpers = [
        threading.Thread(target=work, args=(slot,), name=f"treadle-compile-{slot}", daemon=True)
        for slot in range(1, min(threads, SLOTS, len(todo)))
    ]
    try:
        for helper in helpers:
            helper.start()
        work(getattr(_mine, "slot", 0))
    finally:
        todo.clear()  # after Ctrl-C the others finish what they have begun
        for helper in helpers:
            if helper.ident is not None:
                helper.join()


def statistics() -> Statistics:
    """Counts and time since the process started."""
    return _statistics


class _MissingError(Exception):
    """The disk cache does not have the code."""


def _wants_text() -> bool:
    """True where the user wants to see how a kernel is made, and so that it is made."""
    return not flags.DEBUG.isdisjoint(("source", "asm"))


def _build(name: str, key: str, ir_text: str, make_llvm: Callable[[], str]) -> int:
    if "source" in flags.DEBUG:
        _show(f"source of {name}", ir_text)
    if not _wants_text():
        with suppress(_MissingError):
            return _from_disk(name, key)
    start = time.perf_counter()
    code = _compile(name, make_llvm())
    address = _load(name, code)
    _origins[address] = key, name
    kernel_cache.store(key, code, name)
    _count(name, False, start)
    return address


def _from_disk(name: str, key: str) -> int:
    start = time.perf_counter()
    code = kernel_cache.load(key)
    if code is None:
        raise _MissingError
    address = _load(name, code)
    _origins[address] = key, name
    _count(name, True, start)
    return address


def _compile(name: str, text: str) -> bytes:
    """Object code of a module in LLVM's language."""
    if "source" in flags.DEBUG:
        _show(f"LLVM of {name}", text)
    show = partial(_show, f"assembly of {name}") if "asm" in flags.DEBUG else None
    try:
        return object_code(text, native(), show)
    except RuntimeError as error:
        raise CompileError(
            f"the kernel {name} does not compile: {str(error).strip()}; this is a defect of "
            "Treadle's code generator: please report it with what TREADLE_DEBUG=source prints"
        ) from error


def _load(name: str, code: bytes) -> int:
    llvm = binding()
    library = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
    library.export_symbol(name)
    try:
        with LOCK:
            tracker = library.link(_linker(), f"{name}.{next(_libraries)}")
            address: int = tracker[name]
            tracker.detach()  # nothing may free code that a table of addresses points to
    except RuntimeError as error:
        raise CompileError(
            f"the kernel {name} was compiled but cannot be loaded: {str(error).strip()}; clear "
            f"the kernel cache {kernel_cache.folder()} and, if it happens again, report it"
        ) from error
    return address


@lru_cache(maxsize=None)
def _linker() -> Any:
    # JITLink lays code and constants of a kernel side by side, within reach of relative addresses.
    return binding().create_lljit_compiler(use_jit_link=True)


@lru_cache(maxsize=None)
def _identity(target: Target) -> bytes:
    llvm_version = ".".join(map(str, binding().llvm_version_info))
    parts = (GENERATOR_VERSION, NUMERICS_VERSION, llvm_version, *target)
    return "\n".join(map(str, parts)).encode()


def _key(name: str, ir_text: str) -> str:
    digest = hashlib.sha256(_identity(host_target()))
    digest.update(f"\n{name}\n{ir_text}".encode())
    return digest.hexdigest()


def _count(name: str, loaded: bool, start: float) -> None:
    global _statistics
    milliseconds = (time.perf_counter() - start) * 1e3
    if "time" in flags.DEBUG:
        _show(f"{name}: {'loaded' if loaded else 'compiled'} in {milliseconds:.2f} ms")
    with LOCK:
        old = _statistics
        _statistics = Statistics(
            old.compiled + (not loaded), old.loaded + loaded, old.milliseconds + milliseconds
        )


def _show(title: str, text: str = "") -> None:
    print(f"[treadle] {title}", *([text] if text else []), sep="\n", file=sys.stderr)


def _acquire() -> None:
    for lock in (*_slots, LOCK):
        lock.acquire()


def _release() -> None:
    for lock in (LOCK, *_slots):
        lock.release()


hold_across_fork(COMPILATION, _acquire, _release)
