"""What one element of a fused loop goes through, as plain data that a kernel is built from.

Values are numbered: first what is loaded, then the results of the statements in order. Each
statement is a node: its op's own arithmetic, rounded to its own dtype, so that a value has the
same bits whether it passes through memory or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.base import dtypes
from treadle.base.record import Record
from treadle.ir.loop import Builder, Operand
from treadle.ir.op import Elementwise
from treadle.ops import registry

_NAMED = 3  # statements whose names a kernel's name tells


class Statement(Record):
    """``op(args, **attrs)``, rounded to ``dtype``."""

    op: str
    attrs: tuple[tuple[str, Any], ...]
    args: tuple[int, ...]
    dtype: str


class Recipe(Record):
    """The dtypes of what is loaded, and the statements."""

    loads: tuple[str, ...]
    statements: tuple[Statement, ...]

    @property
    def name(self) -> str:
        """A name for kernels: the first ops, and the dtypes of what they read."""
        ops = [s.op for s in self.statements]
        more = [f"and_{len(ops) - _NAMED}"] if len(ops) > _NAMED else []
        return "_".join((*ops[:_NAMED], *more, *self.loads[:_NAMED]))

    def dtype(self, value: int) -> str:
        """The dtype of a value."""
        loads = len(self.loads)
        return self.loads[value] if value < loads else self.statements[value - loads].dtype


def emit_recipe(k: Builder, recipe: Recipe, loaded: Sequence[Operand]) -> list[Operand]:
    """All values, for one element."""
    values = list(loaded)
    for statement in recipe.statements:
        values.append(emit_statement(k, statement, [values[a] for a in statement.args]))
    return values


def emit_statement(k: Builder, statement: Statement, args: Sequence[Operand]) -> Operand:
    """The result of one statement."""
    lower: Elementwise = registry.get(statement.op).lower  # type: ignore[assignment]
    if lower.compute == "f32":
        args = [_widened(k, value) for value in args]
    result = lower.emit(k, *args, **dict(statement.attrs))
    return k.convert(result, dtypes.by_short(statement.dtype))


def _widened(k: Builder, value: Operand) -> Operand:
    narrow = value.dtype.kind == "f" and value.dtype.bits == 16
    return k.convert(value, dtypes.float32) if narrow else value
