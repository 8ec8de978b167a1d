"""Where a loader is: what its randomness is keyed by, and how it starts again from there."""

from __future__ import annotations

import contextlib
import hashlib
import struct
from collections.abc import Iterator
from typing import Any

from treadle.ir.node import located
from treadle.random import Generator, default_generator, drawing_from

State = tuple[int, int, int]
_KEYS = {"epoch", "batches", "key", "before", "after"}


class Position:
    """How far a loader has come: passes begun, and batches of the last one handed out.

    ``key`` is what the random numbers of the pass follow from; ``before`` are the states of the
    generators that its order came from, as they were when it began.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.batches = 0
        self.key: State | None = None  # None between passes
        self.before: list[State] = []
        self._loaded = False

    def begin(self) -> bool:
        """A pass begins: whether it is the one that was saved, after ``batches`` of it."""
        goes_on = self._loaded and self.key is not None
        self._loaded = False
        if not goes_on:
            self.batches = 0
        return goes_on

    def state_dict(self, generators: list[Generator]) -> dict[str, Any]:
        """Plain numbers, enough to go on from here."""
        return {
            "epoch": self.epoch, "batches": self.batches,
            "key": self.key and list(self.key), "before": [list(s) for s in self.before],
            # The default generator is the whole program's, which saves it by itself.
            "after": [list(g._state) for g in generators if g is not default_generator],
        }  # fmt: skip

    def load(self, saved: Any, generators: list[Generator]) -> None:
        """Takes over what ``state_dict`` gave."""
        own = [g for g in generators if g is not default_generator]
        fits = isinstance(saved, dict) and set(saved) == _KEYS
        states = saved["before"] + saved["after"] if fits else []
        if (
            not fits
            or len(saved["after"]) != len(own)
            or (saved["key"] is not None and len(saved["before"]) != len(generators))
            or any(len(s) != 3 for s in states)
        ):
            raise located(ValueError(
                f"load_state_dict: got {saved!r:.200}; expected what state_dict() of a DataLoader "
                f"with the same sampler and generators gave"
            ))  # fmt: skip
        self.epoch, self.batches = int(saved["epoch"]), int(saved["batches"])
        self.key = tuple(saved["key"]) if saved["key"] else None
        self.before = [tuple(s) for s in saved["before"]]
        self._loaded = True
        for generator, state in zip(own, saved["after"], strict=True):
            generator._state = tuple(state)


@contextlib.contextmanager
def states_of(generators: list[Generator], states: list[State]) -> Iterator[None]:
    """The generators are in these states during the block, and then in those they had."""
    now = [g._state for g in generators]
    for generator, state in zip(generators, states, strict=True):
        generator._state = state
    try:
        yield
    finally:
        for generator, state in zip(generators, now, strict=True):
            generator._state = state


class Keyed:
    """The random numbers of one pass: a generator for each item, from (key, index)."""

    def __init__(self, key: State) -> None:
        digest = hashlib.blake2b(struct.pack("<3Q", *key), digest_size=8).digest()
        self._seed = int.from_bytes(digest, "little")
        self._stream = self._generator(0)

    def of_item(self, index: Any) -> contextlib.AbstractContextManager[None]:
        """What is drawn from the default generator inside follows from the key and the index."""
        return drawing_from(self._generator(index))

    def of_stream(self) -> contextlib.AbstractContextManager[None]:
        """The same for data that come one after the other."""
        return drawing_from(self._stream)

    def _generator(self, index: Any) -> Generator:
        if hasattr(index, "__index__"):
            index = index.__index__() & (1 << 63) - 1
        else:
            digest = hashlib.blake2b(repr(index).encode(), digest_size=7).digest()
            index = int.from_bytes(digest, "little")
        return Generator().manual_seed(self._seed, stream=index)
