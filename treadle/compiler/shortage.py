"""What to say where memory is short: who holds it, what the step needs, and which batch would fit.

The need is that of running operation by operation (``tier0``): what has the same number of bytes
takes turns in the same memory. A program of the same step needs less.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from treadle.base.errors import TreadleError
from treadle.base.record import Record
from treadle.compiler.ahead import Finder
from treadle.compiler.device import Device, Owners
from treadle.ir.launch import Layout
from treadle.ir.node import Leaf, Node, Signature, Type, describe_site

_SHOWN = 5  # owners
_SMALL = 1 << 20  # bytes of a workspace that does not depend on the batch
_LARGE = 0.5  # of what a step needs depends on the batch, or a smaller one is no help


class _Block(Record):
    """Memory that a step takes, and the first node that has it."""

    nbytes: int
    node: Node


class _Need(Record):
    """What a step needs: memory, the types of its data from outside (in use already), and the node
    with the largest result."""

    blocks: Sequence[_Block]
    data: tuple[Type, ...]
    largest: Node


def advice(nodes: Sequence[Node], free: dict[int, list[Any]], device: Device) -> str:
    """More of the text of a MemoryError in the evaluation of ``nodes`` (in order).

    ``free`` is the memory that this evaluation has finished with.
    """
    state = device.memory_state()
    text = _held(Owners.ask() if Owners.ask is not None else {})
    need = _need(nodes, device.threads(), device.vector_bits)
    own = {id(m): m for n in nodes for m in _memories(n)}
    own.update((id(m), m) for blocks in free.values() for m in blocks)
    for n in _outside(nodes):  # views show their memory too
        for m in _memories(n):
            own.pop(id(m), None)
    base = state.in_use - sum(device.block_bytes(m.nbytes) for m in own.values())
    whole = base + _total(need, device, 1, 1)
    line = describe_site(need.largest.site)
    text += (
        f"; the step needs {_pretty(whole)} in all, its largest result {need.largest.type} at "
        f"{line}"
    )
    batch = _batch_of(nodes, need)
    if batch is None or whole <= state.limit:
        return text
    fitting = _largest_fitting(
        batch, lambda part: base + _total(need, device, batch, part), state.limit
    )
    if fitting:
        return f"{text}; a batch of {fitting} instead of {batch} would fit"
    return f"{text}; not even a batch of 1 instead of {batch} would fit"


def _held(owners: dict[str, int]) -> str:
    large = sorted(owners.items(), key=lambda item: -item[1])[:_SHOWN]
    parts = ", ".join(f"{name} {_pretty(nbytes)}" for name, nbytes in large if nbytes)
    return f"; in use are {parts}" if parts else ""


def _memories(n: Node) -> Iterable[Any]:
    value = n.value
    if value is None:
        return ()
    return [v[0] for v in (value if type(value[0]) is tuple else (value,))]


def _need(nodes: Sequence[Node], threads: int, vector_bits: int) -> _Need:
    """Goes through the step as ``tier0`` does, with sizes instead of memory."""
    inside = set(nodes)
    root: dict[Node, Node] = {}
    last: dict[Node, int] = {}
    for position, n in enumerate(nodes):
        is_view = n.sig.is_view and n.inputs[0] in inside
        root[n] = root[n.inputs[0]] if is_view else n
        for i in n.inputs:
            if i in inside:
                last[root[i]] = position
        if n.keep:
            last[root[n]] = len(nodes)
    ends: dict[int, list[Node]] = {}
    for n, position in last.items():
        ends.setdefault(position, []).append(n)
    planner = _Planner(threads, vector_bits)
    free: Counter[int] = Counter()
    blocks: list[_Block] = []
    for position, n in enumerate(nodes):
        planner.visit(n)
        workspaces = planner.workspaces
        sizes = () if n.sig.is_view else tuple(kind.nbytes for kind in n.sig.types)
        for nbytes in (*sizes, *workspaces):
            if free[nbytes]:
                free[nbytes] -= 1
            else:
                blocks.append(_Block(nbytes, n))
        free.update(workspaces)
        for done in ends.get(position, ()):
            if not done.sig.is_view:  # else of something from outside
                free.update(kind.nbytes for kind in done.sig.types)
    largest = max(nodes, key=lambda n: 0 if n.sig.is_view else n.sig.nbytes)
    return _Need(blocks, _data(nodes), largest)


class _Planner(Finder):
    """Finds the bytes of the workspaces of the node visited last."""

    workspaces: tuple[int, ...] = ()

    def visit(self, node: Node) -> None:
        """Plans the node, unless it is prepared."""
        self.workspaces = ()
        sig = node.sig
        known = None
        if not sig.is_view:
            known = sig.plans.get((self.threads, tuple([self.layout(i) for i in node.inputs])))
        if known is not None:
            self.workspaces = known.workspaces
        else:
            super().visit(node)

    def plan(self, sig: Signature, layouts: tuple[Layout, ...]) -> None:
        """Plans what is not prepared yet."""
        from treadle.compiler import lower  # the code generators, when first needed

        outputs = [kind.layout for kind in sig.types]
        with suppress(MemoryError, TreadleError):
            found = lower.plan(sig.op, sig.attrs, layouts, outputs, self.threads, self.vector_bits)
            self.workspaces = found.workspaces


def _data(nodes: Sequence[Node]) -> tuple[Type, ...]:
    """The types of what comes from outside and is no parameter."""
    outside = _outside(nodes)
    return tuple(n.type for n in outside if isinstance(n.type, Type) and not isinstance(n, Leaf))


def _outside(nodes: Sequence[Node]) -> Iterable[Node]:
    """What a step reads that it does not make."""
    outside = {i: None for n in nodes for i in n.inputs}
    for n in nodes:
        outside.pop(n, None)
    return outside


def _total(need: _Need, device: Device, batch: int, part: int) -> int:
    """The bytes of a step where ``part`` is left of a ``batch``."""
    total = 0
    for nbytes, n in need.blocks:
        if part != batch and _grows(nbytes, n, batch):
            nbytes = -(-nbytes * part // batch)
        total += device.block_bytes(nbytes)
    return total - sum(k.nbytes - k.nbytes * part // batch for k in need.data if _has(k, batch))


def _grows(nbytes: int, n: Node, batch: int) -> bool:
    """True where memory of a node is the larger the larger the batch."""
    for kind in n.sig.types:
        if kind.nbytes == nbytes:
            return _has(kind, batch)
    return nbytes > _SMALL and any(_has(kind, batch) for kind in n.sig.inputs)  # a workspace


def _leading(kind: Type) -> int:
    """The first size that is not 1."""
    return next((n for n in kind.shape if n != 1), 1)


def _has(kind: Type, batch: int) -> bool:
    return _leading(kind) % batch == 0 and kind.size >= batch


def _batch_of(nodes: Sequence[Node], need: _Need) -> int | None:
    """The leading size of the data from outside that most of the memory depends on, if any."""
    parameters = {_leading(i.type) for n in nodes for i in n.inputs if isinstance(i, Leaf)}
    sizes = {_leading(kind) for kind in need.data}
    candidates = [s for s in sizes if s > 1 and s not in parameters] or [s for s in sizes if s > 1]
    best: int | None = None
    most = _LARGE * sum(nbytes for nbytes, _ in need.blocks)
    for size in sorted(candidates, reverse=True):
        depends = sum(nbytes for nbytes, n in need.blocks if _grows(nbytes, n, size))
        if depends > most:
            best, most = size, depends
    return best


def _largest_fitting(batch: int, needs: Any, limit: int) -> int:
    """The largest batch below ``batch`` whose need is within the limit; 0 where there is none."""
    low, high = 0, batch
    while high - low > 1:
        middle = (low + high) // 2
        if needs(middle) <= limit:
            low = middle
        else:
            high = middle
    return low


def _pretty(nbytes: float) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if nbytes >= unit:
            return f"{nbytes / unit:.1f} {name}"
    return f"{nbytes:.0f} bytes"


__all__ = ["advice"]
