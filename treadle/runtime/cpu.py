"""The CPU as a device: generated kernels on the pool's threads, in cached memory."""

from __future__ import annotations

import array
import ctypes

from treadle.compiler.device import register_device
from treadle.ir.launch import KernelSpec
from treadle.runtime import memory, pool


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

    def threads(self) -> int:
        """The threads of the next tape."""
        return pool.get_num_threads()

    allocate = staticmethod(memory.allocate)

    def write(self, address: int, data: bytes) -> None:
        """Copies ``data`` to ``address``."""
        ctypes.memmove(address, data, len(data))

    def compile(self, spec: KernelSpec) -> int:
        """The address of the kernel, built and compiled when it is first asked for."""
        entry = self._entries.get(spec)
        if entry is None:
            from treadle.codegen.llvm import print_llvm  # the code generator, when first needed
            from treadle.ir.loop_text import print_kernel
            from treadle.ir.loop_verify import verify_kernel
            from treadle.runtime import jit

            kernel = spec.build(*spec.key)

            def make_llvm() -> str:
                verify_kernel(kernel)
                return print_llvm(kernel, self.vector_bits)

            entry = jit.compile_kernel(kernel.name, print_kernel(kernel), make_llvm)
            self._entries[spec] = entry
        return entry

    def kernel_count(self) -> int:
        """How many kernels this process has used."""
        return len(self._entries)

    def run(self, tape: bytes, calls: int, threads: int) -> tuple[int, int]:
        """Runs a tape (see ``runtime.pool``)."""
        return pool.run_tape(array.array("q", tape), calls, threads)


cpu = CPU()
register_device(cpu)
