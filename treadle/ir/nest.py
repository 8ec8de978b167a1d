"""Loop nests over operands of one shape with any strides: elementwise kernels and strided copies.

Axes that lie next to each other in every operand are merged, so most nests are one flat loop; the
last axis left is a vector loop. A kernel is made for a rank and for how each operand steps along
the last axis (``c``: by one, ``b``: not at all, ``s``: by any stride, ``t``: by any stride, but by
one along another axis); sizes and the other strides are parameters, so one kernel serves every
shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.record import Record
from treadle.base.shapes import Shape, prod
from treadle.ir.launch import Argument, In, KernelSpec, Launch, Layout

if TYPE_CHECKING:
    from treadle.ir.loop import Builder, Kernel, Operand, Pointer, Value

Strides = tuple[int, ...]

_TILE = 64  # the side of a square that is turned round
_LEAST = 4  # axes shorter than this are not worth turning round
_ENOUGH = 16  # iterations that threads can share evenly
# Elements of a result from which one that is turned round goes past the caches: in pieces of a
# tile's rows it costs them more than it gives to whoever reads it next.
_STREAMED = 1 << 20


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


class Nest(Record):
    """What a kernel is made for: everything about a nest but its sizes and strides.

    The loops go over all axes in order, ``across`` (if any) and the last one inside of them. The
    loop over axis ``cut`` is the one that threads share.
    """

    rank: int
    classes: str  # how each operand steps along the last axis: c, b, s, or t (see ``across``)
    cut: int = 0
    across: int = -1  # along this axis the operands of class t step by one
    streams: bool = False  # the results go past the caches

    @property
    def order(self) -> list[int]:
        """The axes, outer loops first."""
        inner = [a for a in (self.across, self.rank - 1) if a >= 0]
        return [a for a in range(self.rank) if a not in inner] + inner


def _step_class(stride: int) -> str:
    return "c" if stride == 1 else "b" if stride == 0 else "s"


def _nest_of(sizes: Shape, steps: Sequence[Strides], turns: bool, is_vector: bool) -> Nest:
    """How to go over these axes.

    An operand that is read far apart along the last axis, but lies side by side along another, is
    turned round in square tiles on the way.
    """
    rank = len(sizes)
    classes = "".join(_step_class(s[-1]) if is_vector else "s" for s in steps)
    across = -1
    if turns and sizes[-1] >= _LEAST:
        across = next(
            (
                axis
                for s, kind in zip(steps[1:], classes[1:], strict=True)
                for axis in range(rank - 1)
                if kind == "s" and s[axis] == 1 and sizes[axis] >= _LEAST
            ),
            -1,
        )
    if across >= 0:
        kinds = [
            "t" if j and kind == "s" and s[across] == 1 else kind
            for j, (s, kind) in enumerate(zip(steps, classes, strict=True))
        ]
        classes = "".join(kinds)
    order = Nest(rank, classes, 0, across).order
    cut = next((a for a in order if sizes[a] >= _ENOUGH), max(order, key=lambda a: sizes[a]))
    return Nest(rank, classes, cut, across)


def nest_launch(
    build: Callable[..., Kernel],
    key: tuple[Any, ...],
    arguments: Sequence[Argument],
    shape: Shape,
    strides: Sequence[Strides],
    flops: int = 1,
    turns: bool = True,
    is_vector: bool = True,
) -> Launch:
    """A launch of ``build(*key, nest)`` over ``shape``; the first operand is the output.

    ``build`` makes the kernel with ``nest_kernel``, or with ``NestLoops`` where it ``turns`` no
    operand round. Where its last loop ``is_vector`` no loop, all steps are of class s: knowing one
    would gain nothing, and one kernel serves all.
    """
    sizes, steps = coalesce(shape, strides)
    nest = _nest_of(sizes, steps, turns, is_vector)
    if nest.across >= 0 and prod(sizes) >= _STREAMED:
        nest = nest._replace(streams=True)
    if nest.rank == 2 and nest.across < 0:
        # One kernel serves two axes and three: a loop of one turn costs next to nothing.
        sizes, steps = (sizes[0], 1, sizes[1]), [(s[0], 0, s[1]) for s in steps]
        nest = nest._replace(rank=3, cut=2 * nest.cut)
    numbers = [size for axis, size in enumerate(sizes) if axis != nest.cut]
    for step, kind in zip(steps, nest.classes, strict=True):
        numbers += step[:-1]
        if kind in "st":
            numbers.append(step[-1])
    spec = KernelSpec(build, (*key, nest))
    return Launch(spec, (*arguments, *numbers), sizes[nest.cut], prod(shape) * flops)


def nest_kernel(
    name: str,
    operands: Sequence[DType],
    nest: Nest,
    emit: Callable[[Builder, list[Operand]], Sequence[Operand]],
    results: int = 1,
) -> Kernel:
    """``outs[i...] = emit(k, [in[i...]...])``; ``operands`` are the dtypes, the outputs' first."""
    from treadle.ir.loop import Builder  # only where a kernel is built

    return _NestPrinter(Builder(_kernel_name(name, nest)), operands, nest, emit, results).kernel()


def _kernel_name(name: str, nest: Nest) -> str:
    across = f"x{nest.across}" if nest.across >= 0 else ""
    return f"{name}_{nest.rank}{nest.classes}_{nest.cut}{across}{'n' * nest.streams}"


class NestLoops:
    """The loops of a nest as a kernel has them; made after the kernel's own parameters."""

    def __init__(self, k: Builder, nest: Nest) -> None:
        from treadle.ir.loop import BEGIN, END

        self.k, self.nest = k, nest
        zero = k.const(0, dtypes.int64)
        self.bounds: list[tuple[Operand, Operand]] = [
            (BEGIN, END) if axis == nest.cut else (zero, k.size(f"n{axis}"))
            for axis in range(nest.rank)
        ]
        self.strides: list[list[Value | int]] = []
        for j, kind in enumerate(nest.classes):
            row: list[Value | int] = [k.size(f"s{j}_{axis}") for axis in range(nest.rank - 1)]
            row.append({"c": 1, "b": 0}[kind] if kind in "cb" else k.size(f"s{j}_{nest.rank - 1}"))
            self.strides.append(row)

    def moved(self, bases: Sequence[Operand], axis: int, i: Operand) -> list[Operand]:
        """The offsets of all operands after ``i`` steps along an axis."""
        k = self.k
        return [k.add(b, k.mul(i, s[axis])) for b, s in zip(bases, self.strides, strict=True)]

    def over(self, axes: Sequence[int], body: Callable[[list[Operand]], None]) -> None:
        """Serial loops over ``axes``, with the offsets of all operands for their ``body``."""

        def enter(left: Sequence[int], at: list[Operand]) -> None:
            if not left:
                body(at)
                return
            with self.k.loop(*self.bounds[left[0]]) as i:
                enter(left[1:], self.moved(at, left[0], i))

        enter(axes, [self.k.const(0, dtypes.int64)] * len(self.strides))


class _NestPrinter:
    """A nest of which every element is computed alike."""

    def __init__(
        self, k: Builder, operands: Sequence[DType], nest: Nest,
        emit: Callable[[Builder, list[Operand]], Sequence[Operand]], results: int,
    ) -> None:  # fmt: skip
        self.k, self.nest, self.emit, self.results, self.dtypes = k, nest, emit, results, operands
        # A byte that is turned round is no truth value on the way.
        self.pointers = [
            k.pointer(f"p{j}", dtypes.uint8 if kind == "t" and dtype.kind == "b" else dtype)
            for j, (dtype, kind) in enumerate(zip(operands, nest.classes, strict=True))
        ]
        self.loops = NestLoops(k, nest)
        self.tiles = {
            j: _Tile(k, self.pointers[j]) for j, kind in enumerate(nest.classes) if kind == "t"
        }

    def kernel(self) -> Kernel:
        """The whole kernel."""
        if self.tiles:
            self.loops.over(self.nest.order[:-2], self._tiled)
        else:
            self.loops.over(self.nest.order[:-1], self._line)
        return self.k.kernel

    def _line(self, bases: Sequence[Operand]) -> None:
        """The innermost loop."""
        last = self.nest.rank - 1
        with self.k.loop(*self.loops.bounds[last], kind="vector") as i:
            at = self.loops.moved(bases, last, i)
            self._element(at, self.pointers, at)

    def _element(
        self, outs: Sequence[Operand], pointers: Sequence[Pointer], at: Sequence[Operand]
    ) -> None:
        """One element: from ``pointers[j][at[j]]`` to the results at ``outs``."""
        k, results = self.k, self.results
        values: list[Operand] = [
            k.convert(k.load(p, a), dtype)
            for p, a, dtype in zip(
                pointers[results:], at[results:], self.dtypes[results:], strict=True
            )
        ]
        for pointer, place, value in zip(self.pointers, outs, self.emit(k, values), strict=False):
            k.store(pointer, place, value, self.nest.streams)

    def _tiled(self, bases: Sequence[Operand]) -> None:
        """The two inner loops by tiles, whose operands of class t are turned round first."""
        k, moved = self.k, self.loops.moved
        across, along = self.nest.order[-2:]
        (first, last), (left, right) = self.loops.bounds[across], self.loops.bounds[along]
        with k.loop(first, last, _TILE) as row, k.loop(left, right, _TILE) as column:
            rows = k.minimum(k.sub(last, row), _TILE)
            columns = k.minimum(k.sub(right, column), _TILE)
            corner = moved(moved(bases, across, row), along, column)
            for j, tile in self.tiles.items():
                tile.fill(corner[j], self.loops.strides[j][along], rows, columns)
            pointers = [
                self.tiles[j].memory if j in self.tiles else p for j, p in enumerate(self.pointers)
            ]
            with k.loop(0, rows) as i:
                start = moved(corner, across, i)
                with k.loop(0, columns, kind="vector") as x:
                    at = moved(start, along, x)
                    inside = k.add(k.mul(i, _TILE), x)
                    places = [inside if j in self.tiles else a for j, a in enumerate(at)]
                    self._element(at, pointers, places)


class _Tile:
    """A square of an operand in the cache, with its columns as rows."""

    def __init__(self, k: Builder, source: Pointer) -> None:
        self.k, self.source = k, source
        self.memory = k.local(source.dtype, _TILE * _TILE)
        self.block = min(max(16 // source.dtype.itemsize, 4), 8)
        self.square = k.local(source.dtype, self.block * self.block)

    def fill(self, corner: Operand, stride: Operand | int, rows: Operand, columns: Operand) -> None:
        """``memory[i * _TILE + j] = source[corner + i + j * stride]`` for i < rows, j < columns."""
        k, block = self.k, self.block
        whole_rows, whole_columns = (k.op("and", n, -block) for n in (rows, columns))
        with k.loop(0, whole_columns, block) as j, k.loop(0, whole_rows, block) as i:
            k.transpose(self.square, self.source, self._at(corner, stride, i, j), stride, block)
            for row in range(block):
                with k.loop(0, block, kind="vector") as x:
                    place = k.add(k.mul(k.add(i, row), _TILE), k.add(j, x))
                    k.store(self.memory, place, k.load(self.square, k.add(x, row * block)))
        self._copy(corner, stride, (whole_rows, rows), (0, whole_columns))
        self._copy(corner, stride, (0, rows), (whole_columns, columns))

    def _at(self, corner: Operand, stride: Operand | int, i: Operand, j: Operand) -> Operand:
        return self.k.add(self.k.add(corner, i), self.k.mul(j, stride))

    def _copy(
        self, corner: Operand, stride: Operand | int, rows: tuple[Operand | int, Operand],
        columns: tuple[Operand | int, Operand],
    ) -> None:  # fmt: skip
        """What is left over beside the blocks."""
        k = self.k
        with k.loop(*columns) as j, k.loop(*rows) as i:
            value = k.load(self.source, self._at(corner, stride, i, j))
            k.store(self.memory, k.add(k.mul(i, _TILE), j), value)


def _copy_kernel(short: str, nest: Nest) -> Kernel:
    dtype = dtypes.by_short(short)
    return nest_kernel(f"copy_{short}", (dtype, dtype), nest, lambda k, x: x)


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


__all__ = ["Nest", "NestLoops", "coalesce", "copy_launch", "nest_kernel", "nest_launch"]
