"""Which nodes become one kernel.

A *group* is elementwise nodes over one space of elements, and reductions over the same axes of it,
that are computed together: what passes between them stays in registers, or in a row in the cache.
Three kinds: a *map* has no reduction (and may ride on a contraction, its *head*); *rows* have, and
use the results for the elements of the same row; a *sum* has reductions whose results are used by
others only (long rows are cut for all threads, and outputs that lie side by side are the lanes).

Fusing changes no bit: every node is still its own arithmetic, rounded to its own dtype, and every
sum has its one order. Views cost nothing: a group reads through their strides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from treadle.base.record import Record
from treadle.base.shapes import Shape, contiguous_strides, prod
from treadle.compiler.prepare import seen_through
from treadle.compiler.trace import Entry, Trace
from treadle.ir.launch import Layout
from treadle.ir.op import Bundle, Elementwise, Reduction

_MOST_STEPS = 48  # nodes of a group: kernels are to compile quickly
_MOST_OPERANDS = 24  # inputs of its nodes and results
_WINDOW = 4000  # how far back a group reaches
_ROW_BYTES = 1 << 19  # elements of a row (of 8 bytes) that stay in a second-level cache
_FEW = 1 << 15  # elements that one thread may as well do


class Access(Record):
    """A value as it lies in what its views look at: ``offset`` elements into ``root``."""

    root: int
    layout: Layout
    offset: float  # a whole number but for complex numbers


class Space(Record):
    """The elements of a group: its shape and, once it has a reduction, the reduced axes."""

    shape: Shape
    axes: tuple[int, ...] | None

    @property
    def kept(self) -> Shape:
        """The sizes of the axes that are not reduced."""
        return tuple(n for a, n in enumerate(self.shape) if a not in (self.axes or ()))

    def is_full(self, layout: Layout) -> bool:
        """True where a row-major value of the space is read element by element."""
        return layout.shape == self.shape and layout.is_contiguous

    def is_row(self, layout: Layout) -> bool:
        """True where a row value is read by every element of its row, or row by row."""
        if self.axes is None:
            return False
        if layout.shape == self.shape:
            steps = iter(contiguous_strides(self.kept))
            wanted = [0 if a in self.axes else next(steps) for a in range(len(self.shape))]
            return all(
                n == 1 or s == w for n, s, w in zip(self.shape, layout.strides, wanted, strict=True)
            )
        return self.is_row_shape(layout.shape) and layout.is_contiguous

    def is_row_shape(self, shape: Shape) -> bool:
        """True for the shape of a value with one element for each row."""
        return [n for n in shape if n != 1] == [n for n in self.kept if n != 1]


class Group:
    """Entries that are computed together."""

    __slots__ = ("entries", "full", "head", "space", "uses_results")

    def __init__(self, space: Space) -> None:
        self.space = space
        self.entries: list[int] = []
        self.full: dict[int, bool] = {}  # value -> has it an element for each of the space
        self.uses_results = False  # may elements read the reductions' results
        self.head: int | None = None  # the contraction that a map rides on

    def __str__(self) -> str:
        """Its kind and its space, such as ``rows (64, 100) over (1,)``."""
        axes = self.space.axes
        over = "" if axes is None else f" over {axes}"
        return f"{self.kind} {self.space.shape}{over}"

    @property
    def kind(self) -> str:
        """What becomes of it: a map, an epilogue, rows or a sum."""
        if self.head is not None:
            return "epilogue"
        return "map" if self.space.axes is None else "rows" if self.uses_results else "sum"

    @property
    def first(self) -> int:
        """The entry recorded first."""
        return min(self.entries)


class Fusion:
    """A trace with the groups of its entries; values are numbered as there."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.start = trace.first
        self.access: list[Access | None] = []  # None for a tuple of values
        self.group_of: dict[int, Group] = {}
        for value, layout in enumerate((*trace.externals, *trace.scalars)):
            single = isinstance(layout, Layout)
            self.access.append(Access(value, layout, 0) if single else None)
        for entry in trace.entries:
            self.access.append(self._access_of(entry))

    def entry(self, value: int) -> Entry:
        """The entry that makes a value."""
        return self.trace.entries[value - self.start]

    def root(self, value: int) -> int:
        """What a value looks at, itself where it is no view."""
        access = self.access[value]
        return self.trace.stand_in(value) if access is None else access.root

    def roots(self, value: int) -> list[int]:
        """What lies in memory of a value: what it looks at, and for a tuple every part."""
        todo, found = [value], []
        while todo:
            value = todo.pop()
            if value >= self.start and isinstance(self.entry(value).sig.op.lower, Bundle):
                todo += self.entry(value).inputs
            else:
                found.append(self.root(value))
        return found

    def groups(self) -> list[Group]:
        """The groups, in the order of their first entries."""
        return sorted(set(self.group_of.values()), key=lambda group: group.first)

    def join(self, group: Group, value: int, level: bool) -> None:
        """Makes a value a member, with an element for each of the space or one for each row."""
        group.entries.append(value)
        group.full[value] = level
        self.group_of[value] = group

    def group_of_input(self, value: int) -> Group | None:
        """The group that computes what a value looks at."""
        access = self.access[value]
        return None if access is None else self.group_of.get(access.root)

    def depend_on(self, values: Iterable[int], group: Group) -> bool:
        """True where one of the values waits for a result of the group by way of others."""
        first = group.first
        todo = list(values)
        seen: set[int] = set()
        while todo:
            value = todo.pop()
            owner = self.group_of.get(value)
            last = value if owner is None else owner.entries[-1]
            if last < first or value in seen or value < self.start:
                continue
            seen.add(value)
            if owner is group:
                return True
            if owner is None:
                todo += self.entry(value).inputs
                continue
            for member in owner.entries:
                seen.add(member)
                todo += (i for i in self.entry(member).inputs if self.group_of.get(i) is not owner)
        return False

    def _access_of(self, entry: Entry) -> Access | None:
        value, sig = len(self.access), entry.sig
        stand_in = self.trace.stand_in(value)
        if stand_in != value:
            return self.access[stand_in] if stand_in >= 0 else None
        if isinstance(sig.op.lower, Bundle):
            return None
        if not sig.is_view:
            return Access(value, sig.type.layout, 0) if sig.type is sig.types[0] else None
        out = sig.types[0]
        source = entry.inputs[0]
        if "project" in sig.op.traits:
            return self._projected(value, source, sig.attrs["index"], out.layout)
        access = self.access[source]
        if access is None:
            return None
        seen = seen_through(sig, access.layout)
        if seen is None:
            return Access(value, out.layout, 0)
        # A view as pairs of numbers, or of such pairs, counts in elements of another size; the pair
        # may begin with what is the second half of one, which no kernel has to know.
        nbytes, size = int(access.offset * access.layout.dtype.itemsize), out.dtype.itemsize
        start = nbytes / size if nbytes % size else nbytes // size
        return Access(access.root, seen[0], start + seen[1])

    def _projected(self, value: int, source: int, index: int, layout: Layout) -> Access | None:
        """One of several results: a root of its own."""
        if source < self.start:
            return Access(value, self.trace.externals[source][index], 0)
        entry = self.entry(source)
        if isinstance(entry.sig.op.lower, Bundle):
            return self.access[entry.inputs[index]]
        return Access(value, layout, 0)


def fuse(trace: Trace) -> Fusion:
    """The trace with its groups."""
    fuser = _Fuser(trace)
    for value in trace.computed():
        fuser.place(value)
    return fuser


class _Fuser(Fusion):
    """Makes the groups."""

    def place(self, value: int) -> None:
        """Finds the group of a value, or begins one."""
        entry = self.entry(value)
        sig = entry.sig
        if "project" in sig.op.traits:
            group = self.group_of.get(entry.inputs[0])
            if group is not None:  # a result of a reduction of the group
                self.join(group, value, False)
            return
        lower = sig.op.lower
        if not isinstance(lower, (Elementwise, Reduction)) or any(
            self.access[i] is None for i in entry.inputs
        ):
            return
        if any(t.size == 0 for t in (*sig.inputs, *sig.types)) or not sig.inputs:
            return
        for group in self._candidates(entry):
            level = self._level_in(group, entry)
            if level is not None and self._fits(group, value, entry):
                if isinstance(lower, Reduction):
                    self._reduce_in(group, entry.sig.attrs["axes"])
                self.join(group, value, level)
                self._merge_others(group, entry)
                return
        if isinstance(lower, Reduction):
            group = Group(Space(sig.inputs[0].shape, None))
            self._reduce_in(group, sig.attrs["axes"])
            self.join(group, value, False)
        else:
            self.join(Group(Space(sig.types[0].shape, None)), value, True)

    def _candidates(self, entry: Entry) -> Iterator[Group]:
        """The groups of its inputs, the latest first."""
        seen = []
        for i in reversed(entry.inputs):
            group = self.group_of_input(i)
            if group is not None and group not in seen:
                seen.append(group)
        return iter(seen)

    def _level_in(self, group: Group, entry: Entry) -> bool | None:
        """True (full) or False (row) where the entry can be computed in the group, else None."""
        space = group.space
        if isinstance(entry.sig.op.lower, Reduction):
            access = self.access[entry.inputs[0]]
            axes = entry.sig.attrs["axes"]
            usable = (
                access is not None
                and group.full.get(access.root, False)
                and access.offset == 0
                and space.is_full(access.layout)
                and space.axes in (None, axes)
                and _may_reduce(space.shape, axes)
            )
            return False if usable else None
        shape = entry.sig.types[0].shape
        is_full = shape == space.shape
        if not is_full and not (space.axes is not None and space.is_row_shape(shape)):
            return None
        fits = self._reads_fit(entry.inputs, is_full, group, space, group.uses_results)
        return is_full if fits else None

    def _fits(self, group: Group, value: int, entry: Entry) -> bool:
        """True where the group may grow by the entry without waiting for itself."""
        size = len(group.entries)
        if size >= _MOST_STEPS or value - group.first > _WINDOW:
            return False
        if self._operands(group) + len(entry.inputs) > _MOST_OPERANDS:
            return False
        others = [i for i in entry.inputs if self.group_of_input(i) is not group]
        return not self.depend_on(others, group)

    def _operands(self, group: Group) -> int:
        outside = {
            self.access[i]
            for value in group.entries
            for i in self.entry(value).inputs
            if self.group_of_input(i) is not group
        }
        return len(outside)

    def _reduce_in(self, group: Group, axes: tuple[int, ...]) -> None:
        if group.space.axes is None:
            group.space = Space(group.space.shape, axes)
            group.uses_results = _stays_in_cache(group.space)

    def _merge_others(self, group: Group, entry: Entry) -> None:
        """Takes in the groups of the other inputs, where that can be done."""
        for other in self._candidates(entry):
            if (
                other is not group
                and self._are_alike(group, other)
                and self._could_join(group, other)
                and self._could_join(other, group)
                and not self._reach(group, other)
                and not self._reach(other, group)
            ):
                self._merge(group, other)

    def _are_alike(self, group: Group, other: Group) -> bool:
        """True where both are over one space, and together not too large."""
        one, two = group.space, other.space
        if one.shape != two.shape or len(group.entries) + len(other.entries) > _MOST_STEPS:
            return False
        if one.axes != two.axes and (
            None not in (one.axes, two.axes) or not (group.uses_results or other.uses_results)
        ):
            return False
        return self._operands(group) + self._operands(other) <= _MOST_OPERANDS

    def _reads_fit(
        self, inputs: Iterable[int], is_full: bool, group: Group, space: Space, uses_results: bool
    ) -> bool:
        """True where what an entry reads of the group it can read as a part of it.

        ``is_full``: the entry goes over all elements; ``space`` and ``uses_results`` are those of
        the group that it would belong to. Values from outside are read as they lie.
        """
        for i in inputs:
            access = self.access[i]
            level = None if access is None else group.full.get(access.root)
            if access is None or level is None:
                continue
            if access.offset or (level and not is_full):
                return False
            layout = access.layout
            if not (space.is_full(layout) if level else uses_results and space.is_row(layout)):
                return False
        return True

    def _could_join(self, group: Group, other: Group) -> bool:
        """True where what ``group`` reads of ``other`` it could read as a part of it."""
        space = group.space if other.space.axes is None else other.space
        uses_results = group.uses_results or other.uses_results
        return all(
            self._reads_fit(
                self.entry(value).inputs, group.full[value] or self._is_reduction(value), other,
                space, uses_results,
            )
            for value in group.entries
        )  # fmt: skip

    def _is_reduction(self, value: int) -> bool:
        return isinstance(self.entry(value).sig.op.lower, Reduction)

    def _reach(self, group: Group, other: Group) -> bool:
        """True where ``group`` waits for ``other`` by way of a third."""
        outside = [
            i
            for value in group.entries
            for i in self.entry(value).inputs
            if self.group_of.get(i) is not group and self.group_of_input(i) not in (group, other)
        ]
        return self.depend_on(outside, other)

    def _merge(self, group: Group, other: Group) -> None:
        if group.space.axes is None:
            group.space, group.uses_results = other.space, other.uses_results
        for value in other.entries:
            self.join(group, value, other.full[value])
        group.entries.sort()


def _may_reduce(shape: Shape, axes: tuple[int, ...]) -> bool:
    return prod(shape[a] for a in axes) > 1


def _stays_in_cache(space: Space) -> bool:
    """True where a row is read again from the cache, there are rows for all threads, and the
    elements of a row lie together."""
    axes = space.axes or ()
    rows, row = prod(space.kept), prod(space.shape[a] for a in axes)
    inner = max((a for a, n in enumerate(space.shape) if n > 1), default=-1)
    enough = rows >= 8 or rows * row <= _FEW
    return inner in axes and row * 8 <= _ROW_BYTES and enough
