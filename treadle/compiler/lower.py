"""From an op and the layouts of its operands to a plan of launches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.base import dtypes
from treadle.base.errors import CompileError
from treadle.base.flags import flags
from treadle.base.shapes import Shape, contiguous_strides, prod
from treadle.codegen import conv
from treadle.codegen.conv import plan_conv
from treadle.codegen.gemm import plan_matmul
from treadle.codegen.hooks import Riders
from treadle.compiler.recipe import Recipe, Statement, emit_recipe
from treadle.compiler.reduction import plain, plan_reduction
from treadle.ir.launch import (
    HOST_CALL,
    Argument,
    In,
    KernelSpec,
    Launch,
    Layout,
    Out,
    Plan,
    Work,
    host_call,
)
from treadle.ir.loop import Builder, Kernel, Operand
from treadle.ir.nest import Nest, copy_launch, nest_kernel, nest_launch
from treadle.ir.node import type_of
from treadle.ir.op import Contraction, Elementwise, Library, Loops, Op, Reduction

_NO_RIDERS = Riders()


def plan(
    op: Op, attrs: dict[str, Any], inputs: Sequence[Layout], outputs: Sequence[Layout],
    threads: int, vector_bits: int,
) -> Plan:  # fmt: skip
    """The launches that compute ``op``; outputs are contiguous."""
    match op.lower:
        case Elementwise():
            return _plan_elementwise(op, attrs, inputs, outputs[0])
        case Reduction():
            source = plain(op.name, inputs[0].dtype)
            return plan_reduction(source, inputs, outputs, attrs["axes"], threads)
        case Contraction():
            return plan_contraction(op, attrs, inputs, outputs[0], threads, vector_bits)
        case Loops(make, demanded):
            return _plan_loops(make, demanded, attrs, inputs, outputs, threads)
        case Library(call):
            return _plan_host_call(call, attrs, inputs, outputs)
        case _:
            raise CompileError(f"{op.name} has no kernel; this is a defect of its record")


def _plan_host_call(
    call: Any, attrs: dict[str, Any], inputs: Sequence[Layout], outputs: Sequence[Layout]
) -> Plan:
    spec = KernelSpec(host_call, (call, tuple(attrs.items()), tuple(inputs), tuple(outputs)))
    places: tuple[Argument, ...] = (
        *[Out(i) for i in range(len(outputs))], *[In(i) for i in range(len(inputs))]
    )  # fmt: skip
    return Plan((Launch(spec, places, 1, 0, HOST_CALL),))


def plan_contraction(
    op: Op, attrs: dict[str, Any], inputs: Sequence[Layout], output: Layout, threads: int,
    vector_bits: int, riders: Riders = _NO_RIDERS,
) -> Plan:  # fmt: skip
    """The launches of a contraction; ``riders`` only where it ``takes_riders``."""
    x, y = inputs
    kind = op.lower.kind  # type: ignore[union-attr]
    if kind == "matmul":
        x, y, output = (_as_batch(layout) for layout in (x, y, output))
        if flags.TUNE:
            from treadle.compiler.tune import tuned_matmul

            return tuned_matmul(x, y, output, threads, vector_bits, riders)
        return plan_matmul(x, y, output, threads, vector_bits, riders)
    name, geometry = _convolution(kind, attrs)
    return plan_conv(name, x, y, output, *geometry, threads, vector_bits, riders)


def takes_riders(op: Op, attrs: dict[str, Any], inputs: Sequence[Layout], output: Layout) -> bool:
    """Whether elementwise work can be done on the result before it is stored."""
    if not isinstance(op.lower, Contraction):
        return False
    if op.lower.kind == "matmul":
        return True
    name, geometry = _convolution(op.lower.kind, attrs)
    x, y = inputs
    return conv.takes_riders(name, x, y, output, *geometry)


def _convolution(kind: str, attrs: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    geometry = (attrs["stride"], attrs["padding"], attrs["dilation"], attrs["groups"])
    return kind.removeprefix("conv_"), geometry


def _as_batch(layout: Layout) -> Layout:
    """A matrix as a batch of one."""
    if len(layout.shape) == 3:
        return layout
    return Layout(layout.dtype, (1, *layout.shape), (prod(layout.shape), *layout.strides))


def _plan_elementwise(
    op: Op, attrs: dict[str, Any], inputs: Sequence[Layout], output: Layout
) -> Plan:
    if prod(output.shape) == 0:
        return Plan(())
    loads = tuple(i.dtype.short for i in inputs)
    args = tuple(range(len(inputs)))
    statement = Statement(op.name, tuple(attrs.items()), args, output.dtype.short)
    recipe = Recipe(loads, (statement,))
    types = [type_of(i.dtype, i.shape) for i in inputs]
    cost = op.cost(types, type_of(output.dtype, output.shape), attrs)
    if "commutative" in op.traits and inputs[0].strides < inputs[1].strides:
        # Of two operands the one that is repeated comes second, so that one kernel serves both.
        launch = map_launch(recipe, (2,), inputs[::-1], output.shape, cost.flops)
        result, first, second, *numbers = launch.args
        return Plan((launch._replace(args=(result, second, first, *numbers)),))
    return Plan((map_launch(recipe, (len(inputs),), inputs, output.shape, cost.flops),))


def map_launch(
    recipe: Recipe, results: tuple[int, ...], loads: Sequence[Layout], shape: Shape, flops: int,
    offsets: Sequence[int] = (),
) -> Launch:  # fmt: skip
    """The launch that computes ``recipe`` for every element of ``shape``.

    Loads lie as they like; the values numbered ``results`` are stored row-major. ``offsets`` are
    those of the loads, in elements.
    """
    row_major = contiguous_strides(shape)
    arguments: tuple[Argument, ...] = (
        *(Out(j) for j in range(len(results))),
        *(In(j, offset) for j, offset in enumerate(offsets or (0,) * len(loads))),
    )
    strides = (*(row_major for _ in results), *(load.strides for load in loads))
    per_element = max(flops // prod(shape), 1)
    return nest_launch(map_kernel, (recipe, results), arguments, shape, strides, per_element)


def map_kernel(recipe: Recipe, results: tuple[int, ...], nest: Nest) -> Kernel:
    """The kernel of an elementwise loop for one kind of nest."""
    operands = [dtypes.by_short(recipe.dtype(value)) for value in results]
    operands += map(dtypes.by_short, recipe.loads)

    def emit(k: Builder, loaded: list[Operand]) -> list[Operand]:
        values = emit_recipe(k, recipe, loaded)
        return [values[value] for value in results]

    return nest_kernel(recipe.name, operands, nest, emit, len(results))


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
