"""From plans to calls: kernels become addresses, roles become slots.

What is prepared depends on structure alone (a signature and the layouts of its inputs) and hangs on
the signature, so tier 0 and programs share it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from treadle.base.record import Record
from treadle.compiler.device import Device
from treadle.ir import node as ir_node
from treadle.ir.launch import In, Layout, Out, Plan, Refusal, Work
from treadle.ir.nest import copy_launch
from treadle.ir.node import Signature
from treadle.ir.op import Nested

# A launch is cut into pieces of at least this many scalar operations.
PARALLEL_WORK = 1 << 14


class Call(Record):
    """One call as it goes to the tape: head, addresses as (slot, bytes), numbers."""

    head: bytes
    slots: tuple[tuple[int, int], ...]
    numbers: bytes
    message: str | Refusal


class Prepared(Record):
    """A plan with its kernels compiled. Slots: outputs, then inputs, then workspaces.

    ``simple`` is what packs the head with the addresses, and the numbers, where there is one call
    with the addresses of the one output and of the inputs in order: what nearly every node is.
    """

    calls: tuple[Call, ...]
    workspaces: tuple[int, ...]
    simple: tuple[Callable[..., bytes], bytes] | None


class Moved(Record):
    """What a view does to one layout; ``copy`` comes first where the layout does not allow it."""

    layout: Layout
    offset: int  # in bytes
    copy: Prepared | None


def words(*numbers: int) -> bytes:
    """Numbers as the 64-bit words of a tape."""
    return struct.pack(f"{len(numbers)}q", *numbers)


def prepared(
    sig: Signature, layouts: tuple[Layout, ...], device: Device, threads: int,
    compile_ahead: Callable[[], None] | None = None,
) -> Prepared:  # fmt: skip
    """The calls that compute ``sig`` from inputs that lie so; the outputs are contiguous.

    ``compile_ahead`` is called before the first kernel that the device does not have yet.
    """
    # With the threads, since a program may be made for a number that is no longer the device's.
    key = threads, layouts
    plans = device.plans_of(sig)
    known: Prepared | None = plans.get(key)
    if known is None:
        if isinstance(sig.op.lower, Nested):
            from treadle.compiler.control import prepare_control  # only for control flow

            known = sig.plans[key] = prepare_control(sig, layouts, device, threads)
            return known
        from treadle.compiler import lower  # the code generators, when first needed

        outputs = [kind.layout for kind in sig.types]
        plan = lower.plan(sig.op, sig.attrs, layouts, outputs, threads, device.vector_bits)
        if compile_ahead and not all(device.has_kernel(x.kernel) for x in plan.launches):
            compile_ahead()
        known = plans[key] = compile_plan(plan, outputs, layouts, device)
    return known


def moved(sig: Signature, layout: Layout, device: Device) -> Moved:
    """What the view ``sig`` makes of a value that lies so."""
    plans = device.plans_of(sig)
    known: Moved | None = plans.get(layout)
    if known is None:
        known = plans[layout] = _moved(sig, layout, device)
    return known


def seen_through(sig: Signature, layout: Layout) -> tuple[Layout, int] | None:
    """How the view ``sig`` makes a value appear that lies so: a layout, and elements to its start.

    None where the value must be copied first. Row-major layouts are those of the types, so that
    ``is`` tells them.
    """
    lowering: Any = sig.op.lower
    out = sig.types[0]
    found = lowering.move(layout, out, **sig.attrs)
    if found is None:
        return None
    strides, offset = found
    plain = strides == out.layout.strides
    return (out.layout if plain else Layout(out.dtype, out.shape, strides)), offset


def _moved(sig: Signature, layout: Layout, device: Device) -> Moved:
    out = sig.types[0]
    seen = seen_through(sig, layout)
    if seen is not None:
        return Moved(seen[0], seen[1] * out.dtype.itemsize, None)
    plain = ir_node.type_of(layout.dtype, layout.shape).layout
    plan = Plan((copy_launch(layout, Out(0), plain.strides),))
    return Moved(out.layout, 0, compile_plan(plan, [out.layout], [layout], device))


def compile_plan(
    plan: Plan, outputs: Sequence[Layout], inputs: Sequence[Layout], device: Device
) -> Prepared:
    """Kernels to addresses, roles to slots."""
    calls = []
    for launch in plan.launches:
        slots: list[tuple[int, int]] = []
        numbers: list[int] = []
        for argument in launch.args:
            match argument:
                case Out(index, offset):
                    slots.append((index, offset * outputs[index].dtype.itemsize))
                case In(index, offset):
                    size = inputs[index].dtype.itemsize
                    slots.append((len(outputs) + index, offset * size))
                case Work(index, offset):
                    slots.append((len(outputs) + len(inputs) + index, offset))
                case _:
                    numbers.append(argument)
        pieces = min(launch.units, launch.work // PARALLEL_WORK)
        entry = device.compile(launch.kernel)
        head = words(entry, len(launch.args), launch.units, pieces)
        calls.append(Call(head, tuple(slots), words(*numbers), launch.message))
    simple = None
    # A call that may fail takes the long way, where the second attempt looks for errors.
    steady = len(calls) == 1 and not calls[0].message
    if steady and len(outputs) == 1 and not plan.workspaces:
        in_order = tuple((slot, 0) for slot in range(1 + len(inputs)))
        if calls[0].slots == in_order:
            head = calls[0].head
            pack = partial(struct.Struct(f"{len(head)}s{len(in_order)}q").pack, head)
            simple = pack, calls[0].numbers
    return Prepared(tuple(calls), plan.workspaces, simple)
