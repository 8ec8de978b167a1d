"""Sequences of different lengths: padded to one length, or packed without padding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from treadle.base.errors import ShapeError
from treadle.base.lazy_numpy import np
from treadle.base.record import Record
from treadle.ir.node import located
from treadle.tensor.creation import from_numpy, full
from treadle.tensor.joining import cat, stack
from treadle.tensor.tensor import Tensor


class PackedSequence(Record):
    """The elements of several sequences step by step, the longest sequence first.

    ``data`` (sum of lengths, ...) has ``batch_sizes[t]`` rows for step t. ``sorted_indices`` are
    the sequences in the order packed (None: as given), ``unsorted_indices`` lead back.
    """

    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None = None
    unsorted_indices: Tensor | None = None


class Rows(Record):
    """The rows (1, R, size) of sequences of different lengths, step by step."""

    sizes: tuple[int, ...]  # of the steps

    @property
    def lengths(self) -> Any:
        """The length of every sequence."""
        return (np.array(self.sizes)[:, None] > np.arange(self.sizes[0])).sum(0)

    def at(self, steps: Any, sequences: Any) -> Any:
        """The rows of these steps of these sequences."""
        starts = np.cumsum((0, *self.sizes[:-1]))
        return starts[steps] + sequences

    @property
    def places(self) -> tuple[Any, Any]:
        """The step and the sequence of every row."""
        steps = np.repeat(np.arange(len(self.sizes)), self.sizes)
        return steps, np.concatenate([np.arange(size) for size in self.sizes])

    def last(self, x: Tensor) -> Tensor:
        """The rows in which the sequences end."""
        ends = self.at(self.lengths - 1, np.arange(self.sizes[0]))
        return x.index_select(1, from_numpy(ends))

    def backwards(self, x: Tensor) -> Tensor:
        """The rows with every sequence read from its end."""
        steps, sequences = self.places
        turned = self.at(self.lengths[sequences] - 1 - steps, sequences)
        return x.index_select(1, from_numpy(turned))


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that leads back."""
    return None if permutation is None else permutation.argsort()


def _lengths(name: str, lengths: Any, steps: int, count: int) -> Any:
    """The lengths as an array, checked."""
    given = np.array(lengths.tolist() if isinstance(lengths, Tensor) else list(lengths))
    if given.shape != (count,) or (given < 1).any() or (given > steps).any():
        raise located(ShapeError(
            f"{name}: got the lengths {given.tolist()} for {count} sequences of at most {steps} "
            f"steps; there must be one length from 1 to {steps} for each"
        ))  # fmt: skip
    return given


def pack_padded_sequence(
    input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Packs (T, N, ...), or (N, T, ...) where ``batch_first``, without its padding.

    With ``enforce_sorted`` the lengths must not rise; without it the sequences are sorted.

    >>> import treadle
    >>> packed = pack_padded_sequence(treadle.zeros(3, 2, 4), [3, 1])
    >>> packed.batch_sizes.tolist(), tuple(packed.data.shape)
    ([2, 1, 1], (4, 4))
    """
    x = input.transpose(0, 1) if batch_first else input
    known = _lengths("pack_padded_sequence", lengths, x.shape[0], x.shape[1])
    order = np.argsort(-known, kind="stable")
    if enforce_sorted and (np.diff(known) > 0).any():
        raise located(ShapeError(
            f"pack_padded_sequence: got the lengths {known.tolist()}; they must not rise; sort the "
            f"sequences, the longest first, or pass enforce_sorted=False"
        ))  # fmt: skip
    sizes = tuple((known[None] > np.arange(known.max())[:, None]).sum(1).tolist())
    steps, sequences = Rows(sizes).places
    rows = from_numpy(steps * x.shape[1] + order[sequences])
    data = x.reshape(-1, *x.shape[2:]).index_select(0, rows)
    if enforce_sorted:
        return PackedSequence(data, from_numpy(np.array(sizes)))
    back = from_numpy(np.argsort(order))
    return PackedSequence(data, from_numpy(np.array(sizes)), from_numpy(order), back)


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(T, N, ...), or (N, T, ...) where ``batch_first``, with padding, and the lengths (N,).

    T is the longest length, or ``total_length``.
    """
    packed = Rows(tuple(sequence.batch_sizes.tolist()))
    lengths, count = packed.lengths, packed.sizes[0]
    longest = int(lengths.max())
    total = longest if total_length is None else total_length
    if total < longest:
        raise located(ShapeError(
            f"pad_packed_sequence: got total_length {total} for sequences of up to {longest} "
            f"steps; it must be at least that"
        ))  # fmt: skip
    data = sequence.data
    rows = np.full((total, count), data.shape[0])  # one row more: the padding
    steps, sequences = packed.places
    rows[steps, sequences] = np.arange(data.shape[0])
    if sequence.unsorted_indices is not None:
        order = np.array(sequence.unsorted_indices.tolist())
        rows, lengths = rows[:, order], lengths[order]
    rows = rows.T.copy() if batch_first else rows
    padding = full((1, *data.shape[1:]), padding_value, dtype=data.dtype)
    padded = cat([data, padding]).index_select(0, from_numpy(rows.reshape(-1)))
    return padded.reshape(*rows.shape, *data.shape[1:]), from_numpy(lengths)


def pad_sequence(
    sequences: Iterable[Tensor], batch_first: bool = False, padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:  # fmt: skip
    """Sequences (T_i, ...) as one tensor (T, N, ...), or (N, T, ...) where ``batch_first``."""
    items = list(sequences)
    if padding_side not in ("right", "left"):
        raise located(ValueError(
            f"pad_sequence: got padding_side {padding_side!r}; it is 'right' or 'left'"
        ))  # fmt: skip
    if not items or any(x.shape[1:] != items[0].shape[1:] for x in items):
        raise located(ShapeError(
            f"pad_sequence: got sequences of shapes {[tuple(x.shape) for x in items]}; there must "
            f"be at least one, and they may differ in the first size only"
        ))  # fmt: skip
    longest = max(x.shape[0] for x in items)
    padded = []
    for x in items:
        shape = (longest - x.shape[0], *x.shape[1:])
        padding = full(shape, padding_value, dtype=x.dtype)
        padded.append(cat([x, padding] if padding_side == "right" else [padding, x]))
    return stack(padded, 0 if batch_first else 1)


def unpad_sequence(
    padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False
) -> list[Tensor]:
    """The sequences that ``pad_sequence`` padded."""
    x = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    known = _lengths("unpad_sequence", lengths, x.shape[1], x.shape[0])
    return [x[i, :length] for i, length in enumerate(known.tolist())]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Packs sequences (T_i, ...)."""
    lengths = [x.shape[0] for x in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, False, enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences of a packed one."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)


__all__ = [
    "PackedSequence", "invert_permutation", "pack_padded_sequence", "pack_sequence",
    "pad_packed_sequence", "pad_sequence", "unpack_sequence", "unpad_sequence",
]  # fmt: skip
