"""From a trace to a program: the passes, in order.

Every pass leaves something that can be printed (``TREADLE_DEBUG=passes``) and checked; where
programs are waited for, or checked anyhow, it is checked each time. No pass changes a bit.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from treadle.base.errors import CompileError
from treadle.base.flags import flags
from treadle.base.record import Record
from treadle.compiler.arena import verify_arena
from treadle.compiler.assembly import Assembly
from treadle.compiler.batch import batch
from treadle.compiler.constants import constant_weights
from treadle.compiler.device import Device, get_device
from treadle.compiler.epilogue import attach_contractions
from treadle.compiler.fuse import Fusion, Group, fuse
from treadle.compiler.group_plan import lower_groups
from treadle.compiler.program import Program
from treadle.compiler.schedule import Step, schedule, split_sums, verify_steps
from treadle.compiler.simplify import simplify
from treadle.compiler.trace import Trace
from treadle.compiler.trace_text import parse_trace, print_trace, verify_trace


class Draft:
    """A program on its way: each pass reads what those before it left, and leaves its own."""

    __slots__ = (
        "assembly", "device", "fusion", "program", "steps", "threads", "trace", "weights",
    )  # fmt: skip

    def __init__(self, trace: Trace, device: Device, threads: int) -> None:
        self.trace = trace
        self.device = device
        self.threads = threads
        self.fusion = Fusion(trace)
        self.steps: list[Step] = []
        self.weights: dict[int, int] = {}  # of convolutions: external values that stay the same
        self.assembly = Assembly(self.fusion, device, threads)
        self.program: Program | None = None


class Pass(Record):
    """A pass: what it does to a draft, how its result reads, and what has to hold of it."""

    name: str
    run: Callable[[Draft], None]
    text: Callable[[Draft], str]
    verify: Callable[[Draft], None]


# --- the passes -----------------------------------------------------------------------------------


def _simplify(draft: Draft) -> None:
    draft.trace = simplify(draft.trace)


def _fuse(draft: Draft) -> None:
    draft.fusion = fuse(draft.trace)
    split_sums(draft.fusion)


def _attach(draft: Draft) -> None:
    attach_contractions(draft.fusion)


def _schedule(draft: Draft) -> None:
    draft.steps = schedule(draft.fusion)


def _lower(draft: Draft) -> None:
    bits = draft.device.vector_bits
    draft.steps = lower_groups(draft.fusion, draft.steps, draft.threads, bits)


def _batch(draft: Draft) -> None:
    draft.steps = batch(draft.fusion, draft.steps)


def _constants(draft: Draft) -> None:
    draft.weights = constant_weights(draft.fusion)


def _compile(draft: Draft) -> None:
    draft.assembly = Assembly(draft.fusion, draft.device, draft.threads, draft.weights)
    draft.assembly.emit(draft.steps)


def _memory(draft: Draft) -> None:
    draft.assembly.plan_memory()


def _link(draft: Draft) -> None:
    draft.program = draft.assembly.program(draft.steps)


# --- how they read, and what has to hold ----------------------------------------------------------


def _groups_text(draft: Draft) -> str:
    return "".join(f"{_group_text(draft, group)}\n" for group in draft.fusion.groups())


def _group_text(draft: Draft, group: Group) -> str:
    names = ", ".join(f"%{v} {draft.trace.entry(v).sig.op.name}" for v in group.entries)
    return f"{group}: {names}"


def _steps_text(draft: Draft) -> str:
    lines = []
    for number, step in enumerate(draft.steps):
        if step.group is None:
            sig, inputs, _ = draft.trace.entry(step.entry)
            what = f"{sig.op.name}({', '.join(f'%{i}' for i in inputs)})"
            lines.append(f"{number}: %{step.entry} = {what}")
        else:
            results = ", ".join(f"%{value}" for value in step.results)
            lines.append(f"{number}: {results} = {_group_text(draft, step.group)}")
        if step.lowered is not None:
            lines += [f"    {x.kernel.build.__name__} units {x.units}, work {x.work}"
                      for x in step.lowered.plan.launches]  # fmt: skip
    return "".join(f"{line}\n" for line in lines)


def _weights_text(draft: Draft) -> str:
    return "".join(f"%{value} packs %{weight} once\n" for value, weight in draft.weights.items())


def _calls_text(draft: Draft) -> str:
    assembly = draft.assembly
    return "".join(
        f"{number}: {', '.join(f'#{storage}+{offset}' for storage, offset in places)}\n"
        for number, (_, places, _) in enumerate(assembly.calls)
    )


def _memory_text(draft: Draft) -> str:
    assembly = draft.assembly
    lines = [f"arena of {assembly.arena} bytes"]
    for number, s in enumerate(assembly.storages):
        if number >= assembly.fixed:
            where = "a result" if s.is_result else f"at {s.offset}{' of constants' * s.is_constant}"
            lines.append(f"#{number}: {s.nbytes} bytes {where}, steps {s.first} to {s.last}")
    return "".join(f"{line}\n" for line in lines)


def _program_text(draft: Draft) -> str:
    assembly = draft.assembly
    return (
        f"{len(assembly.calls)} calls, an arena of {assembly.arena} bytes, "
        f"{len(assembly.results)} results of {sum(assembly.results)} bytes\n"
    )


def _verify_groups(draft: Draft) -> None:
    for group in draft.fusion.groups():
        if group.entries != sorted(group.entries) or set(group.entries) != set(group.full):
            raise CompileError(f"the group of %{group.first} has lost its order or a member")


def _verify_steps(draft: Draft) -> None:
    verify_steps(draft.fusion, draft.steps)


def _verify_arena(draft: Draft) -> None:
    verify_arena(draft.assembly.temporary(), draft.assembly.arena)


def _nothing(draft: Draft) -> None:
    """Device and linker check for themselves."""


PASSES = (
    Pass("simplify", _simplify, lambda d: print_trace(d.trace), lambda d: verify_trace(d.trace)),
    Pass("fuse", _fuse, _groups_text, _verify_groups),
    Pass("attach", _attach, _groups_text, _verify_groups),
    Pass("schedule", _schedule, _steps_text, _verify_steps),
    Pass("lower", _lower, _steps_text, _verify_steps),
    Pass("batch", _batch, _steps_text, _verify_steps),
    Pass("constants", _constants, _weights_text, _nothing),
    Pass("compile", _compile, _calls_text, _nothing),
    Pass("memory", _memory, _memory_text, _verify_arena),
    Pass("link", _link, _program_text, _nothing),
)
# For a program of the kernels that tier 0 ran: there is nothing to gain but time.
QUICK_PASSES = tuple(p for p in PASSES if p.name in ("schedule", "compile", "memory", "link"))
# For the body of a loop: whoever runs it knows nothing of what is done once.
BODY_PASSES = tuple(p for p in PASSES if p.name != "constants")


def build_program(
    trace: Trace, device: Device, threads: int, fused: bool,
    passes: Sequence[Pass] | None = None,
) -> Program:  # fmt: skip
    """The program of a trace, by all passes if ``fused``, or by these."""
    draft = Draft(trace, device, threads)
    is_checked = flags.PROGRAMS == "wait" or flags.CHECK != "off"
    is_printed = "passes" in flags.DEBUG
    if is_printed:
        print(f"--- trace\n{print_trace(trace)}", end="", file=sys.stderr)
    for p in passes or (PASSES if fused else QUICK_PASSES):
        p.run(draft)
        if is_printed:
            print(f"--- {p.name}\n{p.text(draft)}", end="", file=sys.stderr)
        if is_checked:
            p.verify(draft)
    if draft.program is None:
        raise CompileError("the passes ended without a program")
    return draft.program


def compile_file(path: str | os.PathLike[str]) -> Program:
    """The fused program of a graph that was saved because it could not be compiled.

    Raises what went wrong then, if it still does.
    """
    device = get_device("cpu")
    trace = parse_trace(Path(path).read_text(encoding="utf-8"))
    return build_program(trace, device, device.threads(), True)


__all__ = ["PASSES", "QUICK_PASSES", "Draft", "Pass", "build_program", "compile_file"]
