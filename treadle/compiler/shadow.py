"""``TREADLE_CHECK=shadow``: every program is run again op by op, and the bits are compared.

The operations run first, one by one, and what is kept of them is copied; then the program runs as
it always does. A difference is a defect of Treadle, told with the operation and the user's line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from treadle.base.errors import EvaluationError
from treadle.base.lazy_numpy import np
from treadle.compiler.device import array_at
from treadle.ir.node import Node, describe_site

Array = Any
_SHOWN = 3  # elements told of a value that differs


class Shadow:
    """What the operations of a graph give one by one, to compare a program's results with.

    Args:
        nodes: the graph, in order. They have no values afterwards, as before.
        externals: what it reads; their values stay.
        run: gives the nodes their values op by op; False where an operation failed.
    """

    def __init__(
        self, nodes: Sequence[Node], externals: Sequence[Node], run: Callable[[], bool]
    ) -> None:
        self._nodes = nodes
        self._expected: list[tuple[Node, list[Array]]] = []
        # With references of their own to the memories, or op by op they would be handed on.
        outside = [(n, n.value, _memories(n.value)) for n in externals]
        try:
            self.succeeded = run()
            if self.succeeded:
                self._expected = [(n, _arrays(n)) for n in nodes if n.keep and n.value is not None]
        finally:
            self.forget()
            for n, value, _ in outside:
                n.set_value(value)

    def forget(self) -> None:
        """Takes all values of the graph away."""
        for n in self._nodes:
            n.set_value(None)
            n.error = None

    def compare(self) -> None:
        """Raises EvaluationError for the first node whose value has other bits than here."""
        for n, expected in self._expected:
            if n.value is None:
                difference = "it is kept, and the program gave it no value"
            else:
                found = _arrays(n)
                differences = map(_difference, found, expected)
                difference = next(filter(None, differences), "")
            if difference:
                self.forget()
                raise EvaluationError(
                    f"{n.op.name}: the program of this step differs from its operations run one "
                    f"by one, {n.type}: {difference}; this is a defect: please report it, and set "
                    f"TREADLE_PROGRAMS=off to go on without programs [{describe_site(n.site)}]"
                )


def _values(value: Any) -> Any:
    """The values of a node, one for each result."""
    return value if isinstance(value[0], tuple) else (value,)


def _memories(value: Any) -> list[Any]:
    return [memory for memory, _, _ in _values(value)]


def _arrays(n: Node) -> list[Array]:
    return [array_at(*value).copy() for value in _values(n.value)]


def _difference(found: Array, wanted: Array) -> str:
    """Where two arrays have different bits (all NaNs being equal), in words."""
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return f"{found.dtype}{list(found.shape)} instead of {wanted.dtype}{list(wanted.shape)}"
    bits = np.dtype(f"u{found.dtype.itemsize}")
    differs = np.ascontiguousarray(found).view(bits) != np.ascontiguousarray(wanted).view(bits)
    if not differs.any():
        return ""
    differs = differs.reshape(found.shape)
    differs &= (found == found) | (wanted == wanted)  # a NaN is no number, itself included
    where = np.argwhere(differs)
    shown = ", ".join(
        f"{found[tuple(i)]!s} instead of {wanted[tuple(i)]!s} at {[int(k) for k in i]}"
        for i in where[:_SHOWN]
    )
    return f"{len(where)} of {found.size} elements differ: {shown}" if len(where) else ""


__all__ = ["Shadow"]
