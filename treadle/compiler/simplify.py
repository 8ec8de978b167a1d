"""What need not be computed: a value that another one equals bit for bit, or that nobody reads.

    neg(neg(x))              -> x
    convert(convert(x, f32)) -> x        of a bfloat16 x, say: widened and rounded back
    f(x, y), f(x, y)         -> f(x, y)  the same op of the same values with the same attributes
    add(x, y), add(y, x)     -> add(x, y)

What is kept is computed for itself, so that no two results share memory. Little else is the same
to the last bit: ``x * 0``, ``x + 0`` and ``x / c`` are not what they seem. A condition that nobody
reads may still raise, so ``where(c, x, x)`` stays.
"""

from __future__ import annotations

from typing import Any

from treadle.compiler.trace import Entry, Trace
from treadle.ir.op import Source


def simplify(trace: Trace) -> Trace:
    """The trace with a stand-in for every value that has one (``Trace.same``)."""
    same = list(range(trace.first, trace.first + len(trace.entries)))
    entries: list[Entry] = []
    known: dict[Any, int] = {}
    held = _held(trace)
    for entry in trace.entries:
        inputs = tuple([i if i < trace.first else same[i - trace.first] for i in entry.inputs])
        entry = entry._replace(inputs=inputs)
        position = len(entries)
        entries.append(entry)
        found = _simpler(entry, entries, trace)
        if found is None:
            found = known.setdefault(_key(entry), same[position])
        if same[position] not in held:
            same[position] = found
    simpler = trace._replace(entries=tuple(entries), same=tuple(same))
    return simpler._replace(same=_without_dead(simpler))


def _held(trace: Trace) -> set[int]:
    """Values whose memory somebody will hold: each gets its own, as without a program."""
    held = set()
    for position in range(len(trace.entries) - 1, -1, -1):
        sig, inputs, keep = trace.entries[position]
        value = trace.first + position
        if keep or value in held:
            held.add(value)
            if sig.is_view:
                held.update(inputs)
    return held


def _key(entry: Entry) -> Any:
    """Equal for entries with equal results."""
    sig, inputs, _ = entry
    if isinstance(sig.op.lower, Source):
        return object()
    return sig, tuple(sorted(inputs)) if "commutative" in sig.op.traits else inputs


def _simpler(entry: Entry, entries: list[Entry], trace: Trace) -> int | None:
    """The input that a value equals, if there is one."""
    sig, inputs, _ = entry
    name = sig.op.name
    if not inputs or inputs[0] < trace.first:
        return None
    before = entries[inputs[0] - trace.first]
    if name == "neg" == before.sig.op.name:
        return before.inputs[0]
    if name == "convert" == before.sig.op.name and sig.type is before.sig.inputs[0]:
        narrow, wide = sig.type.dtype, before.sig.type.dtype
        if wide.kind == narrow.kind == "f" and wide.bits >= 32 > narrow.bits:
            return before.inputs[0]
    return None


def _without_dead(trace: Trace) -> tuple[int, ...]:
    """``same`` with -1 for what nobody reads."""
    first = trace.first
    needed = {trace.stand_in(first + j) for j, e in enumerate(trace.entries) if e.keep}
    for value in range(first + len(trace.entries) - 1, first - 1, -1):
        if value in needed:
            needed.update(trace.entry(value).inputs)
    return tuple([
        v if v in needed or e.keep else -1 for v, e in zip(trace.same, trace.entries, strict=True)
    ])  # fmt: skip


__all__ = ["simplify"]
