"""What the compiler needs of a device. The runtime, a lower room, implements and registers it."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from treadle.base.errors import DeviceError
from treadle.base.lazy_numpy import np
from treadle.base.record import Record
from treadle.ir.launch import KernelSpec, Layout
from treadle.ir.node import Signature


class Memory(Protocol):
    """A block of the device's memory; it is released when nobody refers to it."""

    address: int
    nbytes: int

    @property
    def is_ours(self) -> bool:
        """Whether it may be written to, or belongs to somebody else."""


class Stamp(Record):
    """The words of a linked tape, and how many calls they are."""

    words: bytes
    calls: int


class Tape(Protocol):
    """A tape that can be run again with other addresses."""

    def run(
        self, addresses: Sequence[int], times: array[int] | None = None,
        moves: Iterable[object] = (),
    ) -> int:  # fmt: skip
        """Runs it; the position of the call that failed, or -1.

        ``times`` gets the ticks at the start, when the tape is ready, and after every call. If none
        failed, ``moves`` are gone through before a signal can be handled.
        """

    def stamp(self) -> Stamp:
        """The tape as a piece of a longer one (``Device.run_stamped``)."""


class Limits(Protocol):
    """What a device can do at most."""

    @property
    def flops(self) -> float:
        """f32 operations per second."""

    def bandwidth(self, nbytes: int) -> float:
        """Bytes per second that a kernel which touches ``nbytes`` can read and write."""

    def seconds(self, flops: float, nbytes: int, itemsize: int = 4) -> float:
        """The least time for so much work on numbers of ``itemsize`` bytes."""


class MemoryState(Record):
    """Bytes of memory in use, and how many there may be."""

    in_use: int
    limit: int


class Owners:
    """Who holds the memory, by name; set by the room that has the tensors, which is a lower one."""

    ask: Callable[[], dict[str, int]] | None = None


class Device(Protocol):
    """A place where kernels run."""

    name: str

    @property
    def vector_bits(self) -> int:
        """The width of the vectors that kernels are printed for."""

    def plans_of(self, sig: Signature) -> dict[Any, Any]:
        """Where what was prepared of a signature is kept (``compiler.prepare``)."""

    def threads(self) -> int:
        """How many threads a launch may be cut for."""

    def allocate(self, nbytes: int) -> Memory:
        """A block of at least ``nbytes``; MemoryError tells what is in use."""

    def memory_state(self) -> MemoryState:
        """What is in use, and the limit."""

    def block_bytes(self, nbytes: int) -> int:
        """What ``allocate(nbytes)`` takes."""

    def write(self, address: int, data: bytes) -> None:
        """Copies a few bytes to the device."""

    def read(self, address: int, nbytes: int) -> bytes:
        """A copy of what lies there, once the tape has run."""

    def compile(self, spec: KernelSpec) -> int:
        """The kernel's entry, compiled at most once."""

    def control(self) -> tuple[int, int]:
        """The kernel of control flow, and the word that its descriptions begin with."""

    def has_kernel(self, spec: KernelSpec) -> bool:
        """True where ``compile`` has nothing left to do."""

    def compile_ahead(self, specs: Sequence[KernelSpec]) -> None:
        """Compiles kernels that will be asked for soon, faster than one by one; never raises."""

    def run(
        self, tape: bytes, calls: int, threads: int, times: array[int] | None = None
    ) -> tuple[int, int]:
        """Runs calls of 64-bit words ``(kernel, count of args, units, parallel, args...)``.

        ``threads`` is the number of threads that the tape was made for: its workspaces are sized
        for it. Returns the position of the call that failed and its code, or (-1, 0). ``times``
        gets the ticks at the start and after every call.
        """

    def run_stamped(
        self, pieces: Sequence[bytes], stamps: Sequence[tuple[int, int]], table: array[int],
        calls: int, threads: int, times: array[int],
    ) -> int:  # fmt: skip
        """Runs a tape in pieces, some of which are ``Stamp``s; the call that failed, or -1.

        ``stamps`` says which, and where in ``table`` the addresses for each of them begin.
        """

    def seconds_per_tick(self) -> float:
        """What a tick in ``times`` lasts."""

    def limits(self, again: bool = False) -> Limits:
        """What the device can do at most, measured once (or ``again``)."""

    def remember(self, key: str, value: str) -> None:
        """Keeps a text for this machine between runs, where that is possible."""

    def recall(self, key: str) -> str | None:
        """What was kept under this key, or None."""

    def stamp(self) -> str | None:
        """A text that is the same only where equal programs come of equal graphs: versions, the
        machine, and the code that compiles. None where that cannot be told."""

    def kernel_name(self, entry: int) -> str | None:
        """What ``named_kernel`` finds the kernel by in another process, where that is possible."""

    def named_kernel(self, name: str) -> int | None:
        """The entry of the kernel of that name, if it is still there."""

    def programs(self) -> list[str]:
        """The keys of the programs that are kept."""

    def store_program(self, key: str, text: str) -> None:
        """Keeps a program between runs, where that is possible."""

    def load_program(self, key: str) -> str | None:
        """The program that was kept under this key, or None."""

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


def array_at(memory: Any, layout: Layout, address: int) -> np.ndarray[Any, Any]:
    """A value as a NumPy view of its memory (which has to be one that the host can read)."""
    if not all(layout.shape):
        return np.empty(layout.shape, layout.dtype.numpy)
    offset, odd = divmod(address - memory.address, layout.dtype.itemsize)
    if not any(s < 0 for s in layout.strides):
        return memory.array(layout.dtype, layout.shape, layout.strides, offset, odd)
    # NumPy wants the lowest address for its base; walk there, and turn the axes back.
    offset += sum((n - 1) * s for n, s in zip(layout.shape, layout.strides, strict=True) if s < 0)
    array = memory.array(layout.dtype, layout.shape, tuple(map(abs, layout.strides)), offset, odd)
    return array[tuple(slice(None, None, -1 if s < 0 else 1) for s in layout.strides)]
