"""From LLVM text to the address of native code, through the kernel cache.

A kernel is ``define i32 @NAME(ptr %args, i64 %begin, i64 %end, i64 %thread)``: ``%args`` points to
64-bit words (pointers and sizes), ``%begin..%end`` is this call's share of the parallel range, and
the result is 0 or an error code. Code that was loaded stays for the life of the process.

LLVM is used under one lock, phase by phase, so that a short load does not wait for a whole long
compilation. The lock is held across fork, so that a child never inherits LLVM half way through
something; so objects of LLVM are closed under it too, not left to the garbage collector.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from treadle.base.errors import CompileError
from treadle.base.flags import flags
from treadle.runtime import kernel_cache

if TYPE_CHECKING:
    import llvmlite.binding

GENERATOR_VERSION = 2  # raise it when the same loop IR comes to mean other native code
NUMERICS_VERSION = 1  # raise it when an op's exact result changes

# LLVM's IR passes: with 1 contractions are up to 8% slower and compile hardly sooner; a short list
# of passes without LICM compiles twice as fast and runs two to three times slower.
_SPEED_LEVEL = 2
_CODE_LEVEL = 1  # code generation: 2 is no faster for explicit vectors, 0 is much slower

_llvm = threading.RLock()
_addresses: dict[str, int] = {}
_libraries = itertools.count()  # numbers what is linked: the linker wants names it has not seen


class Target(NamedTuple):
    """The CPU that code is generated for; ``features`` is LLVM's ``+avx2,-avx512f,...``."""

    cpu: str
    features: str
    vector_bits: int
    triple: str


class Statistics(NamedTuple):
    """What this process compiled and loaded from the disk cache, and the time for both."""

    compiled: int
    loaded: int
    milliseconds: float


_statistics = Statistics(0, 0, 0.0)


def host_target() -> Target:
    """The CPU of this machine; the flag VECTOR_BITS overrides the width of its vectors."""
    target = _detected()
    return target._replace(vector_bits=flags.VECTOR_BITS) if flags.VECTOR_BITS else target


def compile_kernel(name: str, ir_text: str, make_llvm: Callable[[], str]) -> int:
    """The address of the native function ``name``.

    ``ir_text`` is all that the code depends on beside the target and the versions; where neither
    this process nor the disk cache has code for it, ``make_llvm()`` gives the LLVM module.
    Raises CompileError where LLVM refuses the module.
    """
    key = _key(name, ir_text)
    address = _addresses.get(key)
    if address is None:
        with _llvm:  # LLVM compiles one kernel at a time; who waited finds it done
            address = _addresses.get(key)
            if address is None:
                address = _addresses[key] = _build(name, key, ir_text, make_llvm)
    return address


def statistics() -> Statistics:
    """Counts and time since the process started."""
    return _statistics


def _build(name: str, key: str, ir_text: str, make_llvm: Callable[[], str]) -> int:
    start = time.perf_counter()
    wants_text = not flags.DEBUG.isdisjoint(("source", "asm"))
    if "source" in flags.DEBUG:
        _show(f"source of {name}", ir_text)
    code = None if wants_text else kernel_cache.load(key)
    loaded = code is not None
    if code is None:
        code = _compile(name, make_llvm())
    address = _load(name, code)
    if not loaded:
        kernel_cache.store(key, code)
    milliseconds = (time.perf_counter() - start) * 1e3
    if "time" in flags.DEBUG:
        _show(f"{name}: {'loaded' if loaded else 'compiled'} in {milliseconds:.2f} ms")
    _count(loaded, milliseconds)
    return address


def _compile(name: str, text: str) -> bytes:
    """Object code of a module in LLVM's language."""
    llvm = _binding()
    if "source" in flags.DEBUG:
        _show(f"LLVM of {name}", text)
    owned = ExitStack()
    try:
        with _llvm:
            machine = owned.enter_context(_machine())
            context = owned.enter_context(llvm.create_context())
            module = owned.enter_context(llvm.parse_assembly(text, context))
            module.verify()
        with _llvm:
            _optimise(module, machine)
        if "asm" in flags.DEBUG:
            with _llvm, module.clone() as copy:
                _show(f"assembly of {name}", machine.emit_assembly(copy))
        with _llvm:
            code: bytes = machine.emit_object(module)
            return code
    except RuntimeError as error:
        raise CompileError(
            f"the kernel {name} does not compile: {str(error).strip()}; this is a defect of "
            "Treadle's code generator: please report it with what TREADLE_DEBUG=source prints"
        ) from error
    finally:
        with _llvm:
            owned.close()


def _optimise(module: Any, machine: Any) -> None:
    """Turns scratch memory into registers and moves what is invariant out of loops.

    Loops say themselves what is a vector and what is unrolled, so LLVM is not to guess.
    """
    llvm = _binding()
    with ExitStack() as owned:
        options = owned.enter_context(llvm.create_pipeline_tuning_options(_SPEED_LEVEL))
        options.loop_vectorization = False
        options.slp_vectorization = False
        options.loop_unrolling = False
        options.loop_interleaving = False
        builder = owned.enter_context(llvm.create_pass_builder(machine, options))
        owned.enter_context(builder.getModulePassManager()).run(module, builder)


def _load(name: str, code: bytes) -> int:
    llvm = _binding()
    library = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
    library.export_symbol(name)
    try:
        with _llvm:
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
def _binding() -> Any:
    """llvmlite, imported when first needed: it takes some 50 ms."""
    with _llvm:
        import llvmlite.binding

        llvmlite.binding.initialize_native_target()
        llvmlite.binding.initialize_native_asmprinter()
        return llvmlite.binding


@lru_cache(maxsize=None)
def _detected() -> Target:
    llvm = _binding()
    with _llvm:
        features = llvm.get_host_cpu_features()
        bits = 512 if features.get("avx512f") else 256 if features.get("avx") else 128
        return Target(llvm.get_host_cpu_name(), features.flatten(), bits, llvm.get_process_triple())


def _machine() -> llvmlite.binding.TargetMachine:
    target = _detected()
    return (
        _binding()
        .Target.from_triple(target.triple)
        .create_target_machine(
            cpu=target.cpu,
            features=target.features,
            opt=_CODE_LEVEL,
            reloc="pic",
            codemodel="default",
        )
    )


@lru_cache(maxsize=None)
def _linker() -> Any:
    # JITLink lays code and constants of a kernel side by side, within reach of relative addresses.
    return _binding().create_lljit_compiler(use_jit_link=True)


@lru_cache(maxsize=None)
def _identity(target: Target) -> bytes:
    llvm_version = ".".join(map(str, _binding().llvm_version_info))
    parts = (GENERATOR_VERSION, NUMERICS_VERSION, llvm_version, *target)
    return "\n".join(map(str, parts)).encode()


def _key(name: str, ir_text: str) -> str:
    digest = hashlib.sha256(_identity(host_target()))
    digest.update(f"\n{name}\n{ir_text}".encode())
    return digest.hexdigest()


def _count(loaded: bool, milliseconds: float) -> None:
    global _statistics
    old = _statistics
    _statistics = Statistics(
        old.compiled + (not loaded), old.loaded + loaded, old.milliseconds + milliseconds
    )


def _show(title: str, text: str = "") -> None:
    print(f"[treadle] {title}", *([text] if text else []), sep="\n", file=sys.stderr)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_llvm.acquire, after_in_parent=_llvm.release, after_in_child=_llvm.release
    )
