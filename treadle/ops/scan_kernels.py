"""The kernels behind ``scan.py``: running results along one axis, in chunks of 1024 elements.

Seen as (outer, n, inner), the scanned axis is cut into chunks. Inside a chunk a *chain* of states
runs from its first element to its last; the results of later chunks are the chain's states merged
with the *carry*, the state of all chunks before. Chains do not depend on each other, so several of
them go side by side, whatever they belong to: as steps written out one after the other
(``chains_kernel``), or as the lanes of vectors where the inner elements lie together
(``lanes_kernel``). An axis of more than one chunk takes three rounds: the last state of every
chunk, the carries from left to right, and the results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.record import Record
from treadle.base.shapes import prod
from treadle.ir.launch import Argument, In, KernelSpec, Launch, Layout, Out, Plan, Work
from treadle.ir.loop import BEGIN, END, I64, Builder, Kernel, Operand, Pointer
from treadle.ops import mathlib
from treadle.ops.scan import accumulated

CHUNK = 1024  # elements of a chunk: part of what the results are
_SHORT = 4  # chains written out side by side: enough to hide the time that one step takes
_LONG = 8  # chains of a costly step, which is computed for all of them as one vector
_WIDTH = 512  # inner elements that are lanes of one block
_LANES = 16  # the fewest inner elements for which they are

State = tuple[Operand, ...]


class Scan(Record):
    """The rules of a scan.

    ``states(dtype)`` gives the dtypes of a state. ``lift(k, elements, i)`` makes one of the
    elements at position ``i``; ``merge(k, a, b)`` joins two, ``a`` coming before ``b``;
    ``finish(k, state)`` gives the results. ``is_costly``: merging takes many statements.
    ``is_exact``: merging is associative to the last bit, so that a chain may start with its carry.
    """

    states: Callable[[DType], tuple[DType, ...]]
    lift: Callable[[Builder, Sequence[Operand], Operand], State]
    merge: Callable[[Builder, State, State], State]
    finish: Callable[[Builder, State], State]
    is_costly: bool = False
    is_exact: bool = False


# --- rules ----------------------------------------------------------------------------------------


def _wide(dtype: DType) -> DType:
    """What states are kept in: float32 for 16-bit floats."""
    return dtypes.float32 if dtype.kind == "f" and dtype.bits == 16 else dtype


def _running(statement: str) -> Scan:
    """Sums and products."""
    return Scan(
        states=lambda dtype: (_wide(accumulated(dtype)),),
        lift=lambda k, x, i: (k.convert(x[0], _wide(accumulated(x[0].dtype))),),
        merge=lambda k, a, b: (k.op(statement, a[0], b[0]),),
        finish=lambda k, state: state,
    )


def _extreme(statement: str) -> Scan:
    """Extrema and their positions: of equal elements the last, and NaN beats all numbers."""

    def merge(k: Builder, a: State, b: State) -> State:
        takes = k.op(statement, b[0], a[0])
        if a[0].dtype.kind == "f":
            takes = k.op("or", takes, k.op("ne", b[0], b[0]))
        return k.select(takes, b[0], a[0]), k.select(takes, b[1], a[1])

    return Scan(
        states=lambda dtype: (_wide(dtype), I64),
        lift=lambda k, x, i: (k.convert(x[0], _wide(x[0].dtype)), i),
        merge=merge,
        finish=lambda k, state: state,
        is_exact=True,
    )


def _merge_exponentials(k: Builder, a: State, b: State) -> State:
    """(m, s) stands for s * exp(m): the larger m stays, the other's s is scaled to it."""
    high, low = k.maximum(a[0], b[0]), k.minimum(a[0], b[0])
    same = k.op("eq", high, low)  # infinities too, whose difference is NaN
    factor = k.select(same, k.const(1.0, high.dtype), mathlib.exp(k, k.sub(low, high)))
    first = k.op("eq", a[0], high)
    larger, smaller = k.select(first, a[1], b[1]), k.select(first, b[1], a[1])
    return high, k.add(larger, k.mul(smaller, factor))


_LOG_SUM = Scan(
    states=lambda dtype: (_wide(dtype),) * 2,
    lift=lambda k, x, i: (k.convert(x[0], _wide(x[0].dtype)), k.const(1.0, _wide(x[0].dtype))),
    merge=_merge_exponentials,
    finish=lambda k, state: (k.add(state[0], mathlib.log(k, state[1])),),
    is_costly=True,
)
_RECURRENCE = Scan(
    states=lambda dtype: (_wide(dtype),) * 2,
    lift=lambda k, x, i: tuple(k.convert(element, _wide(element.dtype)) for element in x),
    # h -> a1 h + b1 -> a2 (a1 h + b1) + b2
    merge=lambda k, a, b: (k.mul(a[0], b[0]), k.fma(b[0], a[1], b[1])),
    finish=lambda k, state: (state[1],),
)
RULES = {
    "cumsum": _running("add"), "cumprod": _running("mul"), "cummax": _extreme("ge"),
    "cummin": _extreme("le"), "logcumsumexp": _LOG_SUM, "linear_recurrence": _RECURRENCE,
}  # fmt: skip


# --- kernels --------------------------------------------------------------------------------------


class _Body:
    """What the kernels share: parameters, and where chains, carries and elements lie."""

    def __init__(
        self, kind: str, name: str, shorts: tuple[str, ...], outs: tuple[str, ...],
        carried: bool, step: int, is_single: bool,
    ) -> None:  # fmt: skip
        self.rules = RULES[name]
        self.k = k = Builder(f"{name}_{kind if outs else 'totals'}_{shorts[0]}")
        sources = [dtypes.by_short(short) for short in shorts]
        self.states = self.rules.states(sources[0])
        self.is_final, self.carried = bool(outs), carried
        self.targets = [k.pointer(f"out{i}", dtypes.by_short(s)) for i, s in enumerate(outs)]
        self.sources = [k.pointer(f"x{i}", dtype) for i, dtype in enumerate(sources)]
        has_table = carried or not outs
        self.table = [k.pointer(f"t{i}", d) for i, d in enumerate(self.states) if has_table]
        self.n = k.size("n")
        self.inner: Operand = k.const(1, I64) if abs(step) == 1 else k.size("inner")
        self.step = k.const(step, I64) if step else k.size("step")
        self.origin = k.size("origin")
        self.per_row = k.const(1, I64) if is_single else k.size("per_row")
        self.first, self.length, self.slots = k.size("first"), k.size("length"), k.size("slots")

    def chain(
        self, around: Operand, chunk: Operand, column: Operand
    ) -> tuple[Operand, Operand, Operand]:
        """(place of the first element, slot in the table, position of the first element)."""
        k = self.k
        chunk = k.add(self.first, chunk)
        base = k.add(k.add(k.mul(around, k.mul(self.n, self.inner)), column), self.origin)
        position = k.mul(chunk, CHUNK)
        slot = k.add(k.mul(k.add(k.mul(around, self.slots), chunk), self.inner), column)
        return k.add(base, k.mul(position, self.step)), slot, position

    def load(self, places: Sequence[Pointer], index: Operand) -> State:
        """A state."""
        return tuple(self.k.load(place, index) for place in places)

    def store(self, places: Sequence[Pointer], index: Operand, values: State) -> None:
        """Writes a state or results, rounded to what the places hold."""
        for place, value in zip(places, values, strict=True):
            self.k.store(place, index, self.k.convert(value, place.dtype))

    def step_of(
        self, state: tuple[Sequence[Pointer], Operand], carry: tuple[Sequence[Pointer], Operand],
        elements: Sequence[Operand], i: Operand, is_first: bool,
    ) -> State:  # fmt: skip
        """One step of a chain whose state and carry lie at these places; gives the results."""
        k, rules = self.k, self.rules
        here = rules.lift(k, elements, i)
        if not is_first:
            here = rules.merge(k, self.load(*state), here)
        elif self.carried and rules.is_exact:
            here = rules.merge(k, self.load(*carry), here)
        self.store(*state, here)
        if self.carried and not rules.is_exact:
            here = rules.merge(k, self.load(*carry), here)
        return rules.finish(k, here) if self.is_final else ()

    def locals(self, size: int) -> list[Pointer]:
        """Scratch for states."""
        return [self.k.local(dtype, size) for dtype in self.states]


def divmod_(k: Builder, a: Operand, b: Operand) -> tuple[Operand, Operand]:
    """Quotient and remainder; nothing to compute for b = 1."""
    quotient = k.div(a, b)
    return quotient, (k.const(0, I64) if quotient is a else k.rem(a, b))


def chains_kernel(
    name: str, shorts: tuple[str, ...], outs: tuple[str, ...], carried: bool, step: int,
    is_single: bool, lanes: int,
) -> Kernel:  # fmt: skip
    """A unit is ``lanes`` chains; the last unit overlaps the one before."""
    body = _Body("chains", name, shorts, outs, carried, step, is_single)
    k = body.k
    chains = k.size("chains")
    bases, positions, slots = (k.local(I64, lanes) for _ in range(3))
    state, carry = body.locals(lanes), body.locals(lanes) if carried else []
    seen = [k.local(p.dtype, lanes) for p in body.sources]
    found = [k.local(p.dtype, lanes) for p in body.targets]

    def cheap_step(i: Operand, is_first: bool) -> None:
        offset = k.mul(i, body.step)
        with k.loop(0, lanes, kind="unrolled") as lane:
            at = k.add(k.load(bases, lane), offset)
            elements = [k.load(x, at) for x in body.sources]
            position = k.add(k.load(positions, lane), i)
            results = body.step_of((state, lane), (carry, lane), elements, position, is_first)
            body.store(body.targets, at, results)

    def costly_step(i: Operand, is_first: bool) -> None:
        offset = k.mul(i, body.step)
        with k.loop(0, lanes, kind="unrolled") as lane:
            at = k.add(k.load(bases, lane), offset)
            body.store(seen, lane, tuple(k.load(x, at) for x in body.sources))
        with k.loop(0, lanes, kind="vector") as lane:
            elements, position = body.load(seen, lane), k.add(k.load(positions, lane), i)
            results = body.step_of((state, lane), (carry, lane), elements, position, is_first)
            body.store(found, lane, results)
        with k.loop(0, lanes, kind="unrolled") as lane:
            at = k.add(k.load(bases, lane), offset)
            body.store(body.targets, at, body.load(found, lane))

    with k.loop(BEGIN, END) as unit:
        start = k.minimum(k.mul(unit, lanes), k.sub(chains, lanes))
        with k.loop(0, lanes, kind="unrolled") as lane:
            row, chunk = divmod_(k, k.add(start, lane), body.per_row)
            around, column = divmod_(k, row, body.inner)
            base, slot, position = body.chain(around, chunk, column)
            k.store(bases, lane, base)
            k.store(slots, lane, slot)
            k.store(positions, lane, position)
            if carried:
                body.store(carry, lane, body.load(body.table, slot))
        advance = costly_step if body.rules.is_costly else cheap_step
        advance(k.const(0, I64), True)
        with k.loop(1, body.length) as i:
            advance(i, False)
        if not body.is_final:
            with k.loop(0, lanes, kind="unrolled") as lane:
                following = k.add(k.load(slots, lane), body.inner)
                body.store(body.table, following, body.load(state, lane))
    return k.kernel


def lanes_kernel(
    name: str, shorts: tuple[str, ...], outs: tuple[str, ...], carried: bool, step: int,
    is_single: bool,
) -> Kernel:  # fmt: skip
    """A unit is the chains of a block of inner elements, which are the lanes."""
    body = _Body("lanes", name, shorts, outs, carried, step, is_single)
    k = body.k
    width = k.size("width")
    blocks = k.div(k.add(body.inner, k.sub(width, 1)), width)
    state = body.locals(_WIDTH)
    with k.loop(BEGIN, END) as unit:
        number, block = divmod_(k, unit, blocks)
        left = k.mul(block, width)
        used = k.minimum(width, k.sub(body.inner, left))
        around, chunk = divmod_(k, number, body.per_row)
        base, slot, begin = body.chain(around, chunk, left)

        def step_of_all(i: Operand, is_first: bool) -> None:
            start = k.add(base, k.mul(i, body.step))
            with k.loop(0, used, kind="vector") as lane:
                at = k.add(start, lane)
                elements = [k.load(x, at) for x in body.sources]
                carry, position = (body.table, k.add(slot, lane)), k.add(begin, i)
                results = body.step_of((state, lane), carry, elements, position, is_first)
                body.store(body.targets, at, results)

        step_of_all(k.const(0, I64), is_first=True)
        with k.loop(1, body.length) as i:
            step_of_all(i, is_first=False)
        if not body.is_final:
            following = k.add(slot, body.inner)
            with k.loop(0, used, kind="vector") as lane:
                body.store(body.table, k.add(following, lane), body.load(state, lane))
    return k.kernel


def carry_kernel(name: str, short: str) -> Kernel:
    """A unit is a row of the table: chunk totals in slots 1, 2, ... become the carries of these."""
    rules = RULES[name]
    k = Builder(f"{name}_carries_{short}")
    table = [k.pointer(f"t{i}", d) for i, d in enumerate(rules.states(dtypes.by_short(short)))]
    inner, slots = k.size("inner"), k.size("slots")
    with k.loop(BEGIN, END) as row:
        around, column = divmod_(k, row, inner)
        base = k.add(k.mul(around, k.mul(slots, inner)), column)
        with k.loop(2, slots) as slot:
            at = k.add(base, k.mul(slot, inner))
            before, here = (
                tuple(k.load(place, i) for place in table) for i in (k.sub(at, inner), at)
            )
            for place, value in zip(table, rules.merge(k, before, here), strict=True):
                k.store(place, at, value)
    return k.kernel


# --- plans ----------------------------------------------------------------------------------------


class _Chains(Record):
    """Chains of one length: chunks ``first`` .. ``first + per_row`` of every row."""

    first: int
    per_row: int
    length: int


class _Shape(Record):
    """The scanned array as (outer, n, inner)."""

    outer: int
    n: int
    inner: int
    reverse: bool

    @property
    def chunks(self) -> int:
        return -(-self.n // CHUNK)


def scan_plan(
    name: str, inputs: Sequence[Layout], outputs: Sequence[Layout], attrs: dict[str, Any],
    threads: int,
) -> Plan:  # fmt: skip
    """How a scan of contiguous inputs becomes launches."""
    sizes, axis = inputs[0].shape, attrs["axis"]
    if prod(sizes) == 0:
        return Plan(())
    shape = _Shape(
        prod(sizes[:axis]), sizes[axis], prod(sizes[axis + 1 :]), attrs.get("reverse", False)
    )
    shorts = tuple(x.dtype.short for x in inputs)
    outs = tuple(out.dtype.short for out in outputs)
    if shape.chunks == 1:
        chains = _Chains(0, 1, shape.n)
        return Plan((_launch(name, shorts, outs, shape, chains, False, threads),))
    full, rest = divmod(shape.n, CHUNK)
    launches = [
        _launch(name, shorts, (), shape, _Chains(0, shape.chunks - 1, CHUNK), False, threads),
        _carries(name, shorts[0], shape),
        _launch(name, shorts, outs, shape, _Chains(0, 1, CHUNK), False, threads),
    ]
    later = [_Chains(1, full - 1, CHUNK), _Chains(full, 1, rest)]
    launches += [
        _launch(name, shorts, outs, shape, chains, True, threads)
        for chains in later
        if chains.per_row and chains.length
    ]
    states = RULES[name].states(inputs[0].dtype)
    slots = shape.outer * shape.inner * shape.chunks
    return Plan(tuple(launches), tuple(dtype.itemsize * slots for dtype in states))


def _carries(name: str, short: str, shape: _Shape) -> Launch:
    rows = shape.outer * shape.inner
    arguments = (*_table(name, short), shape.inner, shape.chunks)
    return Launch(KernelSpec(carry_kernel, (name, short)), arguments, rows, rows * shape.chunks)


def _table(name: str, short: str) -> tuple[Argument, ...]:
    return tuple(Work(i) for i in range(len(RULES[name].states(dtypes.by_short(short)))))


def _launch(
    name: str, shorts: tuple[str, ...], outs: tuple[str, ...], shape: _Shape, chains: _Chains,
    carried: bool, threads: int,
) -> Launch:  # fmt: skip
    """The launch of these chains: the states they end with, or (with ``outs``) the results."""
    stride = -shape.inner if shape.reverse else shape.inner
    in_lanes = shape.inner >= _LANES
    step = stride if shape.inner == 1 else 0
    is_single = chains.per_row == 1
    pointers: tuple[Argument, ...] = (*map(Out, range(len(outs))), *map(In, range(len(shorts))))
    if carried or not outs:
        pointers += _table(name, shorts[0])
    numbers = [shape.n, *(() if step else (shape.inner, stride))]
    numbers.append((shape.n - 1) * shape.inner if shape.reverse else 0)
    numbers += () if is_single else (chains.per_row,)
    numbers += chains.first, chains.length, shape.chunks
    key = (name, shorts, outs, carried, step, is_single)
    rows = shape.outer * chains.per_row
    work = rows * shape.inner * chains.length * (20 if RULES[name].is_costly else 2)
    if in_lanes:
        blocks = max(-(-shape.inner // _WIDTH), min(-(-threads // rows), shape.inner // _LANES))
        width = -(-shape.inner // (blocks * _LANES)) * _LANES
        units = rows * -(-shape.inner // width)
        return Launch(KernelSpec(lanes_kernel, key), (*pointers, *numbers, width), units, work)
    count = rows * shape.inner
    lanes = _LONG if RULES[name].is_costly else _SHORT
    lanes = lanes if count >= lanes else 1
    spec = KernelSpec(chains_kernel, (*key, lanes))
    return Launch(spec, (*pointers, *numbers, count), -(-count // lanes), work)


__all__ = ["CHUNK", "RULES", "Scan", "divmod_", "scan_plan"]
