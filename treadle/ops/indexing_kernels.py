"""The kernels that read and write at computed places (see ``ops.indexing``)."""

from __future__ import annotations

from collections.abc import Callable

from treadle.base import dtypes
from treadle.base.record import Record
from treadle.ir.loop import I64, Builder, Kernel, Operand, Pointer
from treadle.ir.nest import Nest, NestLoops, nest_kernel

_BLOCK = 512  # indices that are checked before they are used
_GROUP = 16  # indices checked side by side
_AT_ONCE = 8  # elements that a turn of a serial loop takes


def _beyond(k: Builder, number: Operand, size: Operand, wraps: bool) -> Operand:
    """Negative where the index is out of range."""
    first = k.add(number, size) if wraps else number
    return k.op("or", first, k.sub(k.sub(size, 1), number))


def _check_block(
    k: Builder, index: Pointer, lo: Operand, hi: Operand, size: Operand, wraps: bool
) -> None:
    """Fails where an index of the elements lo..hi is out of range."""
    signs = k.local(I64, _GROUP)

    def test(at: Operand, lane: Operand) -> None:
        beyond = _beyond(k, k.load(index, at), size, wraps)
        k.store(signs, lane, k.op("or", k.load(signs, lane), beyond))

    with k.loop(0, _GROUP, kind="vector") as lane:
        k.store(signs, lane, k.const(0, I64))
    whole = k.add(lo, k.op("and", k.sub(hi, lo), -_GROUP))
    with k.loop(lo, whole, _GROUP) as i, k.loop(0, _GROUP, kind="vector") as lane:
        test(k.add(i, lane), lane)
    with k.loop(whole, hi) as i:
        test(i, k.sub(i, whole))
    for half in (_GROUP // 2, _GROUP // 4, _GROUP // 8):
        with k.loop(0, half, kind="vector") as lane:
            other = k.load(signs, k.add(lane, half))
            k.store(signs, lane, k.op("or", k.load(signs, lane), other))
    for left in range(_GROUP // 8):
        with k.when(k.compare("lt", k.load(signs, left), 0)):
            k.fail(1)


def _place(k: Builder, index: Pointer, at: Operand, size: Operand, wraps: bool) -> Operand:
    """An index, counted from the front."""
    number = k.load(index, at)
    if not wraps:
        return number
    return k.add(number, k.op("and", k.op("shr", number, 63), size))


def _each(k: Builder, lo: Operand | int, hi: Operand, body: Callable[[Operand], None]) -> None:
    """``body`` for lo..hi in order, some at a time."""
    whole = k.add(k.op("and", k.sub(hi, lo), -_AT_ONCE), lo)
    with k.loop(lo, whole, _AT_ONCE) as first, k.loop(0, _AT_ONCE, kind="unrolled") as j:
        body(k.add(first, j))
    with k.loop(whole, hi) as i:
        body(i)


def read_kernel(short: str, wraps: bool, unit: bool, nest: Nest) -> Kernel:
    """out[place] = x[place + index[place] * step], where the index is in range.

    ``unit`` says that the step is 1.
    """
    dtype = dtypes.by_short(short)
    flags = "".join(c for c, on in zip("wu", (wraps, unit), strict=True) if on)
    k = Builder(f"read_at_{short}_{nest.rank}{nest.classes}_{nest.cut}{flags}")
    out, index, x = k.pointer("out", dtype), k.pointer("index", I64), k.pointer("x", dtype)
    size, step = k.size("size"), k.const(1, I64) if unit else k.size("step")
    loops = NestLoops(k, nest)
    last = nest.rank - 1
    lo, hi = loops.bounds[last]

    def slice_at(bases: list[Operand]) -> None:
        beyond = _beyond(k, k.load(index, bases[1]), size, wraps)
        with k.when(k.compare("lt", beyond, 0)):
            k.fail(1)
        start = k.add(bases[2], k.mul(_place(k, index, bases[1], size, wraps), step))
        with k.loop(lo, hi, kind="vector") as i:
            to, _, source = loops.moved([bases[0], bases[1], start], last, i)
            k.store(out, to, k.load(x, source))

    def elements(bases: list[Operand]) -> None:
        with k.loop(lo, hi, _BLOCK) as first:
            end = k.minimum(k.add(first, _BLOCK), hi)
            _check_block(k, index, k.add(bases[1], first), k.add(bases[1], end), size, wraps)
            _each(k, first, end, lambda i: element(loops.moved(bases, last, i)))

    def element(at: list[Operand]) -> None:
        source = k.add(at[2], k.mul(_place(k, index, at[1], size, wraps), step))
        k.store(out, at[0], k.load(x, source))

    loops.over(nest.order[:-1], slice_at if nest.classes[1] == "b" else elements)
    return k.kernel


class Write(Record):
    """What a writing kernel is made for."""

    target: str
    patch: str
    add: bool
    wraps: bool
    inside: bool  # the last axis lies inside the indexed one
    unit: bool  # a step along the indexed axis is 1 in all operands

    def element(
        self, k: Builder, memory: tuple[Pointer, Pointer], place: Operand, source: Operand
    ) -> None:
        """Writes one element of the patch."""
        target, patch = memory
        value = k.convert(k.load(patch, source), target.dtype)
        k.store(target, place, k.add(k.load(target, place), value) if self.add else value)

    def name(self, nest: Nest) -> str:
        """A name for kernels."""
        said = zip("wiu", (self.wraps, self.inside, self.unit), strict=True)
        flags = "".join(letter for letter, holds in said if holds)
        verb = "add" if self.add else "write"
        return f"{verb}_at_{self.patch}_{self.target}_{nest.rank}{nest.classes}_{nest.cut}{flags}"


def write_kernel(write: Write, nest: Nest) -> Kernel:
    """target[place + index[place] * step] = patch[place], or += where it adds.

    The loops run over all axes but the indexed one; that one is a serial loop, inside the last of
    them, or around it where the last axis lies inside the indexed one.
    """
    k = Builder(write.name(nest))
    target = k.pointer("target", dtypes.by_short(write.target))
    index, patch = k.pointer("index", I64), k.pointer("patch", dtypes.by_short(write.patch))
    size, count = k.size("size"), k.size("count")
    step, index_step, patch_step = (
        k.const(1, I64) if write.unit else k.size(name)
        for name in ("step", "index_step", "patch_step")
    )
    loops = NestLoops(k, nest)
    memory = (target, patch)

    def offset(at: Operand) -> Operand:
        return k.mul(_place(k, index, at, size, write.wraps), step)

    def each_index(bases: list[Operand]) -> None:
        def one(j: Operand) -> None:
            index_at = k.add(bases[1], k.mul(j, index_step))
            patch_at = k.add(bases[2], k.mul(j, patch_step))
            if write.inside:
                each_lane([bases[0], index_at, patch_at])
            else:
                write.element(k, memory, k.add(bases[0], offset(index_at)), patch_at)

        if write.inside:
            with k.loop(0, count) as j:
                one(j)
        else:
            _each(k, 0, count, one)

    def each_lane(bases: list[Operand]) -> None:
        last = nest.rank - 1
        shared = offset(bases[1]) if nest.classes[1] == "b" else None
        with k.loop(*loops.bounds[last], kind="vector") as i:
            place, own_index, source = loops.moved(bases, last, i)
            moved = offset(own_index) if shared is None else shared
            write.element(k, memory, k.add(place, moved), source)

    loops.over(nest.order[:-1] if write.inside else nest.order, each_index)
    return k.kernel


def cast_kernel(target: str, source: str, nest: Nest) -> Kernel:
    """A copy into another dtype."""
    pair = dtypes.by_short(target), dtypes.by_short(source)
    return nest_kernel(
        f"cast_{source}_{target}", pair, nest, lambda k, x: [k.convert(x[0], pair[0])]
    )


__all__ = ["Write", "cast_kernel", "read_kernel", "write_kernel"]
