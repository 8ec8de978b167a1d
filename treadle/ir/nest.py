"""Loop nests over operands of one shape with any strides: elementwise kernels and strided copies.

Axes that lie next to each other in every operand are merged, so most nests are one flat loop; the
last axis left is a vector loop. A kernel is made for a rank and for how each operand steps along
the last axis (``c``: by one, ``b``: not at all, ``s``: by any stride); sizes and the other strides
are parameters, so one kernel serves every shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.shapes import Shape, prod
from treadle.ir.launch import Argument, In, KernelSpec, Launch, Layout

if TYPE_CHECKING:
    from treadle.ir.loop import Builder, Kernel, Operand, Value

Strides = tuple[int, ...]


def coalesce(shape: Shape, strides: Sequence[Strides]) -> tuple[Shape, list[Strides]]:
    """The same elements with as few axes as possible, for all operands at once.

    >>> coalesce((2, 3, 4), [(12, 4, 1), (0, 4, 1)])
    ((2, 12), [(12, 1), (0, 1)])
    """
    sizes: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        here = [s[axis] for s in strides]
        if sizes and all(s[-1] == h * size for s, h in zip(steps, here, strict=True)):
            sizes[-1] *= size
            for s, h in zip(steps, here, strict=True):
                s[-1] = h
            continue
        sizes.append(size)
        for s, h in zip(steps, here, strict=True):
            s.append(h)
    if not sizes:
        return (1,), [(1,) for _ in strides]
    return tuple(sizes), [tuple(s) for s in steps]


def _step_class(stride: int) -> str:
    return "c" if stride == 1 else "b" if stride == 0 else "s"


def nest_launch(
    build: Callable[..., Kernel],
    key: tuple[Any, ...],
    arguments: Sequence[Argument],
    shape: Shape,
    strides: Sequence[Strides],
    flops: int = 1,
) -> Launch:
    """A launch of ``build(*key, rank, classes)`` over ``shape``; the first operand is the output.

    ``build`` makes the kernel with ``nest_kernel``.
    """
    sizes, steps = coalesce(shape, strides)
    classes = "".join(_step_class(s[-1]) for s in steps)
    rank = len(sizes)
    numbers: list[int] = [] if rank == 1 else [*sizes[1:]]
    for step, kind in zip(steps, classes, strict=True):
        numbers += step[:-1]
        if kind == "s":
            numbers.append(step[-1])
    spec = KernelSpec(build, (*key, rank, classes))
    return Launch(spec, (*arguments, *numbers), sizes[0], prod(shape) * flops)


def nest_kernel(
    name: str,
    operands: Sequence[DType],
    rank: int,
    classes: str,
    emit: Callable[[Builder, list[Operand]], Sequence[Operand]],
    results: int = 1,
) -> Kernel:
    """``outs[i...] = emit(k, [in[i...]...])``; ``operands`` are the dtypes, the outputs' first."""
    from treadle.ir.loop import BEGIN, END, Builder  # only where a kernel is built

    k = Builder(f"{name}_{rank}{classes}")
    pointers = [k.pointer(f"p{j}", dtype) for j, dtype in enumerate(operands)]
    sizes = [k.size(f"n{axis}") for axis in range(1, rank)]
    strides: list[list[Value | int]] = []
    for j, kind in enumerate(classes):
        row: list[Value | int] = [k.size(f"s{j}_{axis}") for axis in range(rank - 1)]
        row.append({"c": 1, "b": 0}[kind] if kind != "s" else k.size(f"s{j}_{rank - 1}"))
        strides.append(row)

    def axis_loop(axis: int, bases: Sequence[Operand | int]) -> None:
        lo, hi = (BEGIN, END) if axis == 0 else (k.const(0, dtypes.int64), sizes[axis - 1])
        innermost = axis == rank - 1
        with k.loop(lo, hi, kind="vector" if innermost else "serial") as i:
            at = [k.add(b, k.mul(i, s[axis])) for b, s in zip(bases, strides, strict=True)]
            if not innermost:
                axis_loop(axis + 1, at)
                return
            values: list[Operand] = [
                k.load(p, a) for p, a in zip(pointers[results:], at[results:], strict=True)
            ]
            for pointer, place, value in zip(pointers, at, emit(k, values), strict=False):
                k.store(pointer, place, value)

    axis_loop(0, [0] * len(operands))
    return k.kernel


def _copy_kernel(short: str, rank: int, classes: str) -> Kernel:
    dtype = dtypes.by_short(short)
    return nest_kernel(f"copy_{short}", (dtype, dtype), rank, classes, lambda k, x: x)


def copy_launch(
    source: Layout, target: Argument, target_strides: Strides, origin: Argument | None = None
) -> Launch:
    """Copies ``source`` (an input unless ``origin`` says otherwise) to a strided target."""
    arguments = (target, In(0) if origin is None else origin)
    strides = (target_strides, source.strides)
    shape = source.shape
    # The longest contiguous run of the target goes innermost.
    order = sorted(range(len(shape)), key=lambda axis: -abs(target_strides[axis]))
    shape = tuple(shape[a] for a in order)
    strides = tuple(tuple(s[a] for a in order) for s in strides)  # type: ignore[assignment]
    return nest_launch(_copy_kernel, (source.dtype.short,), arguments, shape, strides)


__all__ = ["coalesce", "copy_launch", "nest_kernel", "nest_launch"]
