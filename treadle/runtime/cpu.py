"""The CPU as a device: generated kernels on the pool's threads, in cached memory."""

from __future__ import annotations

import array
import ctypes
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from treadle.compiler.device import Limits, MemoryState, register_device
from treadle.ir.launch import KernelSpec, host_call
from treadle.ir.node import Signature
from treadle.runtime import memory, pool
from treadle.runtime.linked_tape import LinkedTape, relocate, run_stamped

if TYPE_CHECKING:
    from treadle.runtime import jit


class CPU:
    """Implements ``compiler.device.Device``."""

    name = "cpu"

    def __init__(self) -> None:
        self._entries: dict[KernelSpec, int] = {}

    @property
    def vector_bits(self) -> int:
        """The width of the vectors that kernels are printed for."""
        from treadle.runtime import jit

        return jit.host_target().vector_bits

    def plans_of(self, sig: Signature) -> dict[Any, Any]:
        """Those of the signature itself: this is the device that tier 0 runs on."""
        return sig.plans

    def threads(self) -> int:
        """The threads of the next tape."""
        return pool.get_num_threads()

    allocate = staticmethod(memory.allocate)
    block_bytes = staticmethod(memory.block_bytes)

    def memory_state(self) -> MemoryState:
        """What tensors take, and what they may take."""
        return MemoryState(memory.memory_stats()["allocated.current"], memory.limit())

    def write(self, address: int, data: bytes) -> None:
        """Copies ``data`` to ``address``."""
        ctypes.memmove(address, data, len(data))

    def read(self, address: int, nbytes: int) -> bytes:
        """The bytes at ``address``."""
        return ctypes.string_at(address, nbytes)

    def compile(self, spec: KernelSpec) -> int:
        """The address of the kernel (or host call), compiled when it is first asked for."""
        entry = self._entries.get(spec)
        if entry is None and spec.build is host_call:
            from treadle.runtime.host import entry_of

            entry = self._entries[spec] = entry_of(spec)
        if entry is None:
            from treadle.runtime import jit, short_key

            text, stamp = short_key.spec_text(spec), short_key.code_stamp()
            note = None if text is None or stamp is None else jit.Note(text, stamp)
            entry = jit.load_kernel(note) if note else None
            entry = self._entries[spec] = entry or self._built(spec, note)
        return entry

    def _built(self, spec: KernelSpec, note: jit.Note | None) -> int:
        """The long way, by the loop IR."""
        from treadle.codegen.llvm import print_llvm  # the code generator, when first needed
        from treadle.ir.loop_text import print_kernel
        from treadle.ir.loop_verify import verify_kernel
        from treadle.runtime import jit

        kernel = spec.build(*spec.key)

        def make_llvm() -> str:
            verify_kernel(kernel)
            return print_llvm(kernel, self.vector_bits)

        return jit.compile_kernel(kernel.name, print_kernel(kernel), make_llvm, note)

    control = staticmethod(pool.control_entry)

    def has_kernel(self, spec: KernelSpec) -> bool:
        """True where this process has the kernel's code."""
        return spec in self._entries

    def compile_ahead(self, specs: Sequence[KernelSpec]) -> None:
        """Compiles kernels that will be asked for, on several threads; errors wait till then."""
        from treadle.runtime import jit

        missing = [spec for spec in specs if spec not in self._entries]
        jit.side_by_side([partial(self.compile, spec) for spec in missing], self.threads())

    def kernel_count(self) -> int:
        """How many kernels this process has used."""
        return len(self._entries)

    def remember(self, key: str, value: str) -> None:
        """Keeps a text beside the kernels on disk."""
        from treadle.runtime import kernel_cache

        kernel_cache.store(self._machine_key(key), value.encode(), key, kernel_cache.NOTE)

    def recall(self, key: str) -> str | None:
        """What was kept under this key, or None."""
        from treadle.runtime import kernel_cache

        found = kernel_cache.load(self._machine_key(key), kernel_cache.NOTE)
        return None if found is None else found.decode()

    def stamp(self) -> str | None:
        """See ``runtime.short_key``."""
        from treadle.runtime import jit, short_key

        stamp = short_key.code_stamp()
        return None if stamp is None else f"{stamp}\n{jit.identity()}"

    def kernel_name(self, entry: int) -> str | None:
        """Its key in the cache and its own name."""
        from treadle.runtime import jit

        origin = jit.origin(entry)
        return None if origin is None else " ".join(origin)

    def named_kernel(self, name: str) -> int | None:
        """From this process, or from the disk."""
        from treadle.runtime import jit

        return jit.named_kernel(*name.split(" "))

    def programs(self) -> list[str]:
        """Those on disk."""
        from treadle.runtime import kernel_cache

        return [entry.key for entry in kernel_cache.entries(kernel_cache.PROGRAM)]

    def store_program(self, key: str, text: str) -> None:
        """Beside the kernels."""
        from treadle.runtime import kernel_cache

        size = key.partition("-")[0]
        name = f"program of {size} values"
        kernel_cache.store(key, text.encode(), name, kernel_cache.PROGRAM)

    def load_program(self, key: str) -> str | None:
        """From beside the kernels."""
        from treadle.runtime import kernel_cache

        found = kernel_cache.load(key, kernel_cache.PROGRAM)
        return None if found is None else found.decode()

    def _machine_key(self, key: str) -> str:
        import hashlib

        from treadle.runtime import jit

        identity = (jit.GENERATOR_VERSION, *jit.host_target(), key)
        return hashlib.sha256("\n".join(map(str, identity)).encode()).hexdigest()

    def run(
        self, tape: bytes, calls: int, threads: int, times: array.array[int] | None = None
    ) -> tuple[int, int]:
        """Runs a tape (see ``runtime.pool``)."""
        return pool.run_tape(array.array("q", tape), calls, threads, times)

    run_stamped = staticmethod(run_stamped)

    seconds_per_tick = staticmethod(pool.seconds_per_tick)

    def limits(self, again: bool = False) -> Limits:
        """See ``runtime.machine``."""
        from treadle.runtime import machine

        return machine.limits(again)

    def link(
        self, tape: bytes, calls: int, patches: Sequence[tuple[int, int, int]], slots: int,
        threads: int,
    ) -> LinkedTape:  # fmt: skip
        """A tape to be run many times (see ``runtime.linked_tape``)."""
        entry = self.compile(KernelSpec(relocate, ()))
        return LinkedTape(entry, tape, calls, patches, slots, threads)


cpu = CPU()
register_device(cpu)
