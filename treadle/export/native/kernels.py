"""The kernels of a build: a device that numbers them, and their text for each level."""

from __future__ import annotations

from typing import Any

from treadle.codegen.llvm import print_llvm
from treadle.compiler.device import Device
from treadle.export.native.targets import BuildError
from treadle.ir.launch import KernelSpec, host_call
from treadle.ir.loop import Kernel
from treadle.ir.loop_verify import verify_kernel
from treadle.ir.node import Signature
from treadle.runtime.object_code import Target


class Kernels:
    """A device that runs nothing: compiling gives a kernel its number.

    It has what the passes up to the plan of the memory ask of a device.
    """

    name = "build"

    def __init__(self, level: int, target: Target, threads: int) -> None:
        self.level = level
        self.target = target
        self.vector_bits = target.vector_bits
        self.specs: dict[KernelSpec, int] = {}
        self._threads = threads
        self._plans: dict[Signature, dict[Any, Any]] = {}

    def threads(self) -> int:
        """The threads that a build's plans have room for."""
        return self._threads

    def plans_of(self, sig: Signature) -> dict[Any, Any]:
        """Of its own: what is prepared here are numbers, not addresses."""
        return self._plans.setdefault(sig, {})

    def compile(self, spec: KernelSpec) -> int:
        """The number of a kernel."""
        if spec.build is host_call:
            raise BuildError(f"got a call of {spec.key[0]!r}, which runs in Python")
        return self.specs.setdefault(spec, len(self.specs))

    def has_kernel(self, spec: KernelSpec) -> bool:
        """True: there is nothing to wait for."""
        return True

    def symbol(self, number: int) -> str:
        """The name of a kernel's function in the module."""
        return f"kernel{number}_{self.level}"

    def text(self, number: int) -> str:
        """LLVM's text of a kernel, for the processors of this level."""
        spec = list(self.specs)[number]
        built = spec.build(*spec.key)
        kernel = Kernel(self.symbol(number), built.params, built.body)
        verify_kernel(kernel)
        text = print_llvm(kernel, self.vector_bits)
        features = f'"target-cpu"="{self.target.cpu}" "target-features"="{self.target.features}"'
        return text.replace("define i32", "define internal i32", 1).replace(
            ") nounwind ", f") nounwind {features} ", 1
        )


def as_device(kernels: Kernels) -> Device:
    """The kernels as the passes take them."""
    return kernels  # type: ignore[return-value]


__all__ = ["Kernels", "as_device"]
