"""From LLVM's text to object code, for this CPU or another target.

llvmlite serialises its calls by a lock of its own. LLVM needs none where each thread works on a
context of its own, so the two long phases (passes and code generation) go round it; everything else
is short, and goes through ``LOCK``, one phase at a time.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from treadle.base.record import Record
from treadle.runtime.half_code import with_conversions

if TYPE_CHECKING:
    import llvmlite.binding

_CODE_LEVEL = 1  # code generation: 2 is no faster for explicit vectors, 0 is much slower

LOCK = threading.RLock()


class Target(Record):
    """The CPU that code is generated for; ``features`` is LLVM's ``+avx2,-avx512f,...``."""

    cpu: str
    features: str
    vector_bits: int
    triple: str


@lru_cache(maxsize=None)
def binding() -> Any:
    """llvmlite, imported when first needed: it takes some 50 ms."""
    with LOCK:
        import llvmlite.binding

        llvmlite.binding.initialize_native_target()
        llvmlite.binding.initialize_native_asmprinter()
        return llvmlite.binding


@lru_cache(maxsize=None)
def native() -> Target:
    """The CPU of this machine."""
    llvm = binding()
    with LOCK:
        features = llvm.get_host_cpu_features()
        bits = 512 if features.get("avx512f") else 256 if features.get("avx") else 128
        return Target(llvm.get_host_cpu_name(), features.flatten(), bits, llvm.get_process_triple())


def object_code(text: str, target: Target, show: Callable[[str], None] | None = None) -> bytes:
    """The object file of a module; ``show`` is given its assembly.

    Raises RuntimeError, with LLVM's words, where LLVM refuses the module.
    """
    llvm = binding()
    owned = ExitStack()
    try:
        with LOCK:
            machine = owned.enter_context(_machine(target))
            context = owned.enter_context(llvm.create_context())
            whole = with_conversions(text, target.triple, target.features)
            module = owned.enter_context(llvm.parse_assembly(whole, context))
            module.verify()
            options = owned.enter_context(llvm.create_pipeline_tuning_options())
            builder = owned.enter_context(llvm.create_pass_builder(machine, options))
            passes = owned.enter_context(_passes())
        _unlocked("LLVMPY_RunNewModulePassManager")(passes, module, builder)
        if show is not None:
            with LOCK, module.clone() as copy:
                show(machine.emit_assembly(copy))
        return _emitted(module, machine)
    finally:
        with LOCK:
            owned.close()


def _machine(target: Target) -> llvmlite.binding.TargetMachine:
    return (
        binding()
        .Target.from_triple(target.triple)
        .create_target_machine(
            cpu=target.cpu,
            features=target.features,
            opt=_CODE_LEVEL,
            reloc="static" if target.triple.startswith("wasm") else "pic",
            codemodel="default",
        )
    )


def _passes() -> Any:
    """Scratch memory becomes registers; then blocks and instructions are tidied up.

    That is all: what repeats and what a loop does not change has its place in the text already,
    and loops say themselves what is a vector and what is unrolled.
    """
    passes = binding().create_new_module_pass_manager()
    passes.add_always_inliner_pass()  # the pool's code has functions of its own
    passes.add_sroa_pass()
    passes.add_simplify_cfg_pass()
    passes.add_instruction_combine_pass()
    return passes


def _emitted(module: Any, machine: Any) -> bytes:
    """What ``machine.emit_object(module)`` does, without llvmlite's lock."""
    ffi = binding().ffi
    with ffi.OutputString() as error:
        buffer = _unlocked("LLVMPY_TargetMachineEmitToMemory")(machine, module, 1, error)
        if not buffer:
            raise RuntimeError(str(error))
    with LOCK:
        start, size = ffi.lib.LLVMPY_GetBufferStart(buffer), ffi.lib.LLVMPY_GetBufferSize(buffer)
        code = ctypes.string_at(start, size)
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)
    return code


def _unlocked(name: str) -> Any:
    """A function of llvmlite's library: beneath the lock where this llvmlite shows a way there."""
    function = getattr(binding().ffi.lib, name)
    return getattr(function, "_cfn", function)
