"""What inference computes from its weights alone: done once, and kept while they are the same.

A convolution packs its weight before it begins. Where a program trains nothing, the weight is the
same node run after run, so the packed one is kept (``program.Once``) and those calls are left out.
"""

from __future__ import annotations

from functools import lru_cache

from treadle.compiler.fuse import Fusion
from treadle.ir.launch import In, KernelSpec, Launch, Out, Plan, Work
from treadle.ir.loop import Choose, If, Kernel, Loop, Pointer, Statement, Store, Transpose
from treadle.ir.op import Contraction

WEIGHT = 1  # of the operands of a convolution, forward


def constant_weights(fusion: Fusion) -> dict[int, int]:
    """For each convolution whose weight seems to stay: the number of the external value it is.

    A gradient in the same program, or an input that is kept for one, speaks of training.
    """
    trace = fusion.trace
    found: dict[int, int] = {}
    for value in trace.computed():
        sig, inputs, _ = trace.entry(value)
        lower = sig.op.lower
        if not isinstance(lower, Contraction):
            continue
        if lower.kind == "conv_weight":
            return {}
        access = fusion.access[inputs[WEIGHT]] if lower.kind == "conv_forward" else None
        source = inputs[0]
        is_kept = source >= trace.first and trace.entry(source).keep
        if access is not None and access.root < len(trace.externals) and not is_kept:
            found[value] = access.root
    return found


def launches_ahead(plan: Plan) -> tuple[int, frozenset[int]]:
    """How many of the first launches read only the weight, and the workspaces that they fill.

    (0, none) where a later launch writes to one of these.
    """
    count, filled = 0, set()
    for launch in plan.launches:
        if any(
            isinstance(a, Out) or (isinstance(a, In) and a.index != WEIGHT) for a in launch.args
        ):
            break
        filled |= {a.index for a in launch.args if isinstance(a, Work)}
        count += 1
    written = set().union(*map(_written, plan.launches[count:]))
    if written & filled or count == len(plan.launches):
        return 0, frozenset()
    return count, frozenset(filled)


def _written(launch: Launch) -> set[int]:
    """The workspaces that a launch writes to."""
    places = _parameters_written(launch.kernel)
    return {a.index for at in places if isinstance(a := launch.args[at], Work)}


@lru_cache(maxsize=1024)
def _parameters_written(spec: KernelSpec) -> frozenset[int]:
    """The positions of the parameters that a kernel stores to."""
    kernel: Kernel = spec.build(*spec.key)
    origins: dict[str, set[str]] = {}
    names: set[str] = set()
    todo: list[Statement] = list(reversed(kernel.body))
    while todo:
        statement = todo.pop()
        if isinstance(statement, (Loop, If)):
            todo += reversed(statement.body)
        elif isinstance(statement, Choose):
            origins[statement.result.name] = {choice.name for choice in statement.choices}
        elif isinstance(statement, (Store, Transpose)):
            target = statement.pointer if isinstance(statement, Store) else statement.target
            names |= origins.get(target.name, {target.name})
    params = enumerate(kernel.params)
    return frozenset(at for at, p in params if isinstance(p, Pointer) and p.name in names)


__all__ = ["constant_weights", "launches_ahead"]
