"""Generators: where random operations get (seed, stream, offset) from when they are recorded."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from treadle.base.forking import GENERATORS, hold_across_fork
from treadle.base.lazy_numpy import np
from treadle.ir.node import located
from treadle.tensor.handle import wrap
from treadle.tensor.storage import node_from_array
from treadle.tensor.tensor import Device, Tensor, check_device

DEFAULT_SEED = 67280421310721  # PyTorch's, of generators that nobody seeded
_MASK = (1 << 64) - 1
_STATE = struct.Struct("<QQQ")
State = tuple[int, int, int]

# One lock for all generators (it is held for a few bytecodes); free in a forked child.
_lock = threading.Lock()


class _Here(threading.local):
    """What stands in for the default generator in a thread."""

    generator: Generator | None = None


_here = _Here()
hold_across_fork(GENERATORS, _lock.acquire, _lock.release)


class Generator:
    """A source of random numbers: a seed, a stream, and how far the stream has been used.

    Random operations take their share of the stream when they are *recorded*; the numbers follow
    from that alone, whenever and on however many threads they are computed. Streams of one seed
    are independent of each other. A generator may be used from several threads: every operation
    gets numbers of its own, but which thread comes first decides who gets which.

    >>> g = Generator().manual_seed(7)
    >>> g.next_offset(8), g.next_offset(8)
    ((7, 0, 0), (7, 0, 8))
    """

    def __init__(self, device: Any = "cpu") -> None:
        self._device = check_device(device)
        self._state: State = (DEFAULT_SEED, 0, 0)

    @property
    def _acting(self) -> Generator:
        """Itself, or what stands in for the default generator in this thread."""
        return (_here.generator or self) if self is default_generator else self

    @property
    def device(self) -> Device:
        """Where its random operations run."""
        return self._device

    def manual_seed(self, seed: int, stream: int = 0) -> Generator:
        """Starts again from ``seed`` (-2^63 to 2^64 - 1, taken modulo 2^64) and returns itself."""
        numbers = int(seed), int(stream)
        if not all(-(1 << 63) <= n <= _MASK for n in numbers):
            raise located(ValueError(
                f"manual_seed: got the seed {numbers[0]} and the stream {numbers[1]}; both must be "
                f"from -2**63 to 2**64 - 1"
            ))  # fmt: skip
        with _lock:
            self._acting._state = (numbers[0] & _MASK, numbers[1] & _MASK, 0)
        return self

    def seed(self) -> int:
        """Starts again from a seed that the system's randomness gives, and returns it."""
        seed = int.from_bytes(os.urandom(8), "little") >> 1
        self.manual_seed(seed)
        return seed

    def initial_seed(self) -> int:
        """The seed that the generator started from."""
        return self._acting._state[0]

    def get_state(self) -> Tensor:
        """The state as a uint8 tensor of 24 bytes: seed, stream and offset, little-endian."""
        return wrap(node_from_array(np.frombuffer(_STATE.pack(*self._acting._state), np.uint8)))

    def set_state(self, new_state: Tensor) -> None:
        """Continues from what ``get_state`` gave."""
        array = np.asarray(new_state)
        if array.dtype != np.uint8 or array.shape != (_STATE.size,):
            raise located(TypeError(
                f"set_state: got {array.dtype.name} of shape {array.shape}; expected the uint8 "
                f"tensor of {_STATE.size} elements that get_state() returns"
            ))  # fmt: skip
        seed, stream, offset = _STATE.unpack(array.tobytes())
        with _lock:
            self._acting._state = (seed, stream, offset)

    def next_offset(self, count: int) -> State:
        """Reserves ``count`` counters: (seed, stream, offset of the first), each below 2^64."""
        acting = self._acting
        with _lock:
            seed, stream, offset = state = acting._state
            acting._state = (seed, stream, (offset + count) & _MASK)
        return state

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (str(self._device), self._state)

    def __repr__(self) -> str:
        seed, stream, offset = self._state
        return f"<Generator: seed {seed}, stream {stream}, offset {offset}>"


def _restored(device: str, state: State) -> Generator:
    generator = Generator(device)
    generator._state = state
    return generator


default_generator = Generator()
default_generator.seed()


def manual_seed(seed: int) -> Generator:
    """Seeds the default generator, which random operations use unless they name another.

    >>> manual_seed(0).initial_seed()
    0
    """
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Seeds the default generator from the system's randomness and returns the seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed that the default generator started from."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The state of the default generator as a uint8 tensor."""
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Continues the default generator from what ``get_rng_state`` gave."""
    default_generator.set_state(new_state)


@contextmanager
def drawing_from(generator: Generator) -> Iterator[None]:
    """In this thread, ``generator`` stands in for the default one during a ``with`` block.

    >>> with drawing_from(Generator().manual_seed(7)):
    ...     default_generator.next_offset(8)
    (7, 0, 0)
    """
    before = _here.generator
    _here.generator = generator
    try:
        yield
    finally:
        _here.generator = before


@contextmanager
def fork_rng(devices: Iterable[Any] = (), enabled: bool = True) -> Iterator[None]:
    """Puts the default generator's state back at the end of a ``with`` block.

    ``devices`` names further devices whose generators are kept; the CPU's always is.

    >>> before = default_generator.next_offset(0)
    >>> with fork_rng():
    ...     _ = manual_seed(3)
    >>> default_generator.next_offset(0) == before
    True
    """
    for device in devices:
        check_device(device)
    state = default_generator._state
    try:
        yield
    finally:
        if enabled:
            with _lock:
                default_generator._state = state
