"""From an op and the layouts of its operands to a plan of launches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.base import dtypes
from treadle.base.errors import CompileError
from treadle.base.shapes import contiguous_strides, prod
from treadle.codegen.conv import plan_conv
from treadle.codegen.gemm import plan_matmul
from treadle.compiler.reduction import plan_reduction
from treadle.ir.launch import Argument, In, Launch, Layout, Out, Plan, Work
from treadle.ir.loop import Builder, Kernel, Operand
from treadle.ir.nest import copy_launch, nest_kernel, nest_launch
from treadle.ir.node import type_of
from treadle.ir.op import Contraction, Elementwise, Loops, Op, Reduction
from treadle.ops import registry


def plan(
    op: Op, attrs: dict[str, Any], inputs: Sequence[Layout], outputs: Sequence[Layout],
    threads: int, vector_bits: int,
) -> Plan:  # fmt: skip
    """The launches that compute ``op``; outputs are contiguous."""
    match op.lower:
        case Elementwise():
            return _plan_elementwise(op, attrs, inputs, outputs[0])
        case Reduction():
            return plan_reduction(op, inputs[0], outputs, attrs, threads)
        case Contraction(kind):
            return _plan_contraction(kind, attrs, inputs, outputs[0], threads, vector_bits)
        case Loops(make, demanded):
            return _plan_loops(make, demanded, attrs, inputs, outputs, threads)
        case _:
            raise CompileError(f"{op.name} has no kernel; this is a defect of its record")


def _plan_contraction(
    kind: str, attrs: dict[str, Any], inputs: Sequence[Layout], output: Layout, threads: int,
    vector_bits: int,
) -> Plan:  # fmt: skip
    x, y = inputs
    if kind == "matmul":
        return plan_matmul(x, y, output, threads, vector_bits)
    geometry = (attrs["stride"], attrs["padding"], attrs["dilation"], attrs["groups"])
    name = kind.removeprefix("conv_")
    return plan_conv(name, x, y, output, *geometry, threads, vector_bits)


def _plan_elementwise(
    op: Op, attrs: dict[str, Any], inputs: Sequence[Layout], output: Layout
) -> Plan:
    if prod(output.shape) == 0:
        return Plan(())
    key = (op.name, tuple(i.dtype.short for i in inputs), output.dtype.short, tuple(attrs.items()))
    launch = nest_launch(
        elementwise_kernel, key, (Out(0), *(In(j) for j in range(len(inputs)))), output.shape,
        (output.strides, *(i.strides for i in inputs)),
        _flops(op, attrs, inputs, output),
    )  # fmt: skip
    return Plan((launch,))


def _flops(op: Op, attrs: dict[str, Any], inputs: Sequence[Layout], output: Layout) -> int:
    """Operations per element, for the decision to use threads."""
    types = [type_of(i.dtype, i.shape) for i in inputs]
    cost = op.cost(types, type_of(output.dtype, output.shape), attrs)
    return max(cost.flops // prod(output.shape), 1)


def elementwise_kernel(
    name: str, sources: tuple[str, ...], target: str, attrs: tuple[tuple[str, Any], ...],
    rank: int, classes: str,
) -> Kernel:  # fmt: skip
    """The generic kernel of an elementwise op for one rank and set of inner strides."""
    op = registry.get(name)
    lower: Elementwise = op.lower  # type: ignore[assignment]
    result = dtypes.by_short(target)
    operands = [result, *map(dtypes.by_short, sources)]
    keywords = dict(attrs)

    def emit(k: Builder, values: list[Operand]) -> Operand:
        if lower.compute == "f32":
            values = [_widened(k, v) for v in values]
        out = lower.emit(k, *values, **keywords)
        return k.convert(out, result)

    return nest_kernel("_".join((name, *sources)), operands, rank, classes, emit)


def _widened(k: Builder, value: Operand) -> Operand:
    narrow = value.dtype.kind == "f" and value.dtype.bits == 16
    return k.convert(value, dtypes.float32) if narrow else value


def _plan_loops(
    make: Any, demanded: frozenset[int], attrs: dict[str, Any], inputs: Sequence[Layout],
    outputs: Sequence[Layout], threads: int,
) -> Plan:  # fmt: skip
    """The op's own plan, after contiguous copies of the inputs that it wants so."""
    strided = [j for j in sorted(demanded) if not inputs[j].is_contiguous]
    if not strided:
        return make(inputs, outputs, attrs, threads)
    layouts = list(inputs)
    copies: list[Launch] = []
    sizes: list[int] = []
    for j in strided:
        layout = inputs[j]
        layouts[j] = Layout(layout.dtype, layout.shape, contiguous_strides(layout.shape))
        sizes.append(prod(layout.shape) * layout.dtype.itemsize)
    inner: Plan = make(layouts, outputs, attrs, threads)
    first = len(inner.workspaces)
    place = {j: first + n for n, j in enumerate(strided)}
    for j in strided:
        if prod(inputs[j].shape):
            copies.append(copy_launch(inputs[j], Work(place[j]), layouts[j].strides, In(j)))

    def moved(argument: Argument) -> Argument:
        if isinstance(argument, In) and argument.index in place:
            nbytes = argument.offset * inputs[argument.index].dtype.itemsize
            return Work(place[argument.index], nbytes)
        return argument

    launches = [
        Launch(x.kernel, tuple(map(moved, x.args)), x.units, x.work, x.message)
        for x in inner.launches
    ]
    return Plan((*copies, *launches), (*inner.workspaces, *sizes))
