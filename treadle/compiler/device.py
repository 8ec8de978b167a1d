"""What the compiler needs of a device. The runtime, a lower room, implements and registers it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from treadle.base.errors import DeviceError
from treadle.ir.launch import KernelSpec


class Memory(Protocol):
    """A block of the device's memory; it is released when nobody refers to it."""

    address: int
    nbytes: int


class Tape(Protocol):
    """A tape that can be run again with other addresses."""

    def run(self, addresses: Sequence[int]) -> int:
        """Runs it; the position of the call that failed, or -1."""


class Device(Protocol):
    """A place where kernels run."""

    name: str

    @property
    def vector_bits(self) -> int:
        """The width of the vectors that kernels are printed for."""

    def threads(self) -> int:
        """How many threads a launch may be cut for."""

    def allocate(self, nbytes: int) -> Memory:
        """A block of at least ``nbytes``; MemoryError tells what is in use."""

    def write(self, address: int, data: bytes) -> None:
        """Copies a few bytes to the device."""

    def read(self, address: int, nbytes: int) -> bytes:
        """A copy of what lies there, once the tape has run."""

    def compile(self, spec: KernelSpec) -> int:
        """The kernel's entry, compiled at most once."""

    def has_kernel(self, spec: KernelSpec) -> bool:
        """True where ``compile`` has nothing left to do."""

    def compile_ahead(self, specs: Sequence[KernelSpec]) -> None:
        """Compiles kernels that will be asked for soon, faster than one by one; never raises."""

    def run(self, tape: bytes, calls: int, threads: int) -> tuple[int, int]:
        """Runs calls of 64-bit words ``(kernel, count of args, units, parallel, args...)``.

        ``threads`` is the number of threads that the tape was made for: its workspaces are sized
        for it. Returns the position of the call that failed and its code, or (-1, 0).
        """

    def remember(self, key: str, value: str) -> None:
        """Keeps a text for this machine between runs, where that is possible."""

    def recall(self, key: str) -> str | None:
        """What was kept under this key, or None."""

    def link(
        self, tape: bytes, calls: int, patches: Sequence[tuple[int, int, int]], slots: int,
        threads: int,
    ) -> Tape:  # fmt: skip
        """A tape as for ``run`` whose words at the patches' positions are table[slot] + offset.

        ``patches`` are (position, slot, offset in bytes); ``slots`` is the length of the table.
        """


_devices: dict[str, Any] = {}


def register_device(device: Device) -> None:
    """Makes a device known under its name."""
    _devices[device.name] = device


def get_device(name: str) -> Device:
    """The device of that name."""
    try:
        return _devices[name]
    except KeyError:
        raise DeviceError(
            f"there is no device {name!r} here; there are {', '.join(map(repr, _devices))}"
        ) from None
