"""A group's plan: what it loads and stores, and the kernel that suits it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from treadle.compiler.epilogue import plan_with_epilogue
from treadle.compiler.fuse import Access, Fusion, Group
from treadle.compiler.lower import map_launch
from treadle.compiler.recipe import Recipe, Statement
from treadle.compiler.reduction import Source, plan_reduction
from treadle.compiler.rows import Load, Reduce, RowRecipe, plan_rows
from treadle.compiler.schedule import Lowered, Step
from treadle.ir.launch import Argument, In, Layout, Plan
from treadle.ir.op import Reduction


def lower_groups(
    fusion: Fusion, steps: Iterable[Step], threads: int, vector_bits: int
) -> list[Step]:
    """The steps with their groups lowered."""
    return [
        step if step.group is None else step._replace(
            lowered=_GroupPlan(fusion, step.group, step.results, threads, vector_bits).lowered()
        )
        for step in steps
    ]  # fmt: skip


class _GroupPlan:
    """The plan of ``group``, whose values ``results`` others read."""

    def __init__(
        self, fusion: Fusion, group: Group, results: Sequence[int], threads: int, vector_bits: int
    ) -> None:
        self.group = group
        self.entries = entries = {v: fusion.entry(v) for v in group.entries}
        self.access = fusion.access
        self.results = [v for v in results if "project" not in entries[v].sig.op.traits]
        self.accesses: list[Access] = []
        self._loads: list[Layout] = []
        for value in group.entries:
            if value == group.head:
                continue
            for i in entries[value].inputs:
                self._load(
                    i, group.full[value] or isinstance(entries[value].sig.op.lower, Reduction)
                )
        self._number = {a: j for j, a in enumerate(self.accesses)}
        if group.head is not None:
            self.plan = self._headed(group.head, threads, vector_bits)
        elif group.space.axes is None:
            self.plan = self._map()
        elif group.uses_results:
            self.plan = self._rows(threads)
        else:
            self.plan = self._sum(threads)

    def lowered(self) -> Lowered:
        """What becomes of it."""
        return Lowered(self.plan, tuple(self.accesses), tuple(self.results))

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
        return [int(a.offset) for a in self.accesses]

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
        """The elementwise entries on full values, numbered after the loads and the head."""
        statements: list[Statement] = []
        numbers: dict[int, int] = {}
        if self.group.head is not None:
            numbers[self.group.head] = len(self._loads)
        for value in self.group.entries:
            if self.group.full[value] and value != self.group.head:
                statements.append(self._statement(value, numbers))
                numbers[value] = len(self._loads) + len(numbers)
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

    def _headed(self, head: int, threads: int, vector_bits: int) -> Plan:
        """The contraction's own value is the last load of the recipe."""
        sig, inputs, _ = self.entries[head]
        statements, numbers = self._statements()
        recipe = Recipe((*self._load_dtypes, sig.type.dtype.short), tuple(statements))
        # What the contraction stores is of its own dtype: sums then grow in place.
        self.results.sort(key=lambda v: self.entries[v].sig.type.dtype is not sig.type.dtype)
        if self.entries[self.results[0]].sig.type.dtype is not sig.type.dtype:
            self.results.insert(0, head)
        results = tuple(numbers[v] for v in self.results)
        operands = [a for i in inputs if (a := self.access[i]) is not None]
        layouts = [a.layout for a in operands]
        plan = plan_with_epilogue(sig, layouts, recipe, self._loads, results, threads, vector_bits)
        self.accesses[:0] = operands
        return _moved(plan, self._offsets)

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


def _moved(plan: Plan, offsets: Sequence[int]) -> Plan:
    """The plan for inputs that begin so many elements behind their addresses."""

    def moved(argument: Argument) -> Argument:
        if not isinstance(argument, In):
            return argument
        return In(argument.index, argument.offset + offsets[argument.index])

    launches = [x._replace(args=tuple(map(moved, x.args))) for x in plan.launches]
    return plan._replace(launches=tuple(launches))
