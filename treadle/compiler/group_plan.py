"""A group's plan: what it loads and stores, and the kernel that suits it."""

from __future__ import annotations

from collections.abc import Sequence

from treadle.compiler.fuse import Access, Group
from treadle.compiler.lower import map_launch
from treadle.compiler.recipe import Recipe, Statement
from treadle.compiler.reduction import Source, plan_reduction
from treadle.compiler.rows import Load, Reduce, RowRecipe, plan_rows
from treadle.compiler.trace import Entry
from treadle.ir.launch import Layout, Plan
from treadle.ir.op import Reduction


class GroupPlan:
    """The plan of ``group``, whose values ``results`` others read.

    ``accesses`` are what it loads, in the order of the plan's inputs; its outputs are the results
    in order, one after another where an entry has several.
    """

    def __init__(
        self, group: Group, results: Sequence[int], entries: dict[int, Entry],
        access: Sequence[Access | None], threads: int,
    ) -> None:  # fmt: skip
        self.group = group
        self.entries = entries
        self.access = access
        self.results = [v for v in results if "project" not in entries[v].sig.op.traits]
        self.accesses: list[Access] = []
        self._loads: list[Layout] = []
        for value in group.entries:
            for i in entries[value].inputs:
                self._load(
                    i, group.full[value] or isinstance(entries[value].sig.op.lower, Reduction)
                )
        self._number = {a: j for j, a in enumerate(self.accesses)}
        if group.space.axes is None:
            self.plan = self._map()
        elif group.uses_results:
            self.plan = self._rows(threads)
        else:
            self.plan = self._sum(threads)

    def _load(self, value: int, is_full: bool) -> None:
        access = self.access[value]
        if access is None or access.root in self.group.full or access in self.accesses:
            return
        self.accesses.append(access)
        layout = access.layout
        if not is_full and layout.shape != self.group.space.shape:
            layout = self._spread(layout)
        self._loads.append(layout)

    def _spread(self, layout: Layout) -> Layout:
        """A row value as every element of its row sees it."""
        space = self.group.space
        steps = iter([s for n, s in zip(layout.shape, layout.strides, strict=True) if n != 1])
        axes = space.axes or ()
        strides = tuple(
            0 if a in axes or n == 1 else next(steps) for a, n in enumerate(space.shape)
        )
        return Layout(layout.dtype, space.shape, strides)

    @property
    def _offsets(self) -> list[int]:
        return [a.offset for a in self.accesses]

    @property
    def _load_dtypes(self) -> tuple[str, ...]:
        return tuple(load.dtype.short for load in self._loads)

    def _argument(self, value: int, numbers: dict[int, int]) -> int:
        """The number of an entry's input in the recipe."""
        access = self.access[value]
        if access is None:
            raise KeyError(value)
        known = numbers.get(access.root)
        return self._number[access] if known is None else known

    def _statements(self) -> tuple[list[Statement], dict[int, int]]:
        """The elementwise entries on full values, numbered after the loads."""
        statements: list[Statement] = []
        numbers: dict[int, int] = {}
        for value in self.group.entries:
            if self.group.full[value]:
                statements.append(self._statement(value, numbers))
                numbers[value] = len(self._loads) + len(statements) - 1
        return statements, numbers

    def _statement(self, value: int, numbers: dict[int, int]) -> Statement:
        entry = self.entries[value]
        args = tuple(self._argument(i, numbers) for i in entry.inputs)
        dtype = entry.sig.types[0].dtype.short
        return Statement(entry.sig.op.name, tuple(entry.sig.attrs.items()), args, dtype)

    def _map(self) -> Plan:
        statements, numbers = self._statements()
        recipe = Recipe(self._load_dtypes, tuple(statements))
        results = tuple(numbers[v] for v in self.results)
        shape = self.group.space.shape
        flops = 0
        for value in self.group.entries:
            sig = self.entries[value].sig
            flops += sig.op.cost(sig.inputs, sig.type, sig.attrs).flops
        launch = map_launch(recipe, results, self._loads, shape, flops, self._offsets)
        return Plan((launch,))

    def _sum(self, threads: int) -> Plan:
        statements, numbers = self._statements()
        recipe = Recipe(self._load_dtypes, tuple(statements))
        parts = []
        outputs: list[Layout] = []
        self.results = []
        for value in self.group.entries:
            entry = self.entries[value]
            if isinstance(entry.sig.op.lower, Reduction):
                parts.append((entry.sig.op.name, self._argument(entry.inputs[0], numbers)))
                outputs += (t.layout for t in entry.sig.types)
                self.results.append(value)
        axes = self.group.space.axes or ()
        source = Source(recipe, tuple(parts))
        return plan_reduction(source, self._loads, outputs, axes, threads, self._offsets)

    def _rows(self, threads: int) -> Plan:
        space = self.group.space
        axes = space.axes or ()
        loads = tuple(
            Load(x.dtype.short, any(x.strides[a] and x.shape[a] > 1 for a in axes))
            for x in self._loads
        )
        steps: list[Statement | Reduce] = []
        numbers: dict[int, int] = {}
        count = len(loads)
        for value in self.group.entries:
            entry = self.entries[value]
            sig = entry.sig
            if "project" in sig.op.traits:
                numbers[value] = numbers[entry.inputs[0]] + sig.attrs["index"]
                continue
            numbers[value] = count
            count += len(sig.types)
            if isinstance(sig.op.lower, Reduction):
                argument = self._argument(entry.inputs[0], numbers)
                names = tuple(t.dtype.short for t in sig.types)
                steps.append(Reduce(sig.op.name, argument, names))
            else:
                steps.append(self._statement(value, numbers))
        results = tuple(
            (numbers[v] + j, self.group.full[v])
            for v in self.results
            for j in range(len(self.entries[v].sig.types))
        )
        recipe = RowRecipe(loads, tuple(steps), results)
        return plan_rows(recipe, self._loads, self._offsets, axes, space.shape, threads)
